"""Factorize rows that come block by block: `online_step` for a stream, `online_nmf` for passes over one matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.arrays import faults, libraries, operators, precision, transfer
from nmf_xp.arrays.checks import (
    check_callable,
    check_factor,
    check_integer,
    check_namespace,
    check_non_negative,
    check_option,
    check_values,
)
from nmf_xp.arrays.threads import held_for
from nmf_xp.data import as_data
from nmf_xp.data.checks import check_columns
from nmf_xp.data.units import number_times_power, times_power
from nmf_xp.divergences import check_beta
from nmf_xp.problem.checks import check_penalties
from nmf_xp.problem.posing import pose_array
from nmf_xp.problem.starts import constant_start
from nmf_xp.problem.terms import asked_of
from nmf_xp.solvers.online import Block, Moved, OnlineState, OnlineUpdate, batches, left
from nmf_xp.updates import factor_floor

if TYPE_CHECKING:
    from collections.abc import Callable

    from nmf_xp.arrays.typing import Array, Namespace
    from nmf_xp.data.units import Units
    from nmf_xp.problem.posing import Posed


RULES = ("majorizer", "scikit-learn")


class OnlineStep(NamedTuple):
    """What a block led to.

    `state` carries the new H; `W` (m, r) belongs to the block; `cost`, 0-d, is the block's objective per row, for the
    new W and the H before; `change`, 0-d, is the norm of H's change relative to H's.
    """

    state: OnlineState
    W: Array
    cost: Array
    change: Array


class OnlineResult(NamedTuple):
    """Factors from passes over one matrix.

    `W` has each batch's rows as its last visit left them, or where there was none as they are found afresh. `steps`
    counts batches, `ended` says whether a rule or the callback ended the run, and `costs` are those of the batches,
    empty where nothing looks at them.
    """

    W: Array
    state: OnlineState
    steps: int
    ended: bool
    costs: tuple[float, ...]


class Smoothed(NamedTuple):
    """An exponentially weighted average of the costs, its least value, and for how many blocks that has stood."""

    average: float | None = None
    least: float | None = None
    stale: int = 0

    def seen(self, cost: float, share: float) -> Smoothed:
        """The average after a block that is the `share` of all rows."""
        average = cost if self.average is None else self.average + min(1.0, share) * (cost - self.average)
        if self.least is None or average < self.least:
            return Smoothed(average, average, 0)
        return Smoothed(average, self.least, self.stale + 1)


@precision.on_data
def online_start(H: Array, /, *, beta_loss: float | str = "frobenius", rule: str = "majorizer") -> OnlineState:
    """The state before the first block.

    Parameters
    ----------
    H : array, shape (r, n)
        Components to begin with, positive where they shall be able to change.
    beta_loss : float or {"frobenius", "kullback-leibler", "itakura-saito"}, default "frobenius"
        The beta of the divergence.
    rule : {"majorizer", "scikit-learn"}, default "majorizer"
        What H weighs beside the first block: "majorizer" as much as one of its rows, whatever the units of V;
        "scikit-learn" as much as it does in its `MiniBatchNMF`, which depends on them.

    Returns
    -------
    OnlineState
        H with the two sums of which it is the quotient, three arrays of H's shape, whatever comes; and one number.
    """
    xp = libraries.array_namespace(H)
    check_values("H", H, xp=xp)
    beta = check_beta(beta_loss)
    check_option("rule", rule, RULES)
    floor = factor_floor(H.dtype, beta=beta, xp=xp)
    return OnlineUpdate(beta, floor, 1.0, rule == "scikit-learn").init(H, xp=xp)


@faults.explained
@precision.on_data
def online_step(
    state: OnlineState,
    V: Array,
    /,
    W: Array | None = None,
    *,
    beta_loss: float | str = "frobenius",
    memory: float = 0.7,
    weights: Array | None = None,
    exposure: Array | None = None,
    absent: str = "zero",
    alpha_W: float = 0.0,
    alpha_H: float | str = "same",
    l1_ratio: float = 0.0,
    fresh_max_iter: int = 30,
    fresh_tol: float = 1e-4,
    rule: str = "majorizer",
) -> OnlineStep:
    """Update the components with one block of rows.

    Parameters
    ----------
    state : OnlineState
        From `online_start`, or from the step before.
    V : array or sparse matrix, shape (m, n)
        The block, of the namespace, dtype and device of the state.
    W : array, shape (m, r), optional
        The block's W from an earlier pass, which is updated once. By default it is found afresh, by at most
        `fresh_max_iter` updates from a constant, until one changes it by no more than `fresh_tol` of its norm.
    beta_loss : float or {"frobenius", "kullback-leibler", "itakura-saito"}, default "frobenius"
        The beta of the divergence.
    memory : float from 0 to 1, default 0.7
        By what the sums of the earlier blocks are multiplied; 1 forgets nothing.
    weights, exposure, absent : optional
        As for `nmf`, for this block.
    alpha_W, alpha_H, l1_ratio : optional
        As for `nmf`; the scaling of `alpha_H` is by the rows of this block.
    fresh_max_iter, fresh_tol : optional
        When to stop looking for a W that is not given.
    rule : {"majorizer", "scikit-learn"}, default "majorizer"
        How an L2 penalty enters the updates: "majorizer" takes the minimum of the majoriser with it; "scikit-learn"
        adds its slope to the denominators.

    Returns
    -------
    OnlineStep
        The new state, the block's W, its cost per row, and how far H moved.

    Raises
    ------
    TypeError, ValueError
        As for `nmf`. Values are checked where they can be read.

    Notes
    -----
    Lefevre, Bach & Fevotte (2011). Nothing is kept but the state: the memory does not grow with the number of blocks.

    Examples
    --------
    >>> import numpy as np
    >>> from nmf_xp.online import online_start, online_step
    >>> rng = np.random.default_rng(0)
    >>> state = online_start(rng.uniform(0.5, 1.5, size=(3, 10)), beta_loss="kullback-leibler")
    >>> for _ in range(5):
    ...     state = online_step(state, rng.poisson(5.0, size=(20, 10)) * 1.0, beta_loss="kullback-leibler").state
    >>> state.H.shape
    (3, 10)
    """
    settings, xp = _settings(state, beta_loss, memory, rule)
    posed = _posed(state, V, W, weights, exposure, absent, settings.beta, (alpha_W, alpha_H, l1_ratio))
    if W is not None:
        W = operators.at_least(posed.factor("W", W, "W", state.H.shape[0]), settings.floor, xp=xp)
    with held_for(state.H):
        before = settings.entered(state, posed.units, xp=xp)
        block = settings.block(posed.problem, before.H, xp=xp)
        done = _visit(settings, before, block, W, posed.units, fresh=(fresh_max_iter, fresh_tol), xp=xp)
    cost, exponent = done.objective, posed.units.divergence(posed.beta)
    if any(posed.units):
        cost = number_times_power(transfer.scalar(cost), exponent)
    cost, change = (_zero_dimensional(x, state.H, xp=xp) for x in (cost, done.change))
    W = times_power(done.W, posed.units.w)
    return OnlineStep(left(done.state, posed.units), W, cost / posed.shape[0], change)


@faults.explained
@precision.on_data
def online_nmf(
    V: Array,
    W: Array | None,
    state: OnlineState,
    /,
    *,
    batch_size: int = 1024,
    forget_factor: float = 0.7,
    max_iter: int = 200,
    tol: float = 1e-4,
    max_no_improvement: int | None = 10,
    beta_loss: float | str = "frobenius",
    weights: Array | None = None,
    exposure: Array | None = None,
    absent: str = "zero",
    alpha_W: float = 0.0,
    alpha_H: float | str = "same",
    l1_ratio: float = 0.0,
    fresh_max_iter: int = 30,
    rule: str = "majorizer",
    callback: Callable[[int, float, OnlineState], Any] | None = None,
) -> OnlineResult:
    """Factorize one matrix by passes over mini-batches of its rows.

    Parameters
    ----------
    V : array or sparse matrix, shape (m, n)
        The matrix.
    W : array, shape (m, r), or None
        The start of W, updated once for each visit of a batch. None: a batch's W is found afresh at each visit.
    state : OnlineState
        From `online_start`.
    batch_size : int, default 1024
        Rows of a batch.
    forget_factor : float from 0 to 1, default 0.7
        How much of the past is left after a pass over all rows.
    max_iter : int, default 200
        Most passes.
    tol : float, default 1e-4
        The run ends when a batch changes H by no more than `tol` of its norm. 0: never.
    max_no_improvement : int or None, default 10
        The run ends when the smoothed cost has not improved for so many batches.
    callback : callable, optional
        Called after each batch as ``callback(step, cost, state)``; the run ends when it returns True.
    beta_loss, weights, exposure, absent, alpha_W, alpha_H, l1_ratio, fresh_max_iter, rule : optional
        As for `online_step`; for a W that is found afresh the tolerance is `tol`.

    Returns
    -------
    OnlineResult
        The factors and how the run ended.
    """
    batch_size = check_integer("batch_size", batch_size, minimum=1)
    max_iter = check_integer("max_iter", max_iter, minimum=1)
    tol = check_non_negative("tol", tol)
    check_callable("callback", callback)
    forget = check_non_negative("forget_factor", forget_factor)
    settings, xp = _settings(state, beta_loss, forget, rule)
    posed = _posed(state, V, W, weights, exposure, absent, settings.beta, (alpha_W, alpha_H, l1_ratio))
    m = posed.shape[0]
    batch_size = min(batch_size, m)
    settings = settings._replace(memory=forget ** (batch_size / m))
    starts, stops, problems = zip(*batches(posed.problem, batch_size), strict=True)
    parts: list[Any] = [None] * len(problems)
    if W is not None:
        W = operators.at_least(posed.factor("W", W, "W", state.H.shape[0]), settings.floor, xp=xp)
        parts = [W[start:stop, :] for start, stop in zip(starts, stops, strict=True)]
    watched = tol > 0 or max_no_improvement is not None or callback is not None
    smoothed, ended, step = Smoothed(), False, 0
    costs: list[float] = []
    units = posed.units
    visits: Any = {"fresh": (fresh_max_iter, tol), "xp": xp}
    with held_for(state.H):
        state = settings.entered(state, units, xp=xp)
        blocks = [settings.block(problem, state.H, measured=watched, xp=xp) for problem in problems]
        for step in range(max_iter * len(blocks)):
            i = step % len(blocks)
            old = None if W is None else parts[i]
            state, parts[i], cost, change = _visit(settings, state, blocks[i], old, units, **visits)
            if not watched:
                continue
            height = stops[i] - starts[i]
            costs.append(number_times_power(transfer.scalar(cost), units.divergence(posed.beta)) / height)
            if callback is not None:
                with precision.users_errors():
                    ended = bool(callback(step + 1, costs[-1], _shown(left(state, units))))
            if step > 0:  # the cost of the first batch is that of the start
                smoothed = smoothed.seen(costs[-1], height / (m + 1))
                ended = ended or (tol > 0 and transfer.scalar(change) <= tol)
                ended = ended or (max_no_improvement is not None and smoothed.stale >= max_no_improvement)
            if ended:
                break
        for i, block in enumerate(blocks):
            if parts[i] is None:  # not visited
                parts[i] = _fresh(settings, state.H, block, units, visits["fresh"], xp=xp)
    W = transfer.in_row_order(times_power(xp.concat(parts, axis=0), units.w))
    return OnlineResult(W, left(state, units), step + 1, ended, tuple(costs))


def _visit(
    settings: OnlineUpdate,
    state: OnlineState,
    block: Block,
    W: Array | None,
    units: Units,
    *,
    fresh: tuple[int, float],
    xp: Namespace,
) -> Moved:
    """A step in the units of the problem; a W that is not given is found first."""
    if W is not None:
        return settings.step(state, block, W, update_w=True, xp=xp)
    W = _fresh(settings, state.H, block, units, fresh, xp=xp)
    return settings.step(state, block, W, update_w=False, xp=xp)


def _fresh(
    settings: OnlineUpdate, H: Array, block: Block, units: Units, limits: tuple[int, float], *, xp: Namespace
) -> Array:
    """A block's W from a constant, by at most so many updates and to this tolerance."""
    W = times_power(constant_start(block.problem.data, H.shape[0], xp=xp), (units.h - units.w) // 2)
    W = operators.at_least(W, settings.floor, xp=xp)
    return settings.loadings(block, W, H, max_iter=limits[0], tol=limits[1], xp=xp)


def _zero_dimensional(x: Any, like: Array, *, xp: Namespace) -> Array:
    """A number as an array beside another one."""
    device = libraries.device(like)
    return x if libraries.is_array(x) else xp.full((), x, dtype=libraries.accumulator_dtype(xp, device), device=device)


def _shown(state: OnlineState) -> OnlineState:
    """The state for a callback, which may write into it."""
    return state._replace(**{name: transfer.copied(getattr(state, name)) for name in state._fields})


def _settings(state: OnlineState, beta_loss: float | str, memory: float, rule: str) -> tuple[OnlineUpdate, Namespace]:
    xp = libraries.array_namespace(state.H)
    beta = check_beta(beta_loss)
    check_option("rule", rule, RULES)
    if check_non_negative("memory", memory) > 1:
        msg = f"`memory` must be from 0 to 1, got {memory}"
        raise ValueError(msg)
    floor = factor_floor(state.H.dtype, beta=beta, xp=xp)
    return OnlineUpdate(beta, floor, memory, rule == "scikit-learn"), xp


def _posed(
    state: OnlineState,
    V: Any,
    W: Array | None,
    weights: Any,
    exposure: Any,
    absent: str,
    beta: float,
    penalties: tuple[float, float | str, float],
) -> Posed:
    """A block with its weights and penalties, checked, in the units of the state, or in its own where it has none."""
    values = V if libraries.sparse_library(V) is None else as_data(V).values
    if libraries.is_array(values):
        check_namespace("H", state.H, values)
    posed = pose_array(V, beta=beta, weights=weights, exposure=exposure, absent=absent, units=state.units)
    check_factor("H", state.H, posed.values)
    check_columns((*posed.stack, *posed.shape), state.H)
    posed = posed.suited(W, state.H) if state.units is None else posed
    return posed.constrained(state.H.shape[0], asked_of(check_penalties(*penalties), penalties[2]))
