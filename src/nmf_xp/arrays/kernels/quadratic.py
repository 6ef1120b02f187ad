"""What scikit-learn's solvers do to the rows of a factor for the Frobenius loss, given V H^T and H H^T.

A sweep of coordinate descent in any order of the components, with the violation of the optimality conditions that each
entry met, and a multiplicative update: twins of what is in `solvers/cyclic.py` and `updates.py`.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from nmf_xp.arrays import threads
from nmf_xp.arrays.kernels.compiling import entry
from nmf_xp.arrays.kernels.coordinate import AWAKE, LANES

if TYPE_CHECKING:
    from numpy.typing import NDArray

AT_ONCE = 2**29  # products of two numbers in a call, after which an interrupt is noticed


def cyclic_sweep(
    W: NDArray[Any], product: NDArray[Any], gram: NDArray[Any], order: NDArray[Any], l1: float, floor: float
) -> tuple[NDArray[Any], float]:
    """W (m, r) after a sweep for V H^T (m, r) and the curvature (r, r), and the violation that its entries met."""
    W, product, gram = np.array(W, order="C"), np.ascontiguousarray(product), np.ascontiguousarray(gram)
    number = W.dtype.type
    rest = gram, order, number(l1), number(floor), _tiny(W.dtype)
    step = max(LANES, AT_ONCE // gram.size)

    def work(start: int, stop: int) -> float:
        if stop - start <= step:
            return _cyclic_sweep(W[start:stop], product[start:stop], *rest)
        parts = [slice(i, min(i + step, stop)) for i in range(start, stop, step)]
        return math.fsum(_cyclic_sweep(W[rows], product[rows], *rest) for rows in parts)

    return W, math.fsum(threads.over_rows(W.shape[0], work, products=W.shape[0] * gram.size // AWAKE))


def frobenius_rows(W: NDArray[Any], product: NDArray[Any], gram: NDArray[Any], l1: float, floor: float) -> NDArray[Any]:
    """W (m, r) after a multiplicative update for V H^T (m, r) and the curvature (r, r)."""
    W, product, gram = np.array(W, order="C"), np.ascontiguousarray(product), np.ascontiguousarray(gram)
    number = W.dtype.type
    rest = gram, number(l1), number(floor), _tiny(W.dtype)
    step = max(LANES, AT_ONCE // gram.size)

    def work(start: int, stop: int) -> None:
        for i in range(start, stop, step):
            _frobenius_rows(W[i : min(i + step, stop)], product[i : min(i + step, stop)], *rest)

    threads.over_rows(W.shape[0], work, products=W.shape[0] * gram.size // AWAKE)
    return W


@functools.cache
def _tiny(dtype: np.dtype[Any]) -> Any:
    return np.finfo(dtype).smallest_normal


@entry("x2, x2, x2, i1, x, x, x", "f")
def _cyclic_sweep(W: Any, product: Any, gram: Any, order: Any, l1: Any, floor: Any, tiny: Any) -> float:
    """Some rows at a time, one to a lane of the vector registers. No branch depends on an entry: half of them miss."""
    m, r = W.shape
    w, p = np.empty((r, LANES), W.dtype), np.empty((r, LANES), W.dtype)
    g, met = np.empty(LANES, W.dtype), np.empty(LANES, W.dtype)
    violation = 0.0
    one = tiny / tiny
    zero = one - one
    for first in range(0, m, LANES):
        count = min(LANES, m - first)
        for i in range(count):
            for k in range(r):
                w[k, i], p[k, i] = W[first + i, k], product[first + i, k]
        met[:] = zero
        for s in range(r):
            t = order[s]
            for i in range(count):
                g[i] = l1 - p[t, i]
            for k in range(r):
                x = gram[t, k]
                for i in range(count):
                    g[i] += x * w[k, i]
            inverse = one / max(gram[t, t], tiny) if gram[t, t] > 0 else zero
            for i in range(count):
                old, slope = w[t, i], g[i]
                above = one if old > floor else zero
                met[i] += above * max(slope, zero) - min(slope, zero)
                w[t, i] = max(old - slope * inverse, floor)
        for i in range(count):
            violation += met[i]
            for k in range(r):
                W[first + i, k] = w[k, i]
    return violation


@entry("x2, x2, x2, x, x, x")
def _frobenius_rows(W: Any, product: Any, gram: Any, l1: Any, floor: Any, tiny: Any) -> None:
    m, r = W.shape
    w, d = np.empty((r, LANES), W.dtype), np.empty((r, LANES), W.dtype)
    for first in range(0, m, LANES):
        count = min(LANES, m - first)
        for i in range(count):
            for k in range(r):
                w[k, i] = W[first + i, k]
        for k in range(r):
            for i in range(count):
                d[k, i] = l1
            for j in range(r):
                x = gram[k, j]
                for i in range(count):
                    d[k, i] += x * w[j, i]
            for i in range(count):
                d[k, i] = w[k, i] / max(d[k, i], tiny)
        for i in range(count):
            for k in range(r):
                W[first + i, k] = max(d[k, i] * product[first + i, k], floor)
