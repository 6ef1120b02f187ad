"""Near an exact fit: divergences that are differences of large numbers, steps that they accept, rises by rounding."""

from __future__ import annotations

import importlib
import math
import warnings
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmf_xp import Status, beta_divergence, nmf, transform
from nmf_xp.arrays import libraries, operators
from nmf_xp.data import sparse_products

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.problems import Matrix

BETAS = (0.5, 1.0, 1.5, 2.0, 3.0)


def blocks(shape: tuple[int, int], r: int, noise: float, *, seed: int) -> tuple[Matrix, Matrix, Matrix]:
    """V, zero outside r blocks where W H is too, and V is W H up to noise inside."""
    rng = np.random.default_rng(seed)
    rows, columns = np.arange(shape[0]) * r // shape[0], np.arange(shape[1]) * r // shape[1]
    W = (rows[:, None] == np.arange(r)) * rng.uniform(1, 10, (shape[0], 1))
    H = (columns == np.arange(r)[:, None]) * rng.uniform(1, 10, (1, shape[1]))
    return W @ H * (1 + noise * rng.normal(size=shape)), W, H


def csr(V: Any) -> Any:
    return importlib.import_module("scipy.sparse").csr_array(V)


def csc(V: Any) -> Any:
    return importlib.import_module("scipy.sparse").csc_array(V)


def jax_sparse(V: Any) -> Any:
    return pytest.importorskip("jax.experimental.sparse").BCOO.fromdense(V)


def torch_sparse(V: Any) -> Any:
    with warnings.catch_warnings():  # torch calls its compressed rows a beta feature, once a process
        warnings.simplefilter("ignore")
        return pytest.importorskip("torch").asarray(V).to_sparse_csr()


KINDS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "csr": (csr, "numpy"),
    "csc": (csc, "numpy"),
    "jax": (jax_sparse, "jax.numpy"),
    "torch": (torch_sparse, "torch"),
}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dtype", "noise"), [("float32", 1e-4), ("float64", 1e-4), ("float64", 1e-9)])
def test_the_divergence_of_sparse_data(kind: str, beta: float, dtype: str, noise: float, weighted: bool) -> None:
    """Against the dense matrix in float64, where the sums over all entries and over the stored ones nearly agree."""
    make, library = KINDS[kind]
    xp = pytest.importorskip(library)
    # Blocks of a few rows, of which the last is cut off; JAX keeps float64 where it is asked to.
    precise = pytest.importorskip("jax").enable_x64() if kind == "jax" and dtype == "float64" else mock.MagicMock()
    with precise, mock.patch.object(sparse_products, "CHUNK", 100):
        V, W, H = (x.astype(dtype) for x in blocks((30, 20), 4, noise, seed=1))
        w = np.random.default_rng(1).uniform(0.5, 2, (1, 20)).astype(dtype) if weighted else np.ones((1, 20), dtype)
        given_weights = xp.asarray(w) if weighted else None
        sparse = make(xp.asarray(V))
        found = float(beta_divergence(sparse, xp.asarray(W), xp.asarray(H), beta_loss=beta, weights=given_weights))
    wide = [x.astype(float) for x in (V, W, H, np.broadcast_to(w, V.shape))]
    want = float(beta_divergence(*wide[:3], beta_loss=beta, weights=wide[3]))  # entry by entry, from v - y
    assert found == pytest.approx(want, rel=1e-2)


def test_under_jit_the_sum_is_taken_again() -> None:
    jax = pytest.importorskip("jax")
    V, W, H = (jax.numpy.asarray(x, dtype="float32") for x in blocks((30, 20), 4, 1e-4, seed=2))
    dense = float(beta_divergence(V, W, H))
    assert float(jax.jit(beta_divergence)(jax_sparse(V), W, H)) == pytest.approx(dense, rel=1e-3)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), noise=st.floats(-7, -1), shape=st.tuples(st.integers(4, 60), st.integers(4, 40)))
def test_a_squared_error_is_right_for_any_noise(seed: int, noise: float, shape: tuple[int, int]) -> None:
    V, W, H = (x.astype("float32") for x in blocks(shape, 3, 10.0**noise, seed=seed))
    wide = [x.astype(float) for x in (V, W, H)]
    want = 0.5 * float(np.sum((wide[0] - wide[1] @ wide[2]) ** 2))
    # Entries of the model, sums of at most three products, are rounded five times, each time by half an eps.
    off = 2.5 * float(np.finfo("float32").eps) * float(np.linalg.norm(wide[0]))
    assert float(beta_divergence(csr(V), W, H)) == pytest.approx(want, rel=1e-2, abs=off * (math.sqrt(2 * want) + off))


