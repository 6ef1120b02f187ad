"""The programs of a run: what the loop calls between two checks, plain, compiled, or for a stack in parts."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.arrays import libraries, threads, transfer

if TYPE_CHECKING:
    from collections.abc import Callable

    from nmf_xp.arrays.typing import Array, Namespace
    from nmf_xp.problem import Factors, Problem
    from nmf_xp.problem.optimality import Report
    from nmf_xp.solvers.solver import Solver


SMALL = 2**17  # entries of a matrix that leaves room for others in the cache
AT_ONCE = {"cpu": 2**31, "gpu": 2**36}  # products of two numbers in a program, after which an interrupt is noticed


def read(objective: Array) -> list[float]:
    """The objective of each member, as Python floats."""
    return transfer.to_host(objective).tolist() if objective.ndim else [transfer.scalar(objective)]


def member_of(state: Any, row: int) -> Any:
    """The state of one member."""
    return state if state.W.ndim == 2 else type(state)(*(x[row, ...] for x in state))


def some_of(state: Any, problem: Problem, rows: list[int], *, xp: Namespace) -> tuple[Any, Problem]:
    """State and problem of some of the members."""
    indices = indices_of(rows, state, xp=xp)
    state = type(state)(*(xp.take(x, indices, axis=0) for x in state))
    return state, problem._replace(data=problem.data.select(indices, xp=xp))


def indices_of(rows: list[int], state: Any, *, xp: Namespace) -> Array:
    """The numbers of some members, as an array beside the state."""
    return xp.asarray(rows, device=libraries.device(state.W))


class Programs(NamedTuple):
    """What the Python loop calls: plain functions, or compiled ones."""

    init: Callable[[Solver, Any, Problem, Namespace], Any]
    steps: Callable[[Solver, Any, Problem, int, Namespace], Any]
    objective: Callable[[Solver, Any, Problem, Namespace], Array]
    report: Callable[[Solver, Any, Problem, Namespace], Report]
    compact_below: float  # the share of a stack that must still run for it to be compacted

    def map(self, wrap: Callable[..., Any]) -> Programs:
        """The programs for a stack, made of those for its parts."""
        return Programs(wrap(self.init), wrap(self.steps), wrap(self.objective), wrap(self.report), compact_below=1.0)


def _init(solver: Solver, start: Factors, problem: Problem, xp: Namespace) -> Any:
    return solver.init(problem, *start, xp=xp)


def _steps(solver: Solver, state: Any, problem: Problem, n: int, xp: Namespace) -> Any:
    return solver.balanced(solver.steps(state, problem, n, xp=xp), problem, xp=xp)


def _objective(solver: Solver, state: Any, problem: Problem, xp: Namespace) -> Array:
    return solver.objective(problem, state.W, state.H, xp=xp)


def _report(solver: Solver, factors: Factors, problem: Problem, xp: Namespace) -> Report:
    return solver.report(factors, problem, xp=xp)


python_programs = Programs(_init, _steps, _objective, _report, compact_below=1.0)


def by_member(program: Callable[..., Any]) -> Callable[..., Any]:
    """A program for a stack that takes its members one by one."""

    def run_members(solver: Solver, state: Any, problem: Problem, *rest: Any) -> Any:
        def run_member(i: int) -> Any:
            return program(solver, member_of(state, i), problem._replace(data=problem.data.member(i)), *rest)

        members = list(range(state.W.shape[0]))
        # With members for every thread, a thread takes one as a whole; else the threads share its rows.
        run = threads.run if len(members) >= 2 * threads.count() else map
        return _joined(list(run(run_member, members)), rest[-1].stack)

    return run_members


def by_group(program: Callable[..., Any]) -> Callable[..., Any]:
    """A program for a stack of small matrices that gives groups of its members to the threads."""

    def run_groups(solver: Solver, state: Any, problem: Problem, *rest: Any) -> Any:
        xp = rest[-1]
        m, n = problem.data.shape[-2:]
        size = max(1, SMALL // (m * n))  # as many as share the cache
        shares = threads.shares(list(range(state.W.shape[0])))
        groups = [share[i : i + size] for share in shares for i in range(0, len(share), size)]

        def run_group(group: list[int]) -> Any:
            # Neighbours, as a slice: to take them would change the memory order, and with it the last digits of sums.
            part = type(state)(*(x[group[0] : group[-1] + 1, ...] for x in state))
            data = problem.data.select(indices_of(group, state, xp=xp), xp=xp)
            return program(solver, part, problem._replace(data=data), *rest)

        return _joined(threads.run(run_group, groups), xp.concat)

    return run_groups


def _joined(parts: list[Any], join: Callable[..., Any]) -> Any:
    """Results of a program, array by array."""
    if not isinstance(parts[0], tuple):
        return join(parts)
    arrays = (join(arrays) for arrays in zip(*parts, strict=True))
    return type(parts[0])(*arrays) if hasattr(parts[0], "_fields") else tuple(arrays)


@functools.cache
def compiled_programs() -> Programs:
    """The three programs under `jax.jit`, made once, so that a second call with the same shapes compiles nothing."""
    import jax

    def steps(solver: Solver, state: Any, problem: Problem, n: int, xp: Namespace) -> Any:
        state = jax.lax.fori_loop(0, n, lambda _, s: solver.step(s, problem, xp=xp), state)
        return solver.balanced(state, problem, xp=xp)

    def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
        def program(solver: Solver, floor: Any, *rest: Any, xp: Namespace) -> Any:
            return function(dataclasses.replace(solver, floor=floor), *rest, xp)

        program.__name__ = function.__name__  # by which profiles, and what XLA writes, tell the programs apart
        jitted = jax.jit(program, static_argnames=("solver", "xp"))

        def with_floor(run: Callable[..., Any]) -> Callable[..., Any]:  # which goes with V's units, and these are many
            return lambda solver, *rest: run(
                dataclasses.replace(solver, floor=0.0), solver.floor, *rest[:-1], xp=rest[-1]
            )

        call: Any = with_floor(jitted)
        call.lower = with_floor(jitted.lower)  # by which what XLA makes of it can be measured
        return call

    program = compiled(steps)

    def in_pieces(solver: Solver, state: Any, problem: Problem, n: int, xp: Namespace) -> Any:
        limit = AT_ONCE["gpu" if libraries.on_gpu(state.W) else "cpu"]
        most = max(1, limit // (math.prod(problem.data.shape) * state.W.shape[-1]))
        while n > most:
            state = program(solver, state, problem, most, xp)
            state.W.block_until_ready()
            n -= most  # lint: a Python int
        return program(solver, state, problem, n, xp)

    in_pieces.lower = program.lower  # type: ignore[attr-defined]
    return Programs(compiled(_init), in_pieces, compiled(_objective), compiled(_report), compact_below=0.5)
