"""What the iteration decreases, and how far a pair of factors is from a stationary point of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nmf_xp import _compat
from nmf_xp.divergences import data_divergence
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


def kkt_residual(
    problem: Problem, W: Array, H: Array, *, beta: float, floor: float, fixed_h: bool, xp: Namespace
) -> Array:
    """Largest violation over the entries that are not fixed, for each matrix of a stack: (...,).

    An entry is optimal when its slope is zero, or when it is at a bound and its slope points outwards:
    min(w, dD/dw) = 0 at the lower one. Here w is taken relative to the largest entry of its component and the slope
    relative to its own positive part, which makes the residual independent of the scales of V, W and H.
    """
    residual = _violation(problem.data, W, H, problem.w, beta=beta, floor=floor, xp=xp)
    if fixed_h:
        return residual
    Wt, Ht = xp.matrix_transpose(W), xp.matrix_transpose(H)
    turned = problem.h.transposed(xp=xp)
    return xp.maximum(residual, _violation(problem.data.T, Ht, Wt, turned, beta=beta, floor=floor, xp=xp))


def _violation(
    data: Data, W: Array, H: Array, constraints: Constraints, *, beta: float, floor: float, xp: Namespace
) -> Array:
    numerator, denominator = slopes(data, W, H, beta=beta, xp=xp)
    tiny = float(xp.finfo(W.dtype).smallest_normal)
    slope = 1.0 - numerator / xp.maximum(denominator + constraints.slope(W), tiny)
    size = xp.max(W, axis=-2, keepdims=True)
    violation = xp.minimum((W - floor) / size, slope)
    if constraints.upper is not None:
        violation = xp.maximum(violation, (W - constraints.upper) / size)
    if constraints.fixed is not None:
        violation = xp.where(constraints.fixed, 0.0, violation)
    return xp.max(xp.abs(violation), axis=(-2, -1))
