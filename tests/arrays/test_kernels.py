"""Each kernel equals the array-API function whose twin it is."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from array_api_compat import numpy as xp

from nmf_xp import Progress, nmf
from nmf_xp.arrays import kernels, threads
from nmf_xp.arrays.transfer import to_host
from nmf_xp.data import Dense
from nmf_xp.data.constraints import Constraints
from nmf_xp.data.tabled import Tabled
from nmf_xp.divergences import data_divergence
from nmf_xp.problem import Factors, Problem
from nmf_xp.solvers import MultiplicativeUpdate
from nmf_xp.solvers.newton import Newton
from nmf_xp.updates import factor_floor
from tests.problems import DTYPES

if TYPE_CHECKING:
    from collections.abc import Callable

assert kernels.compiles(), "these tests need the kernels: install a C compiler or numba"
multiplicative = importlib.import_module("nmf_xp.arrays.kernels.multiplicative")


@pytest.fixture(autouse=True)
def for_small_arrays_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "LEAST", 0)


def factors(shape: tuple[int, ...], r: int, dtype: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    rng = np.random.default_rng(r)
    *stack, m, n = shape
    return rng.random((*stack, m, r)).astype(dtype) + 0.1, rng.random((*stack, r, n)).astype(dtype) + 0.1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("r", [1, 3, 4, 6, 8, 11])
@pytest.mark.parametrize("stacked", [False, True])
def test_an_iteration_of_small_members(stacked: bool, r: int, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    V = np.random.default_rng(0).poisson(2.0, (5, 13, 9) if stacked else (13, 9)).astype(dtype)
    W, H = factors((5, 13, 9), r, dtype)
    solver, problem = MultiplicativeUpdate(beta=1.0, floor=1e-6), Problem(Dense(V))
    start = solver.init(problem, W, H, xp=xp)
    found = solver.steps(start, problem, 2, xp=xp)
    monkeypatch.setattr(kernels, "find", lambda *_: None)
    expected = solver.steps(start, problem, 2, xp=xp)
    for x, y in zip(found, expected, strict=True):
        np.testing.assert_allclose(
            to_host(x), to_host(y), rtol=50 * float(np.finfo(dtype).eps)
        )  # sums of 13 terms in another order


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_iteration_where_products_of_two_models_underflow(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    V = np.random.default_rng(0).poisson(2.0, (13, 9)).astype(dtype)
    W, H = factors((2, 13, 9), 5, dtype)
    solver, problem = MultiplicativeUpdate(beta=1.0, floor=factor_floor(W.dtype, beta=1.0, xp=xp)), Problem(Dense(V))
    V[4:9], W[:, 4:9], H[..., 2:4] = 0, solver.floor, solver.floor
    start = solver.init(problem, W, H, xp=xp)
    found = solver.steps(start, problem, 1, xp=xp)
    monkeypatch.setattr(kernels, "find", lambda *_: None)
    expected = solver.steps(start, problem, 1, xp=xp)
    for x, y in zip(found, expected, strict=True):
        np.testing.assert_allclose(to_host(x), to_host(y), rtol=50 * float(np.finfo(dtype).eps))


LAYOUTS: dict[str, Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]] = {
    "rows": np.ascontiguousarray,
    "columns": np.asfortranarray,
    "some rows": lambda V: np.repeat(V, 3, axis=0)[::3],
    "some columns": lambda V: np.repeat(V, 2, axis=1)[:, ::2],
    "within a wider one": lambda V: np.pad(V, ((1, 0), (2, 3)), constant_values=-1.0)[1:, 2:-3],
    "backwards": lambda V: V[::-1, :].copy()[::-1, :],
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("writable", [True, False])
@pytest.mark.parametrize("shape", [(300, 70), (7, 200), (65, 16), (4, 3)])
def test_an_iteration_in_any_memory_order(
    shape: tuple[int, int], writable: bool, layout: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multiplicative, "CHUNK", 2048)  # several chunks of H, and several batches of rows
    V = LAYOUTS[layout](np.random.default_rng(0).poisson(2.0, shape).astype(dtype))
    V.flags.writeable = writable
    before = V.copy()
    start = Factors(*factors(shape, 5, dtype))
    solver, problem = MultiplicativeUpdate(beta=1.0, floor=1e-6), Problem(Dense(V))
    with threads.held_blas():
        found = solver.step(start, problem, xp=xp)
    np.testing.assert_array_equal(V, before)
    monkeypatch.setattr(kernels, "find", lambda *_: None)
    expected = solver.step(start, problem, xp=xp)
    for x, y in zip(found, expected, strict=True):
        np.testing.assert_allclose(to_host(x), to_host(y), rtol=100 * float(np.finfo(dtype).eps))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("fixed_h", [False, True])
@pytest.mark.parametrize("shape", [(300, 70), (150, 3), (40, 300)])
@pytest.mark.parametrize("tabled", [False, True])
@pytest.mark.parametrize("l1", [None, 0.3])
def test_what_an_update_divides_by_is_given_to_the_kernel(
    l1: float | None, tabled: bool, shape: tuple[int, int], fixed_h: bool, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the sums of H, by those in each batch, of which one is empty in a column, and with an L1 penalty."""
    rng = np.random.default_rng(1)
    V = rng.poisson(2.0, shape).astype(dtype)
    codes, table = rng.integers(0, 3, shape[0]), rng.gamma(1.0, size=(3, shape[1])).astype(dtype)
    V[codes == 1, 2], table[1, 2] = 0, 0
    data: Any = Tabled(Dense(V), codes, table) if tabled else Dense(V)
    start = Factors(*factors(shape, 5, dtype))
    solver, problem = MultiplicativeUpdate(beta=1.0, floor=1e-6, fixed_h=fixed_h), Problem(data, Constraints(l1=l1))
    used: list[str] = []
    find = kernels.find
    monkeypatch.setattr(kernels, "find", lambda name, *x: used.append(name) or find(name, *x))  # type: ignore[func-returns-value]
    found = solver.step(start, problem, xp=xp)
    assert used == ["kl_half_iteration", "kl_half_iteration"]
    monkeypatch.setattr(kernels, "find", lambda *_: None)
    expected = solver.step(start, problem, xp=xp)
    for x, y in zip(found, expected, strict=True):
        np.testing.assert_allclose(to_host(x), to_host(y), rtol=100 * float(np.finfo(dtype).eps))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("l2", [None, 0.5])
