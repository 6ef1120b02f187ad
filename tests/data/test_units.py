"""A factor common to V, to its weights or to both changes nothing but the scale of the answer."""

from __future__ import annotations

import dataclasses
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from nmf_xp import RowBlocks, nmf, transform
from nmf_xp.online import online_nmf, online_start, online_step
from nmf_xp.solvers import LOSSES, SOLVERS
from tests.problems import BETAS, noisy

PAIRS = [(solver, beta) for solver in SOLVERS for beta in BETAS if beta in LOSSES.get(solver, (beta,))]
REACH = {"float32": 30, "float64": 250}  # powers of ten on both sides


def data(dtype: str) -> Any:
    return (noisy(12, 9, 3).V + 0.01).astype(dtype)


def options(solver: str, beta: float) -> dict[str, Any]:
    which: Any = ("online", {"batch_size": 5}) if solver == "online" else solver
    return {"solver": which, "beta_loss": beta, "max_iter": 12, "tol": 0, "random_state": 0}


def same(a: Any, b: Any, dtype: str, unit: float) -> None:
    """The factors and the divergence of a problem, and of the same in other units, to some rounding errors.

    Powers are not always rounded alike, and extrapolation enlarges that.
    """
    rounding = 2e-3 if dtype == "float32" else 1e-9
    for x, y in ((a.W, b.W), (a.H, b.H)):
        np.testing.assert_allclose(y / np.sqrt(unit), x, rtol=rounding, atol=rounding * x.max())
    if np.finfo(float).smallest_normal < b.divergence < np.inf:  # below it a number has fewer digits
        assert abs(np.log(b.divergence) - np.log(a.divergence) - a.beta * np.log(unit)) < rounding


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("solver", "beta"), PAIRS)
@hypothesis.settings(max_examples=6)
@hypothesis.given(fraction=st.floats(-1, 1), kind=st.sampled_from(["plain", "weights", "missing", "penalty", "blocks"]))
def test_units_of_the_data(solver: str, beta: float, dtype: str, fraction: float, kind: str) -> None:
    """By powers of four, which change no digit: in all kinds of data, with penalties in the same units."""
    V = data(dtype)
    unit = 4.0 ** round(fraction * REACH[dtype] * np.log2(10) / 2)
    found = []
    for c in (1.0, unit):
        more: dict[str, Any] = options(solver, beta)
        X: Any = V * np.asarray(c, dtype)
        if kind == "weights":
            more["weights"] = (np.arange(V.size).reshape(V.shape) % 4).astype(dtype)
        if kind == "missing":
            X, more["missing"] = np.where(np.arange(V.size).reshape(V.shape) % 7 == 0, np.nan, X).astype(dtype), "nan"
        if kind == "penalty":
            # In units of D / W and D / H, which a number of float64 must hold.
            scale = float(np.exp2(np.clip((beta - 0.5) * np.log2(c), -1000, 1000)))
            hypothesis.assume(abs(np.log2(scale)) < 990)
            more |= {"alpha_W": 0.01 * scale, "alpha_H": 0.02 * scale, "l1_ratio": 1.0}
        if kind == "blocks":
            hypothesis.assume(solver in ("mu", "mm", "online"))
            X = RowBlocks([X[:5], X[5:]])
        found.append(nmf(X, 3, **more))
    same(found[0], found[1], dtype, unit)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("solver", "beta"), [(solver, beta) for solver, beta in PAIRS if beta in (0.0, 1.0, 2.0)])
@pytest.mark.parametrize("init", ["random", "nndsvd", "zeros"])
def test_a_power_of_four_changes_no_digit(solver: str, beta: float, dtype: str, init: str) -> None:
    """The factors are 2^k times what they were, also for odd k, whose root is no power of two.

    From zeros of a start too, which grow from the floor.
    """
    V = data(dtype)
    W, H = (np.where(x < 0.5, 0, x).astype(dtype) for x in noisy(12, 9, 3)[1:])

    def fit(k: int) -> Any:
        root = np.asarray(2.0**k, dtype)
        start = (W * root, H * root) if init == "zeros" else init
        return nmf(V * root * root, 3, **{**options(solver, beta), "init": start, "max_iter": 60})

    plain = fit(0)
    for k in (-3, -2, 5):
        scaled = fit(k)
        np.testing.assert_array_equal(scaled.W, plain.W * np.asarray(2.0**k, dtype))
        np.testing.assert_array_equal(scaled.H, plain.H * np.asarray(2.0**k, dtype))


@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_a_power_of_four_of_v_and_of_two_of_the_components_change_no_digit_of_loadings(beta: float) -> None:
    V, _, H = (np.where(x < 0.5, 0, x).astype("float32") for x in noisy(12, 9, 3))
    H[0], V[0] = 1.0, 1e-6  # nothing that would keep W from its floor
    plain = transform(V, H, beta_loss=beta)
    for v, h in ((4.0, 1.0), (0.25, 1.0), (1.0, 8.0), (2.0**6, 2.0**-5)):
        scaled = transform(V * np.float32(v), H * np.float32(h), beta_loss=beta)
        np.testing.assert_array_equal(scaled.W, plain.W * np.float32(v / h))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("solver", "beta"), PAIRS)
