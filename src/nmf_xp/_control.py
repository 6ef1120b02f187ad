"""The loop: the only file that knows how a backend iterates and compiles.

One algorithm, `init`, then `step` again and again, with a check every `check_every` steps, in two bodies:

* Python drives eager arrays. On JAX the steps between two checks, the objective and the final report are
  compiled once for each shape, as the solver's settings are static and hashable.
* `jax.lax` drives traced arrays, inside a user's own `jax.jit`, where nothing can be read back.

Data that can only be visited block by block take the first body, on JAX too, with the programs of `_lookahead`.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from nmf_xp import _compat, _threads, result
from nmf_xp._ending import Asked, ended
from nmf_xp._lookahead import Lookahead
from nmf_xp._verdict import GAINS, is_settled, judge, last_falls, noise_of, size_of, status_after
from nmf_xp.data.blocks import Blockwise
from nmf_xp.data.grid import Grid
from nmf_xp.optimality import objective
from nmf_xp.problem import Factors
from nmf_xp.result import Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from nmf_xp._typing import Array, Namespace
    from nmf_xp.optimality import Report
    from nmf_xp.problem import Problem
    from nmf_xp.solvers.solver import Solver

SECOND_STEPS = 5
"""Iterations of another solver, from where one says that it converged."""
SMALL = 2**17  # entries of a matrix that leaves room for others in the cache


class Progress(NamedTuple):
    """What a callback sees at each check.

    `divergence` is the objective, a float; for a stack a tuple of them, with the factors of the members that still run.
    """

    iteration: int
    divergence: Any
    W: Array
    H: Array


class Schedule(NamedTuple):
    """How long to iterate, and when to check."""

    max_iter: int
    tol: float
    check_every: int


class End(NamedTuple):
    """How one matrix, or one member of a stack, ended."""

    history: tuple[float, ...]
    n_iter: int
    status: Status
    state: Any


class Position(NamedTuple):
    """Where a run stands after some iterations: all that is needed to go on."""

    n_iter: int
    rows: list[int]  # the member in each row of the state
    history: list[list[float]]  # of each member
    ends: list[End | None]  # of each member
    state: Any
    checked: bool = False  # whether the last entries of the history are of this iteration


class Recorder(Protocol):
    """What keeps positions, so that a later run can go on from the last of them."""

    def resume(self, begun: Position, *, xp: Namespace) -> Position:
        """The position that was kept, or that of a run that has just begun."""

    def record(self, position: Position) -> None:
        """Keep this position if it is time to; the lists in it change after the call."""


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


@_compat.in_full_precision
def run(
    solver: Solver,
    problem: Problem,
    start: list[Array],
    *,
    schedule: Schedule,
    observe: Callable[[Progress], bool] | None,
    recorder: Recorder | None = None,
    asked: Asked | None = None,
    second: Solver | None = None,
    xp: Namespace,
) -> Outcome:
    """Iterate from W and H in `start` to the end of the schedule; `observe` sees each check and returns True to stop.

    What is returned answers what was `asked`, where that is another problem. With a `recorder` the run goes on from
    where an earlier one was when it last recorded its position. A `second` solver has a say in whether a run converged.
    `start` is emptied, so that nothing holds on to these factors once they are out of use.
    """
    W, posed = start[0], problem
    traced = any(_compat.is_traced(x) for x in (problem.data.values, *start))
    if _compat.is_jax(W):
        _register_result()
        if not traced and _is_small_stack_on_cpu(problem, W):
            return _run_on_host(solver, problem, start, schedule, observe, recorder, asked, second, xp=xp)
    problem = solver.prepare(problem, xp=xp)
    if not solver.compiles:
        programs = _python_programs
    elif isinstance(problem.data, Blockwise | Grid):
        ahead = Lookahead()
        programs = _python_programs._replace(init=ahead.init, steps=ahead.steps, objective=ahead.objective)
    else:
        programs = _compiled_programs() if _compat.is_jax(W) else _python_programs
    if traced:
        return _run_traced_stack(solver, problem, asked, *start, schedule=schedule, xp=xp)
    # On a CPU a few members fit the cache and a stack does not; sparse data know no stack.
    if W.ndim > 2 and (_compat.is_numpy(W) or problem.data.values.ndim < 2):
        large = problem.data.values.ndim < 2 or len(problem.data.member(0).block_starts(W.shape[-1])) > 2
        programs = programs.map(_by_group if solver.stacks and not large else _by_member)
    members = W.shape[0] if W.ndim > 2 else None
    threads = _threads.held_for(W)
    del W
    with threads, _compat.overflow_allowed():
        checks = schedule.tol > 0 or observe is not None or solver.has_rule
        if checks or recorder is not None:
            ends = _run_in_parts(solver, problem, start, schedule, observe, recorder, programs, xp, checks=checks)
        else:  # exactly max_iter steps, with no value read back
            state = _first_state(solver, problem, start, programs, xp)
            state = programs.steps(solver, state, problem, schedule.max_iter, xp)
            ends = [End((), schedule.max_iter, Status.MAX_ITER, _row(state, i)) for i in range(members or 1)]
        state = ends[0].state
        if members is not None:
            state = type(state)(*(xp.stack(parts) for parts in zip(*(end.state for end in ends), strict=True)))
        *found, gap = _ended(solver, state, problem, asked, programs, reading=checks, xp=xp)
        statuses = [end.status for end in ends]
        if Status.CONVERGED in statuses:
            statuses = _statuses(solver, ends, problem, [_read(x) for x in (gap, *found[3:])], xp)
        if second is not None and Status.CONVERGED in statuses:
            gains = _gains(second, solver.factors(state, problem, xp=xp), posed, programs, xp)
            pairs, most = zip(statuses, gains, strict=True), GAINS * max(schedule.tol, 1e-4)
            statuses = [Status.SLOW if x is Status.CONVERGED and gain > most else x for x, gain in pairs]
        rest = [(end.history, end.n_iter, status.value) for end, status in zip(ends, statuses, strict=True)]
        return Outcome(*found, *(rest[0] if members is None else zip(*rest, strict=True)))


def _statuses(
    solver: Solver, ends: list[End], problem: Problem, found: list[list[float]], xp: Namespace
) -> list[Status]:
    """Why each member ended, with a second look at those that fell by no more than `tol`.

    What was `found` are the gaps, the objectives and the residuals of the members.
    """

    @functools.cache
    def noises() -> list[float]:
        sizes = _read(size_of(problem.data, solver.beta, xp=xp))
        eps = float(xp.finfo(problem.data.values.dtype).eps)
        return [noise_of(size, eps) for size in sizes]

    def looked_into(i: int, end: End) -> Status:
        if end.status is not Status.CONVERGED or solver.has_rule:
            return end.status
        falls, (gap, objective, residual) = last_falls(end.history), (x[i] for x in found)

        def settled(noise: float) -> bool:
            return bool(is_settled(*falls, gap, objective, residual, noise, solver=solver))

        compiles = _compat.is_jax(problem.data.values)  # what a later call may not do
        if settled(0.0) or (not compiles and settled(noises()[i % len(noises())])):
            return Status.CONVERGED
        return Status.SLOW

    return [looked_into(i, end) for i, end in enumerate(ends)]


def _gains(second: Solver, factors: Factors, problem: Problem, programs: _Programs, xp: Namespace) -> list[float]:
    """By how much of it another solver lowers the objective of each member in a few iterations."""
    raised = (_compat.at_least(x, second.floor, xp=xp) for x in factors)
    terms = problem.w, problem.h
    factors = Factors(*(c.enforce(new, x, xp=xp) for new, x, c in zip(raised, factors, terms, strict=True)))
    problem = second.prepare(problem, xp=xp)
    before = _read(programs.objective(second, factors, problem, xp))
    state = programs.steps(second, programs.init(second, factors, problem, xp), problem, SECOND_STEPS, xp)
    after = _read(programs.objective(second, Factors(state.W, state.H), problem, xp))
    return [(a - b) / a if a > 0 else 0.0 for a, b in zip(before, after, strict=True)]


def _ended(
    solver: Solver,
    state: Any,
    problem: Problem,
    asked: Asked | None,
    programs: _Programs,
    *,
    reading: bool,
    xp: Namespace,
) -> tuple[Any, ...]:
    """The factors that are returned, with their divergence, objective and residual."""
    factors = solver.factors(state, problem, xp=xp)
    if asked is not None:
        problem, factors = asked.problem, asked.restored(factors, fixed_h=solver.fixed_h, xp=xp)

    def look(factors: Factors) -> Report:
        return programs.report(solver, factors, problem, xp)

    # What is read decides what comes next, and JAX would compile that in a later call.
    reading = (reading or _compat.is_numpy(factors.W)) and not _compat.is_jax(factors.W)
    settings: Any = {"floor": solver.floor, "fixed_h": solver.fixed_h, "polish": solver.polish, "tilt": solver.tilt}
    W, *rest = ended(look, factors, problem, **settings, reading=reading, xp=xp)
    return solver.handed_over(W, problem, xp=xp), *rest


def _is_small_stack_on_cpu(problem: Problem, W: Any) -> bool:
    """Whether JAX's arrays are a stack of dense matrices in the host's memory, each of which fits the cache."""
    m, n = problem.data.shape[-2:]
    if W.ndim < 3 or problem.data.values.ndim < 2 or m * n > SMALL:
        return False
    return [device.platform for device in W.devices()] == ["cpu"]


def _run_on_host(
    solver: Solver,
    problem: Problem,
    start: list[Array],
    schedule: Schedule,
    observe: Callable[[Progress], bool] | None,
    recorder: Recorder | None,
    asked: Asked | None,
    second: Solver | None,
    *,
    xp: Namespace,
) -> Outcome:
    """A stack of JAX arrays by NumPy, which takes small matrices one by one, in kernels and threads."""
    import jax

    device = _compat.device(start[0])
    wide = _compat.accumulator_dtype(xp, device)

    def host(x: Any) -> Any:
        return _compat.to_host(x) if _compat.is_jax(x) else x

    def back(x: Any, dtype: Any) -> Any:
        return _compat.from_host(x, xp=xp, dtype=dtype, device=device)

    def seen(progress: Progress) -> bool:
        assert observe is not None
        W, H = (back(x, x.dtype) for x in (progress.W, progress.H))
        return observe(progress._replace(W=W, H=H))

    problem, asked = jax.tree_util.tree_map(host, (problem, asked))
    start[:] = map(host, start)  # lint: a list
    numpy = _compat.array_namespace(*start)
    observed = seen if observe else None
    options: Any = {"schedule": schedule, "observe": observed, "recorder": recorder, "asked": asked, "second": second}
    end = run(solver, problem, start, **options, xp=numpy)
    factors = {name: back(getattr(end, name), problem.data.values.dtype) for name in ("W", "H")}
    numbers = {name: back(getattr(end, name), wide) for name in ("divergence", "objective", "kkt_residual")}
    return end._replace(**factors, **numbers)


def _first_state(solver: Solver, problem: Problem, start: list[Array], programs: _Programs, xp: Namespace) -> Any:
    factors = [Factors(*start)]
    start.clear()
    return programs.init(solver, factors.pop(), problem, xp)


def _run_in_parts(
    solver: Solver,
    problem: Problem,
    start: list[Array],
    schedule: Schedule,
    observe: Callable[[Progress], bool] | None,
    recorder: Recorder | None,
    programs: _Programs,
    xp: Namespace,
    *,
    checks: bool,
) -> list[End]:
    """Steps with a check, and one read, every `check_every` of them; without `checks` only with a record.

    Each member of a stack ends for itself. It leaves the stack when the next compaction comes, and stays as it was.
    """
    verdict = judge(solver, schedule.tol, problem.data.values.dtype, xp=xp)
    whole = problem.data  # of all members, with those that will have left the stack
    sizes = functools.cache(lambda: _read(size_of(whole, solver.beta, xp=xp)))
    lag = -(-solver.pace // schedule.check_every)  # checks between which there must be progress
    # The history begins with the start that was given, whatever the solver makes of it first.
    history = [[x] for x in _read(programs.objective(solver, Factors(*start), problem, xp))]
    state = _first_state(solver, problem, start, programs, xp)
    position = Position(0, list(range(len(history))), history, [None] * len(history), state)
    if recorder is not None:
        begun = solver.kept(state, problem, xp=xp)
        position = recorder.resume(position._replace(state=begun), xp=xp)
        if position.state is not begun:
            state = solver.taken_up(position.state, problem, xp=xp)
        del begun
    n_iter, rows, history, ends, _, checked = position
    del position, _
    if len(rows) < len(ends):
        problem = problem._replace(data=problem.data.select(_indices(rows, state, xp=xp), xp=xp))
    stop = False
    while True:
        ended = [int(x) for x in _read(state.ended)] if solver.has_rule else [0] * len(rows)
        for row, member in enumerate(rows):
            if ends[member] is None:
                past = history[member]
                last = n_iter == schedule.max_iter
                status = status_after(past, verdict, checked=checks and checked, stop=stop, last=last, lag=lag)
                if status is Status.INCREASED:  # only now is it asked for what rounding may explain
                    sized = functools.partial(verdict, size=sizes()[member % len(sizes())])
                    status = status_after(past, sized, checked=True, stop=stop, last=last, lag=lag)
                if ended[row]:
                    status = Status.CONVERGED
                if status is not Status.RUNNING:
                    end = End(tuple(past) if checks else (), ended[row] or n_iter, status, _row(state, row))
                    ends[member] = end  # lint: a list
        running = [row for row, member in enumerate(rows) if ends[member] is None]
        if not running:
            return [end for end in ends if end is not None]
        if len(running) <= programs.compact_below * len(rows) and len(running) < len(rows):
            state, problem = _select(state, problem, running, xp=xp)
            rows = [rows[row] for row in running]
            running = list(range(len(rows)))
        n = min(schedule.check_every - n_iter % schedule.check_every, schedule.max_iter - n_iter)
        taken, state = [state], None  # only the steps themselves hold on to the factors at their start
        state = programs.steps(solver, taken.pop(), problem, n, xp)
        n_iter += n  # lint: a Python int
        checked = checks
        if checks:
            current = _read(programs.objective(solver, Factors(state.W, state.H), problem, xp))
            for row in running:
                history[rows[row]].append(current[row])
            stop = observe is not None and observe(_progress(n_iter, history, state, running, xp=xp))
        if recorder is not None:
            kept = solver.kept(state, problem, xp=xp)
            recorder.record(Position(n_iter, rows, history, ends, kept, checked))
            del kept


def _read(objective: Array) -> list[float]:
    """The objective of each member, as Python floats."""
    return _compat.to_host(objective).tolist() if objective.ndim else [_compat.scalar(objective)]


def _row(state: Any, row: int) -> Any:
    """The state of one member."""
    return state if state.W.ndim == 2 else type(state)(*(x[row, ...] for x in state))


def _select(state: Any, problem: Problem, rows: list[int], *, xp: Namespace) -> tuple[Any, Problem]:
    """State and problem of some of the members."""
    indices = _indices(rows, state, xp=xp)
    state = type(state)(*(xp.take(x, indices, axis=0) for x in state))
    return state, problem._replace(data=problem.data.select(indices, xp=xp))


def _indices(rows: list[int], state: Any, *, xp: Namespace) -> Array:
    return xp.asarray(rows, device=_compat.device(state.W))


def _progress(n_iter: int, history: list[list[float]], state: Any, running: list[int], *, xp: Namespace) -> Progress:
    """What a callback sees; of a stack, every member's last objective and the factors of those that run."""
    if state.W.ndim == 2:
        return Progress(n_iter, history[0][-1], state.W, state.H)
    indices = _indices(running, state, xp=xp)
    W, H = (xp.take(x, indices, axis=0) for x in (state.W, state.H))
    return Progress(n_iter, tuple(past[-1] for past in history), W, H)


