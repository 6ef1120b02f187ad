"""What says how the data of a run are renewed: batches, and the dispersion of counts, which is found before the run."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.arrays import libraries, operators, transfer
from nmf_xp.arrays.checks import check_broadcast
from nmf_xp.data.units import number_times_power, power
from nmf_xp.problem import Factors
from nmf_xp.problem.dispersion import likeliest
from nmf_xp.problem.overdispersed import NegativeBinomial, Overdispersed
from nmf_xp.solvers.reweighted import ReweightedAhead

if TYPE_CHECKING:
    from collections.abc import Callable

    from nmf_xp.arrays.typing import Array, Namespace
    from nmf_xp.problem import Problem
    from nmf_xp.problem.batched import Batched
    from nmf_xp.problem.posing import Posed
    from nmf_xp.solvers import Solver

FIRST, TAKEN = 20, 1.0
"""Iterations to begin with, and their dispersion: with less, a component may be spent on one large entry for good."""
BETWEEN, ROUNDS = 10, 40
"""Iterations from one look for the dispersion and the effects to the next, and the most looks."""
STAYS = 1e-3
"""The relative change that is none."""


def in_batches(problem: Problem, posed: Posed) -> Problem:
    """The problem with the batches of V's rows beside its data."""
    assert posed.batches is not None
    prior = number_times_power(posed.batches.prior, -posed.units.divergence(posed.beta))
    batched: Any = posed.batches.on(problem.data, prior, xp=posed.xp)
    return problem._replace(data=batched)


class Effects(NamedTuple):
    """The effects of batches that stay for a run."""

    codes: Array  # (m,): the batch of each row of V
    table: Array  # (G, n)
    prior: Any  # what it adds to the objective


def overdispersed(problem: Problem, noise: NegativeBinomial, effects: Effects | None, posed: Posed) -> Problem:
    """The problem with the dispersion of V's counts, and the effects of batches, beside its data."""
    import numpy as np

    xp = posed.xp
    given: Any = np.asarray(noise.dispersion, dtype=np.float64)
    most = _most(posed)
    if given.max() > most:
        msg = f"`NegativeBinomial.dispersion` must be at most {most:.3g} for this V, got {given.max():g}"
        raise ValueError(msg)
    alpha = given.reshape(given.shape or (1, 1)) * power(posed.units.v)
    counts: Any = Overdispersed.of(problem.data, _exposures(posed), xp=xp).with_dispersion(alpha, xp=xp)
    return problem._replace(data=counts if effects is None else counts.in_batches(*effects, xp=xp))


def _most(posed: Posed) -> float:
    """The largest dispersion whose numbers stay within the dtype, for V of this size."""
    return number_times_power(float(posed.xp.finfo(posed.values.dtype).max) ** 0.5, -posed.units.v)


def _exposures(posed: Posed) -> tuple[Array, ...]:
    """The exposure, if there is one, as a tuple of matrices."""
    x = posed.exposure
    return () if x is None else (posed.xp.reshape(x, (1, 1, *x.shape)[-max(2, x.ndim) :]),)


def with_noise(
    noise: NegativeBinomial, posed: Posed, start: Factors, solver: Solver, inner: Callable[..., Solver]
) -> tuple[NegativeBinomial, Effects | None, Factors]:
    """The loss with its dispersion in the user's units, the effects of batches, and the factors to begin with.

    What is not given of them is found in turn with the factors, some iterations at a time, until it stays. So the run
    has one loss, and what several restarts come to can be compared.
    """
    if libraries.is_array(noise.dispersion):
        check_broadcast("NegativeBinomial.dispersion", noise.dispersion.shape, posed.shape)
    batched: Any = None if posed.batches is None else in_batches(posed.problem, posed).data
    if not isinstance(noise.dispersion, str) and batched is None:
        return noise, None, start
    if posed.stack:
        what = f"`NegativeBinomial.dispersion` must be given for a stack of matrices, got {noise.dispersion!r}"
        msg = what if batched is None else "`batch` must be left out beside `NegativeBinomial` for a stack of matrices"
        raise ValueError(msg)
    if not libraries.is_readable(start.W):
        what = f"`NegativeBinomial.dispersion` must be given in a compiled function, got {noise.dispersion!r}"
        msg = what if batched is None else "`batch` must be left out beside `NegativeBinomial` in a compiled function"
        raise ValueError(msg)
    first = Factors(*(x if x.ndim == 2 else x[0, ...] for x in start))  # of restarts, as of a single run
    ahead = ReweightedAhead(posed.beta, posed.floor, solver.fixed_h, inner=inner)
    noise, effects, factors = _found(noise, batched, posed, first, ahead)
    return noise, effects, factors if start.W.ndim == 2 else start


