"""Batch effects in stacks: shared labels or a vector for each member, restarts, and several labels a row."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import scipy.sparse

import nmf_xp
from nmf_xp import ConfoundingWarning
from nmf_xp.arrays import precision
from tests.compiled import eagerly
from tests.problem.test_batches import KL, SOLVERS, planted, table_of

if TYPE_CHECKING:
    from pathlib import Path

    from nmf_xp.testing import Target

nmf: Any = nmf_xp.nmf
transform: Any = nmf_xp.transform

M, N, K = 60, 24, 3
ONE, LABELS, *_ = planted(M, N)
RNG = np.random.default_rng(1)
V = np.stack([ONE, ONE[::-1], RNG.poisson(3.0, ONE.shape).astype(float)])
MIXED = RNG.permutation(LABELS)
EACH = np.stack([LABELS, LABELS[::-1], np.where(MIXED == "z", "other", MIXED)])
START = RNG.random((K, M, 3)) + 0.1, RNG.random((K, 3, N)) + 0.1
WEIGHTS = RNG.integers(0, 3, ONE.shape).astype(float)
OPTIONS: dict[str, Any] = {"max_iter": 12, "tol": 0, "beta_loss": 1.0}


def own(i: int, labels: Any) -> Any:
    return labels if np.ndim(labels) == 1 else labels[i]


@eagerly
@pytest.mark.parametrize("labels", [LABELS, EACH], ids=["shared", "own"])
def test_a_member_is_what_it_is_alone_on_every_backend(target: Target, labels: Any) -> None:
    stack = nmf(target.asarray(V), 3, batch=labels, init=tuple(map(target.asarray, START)), **OPTIONS)
    for i in range(K):
        alone = nmf(V[i], 3, batch=own(i, labels), init=(START[0][i], START[1][i]), solver=stack.solver, **OPTIONS)
        np.testing.assert_allclose(target.to_numpy(stack[i].W), alone.W, rtol=1e-6, atol=1e-9)
        for label, effects in alone.batch_effects.items():
            found = target.to_numpy(stack[i].batch_effects[label])
            np.testing.assert_allclose(found, effects, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("beside", [{}, {"weights": WEIGHTS}, {"batch_prior": 2.0}, {"exposure": WEIGHTS + 1}])
@pytest.mark.parametrize("solver", SOLVERS)
def test_the_same_for_every_solver_and_with_more_axes(solver: str, beside: dict[str, Any]) -> None:
    options: dict[str, Any] = {"solver": solver, **OPTIONS, **beside}
    stack = nmf(V[None], 3, batch=EACH[None].tolist(), init=tuple(x[None] for x in START), **options)
    assert stack.batch_effects["x"].shape == (1, K, N)
    np.testing.assert_array_equal(stack.batch_effects["z"][0, 2], 1)  # which this member does not have
    for i in range(K):
        alone = nmf(V[i], 3, batch=EACH[i], init=(START[0][i], START[1][i]), **options)
        np.testing.assert_allclose(stack.W[0, i], alone.W, rtol=1e-9, atol=1e-12)
        for label, effects in alone.batch_effects.items():
            np.testing.assert_allclose(stack.batch_effects[label][0, i], effects, rtol=1e-9, atol=1e-12)


def test_members_end_for_themselves_and_lie_apart() -> None:
    options: dict[str, Any] = {"batch": EACH, "beta_loss": 1.0, "tol": 1e-5, "max_iter": 500, "solver": "mu"}
    stack = nmf(V, 3, init=START, **options)
    assert len(set(stack.n_iter.tolist())) > 1
    scaled = nmf(V * np.asarray([1.0, 1e-150, 1e100])[:, None, None], 3, random_state=0, **options)
    assert scaled.batch_effects["x"].shape == (K, N)
    for i in range(K):
        alone = nmf(V[i], 3, init=(START[0][i], START[1][i]), **{**options, "batch": EACH[i]})
        assert stack.divergence[i] == pytest.approx(alone.divergence, rel=1e-9)


def test_transform_of_stacks_takes_the_effects_of_each_member() -> None:
    stack = nmf(V, 3, batch=EACH, init=START, **OPTIONS)
    found = transform(V, stack.H, batch=EACH, batch_effects=stack.batch_effects, **OPTIONS)
    for i in range(K):
        known = stack[i].batch_effects
        alone = transform(V[i], stack.H[i], batch=EACH[i], batch_effects=known, **OPTIONS)
        np.testing.assert_allclose(found[i].W, alone.W, rtol=1e-9, atol=1e-12)
    shared = transform(ONE, stack.H, batch=LABELS, beta_loss=1.0)  # several H for one V
    assert shared.batch_effects["x"].shape == (K, N)


@pytest.mark.parametrize("kind", [np.asarray, scipy.sparse.csr_array])
@pytest.mark.parametrize("beside", [{}, {"weights": WEIGHTS}, {"weights": WEIGHTS[:, :1]}])
def test_restarts_with_weights_and_of_sparse_data(kind: Any, beside: dict[str, Any]) -> None:
    several = nmf(kind(ONE), 3, batch=LABELS, n_restarts=3, keep_restarts=True, **beside, **KL)
    assert several.divergence == min(several.restarts.divergence)
    first = nmf(kind(ONE), 3, batch=LABELS, **beside, **KL)
    assert several.restarts.divergence[0] == pytest.approx(first.divergence, rel=1e-9)
    for i in range(3):
        np.testing.assert_allclose(table_of(several.restarts[i]), table_of(several.restarts)[:, i], rtol=0)


def test_checkpoints_of_stacks_and_restarts(tmp_path: Path) -> None:
    for name, data, labels in (("stack", V, EACH), ("restarts", ONE, LABELS)):
        options: dict[str, Any] = {"batch": labels, "tol": 0, **KL, "n_restarts": 3 if name == "restarts" else 1}
        kept: dict[str, Any] = {"checkpoint": tmp_path / f"{name}.npz", "checkpoint_every": 10}
        nmf(data, 3, max_iter=20, **kept, **options)
        resumed, whole = nmf(data, 3, max_iter=40, **kept, **options), nmf(data, 3, max_iter=40, **options)
        np.testing.assert_array_equal(resumed.W, whole.W)
        np.testing.assert_array_equal(table_of(resumed), table_of(whole))


def test_a_compiled_function_may_have_stacks() -> None:
    jax = importlib.import_module("jax")
    expected = nmf(V, 3, batch=EACH, init=START, solver="mu", **OPTIONS)
    with jax.enable_x64(True), precision.own_errors():
        run = jax.jit(lambda V, W, H: nmf(V, 3, batch=EACH, init=(W, H), solver="mu", **OPTIONS))
        result = run(V, *START)
    np.testing.assert_allclose(np.asarray(result.W), expected.W, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(table_of(result), table_of(expected), rtol=1e-6, atol=1e-9)


def test_a_component_of_one_batch_is_named_with_its_member() -> None:
    rng = np.random.default_rng(0)
    W, H = rng.dirichlet(np.full(3, 0.3), size=90), rng.gamma(0.3, size=(3, 40))
    labels = np.repeat(["a", "b", "c"], 30)
    W[labels != "c", 2] = 0
    counts = rng.poisson(300 * W @ H).astype(float)
    start = tuple(np.stack([x, np.roll(x, 30, axis=0) if x.shape[0] == 90 else x]) for x in (W + 1e-30, H + 1e-9))
    stack = np.stack([counts, np.roll(counts, 30, axis=0)])
    with pytest.warns(ConfoundingWarning, match="component 2 of member 0 in 'c', component 2 of member 1 in 'a'"):
        nmf(stack, 3, init=start, batch=labels, beta_loss=1.0, solver="mu")


def test_several_labels_a_row_are_combined() -> None:
    day = np.arange(M) % 2
    combined = list(zip(LABELS.tolist(), day.tolist(), strict=True))
    result = nmf(ONE, 3, batch=combined, **KL)
    assert len(result.batch_effects) == 6
    assert result.divergence == nmf(ONE, 3, batch=[f"{a}{b}" for a, b in combined], **KL).divergence
    known = transform(ONE, result, batch=combined)
    np.testing.assert_allclose(known.batch_effects["x", 0], result.batch_effects["x", 0], atol=1e-30)
    table = importlib.import_module("pandas").DataFrame({"donor": LABELS, "day": day})
    for several in ([LABELS, day], (LABELS.tolist(), day.tolist()), table, list(map(list, combined))):
        again = nmf(ONE, 3, batch=several, **KL)
        assert set(again.batch_effects) == set(combined)
        assert again.divergence == result.divergence
    one_column = nmf(ONE, 3, batch=LABELS[:, None], **KL)
    assert one_column.divergence == nmf(ONE, 3, batch=LABELS, **KL).divergence
    with pytest.raises(ValueError, match="got none for row 7"):
        nmf(ONE, 3, batch=[LABELS, [None if i == 7 else x for i, x in enumerate(day.tolist())]], **KL)
    with pytest.raises(ValueError, match=r"of several labels a row make one, `list\(zip\(donor, day\)\)`"):
        nmf(V, 3, batch=[[LABELS, day]] * 3, **KL)


def test_labels_that_do_not_fit_a_stack() -> None:
    for wrong in (EACH[:2], EACH[:, :-1], EACH[0, :-1]):
        with pytest.raises(ValueError, match=r"or for each of every member, \(3, 60\), got shape"):
            nmf(V, 3, batch=wrong, **KL)
    lacking = EACH.astype(object)
    lacking[1, 7] = None
    with pytest.raises(ValueError, match="got none for row 7 of member 1"):
        nmf(V, 3, batch=lacking, **KL)
