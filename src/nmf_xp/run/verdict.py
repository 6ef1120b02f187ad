"""What a check says of a run: whether it goes on, and if not, why; and whether an end by `tol` is one at a minimum.

The same arithmetic serves Python floats and traced arrays.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from nmf_xp.arrays import libraries, operators, transfer
from nmf_xp.data.blocks import Blockwise
from nmf_xp.data.grid import Grid
from nmf_xp.problem import Factors
from nmf_xp.problem.balance import largest_entries
from nmf_xp.result import Status
from nmf_xp.run.programs import read

if TYPE_CHECKING:
    from collections.abc import Callable

    from nmf_xp.arrays.typing import Array, Namespace
    from nmf_xp.problem import Problem
    from nmf_xp.run.position import End
    from nmf_xp.run.programs import Programs
    from nmf_xp.solvers.solver import Solver

ROUNDING = 16
"""Units in the last place by which rounding may move a model."""
EXACT = 100.0
"""How many times the noise the objective of an exact fit may be: its model is within ten times what rounding moves."""
REMAINS = 2e-3
"""How much of the objective may still be to fall, by the pace of the last checks, for a run that has converged."""
GAP = 1e-3
"""The same where the problem is convex, and the slopes bound it."""
ALONE = 1e-2
"""The same where W alone is looked for and the slopes estimate it."""
STILL = 1e-6
"""A fall over a third of the checks that is none; a run that begins at a minimum has no series to go by."""
RESIDUAL = 0.05
"""The optimality residual of a run that has converged, where the problem is not convex."""
GAINS = 5.0
"""By how many times `tol`, or 1e-4 where that is less, a few iterations of another solver may lower the objective."""
LOCKED = 0.02
"""The same for entries that hold next to nothing and would grow; their bound is far from tight."""


SECOND_STEPS = 5
"""Iterations of another solver, from where one says that it converged."""
LONG_STEPS, LONG_GAINS = 100, 10.0
"""The same for beta < 0, where plateaus are common and long."""
TWINS = 0.98
"""The cosine of two components from which they may be one that waits to be two: a saddle that no solver leaves soon."""
APART, APART_STEPS = 0.3, 30
"""By how much the entries of twins are moved apart, and for how many iterations they then fall."""


def judge(solver: Solver, tol: float, dtype: Any, *, xp: Namespace) -> Callable[..., Any]:
    """The `verdict` on a solver's checks."""
    return functools.partial(verdict, tol=tol, eps=float(xp.finfo(dtype).eps), may_rise=solver.may_rise)


def size_of(data: Any, beta: float, *, xp: Namespace) -> Array:
    """The sum of V^beta, (...,), beside which rounding in the model shows; 0 where V is read in blocks."""
    dtype = libraries.accumulator_dtype(xp, libraries.device(data.values))
    if isinstance(data, Blockwise | Grid):
        return xp.zeros((), dtype=dtype, device=libraries.device(data.values))
    return data.sum(data.values**beta, dtype=dtype, xp=xp)


def noise_of(size: Any, eps: float) -> Any:
    """The objective of a model that rounding moved away from an exact fit."""
    return (ROUNDING * eps) ** 2 * size


def verdict(
    start: Any, previous: Any, earlier: Any, current: Any, *, size: Any = 0.0, tol: float, eps: float, may_rise: bool
) -> Any:
    """Code of the Status after a check.

    The decrease since `earlier` is measured against the objective itself, which makes the test independent of the scale
    of V and of the start. A rise counts as one when rounding does not explain it: near an exact fit the objective is a
    sum of squares, whose root moves by some `eps` of the root of `size`. Where the objective `may_rise`, it is no end,
    and a small one is as good as a small decrease.
    """
    finite = (current - current) == 0
    rise, noise = current - previous, noise_of(size, eps)
    rose = (rise > eps**0.5 * current) & (rise > eps * start) & (rise > noise + 2 * abs(previous * noise) ** 0.5)
    rose = rose & (not may_rise)
    change = abs(earlier - current) if may_rise else earlier - current
    converged = (tol > 0) & (change <= tol * current)
    running_or_ended = rose * Status.INCREASED.value + (1 - rose) * converged * Status.CONVERGED.value
    return (1 - finite) * Status.NOT_FINITE.value + finite * running_or_ended


def status_after(
    past: list[float], verdict: Callable[..., Any], *, checked: bool, stop: bool, last: bool, lag: int
) -> Status:
    """Whether a run with this history goes on, and if not, why."""
    status = Status.RUNNING
    if checked:
        earlier = past[-1 - lag] if len(past) > lag else float("inf")
        status = Status.of(verdict(past[0], past[-2], earlier, past[-1]))
    if status is Status.RUNNING:
        status = Status.STOPPED if stop else Status.MAX_ITER if last else status
    return status


