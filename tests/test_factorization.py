"""`nmf`: what it computes, on which arrays, and what it leaves alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nmf_xp
from nmf_xp import Status
from nmf_xp.testing import Backend, Target, oracle
from nmf_xp.updates import factor_floor
from tests import compiled
from tests.compiled import eagerly
from tests.problems import BETAS, BRANCHES, DTYPES, Matrix, noisy

TOLERANCE = {"float32": 1e-4, "float64": 1e-10}


def digits() -> Matrix:
    """Real data with many zeros: 8 x 8 images of handwritten digits, one a row."""
    datasets = pytest.importorskip("sklearn.datasets")
    return datasets.load_digits().data


def distance(x: Any, y: Any) -> float:
    return float(np.linalg.norm(x - y) / np.linalg.norm(y))


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_fifty_iterations_agree_with_the_oracle(target: Target, beta: float, dtype: str) -> None:
    V, W, H = (x.astype(dtype) for x in noisy(7, 5, 3, zeros=beta > 0))
    given = [target.asarray(x) for x in (V, W, H)]
    as_it_comes = "mu", {"polish": False}
    result = compiled.factorize(target, *given, solver=as_it_comes, beta_loss=beta, max_iter=50, tol=0)
    floor = factor_floor(given[0].dtype, beta=beta, xp=target.xp)
    W_expected, H_expected = oracle.factorize(V, W, H, beta, 50, floor)
    assert distance(target.to_numpy(result.W), W_expected) <= TOLERANCE[dtype]
    assert distance(target.to_numpy(result.H), H_expected) <= TOLERANCE[dtype]
    D_expected = oracle.divergence(V.astype(np.float64), W_expected, H_expected, beta)
    assert result.divergence == pytest.approx(D_expected, rel=TOLERANCE[dtype])
    assert (result.n_iter, result.status, result.solver, result.beta) == (50, Status.MAX_ITER, "mu", beta)
    polished = compiled.factorize(target, *given, solver="mu", beta_loss=beta, max_iter=50, tol=0)
    model = W_expected @ H_expected
    assert distance(target.to_numpy(polished.W @ polished.H), model) <= TOLERANCE[dtype]


@pytest.mark.parametrize("beta", [1.0, 2.0, 3.0])
def test_it_agrees_with_scikit_learn_on_digits(beta: float) -> None:
    """The same updates from the same start, on data away from 0: scikit-learn keeps WH above 1e-7, we do not."""
    decomposition = pytest.importorskip("sklearn.decomposition")
    V = digits()[:300] + 1.0
    rng = np.random.default_rng(0)
    W, H = rng.uniform(0.1, 1.1, size=(300, 6)), rng.uniform(0.1, 1.1, size=(6, 64))
    theirs = decomposition.NMF(6, init="custom", solver="mu", beta_loss=beta, tol=0, max_iter=60)
    theirs_W = theirs.fit_transform(V, W=W.copy(), H=H.copy())
    ours = nmf_xp.nmf(V, 6, solver="mu", beta_loss=beta, init=(W, H), tol=0, max_iter=60)
    assert distance(ours.W @ ours.H, theirs_W @ theirs.components_) < 1e-10
    assert 2 * ours.divergence == pytest.approx(theirs.reconstruction_err_**2, rel=1e-10)


@pytest.mark.parametrize("beta", BRANCHES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_history_does_not_rise(target: Target, beta: float, dtype: str) -> None:
    V, W, H = (target.asarray(x, dtype) for x in noisy(7, 5, 3, zeros=beta > 0))
    result = compiled.factorize(target, V, W, H, solver="mu", beta_loss=beta, tol=1e-9, check_every=1, max_iter=60)
    history = np.asarray(result.history)
    assert np.all(np.isfinite(history))
    assert np.all(np.diff(history) <= 10 * float(np.finfo(dtype).eps) * history[:-1])
    assert history[-1] < history[0]


def test_factors_are_of_the_kind_of_the_data(any_target: Target) -> None:
    """Same namespace, dtype and device, with no value read where there is none."""
    for dtype in DTYPES:
        V, W, H = (any_target.asarray(x, dtype) for x in noisy(7, 5, 3))
        result = compiled.factorize(any_target, V, W, H, tol=0, max_iter=3)
        for new, old in ((result.W, W), (result.H, H)):
            assert type(new) is type(old)
            assert (tuple(new.shape), new.dtype) == (tuple(old.shape), old.dtype)
            assert str(getattr(new, "device", None)) == str(getattr(old, "device", None))
        assert (result.n_iter, result.status) == (3, Status.MAX_ITER)


@pytest.mark.parametrize("beta", [0.0, 1.0, 2.0])
def test_nothing_that_was_given_is_changed_or_returned(target: Target, beta: float) -> None:
    before = noisy(7, 5, 3, zeros=beta > 0)
    V, W, H = (target.asarray(x) for x in before)
    result: Any = compiled.factorize(target, V, W, H, solver="mu", beta_loss=beta, max_iter=20)
    by_name: Any = nmf_xp.nmf(V, 3, solver="mu", beta_loss=beta, random_state=0, max_iter=20)
    for x, expected in zip((V, W, H), before, strict=True):
        np.testing.assert_array_equal(target.to_numpy(x), expected)
    if target.xp.__name__.endswith("numpy") and target.device is None:
        for x in (result.W, result.H, by_name.W, by_name.H):
            assert not any(np.shares_memory(x, given) for given in (V, W, H))
            assert x.flags.writeable


def test_torch_factors_share_no_memory_with_the_start() -> None:
    torch = pytest.importorskip("torch")
    V, W, H = (torch.asarray(x) for x in noisy(7, 5, 3))
    result: Any = nmf_xp.nmf(V, 3, init=(W, H), max_iter=1)
    pointers = {x.untyped_storage().data_ptr() for x in (V, W, H)}
    assert not pointers & {x.untyped_storage().data_ptr() for x in (result.W, result.H)}


def test_the_order_and_strides_of_the_data_do_not_matter() -> None:
    V, W, H = noisy(8, 6, 3, zeros=True)
    expected: Any = nmf_xp.nmf(V, 3, solver="mu", beta_loss=1, init=(W, H), max_iter=30)
    wide = np.zeros((16, 12))
    wide[::2, ::2] = V
    for same in (np.asfortranarray(V), wide[::2, ::2], V[::-1][::-1]):
        result: Any = nmf_xp.nmf(same, 3, solver="mu", beta_loss=1, init=(W, H), max_iter=30)
        np.testing.assert_allclose(result.W, expected.W, rtol=1e-11)
        np.testing.assert_allclose(result.H, expected.H, rtol=1e-11)


@eagerly
@pytest.mark.parametrize("beta", BRANCHES)
def test_it_is_scale_equivariant(target: Target, beta: float) -> None:
    """V -> sV gives sqrt(s) W and sqrt(s) H, s^beta D, and the same iterations, status and residual."""
    V = noisy(7, 5, 3, zeros=beta > 0).V
    options: dict[str, Any] = {"solver": "mu", "beta_loss": beta, "random_state": 0, "tol": 1e-5, "max_iter": 300}
    plain = nmf_xp.nmf(target.asarray(V), 3, **options)
    W, H = target.to_numpy(plain.W), target.to_numpy(plain.H)
    for scale in (4.0**4, 3.7, 1e-7, 1e6):
        scaled = nmf_xp.nmf(target.asarray(scale * V), 3, **options)
        np.testing.assert_allclose(target.to_numpy(scaled.W), scale**0.5 * W, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(target.to_numpy(scaled.H), scale**0.5 * H, rtol=1e-7, atol=1e-9)
        assert scaled.divergence == pytest.approx(scale**beta * plain.divergence, rel=1e-7)
        assert scaled.kkt_residual == pytest.approx(plain.kkt_residual, rel=1e-5)
        assert (scaled.n_iter, scaled.status) == (plain.n_iter, plain.status)


@pytest.mark.parametrize("name", ["frobenius", "kullback-leibler", "itakura-saito"])
def test_names_of_losses_stand_for_their_beta(name: str) -> None:
    V = noisy(7, 5, 3).V
    beta = {"frobenius": 2, "kullback-leibler": 1, "itakura-saito": 0}[name]
    by_name: Any = nmf_xp.nmf(V, 3, solver="mu", beta_loss=name, random_state=0)
    by_beta: Any = nmf_xp.nmf(V, 3, solver="mu", beta_loss=beta, random_state=0)
    np.testing.assert_array_equal(by_name.W, by_beta.W)
    assert by_name.beta == beta


@eagerly
@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
def test_an_exact_model_is_found(target: Target, beta: float) -> None:
    rng = np.random.default_rng(5)
    V = rng.uniform(0.1, 1.0, size=(9, 2)) @ rng.uniform(0.1, 1.0, size=(2, 7))
    result = nmf_xp.nmf(
        target.asarray(V), 2, solver="mu", beta_loss=beta, random_state=0, max_iter=3000, tol=1e-9, check_every=100
    )
    model = target.to_numpy(result.W) @ target.to_numpy(result.H)
    np.testing.assert_allclose(model, V, rtol=2e-3)


@pytest.mark.parametrize("beta", BETAS)
def test_the_optimality_residual_is_what_it_says(beta: float) -> None:
    """Its definition, from the oracle's gradient; small after a long run, whatever the scale."""
    V, W, H = noisy(7, 5, 2, zeros=beta > 0)
    floor = factor_floor(np.float64, beta=beta, xp=Backend.NUMPY.target().xp)
    early = nmf_xp.nmf(V, 2, init=(W, H), solver="mu", beta_loss=beta, max_iter=3, tol=0)
    assert early.kkt_residual == pytest.approx(residual(V, early.W, early.H, beta, floor), rel=1e-9)
    options: dict[str, Any] = {"init": (W, H), "solver": "mu", "beta_loss": beta, "max_iter": 5000, "tol": 0}
    late = nmf_xp.nmf(V, 2, **options)
    assert late.kkt_residual < 1e-4 < early.kkt_residual
    scaled = nmf_xp.nmf(1e4 * V, 2, **options)
    assert scaled.kkt_residual < 1e-4


