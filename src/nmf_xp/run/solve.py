"""From a posed problem and a start to a result in the units of V."""

from __future__ import annotations

import contextlib
import warnings
from typing import TYPE_CHECKING, Any

from nmf_xp.arrays import libraries, transfer
from nmf_xp.data.blocks import Blockwise
from nmf_xp.data.grid import Grid
from nmf_xp.result import Result
from nmf_xp.run import loop
from nmf_xp.run.beginning import begin, same_stack
from nmf_xp.run.observer import observer
from nmf_xp.solvers import SOLVERS, automatic
from nmf_xp.solvers.grid import GridUpdate

if TYPE_CHECKING:
    from collections.abc import Callable

    from nmf_xp.arrays.typing import Array
    from nmf_xp.problem.posing import Posed
    from nmf_xp.run.checkpoint import Checkpoint
    from nmf_xp.run.position import Progress, Schedule
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
    xp, problem = posed.xp, posed.problem
    make = GridUpdate if isinstance(problem.data, Grid) else SOLVERS[method.name]
    solver = make(beta=posed.beta, floor=posed.floor, fixed_h=method.fixed_h, **dict(method.options))
    start[:] = same_stack(*start, xp=xp)
    if record is not None:
        function = "transform" if method.fixed_h else "nmf"
        named = " ".join((method.name, *(f"{name}={value}" for name, value in method.options)))
        record.identify(posed, start, schedule, function=function, solver=named, init=method.init)
    asked, problem = begin(problem, start, solver, xp=xp)
    options: Any = {"schedule": schedule, "recorder": record, "asked": asked}
    options["second"] = _second(posed, method, solver)
    with observer(posed, schedule, callback, progress) as observe, record or contextlib.nullcontext():
        outcome = loop.run(solver, problem, start, observe=observe, **options, xp=xp)
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
    )


def _second(posed: Posed, method: Method, solver: Solver) -> Solver | None:
    """The solver that is asked whether a run has converged: what `auto` takes, where that is another one.

    For W alone there are bounds instead.
    """
    best = automatic(posed.beta)
    if method.fixed_h or best == method.name or isinstance(posed.problem.data, Grid | Blockwise):
        return None
    if posed.problem.w.others or posed.problem.h.others:  # which not all solvers take
        return None
    return SOLVERS[best](beta=posed.beta, floor=posed.floor) if solver.polish and not solver.has_rule else None
