"""The loop: the only file that knows how a backend iterates and compiles.

One algorithm, `init`, then `step` again and again, with a check every `check_every` steps, in two bodies:

* Python drives eager arrays. On JAX the steps between two checks, the objective and the final report are
  compiled once for each shape, as the solver's settings are static and hashable.
* `jax.lax` drives traced arrays, inside a user's own `jax.jit`, where nothing can be read back.

Data that can only be visited block by block take the first body, on JAX too, with the programs of `lookahead`.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from nmf_xp import result
from nmf_xp.arrays import libraries, threads
from nmf_xp.data.blocks import Blockwise
from nmf_xp.data.grid import Grid
from nmf_xp.problem import Factors
from nmf_xp.result import Status
from nmf_xp.run.ending import Asked, returned
from nmf_xp.run.hosted import is_for_host, run_on_host
from nmf_xp.run.lookahead import Lookahead
from nmf_xp.run.position import End, Outcome, Position, Progress, Recorder, Schedule
from nmf_xp.run.programs import (
    Programs,
    by_group,
    by_member,
    compiled_programs,
    indices_of,
    member_of,
    python_programs,
    read,
    some_of,
)
from nmf_xp.run.traced import run_traced
from nmf_xp.run.verdict import judge, size_of, status_after, statuses_of, still_falls

if TYPE_CHECKING:
    from collections.abc import Callable

    from nmf_xp.arrays.typing import Array, Namespace
    from nmf_xp.problem import Problem
    from nmf_xp.solvers.solver import Solver


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
    traced = any(libraries.is_traced(x) for x in (problem.data.values, *start))
    if libraries.is_jax(W):
        _register_result()
    if not traced and is_for_host(solver, problem, start):
        options: Any = {
            "schedule": schedule,
            "observe": observe,
            "recorder": recorder,
            "asked": asked,
            "second": second,
        }
        return run_on_host(run, solver, problem, start, **options, xp=xp)
    problem = solver.prepare(problem, xp=xp)
    if not solver.compiles:
        programs = python_programs
    elif isinstance(problem.data, Blockwise | Grid):
        ahead = Lookahead()
        programs = python_programs._replace(init=ahead.init, steps=ahead.steps, objective=ahead.objective)
    else:
        programs = compiled_programs() if libraries.is_jax(W) else python_programs
    if traced:
        return run_traced(solver, problem, asked, *start, schedule=schedule, xp=xp)
    # On a CPU a few members fit the cache and a stack does not; sparse data know no stack.
    if W.ndim > 2 and (libraries.is_numpy(W) or problem.data.values.ndim < 2):
        large = problem.data.values.ndim < 2 or len(problem.data.member(0).block_starts(W.shape[-1])) > 2
        programs = programs.map(by_member if large or not solver.stacks(W, problem) else by_group)
    members = W.shape[0] if W.ndim > 2 else None
    held = threads.held_for(W)
    del W
    with held:
        checks = schedule.tol > 0 or observe is not None or solver.has_rule
        if checks or recorder is not None:
            ends = _run_in_parts(solver, problem, start, schedule, observe, recorder, programs, xp, checks=checks)
        else:  # exactly max_iter steps, with no value read back
            state = _first_state(solver, problem, start, programs, xp)
            state = programs.steps(solver, state, problem, schedule.max_iter, xp)
            ends = [End((), schedule.max_iter, Status.MAX_ITER, member_of(state, i)) for i in range(members or 1)]
        state = ends[0].state
        if members is not None:
            state = type(state)(*(xp.stack(parts) for parts in zip(*(end.state for end in ends), strict=True)))
        *found, gap = returned(solver, state, problem, asked, programs, reading=checks, xp=xp)
        statuses = [end.status for end in ends]
        if Status.CONVERGED in statuses:
            statuses = statuses_of(solver, ends, problem, [read(x) for x in (gap, *found[3:])], xp)
        if second is not None and Status.CONVERGED in statuses:
            factors, other = Factors(*found[:2]), type(second) is not type(solver)
            falls = still_falls(second, factors, posed, programs, xp, other=other, tol=schedule.tol)
            pairs = zip(statuses, falls, strict=True)
            statuses = [Status.SLOW if x is Status.CONVERGED and fall else x for x, fall in pairs]
        rest = [(end.history, end.n_iter, status.value) for end, status in zip(ends, statuses, strict=True)]
        return Outcome(*found, *(rest[0] if members is None else zip(*rest, strict=True)))


def _first_state(solver: Solver, problem: Problem, start: list[Array], programs: Programs, xp: Namespace) -> Any:
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
    programs: Programs,
    xp: Namespace,
    *,
    checks: bool,
) -> list[End]:
    """Steps with a check, and one read, every `check_every` of them; without `checks` only with a record.

    Each member of a stack ends for itself. It leaves the stack when the next compaction comes, and stays as it was.
    """
    verdict = judge(solver, schedule.tol, problem.data.values.dtype, xp=xp)
    whole = problem.data  # of all members, with those that will have left the stack
    sizes = functools.cache(lambda: read(size_of(whole, solver.beta, xp=xp)))
    lag = -(-solver.pace // schedule.check_every)  # checks between which there must be progress
    # The history begins with the start that was given, whatever the solver makes of it first.
    history = [[x] for x in read(programs.objective(solver, Factors(*start), problem, xp))]
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
        problem = problem._replace(data=problem.data.select(indices_of(rows, state, xp=xp), xp=xp))
    stop = False
    while True:
        ended = [int(x) for x in read(state.ended)] if solver.has_rule else [0] * len(rows)
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
                    end = End(tuple(past) if checks else (), ended[row] or n_iter, status, member_of(state, row))
                    ends[member] = end  # lint: a list
        running = [row for row, member in enumerate(rows) if ends[member] is None]
        if not running:
            return [end for end in ends if end is not None]
        if len(running) <= programs.compact_below * len(rows) and len(running) < len(rows):
            state, problem = some_of(state, problem, running, xp=xp)
            rows = [rows[row] for row in running]
            running = list(range(len(rows)))
        n = min(schedule.check_every - n_iter % schedule.check_every, schedule.max_iter - n_iter)
        taken, state = [state], None  # only the steps themselves hold on to the factors at their start
        state = programs.steps(solver, taken.pop(), problem, n, xp)
        n_iter += n  # lint: a Python int
        checked = checks
        if checks:
            current = read(programs.objective(solver, Factors(state.W, state.H), problem, xp))
            for row in running:
                history[rows[row]].append(current[row])
            if observe is not None:
                with threads.let_go():
                    stop = observe(_progress(n_iter, history, state, running, xp=xp))
        if recorder is not None:
            kept = solver.kept(state, problem, xp=xp)
            recorder.record(Position(n_iter, rows, history, ends, kept, checked))
            del kept


def _progress(n_iter: int, history: list[list[float]], state: Any, running: list[int], *, xp: Namespace) -> Progress:
    """What a callback sees; of a stack, every member's last objective and the factors of those that run."""
    if state.W.ndim == 2:
        return Progress(n_iter, history[0][-1], state.W, state.H)
    indices = indices_of(running, state, xp=xp)
    W, H = (xp.take(x, indices, axis=0) for x in (state.W, state.H))
    return Progress(n_iter, tuple(past[-1] for past in history), W, H)


@functools.cache
def _register_result() -> None:
    """Let compiled functions return a Result."""
    import jax

    jax.tree_util.register_dataclass(result.Result, data_fields=result.DATA_FIELDS, meta_fields=result.STATIC_FIELDS)
