"""The loop inside a user's own compiled function, where nothing can be read back: `jax.lax` drives it."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from nmf_xp.problem import Factors
from nmf_xp.result import Status
from nmf_xp.run.ending import returned
from nmf_xp.run.position import Outcome, Schedule
from nmf_xp.run.programs import python_programs
from nmf_xp.run.verdict import is_settled, judge, noise_of, size_of

if TYPE_CHECKING:
    from nmf_xp.arrays.typing import Array, Namespace
    from nmf_xp.problem import Problem
    from nmf_xp.run.ending import Asked
    from nmf_xp.solvers.solver import Solver


def run_traced(
    solver: Solver, problem: Problem, asked: Asked | None, W: Array, H: Array, *, schedule: Schedule, xp: Namespace
) -> Outcome:
    """One matrix, or under `jax.vmap` the members of a stack."""
    import jax

    run_one = functools.partial(_run_member, solver, schedule=schedule, xp=xp)
    if W.ndim == 2:
        return run_one(problem, asked, W, H)
    axes = jax.tree_util.tree_map(lambda x: 0 if getattr(x, "ndim", 0) > 2 else None, (problem, asked))
    return jax.vmap(run_one, in_axes=(*axes, 0, 0))(problem, asked, W, H)


def _run_member(
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
        start = python_programs.objective(solver, factors, problem, xp)
        history = jnp.full(1 + -(-max_iter // check_every), jnp.nan, dtype=start.dtype).at[0].set(start)

        def body(carry: tuple[Any, ...]) -> tuple[Any, ...]:
            state, n_iter, _, check, history = carry
            n = jnp.minimum(check_every, max_iter - n_iter)
            state = lax.fori_loop(0, n, lambda _, s: solver.step(s, problem, xp=xp), state)
            state = solver.balanced(state, problem, xp=xp)
            current = python_programs.objective(solver, state, problem, xp)
            earlier = jnp.where(check + 1 >= lag, history[jnp.maximum(check + 1 - lag, 0)], jnp.inf)
            status = verdict(start, history[check], earlier, current)
            return state, n_iter + n, status, check + 1, history.at[check + 1].set(current)

        def running(carry: tuple[Any, ...]) -> Array:
            return (carry[2] == Status.RUNNING.value) & (carry[1] < max_iter)

        zero = jnp.asarray(0)
        state, n_iter, status, checks, history = lax.while_loop(running, body, (state, zero, status, zero, history))
    status = jnp.where(status == Status.RUNNING.value, Status.MAX_ITER.value, status)
    *found, gap = returned(solver, state, problem, asked, python_programs, reading=False, xp=xp)
    if solver.has_rule:
        status = jnp.where(state.ended > 0, Status.CONVERGED.value, status)
        n_iter = jnp.where(state.ended > 0, state.ended.astype(n_iter.dtype), n_iter)
    elif tol > 0:
        width = jnp.maximum(1, checks // 3)
        a, b, c = (history[jnp.maximum(checks - i * width, 0)] for i in (2, 1, 0))
        noise = noise_of(size, float(xp.finfo(problem.data.values.dtype).eps))
        convex = solver.convex and not problem.w.others
        settled = is_settled(a, b, c, gap, found[3], found[4], noise, solver=solver, convex=convex)
        slow = jnp.logical_not(settled)
        status = jnp.where((status == Status.CONVERGED.value) & slow, Status.SLOW.value, status)
    rest: Any = history, n_iter, status
    return Outcome(*found, *rest)