def last_falls(history: tuple[float, ...]) -> tuple[float, float, float]:
    """The objective two thirds of the checks ago, one third ago, and now."""
    last = len(history) - 1
    width = max(1, last // 3)
    return history[max(last - 2 * width, 0)], history[max(last - width, 0)], history[last]


def is_settled(
    a: Any, b: Any, c: Any, gap: Any, objective: Any, residual: Any, noise: Any, *, solver: Solver, convex: bool
) -> Any:
    """Whether little of the objective is still to fall.

    Where the problem is convex, the `gap` bounds it. Elsewhere nothing does: the fall from a to b and from b to c is
    taken on as a geometric series (Aitken's delta-squared), and the optimality `residual` and the gap must be small
    too: where W alone is looked for all of the gap, else that of entries which are next to nothing, since a
    multiplicative update hardly lets them grow.
    """
    exact = objective <= EXACT * noise
    if convex:
        return (gap <= GAP * abs(objective)) | exact
    before, after = a - b, b - c
    ends = (after <= STILL * abs(c)) | (after * after <= REMAINS * abs(c) * (before - after))
    ends = ends & (residual <= RESIDUAL)
    return (ends & (gap <= (ALONE if solver.fixed_h else LOCKED) * abs(objective))) | exact


def statuses_of(
    solver: Solver, ends: list[End], problem: Problem, found: list[list[float]], xp: Namespace
) -> list[Status]:
    """Why each member ended, with a second look at those that fell by no more than `tol`.

    What was `found` are the gaps, the objectives and the residuals of the members.
    """

    @functools.cache
    def noises() -> list[float]:
        sizes = read(size_of(problem.data, solver.beta, xp=xp))
        eps = float(xp.finfo(problem.data.values.dtype).eps)
        return [noise_of(size, eps) for size in sizes]

    def looked_into(i: int, end: End) -> Status:
        if end.status is not Status.CONVERGED or solver.has_rule:
            return end.status
        falls, (gap, objective, residual) = last_falls(end.history), (x[i] for x in found)

        def settled(noise: float) -> bool:
            convex = solver.convex and not problem.w.others
            return bool(is_settled(*falls, gap, objective, residual, noise, solver=solver, convex=convex))

        compiles = libraries.is_jax(problem.data.values)  # what a later call may not do
        if settled(0.0) or (not compiles and settled(noises()[i % len(noises())])):
            return Status.CONVERGED
        return Status.SLOW

    return [looked_into(i, end) for i, end in enumerate(ends)]


def still_falls(
    second: Solver, factors: Factors, problem: Problem, programs: Programs, xp: Namespace, *, other: bool, tol: float
) -> list[bool]:
    """Whether a `second` solver lowers the objective of each member in a few iterations, by more than `tol` tells.

    It goes on from these factors, if it is an `other` one than theirs or beta < 0, and from where twins among the
    components are moved apart, if there are any.
    """
    problem = second.prepare(problem, xp=xp)

    def allowed(factors: Factors) -> Factors:
        raised = (operators.at_least(x, second.floor, xp=xp) for x in factors)
        pairs = zip(raised, factors, (problem.w, problem.h), strict=True)
        return Factors(*(c.enforce(new, x, xp=xp) for new, x, c in pairs))

    def after(factors: Factors, count: int) -> list[float]:
        state = programs.steps(second, programs.init(second, factors, problem, xp), problem, count, xp)
        return read(programs.objective(second, Factors(state.W, state.H), problem, xp))

    start, apart = allowed(factors), moved_apart(factors, xp=xp)
    before = read(programs.objective(second, start, problem, xp))
    if transfer.scalar(xp.max(_alive(*factors, xp=xp))) == 0:  # at the floor there is nothing to compare with
        return [False] * len(before)
    tol = max(tol, 1e-4)
    steps, gains = (LONG_STEPS, LONG_GAINS) if second.beta < 0 else (SECOND_STEPS if other else 0, GAINS)
    soon = after(start, steps) if steps else before
    late = before if apart is None else after(allowed(apart), APART_STEPS)
    return [a - b > gains * tol * a or a - c > tol * a for a, b, c in zip(before, soon, late, strict=True)]


def _alive(W: Array, H: Array, *, xp: Namespace) -> Array:
    """1 for a component that is positive somewhere in both factors, else 0: (..., 1, r)."""
    return xp.astype(xp.minimum(*largest_entries(W, H, xp=xp)) > 0, W.dtype)


def moved_apart(factors: Factors, *, xp: Namespace) -> Factors | None:
    """The factors with each component moved in a way of its own; None where there are no twins.

    Where two components are parallel in H, nothing of first order in the difference of the two lowers the objective.
    """
    W, Ht = factors.W, operators.transposed(factors.H)
    r, device = W.shape[-1], libraries.device(W)
    alive = _alive(*factors, xp=xp)
    others = (1.0 - xp.eye(r, dtype=W.dtype, device=device)) * alive * operators.transposed(alive)
    largest = 0.0
    for x in (W, Ht):
        top = operators.at_least(xp.max(x, axis=-2, keepdims=True), float(xp.finfo(x.dtype).smallest_normal), xp=xp)
        unit = x / top
        unit = unit / xp.sqrt(operators.at_least(xp.sum(unit * unit, axis=-2, keepdims=True), 1.0, xp=xp))
        largest = max(largest, transfer.scalar(xp.max(others * (operators.transposed(unit) @ unit))))
    if largest <= TWINS:
        return None

    def moved(x: Array, angle: float) -> Array:
        i, k = (1.0 + xp.arange(n, dtype=x.dtype, device=device) for n in x.shape[-2:])
        return x * (1.0 + APART * xp.sin(angle * i[:, None] * k))

    return Factors(moved(W, 4.1), operators.transposed(moved(Ht, 2.4)))
