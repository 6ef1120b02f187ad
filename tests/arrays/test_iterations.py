"""Many iterations in one call of a kernel are what one call an iteration makes, to rounding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from array_api_compat import numpy as xp

from nmf_xp import nmf
from nmf_xp.arrays import kernels, threads
from nmf_xp.data import Dense
from nmf_xp.data.constraints import FREE, Constraints
from nmf_xp.problem import Problem
from nmf_xp.run.programs import member_of
from nmf_xp.solvers import MultiplicativeUpdate, calls
from nmf_xp.solvers.cd import CoordinateDescent
from nmf_xp.solvers.cyclic import CyclicDescent
from nmf_xp.solvers.newton import Newton
from nmf_xp.updates import factor_floor
from tests.problems import DTYPES

if TYPE_CHECKING:
    from nmf_xp.solvers.solver import Solver

assert kernels.compiles(), "these tests need the kernels: install a C compiler or numba"
SOLVERS: dict[str, tuple[Any, float, dict[str, Any]]] = {
    "newton_iterations": (Newton, 1.0, {}),
    "coordinate_iterations": (CoordinateDescent, 1.0, {}),
    "descent_iterations": (CoordinateDescent, 2.0, {}),
    "frobenius_iterations": (MultiplicativeUpdate, 2.0, {}),
    "cyclic_iterations": (CyclicDescent, 2.0, {}),
    "cyclic_iterations in orders": (CyclicDescent, 2.0, {"orders": ((2, 0, 1), (1, 2, 0), (0, 1, 2))}),
    "cyclic_iterations with a rule": (CyclicDescent, 2.0, {"violation_tol": 0.2}),
}
TERMS = {"free": FREE, "penalised": Constraints(l1=0.5, l2=0.25), "curved": Constraints(l2=2.0)}
SHAPES = {"one": (13, 9), "wide": (5, 30), "a stack": (3, 13, 9), "starts": (13, 9)}


@pytest.fixture(autouse=True)
def for_small_arrays_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "LEAST", 0)


def posed(name: str, shape: str, terms: str, dtype: str) -> tuple[Solver, Problem, Any]:
    """A solver, its problem and its first state, with zeros in V and entries of the factors at the floor."""
    make, beta, options = SOLVERS[name]
    rng = np.random.default_rng(3)
    *stack, m, n = SHAPES[shape]
    V = rng.poisson(1.0, (*stack, m, n)).astype(dtype)
    stack = [4] if shape == "starts" else stack
    W, H = rng.random((*stack, m, 3)).astype(dtype) + 0.1, rng.random((*stack, 3, n)).astype(dtype) + 0.1
    solver = make(beta, factor_floor(W.dtype, beta=beta, xp=xp), **options)
    W[..., 2, 1], H[..., 0, 3] = solver.floor, solver.floor
    problem = solver.prepare(Problem(Dense(V), TERMS[terms], TERMS[terms]), xp=xp)
    return solver, problem, solver.init(problem, W, H, xp=xp)


def used_kernels(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The names of those that are found from now on."""
    used, find = set[str](), kernels.find

    def observed(name: str, *arrays: Any) -> Any:
        used.add(name)
        return find(name, *arrays)

    monkeypatch.setattr(kernels, "find", observed)
    return used


def stepped(solver: Solver, state: Any, problem: Problem) -> Any:
    """One iteration, of a stack member by member."""
    if state.W.ndim == 2:
        return solver.step(state, problem, xp=xp)
    members = range(len(state.W))
    parts = [(member_of(state, i), problem._replace(data=problem.data.member(i))) for i in members]
    ends = [solver.step(*part, xp=xp) for part in parts]
    return type(state)(*(np.stack(arrays) for arrays in zip(*ends, strict=True)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("terms", TERMS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", SOLVERS)
def test_many_iterations_in_one_call(
    name: str, shape: str, terms: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    solver, problem, start = posed(name, shape, terms, dtype)
    with monkeypatch.context() as observed:
        used = used_kernels(observed)
        found = solver.steps(start, problem, 7, xp=xp)
    assert name.split()[0] in used
    tolerance, state = 500 * float(np.finfo(dtype).eps), start
    for _ in range(7):
        expected = stepped(solver, state, problem)
        state = solver.steps(state, problem, 1, xp=xp)
        for x, y in zip(state, expected, strict=True):
            assert x.dtype == y.dtype
            assert x.shape == y.shape
            np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)
    for x, y in zip(found, state, strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("name", SOLVERS)
def test_a_start_is_left_as_it_is(name: str) -> None:
    solver, problem, start = posed(name, "a stack", "free", "float64")
    before = [np.array(x) for x in start]
    solver.steps(start, problem, 3, xp=xp)
    for x, y in zip(start, before, strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("name", SOLVERS)
def test_what_is_noticed_between_calls(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several calls make what one makes, and between them a thread for which nobody waits ends."""
    solver, problem, start = posed(name, "one", "free", "float64")
    expected = solver.steps(start, problem, 9, xp=xp)
    monkeypatch.setattr(calls, "AT_ONCE", 4 * 2**13)  # so that a call makes three of them
    asked: list[None] = []
    monkeypatch.setattr(threads, "give_up_if_asked", lambda: asked.append(None))
    for x, y in zip(solver.steps(start, problem, 9, xp=xp), expected, strict=True):
        np.testing.assert_array_equal(x, y)
    assert len(asked) == 3 or (name.endswith("rule") and len(asked) >= 2)


@pytest.mark.parametrize("name", [name for name in SOLVERS if name.startswith("cyclic")])
def test_given_components(name: str) -> None:
    """With H fixed W alone is found, in the same orders."""
    make, beta, options = SOLVERS[name]
    _, problem, start = posed(name, "one", "penalised", "float64")
    solver = make(beta, 1e-100, fixed_h=True, **options)
    begun = solver.init(problem, start.W, start.H, xp=xp)
    found, expected = solver.steps(begun, problem, 5, xp=xp), begun
    for _ in range(5):
        expected = solver.step(expected, problem, xp=xp)
    np.testing.assert_array_equal(found.H, begun.H)
    np.testing.assert_allclose(found.W, expected.W, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize(("solver", "loss"), [("newton", "kullback-leibler"), ("cd", "frobenius")])
@pytest.mark.parametrize("threads_of_stack", [1, 3])
def test_members_of_a_stack_are_what_they_are_alone(solver: str, loss: str, threads_of_stack: int) -> None:
    V = np.random.default_rng(5).poisson(4.0, (20 * threads_of_stack, 12, 8)).astype(float)
    rng = np.random.default_rng(6)
    W, H = rng.random((*V.shape[:1], 12, 3)) + 0.1, rng.random((*V.shape[:1], 3, 8)) + 0.1
    options: Any = {"beta_loss": loss, "solver": solver, "max_iter": 40, "tol": 1e-5}
    stack = nmf(V, 3, init=(W, H), **options)
    for i in range(0, len(V), 7):
        alone = nmf(V[i], 3, init=(W[i], H[i]), **options)
        assert alone.n_iter == stack.n_iter[i]
        assert alone.divergence == pytest.approx(float(stack.divergence[i]), rel=1e-9)
