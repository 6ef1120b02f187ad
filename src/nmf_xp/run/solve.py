"""From a posed problem and a start to a result in the units of V."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import warnings
from typing import TYPE_CHECKING, Any

from nmf_xp.arrays import libraries, operators, transfer
from nmf_xp.data import Dense, Weighted
from nmf_xp.data.blocks import Blockwise
from nmf_xp.data.exposed import at_stored
from nmf_xp.data.grid import Grid
from nmf_xp.data.units import number_times_power
from nmf_xp.problem import Factors
from nmf_xp.problem.batched import Batched
from nmf_xp.problem.batched_grid import BatchedGrid
from nmf_xp.problem.robust import Doubted, DoubtedRows
from nmf_xp.result import Result
from nmf_xp.run import loop
from nmf_xp.run.beginning import begin, same_stack
from nmf_xp.run.noise import in_batches, overdispersed, with_noise
from nmf_xp.run.observer import observer
from nmf_xp.solvers import SOLVERS, automatic
from nmf_xp.solvers.grid import GridUpdate
from nmf_xp.solvers.grid_batches import BatchedGridUpdate
from nmf_xp.solvers.in_batches import InBatches
from nmf_xp.solvers.reweighted import Reweighted, ReweightedAhead, found_scale

if TYPE_CHECKING:
    from collections.abc import Callable

    from nmf_xp.arrays.typing import Array, Namespace
    from nmf_xp.problem import Problem
    from nmf_xp.problem.posing import Posed
    from nmf_xp.problem.robust import Robust
    from nmf_xp.run.checkpoint import Checkpoint
    from nmf_xp.run.position import Outcome, Progress, Schedule
    from nmf_xp.solvers import Solver
    from nmf_xp.solvers.choice import Method

    Callback = Callable[[Progress], bool | None]


def solve(
    posed: Posed,
    start: list[Array],
    method: Method,
    schedule: Schedule,
    record: Checkpoint | None,
    *,
    callback: Callback | None,
    progress: bool,
) -> Result:
    """Iterate from W and H in `start`, which is emptied, and put the outcome into V's own units."""
    options: Any = {"callback": callback, "progress": progress}
    if record is not None:
        record.check_arrays(posed, start)
    with contextlib.nullcontext() if record is None else record.place:
        return _solve(posed, start, method, schedule, record, **options)


