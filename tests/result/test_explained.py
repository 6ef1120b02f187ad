"""The share of V that is explained: beside the means of its columns, for every kind of data and every loss."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import nmf_xp
from nmf_xp import Robust, RowBlocks, nmf, select_rank, transform
from nmf_xp.testing import Target, oracle
from tests import compiled
from tests.problems import BRANCHES, noisy

FEW: dict[str, Any] = {"random_state": 0, "max_iter": 30}
V = noisy(14, 9, 3).V + 0.1


def of_means(V: Any, beta: float, weights: Any = 1.0, exposure: Any = 1.0) -> float:
    """The least of D(V | exposure * c) over rows c, entry by entry."""
    weights, exposure = (np.broadcast_to(x, V.shape) for x in (weights, exposure))
    total = 0.0
    for j in range(V.shape[1]):
        v, w, e = V[:, j], weights[:, j], exposure[:, j]
        inside = w > 0
        v, w, e = v[inside], w[inside], e[inside]
        if not v.size:
            continue
        c = (w * v * e ** (beta - 1)).sum() / (w * e**beta).sum()
        each = [
            oracle.divergence(np.full((1, 1), a), np.full((1, 1), b * c), np.ones((1, 1)), beta)
            for a, b in zip(v, e, strict=True)
        ]
        total += float((w * np.asarray(each)).sum())
    return total


@pytest.mark.parametrize("beta", BRANCHES)
def test_it_is_beside_the_means_of_the_columns(target: Target, beta: float) -> None:
    given = target.asarray(V)
    result = (
        nmf(given, 3, beta_loss=beta, **FEW)
        if not target.compiled
        else compiled.factorize(
            target, given, *map(target.asarray, (np.ones((14, 3)), np.ones((3, 9)))), beta_loss=beta
        )
    )
    if target.compiled:
        with pytest.raises(ValueError, match="`explained` needs V, which this result does not know"):
            _ = result.explained
        return
    expected = 1 - result.divergence / of_means(V, beta)
    assert result.explained == pytest.approx(expected, rel=1e-9)
    assert type(result.explained) is float


@pytest.mark.parametrize("beta", [2, 1, 0.5])
@pytest.mark.parametrize("scale", [1e-150, 1.0, 1e100])
def test_it_does_not_depend_on_the_unit(beta: float, scale: float) -> None:
    expected = nmf(V, 3, beta_loss=beta, **FEW).explained
    assert nmf(scale * V, 3, beta_loss=beta, **FEW).explained == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("beta", [2, 1, 0, 1.5])
def test_it_sees_weights_exposures_and_what_is_missing(beta: float) -> None:
    rng = np.random.default_rng(0)
    weights, exposure = rng.integers(0, 3, V.shape).astype(float), 0.5 + rng.random(V.shape)
    weights[:, 4] = 0  # a column that nobody saw
    result = nmf(V, 3, beta_loss=beta, weights=weights, exposure=exposure, **FEW)
    expected = 1 - result.divergence / of_means(V, beta, weights, exposure)
    assert result.explained == pytest.approx(expected, rel=1e-9)
    holes = np.where(weights > 0, V, np.nan)
    result = nmf(holes, 3, beta_loss=beta, missing="nan", **FEW)
    assert result.explained == pytest.approx(1 - result.divergence / of_means(V, beta, weights > 0), rel=1e-9)
    row = weights[:, :1] + 1
    result = nmf(V, 3, beta_loss=beta, weights=row, **FEW)
    assert result.explained == pytest.approx(1 - result.divergence / of_means(V, beta, row), rel=1e-9)


@pytest.mark.parametrize("beta", [2, 1])
def test_sparse_data_and_blocks_have_that_of_their_numbers(beta: float) -> None:
    sparse: Any = pytest.importorskip("scipy.sparse")
    dense = np.where(np.random.default_rng(0).random((60, 40)) < 0.2, 1.0, 0.0) * 3
    dense[:, 0] += 1
    for given, options in (
        (sparse.csr_array(dense), {}),
        (sparse.csr_array(dense), {"weights": 1.0 + np.arange(60.0)[:, None]}),
        (sparse.csr_array(dense), {"absent": "missing"}),
        (RowBlocks([dense[:25], dense[25:]]), {}),
        (RowBlocks([sparse.csr_array(dense[:25]), sparse.csr_array(dense[25:])]), {}),
    ):
        weights = options.get("weights", 1.0) if "absent" not in options else dense > 0
        result = nmf(given, 3, beta_loss=beta, **options, **FEW)
        assert result.explained == pytest.approx(1 - result.divergence / of_means(dense, beta, weights), rel=1e-9)


def test_a_stack_has_one_for_each_member() -> None:
    stack = np.stack([V, V[::-1] ** 2])
    result = nmf(stack, 2, beta_loss=1, **FEW)
    expected = [1 - float(d) / of_means(x, 1) for d, x in zip(result.divergence, stack, strict=True)]
    np.testing.assert_allclose(result.explained, expected, rtol=1e-9)
    assert result[1].explained == pytest.approx(expected[1])
    best = nmf(V, 2, n_restarts=3, keep_restarts=True, **FEW)
    assert best.restarts is not None
    assert max(one.explained for one in best.restarts) == best.explained


def test_members_in_units_far_apart_have_their_own() -> None:
    stack = np.stack([1e-200 * V, 1e200 * V])
    result = nmf(stack, 2, beta_loss=1, **FEW)
    expected = nmf(np.stack([V, V]), 2, beta_loss=1, **FEW).explained
    np.testing.assert_allclose(result.explained, expected, rtol=1e-5)


def test_the_ends_of_its_scale() -> None:
    exact = np.outer(np.arange(1.0, 6), np.arange(1.0, 5))
    assert nmf(exact, 1, random_state=0).explained == pytest.approx(1)
    means = np.tile(V.mean(axis=0), (14, 1))
    constant = transform(V, V.mean(axis=0)[None, :], init=np.ones((14, 1)), max_iter=1, upper_w=1.0).explained
    assert 0 <= constant < 1
    assert np.isnan(nmf(means, 1, random_state=0).explained)  # there is nothing to explain
    far = transform(V, V[:1, ::-1] ** 8 + 1e-9, max_iter=1)
    assert far.explained < 0


def test_without_one_component_less_is_explained() -> None:
    parts = np.kron(np.eye(3), np.ones((4, 3))) * np.asarray([[1.0], [3.0], [1.0]] * 4)
    result = nmf(
        parts, 3, init=(np.kron(np.eye(3), np.ones((4, 1))), np.kron(np.eye(3), np.ones((1, 3)))), max_iter=300
    )
    lost = result.explained_by_component
    assert lost.shape == (3,)
    for k in range(3):
        W = result.W.copy()
        W[:, k] = W[:, k].mean()
        reference = of_means(parts, 2)
        expected = (float(nmf_xp.beta_divergence(parts, W, result.H)) - result.divergence) / reference
        assert lost[k] == pytest.approx(expected)
    assert (lost > 0.1).all()
    even = nmf(V, 2, beta_loss=1, **FEW)
    same = np.hstack([even.W, np.ones((14, 1))]), np.vstack([even.H, np.full((1, 9), 1e-3)])
    assert nmf(V, 3, beta_loss=1, init=same, max_iter=1).explained_by_component[2] < 0.05


def test_v_is_left_out_of_pickles_and_copies() -> None:
    big = np.random.default_rng(0).random((400, 300))
    result = nmf(big, 1, max_iter=3, random_state=0)
    assert result._seen.V is big  # no copy was made
    assert len(pickle.dumps(result)) < big.nbytes / 10
    for other in (pickle.loads(pickle.dumps(result)), copy.deepcopy(result)):
        with pytest.raises(ValueError, match="`explained` needs V"):
            _ = other.explained
    known = result.explained
    assert pickle.loads(pickle.dumps(result)).explained == known


def test_where_it_is_not_known_it_says_why() -> None:
    da = pytest.importorskip("dask.array")
    with pytest.raises(ValueError, match="without `Robust`"):
        _ = nmf(V, 2, beta_loss=Robust(), **FEW).explained
    with pytest.raises(ValueError, match="got a dask array"):
        _ = nmf(da.from_array(V, chunks=(7, 9)), 2, **FEW).explained
    with pytest.raises(ValueError, match="one member of a stack"):
        _ = nmf(np.stack([V, V]), 2, **FEW).explained_by_component


def test_the_best_of_each_rank_explains_more() -> None:
    chosen = select_rank(V, [1, 2, 3], rule="stability", n_restarts=3, random_state=0)
    explained = [chosen.best[rank].explained for rank in (1, 2, 3)]
    assert explained == sorted(explained)
    assert 0 <= explained[0]
