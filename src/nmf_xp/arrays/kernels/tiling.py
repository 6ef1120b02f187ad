"""Products of dense matrices by tiles of four rows and four components, of which the other kernels are made.

What is read once then serves four products, and the registers hold the sums. Both are padded to full tiles.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from nmf_xp.arrays.kernels.compiling import jit

if TYPE_CHECKING:
    from numpy.typing import NDArray

TURNED = (
    272  # rows of a narrow matrix that are turned together; with a power of two their places in the cache would collide
)


@functools.cache
def smallest(dtype: np.dtype[Any]) -> Any:
    """The least normal number."""
    return np.finfo(dtype).smallest_normal


def as_members(V: NDArray[Any]) -> NDArray[Any]:
    """One matrix or a stack as a stack, of the one kind for which the kernels are compiled: contiguous and writable."""
    flags = V.flags
    if not (flags.c_contiguous and flags.writeable):
        V = np.require(V, requirements=["C", "W"])
    return V if V.ndim == 3 else V.reshape(-1, *V.shape[-2:])


@jit
def tiles(V: Any, r: Any) -> Any:
    """Padded arrays for H and for four rows of W, of V and of their quotient; the padding of WH is positive."""
    length = 64 // V.itemsize  # as many columns as the widest registers hold
    width = -(-V.shape[-1] // length) * length
    h, w = np.zeros((-(-r // 4) * 4, width), V.dtype), np.zeros((4, -(-r // 4) * 4), V.dtype)
    h[:r] = 1
    w[:, :r] = 1
    return h, w, np.zeros((4, width), V.dtype), np.empty((4, width), V.dtype)


@jit
def copy(source: Any, target: Any) -> None:
    """Into the first rows and columns. An assignment of slices would bring an error message of numba's along."""
    for i in range(source.shape[0]):
        for j in range(source.shape[1]):
            target[i, j] = source[i, j]


@jit
def copy_transposed(source: Any, target: Any) -> None:
    """The transpose, into the first rows and columns."""
    for i in range(source.shape[0]):
        for j in range(source.shape[1]):
            target[j, i] = source[i, j]


@jit
def turned_rows(m: int) -> Any:
    """How many of m rows are turned together, and how long a line of them is: whole registers, and no power of two."""
    step = -(-m // -(-m // TURNED))
    return step, (-(-step // 16) | 1) * 16


@jit
def predict(w: Any, h: Any, y: Any) -> None:
    """Y = w h."""
    for k in range(0, h.shape[0], 4):
        a0, a1, a2, a3 = w[0, k], w[0, k + 1], w[0, k + 2], w[0, k + 3]
        b0, b1, b2, b3 = w[1, k], w[1, k + 1], w[1, k + 2], w[1, k + 3]
        c0, c1, c2, c3 = w[2, k], w[2, k + 1], w[2, k + 2], w[2, k + 3]
        d0, d1, d2, d3 = w[3, k], w[3, k + 1], w[3, k + 2], w[3, k + 3]
        if k == 0:
            for j in range(h.shape[1]):
                x0, x1, x2, x3 = h[k, j], h[k + 1, j], h[k + 2, j], h[k + 3, j]
                y[0, j] = a0 * x0 + a1 * x1 + a2 * x2 + a3 * x3
                y[1, j] = b0 * x0 + b1 * x1 + b2 * x2 + b3 * x3
                y[2, j] = c0 * x0 + c1 * x1 + c2 * x2 + c3 * x3
                y[3, j] = d0 * x0 + d1 * x1 + d2 * x2 + d3 * x3
        else:
            for j in range(h.shape[1]):
                x0, x1, x2, x3 = h[k, j], h[k + 1, j], h[k + 2, j], h[k + 3, j]
                y[0, j] += a0 * x0 + a1 * x1 + a2 * x2 + a3 * x3
                y[1, j] += b0 * x0 + b1 * x1 + b2 * x2 + b3 * x3
                y[2, j] += c0 * x0 + c1 * x1 + c2 * x2 + c3 * x3
                y[3, j] += d0 * x0 + d1 * x1 + d2 * x2 + d3 * x3


@jit
def contract(q: Any, h: Any, result: Any) -> None:
    """Add Q h^T."""
    zero = h[0, 0] - h[0, 0]
    for k in range(0, h.shape[0], 4):
        a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = zero
        c0 = c1 = c2 = c3 = d0 = d1 = d2 = d3 = zero
        for j in range(h.shape[1]):
            x0, x1, x2, x3 = h[k, j], h[k + 1, j], h[k + 2, j], h[k + 3, j]
            a, b, c, d = q[0, j], q[1, j], q[2, j], q[3, j]
            a0, a1, a2, a3 = a0 + a * x0, a1 + a * x1, a2 + a * x2, a3 + a * x3
            b0, b1, b2, b3 = b0 + b * x0, b1 + b * x1, b2 + b * x2, b3 + b * x3
            c0, c1, c2, c3 = c0 + c * x0, c1 + c * x1, c2 + c * x2, c3 + c * x3
            d0, d1, d2, d3 = d0 + d * x0, d1 + d * x1, d2 + d * x2, d3 + d * x3
        for i, (y0, y1, y2, y3) in enumerate(((a0, a1, a2, a3), (b0, b1, b2, b3), (c0, c1, c2, c3), (d0, d1, d2, d3))):
            result[i, k] += y0
            result[i, k + 1] += y1
            result[i, k + 2] += y2
            result[i, k + 3] += y3


@jit
def accumulate(w: Any, q: Any, result: Any) -> None:
    """Add w^T Q."""
    for k in range(0, result.shape[0], 4):
        a0, a1, a2, a3 = w[0, k], w[0, k + 1], w[0, k + 2], w[0, k + 3]
        b0, b1, b2, b3 = w[1, k], w[1, k + 1], w[1, k + 2], w[1, k + 3]
        c0, c1, c2, c3 = w[2, k], w[2, k + 1], w[2, k + 2], w[2, k + 3]
        d0, d1, d2, d3 = w[3, k], w[3, k + 1], w[3, k + 2], w[3, k + 3]
        for j in range(result.shape[1]):
            a, b, c, d = q[0, j], q[1, j], q[2, j], q[3, j]
            result[k, j] += a0 * a + b0 * b + c0 * c + d0 * d
            result[k + 1, j] += a1 * a + b1 * b + c1 * c + d1 * d
            result[k + 2, j] += a2 * a + b2 * b + c2 * c + d2 * d
            result[k + 3, j] += a3 * a + b3 * b + c3 * c + d3 * d
