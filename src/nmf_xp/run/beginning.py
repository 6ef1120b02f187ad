"""The factors with which an iteration begins: what is given, above the floor where it is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nmf_xp.arrays import libraries, operators, transfer
from nmf_xp.data.grid import Grid
from nmf_xp.data.hidden import missed_columns, supports, without_unreachable
from nmf_xp.problem import Factors
from nmf_xp.run.ending import Asked

if TYPE_CHECKING:
    from collections.abc import Callable

    from nmf_xp.arrays.typing import Array, Namespace
    from nmf_xp.data.constraints import Constraints
    from nmf_xp.problem import Problem
    from nmf_xp.run.position import Progress
    from nmf_xp.solvers import Solver

    Callback = Callable[[Progress], bool | None]


def begin(problem: Problem, start: list[Array], solver: Solver, *, xp: Namespace) -> tuple[Asked | None, Problem]:
    """Raise the factors in `start` to the solver's floor, where their entries are not given, and bounds below it too.

    Entries that are fixed and the H of `transform` stay as they are. What their zeros leave without a model is not in
    the problem that is solved. Where that is another one than what was asked for, the latter comes back beside it.
    """
    asked, barred = problem, False
    if not isinstance(problem.data, Grid):
        start[:], problem, barred = _without_the_barred(start, problem, xp=xp)
    given = Factors(*start)
    w, h, low = *(_above_floor(c, solver.floor, xp=xp) for c in (problem.w, problem.h)), None
    if w is not None or h is not None:
        low = Asked(asked, given)
        problem = problem._replace(w=w or problem.w, h=h or problem.h)
    fixed = problem.w.fixed, None if solver.fixed_h else problem.h.fixed
    raised = [operators.at_least(x, solver.floor, xp=xp) for x in given]
    start[:] = [c.enforce(new, x, xp=xp) for new, x, c in zip(raised, given, (problem.w, problem.h), strict=True)]
    if solver.beta == 2:  # nothing is divided by the model
        start[1] = given.H if solver.fixed_h else start[1]
        return low, problem
    if not (solver.fixed_h or any(x is not None for x in fixed)):
        return low, problem
    if not libraries.is_readable(given.H):  # in a compiled function the floor has to stand for zeros
        start[:] = raised
        return Asked(asked, given), problem
    W, H = start[0], given.H if solver.fixed_h else start[1]
    least = float(xp.finfo(H.dtype).smallest_normal) / solver.floor
    found = supports(None if fixed[0] is None else W, H, least=least, xp=xp)
    start[1] = H
    if found is None:
        return low, problem
    reached = found[0] @ found[1]
    rows, columns = (xp.min(reached, axis=axis, keepdims=True) == 0 for axis in (-1, -2))
    start[0] = xp.where(xp.logical_and(rows, W <= least), raised[0], W)
    start[1] = xp.where(xp.logical_and(columns, H <= least), raised[1], H)
    data = without_unreachable(problem.data, *found, beta=solver.beta, xp=xp)
    missed = (
        None if barred or fixed[0] is not None else missed_columns(*found, xp=xp)
    )  # what the user asked for is known
    return Asked(asked, given, missed), problem._replace(data=data)


def _without_the_barred(start: list[Array], problem: Problem, *, xp: Namespace) -> tuple[list[Array], Problem, bool]:
    """The start with 0 where an upper bound is 0, the problem in which that is fixed, and whether there is any.

    Raised to the floor, such an entry would be answered by one of the other factor that is as much too large.
    """
    if problem.w.upper is problem.h.upper is None:
        return start, problem, False
    factors, terms, found = [], [], False
    for x, constraints in zip(start, (problem.w, problem.h), strict=True):
        upper, fixed = constraints.upper, constraints.fixed
        known = upper is not None and libraries.is_readable(upper) and libraries.is_readable(x)
        if upper is not None and known and transfer.scalar(xp.min(upper)) == 0:
            barred, found = upper == 0, True
            free = barred if fixed is None else xp.logical_and(barred, xp.logical_not(fixed))
            x = xp.where(free, 0.0, x)
            constraints = constraints._replace(fixed=barred if fixed is None else xp.logical_or(fixed, barred))
        factors.append(x)
        terms.append(constraints)
    return factors, problem._replace(w=terms[0], h=terms[1]), found


def _above_floor(constraints: Constraints, floor: float, *, xp: Namespace) -> Constraints | None:
    """The constraints with no bound below the floor, None where there is none to raise."""
    upper = constraints.upper
    if upper is None or (libraries.is_readable(upper) and transfer.scalar(xp.min(upper)) >= floor):
        return None
    return constraints._replace(upper=operators.at_least(upper, floor, xp=xp))


def same_stack(W: Array, H: Array, *, xp: Namespace) -> tuple[Array, Array]:
    """Both factors as stacks where one of them is a stack."""
    stacks = {x.shape[:-2] for x in (W, H) if x.ndim > 2}
    if len(stacks) > 1:
        msg = f"The stacks of `W` and `H` must have the same length, got shapes {tuple(W.shape)} and {tuple(H.shape)}"
        raise ValueError(msg)
    for stack in stacks:
        W, H = (xp.broadcast_to(x, (*stack, *x.shape[-2:])) for x in (W, H))
    return W, H
