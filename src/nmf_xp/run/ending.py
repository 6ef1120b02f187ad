"""What is returned of the factors with which an iteration ended: balanced components, exact zeros, and their numbers.

The algorithms keep every entry above a small floor, since a zero could not leave zero under a multiplicative update.
And the scale of a component wanders between its two factors. Neither is meant. So at the end

* each component is balanced: column k of W and row k of H have norms within a factor of two of each other. The factor
  between them is a power of two, so that no product changes;
* entries become 0 that the data do not ask for: those of a slope which, at zero, does not fall;
* the divergence, the objective and the residual are those of these very factors.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.arrays import kernels, libraries, operators, transfer
from nmf_xp.problem import Factors
from nmf_xp.problem.balance import balanced, is_penalised, largest_entries
from nmf_xp.problem.optimality import NOTHING, UNSEEN, entry_violations, kkt_residual
from nmf_xp.problem.small import is_small
from nmf_xp.run.held import AT_FLOOR, SHOWS, Held, held_by, is_clear, negligible_share, next_to_nothing, shares_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from nmf_xp.arrays.typing import Array, Namespace
    from nmf_xp.data.constraints import Constraints
    from nmf_xp.problem import Problem
    from nmf_xp.problem.optimality import Report
    from nmf_xp.run.programs import Programs
    from nmf_xp.solvers.solver import Solver

    Known = tuple["Factors", Report, Array]

SPECKS = -1.0
"""A share that no entry is below: only what is next to nothing becomes 0, where more would change the objective."""
FLOORS = -2.0
"""The same, and only what is at the floor becomes 0: a speck above it may hold back others by a steep slope."""
STEEP = 64.0
"""The steepest slope of a speck that is 0; of one that leaves an entry of V without a model it is infinite."""
NO_WORSE = 1e-9
"""What zeros may add to the objective, relative; in float32 it is 32 times eps."""


class Asked(NamedTuple):
    """What was asked for, where the iteration solved another problem."""

    problem: Problem
    given: Factors  # entries that are fixed, and the H of `transform`
    missed: str | None = None  # columns in which these leave an entry without a model

    def restored(self, factors: Factors, *, fixed_h: bool, xp: Namespace) -> Factors:
        """The factors with what was given."""
        W = self.problem.w.enforce(factors.W, self.given.W, xp=xp)
        return Factors(W, self.given.H if fixed_h else self.problem.h.enforce(factors.H, self.given.H, xp=xp))


class Limits(NamedTuple):
    """The numbers by which zeros are judged, for the functions here and for the kernel that is their twin."""

    negligible: float  # the share of an entry that may become 0
    least: float  # the largest entry that is next to nothing beside V
    dead: float  # a component whose entries are at most this in both factors is none
    no_worse: float  # what zeros may add to the objective, relative
    margin: float  # what they may add to the residual
    steep: float = STEEP
    shows: float = SHOWS


def _limits(dtype: Any, *, beta: float, floor: float, xp: Namespace) -> Limits:
    eps = float(xp.finfo(dtype).eps)
    least = next_to_nothing(dtype, beta=beta, floor=floor, xp=xp)
    # For beta > 1 nothing needs a component at the floor, from which neither factor leads the other away.
    dead = AT_FLOOR * floor if beta > 1 else 0.0
    return Limits(negligible_share(eps), least, dead, max(NO_WORSE, 32.0 * eps), max(1e-6, 64.0 * eps))


def ended(
    look: Callable[[Factors], Report],
    factors: Factors,
    problem: Problem,
    *,
    beta: float,
    floor: float,
    fixed_h: bool,
    polish: bool,
    reading: bool,
    xp: Namespace,
) -> tuple[Array, ...]:
    """W, H, divergence, objective and residual of what is returned, and the gap that was found.

    `look` makes the report on a pair of factors. Without `reading` no value is read: then it looks twice more than may
    be needed, and an entry that should not have become 0 keeps all of the matrix from it. Without `polish` the factors
    stay as they are.
    """
    if not polish:
        seen = look(factors)
        residual = kkt_residual(problem, *factors, seen, floor=0.0, xp=xp)
        return (*factors, seen.divergence, seen.objective, residual, seen.gap)
    before, shares = factors, shares_of(factors, xp=xp)
    factors = balanced(factors, problem, fixed_h=fixed_h, xp=xp)
    first = look(factors)
    quick = reading and not operators.is_slow_to_ask(factors.W)
    if quick and is_clear(before, factors, shares, first, problem, beta=beta, floor=floor, xp=xp):
        residual = kkt_residual(problem, *factors, first, floor=floor, xp=xp)
        return (*factors, first.divergence, first.objective, residual, first.gap)
    held = held_by(before, shares, beta=beta, floor=floor, xp=xp)
    factors = _without_the_unseen(factors, first, problem, fixed_h=fixed_h, xp=xp)
    residual = kkt_residual(problem, *factors, first, floor=floor, xp=xp)
    settings: Any = {"beta": beta, "fixed_h": fixed_h, "reading": reading, "xp": xp}
    limits = _limits(factors.W.dtype, beta=beta, floor=floor, xp=xp)
    emptying = Emptying(look, factors, problem, held, dead=limits.dead, **settings)
    eps = float(xp.finfo(factors.W.dtype).eps)

    limit = 1.5 * operators.at_most(residual, 1.0, xp=xp) + limits.margin

    def judged(factors: Factors, then: Report | None) -> tuple[Report, Array, Array]:
        """The report on factors with zeros, if it is not known, their residual, and whether they are no worse."""
        then = look(factors) if then is None else then
        found = kkt_residual(problem, *factors, then, floor=floor, xp=xp)
        fall, margin = first.objective - then.objective, limits.no_worse * xp.abs(first.objective)
        no_worse = xp.logical_and(fall >= -margin, operators.at_most(found, 1.0, xp=xp) <= limit)
        # Beyond 1 the residual says no more than that a zero is to grow.
        return then, found, xp.logical_or(no_worse, xp.logical_and(fall > margin, found <= 1.0))

    def chosen(better: Array, new: Known, old: Known) -> Known:
        """Factors, the report on them and their residual: the new ones where these are better."""

        def choose(yes: Array, no: Array) -> Array:
            return operators.choose(better, yes, no, xp=xp)

        factors, seen = Factors(*map(choose, new[0], old[0])), type(first)(*map(choose, new[1], old[1]))
        return factors, seen, choose(new[2], old[2])

    def all_of(x: Array) -> bool:
        return bool(reading and transfer.to_host(x).all())

    noise = 64.0 * eps + 0.0 * residual
    near = operators.at_most(operators.at_least(1.5 * residual, 64.0 * eps, xp=xp), STEEP, xp=xp)
    tries = [(limits.negligible, near), (limits.negligible, noise), (SPECKS, noise), (FLOORS, noise)]
    best, seen, violation = factors, first, residual
    done = residual < 0  # none is
    for share, bound in tries if reading else (tries[0], tries[2]):
        zeroed, then = emptying.once(factors, first, share, bound)
        if emptying.same(zeroed, factors):
            break
        seen_there, found, better = judged(zeroed, then)
        if reading and not all_of(better):  # one of the zeros may be to grow again, and others are asked for no more
            again, then = emptying.once(zeroed, seen_there, share, bound)
            if not emptying.same(again, zeroed):
                zeroed = again
                seen_there, found, better = judged(zeroed, then)
            if not all_of(better):
                fewer = emptying.where_no_other_suffers(zeroed, seen_there, floor=floor, limit=limit)
                if not emptying.same(fewer, zeroed):
                    zeroed = fewer
                    seen_there, found, better = judged(zeroed, None)
        if not is_penalised(problem):  # zeros have moved the norms, and no number depends on these
            zeroed = balanced(zeroed, problem, fixed_h=fixed_h, xp=xp)
        better = xp.logical_and(better, xp.logical_not(done))
        best, seen, violation = chosen(better, (zeroed, seen_there, found), (best, seen, violation))
        done = xp.logical_or(done, better)
        if all_of(done):
            break
    if reading and emptying.is_left(best, seen):  # what was wanted beside zeros that came back, and is no more
        zeroed, then = emptying.once(best, seen, FLOORS, noise)
        if not emptying.same(zeroed, best):
            seen_there, found, better = judged(zeroed, then)
            best, seen, violation = chosen(better, (zeroed, seen_there, found), (best, seen, violation))
    if not reading or _is_near(floor, best, xp=xp):  # where the iteration ends, but nothing that was asked for does
        violation = kkt_residual(problem, *best, seen, floor=0.0, xp=xp)
    return (*best, seen.divergence, seen.objective, violation, seen.gap)


class Emptying(NamedTuple):
    """How zeros are found for the factors with which an iteration ended."""

    look: Callable[[Factors], Report]
    factors: Factors  # as they were
    problem: Problem
    held: tuple[Held, Held]
    dead: float  # a component whose entries are at most this in both factors is none
    beta: float
    fixed_h: bool
    reading: bool
    xp: Namespace

    def same(self, new: Factors, old: Factors) -> bool:
        """Whether they are known to be the same."""
        return self.reading and not _differ(new, old, xp=self.xp)

    def is_left(self, factors: Factors, seen: Report) -> bool:
        """Whether some speck is still at the floor, though its slope does not fall."""
        slopes = (seen.w_slopes,) if self.fixed_h else (seen.w_slopes, seen.h_slopes)
        for x, slope, held in zip(factors, slopes, self.held, strict=False):
            low = self.xp.logical_and(self.xp.logical_and(held.at_floor, held.speck), x > 0)
            if self.xp.any(self.xp.logical_and(low, slope >= 0)):
                return True
        return False

    def once(self, zeroed: Factors, known: Report, share: float, bound: Array) -> tuple[Factors, Report | None]:
        """More zeros, and fewer where one would grow; and the report on these factors, where it is known.

        `known` is that on the factors to begin with. One factor goes after the other: what one leaves of the model says
        where the other may not be 0.
        """
        xp, first = self.xp, known
        then: Report | None = known
        for which in (0,) if self.fixed_h else (0, 1):
            new = _with_zeros(which, zeroed, known, self.held, self.problem, share=share, xp=xp)
            same = self.same(new, zeroed)
            if same and zeroed[which] is self.factors[which]:
                continue
            known = known if same and then is not None else self.look(new)
            spared = _restored(which, new, self.factors, known, self.held[which].speck, None, xp=xp)
            if self.reading and not self.same(spared, new):  # beside these a speck may be wanted no more
                new, known = spared, self.look(spared)
            spared = _restored(which, spared, self.factors, known, self.held[which].speck, bound, xp=xp)
            if self.beta > 1 and self.reading and share > 0:
                spared = _far_below(which, new, spared, first, xp=xp)
            zeroed, then = spared, known if self.same(spared, new) else None
        if self.fixed_h:
            return zeroed, then
        alive = _without_the_dead(zeroed, self.problem, self.dead, xp=xp)
        return alive, then if self.same(alive, zeroed) else None

    def where_no_other_suffers(self, zeroed: Factors, there: Report, *, floor: float, limit: Array) -> Factors:
        """The factors without the zeros of each row of W and column of H beside which an entry is far off."""
        xp, limit = self.xp, limit[..., None, None]
        violations = entry_violations(self.problem, *zeroed, there, floor=floor, xp=xp)
        parts = zip(violations, (-1, -2), self.factors, zeroed, strict=False)  # with a given H there is none of H
        found = [xp.where(xp.max(x, axis=axis, keepdims=True) > limit, old, new) for x, axis, old, new in parts]
        return Factors(*found, *zeroed[len(found) :])


def _with_zeros(
    which: int,
    factors: Factors,
    seen: Report,
    held: tuple[Held, Held],
    problem: Problem,
    *,
    share: float,
    xp: Namespace,
) -> Factors:
    """The factors with 0 in one of them where the slope does not fall and the entry holds no more than a `share`.

    A speck is 0, and so is an entry that nothing asks for, whatever it holds.
    """
    slopes, terms = (seen.w_slopes, seen.h_slopes)[which], (problem.w, problem.h)[which]
    new = _zeroed(factors[which], slopes, held[which], terms, share, xp=xp)
    return Factors(new, factors.H) if which == 0 else Factors(factors.W, new)


def _without_the_unseen(factors: Factors, seen: Report, problem: Problem, *, fixed_h: bool, xp: Namespace) -> Factors:
    """The factors with 0 where nothing that is observed depends on an entry, so that no number changes."""
    W = problem.w.enforce(xp.where(seen.w_slopes == UNSEEN, 0.0, factors.W), factors.W, xp=xp)
    if fixed_h:
        return Factors(W, factors.H)
    return Factors(W, problem.h.enforce(xp.where(seen.h_slopes == UNSEEN, 0.0, factors.H), factors.H, xp=xp))


def _without_the_dead(factors: Factors, problem: Problem, least: float, *, xp: Namespace) -> Factors:
    """The factors with a component 0 in both where it is in one, or at most `least` in both."""
    W, H = factors
    sizes = largest_entries(W, H, xp=xp)
    alive = xp.logical_and(xp.minimum(*sizes) > 0, xp.maximum(*sizes) > least)
    return Factors(
        problem.w.enforce(xp.where(alive, W, 0.0), W, xp=xp),
        problem.h.enforce(xp.where(operators.transposed(alive), H, 0.0), H, xp=xp),
    )


def _zeroed(x: Array, slope: Array, held: Held, constraints: Constraints, share: float, *, xp: Namespace) -> Array:
    """A factor with its zeros."""
    unwanted = xp.logical_or(slope >= 1.0, xp.logical_and(slope >= 0.0, held.share <= share))
    unwanted = xp.logical_or(unwanted, xp.logical_and(slope >= 0.5, held.small))  # it shrinks, slowly
    unwanted = xp.logical_or(unwanted, held.speck)
    if share == FLOORS:
        unwanted = xp.logical_and(unwanted, held.at_floor)
    return constraints.enforce(xp.where(unwanted, 0.0, x), x, xp=xp)


def _restored(
    which: int, zeroed: Factors, before: Factors, seen: Report, speck: Array, bound: Array | None, *, xp: Namespace
) -> Factors:
    """One factor as it was before where, at zero, the objective would fall again.

    These are either the specks, where it would by more than the `bound`, or without a bound all others.
    """
    new, old, slope = zeroed[which], before[which], (seen.w_slopes, seen.h_slopes)[which]
    if bound is None:
        wanted = xp.logical_and(slope < -16.0 * float(xp.finfo(old.dtype).eps), xp.logical_not(speck))
    else:
        wanted = xp.logical_and(slope < -bound[..., None, None], speck)
    back = xp.where(xp.logical_and(new == 0, wanted), old, new)
    return Factors(back, zeroed.H) if which == 0 else Factors(zeroed.W, back)


def _far_below(which: int, zeroed: Factors, restored: Factors, first: Report, *, xp: Namespace) -> Factors:
    """The restored factor, but 0 for an entry that was so much too large that zero is nearer to its optimum.

    A parabola is lower at zero than at more than twice its minimum, where the slope is more than a half.
    """
    too_large = (first.w_slopes, first.h_slopes)[which] >= 0.5
    new = xp.where(xp.logical_and(zeroed[which] == 0, too_large), 0.0, restored[which])
    return Factors(new, restored.H) if which == 0 else Factors(restored.W, new)


def _is_near(floor: float, factors: Factors, *, xp: Namespace) -> bool:
    """Whether a component that is not zero is so small that the floor shows in it."""
    sizes = (xp.where(x > 0, x, 1.0) for x in largest_entries(*factors, xp=xp))
    return bool(xp.any(xp.minimum(*sizes) * SHOWS < floor))


def _differ(a: Factors, b: Factors, *, xp: Namespace) -> bool:
    found = [xp.any(x != y) for x, y in zip(a, b, strict=True) if x is not y]
    return bool(found) and bool(functools.reduce(xp.logical_or, found))


def returned(
    solver: Solver,
    state: Any,
    problem: Problem,
    asked: Asked | None,
    programs: Programs,
    *,
    reading: bool,
    xp: Namespace,
) -> tuple[Any, ...]:
    """The factors that are returned, with their divergence, objective and residual."""
    factors = solver.factors(state, problem, xp=xp)
    if asked is not None:
        problem, factors = asked.problem, asked.restored(factors, fixed_h=solver.fixed_h, xp=xp)

    found = _by_kernel(solver, factors, problem, xp=xp)
    if found is not None:
        return found

    def look(factors: Factors) -> Report:
        return programs.report(solver, factors, problem, xp)

    # What is read decides what comes next, and JAX would compile that in a later call.
    reading = (reading or libraries.is_numpy(factors.W)) and not libraries.is_jax(factors.W)
    settings: Any = {"beta": solver.beta, "floor": solver.floor, "fixed_h": solver.fixed_h, "polish": solver.polish}
    W, *rest = ended(look, factors, problem, **settings, reading=reading, xp=xp)
    return solver.handed_over(W, problem, xp=xp), *rest


def _by_kernel(solver: Solver, factors: Factors, problem: Problem, *, xp: Namespace) -> tuple[Any, ...] | None:
    """What is returned of small dense matrices without constraints, where NumPy has a kernel for it."""
    W, H = factors
    data, beta, floor = problem.data, solver.beta, solver.floor
    plain = problem.w.free and problem.h.free and beta in (1, 2) and W.ndim == H.ndim
    kernel = kernels.find("dense_ending", data.values, W, H) if plain and is_small(W, problem) else None
    if kernel is None:
        return None
    limits = _limits(W.dtype, beta=beta, floor=floor, xp=xp)
    settings: Any = {"alone": solver.fixed_h, "polish": solver.polish, "constants": (NOTHING, UNSEEN)}
    W, H, divergence, residual, gap = kernel(data.values, W, H, beta=beta, floor=floor, **settings, limits=limits)
    return W, H, divergence, divergence, residual, gap
