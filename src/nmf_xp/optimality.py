"""What the iteration decreases, and how far a pair of factors is from a stationary point of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nmf_xp import _compat
from nmf_xp.data.blocks import Part, sweep
from nmf_xp.data.quotient import contract_quotients
from nmf_xp.divergences import block_divergence, data_divergence
from nmf_xp.updates import slopes

if TYPE_CHECKING:
    from nmf_xp._typing import Array, Namespace
    from nmf_xp.data import Data
    from nmf_xp.problem import Constraints, Problem


def objective(problem: Problem, W: Array, H: Array, *, beta: float, xp: Namespace) -> Array:
    """The divergence and the penalties on both factors: (...,)."""
    return data_divergence(problem.data, W, H, beta=beta, xp=xp) + penalties(problem, W, H, xp=xp)


def penalties(problem: Problem, W: Array, H: Array, *, xp: Namespace) -> Array | float:
    """The penalties on both factors: (...,)."""
    dtype = _compat.accumulator_dtype(xp, _compat.device(W))
    return problem.w.penalty(W, dtype=dtype, xp=xp) + problem.h.penalty(H, dtype=dtype, xp=xp)


def divergence_and_residual(
    problem: Problem, W: Array, H: Array, *, beta: float, floor: float, fixed_h: bool, xp: Namespace
) -> tuple[Array, Array]:
    """The divergence, and the largest violation over the entries that are not fixed, in one pass over V: (...,) each.

    An entry is optimal when its slope is zero, or when it is at a bound and its slope points outwards:
    min(w, dD/dw) = 0 at the lower one. Here w is taken relative to the largest entry of its component and the slope
    relative to its own positive part, which makes the residual independent of the scales of V, W and H.
    """
    data, w, h = problem
    bounds = {"floor": floor, "xp": xp}
    size = xp.max(W, axis=-2, keepdims=True)

    def block_residual(block: Data, W: Array, constraints: Constraints) -> Part:
        divergence, along, down = divergence_and_slopes(block, W, H, beta=beta, fixed_h=fixed_h, xp=xp)
        return Part(entry_violation(W, along, constraints, size=size, **bounds), (divergence, *down))

    violation, (divergence, *down) = sweep(block_residual, data, W, w, xp=xp)
    residual = xp.max(violation, axis=(-2, -1))
    if fixed_h:
        return divergence, residual
    Ht = _compat.transposed(H)
    size = xp.max(Ht, axis=-2, keepdims=True)
    violation = entry_violation(Ht, tuple(down), h.transposed(xp=xp), size=size, **bounds)
    return divergence, xp.maximum(residual, xp.max(violation, axis=(-2, -1)))


def divergence_and_slopes(
    data: Data, W: Array, H: Array, *, beta: float, fixed_h: bool, xp: Namespace
) -> tuple[Array, tuple[Array, ...], tuple[Array, ...]]:
    """The divergence, the `slopes` of W, and those of H unless it is fixed, from one model."""
    Y = data.predict(W, H, xp=xp)
    divergence = block_divergence(data, W, H, Y, beta=beta, xp=xp)
    Wt, Ht = _compat.transposed(W), _compat.transposed(H)
    if fixed_h:
        return divergence, slopes(data, W, H, Y, beta=beta, xp=xp), ()
    if beta != 1:
        return divergence, slopes(data, W, H, Y, beta=beta, xp=xp), slopes(data.T, Ht, Wt, Y, beta=beta, xp=xp)
    along, down = contract_quotients(data, W, H, Y)
    model = data.model_slope(W, H, None, beta=1.0, xp=xp), data.T.model_slope(Ht, Wt, None, beta=1.0, xp=xp)
    return divergence, (along, model[0]), (down, model[1])


def entry_violation(
    W: Array, parts: tuple[Array, ...], constraints: Constraints, *, size: Array, floor: float, xp: Namespace
) -> Array:
    """The violation of each entry's condition, for the two `slopes`."""
    numerator, denominator = parts
    tiny = float(xp.finfo(W.dtype).smallest_normal)
    slope = 1.0 - numerator / _compat.at_least(constraints.add_slope(denominator, W), tiny, xp=xp)
    size = _compat.at_least(size, tiny, xp=xp)  # a solver without a floor may end a component
    violation = xp.minimum((W - floor) / size, slope)
    if constraints.upper is not None:
        violation = xp.maximum(violation, (W - constraints.upper) / size)
    if constraints.fixed is not None:
        violation = xp.where(constraints.fixed, 0.0, violation)
    return xp.abs(violation)
