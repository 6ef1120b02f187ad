"""Stacks of matrices and restarts: every member is what it would be alone, and ends for itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from nmf_xp import Progress, Status, nmf, transform
from tests.compiled import eagerly
from tests.problems import noisy

if TYPE_CHECKING:
    from pathlib import Path

    from nmf_xp.testing import Target


def stack() -> Any:
    """Three matrices that take different numbers of iterations."""
    V = np.stack([noisy(7, 5, 3, seed=seed).V for seed in range(3)])
    V[1] *= 100
    return V


def assert_same(target: Target, member: Any, alone: Any) -> None:
    assert member.n_iter == alone.n_iter
    assert member.status is alone.status
    assert len(member.history) == len(alone.history)
    assert member.divergence == pytest.approx(alone.divergence, rel=1e-10)
    np.testing.assert_allclose(target.to_numpy(member.W), target.to_numpy(alone.W), rtol=1e-8, atol=1e-12)


@eagerly
@pytest.mark.parametrize("penalty", [{}, {"alpha_W": 0.01, "l1_ratio": 0.5}], ids=["plain", "penalised"])
def test_a_member_of_a_stack_equals_the_same_problem_alone(target: Target, penalty: dict[str, float]) -> None:
    V = stack()
    options: dict[str, Any] = {"solver": "mu", "beta_loss": 1, "max_iter": 300, **penalty}
    found = nmf(target.asarray(V), 3, random_state=np.random.default_rng(0), **options)
    rng = np.random.default_rng(0)
    assert len(set(found.n_iter.tolist())) > 1, "they should not all end at once"
    for i in range(3):
        assert_same(target, found[i], nmf(target.asarray(V[i]), 3, random_state=rng, **options))


@eagerly
def test_weights_of_a_stack(target: Target) -> None:
    V = stack()
    weights = (np.random.default_rng(1).random(V.shape) < 0.8).astype(float)
    W, H = noisy(7, 5, 3).W, noisy(7, 5, 3).H
    start = (target.asarray(W), target.asarray(H))
    options: dict[str, Any] = {"solver": "mu", "beta_loss": 1, "init": start, "max_iter": 300}
    found = nmf(target.asarray(V), 3, weights=target.asarray(weights), **options)
    for i in range(3):
        assert_same(target, found[i], nmf(target.asarray(V[i]), 3, weights=target.asarray(weights[i]), **options))


@eagerly
def test_several_leading_axes(target: Target) -> None:
    V = np.stack([stack(), 2 * stack()])
    options: dict[str, Any] = {"solver": "mu", "beta_loss": 1, "random_state": 0, "max_iter": 10, "tol": 0}
    found = nmf(target.asarray(V), 3, **options)
    flat = nmf(target.asarray(V.reshape(6, 7, 5)), 3, **options)
    assert tuple(found.W.shape) == (2, 3, 7, 3)
    assert tuple(found.H.shape) == (2, 3, 3, 5)
    np.testing.assert_array_equal(target.to_numpy(found.W).reshape(6, 7, 3), target.to_numpy(flat.W))
    np.testing.assert_array_equal(found.divergence, flat.divergence)


@eagerly
def test_restarts_are_the_runs_that_they_would_be_one_by_one(target: Target) -> None:
    V = target.asarray(noisy(7, 5, 3).V)
    options: dict[str, Any] = {"solver": "mu", "beta_loss": 1, "max_iter": 300}
    found = nmf(V, 3, n_restarts=4, keep_restarts=True, random_state=0, **options)
    assert found.restarts is not None
    rng = np.random.default_rng(0)
    alone = [nmf(V, 3, random_state=rng, **options) for _ in range(4)]
    for i in range(4):
        assert_same(target, found.restarts[i], alone[i])
    best = min(alone, key=lambda result: result.divergence)
    assert_same(target, found, best)
    first = nmf(V, 3, random_state=0, **options)
    assert_same(target, found.restarts[0], first)


def test_restarts_are_dropped_unless_kept() -> None:
    found = nmf(noisy(7, 5, 3).V, 3, n_restarts=3, random_state=0)
    assert found.restarts is not None
    assert found.restarts.W.shape == (0, 7, 3)
    assert found.restarts.divergence.shape == (3,)
    assert found.divergence == found.restarts.divergence.min()
    assert isinstance(found.status, Status)


def test_a_stack_of_starts_is_run_like_restarts() -> None:
    V = noisy(7, 5, 3).V
    rng = np.random.default_rng(0)
    W, H = rng.random((4, 7, 3)), rng.random((4, 3, 5))
    found = nmf(V, 3, init=(W, H), keep_restarts=True, solver="mu", beta_loss=1)
    assert found.restarts is not None
    alone = [nmf(V, 3, init=(W[i], H[i]), solver="mu", beta_loss=1) for i in range(4)]
    np.testing.assert_allclose(found.restarts.divergence, [x.divergence for x in alone], rtol=1e-12)
    with pytest.raises(ValueError, match="The stacks of `W` and `H` must have the same length"):
        nmf(V, 3, init=(W, H[:3]))


@eagerly
def test_transform_of_stacks(target: Target) -> None:
    V, H = stack(), np.stack([noisy(7, 5, 3, seed=seed).H for seed in range(3)])
    options: dict[str, Any] = {"solver": "mu", "beta_loss": 1, "max_iter": 200}
    each = transform(target.asarray(V), target.asarray(H), **options)
    shared = transform(target.asarray(V), target.asarray(H[0]), **options)
    several = transform(target.asarray(V[0]), target.asarray(H), **options)
    for i in range(3):
        assert_same(target, each[i], transform(target.asarray(V[i]), target.asarray(H[i]), **options))
        assert_same(target, shared[i], transform(target.asarray(V[i]), target.asarray(H[0]), **options))
        assert_same(target, several[i], transform(target.asarray(V[0]), target.asarray(H[i]), **options))


def test_a_callback_sees_every_member_and_stops_those_that_run() -> None:
    seen: list[Progress] = []

    def stop(progress: Progress) -> bool:
        seen.append(progress)
        return progress.iteration >= 30

    result = nmf(stack(), 3, solver="mu", beta_loss=1, random_state=0, callback=stop, tol=1e-12)
    assert [len(progress.divergence) for progress in seen] == [3, 3, 3]
    assert result.status == (Status.STOPPED,) * 3
    assert result.n_iter.tolist() == [30, 30, 30]


def test_a_progress_bar_of_restarts_shows_the_least_divergence(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tqdm", reason="tqdm is not installed")
    result = nmf(
        noisy(7, 5, 3).V * 1e200, 3, solver="mu", beta_loss=1, random_state=0, n_restarts=3, progress=True, tol=1e-12
    )
    assert f"divergence={result.divergence:.6g}" in capsys.readouterr().err


@pytest.mark.parametrize("solver", ["mu", "newton"])
def test_stacks_inside_a_compiled_function(solver: str) -> None:
    jax = pytest.importorskip("jax", reason="jax is not installed")
    V = jax.numpy.asarray(stack())
    options: dict[str, Any] = {"solver": solver, "beta_loss": 1, "random_state": 0, "max_iter": 300}
    eager = nmf(V, 3, **options)
    compiled = jax.jit(lambda V: nmf(V, 3, **options))(V)
    np.testing.assert_array_equal(eager.n_iter, compiled.n_iter)
    if solver == "newton":  # in a compiled function no other solver is asked whether a run has converged
        assert eager.status == compiled.status
    np.testing.assert_allclose(np.asarray(eager.W), np.asarray(compiled.W), rtol=1e-9, atol=1e-8)
    assert [len(history) for history in compiled.history] == [len(history) for history in eager.history]


def test_restarts_compile_nothing_the_second_time() -> None:
    jax = pytest.importorskip("jax", reason="jax is not installed")
    V = jax.numpy.asarray(noisy(7, 5, 3).V)
    options: dict[str, Any] = {"solver": "mu", "beta_loss": 1, "random_state": 0, "n_restarts": 4}
    nmf(V, 3, **options)
    compiled: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event) if "backend_compile" in event else None
    )
    nmf(V, 3, **options)
    assert compiled == []


@pytest.mark.parametrize(
    ("V", "options", "message"),
    [
        (noisy(7, 5, 3).V, {"n_restarts": 0}, "`n_restarts` must be an integer of at least 1, got 0"),
        (
            noisy(7, 5, 3).V,
            {"n_restarts": 2, "init": "nndsvda"},
            "`n_restarts` above 1 needs one matrix V, init='random'",
        ),
        (stack(), {"n_restarts": 2}, "`n_restarts` above 1 needs one matrix V, init='random'"),
    ],
)
def test_bad_restarts(V: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="^" + message):
        nmf(V, 3, **options)


def test_only_a_stack_has_members() -> None:
    with pytest.raises(TypeError, match="only the result of a stack with one axis has members"):
        nmf(noisy(7, 5, 3).V, 3, random_state=0)[0]
    with pytest.raises(IndexError, match="the stack has 3 members, got index 3"):
        nmf(stack(), 3, random_state=0)[3]


@eagerly
@pytest.mark.parametrize("beta", [-1, 0, 1, 2])
def test_members_in_units_far_apart_are_what_they_are_alone(target: Target, beta: float) -> None:
    V = noisy(9, 7, 3).V
    scales = (1e200, 1e-200, 1.0, 1e100)
    options: dict[str, Any] = {"beta_loss": beta, "max_iter": 20, "tol": 0, "random_state": np.random.default_rng(3)}
    found = nmf(target.asarray(np.stack([scale * V for scale in scales])), 2, **options)
    options["random_state"] = np.random.default_rng(3)
    assert found.W.shape == (4, 9, 2)
    for i, scale in enumerate(scales):
        alone = nmf(target.asarray(scale * V), 2, **options)
        for name in ("W", "H"):
            expected = target.to_numpy(getattr(alone, name))
            np.testing.assert_array_equal(target.to_numpy(getattr(found, name)[i, ...]), expected)
            assert expected.max() > 0
        assert float(found.divergence[i]) == float(alone.divergence)
        assert found[i].status is alone.status


def test_what_goes_with_members_in_units_far_apart_is_theirs() -> None:
    V, rng = noisy(9, 7, 3).V, np.random.default_rng(0)
    scales = np.asarray([1e200, 1e-200])[:, None, None]
    W, H = rng.random((2, 9, 3)) * scales, rng.random((2, 3, 7))
    weights, bound = rng.random((2, 9, 7)), np.asarray([[0.5, 1e300, 1e300]])
    options: dict[str, Any] = {"upper_w": bound, "alpha_W": 0.1, "beta_loss": 1, "max_iter": 20, "tol": 0}
    stack = scales * V
    found = nmf(stack, 3, init=(W, H), weights=weights, **options)
    loadings = transform(stack, H, init=W, weights=weights, **options)
    several = nmf(stack[None], 3, init=(W[None], H[None]), weights=weights[None], **options)
    for i in range(2):
        alone = nmf(stack[i], 3, init=(W[i], H[i]), weights=weights[i], **options)
        np.testing.assert_array_equal(found.W[i], alone.W)
        np.testing.assert_array_equal(several.W[0, i], alone.W)
        assert found.objective[i] == alone.objective
        other = transform(stack[i], H[i], init=W[i], weights=weights[i], **options)
        np.testing.assert_array_equal(loadings.W[i], other.W)
    np.testing.assert_array_equal(loadings.H, H)


def test_a_stack_of_usual_data_is_run_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from nmf_xp.run import members

    def never(*_: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr(members, "Apart", never)
    V = noisy(9, 7, 3).V
    for stack in ([V, 1e6 * V, 1e-6 * V], [1e300 * V, 1e290 * V], [V, 0 * V]):
        assert nmf(np.stack(stack), 2, max_iter=5, random_state=0).W.shape == (len(stack), 9, 2)


def test_small_matrices_are_run_as_one() -> None:
    """What is for one matrix would take them one by one: 3000 of 3 x 3 took 40 times as long by `cd`."""
    stack = np.random.default_rng(0).random((50, 3, 3))
    assert nmf(stack, 2, random_state=0, max_iter=10).solver == "mm"
    assert nmf(stack[0], 2, random_state=0, max_iter=10).solver == "cd"
    assert nmf(np.ones((2, 70, 60)), 2, random_state=0, max_iter=10).solver == "cd"


@pytest.mark.parametrize("options", [{"callback": lambda _: None}, {"progress": True}, {"checkpoint": "run.npz"}])
def test_what_sees_a_whole_stack_is_refused_where_its_members_lie_apart(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    V = noisy(9, 7, 3).V
    with pytest.raises(ValueError, match="must be left out for a stack whose members are in units far apart"):
        nmf(np.stack([V, 1e250 * V]), 2, random_state=0, **options)
    assert list(tmp_path.iterdir()) == []
