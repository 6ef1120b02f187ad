"""The Kullback-Leibler divergence of small matrices, of which many are factorized at once."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from nmf_xp.arrays.kernels.compiling import entry
from nmf_xp.arrays.kernels.tiling import as_members, copy, predict, tiles

if TYPE_CHECKING:
    from numpy.typing import NDArray

LOG_2 = math.log(2.0)
LEAST = 2.0**-960  # a v below it adds nothing to the divergence, but slow numbers below the normal range
EXPONENT, HALF = 52, 2**51  # where the exponent begins in the bits of a float64, and half a unit of it


def kl_divergence(V: NDArray[Any], W: NDArray[Any], H: NDArray[Any]) -> NDArray[np.float64]:
    """D(V | WH) of each matrix of a stack, in float64; V, W and H have the same leading axes, or broadcast to them."""
    one = V.ndim == W.ndim == H.ndim == 2
    stack = () if one else np.broadcast_shapes(V.shape[:-2], W.shape[:-2], H.shape[:-2])
    V, W, H = (np.asarray(x, dtype=np.float64) for x in (V, W, H))
    V, W, H = (as_members(x if x.ndim == 2 else np.broadcast_to(x, stack + x.shape[-2:])) for x in (V, W, H))
    result = np.empty(stack)
    _divergences(V, W, H, result.reshape(-1))
    return result[()]  # a number for one matrix


def kl_entries(V: NDArray[Any], Y: NDArray[Any]) -> float:
    """The sum of y - v + v log(v/y) over the entries, in float64."""
    V, Y = (np.require(x, requirements=["C", "W"]) for x in (V, Y))
    return row_divergence(V.reshape(-1), Y.reshape(-1))


@entry("f3, f3, f3, f1")
def _divergences(V: Any, W: Any, H: Any, result: Any) -> None:
    """By tiles of four rows, as in `multiplicative`."""
    m, r = V.shape[1], W.shape[2]
    h, w, _, y = tiles(V, r)
    for c in range(result.shape[0]):
        matrix, left = V[c % V.shape[0]], W[c % W.shape[0]]
        copy(H[c % H.shape[0]], h)
        total = 0.0
        for i in range(0, m, 4):
            height = min(4, m - i)
            copy(left[i : i + height], w)
            predict(w, h, y)
            for a in range(height):
                total += row_divergence(matrix[i + a], y[a])
        result[c] = total


@entry("x1, x1", "f")
def row_divergence(v_row: Any, y_row: Any) -> float:
    """The sum of y - v + v log(v/y).

    With k such that x = 2^k y is within a factor 1.5 of v, and s = (v - x)/(v + x), log(v/x) is the series
    2 (s + s^3/3 + s^5/5 + ...). As 2 s v = (v - x) + s (v - x), the terms that would cancel near v = y do not appear.
    """
    total = 0.0
    for j in range(v_row.shape[0]):
        y: Any = np.float64(y_row[j])
        v = max(np.float64(v_row[j]), LEAST)
        k = (np.float64(v).view(np.int64) - np.float64(y).view(np.int64) + HALF) >> EXPONENT
        x = np.int64(np.float64(y).view(np.int64) + (k << EXPONENT)).view(np.float64)
        s = (v - x) / (v + x)
        z = s * s
        series = 1 / 21
        for i in (19, 17, 15, 13, 11, 9, 7, 5, 3):
            series = series * z + 1 / i
        d = (y - x) + v * (k * LOG_2) + s * ((v - x) + v * (2 * z * series))
        if v_row[j] < LEAST:
            d = y
        if y == 0 and v_row[j] > 0:
            d = math.inf
        total += d
    return total