def _solve(
    posed: Posed,
    start: list[Array],
    method: Method,
    schedule: Schedule,
    record: Checkpoint | None,
    *,
    callback: Callback | None,
    progress: bool,
) -> Result:
    """The same, with the path of the checkpoint held."""
    xp, problem = posed.xp, posed.problem
    make = GridUpdate if isinstance(problem.data, Grid) else SOLVERS[method.name]
    solver = make(beta=posed.beta, floor=posed.floor, fixed_h=method.fixed_h, **dict(method.options))
    start[:] = same_stack(*start, xp=xp)
    robust = None if method.robust is None else _with_scale(method.robust, posed, Factors(*start), solver)
    renewed: Callable[[Problem], Problem] | None = None  # the problem with what says how its data are renewed
    if robust is not None:
        scale = number_times_power(float(robust.scale or 0.0), -_exponent(robust, posed))
        renewed = functools.partial(_with_doubt, scale=scale, loss=robust, posed=posed)
    elif posed.batches is not None:
        renewed = functools.partial(in_batches, posed=posed)
    noise, effects = method.noise, None
    if noise is not None:
        noise, effects, start[:] = with_noise(noise, posed, Factors(*start), solver, SOLVERS[method.name])
        renewed = functools.partial(overdispersed, noise=noise, effects=effects, posed=posed)
    if renewed is not None:
        settings: Any = {"beta": posed.beta, "floor": solver.floor, "fixed_h": method.fixed_h}
        loss = robust and dataclasses.replace(robust, scale=None)
        make = Reweighted if noise is None else ReweightedAhead
        make = InBatches if posed.batches is not None and noise is None and method.name in ("mu", "mm") else make
        if isinstance(problem.data, Grid):
            solver = BatchedGridUpdate(**settings)
        else:
            solver = make(**settings, inner=SOLVERS[method.name], loss=loss)
    if record is not None:
        function = "transform" if method.fixed_h else "nmf"
        named = " ".join((method.name, *(f"{name}={value}" for name, value in method.options)))
        named = named if robust is None else f"{named} {robust}"
        named = named if noise is None else f"{named} {noise.identity}"
        named = named if posed.batches is None else f"{named} in the batches {posed.batches.identity}"
        record.identify(posed, start, schedule, function=function, solver=named, init=method.init)
    asked, problem = begin(problem, start, solver, xp=xp)
    if renewed is not None:
        problem = renewed(problem)
        asked = asked and asked._replace(problem=renewed(asked.problem))
    options: Any = {"schedule": schedule, "recorder": record, "asked": asked}
    options["second"] = _second(posed, method, solver) if schedule.tol > 0 else None
    with observer(posed, schedule, callback, progress) as observe, record or contextlib.nullcontext():
        outcome = loop.run(solver, problem, start, observe=observe, **options, xp=xp)
    outcome, table = _with_table(outcome, problem, fixed_h=method.fixed_h, xp=xp)
    if effects is not None:
        members = outcome.W.shape[:-2]  # which have them alike
        table = xp.broadcast_to(effects.table, (*members, *effects.table.shape))
    weights = robust and _weights_of_rows(robust, asked.problem if asked else problem, outcome.W, outcome.H, posed)
    if asked is not None and asked.missed and float("inf") in transfer.to_host(outcome.divergence).ravel():
        msg = (
            f"no component is positive in column {asked.missed} of V, so nothing explains what stands there and the "
            "divergence is infinite; the other columns are fitted as if these were missing"
        )
        warnings.warn(msg, stacklevel=3)
    if solver.polish and not solver.fixed_h:
        posed = posed.evenly()
    W, H = (posed.restore_factor(which, x) for which, x in zip("WH", (outcome.W, outcome.H), strict=True))
    if len(posed.stack) > 1:
        W, H = (xp.reshape(x, (*posed.stack, *x.shape[-2:])) for x in (W, H))
        weights = weights if weights is None else xp.reshape(weights, (*posed.stack, -1))
        table = table if table is None else xp.reshape(table, (*posed.stack, *table.shape[-2:]))
    history = outcome.history
    if isinstance(history, tuple) and any(posed.units):
        restore = posed.restore_divergence
        history = tuple(restore(x) if isinstance(x, float) else tuple(map(restore, x)) for x in history)
    divergence, objective = (posed.restore_divergence(x) for x in (outcome.divergence, outcome.objective))
    if posed.heavy:
        penalties = posed.heavy_penalties(W, H)
        beside = libraries.is_array(divergence) and not libraries.is_numpy(divergence)
        objective = divergence + (penalties if beside else transfer.to_host(penalties))
    return Result(
        W=W,
        H=H,
        solver=method.name,
        beta=posed.beta,
        _divergence=divergence,
        _objective=objective,
        _history=history,
        _n_iter=outcome.n_iter,
        _status=outcome.status,
        _kkt_residual=outcome.kkt_residual,
        robust=robust,
        weights_of_rows=weights,
        noise=noise,
        batch_labels=posed.batches and posed.batches.labels,
        _batch_table=table,
    )


def _with_scale(loss: Robust, posed: Posed, start: Factors, solver: Solver) -> Robust:
    """The loss with its scale in the user's units."""
    data = posed.problem.data
    if loss.of == "entries" and (data.has_absent or not isinstance(data, Dense | Weighted)):
        msg = (
            "`beta_loss` must be no `Robust` of entries for a sparse V, whose zeros would need weights. Say of='rows', "
            "give V as a dense array, or say absent='missing' where they are not observed"
        )
        raise ValueError(msg)
    exponent = _exponent(loss, posed)
    if loss.scale is not None:
        least = float(posed.xp.finfo(posed.values.dtype).smallest_normal)
        if number_times_power(loss.scale, -exponent) < least:
            msg = (
                f"`Robust.scale` must be at least {number_times_power(least, exponent):.3g} for this V, "
                f"got {loss.scale:g}; beside it no entry would count"
            )
            raise ValueError(msg)
        return loss
    if posed.stack:
        msg = "`Robust.scale` must be given for a stack of matrices, got None: they may need different ones"
        raise ValueError(msg)
    settings: Any = {"beta": posed.beta, "floor": posed.floor, "fixed_h": solver.fixed_h}
    first = Factors(*(x if x.ndim == 2 else x[0, ...] for x in start))  # of restarts, as of a single run
    scale = found_scale(_doubted(1.0, data, loss, posed), posed.problem, first, loss, **settings, xp=posed.xp)
    scale = number_times_power(scale, exponent)
    if not 0 < scale < math.inf:
        msg = f"`V` must be of other units for `Robust`: the scale of its loss would be {scale}; multiply V by a number"
        raise ValueError(msg)
    return dataclasses.replace(loss, scale=scale)


