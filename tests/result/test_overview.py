"""The cells of V, WH and V - WH, and the divergence from the mean, against NumPy, for every kind of data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nmf_xp.result import overview as module
from nmf_xp.result.overview import Overview, overview
from nmf_xp.testing import Target, oracle
from tests.compiled import eagerly
from tests.data.test_sparse import FORMATS
from tests.problems import BRANCHES, Matrix, noisy


def means(x: Matrix, weights: Matrix, limit: int) -> Matrix:
    """Weighted means over at most `limit` cells along each axis, one by one."""
    starts = [[i * length // min(length, limit) for i in range(min(length, limit))] + [length] for length in x.shape]
    found = np.full([len(ends) - 1 for ends in starts], np.nan)
    for i, j in np.ndindex(*found.shape):
        cell = np.s_[starts[0][i] : starts[0][i + 1], starts[1][j] : starts[1][j + 1]]
        if weights[cell].sum() > 0:
            found[i, j] = np.average(x[cell], weights=weights[cell])
    return found


def check(seen: Overview, V: Matrix, W: Matrix, H: Matrix, *, beta: float, limit: int, weights: Any = None) -> None:
    weights = np.ones_like(V) if weights is None else np.broadcast_to(weights, V.shape)
    known = np.where(weights > 0, V, 0.0)
    np.testing.assert_allclose(seen.data, means(known, weights, limit), rtol=1e-10)
    np.testing.assert_allclose(seen.model, means(W @ H, np.ones_like(V), limit), rtol=1e-10)
    np.testing.assert_allclose(seen.residual, means(known - W @ H, weights, limit), rtol=1e-9, atol=1e-12 * known.max())
    if np.all(weights == 1):
        mean = np.full((len(V), 1), V.mean())
        assert seen.reference == pytest.approx(oracle.divergence(V, mean, np.ones((1, V.shape[1])), beta), rel=1e-10)


@eagerly
@pytest.mark.parametrize("limit", [3, 50])
def test_a_dense_matrix_on_every_backend(target: Target, limit: int) -> None:
    V, W, H = noisy(11, 8, 3)
    for beta in BRANCHES if limit == 50 else (1.0,):
        seen = overview(*(target.asarray(x) for x in (V, W, H)), beta=beta, limit=limit)
        assert all(type(cells) is np.ndarray for cells in seen[:3])
        check(seen, V, W, H, beta=beta, limit=limit)


@pytest.mark.parametrize(
    ("name", "batch"),
    [(name, 2**22) for name in ("csc_array", "unsorted", "torch coo", "jax BCOO", "pydata COO")]
    + [("csc_array", 20), ("torch coo", 20)],  # every row of cells by itself
)
def test_a_sparse_matrix(name: str, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    library, convert = FORMATS[name]
    pytest.importorskip(library, reason=f"{library} is not installed")
    monkeypatch.setattr(module, "BATCH", batch)
    V, W, H = noisy(11, 8, 3, zeros=True)
    sparse = convert(V)
    like = {"torch": "torch", "jax": "jax.numpy"}.get(library, "numpy")
    left, right = (pytest.importorskip(like).asarray(x) for x in (W, H))
    check(overview(sparse, left, right, beta=1, limit=4), V, W, H, beta=1, limit=4)
    stored = (V > 0) + 0.0
    if name in ("csc_array", "torch coo"):  # which store what is positive and nothing else
        seen = overview(sparse, left, right, beta=1, absent="missing", limit=20)
        check(seen, V, W, H, beta=1, limit=20, weights=stored)
        assert np.isnan(seen.residual[V == 0]).all()
    rows = 1.0 + np.arange(11.0)[:, None]
    seen = overview(sparse, left, right, beta=2, weights=pytest.importorskip(like).asarray(rows), limit=4)
    check(seen, V, W, H, beta=2, limit=4, weights=rows)


def test_what_is_missing_or_weighs_nothing_is_left_out() -> None:
    V, W, H = noisy(11, 8, 3)
    holes = V.copy()
    holes[2:5, :] = holes[:, 3] = np.nan
    seen = overview(holes, W, H, beta=2, missing="nan", limit=50)
    check(seen, V, W, H, beta=2, limit=50, weights=(~np.isnan(holes)).astype(float))
    np.testing.assert_array_equal(np.isnan(seen.data), np.isnan(holes))
    mean = np.nanmean(holes)
    assert seen.reference == pytest.approx(np.nansum((holes - mean) ** 2) / 2)
    weights = np.random.default_rng(0).integers(0, 3, V.shape).astype(float)
    check(overview(V, W, H, beta=2, weights=weights, limit=4), V, W, H, beta=2, limit=4, weights=weights)


@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_extreme_data_come_back_in_their_own_units(scale: float) -> None:
    V, W, H = noisy(7, 5, 3)
    seen = overview(V * scale, W * scale, H, beta=1, limit=3)
    np.testing.assert_allclose(seen.data / scale, means(V, np.ones_like(V), 3))
    np.testing.assert_allclose(seen.model / scale, means(W @ H, np.ones_like(V), 3))
    expected = overview(V, W, H, beta=1, limit=3).reference
    assert seen.reference / scale == pytest.approx(expected)


def test_zeros_only_have_no_divergence_from_their_mean() -> None:
    seen = overview(np.zeros((3, 2)), np.ones((3, 1)), np.ones((1, 2)), beta=1, limit=5)
    assert seen.reference == pytest.approx(0, abs=1e-100)
    np.testing.assert_array_equal(seen.residual, -np.ones((3, 2)))


def test_a_stack_and_factors_that_do_not_fit_are_refused() -> None:
    V, W, H = noisy(7, 5, 3)
    with pytest.raises(ValueError, match=r"`V` must be one matrix, got a stack of shape \(2, 7, 5\)"):
        overview(np.stack([V, V]), W, H, beta=2, limit=5)
    with pytest.raises(ValueError, match=r"`W` must have shape \(7, 3\), got \(6, 3\)"):
        overview(V, W[:6], H, beta=2, limit=5)
