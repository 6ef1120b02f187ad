r"""One factor by coordinate descent: every entry of W in turn moved towards its own minimum, H fixed.

The rows of W are independent, so a component, a column of W, moves at once. The update of H is that of W on the
transposed problem.

**Frobenius** (hierarchical alternating least squares: Cichocki & Phan 2009; Gillis & Glineur 2012, algorithm 3).
The minimum is exact: w_k <- [w_k - g_k / (H H^T)_kk]_+.

**Kullback-Leibler.** With a = h/y for an entry and its component, the slope in w and the curvature are
g = sum(h) - sum(v a) and c = sum(v a^2). The slope is concave in w, so for g < 0 Newton's step w - g/c (Hsieh &
Dhillon 2011) ends before the minimum and decreases D. For g > 0 it may overshoot. There w a <= 1 bounds D by

    D(w - d) - D(w) <= -g d + c w^2 [-log(1 - d/w) - d/w],

for the bracket with a for 1/w, divided by a^2, grows with a. The minimum of the bound is at w / (1 + g/(c w)): Newton's
step where it is small, and always positive. So no step raises D, whatever the data; Hien & Gillis (2021, algorithm 4)
damp by a constant that depends on the least entry of V instead. An L2 penalty adds to g and c, an L1 penalty to g.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from nmf_xp import _kernels
from nmf_xp.data import Dense, Sparse
from nmf_xp.data.blocks import Part, sweep

if TYPE_CHECKING:
    from collections.abc import Callable

    from nmf_xp._typing import Array, Namespace
    from nmf_xp.data import Data
    from nmf_xp.problem import Constraints


def least_squares_sweeps(
    W: Array, slope: Array, gram: Array, constraints: Constraints, *, floor: float, sweeps: int, xp: Namespace
) -> Array:
    """W (..., m, r) after some sweeps, from the slope (W H - V) H^T at W and gram = H H^T (..., r, r)."""
    l2 = constraints.l2 or 0.0
    kernel = _kernels.find("least_squares_sweeps", W, slope, gram)
    if kernel is not None and W.ndim == 2 and not constraints.bounded:
        return kernel(W, slope, gram, l1=constraints.l1 or 0.0, l2=l2, floor=floor, sweeps=sweeps)
    tiny = float(xp.finfo(W.dtype).smallest_normal)
    for _ in range(sweeps):
        columns = []
        for k in range(W.shape[-1]):
            old = W[..., k : k + 1]
            curvature = xp.maximum(gram[..., k : k + 1, k : k + 1] + l2, tiny)
            new = xp.maximum(old - (slope[..., k : k + 1] + constraints.slope(old)) / curvature, floor)
            new = constraints.column(k).enforce(new, old, xp=xp)
            slope = slope + (new - old) * gram[..., k : k + 1, :]
            columns.append(new)
        W = xp.concat(columns, axis=-1)
    return W


def newton_sweeps(
    data: Data, W: Array, H: Array, constraints: Constraints, *, floor: float, sweeps: int, xp: Namespace
) -> Array:
    """W (..., m, r) after some sweeps for the Kullback-Leibler divergence."""
    kernel = None if constraints.bounded or W.ndim > 2 else _newton_kernel(data, W, H)
    if kernel is not None:
        return kernel(W, H, l1=constraints.l1 or 0.0, l2=constraints.l2 or 0.0, floor=floor, sweeps=sweeps)

    def block_sweeps(block: Data, W: Array, constraints: Constraints) -> Part:
        return Part(_newton_sweeps(block, W, H, constraints, floor=floor, sweeps=sweeps, xp=xp), ())

    return sweep(block_sweeps, data, W, constraints, xp=xp).rows


def _newton_kernel(data: Data, W: Array, H: Array) -> Callable[..., Array] | None:
    """The kernel for this kind of data, if there is one."""
    if isinstance(data, Dense):
        kernel = _kernels.find("newton_dense", data.values, W, H)
        return kernel and functools.partial(kernel, data.matrix)
    if isinstance(data, Sparse) and data.along.others is not None:
        kernel = _kernels.find("newton_sparse", data.values, W, H)
        return kernel and functools.partial(kernel, data.values, data.along)
    return None


def _newton_sweeps(
    data: Data, W: Array, H: Array, constraints: Constraints, *, floor: float, sweeps: int, xp: Namespace
) -> Array:
    tiny = float(xp.finfo(W.dtype).smallest_normal)
    l2 = constraints.l2 or 0.0
    sums = data.model_slope(W, H, None, beta=1.0, xp=xp)  # (..., 1, r) or (..., m, r)
    Y = data.predict(W, H, xp=xp)
    for _ in range(sweeps):
        columns = []
        for k in range(W.shape[-1]):
            old, h = W[..., k : k + 1], H[..., k : k + 1, :]
            quotient = data.values / Y
            g = sums[..., k : k + 1] + constraints.slope(old) - data.contract(quotient, h, xp=xp)
            c = data.contract(quotient / Y, h * h, xp=xp) + l2
            new = newton_step(old, g, c, tiny=tiny, xp=xp)
            new = constraints.column(k).enforce(xp.maximum(new, floor), old, xp=xp)
            Y = xp.maximum(Y + data.predict(new - old, h, xp=xp), floor * floor)  # rounding may reach below zero
            columns.append(new)
        W = xp.concat(columns, axis=-1)
    return W


def newton_step(w: Array, g: Array, c: Array, *, tiny: float, xp: Namespace) -> Array:
    """The step that cannot raise D: Newton's for a negative slope, its bound's minimum for a positive one."""
    rising = w * (c * w) / xp.maximum(xp.abs(g) + c * w, tiny)
    return xp.where(g < 0, w - g / xp.maximum(c, tiny), rising)
