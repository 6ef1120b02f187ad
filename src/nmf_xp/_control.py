"""The loop: the only file that knows how a backend iterates and compiles.

One algorithm, `init`, then `step` again and again, with a check every `check_every` steps, in two bodies:

* Python drives eager arrays. On JAX the steps between two checks, the objective and the final report are
  compiled once for each shape, as the solver's settings are static and hashable.
* `jax.lax` drives traced arrays, inside a user's own `jax.jit`, where nothing can be read back.

Lazy arrays (dask) need a third body; until it is here, `nmf` refuses them.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp import _compat, result
from nmf_xp.divergences import data_divergence
from nmf_xp.optimality import kkt_residual, objective, penalties
from nmf_xp.result import Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from nmf_xp._typing import Array, Namespace
    from nmf_xp.problem import Problem
    from nmf_xp.solvers import Solver


class Progress(NamedTuple):
    """What a callback sees at each check."""

    iteration: int
    divergence: float
    W: Array
    H: Array


class Schedule(NamedTuple):
    """How long to iterate, and when to check."""

    max_iter: int
    tol: float
    check_every: int


class Outcome(NamedTuple):
    """How a run ended: Python scalars from eager arrays, arrays from traced ones."""

    W: Array
    H: Array
    divergence: Any
    objective: Any
    kkt_residual: Any
    history: Any
    n_iter: Any
    status: Any


def run(
    solver: Solver,
    problem: Problem,
    W: Array,
    H: Array,
    *,
    schedule: Schedule,
    observe: Callable[[Progress], bool] | None,
    xp: Namespace,
) -> Outcome:
    """Iterate from (W, H) to the end of the schedule; `observe` sees each check and returns True to stop."""
    programs = _python_programs
    if _compat.is_jax(problem.data.values):
        _register_result()
        programs = _compiled_programs()
        if any(_compat.is_traced(x) for x in (problem.data.values, W, H)):
            return _run_traced(solver, problem, W, H, schedule=schedule, xp=xp)
    state = solver.init(problem, W, H, xp=xp)
    history: tuple[float, ...] = ()
    if schedule.tol == 0 and observe is None:  # exactly max_iter steps, with no value read back
        state = programs.steps(solver, state, problem, schedule.max_iter, xp)
        n_iter, status = schedule.max_iter, Status.MAX_ITER
    else:
        state, history, n_iter, status = _run_checked(solver, state, problem, schedule, observe, programs, xp)
    return Outcome(
        state.W,
        state.H,
        *programs.report(solver, state, problem, xp),
        history,
        n_iter,
        status.value,
    )


def _run_checked(
    solver: Solver,
    state: Any,
    problem: Problem,
    schedule: Schedule,
    observe: Callable[[Progress], bool] | None,
    programs: _Programs,
    xp: Namespace,
) -> tuple[Any, tuple[float, ...], int, Status]:
    """Steps with a check, and one scalar read, every `check_every` of them."""
    eps = float(xp.finfo(problem.data.values.dtype).eps)
    history = [_compat.scalar(programs.objective(solver, state, problem, xp))]
    n_iter, status = 0, Status.RUNNING
    while status is Status.RUNNING and n_iter < schedule.max_iter:
        n = min(schedule.check_every, schedule.max_iter - n_iter)
        state = programs.steps(solver, state, problem, n, xp)
        n_iter += n
        history.append(_compat.scalar(programs.objective(solver, state, problem, xp)))
        status = Status.of(_verdict(history[0], history[-2], history[-1], tol=schedule.tol, eps=eps))
        if observe is not None and observe(Progress(n_iter, history[-1], state.W, state.H)):
            status = Status.STOPPED if status is Status.RUNNING else status
    if status is Status.RUNNING:
        status = Status.MAX_ITER
    return state, tuple(history), n_iter, status


def _run_traced(solver: Solver, problem: Problem, W: Array, H: Array, *, schedule: Schedule, xp: Namespace) -> Outcome:
    """The same loop inside a user's compiled function; the history is padded with NaN."""
    from jax import lax
    from jax import numpy as jnp

    max_iter, tol, check_every = schedule
    state = solver.init(problem, W, H, xp=xp)
    n_iter, status, history = jnp.asarray(max_iter), jnp.asarray(Status.RUNNING.value), jnp.zeros(0)
    if tol == 0:
        state = lax.fori_loop(0, max_iter, lambda _, s: solver.step(s, problem, xp=xp), state)
    else:
        eps = float(xp.finfo(problem.data.values.dtype).eps)
        start = _objective(solver, state, problem, xp)
        history = jnp.full(1 + -(-max_iter // check_every), jnp.nan, dtype=start.dtype).at[0].set(start)

        def body(carry: tuple[Any, ...]) -> tuple[Any, ...]:
            state, n_iter, _, check, history = carry
            n = jnp.minimum(check_every, max_iter - n_iter)
            state = lax.fori_loop(0, n, lambda _, s: solver.step(s, problem, xp=xp), state)
            current = _objective(solver, state, problem, xp)
            status = _verdict(start, history[check], current, tol=tol, eps=eps)
            return state, n_iter + n, status, check + 1, history.at[check + 1].set(current)

        def running(carry: tuple[Any, ...]) -> Array:
            return (carry[2] == Status.RUNNING.value) & (carry[1] < max_iter)

        zero = jnp.asarray(0)
        state, n_iter, status, _, history = lax.while_loop(running, body, (state, zero, status, zero, history))
    status = jnp.where(status == Status.RUNNING.value, Status.MAX_ITER.value, status)
    return Outcome(state.W, state.H, *_report(solver, state, problem, xp), history, n_iter, status)


def _verdict(start: Any, previous: Any, current: Any, *, tol: float, eps: float) -> Any:
    """Code of the Status after a check, for Python floats and for traced arrays.

    The decrease is measured against the objective itself, which makes the test independent of the scale of V and of the
    start. A rise counts as one when rounding does not explain it.
    """
    finite = (current - current) == 0
    rose = (current - previous > eps**0.5 * current) & (current - previous > eps * start)
    converged = previous - current <= tol * current
    running_or_ended = rose * Status.INCREASED.value + (1 - rose) * converged * Status.CONVERGED.value
    return (1 - finite) * Status.NOT_FINITE.value + finite * running_or_ended


class _Programs(NamedTuple):
    """What the Python loop calls: plain functions, or compiled ones."""

    steps: Callable[[Solver, Any, Problem, int, Namespace], Any]
    objective: Callable[[Solver, Any, Problem, Namespace], Array]
    report: Callable[[Solver, Any, Problem, Namespace], tuple[Array, Array, Array]]


def _steps(solver: Solver, state: Any, problem: Problem, n: int, xp: Namespace) -> Any:
    for _ in range(n):
        state = solver.step(state, problem, xp=xp)
    return state


def _objective(solver: Solver, state: Any, problem: Problem, xp: Namespace) -> Array:
    return objective(problem, state.W, state.H, beta=solver.beta, xp=xp)


def _report(solver: Solver, state: Any, problem: Problem, xp: Namespace) -> tuple[Array, Array, Array]:
    """Divergence, objective and optimality residual at the end."""
    W, H = state.W, state.H
    divergence = data_divergence(problem.data, W, H, beta=solver.beta, xp=xp)
    residual = kkt_residual(problem, W, H, beta=solver.beta, floor=solver.floor, fixed_h=solver.fixed_h, xp=xp)
    return divergence, divergence + penalties(problem, W, H, xp=xp), residual


_python_programs = _Programs(_steps, _objective, _report)


@functools.cache
def _compiled_programs() -> _Programs:
    """The three programs under `jax.jit`, made once, so that a second call with the same shapes compiles nothing."""
    import jax

    def steps(solver: Solver, state: Any, problem: Problem, n: int, xp: Namespace) -> Any:
        return jax.lax.fori_loop(0, n, lambda _, s: solver.step(s, problem, xp=xp), state)

    def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
        return jax.jit(function, static_argnames=("solver", "xp"))

    return _Programs(compiled(steps), compiled(_objective), compiled(_report))


@functools.cache
def _register_result() -> None:
    """Let compiled functions return a Result."""
    import jax

    jax.tree_util.register_dataclass(result.Result, data_fields=result.DATA_FIELDS, meta_fields=result.STATIC_FIELDS)