def near_exact(dtype: str, noise: float, *, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    V = rng.gamma(1, 1, (100, 4)) @ rng.gamma(1, 1, (4, 60)) * (1 + noise * rng.normal(size=(100, 60)))
    return V.astype(dtype)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("noise", [1e-3, 1e-4])
def test_cd_ends_as_low_as_plain_sweeps_in_float32(noise: float, sparse: bool, seed: int) -> None:
    V = near_exact("float32", noise, seed=seed)
    data = csr(V * (np.random.default_rng(seed).random((100, 1)) < 0.4)) if sparse else V
    options: dict[str, Any] = {"random_state": 0, "max_iter": 2000, "tol": 1e-7}
    cd, plain = (nmf(data, 4, solver=solver, **options).divergence for solver in ("cd", "cd-plain"))
    assert cd < 2 * plain


def test_cd_goes_on_to_an_exact_fit_in_float64() -> None:
    V = near_exact("float64", 0.0, seed=0)
    result = nmf(V, 4, solver="cd", random_state=0, max_iter=20000, tol=1e-12, check_every=100)
    assert result.divergence < 1e-20 * float(np.sum(V**2))


@pytest.mark.parametrize("library", ["jax.numpy", "torch", "array_api_strict"])
def test_cd_on_other_libraries(library: str) -> None:
    xp = pytest.importorskip(library)
    V = near_exact("float32", 1e-4, seed=0)
    rng = np.random.default_rng(0)
    start = [rng.random(shape).astype("float32") + 0.1 for shape in ((100, 4), (4, 60))]
    options: dict[str, Any] = {"solver": "cd", "max_iter": 400, "tol": 1e-7}
    want = nmf(V, 4, init=(start[0], start[1]), **options).divergence
    W, H = (xp.asarray(x) for x in start)
    found = nmf(xp.asarray(V), 4, init=(W, H), **options).divergence
    assert found < 4 * want


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("seed", range(3))
def test_rounding_is_no_rise(dtype: str, beta: float, seed: int) -> None:
    """From an exact fit, alone and in a stack."""
    rng = np.random.default_rng(seed)
    W, H = (rng.random(shape).astype(dtype) + np.asarray(0.1, dtype) for shape in ((2, 10, 3), (2, 3, 8)))
    solvers = {"mu", "mm", *(("newton", "cd") if beta == 1 else ("cd", "cd-plain") if beta == 2 else ())}
    for solver in sorted(solvers):
        options: dict[str, Any] = {"solver": solver, "beta_loss": beta}
        ends = [
            transform(W[0] @ H[0], H[0], init=W[0], **options).status,
            nmf(W[0] @ H[0], 3, init=(W[0], H[0]), **options).status,
            *nmf(W @ H, 3, init=(W, H), **options).status,
        ]
        assert Status.INCREASED not in ends, solver


def test_of_two_branches_one_runs() -> None:
    """Where the condition can be asked for; in a compiled function both are there, and one counts."""
    zero, one = np.asarray(0.0), np.asarray(1.0)
    xp = libraries.array_namespace(zero)
    never = mock.Mock(side_effect=AssertionError)
    assert operators.either(one > 0, lambda: one, never, xp=xp) == 1
    assert operators.either(zero > 0, never, lambda: zero, xp=xp) == 0


@pytest.mark.parametrize("beta", [-1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_divergence_is_negative(beta: float, dtype: str) -> None:
    """Single entries, each beside a model that is off by a little more than rounding, where no other term helps."""
    rng, eps = np.random.default_rng(0), np.finfo(dtype).eps
    Y = (10.0 ** rng.uniform(-6, 6, (5000, 1, 1))).astype(dtype)
    V = (Y * (1 + eps ** rng.uniform(0.3, 1, Y.shape) * rng.normal(size=Y.shape))).astype(dtype)
    assert np.asarray(beta_divergence(V, Y, np.ones((1, 1), dtype), beta_loss=beta)).min() >= 0