@hypothesis.settings(max_examples=4)
@hypothesis.given(fraction=st.floats(-1, 1))
def test_units_that_are_no_power_of_two(solver: str, beta: float, dtype: str, fraction: float) -> None:
    """Only the rounding of V is another then: the model agrees in its leading digits."""
    V = data(dtype)
    unit = np.asarray(10.0 ** (fraction * REACH[dtype]), dtype)
    a, b = (nmf(X, 3, **options(solver, beta)) for X in (V, V * unit))
    model = (b.W / np.sqrt(unit)) @ (b.H / np.sqrt(unit))
    np.testing.assert_allclose(model, a.W @ a.H, rtol=0.02 if dtype == "float32" else 1e-7)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("solver", "beta"), PAIRS)
@hypothesis.settings(max_examples=4)
@hypothesis.given(fraction=st.floats(-1, 1), penalised=st.booleans())
def test_units_of_the_weights(solver: str, beta: float, dtype: str, fraction: float, *, penalised: bool) -> None:
    V = data(dtype)
    weights = (0.25 + np.arange(V.size).reshape(V.shape) % 5).astype(dtype)
    unit = 2.0 ** round(fraction * REACH[dtype] * np.log2(10))
    found = []
    for c in (1.0, unit):
        penalty: dict[str, Any] = {"alpha_W": 0.01 * c, "l1_ratio": 0.5} if penalised else {}
        found.append(nmf(V, 3, weights=weights * np.asarray(c, dtype), **penalty, **options(solver, beta)))
    a, b = found
    same(a, dataclasses.replace(b, _divergence=b.divergence / unit), dtype, 1.0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("beta", BETAS)
@hypothesis.settings(max_examples=8)
@hypothesis.given(of_v=st.floats(-1, 1), of_h=st.floats(-1, 1))
def test_units_of_what_transform_is_given(beta: float, dtype: str, of_v: float, of_h: float) -> None:
    """V and H each in units of their own: W is in those of V / H."""
    V, _, H = (x.astype(dtype) for x in noisy(12, 9, 3))
    reach = REACH[dtype] * np.log2(10) / 2
    v, h = (2.0 ** round(x * reach) for x in (of_v, of_h))
    settings: dict[str, Any] = {"beta_loss": beta, "max_iter": 12, "tol": 0}
    a, b = transform(V, H, **settings), transform(V * np.asarray(v, dtype), H * np.asarray(h, dtype), **settings)
    rounding = 2e-3 if dtype == "float32" else 1e-9
    np.testing.assert_allclose(b.W / (v / h), a.W, rtol=rounding, atol=rounding * a.W.max())


@pytest.mark.parametrize("solver", ["mu", "cd", "mm"])
def test_units_of_a_start(solver: str) -> None:
    """What is taken from one factor of the start and given to the other is found there in the end."""
    V, W, H = (x.astype("float32") for x in noisy(12, 9, 3))
    settings: dict[str, Any] = {"solver": solver, "max_iter": 12, "tol": 0}
    unit = np.float32(2.0**60)
    a, b = nmf(V, 3, init=(W, H), **settings), nmf(V, 3, init=(W / unit, H * unit), **settings)
    np.testing.assert_allclose(b.W @ b.H, a.W @ a.H, rtol=1e-4)


@pytest.mark.parametrize(("solver", "beta"), PAIRS)
@pytest.mark.parametrize(("dtype", "heavy"), [("float32", 3e38), ("float64", 1.5e308)])
def test_weights_whose_sum_overflows(solver: str, beta: float, dtype: str, heavy: float) -> None:
    V = data(dtype)
    weights = np.full(V.shape, heavy, dtype)
    a, b = (nmf(V, 3, weights=w, **options(solver, beta)) for w in (np.ones_like(V), weights))
    rounding = 2e-3 if dtype == "float32" else 1e-9
    np.testing.assert_allclose(b.W @ b.H, a.W @ a.H, rtol=rounding, atol=rounding * V.max())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("solver", "beta"), PAIRS)
@pytest.mark.parametrize("l1_ratio", [0.0, 0.5, 1.0])
def test_a_penalty_beyond_all_bounds(solver: str, beta: float, dtype: str, l1_ratio: float) -> None:
    """The factors vanish beside it, without NaN; for beta <= 1 as far as the floor lets them."""
    V = data(dtype)
    result = nmf(V, 3, alpha_W=1e300, l1_ratio=l1_ratio, **options(solver, beta))
    assert np.isfinite(result.W).all()
    assert np.isfinite(result.H).all()
    assert (result.W @ result.H).max() < 1e-3 * V.max()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("beta", BETAS)