def residual(V: Any, W: Any, H: Any, beta: float, floor: float) -> float:
    """Largest |min(w / max of its component, slope / its positive part)|."""
    Y = W @ H
    violations = []
    for factor, slope, positive, axis in zip(
        (W, H), oracle.gradient(V, W, H, beta), (Y ** (beta - 1) @ H.T, W.T @ Y ** (beta - 1)), (0, 1), strict=True
    ):
        size = factor.max(axis=axis, keepdims=True)
        violations.append(np.abs(np.minimum((factor - floor) / size, slope / positive)).max())
    return float(max(violations))


@eagerly
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("bool", None),
        ("uint8", None),
        ("int16", None),
        ("int64", None),
        ("float16", "float32"),
        ("bfloat16", "float32"),
        ("float32", "float32"),
        ("float64", "float64"),
    ],
)
def test_in_which_dtype_data_are_factorized(target: Target, given: str, expected: str | None) -> None:
    """Integers and booleans in the namespace's default floating dtype, 16-bit floats in float32."""
    if not hasattr(target.xp, given):
        pytest.skip(f"{target.name} has no {given}")
    counts = np.random.default_rng(0).poisson(2.0, size=(6, 5))
    V = target.xp.astype(target.asarray(counts.astype("int64")), getattr(target.xp, given))
    if expected is None:
        expected = dtype_name(target.xp.__array_namespace_info__().default_dtypes()["real floating"])
    result = nmf_xp.nmf(V, 2, solver="mu", beta_loss="kullback-leibler", random_state=0, max_iter=20)
    assert (dtype_name(result.W.dtype), dtype_name(result.H.dtype)) == (expected, expected)
    same = nmf_xp.nmf(
        target.xp.astype(V, getattr(target.xp, expected)), 2, solver="mu", beta_loss=1, random_state=0, max_iter=20
    )
    np.testing.assert_array_equal(target.to_numpy(result.W), target.to_numpy(same.W))


def dtype_name(dtype: Any) -> str:
    return getattr(dtype, "name", None) or str(dtype).rpartition(".")[2]
