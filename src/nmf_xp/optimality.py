"""What the iteration decreases, and how far a pair of factors is from a stationary point of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nmf_xp import _compat
from nmf_xp.data.blocks import Part, sweep
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
    data, w, h = problem
    Ht = xp.matrix_transpose(H)
    bounds = {"floor": floor, "xp": xp}
    size = xp.max(W, axis=-2, keepdims=True)

    def block_residual(block: Data, W: Array, constraints: Constraints) -> Part:
        violation = entry_violation(W, slopes(block, W, H, beta=beta, xp=xp), constraints, size=size, **bounds)
        sums = () if fixed_h else slopes(block.T, Ht, xp.matrix_transpose(W), beta=beta, xp=xp)
        return Part(violation, sums)

    violation, sums = sweep(block_residual, data, W, w, xp=xp)
    residual = xp.max(violation, axis=(-2, -1))
    if fixed_h:
        return residual
    size = xp.max(Ht, axis=-2, keepdims=True)
    violation = entry_violation(Ht, sums, h.transposed(xp=xp), size=size, **bounds)
    return xp.maximum(residual, xp.max(violation, axis=(-2, -1)))


def entry_violation(
    W: Array, parts: tuple[Array, ...], constraints: Constraints, *, size: Array, floor: float, xp: Namespace
) -> Array:
    """The violation of each entry's condition, for the two `slopes`."""
    numerator, denominator = parts
    tiny = float(xp.finfo(W.dtype).smallest_normal)
    slope = 1.0 - numerator / xp.maximum(denominator + constraints.slope(W), tiny)
    size = xp.maximum(size, tiny)  # a solver without a floor may end a component
    violation = xp.minimum((W - floor) / size, slope)
    if constraints.upper is not None:
        violation = xp.maximum(violation, (W - constraints.upper) / size)
    if constraints.fixed is not None:
        violation = xp.where(constraints.fixed, 0.0, violation)
    return xp.abs(violation)