@pytest.mark.parametrize("shape", [(300, 70), (700, 3), (139, 33), (40, 90)])
def test_a_step_of_newton_in_any_memory_order(
    shape: tuple[int, int], l2: float | None, layout: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of narrow matrices many rows lie in one register; the rows take steps of all lengths."""
    rng = np.random.default_rng(0)
    V = LAYOUTS[layout]((rng.poisson(2.0, shape) * 10.0 ** rng.integers(-2, 3, (shape[0], 1))).astype(dtype))
    V[3, :] = 0
    W, H = factors(shape, 5, dtype)
    before, constraints = V.copy(), Constraints(l1=0.2 if l2 else None, l2=l2)
    solver = Newton(beta=1.0, floor=1e-6)
    found = solver.half(Dense(V), W, H, constraints, measured=True, xp=xp)[:2]
    np.testing.assert_array_equal(V, before)
    monkeypatch.setattr(kernels, "find", lambda *_: None)
    expected = solver.half(Dense(V), W, H, constraints, measured=True, xp=xp)[:2]
    rtol = 1e4 * float(np.finfo(dtype).eps)
    for x, y in zip(found, expected, strict=True):
        np.testing.assert_allclose(to_host(x), to_host(y), rtol=rtol, atol=rtol)


def test_a_large_rank_is_left_to_matrix_products(monkeypatch: pytest.MonkeyPatch) -> None:
    V = np.random.default_rng(0).poisson(2.0, (200, 100)).astype(float)  # a smaller one iterates in one call
    used: list[str] = []
    find = kernels.find

    def observed(name: str, *arrays: Any) -> Any:
        used.append(name)
        return find(name, *arrays)

    monkeypatch.setattr(kernels, "find", observed)
    for r, expected in ((32, True), (33, False)):
        used.clear()
        nmf(V, r, solver="mu", beta_loss=1, random_state=0, max_iter=2)
        assert ("kl_half_iteration" in used) is expected


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("r", [1, 3, 8])
@pytest.mark.parametrize("stacked", [False, True])
def test_the_divergence_of_small_members(stacked: bool, r: int, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    V = (rng.poisson(2.0, (5, 13, 9)) * 10.0 ** rng.uniform(-20, 5, (5, 13, 9))).astype(dtype)
    V = V if stacked else V[0]
    W, H = factors((5, 13, 9), r, dtype)
    V[..., 0, 0] = float(np.finfo(dtype).smallest_normal) / 4
    W[:, 1, :] = 1e-13
    found = data_divergence(Dense(V), W, H, beta=1.0, xp=xp)
    monkeypatch.setattr(kernels, "find", lambda *_: None)
    expected = data_divergence(Dense(V), W, H, beta=1.0, xp=xp)
    # The kernel computes in float64, its twin entry by entry in the dtype.
    np.testing.assert_allclose(to_host(found), to_host(expected), rtol=20 * float(np.finfo(dtype).eps))


def test_the_divergence_keeps_its_digits_near_an_exact_model() -> None:
    V = np.random.default_rng(0).gamma(1.0, 1.0, (50, 13, 9))
    W, H = V * (1 + 1e-7), np.broadcast_to(np.eye(9), (50, 9, 9))
    found = data_divergence(Dense(V), W, H, beta=1.0, xp=xp)
    delta = V - W  # exact, and so is its square over 2 W but for one part in 1e7
    np.testing.assert_allclose(to_host(found), np.sum(delta**2 / (2 * W), axis=(1, 2)), rtol=1e-6)


def test_the_divergence_at_zeros_of_the_model() -> None:
    W, H = np.zeros((2, 1, 1)), np.ones((2, 1, 2))
    V = np.asarray([[[0.0, 1.0]], [[0.0, 0.0]]])
    assert to_host(data_divergence(Dense(V), W, H, beta=1.0, xp=xp)).tolist() == [np.inf, 0.0]


def test_small_stacks_of_jax_on_a_cpu_are_those_of_numpy() -> None:
    jax = pytest.importorskip("jax", reason="jax is not installed")
    if jax.default_backend() != "cpu":
        pytest.skip("the arrays are not in the host's memory")
    V = np.random.default_rng(0).poisson(2.0, (13, 9)).astype(float)
    options: dict[str, Any] = {"beta_loss": 1, "n_restarts": 4, "random_state": 0, "keep_restarts": True}
    seen: list[Progress] = []
    found = nmf(jax.numpy.asarray(V), 3, callback=seen.append, **options)
    expected = nmf(V, 3, **options)
    assert isinstance(found.W, jax.Array)
    assert isinstance(seen[0].H, jax.Array)
    assert found.restarts is not None
    assert expected.restarts is not None
    assert found.restarts.n_iter.tolist() == expected.restarts.n_iter.tolist()
    np.testing.assert_allclose(np.asarray(found.restarts.H), expected.restarts.H, rtol=1e-9)


def test_restarts_use_it_and_agree_with_single_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    V = np.random.default_rng(0).poisson(2.0, (13, 9)).astype(float)
    used, find = [], kernels.find

    def observed(name: str, *arrays: Any) -> Any:
        used.append(name)
        return find(name, *arrays)

    monkeypatch.setattr(kernels, "find", observed)
    restarts = nmf(V, 3, solver="mu", beta_loss=1, n_restarts=4, random_state=0, keep_restarts=True).restarts
    assert "kl_iterations" in used
    rng = np.random.default_rng(0)
    alone = [nmf(V, 3, solver="mu", beta_loss=1, random_state=rng) for _ in range(4)]
    assert restarts is not None
    assert restarts.n_iter.tolist() == [result.n_iter for result in alone]
    np.testing.assert_allclose(restarts.divergence, [result.divergence for result in alone], rtol=1e-12)
