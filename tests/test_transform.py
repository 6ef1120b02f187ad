"""`transform`: the loadings of new rows on known components."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nmf_xp
from nmf_xp import Status
from nmf_xp.testing import Target, oracle
from nmf_xp.updates import factor_floor
from tests.compiled import eagerly
from tests.problems import BETAS, BRANCHES, DTYPES, noisy

TOLERANCE = {"float32": 1e-4, "float64": 1e-10}


@pytest.mark.parametrize("beta", BRANCHES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_fifty_iterations_agree_with_the_oracle(target: Target, beta: float, dtype: str) -> None:
    V, W, H = (x.astype(dtype) for x in noisy(7, 5, 3, zeros=beta > 0))
    given = [target.asarray(x) for x in (V, H, W)]
    run = target.compile(
        lambda V, H, W: nmf_xp.transform(V, H, init=W, solver="mu", beta_loss=beta, max_iter=50, tol=0)
    )
    result = run(*given)
    floor = factor_floor(given[0].dtype, beta=beta, xp=target.xp)
    expected = W.astype(np.float64)
    for _ in range(50):
        expected = oracle.update_w(V, expected, H, beta, floor)
    got = target.to_numpy(result.W)
    assert np.linalg.norm(got - expected) <= TOLERANCE[dtype] * np.linalg.norm(expected)
    D_expected = oracle.divergence(V.astype(np.float64), expected, H.astype(np.float64), beta)
    assert result.divergence == pytest.approx(D_expected, rel=TOLERANCE[dtype])
    assert (result.n_iter, result.status, result.solver, result.beta) == (50, Status.MAX_ITER, "mu", beta)
    np.testing.assert_array_equal(target.to_numpy(result.H), H)


def test_it_keeps_the_kind_of_the_data(any_target: Target) -> None:
    V, _, H = (any_target.asarray(x, "float32") for x in noisy(7, 5, 3))
    result = any_target.compile(lambda V, H: nmf_xp.transform(V, H, solver="mu", beta_loss=1, max_iter=3, tol=0))(V, H)
    assert type(result.W) is type(V)
    assert (tuple(result.W.shape), result.W.dtype) == ((7, 3), V.dtype)
    assert str(getattr(result.W, "device", None)) == str(getattr(V, "device", None))


@eagerly
def test_components_are_returned_as_they_were_given(target: Target) -> None:
    before = noisy(7, 5, 3, zeros=True)
    before.H[0, 1] = 0.0
    V, W, H = (target.asarray(x) for x in before)
    result = nmf_xp.transform(V, H, init=W, solver="mu", beta_loss=1)
    assert result.H is H
    for x, expected in zip((V, W, H), before, strict=True):
        np.testing.assert_array_equal(target.to_numpy(x), expected)


@eagerly
@pytest.mark.parametrize("beta", BETAS)
def test_by_default_each_row_starts_at_its_own_sum(target: Target, beta: float) -> None:
    V, _, H = noisy(7, 5, 3, zeros=beta > 0)
    W = np.repeat(V.sum(axis=1, keepdims=True) / H.sum(), 3, axis=1)
    np.testing.assert_allclose((W @ H).sum(axis=1), V.sum(axis=1))
    result = nmf_xp.transform(target.asarray(V), target.asarray(H), solver="mu", beta_loss=beta, max_iter=1, tol=1e-12)
    assert result.history[0] == pytest.approx(oracle.divergence(V, W, H, beta), rel=1e-10)
    floor = factor_floor(target.asarray(V).dtype, beta=beta, xp=target.xp)
    np.testing.assert_allclose(target.to_numpy(result.W), oracle.update_w(V, W, H, beta, floor), rtol=1e-10)


@eagerly
def test_a_row_depends_on_no_other_row(target: Target) -> None:
    V, _, H = (target.asarray(x) for x in noisy(7, 5, 3, zeros=True))
    options: dict[str, Any] = {"solver": "mu", "beta_loss": 1, "max_iter": 40, "tol": 0}
    together = target.to_numpy(nmf_xp.transform(V, H, **options).W)
    for i in (0, 6):
        alone = target.to_numpy(nmf_xp.transform(V[i : i + 1, :], H, **options).W)
        np.testing.assert_allclose(alone[0], together[i], rtol=1e-12)


def test_its_limit_is_non_negative_least_squares() -> None:
    """For beta 2 the problem is convex, and scipy solves it exactly."""
    nnls = pytest.importorskip("scipy.optimize").nnls
    V, _, H = noisy(7, 5, 3)
    expected = np.stack([nnls(H.T, row)[0] for row in V])
    result: Any = nmf_xp.transform(V, H, max_iter=20000, tol=0)
    np.testing.assert_allclose(result.W, expected, atol=1e-6)
    assert result.kkt_residual < 1e-6


@pytest.mark.parametrize("beta", [1.0, 1.5])
def test_its_limit_does_not_depend_on_the_start(beta: float) -> None:
    """For 1 <= beta <= 2 the problem is convex."""
    V, W, H = noisy(7, 5, 3, zeros=True)
    limits = [
        nmf_xp.transform(V, H, init=init, solver="mu", beta_loss=beta, max_iter=20000, tol=0)
        for init in (None, W, W**3)
    ]
    for limit in limits[1:]:
        assert limit.divergence == pytest.approx(limits[0].divergence, rel=1e-9)
        np.testing.assert_allclose(np.asarray(limit.W), np.asarray(limits[0].W), atol=1e-5)


@eagerly
@pytest.mark.parametrize("beta", [0.0, 1.0, 2.0])
def test_loadings_are_recovered(target: Target, beta: float) -> None:
    rng = np.random.default_rng(0)
    W, H = rng.uniform(0.2, 1.0, size=(6, 2)), rng.uniform(0.2, 1.0, size=(2, 9))
    result = nmf_xp.transform(
        target.asarray(W @ H), target.asarray(H), solver="mu", beta_loss=beta, max_iter=1500, tol=0
    )
    np.testing.assert_allclose(target.to_numpy(result.W), W, rtol=1e-4)
    assert result.kkt_residual < 1e-5


@eagerly
@pytest.mark.parametrize("scale", [1e-6, 1e5])
@pytest.mark.parametrize("beta", BRANCHES)
def test_it_is_scale_equivariant(target: Target, beta: float, scale: float) -> None:
    """V -> sV gives s W, in the same number of iterations."""
    V, _, H = noisy(7, 5, 3, zeros=beta > 0)
    plain, scaled = (
        nmf_xp.transform(target.asarray(x), target.asarray(H), solver="mu", beta_loss=beta, tol=1e-6)
        for x in (V, scale * V)
    )
    expected = scale * target.to_numpy(plain.W)
    np.testing.assert_allclose(target.to_numpy(scaled.W), expected, rtol=1e-7, atol=1e-9 * scale)
    assert (scaled.n_iter, scaled.status) == (plain.n_iter, plain.status)


def test_the_components_of_a_factorization_give_its_loadings_back() -> None:
    V = noisy(12, 8, 3, zeros=True).V
    fitted: Any = nmf_xp.nmf(V, 3, solver="mu", beta_loss=1, random_state=0, tol=0, max_iter=3000)
    again: Any = nmf_xp.transform(V, fitted.H, solver="mu", beta_loss=1, tol=0, max_iter=3000)
    np.testing.assert_allclose(again.W, fitted.W, atol=2e-4)
    assert again.divergence == pytest.approx(fitted.divergence, rel=1e-6)
