"""What the iteration decreases, and how far a pair of factors is from a stationary point of it."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.arrays import kernels, libraries, operators
from nmf_xp.data import Sparse
from nmf_xp.data.blocks import Part, sweep
from nmf_xp.divergences import block_divergence, data_divergence, whole_divergence
from nmf_xp.problem.small import penalties_of, takes_tiles
from nmf_xp.updates import factor_floor, power_parts, slopes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nmf_xp.arrays.typing import Array, Namespace
    from nmf_xp.data import Data
    from nmf_xp.data.constraints import Constraints
    from nmf_xp.problem import Problem


NOTHING = 1e-6  # of what a row of W holds
BELOW = 2.0**-8  # of an entry of V, a model in the place of 0
UNSEEN = 2.0  # the relative slope of an entry on which no observed entry of V depends


class Report(NamedTuple):
    """What one look at V says of a pair of factors."""

    divergence: Array  # (...,)
    objective: Array  # (...,)
    gap: Array  # (...,): see `rows_gap`
    w_slopes: Array  # (..., m, r): the relative slope of each entry
    h_slopes: Array  # (..., r, n); (..., r, 0) where H is fixed


def objective(problem: Problem, W: Array, H: Array, *, beta: float, xp: Namespace) -> Array:
    """The divergence and the penalties on both factors: (...,)."""
    return data_divergence(problem.data, W, H, beta=beta, xp=xp) + penalties(problem, W, H, xp=xp)


def penalties(problem: Problem, W: Array, H: Array, *, xp: Namespace) -> Array | float:
    """The penalties on both factors: (...,)."""
    dtype = libraries.accumulator_dtype(xp, libraries.device(W))
    return problem.w.penalty(W, dtype=dtype, xp=xp) + problem.h.penalty(H, axis=-2, dtype=dtype, xp=xp)


def report(problem: Problem, W: Array, H: Array, *, beta: float, floor: float, fixed_h: bool, xp: Namespace) -> Report:
    """The divergence, the objective and the slopes at these factors, which may have zeros, in one pass over V."""
    data, w, h = problem
    if beta in (1, 2) and W.ndim == H.ndim and takes_tiles(W, problem):
        kernel = kernels.find("dense_report", data.values, W, H)
        if kernel is not None:
            known: Any = {"penalties": penalties_of(problem), "constants": (NOTHING, UNSEEN)}
            divergence, gap, *both = kernel(data.values, W, H, beta=beta, floor=floor, alone=fixed_h, **known)
            return Report(divergence, divergence + penalties(problem, W, H, xp=xp), gap, *both)
    settings: Any = {"beta": beta, "floor": floor, "fixed_h": fixed_h, "xp": xp}

    dtype = libraries.accumulator_dtype(xp, libraries.device(W))
    measure: Any = {"alone": fixed_h, "dtype": dtype, "xp": xp}

    def of_block(block: Data, W: Array, constraints: Constraints) -> Part:
        divergence, along, down = divergence_and_slopes(block, W, H, **settings)
        gap = rows_gap(W, along, constraints, **measure)
        return Part(relative_slope(W, along, constraints, xp=xp), (divergence, gap, *down))

    known_parts = _of_stored_entries(data, W, H, **settings)
    down: Sequence[Array]
    if known_parts is None:
        w_slopes, (divergence, gap, *down) = sweep(of_block, data, W, w, xp=xp)
    else:
        divergence, along, down = known_parts
        w_slopes, gap = relative_slope(W, along, w, xp=xp), rows_gap(W, along, w, **measure)
    value = divergence + penalties(problem, W, H, xp=xp)
    if fixed_h:
        return Report(divergence, value, gap, w_slopes, xp.zeros_like(H[..., :0]))
    Ht, turned = operators.transposed(H), h.transposed(xp=xp)
    gap = gap + rows_gap(Ht, tuple(down), turned, **measure)
    return Report(
        divergence, value, gap, w_slopes, operators.transposed(relative_slope(Ht, tuple(down), turned, xp=xp))
    )


def rows_gap(
    W: Array, parts: tuple[Array, ...], constraints: Constraints, *, alone: bool, dtype: Any, xp: Namespace
) -> Array:
    """A bound on how far below the objective is for the best W, from the two `slopes`: (...,).

    The objective is convex in a row w, with the slope g = d - n, so it falls by no more than g (w - w*). The best w*
    holds about as much of the model as w, d w* = d w (for Kullback-Leibler exactly), so

        gap = sum_k w_k g_k + max_k (-g_k / d_k)  sum_k w_k d_k,

    the gap of Frank & Wolfe (1956; Jaggi 2013, eq. 2). W `alone` is looked for: else only the second term is taken, of
    entries that hold next to nothing. For beta beyond 1 to 2 the objective is convex only near V, and this an estimate.
    """
    numerator, denominator = parts
    info = xp.finfo(W.dtype)
    numerator, denominator = constraints.add_pull(numerator, W, xp=xp), constraints.add_push(denominator, W, xp=xp)
    free, can_grow = xp.ones_like(W), xp.ones_like(W)
    if constraints.upper is not None:
        can_grow = xp.where(W < constraints.upper, can_grow, 0.0)
    if constraints.fixed is not None:
        free, can_grow = (xp.where(constraints.fixed, 0.0, x) for x in (free, can_grow))
    pull, push = (xp.sum(free * W * x, axis=-1) for x in (numerator, denominator))
    held = xp.maximum(pull, push)
    if not alone:
        can_grow = xp.where(W * denominator <= NOTHING * held[..., None], can_grow, 0.0)
    rise = numerator / operators.at_least(denominator, float(info.smallest_normal), xp=xp) - 1.0
    steepest = xp.max(xp.where(can_grow > 0, rise, 0.0), axis=-1)
    steepest = xp.where(held > 0, steepest, 0.0)  # infinite, perhaps, in a row that holds nothing
    gap = operators.at_least(steepest, 0.0, xp=xp) * held
    if alone:
        gap = gap + push - pull
        if constraints.lower is not None:  # below which no entry falls
            gap = gap - xp.sum(free * constraints.lower * (denominator - numerator), axis=-1)
    rounding = 16.0 * float(info.eps) * held
    return xp.sum(operators.at_least(gap - rounding, 0.0, xp=xp), axis=-1, dtype=dtype)


def divergence_and_slopes(
    data: Data, W: Array, H: Array, *, beta: float, floor: float, fixed_h: bool, xp: Namespace
) -> tuple[Array, tuple[Array, ...], tuple[Array, ...]]:
    """The divergence, the `slopes` of W, and those of H unless it is fixed, from one model.

    Where a model is zero, what V pulls is that of the least model that factors at the floor make.
    """
    Y = data.predict(W, H, xp=xp)
    divergence = block_divergence(data, W, H, Y, beta=beta, xp=xp)
    Wt, Ht = operators.transposed(W), operators.transposed(H)
    if beta == 2:
        down = () if fixed_h else slopes(data.T, Ht, Wt, Y, beta=beta, xp=xp)
        return divergence, slopes(data, W, H, Y, beta=beta, xp=xp), down
    if beta < 1:
        scale = floor / factor_floor(W.dtype, beta=beta, xp=xp)  # of a factor; with a given H that of W is V's
        least = _least_model(data.values, scale if fixed_h else scale**2, floor**2, beta=beta, xp=xp)
        quotient, power = power_parts(data.values, xp.maximum(Y, least), beta=beta, xp=xp)
    elif beta == 1:
        quotient, power = operators.divide_into(data.values, operators.at_least(Y, floor * floor, xp=xp)), None
    else:  # what a model pushes is finite at zero too
        quotient, _ = power_parts(data.values, operators.at_least(Y, floor * floor, xp=xp), beta=beta, xp=xp)
        power = operators.power(Y, beta - 1.0, xp=xp)
    along = data.contract(quotient, H, xp=xp), data.model_slope(W, H, power, beta=beta, xp=xp)
    if fixed_h:
        return divergence, along, ()
    down = data.T.contract(quotient, Wt, xp=xp), data.T.model_slope(Ht, Wt, power, beta=beta, xp=xp)
    return divergence, along, down


def _of_stored_entries(
    data: Data, W: Array, H: Array, *, beta: float, floor: float, fixed_h: bool, xp: Namespace
) -> tuple[Array, tuple[Array, ...], tuple[Array, ...]] | None:
    """The same for a sparse V, both of whose orders are known, from two passes of a kernel; None without one."""
    if beta != 1 or type(data) is not Sparse or not (fixed_h or data.across.others is not None):
        return None
    kernel = kernels.find("kl_slopes_sparse", data.values, W, H)
    if kernel is None or data.along.others is None:
        return None

    def part(data: Any, W: Array, H: Array) -> tuple[tuple[Array, ...], tuple[Array, Array]]:
        entries = data.row_values(xp=xp), data.along.starts, data.along.others
        numerator, sums = kernel(*entries, W, H, least=floor * floor)
        return (numerator, data.model_slope(W, H, None, beta=beta, xp=xp)), sums

    along, sums = part(data, W, H)
    down = () if fixed_h else part(data.T, operators.transposed(H), operators.transposed(W))[0]
    return whole_divergence(data, W, H, *sums, xp=xp), along, down


def _least_model(V: Array, scale: Array | float, floor: Array | float, *, beta: float, xp: Namespace) -> Array:
    """A model in the place of 0 whose powers in the slopes are finite for V of this scale, with room for sums.

    It is far below V: what leaves an entry without a model is steep.
    """
    most = float(xp.finfo(V.dtype).max)
    least = operators.at_least(V * BELOW, most ** (-0.8 / max(1.0, 1.0 - beta)) * scale, xp=xp)
    return operators.at_most(least, floor + most ** (-0.8 / (2.0 - beta)) * scale, xp=xp)


def relative_slope(W: Array, parts: tuple[Array, ...], constraints: Constraints, *, xp: Namespace) -> Array:
    """1 - numerator / denominator, for the two `slopes`: the slope of each entry relative to its own positive part.

    It is 1 where nothing in V asks for the entry, and `UNSEEN` where nothing depends on it.
    """
    numerator, denominator = constraints.add_pull(parts[0], W, xp=xp), constraints.add_push(parts[1], W, xp=xp)
    tiny = float(xp.finfo(W.dtype).smallest_normal)
    slope = 1.0 - numerator / operators.at_least(denominator, tiny, xp=xp)
    return xp.where(denominator == 0, xp.where(numerator == 0, UNSEEN, slope), slope)


def kkt_residual(problem: Problem, W: Array, H: Array, seen: Report, *, floor: float, xp: Namespace) -> Array:
    """The largest violation over the entries that are not fixed: (...,).

    An entry is optimal when its slope is zero, or when it is at a bound and its slope points outwards:
    min(w, dD/dw) = 0 at the lower one, which is 0, or the `floor` where an algorithm lets no entry below it. Here w is
    taken relative to the largest entry of its component and the slope relative to its own positive part, which makes
    the residual independent of the scales of V, W and H.
    """
    violations = entry_violations(problem, W, H, seen, floor=floor, xp=xp)
    found = functools.reduce(xp.maximum, [xp.max(x, axis=(-2, -1)) for x in violations])
    return xp.where(found == found, found, float("inf"))  # of slopes beyond the numbers


def entry_violations(
    problem: Problem, W: Array, H: Array, seen: Report, *, floor: float, xp: Namespace
) -> tuple[Array, ...]:
    """The violation of each entry of W, and of H unless it is fixed."""
    size = xp.max(W, axis=-2, keepdims=True)
    of_w = entry_violation(W, seen.w_slopes, problem.w, size=size, floor=floor, xp=xp)
    if seen.h_slopes.shape[-1] == 0:
        return (of_w,)
    Ht, ht_slopes = operators.transposed(H), operators.transposed(seen.h_slopes)
    size = xp.max(Ht, axis=-2, keepdims=True)
    of_h = entry_violation(Ht, ht_slopes, problem.h.transposed(xp=xp), size=size, floor=floor, xp=xp)
    return of_w, operators.transposed(of_h)


def entry_violation(
    W: Array, slope: Array, constraints: Constraints, *, size: Array, floor: float, xp: Namespace
) -> Array:
    """The violation of each entry's condition, for its `relative_slope` and the largest entry of its component."""
    size = operators.at_least(size, float(xp.finfo(W.dtype).smallest_normal), xp=xp)  # a component may be zero
    above = operators.at_least(W - constraints.floor(floor, xp=xp), 0.0, xp=xp)
    violation = xp.minimum(above / size, slope)
    if constraints.upper is not None:
        violation = xp.maximum(violation, (W - constraints.upper) / size)
    if constraints.fixed is not None:
        violation = xp.where(constraints.fixed, 0.0, violation)
    return xp.abs(violation)
