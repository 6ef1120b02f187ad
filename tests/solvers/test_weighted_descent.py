"""Weighted least squares by coordinate descent: the minimum for any weights, and no price for those of rows."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from nmf_xp import nmf, transform
from nmf_xp.arrays import kernels
from tests.compiled import eagerly

if TYPE_CHECKING:
    from nmf_xp.testing import Target
    from tests.problems import Matrix


SOLVERS = ("cd", "cd-plain")


def problem(m: int, n: int, r: int, *, seed: int) -> tuple[Matrix, Matrix]:
    """Noisy data and the components that they were made of."""
    rng = np.random.default_rng(seed)
    H = rng.gamma(1.0, 1.0, (r, n))
    return rng.gamma(1.0, 1.0, (m, r)) @ H * rng.lognormal(0.0, 0.2, (m, n)), H


def weights_of(kind: str, shape: tuple[int, int], *, seed: int) -> Matrix:
    rng = np.random.default_rng(seed)
    match kind:
        case "lognormal":
            return rng.lognormal(0.0, rng.uniform(1, 5), shape)
        case "one heavy entry":
            w = np.full(shape, 1e-3)
            w[rng.integers(shape[0]), rng.integers(shape[1])] = 1
            return w
        case "mask":
            return (rng.random(shape) < rng.uniform(0.1, 0.9)).astype(float)
        case "rows and columns":
            return rng.lognormal(0.0, 3.0, (shape[0], 1)) * rng.lognormal(0.0, 3.0, (1, shape[1]))
        case _:
            return rng.lognormal(0.0, 3.0, (shape[0], 1)) * (rng.random(shape) < 0.7)


KINDS = ("lognormal", "one heavy entry", "mask", "rows and columns", "rows and a mask")


def least(V: Matrix, H: Matrix, w: Matrix) -> float:
    """The least weighted half squared error, by NNLS, row by row."""
    root = np.sqrt(w)
    return float(sum(nnls((H * a).T, v * a)[1] ** 2 / 2 for v, a in zip(V, root, strict=True)))


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 10**6),
    shape=st.tuples(st.integers(1, 40), st.integers(2, 30)),
    r=st.integers(1, 8),
    solver=st.sampled_from(SOLVERS),
    dtype=st.sampled_from(("float32", "float64")),
    compiled=st.booleans(),
)
def test_transform_reaches_the_minimum_of_nnls(
    kind: str, seed: int, shape: tuple[int, int], r: int, solver: str, dtype: str, compiled: bool
) -> None:
    V, H = problem(*shape, min(r, shape[1]), seed=seed)
    w = weights_of(kind, shape, seed=seed)
    w[0, 0] = max(w[0, 0], 0.5)
    V, H, w = (x.astype(dtype).astype(float) for x in (V, H, w))
    with mock.patch.object(kernels, "wanted", return_value=compiled), mock.patch.object(kernels, "LEAST", 0):
        found = transform(*(x.astype(dtype) for x in (V, H)), weights=w.astype(dtype), solver=solver, max_iter=2000)
    W = found.W.astype(float)
    reached = 0.5 * float(np.sum(w * (V - W @ H) ** 2))
    scale = 0.5 * float(np.sum(w * V * V))
    # Slopes are right to eps of the data, and the least curvature that is told from none is eps of the largest.
    assert reached <= 1.001 * least(V, H, w) + float(np.finfo(dtype).eps) * scale


@eagerly
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("solver", SOLVERS)
def test_on_every_backend(target: Target, kind: str, solver: str) -> None:
    """With an L2 penalty, which for NNLS is more rows of data, and with few components and many."""
    for r in (3, 12):
        V, H = problem(10, 12, r, seed=4)
        w = weights_of(kind, V.shape, seed=4)
        w[0, 0] = 1.0
        alpha = 1e-3 * float(np.max(w))
        more = np.hstack([w, np.full((10, r), 12 * alpha)])
        want = least(np.hstack([V, np.zeros((10, r))]), np.hstack([H, np.eye(r)]), more)
        given = [target.asarray(x) for x in (V, H, w)]
        result = transform(*given[:2], weights=given[2], alpha_W=alpha, solver=solver, max_iter=1000, tol=1e-6)
        assert want * (1 - 1e-9) <= float(result.objective) <= 1.001 * want


@eagerly
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_member_of_a_stack_is_what_it_is_alone(target: Target, solver: str) -> None:
    """Weights of one number, of rows, nearly equal ones, a mask and spread ones, side by side."""
    rng = np.random.default_rng(3)
    shape = (8, 7)
    weights = np.stack(
        [
            np.full(shape, 1e5),
            rng.lognormal(0, 2, (8, 1)) * np.ones(shape),
            rng.uniform(0.9, 1.1, shape),
            (rng.random(shape) < 0.8) * 1.0,
            rng.lognormal(0, 4, shape),
        ]
    )
    V = rng.gamma(1.0, 1.0, weights.shape)
    W, H = rng.random((5, 8, 2)) + 0.1, rng.random((5, 2, 7)) + 0.1
    options: dict[str, Any] = {"solver": solver, "max_iter": 20, "tol": 0}

    def factors(*arrays: Matrix) -> Matrix:
        V, w, W, H = (target.asarray(x) for x in arrays)
        result = nmf(V, 2, weights=w, init=(W, H), **options)
        return np.concatenate([target.to_numpy(result.W), np.swapaxes(target.to_numpy(result.H), -1, -2)], axis=-2)

    together = factors(V, weights, W, H)
    for i in range(5):
        np.testing.assert_allclose(together[i], factors(V[i], weights[i], W[i], H[i]), rtol=1e-6, atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    shape=st.tuples(st.integers(8, 40), st.integers(8, 30)),
    solver=st.sampled_from(SOLVERS),
    along=st.sampled_from((0, 1)),
    full=st.booleans(),
    sparse=st.booleans(),
)
def test_weights_of_lines_cost_nothing(
    seed: int, shape: tuple[int, int], solver: str, along: int, full: bool, sparse: bool
) -> None:
    """The same objective after as many iterations as for rows or columns scaled by the roots."""
    V, H = problem(*shape, 2, seed=seed)
    rng = np.random.default_rng(seed)
    if sparse:
        V = V * (rng.random(shape) < 0.3)
        V[0, :], V[:, 0] = 1.0, 1.0
    w = rng.lognormal(0.0, 3.0, (shape[0], 1) if along == 0 else (1, shape[1]))
    W, root = rng.random((shape[0], 2)) + 0.1, np.sqrt(w)
    given_weights = np.broadcast_to(w, shape) if full and not sparse else w
    kind: Any = importlib.import_module("scipy.sparse").csr_array if sparse else np.asarray
    options: dict[str, Any] = {"solver": solver, "max_iter": 15, "tol": 0}
    found = nmf(kind(V), 2, weights=given_weights, init=(W, H), **options)
    scaled = nmf(kind(V * root), 2, init=(W * root, H) if along == 0 else (W, H * root), **options)
    assert found.divergence == pytest.approx(scaled.divergence, rel=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("solver", SOLVERS)
def test_what_is_stored_is_all_that_is_observed(dtype: str, compiled: bool, solver: str) -> None:
    """A sparse V with unobserved zeros, with weights of any spread, is a dense one with weights of 0."""
    sparse = importlib.import_module("scipy.sparse")
    V, H = problem(40, 30, 4, seed=1)
    mask = np.random.default_rng(1).random(V.shape) < 0.3
    w = weights_of("lognormal", V.shape, seed=1)
    want = least(V, H, w * mask)
    with mock.patch.object(kernels, "wanted", return_value=compiled), mock.patch.object(kernels, "LEAST", 0):
        stored = sparse.csr_array((V * mask).astype(dtype))
        settings: dict[str, Any] = {"absent": "missing", "solver": solver, "max_iter": 1000}
        result = transform(stored, H.astype(dtype), weights=w.astype(dtype), **settings)
    assert result.divergence <= 1.001 * want


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_the_objective_never_rises_and_nothing_observed_gives_nothing(kind: str, compiled: bool) -> None:
    V, _ = problem(60, 25, 5, seed=2)
    w = weights_of(kind, V.shape, seed=2)
    w[7], w[:, 3] = 0, 0
    with mock.patch.object(kernels, "wanted", return_value=compiled), mock.patch.object(kernels, "LEAST", 0):
        for solver in SOLVERS:
            result = nmf(V, 5, weights=w, solver=solver, random_state=0, check_every=1, tol=1e-9, max_iter=300)
            assert np.max(np.diff(result.history)) <= 1e-12 * result.history[0]
            assert np.max(result.W[7]) < 1e-100
            assert np.max(result.H[:, 3]) < 1e-100


@pytest.mark.parametrize("solver", SOLVERS)
def test_bounds_and_fixed_entries_hold_at_the_minimum(solver: str) -> None:
    """Against the projected gradient's own condition at the end, with weights of any spread."""
    V, H = problem(20, 15, 4, seed=5)
    w = weights_of("lognormal", V.shape, seed=7)
    rng = np.random.default_rng(5)
    start, fixed = rng.random((20, 4)), rng.random((20, 4)) < 0.2
    result = transform(V, H, weights=w, init=start, fixed_w=fixed, upper_w=0.8, solver=solver, max_iter=5000, tol=1e-9)
    W = result.W
    np.testing.assert_array_equal(W[fixed], start[fixed])
    assert np.max(W[~fixed]) <= 0.8
    slope = (w * (W @ H - V)) @ H.T
    curvature = w @ (H * H).T
    move = np.clip(W - slope / curvature, 0, 0.8) - W  # what each entry alone would still move
    gain = 0.5 * np.sum(curvature * move**2 * ~fixed)
    assert gain < 1e-5 * result.divergence
