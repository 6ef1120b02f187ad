"""Weights and missing values, on every backend."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nmf_xp import beta_divergence, nmf, transform, update_w
from nmf_xp.testing import Target, oracle
from tests.compiled import eagerly
from tests.problems import BETAS, noisy

FIXED: dict[str, Any] = {"max_iter": 20, "tol": 0}


def masked(beta: float) -> tuple[Any, Any, Any, Any]:
    """A problem, and weights of which a third are zero."""
    V, W, H = noisy(7, 5, 3, zeros=beta > 0)
    rng = np.random.default_rng(5)
    return V, W, H, rng.uniform(0.5, 2.0, V.shape) * (rng.random(V.shape) < 0.67)


@eagerly
@pytest.mark.parametrize("beta", BETAS)
def test_weights_of_one_equal_none(target: Target, beta: float) -> None:
    V, W, H, _ = (target.asarray(x) for x in masked(beta))
    plain = nmf(V, 3, init=(W, H), solver="mu", beta_loss=beta, **FIXED)
    for shape in ((7, 5), (1, 5), (7, 1), ()):
        ones = target.asarray(np.ones(shape))
        weighted = nmf(V, 3, init=(W, H), solver="mu", beta_loss=beta, weights=ones, **FIXED)
        np.testing.assert_allclose(target.to_numpy(weighted.W), target.to_numpy(plain.W), rtol=1e-11, atol=1e-60)
        assert weighted.divergence == pytest.approx(plain.divergence, rel=1e-12)


@eagerly
@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("behind", [1e30, float("nan"), float("inf"), -1.0])
def test_what_is_behind_a_mask_is_never_read(target: Target, beta: float, behind: float) -> None:
    V, W, H, weights = masked(beta)
    given = [target.asarray(x) for x in (W, H, weights)]
    results = [
        nmf(target.asarray(x), 3, init=(given[0], given[1]), solver="mu", beta_loss=beta, weights=given[2], **FIXED)
        for x in (V, np.where(weights > 0, V, behind))
    ]
    np.testing.assert_array_equal(target.to_numpy(results[0].W), target.to_numpy(results[1].W))
    assert results[0].divergence == results[1].divergence
    one = update_w(target.asarray(np.where(weights > 0, V, behind)), *given[:2], beta_loss=beta, weights=given[2])
    assert np.isfinite(target.to_numpy(one)).all()


@eagerly
@pytest.mark.parametrize("beta", BETAS)
def test_nan_is_missing_when_it_is_said_to_be(target: Target, beta: float) -> None:
    V, W, H, weights = masked(beta)
    holes = target.asarray(np.where(weights > 0, V, np.nan))
    W, H = target.asarray(W), target.asarray(H)
    options: dict[str, Any] = {"init": (W, H), "solver": "mu", "beta_loss": beta, **FIXED}
    missing = nmf(holes, 3, missing="nan", **options)
    mask = nmf(target.asarray(V), 3, weights=target.asarray(weights > 0), **options)
    np.testing.assert_array_equal(target.to_numpy(missing.W), target.to_numpy(mask.W))
    with pytest.raises(ValueError, match=r"`V` must be finite, got NaN at index .*say missing='nan'"):
        nmf(holes, 3, **options)


@pytest.mark.parametrize("beta", BETAS)
def test_the_weighted_divergence_is_the_weighted_sum_and_never_rises(beta: float) -> None:
    V, W, H, weights = masked(beta)
    expected = float(np.sum(weights * oracle.entry_divergence(V, W @ H, beta)))
    assert float(beta_divergence(V, W, H, beta_loss=beta, weights=weights)) == pytest.approx(expected, rel=1e-12)
    history = nmf(
        V, 3, init=(W, H), solver="mu", beta_loss=beta, weights=weights, check_every=1, tol=1e-14, max_iter=100
    ).history
    assert history[0] == pytest.approx(expected, rel=1e-9)
    assert np.max(np.diff(history)) <= 1e-13 * history[0]


def test_held_out_entries_are_predicted_from_the_others() -> None:
    rng = np.random.default_rng(0)
    V = rng.poisson(20 * rng.random((60, 3)) @ rng.random((3, 40))).astype(float)
    kept = rng.random(V.shape) < 0.9
    result = nmf(V, 3, solver="mu", beta_loss=1, weights=kept, random_state=0)
    held_out = 1.0 - kept
    found = float(beta_divergence(V, result.W, result.H, beta_loss=1, weights=held_out))
    mean = np.full_like(V, np.sum(V * kept) / np.sum(kept))
    constant = float(beta_divergence(V, mean[:, :1], np.ones((1, 40)), beta_loss=1, weights=held_out))
    assert found < 0.5 * constant


@eagerly
def test_a_row_without_observations_gets_no_loadings(target: Target) -> None:
    V, _W, H, weights = masked(1)
    weights[2], weights[:, 4] = 0, 0
    result = nmf(target.asarray(V), 3, random_state=0, solver="mu", beta_loss=1, weights=target.asarray(weights))
    assert target.to_numpy(result.W)[2].max() < 1e-100
    assert target.to_numpy(result.H)[:, 4].max() < 1e-100
    assert np.isfinite(target.to_numpy(result.W)).all()
    moved = transform(target.asarray(V), target.asarray(H), solver="mu", beta_loss=1, weights=target.asarray(weights))
    assert target.to_numpy(moved.W)[2].max() < 1e-100


@pytest.mark.parametrize("dtype", [bool, np.int32, np.float32, np.float64])
def test_weights_of_any_real_dtype(dtype: Any) -> None:
    V, W, H, weights = masked(1)
    expected = nmf(V, 3, init=(W, H), solver="mu", beta_loss=1, weights=(weights > 0).astype(float), **FIXED)
    found = nmf(V, 3, init=(W, H), solver="mu", beta_loss=1, weights=(weights > 0).astype(dtype), **FIXED)
    np.testing.assert_array_equal(found.W, expected.W)


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        (-np.ones((7, 5)), ValueError, "`weights` must be non-negative, got -1"),
        (np.full((7, 5), np.nan), ValueError, "`weights` must be finite, got NaN"),
        (np.zeros((7, 5)), ValueError, "`V` must have an observed entry, got none"),
        (np.ones((5, 7)), ValueError, r"`weights` must have shape \(7, 5\) or broadcast to it, got \(5, 7\)"),
        (np.ones((2, 7, 5)), ValueError, r"`weights` must have shape \(7, 5\) or broadcast to it, got \(2, 7, 5\)"),
        (np.ones((7, 5), dtype=complex), TypeError, "`weights` must be real or boolean, got dtype complex128"),
        ({"a": 1.0}, TypeError, "pass a NumPy array of its values: `weights` must be an array"),
    ],
)
def test_bad_weights(weights: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match="^" + message):
        nmf(noisy(7, 5, 3).V, 3, weights=weights)