def _run_traced_stack(
    solver: Solver, problem: Problem, asked: Asked | None, W: Array, H: Array, *, schedule: Schedule, xp: Namespace
) -> Outcome:
    """One matrix, or under `jax.vmap` the members of a stack."""
    import jax

    run_one = functools.partial(_run_traced, solver, schedule=schedule, xp=xp)
    if W.ndim == 2:
        return run_one(problem, asked, W, H)
    axes = jax.tree_util.tree_map(lambda x: 0 if getattr(x, "ndim", 0) > 2 else None, (problem, asked))
    return jax.vmap(run_one, in_axes=(*axes, 0, 0))(problem, asked, W, H)


def _run_traced(
    solver: Solver, problem: Problem, asked: Asked | None, W: Array, H: Array, *, schedule: Schedule, xp: Namespace
) -> Outcome:
    """The same loop inside a user's compiled function; the history is padded with NaN."""
    from jax import lax
    from jax import numpy as jnp

    max_iter, tol, check_every = schedule
    factors = Factors(W, H)
    state = solver.init(problem, *factors, xp=xp)
    n_iter, status, history = jnp.asarray(max_iter), jnp.asarray(Status.RUNNING.value), jnp.zeros(0)
    if tol == 0:
        state = lax.fori_loop(0, max_iter, lambda _, s: solver.step(s, problem, xp=xp), state)
    else:
        size = size_of(problem.data, solver.beta, xp=xp)
        verdict = functools.partial(judge(solver, tol, problem.data.values.dtype, xp=xp), size=size)
        lag = -(-solver.pace // check_every)
        start = _objective(solver, factors, problem, xp)
        history = jnp.full(1 + -(-max_iter // check_every), jnp.nan, dtype=start.dtype).at[0].set(start)

        def body(carry: tuple[Any, ...]) -> tuple[Any, ...]:
            state, n_iter, _, check, history = carry
            n = jnp.minimum(check_every, max_iter - n_iter)
            state = lax.fori_loop(0, n, lambda _, s: solver.step(s, problem, xp=xp), state)
            state = solver.balanced(state, problem, xp=xp)
            current = _objective(solver, state, problem, xp)
            earlier = jnp.where(check + 1 >= lag, history[jnp.maximum(check + 1 - lag, 0)], jnp.inf)
            status = verdict(start, history[check], earlier, current)
            return state, n_iter + n, status, check + 1, history.at[check + 1].set(current)

        def running(carry: tuple[Any, ...]) -> Array:
            return (carry[2] == Status.RUNNING.value) & (carry[1] < max_iter)

        zero = jnp.asarray(0)
        state, n_iter, status, checks, history = lax.while_loop(running, body, (state, zero, status, zero, history))
    status = jnp.where(status == Status.RUNNING.value, Status.MAX_ITER.value, status)
    *found, gap = _ended(solver, state, problem, asked, _python_programs, reading=False, xp=xp)
    if solver.has_rule:
        status = jnp.where(state.ended > 0, Status.CONVERGED.value, status)
        n_iter = jnp.where(state.ended > 0, state.ended.astype(n_iter.dtype), n_iter)
    elif tol > 0:
        width = jnp.maximum(1, checks // 3)
        a, b, c = (history[jnp.maximum(checks - i * width, 0)] for i in (2, 1, 0))
        noise = noise_of(size, float(xp.finfo(problem.data.values.dtype).eps))
        slow = jnp.logical_not(is_settled(a, b, c, gap, found[3], found[4], noise, solver=solver))
        status = jnp.where((status == Status.CONVERGED.value) & slow, Status.SLOW.value, status)
    rest: Any = history, n_iter, status
    return Outcome(*found, *rest)


class _Programs(NamedTuple):
    """What the Python loop calls: plain functions, or compiled ones."""

    init: Callable[[Solver, Any, Problem, Namespace], Any]
    steps: Callable[[Solver, Any, Problem, int, Namespace], Any]
    objective: Callable[[Solver, Any, Problem, Namespace], Array]
    report: Callable[[Solver, Any, Problem, Namespace], Report]
    compact_below: float  # the share of a stack that must still run for it to be compacted

    def map(self, wrap: Callable[..., Any]) -> _Programs:
        """The programs for a stack, made of those for its parts."""
        return _Programs(wrap(self.init), wrap(self.steps), wrap(self.objective), wrap(self.report), compact_below=1.0)


def _init(solver: Solver, start: Factors, problem: Problem, xp: Namespace) -> Any:
    return solver.init(problem, *start, xp=xp)


def _steps(solver: Solver, state: Any, problem: Problem, n: int, xp: Namespace) -> Any:
    return solver.balanced(solver.steps(state, problem, n, xp=xp), problem, xp=xp)


def _objective(solver: Solver, state: Any, problem: Problem, xp: Namespace) -> Array:
    return objective(problem, state.W, state.H, beta=solver.beta, xp=xp)


def _report(solver: Solver, factors: Factors, problem: Problem, xp: Namespace) -> Report:
    return solver.report(factors, problem, xp=xp)


_python_programs = _Programs(_init, _steps, _objective, _report, compact_below=1.0)


def _by_member(program: Callable[..., Any]) -> Callable[..., Any]:
    """A program for a stack that takes its members one by one."""

    def run_members(solver: Solver, state: Any, problem: Problem, *rest: Any) -> Any:
        def run_member(i: int) -> Any:
            return program(solver, _row(state, i), problem._replace(data=problem.data.member(i)), *rest)

        members = list(range(state.W.shape[0]))
        # With members for every thread, a thread takes one as a whole; else the threads share its rows.
        run = _threads.run if len(members) >= 2 * _threads.count() else map
        return _joined(list(run(run_member, members)), rest[-1].stack)

    return run_members


def _by_group(program: Callable[..., Any]) -> Callable[..., Any]:
    """A program for a stack of small matrices that gives groups of its members to the threads."""

    def run_groups(solver: Solver, state: Any, problem: Problem, *rest: Any) -> Any:
        xp = rest[-1]
        m, n = problem.data.shape[-2:]
        size = max(1, SMALL // (m * n))  # as many as share the cache
        shares = _threads.shares(list(range(state.W.shape[0])))
        groups = [share[i : i + size] for share in shares for i in range(0, len(share), size)]

        def run_group(group: list[int]) -> Any:
            # Neighbours, as a slice: to take them would change the memory order, and with it the last digits of sums.
            part = type(state)(*(x[group[0] : group[-1] + 1, ...] for x in state))
            data = problem.data.select(_indices(group, state, xp=xp), xp=xp)
            return program(solver, part, problem._replace(data=data), *rest)

        return _joined(_threads.run(run_group, groups), xp.concat)

    return run_groups


def _joined(parts: list[Any], join: Callable[..., Any]) -> Any:
    """Results of a program, array by array."""
    if not isinstance(parts[0], tuple):
        return join(parts)
    arrays = (join(arrays) for arrays in zip(*parts, strict=True))
    return type(parts[0])(*arrays) if hasattr(parts[0], "_fields") else tuple(arrays)


@functools.cache
def _compiled_programs() -> _Programs:
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

    return _Programs(compiled(_init), compiled(steps), compiled(_objective), compiled(_report), compact_below=0.5)


@functools.cache
def _register_result() -> None:
    """Let compiled functions return a Result."""
    import jax

    jax.tree_util.register_dataclass(result.Result, data_fields=result.DATA_FIELDS, meta_fields=result.STATIC_FIELDS)
