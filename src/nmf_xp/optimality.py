"""How far a pair of factors is from the optimality conditions of Karush, Kuhn and Tucker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nmf_xp.updates import slopes

if TYPE_CHECKING:
    from nmf_xp._typing import Array, Namespace
    from nmf_xp.data import Data


def kkt_residual(data: Data, W: Array, H: Array, *, beta: float, floor: float, fixed_h: bool, xp: Namespace) -> Array:
    """Largest violation over the factors that are not fixed, for each matrix of a stack: (...,).

    An entry is optimal when its slope is zero, or when it is at the bound and its slope is not negative:
    min(w, dD/dw) = 0. Here w is taken relative to the largest entry of its component and the slope relative to its
    own positive part, which makes the residual independent of the scales of V, W and H.
    """
    residual = _violation(data, W, H, beta=beta, floor=floor, xp=xp)
    if fixed_h:
        return residual
    Wt, Ht = xp.matrix_transpose(W), xp.matrix_transpose(H)
    return xp.maximum(residual, _violation(data.T, Ht, Wt, beta=beta, floor=floor, xp=xp))


def _violation(data: Data, W: Array, H: Array, *, beta: float, floor: float, xp: Namespace) -> Array:
    numerator, denominator = slopes(data, W, H, beta=beta, xp=xp)
    slope = 1.0 - numerator / xp.maximum(denominator, float(xp.finfo(W.dtype).smallest_normal))
    size = (W - floor) / xp.max(W, axis=-2, keepdims=True)
    return xp.max(xp.abs(xp.minimum(size, slope)), axis=(-2, -1))
