"""The beta-divergence and its slopes where their powers are roots: for beta 0, 1/2 and 3/2, in one pass over V and WH.

With a = sqrt(v), b = sqrt(y) the divergence is 2 (a - b)^2 / b for beta 1/2 and 2/3 (a - b)^2 (2 a + b) for 3/2, where
a - b = (v - y) / (a + b): no term cancels, and no logarithm is taken.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from nmf_xp.arrays.kernels.compiling import entry, jit
from nmf_xp.arrays.kernels.divergence import EXPONENT, HALF, LEAST, LOG_2

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST = 1.0 / LEAST  # between the two the exponent is in its bits as it is
FAR = 2.0**-40  # a ratio whose difference from one is minus one, for a logarithm


def power_parts(V: NDArray[Any], Y: NDArray[Any], *, beta: float, most: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """V Y^(beta-2), at `most` this for beta < 1, and Y^(beta-1)."""
    if V.flags.f_contiguous and not V.flags.c_contiguous:
        quotient, power = power_parts(V.T, Y.T, beta=beta, most=most)
        return quotient.T, power.T
    V, Y = np.asarray(V, order="C"), np.asarray(Y, order="C")
    quotient, power = np.empty_like(Y), np.empty_like(Y)
    _power_parts(V.ravel(), Y.ravel(), quotient.ravel(), power.ravel(), int(2 * beta), Y.dtype.type(most))
    return quotient, power


@entry("x1, x1, x1, x1, n, x")
def _power_parts(V: Any, Y: Any, quotient: Any, power: Any, twice: int, most: Any) -> None:
    one = Y.dtype.type(1)
    if twice == 3:
        for i in range(V.shape[0]):
            p = math.sqrt(Y[i])
            power[i] = p
            quotient[i] = V[i] / p
    elif twice == 1:
        for i in range(V.shape[0]):
            p = one / math.sqrt(Y[i])
            power[i] = p
            quotient[i] = min(min(min(V[i] * p, most) * p, most) * p, most)  # p^3 may overflow, and 0 times it is NaN
    else:
        for i in range(V.shape[0]):
            p = one / Y[i]
            power[i] = p
            quotient[i] = min(min(V[i] * p, most) * p, most)


def power_divergence(V: NDArray[Any], Y: NDArray[Any], *, beta: float) -> float:
    """The sum of d(v|y)."""
    V, Y = np.ascontiguousarray(V).reshape(V.shape[0], -1), np.ascontiguousarray(Y).reshape(V.shape[0], -1)
    return float(_power_divergence(V, Y, int(2 * beta), np.finfo(V.dtype).smallest_normal))


@jit
def _ratios(v_row: Any, y_row: Any) -> float:
    """The sum of v/y - log(v/y) - 1, by the series for log(v/y) that is in `divergence`.

    With k = 0 and x = y the terms of first order in s = (v - y)/(v + y) do not appear.
    """
    total = 0.0
    odd = 0
    for j in range(v_row.shape[0]):
        v: Any = np.float64(v_row[j])
        y: Any = np.float64(y_row[j])
        odd += not (LEAST < v < MOST and LEAST < y < MOST)
        k = (np.float64(v).view(np.int64) - np.float64(y).view(np.int64) + HALF) >> EXPONENT
        x = np.int64(np.float64(y).view(np.int64) + (k << EXPONENT)).view(np.float64)
        s = (v - x) / (v + x)
        z = s * s
        series = 1 / 21
        for i in (19, 17, 15, 13, 11, 9, 7, 5, 3):
            series = series * z + 1 / i
        total += ((x - y) + s * ((v - y) + (x - y))) / y - k * LOG_2 - 2 * s * z * series
    return total if odd == 0 else _ratios_one_by_one(v_row, y_row)


@jit
def _ratios_one_by_one(v_row: Any, y_row: Any) -> float:
    """The same for all numbers."""
    total = 0.0
    for j in range(v_row.shape[0]):
        v, y = np.float64(v_row[j]), np.float64(y_row[j])
        if not (v > 0 and y > 0):
            return math.inf if v == v and y == y else math.nan
        low, high = min(v, y), max(v, y)
        close = low > FAR * high
        t = math.log1p((high - low) / low) if close else math.log(high) - math.log(low)
        total += (t if y >= v else -t) + (v - y) / y
    return total


@entry("x2, x2, n, x", "f")
def _power_divergence(V: Any, Y: Any, twice: int, tiny: Any) -> float:
    total = 0.0
    zero = tiny - tiny
    for i in range(V.shape[0]):
        part = 0.0
        if twice == 3:
            for j in range(V.shape[1]):
                v, y = V[i, j], Y[i, j]
                a, b = math.sqrt(v), math.sqrt(y)
                apart = (v - y) / max(a + b, tiny)
                part += apart * apart * (a + a + b)
        elif twice == 1:
            for j in range(V.shape[1]):
                v, y = V[i, j], Y[i, j]
                a, b = math.sqrt(v), math.sqrt(y)
                apart = (v - y) / max(a + b, tiny)
                # Infinite where only the model is zero; nothing where both are.
                part += apart * apart / (b if v > zero else max(b, tiny))
        else:
            part = _ratios(V[i], Y[i])
        total += part
    if twice == 3:
        return total * 2 / 3
    return total * 2 if twice == 1 else total