def _exponent(loss: Robust, posed: Posed) -> float:
    """That of the scale's unit: of the divergence of a row its weights are a part."""
    return posed.units.v * posed.beta if loss.of == "entries" else posed.units.divergence(posed.beta)


def _doubted(scale: float, data: Any, loss: Robust, posed: Posed) -> Doubted:
    """The data, doubted by a loss with this scale in the problem's units."""
    values, xp = posed.values, posed.xp
    info = xp.finfo(values.dtype)
    array = xp.full((), min(scale, float(info.max)), dtype=values.dtype, device=libraries.device(values))
    if loss.of == "rows":
        return DoubtedRows(data, array)
    if posed.exposure is not None:
        exposure = at_stored(getattr(data, "base", data), posed.exposure, xp=xp)
        array = array * exposure ** (-posed.beta)
        array = operators.at_most(array, float(info.max), xp=xp)
        array = operators.at_least(array, float(info.smallest_normal), xp=xp)
    return Doubted(data, array)


def _with_doubt(problem: Problem, scale: float, loss: Robust, posed: Posed) -> Problem:
    """The problem with the scale of a robust loss beside its data."""
    doubted: Any = _doubted(scale, problem.data, loss, posed)
    return problem._replace(data=doubted)


def _weights_of_rows(loss: Robust, problem: Problem, W: Array, H: Array, posed: Posed) -> Array:
    """How far a robust loss trusts each row, of one member after the other: (..., m)."""
    data: Any = problem.data
    settings: Any = {"beta": posed.beta, "xp": posed.xp}
    if W.ndim == 2:
        return data.weights_of_rows(W, H, loss, **settings)
    members = range(W.shape[0])
    return posed.xp.stack([data.member(i).weights_of_rows(W[i, ...], H[i, ...], loss, **settings) for i in members])


def _with_table(outcome: Outcome, problem: Problem, *, fixed_h: bool, xp: Namespace) -> tuple[Outcome, Array | None]:
    """The outcome and the effects of batches, if there are any, with the scale between H and them that is agreed upon.

    That is no part of the loss, but with a prior, for which it was found.
    """
    data: Any = problem.data
    if not isinstance(data, Batched | BatchedGrid):
        return outcome, None
    table = _table(data, outcome.W, outcome.H, xp=xp)
    if fixed_h or not problem.h.free or data.effects.scale_matters:
        return outcome, table
    scale = data.effects.gauge(table, xp=xp)
    return outcome._replace(H=outcome.H * scale), data.effects.scaled(table, 1.0 / scale, xp=xp)


def _table(data: Any, W: Any, H: Array, *, xp: Namespace) -> Array:
    """The effects of one matrix, or of each member of a stack: sparse data know one pair of factors at a time."""
    if W.ndim == 2 or data.values.ndim > 1:
        table: Array = data.table(W, H, xp=xp)
        return table
    return xp.stack([data.member(i).table(W[i, ...], H[i, ...], xp=xp) for i in range(W.shape[0])])


def _second(posed: Posed, method: Method, solver: Solver) -> Solver | None:
    """The solver that is asked whether a run has converged: what `auto` takes.

    For W alone there are bounds instead.
    """
    if not solver.polish or solver.has_rule or isinstance(solver, Reweighted | BatchedGridUpdate):
        return None
    if method.fixed_h or isinstance(posed.problem.data, Grid | Blockwise):
        return None
    if posed.problem.w.others or posed.problem.h.others:  # which not all solvers take
        return None
    return SOLVERS[automatic(posed.beta)](beta=posed.beta, floor=posed.floor)