def _found(
    noise: NegativeBinomial, batched: Batched | None, posed: Posed, start: Factors, solver: ReweightedAhead
) -> tuple[NegativeBinomial, Effects | None, Factors]:
    """The dispersion and the effects, and factors that go with them."""
    xp, fixed_h = posed.xp, solver.fixed_h
    problem = posed.problem._replace(data=posed.problem.data.with_both_orders())
    state: Any = Factors(*(operators.at_least(x, solver.floor, xp=xp) for x in start))  # zeros have no model
    kind = noise.of if isinstance(noise.dispersion, str) else None
    first = overdispersed(problem, noise if kind is None else NegativeBinomial(min(TAKEN, _most(posed))), None, posed)
    state = solver.steps(solver.init(first, *state, xp=xp), first, FIRST, xp=xp)
    state = Factors(state.W, state.H)
    effects = None if batched is None else _effects(batched, batched.table(*state, xp=xp), xp=xp)
    level = _level(problem, posed)
    if kind is not None:
        noise = _likeliest(problem, kind, state, effects, posed)
    for _ in range(ROUNDS):
        here = solver.prepare(overdispersed(problem, noise, effects, posed), xp=xp)
        state = solver.steps(solver.init(here, state.W, state.H, xp=xp), here, BETWEEN, xp=xp)
        state, change = Factors(state.W, state.H), 0.0
        if batched is not None and effects is not None:
            last, (table, state) = effects.table, _better(here, state, batched, fixed_h=fixed_h, xp=xp)
            effects, change = _effects(batched, table, xp=xp), _moved(table, last, batched.effects.counts, xp=xp)
        if kind is not None:
            before, noise = noise, _likeliest(problem, kind, state, effects, posed, noise)
            change = max(change, _varied(before, noise, level))
        if change < STAYS:
            break
    return noise, effects, Factors(state.W, start.H if fixed_h else state.H)


def _likeliest(
    problem: Problem,
    kind: str,
    state: Factors,
    effects: Effects | None,
    posed: Posed,
    last: NegativeBinomial | None = None,
) -> NegativeBinomial:
    """The loss with the most likely dispersion for these factors, near the last one if there was one."""
    import numpy as np

    xp = posed.xp
    counts = Overdispersed.of(problem.data, _exposures(posed), xp=xp)
    counts = counts if effects is None else counts.in_batches(*effects, xp=xp)
    near = None if last is None else np.reshape(last.dispersion, np.shape(last.dispersion) or (1, 1))
    found = likeliest(counts, state, kind, unit=number_times_power(1.0, posed.units.v), last=near, xp=xp)
    found = np.minimum(found, _most(posed))
    return NegativeBinomial(found if kind != "global" else float(found[0, 0]))


def _effects(batched: Batched, table: Array, *, xp: Namespace) -> Effects:
    return Effects(batched.codes[..., 0], table, batched.effects.penalty(table, xp=xp))


def _better(
    problem: Problem, state: Factors, batched: Batched, *, fixed_h: bool, xp: Namespace
) -> tuple[Array, Factors]:
    """Better effects for these factors, with the scale between H and them that is agreed upon."""
    data: Any = problem.data
    effects = batched.effects
    table = data.better_table(*state, effects, xp=xp)
    if fixed_h or not problem.h.free or effects.scale_matters:
        return table, state
    scale = effects.gauge(table, xp=xp)
    return effects.scaled(table, 1.0 / scale, xp=xp), Factors(state.W, state.H * scale)


def _level(problem: Problem, posed: Posed) -> float:
    """The mean of V."""
    xp, data = posed.xp, problem.data
    total = xp.sum(data.values, dtype=libraries.accumulator_dtype(xp, libraries.device(data.values)))
    return number_times_power(transfer.scalar(total) / math.prod(data.shape), posed.units.v)


def _varied(before: NegativeBinomial, now: NegativeBinomial, level: float) -> float:
    """How far the variance at a level of the counts has moved, relative to itself: the mean over the lines."""
    import numpy as np

    last, new = np.asarray(before.dispersion), np.asarray(now.dispersion)
    return float(np.mean(np.abs(new - last) * (level / (1.0 + last * level))))


def _moved(table: Array, last: Array, counts: Array, *, xp: Namespace) -> float:
    """How far the effects have moved, relative to themselves: the root of the mean square, by their counts."""
    known = xp.logical_and(counts > 0, xp.minimum(table, last) > 0)
    ratio = xp.where(known, table / xp.where(known, last, 1.0), 1.0)
    square = xp.sum(counts * (ratio - 1.0) ** 2) / xp.sum(counts)
    return math.sqrt(transfer.scalar(square))
