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
from typing import TYPE_CHECKING, Any

from nmf_xp.arrays import kernels, libraries, operators
from nmf_xp.data import Dense, Sparse
from nmf_xp.data.blocks import Part, sweep
from nmf_xp.data.sloped import Sloped
from nmf_xp.data.tabled import Tabled

if TYPE_CHECKING:
    from collections.abc import Callable

    from nmf_xp.arrays.typing import Array, Namespace
    from nmf_xp.data import Data
    from nmf_xp.data.constraints import Constraints


def least_squares_gram(H: Array, constraints: Constraints, *, xp: Namespace) -> Array:
    """The curvature of the Frobenius loss and the penalty in a row of W: (..., r, r)."""
    return constraints.add_curvature(H @ operators.transposed(H), xp=xp)


def least_squares_sweeps(
    W: Array,
    slope: Array,
    gram: Array,
    constraints: Constraints,
    *,
    scale: Array | None = None,
    ridge: Array | None = None,
    kernel: Callable[..., Array] | None = None,
    top: Array | None = None,
    floor: float,
    sweeps: int,
    xp: Namespace,
) -> Array:
    """W (..., m, r) after some sweeps over the quadratic slope . d + d S gram S d / 2 of each row's change d.

    `slope` is (..., m, r), `gram` (..., r, r), and S the diagonal matrix of the row's `scale` (..., m, r), or 1. A
    `ridge` (r, r), a diagonal matrix, is a curvature that S does not scale. The `kernel` is that of the same name, and
    knows no ridge. No entry grows beyond `top` (..., 1, r), where that is given.
    """
    if kernel is not None:
        return kernel(W, slope, gram, scale, top=top, floor=floor, sweeps=sweeps)
    s: Any = 1.0 if scale is None else scale
    tiny = float(xp.finfo(W.dtype).smallest_normal)
    diagonal = gram * xp.eye(gram.shape[-1], dtype=gram.dtype, device=libraries.device(gram))
    curvature = xp.sum(diagonal, axis=-2, keepdims=True)
    if ridge is not None:
        curvature = curvature + xp.sum(ridge, axis=-2, keepdims=True) / s / s
    inverse = 1.0 / operators.at_least(curvature, tiny, xp=xp)
    alone = slope / -s * inverse  # the change of S W were no other column to change
    others = gram - diagonal if ridge is not None else (gram - diagonal) * inverse
    bottom = constraints.floor(floor, xp=xp)
    least, most = (bottom - W) * s, None if constraints.upper is None else (constraints.upper - W) * s
    if top is not None:
        room = operators.at_least(top - W, 0.0, xp=xp) * s
        most = room if most is None else xp.minimum(most, room)

    def move(k: Any, change: Array) -> Array:
        first, rest = operators.column(alone, k), operators.column(others, k)
        if ridge is None:
            return operators.less_product(first, change, rest)
        return first - change @ rest * operators.column(inverse, k)

    if constraints.fixed is not None:
        least = xp.where(constraints.fixed, 0.0, least)
        most = xp.where(constraints.fixed, 0.0, xp.full_like(W, float("inf")) if most is None else most)
    change = operators.sweep_columns(move, least, most, sweeps=sweeps, xp=xp)
    new = xp.where(change > least, W + change / s, bottom)
    return constraints.enforce(operators.at_least(new, floor, xp=xp), W, xp=xp)


def sweeps_kernel(name: str, data: Data, W: Array, constraints: Constraints) -> Callable[..., Any] | None:
    """The kernel `name`, which sweeps over rows, if there is one and the data are large enough for it."""
    return None if constraints.bounded or W.ndim > 2 else kernels.find(name, data.values, W)