@hypothesis.settings(max_examples=6)
@hypothesis.given(fraction=st.floats(-1, 1), fresh=st.booleans(), weighted=st.booleans())
def test_units_of_a_stream(beta: float, dtype: str, fraction: float, *, fresh: bool, weighted: bool) -> None:
    """Passes and then one more block, which finds the sums in the units of the passes."""
    V, W, H = (x.astype(dtype) for x in noisy(24, 9, 3))
    root = 2.0 ** round(fraction * REACH[dtype] * np.log2(10) / 2)
    found: list[Any] = []
    for c in (1.0, root):
        unit = np.asarray(c, dtype)
        state = online_start(H * unit, beta_loss=beta)
        weights: Any = np.full((1, 9), 0.5 * c, dtype) if weighted else None
        settings: dict[str, Any] = {"beta_loss": beta, "weights": weights, "fresh_max_iter": 4}
        start: Any = None if fresh else W * unit
        done = online_nmf(V * unit * unit, start, state, batch_size=7, max_iter=2, tol=0, **settings)
        step = online_step(done.state, V[:5] * unit * unit, **settings, fresh_tol=0)
        found.append((done.W / unit, done.state.H / unit, step.W / unit, step.state.H / unit))
    for x, y in zip(*found, strict=True):
        rounding = 2e-3 if dtype == "float32" else 1e-9
        np.testing.assert_allclose(y, x, rtol=rounding, atol=rounding * x.max())


@pytest.mark.parametrize(
    ("dtype", "unit"), [("float32", 1e30), ("float32", 1e-30), ("float64", 1e250), ("float64", 1e-250)]
)
@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("init", ["random", "nndsvda"])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_mini_batches_in_extreme_units_are_finite(init: str, beta: float, dtype: str, unit: float) -> None:
    """scikit-learn's rule knows the units, but nothing overflows; above one it is that of data of order one."""
    sklearn = pytest.importorskip("nmf_xp.sklearn", reason="scikit-learn is not installed")
    V = data(dtype)
    plain, extreme = (
        sklearn.MiniBatchNMF(3, init=init, batch_size=4, beta_loss=beta, random_state=0, max_iter=30).fit(X)
        for X in (V, V * np.asarray(unit, dtype))
    )
    assert np.isfinite(extreme.components_).all()
    assert np.isfinite(extreme.transform(V * np.asarray(unit, dtype))).all()
    if unit > 1 and 1 <= beta <= 2 and dtype == "float32":
        assert extreme.reconstruction_err_ < 1.2 * plain.reconstruction_err_ * unit ** (beta / 2)


@pytest.mark.parametrize("apart", [1e-100, 1e100])
@pytest.mark.parametrize(("solver", "beta"), PAIRS)
def test_what_is_returned_is_balanced_whatever_the_scales_of_the_start(solver: str, beta: float, apart: float) -> None:
    V = data("float64")
    rng = np.random.default_rng(0)
    W, H = rng.uniform(0.1, 1, (V.shape[0], 3)), rng.uniform(0.1, 1, (3, V.shape[1]))
    near, far = (nmf(V, 3, init=(W * c, H / c), **options(solver, beta)) for c in (1.0, apart))
    ratio = np.linalg.norm(far.W, axis=0) / np.linalg.norm(far.H, axis=1)
    assert np.all(np.abs(np.log2(ratio)) <= 1.01)
    np.testing.assert_allclose(far.W @ far.H, near.W @ near.H, rtol=1e-4, atol=1e-6 * V.max())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("solver", "beta"), PAIRS)
def test_beside_a_penalty_beyond_all_bounds_the_objective_is_that_of_the_factors(
    solver: str, beta: float, dtype: str
) -> None:
    V, r = data(dtype), 3
    for l1_ratio in (0.0, 1.0):
        result = nmf(V, r, alpha_W=1e300, l1_ratio=l1_ratio, **options(solver, beta))
        W, H = (x.astype(float) for x in (result.W, result.H))
        penalties = (
            [W.sum() * V.shape[1], H.sum() * V.shape[0]]
            if l1_ratio
            else [0.5 * (W**2).sum() * V.shape[1], 0.5 * (H**2).sum() * V.shape[0]]
        )
        assert result.objective == pytest.approx(result.divergence + 1e300 * sum(penalties), rel=1e-6)


@pytest.mark.parametrize("solver", ["mu", "mm", "cd", "cd-plain"])
def test_components_that_penalties_shrink_to_nothing_are_zero(solver: str) -> None:
    V = data("float64")
    result = nmf(V, 2, weights=np.full(V.shape, 1e-24), alpha_W=1e-3, solver=solver, random_state=0, max_iter=2000)
    assert not result.W.any()
    assert not result.H.any()