def row_kernel(
    name: str, data: Data, W: Array, constraints: Constraints, *, xp: Namespace
) -> Callable[..., Any] | None:
    """The kernel `name` for this kind of data, which visits row by row, if there is one.

    Where the second slope is another one it takes it as `sums`.
    """
    if has_own_slope(data):
        base: Any = data
        return row_kernel(name, base.base, W, constraints, xp=xp)
    if isinstance(data, Dense):
        kernel = sweeps_kernel(f"{name}_dense", data, W, constraints)
        return kernel and functools.partial(kernel, data.matrix)
    if isinstance(data, Sparse) and data.along.others is not None:
        kernel = sweeps_kernel(f"{name}_sparse", data, W, constraints)
        return kernel and functools.partial(kernel, data.row_values(xp=xp), data.along.starts, data.along.others)
    return None


def growth(data: Data, W: Array, H: Array, *, xp: Namespace) -> dict[str, Array]:
    """What a row kernel is told of the model besides the factors."""
    return {"sums": data.model_slope(W, H, None, beta=1.0, xp=xp)} if has_own_slope(data) else {}


def has_own_slope(data: Data) -> bool:
    """Whether the data are Kullback-Leibler's but for the second slope, so that WH is not the model of V."""
    return isinstance(data, (Tabled, Sloped))


def newton_sweeps(
    data: Data,
    W: Array,
    H: Array,
    constraints: Constraints,
    *,
    top: Array | None = None,
    floor: float,
    sweeps: int,
    xp: Namespace,
) -> Array:
    """W (..., m, r) after some sweeps for the Kullback-Leibler divergence."""
    kernel = row_kernel("coordinate", data, W, constraints, xp=xp)
    if kernel is not None:
        l1, l2 = constraints.penalties
        return kernel(W, H, l1=l1, l2=l2, floor=floor, sweeps=sweeps, **growth(data, W, H, xp=xp))

    def block_sweeps(block: Data, W: Array, constraints: Constraints) -> Part:
        return Part(_newton_sweeps(block, W, H, constraints, top, floor=floor, sweeps=sweeps, xp=xp), ())

    return sweep(block_sweeps, data, W, constraints, xp=xp).rows


def _newton_sweeps(
    data: Data,
    W: Array,
    H: Array,
    constraints: Constraints,
    top: Array | None,
    *,
    floor: float,
    sweeps: int,
    xp: Namespace,
) -> Array:
    info = xp.finfo(W.dtype)
    tiny, huge = float(info.smallest_normal) ** 0.5, float(info.max)
    _, l2 = constraints.penalties
    sums = data.model_slope(W, H, None, beta=1.0, xp=xp)  # (..., 1, r) or (..., m, r)
    Ht = operators.transposed(H)

    def move(k: Any, old: Array, Y: Array) -> tuple[Array, Array]:
        h = operators.transposed(operators.column(Ht, k))
        inverse = 1.0 / Y  # XLA would make of V / Y / Y one division, by a square that underflows
        quotient = data.values * inverse
        g = constraints.add_slope(operators.column(sums, k), old, xp=xp) - data.contract(quotient, h, xp=xp)
        c = data.contract(operators.at_most(quotient * inverse, huge, xp=xp), h * h, xp=xp) + l2
        new = newton_step(old, g, c, tiny=tiny, xp=xp)
        if top is not None:
            new = xp.minimum(new, xp.maximum(old, operators.column(top, k)))
        new = constraints.column(k).enforce(operators.at_least(new, floor, xp=xp), old, xp=xp)
        moved = Y + data.predict(new - old, h, xp=xp)
        return new, operators.at_least(moved, floor * floor, xp=xp)  # rounding may reach below zero

    def sweep_once(state: tuple[Array, Array]) -> tuple[Array, Array]:
        return operators.replace_columns(move, *state, xp=xp)

    return operators.repeated(sweep_once, (W, data.predict(W, H, xp=xp)), sweeps)[0]


def newton_step(w: Array, g: Array, c: Array, *, tiny: float, xp: Namespace) -> Array:
    """The step that cannot raise D: Newton's for a negative slope, its bound's minimum for a positive one."""
    rising = w * (c * w) / operators.at_least(xp.abs(g) + c * w, tiny, xp=xp)
    return xp.where(g < 0, w - g / operators.at_least(c, tiny, xp=xp), rising)
