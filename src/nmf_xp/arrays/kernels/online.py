"""What a block of rows does in online updates: twins of what is in `solvers/online.py`, each in one pass.

For the Frobenius loss the new W of the block, given H V^T and H H^T: a lane of the vector registers is a row of V. For
losses with the exponent 1 the two sums of the components and their quotient, with how far it moved, and what the
Frobenius loss of the block is made of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nmf_xp.arrays import threads
from nmf_xp.arrays.kernels.compiling import entry
from nmf_xp.arrays.kernels.coordinate import AWAKE
from nmf_xp.arrays.kernels.quadratic import AT_ONCE
from nmf_xp.arrays.kernels.tiling import copy, smallest

if TYPE_CHECKING:
    from numpy.typing import NDArray

LANES = 64  # rows of V at a time, whose terms stay in the nearest cache


def online_loadings(
    Wt: NDArray[Any], product: NDArray[Any], gram: NDArray[Any], *, l1: float, floor: float
) -> NDArray[Any]:
    """W^T (r, m) after a multiplicative update for H V^T (r, m) and the curvature (r, r)."""
    Wt, product, gram = (np.ascontiguousarray(x) for x in (Wt, product, gram))
    number, new = Wt.dtype.type, np.empty_like(Wt)
    rest = number(l1), number(floor), smallest(Wt.dtype)
    step = max(LANES, AT_ONCE // gram.size)

    def work(start: int, stop: int) -> None:
        for i in range(start, stop, step):
            _online_loadings(Wt, product, gram, new, *rest, i, min(i + step, stop))

    threads.over_rows(Wt.shape[1], work, products=Wt.size * gram.shape[0] // AWAKE)
    return new


def online_components(
    H: NDArray[Any],
    numerator: NDArray[Any],
    denominator: NDArray[Any],
    pull: NDArray[Any],
    push: NDArray[Any],
    *,
    penalties: tuple[float, float],
    memory: float,
    rows: int,
    floor: float,
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], tuple[float, float, float, float]]:
    """H (r, n) and the sums of which it is the quotient, after a block of so many rows with these two slopes.

    `push` is (r, n), or (r, 1) where it is the same for all columns; the penalties are L1 and L2, of the slope at H.
    The numbers are sum(pull * H) and sum(push * H), and the sums of squares of H's change and of the new H.
    """
    known: Any = tuple(np.ascontiguousarray(x) for x in (H, numerator, denominator, pull, push))
    new, sums = tuple(np.empty_like(known[0]) for _ in range(3)), np.empty(4)
    number = H.dtype.type
    settings: Any = *map(number, (*penalties, memory)), 1.0 / (rows * push.shape[1]), number(floor), smallest(H.dtype)
    arrays: Any = *known, *new, sums
    _online_components(*arrays, *settings)
    return *new, tuple(sums.tolist())


@entry("x2, x2, x2, x2, x, x, x, n, n")
def _online_loadings(
    Wt: Any, product: Any, gram: Any, new: Any, l1: Any, floor: Any, tiny: Any, start: int, stop: int
) -> None:
    r = Wt.shape[0]
    w, d = np.empty((r, LANES), Wt.dtype), np.empty(LANES, Wt.dtype)
    for first in range(start, stop, LANES):
        count = min(LANES, stop - first)
        for k in range(r):
            copy(Wt[k : k + 1, first : first + count], w[k : k + 1])
        for k in range(r):
            wanted, target = product[k, first : first + count], new[k, first : first + count]
            for i in range(count):
                d[i] = l1
            for j in range(0, r - 1, 2):
                x, y = gram[k, j], gram[k, j + 1]
                for i in range(count):
                    d[i] += x * w[j, i] + y * w[j + 1, i]
            if r % 2:
                x = gram[k, r - 1]
                for i in range(count):
                    d[i] += x * w[r - 1, i]
            for i in range(count):
                y = w[k, i] / max(d[i], tiny) * wanted[i]
                target[i] = floor if y < floor else y  # NaN stays


@entry("x2, x2, x2, x2, x2, x2, x2, x2, f1, x, x, x, f, x, x")
def _online_components(
    H: Any,
    numerator: Any,
    denominator: Any,
    pull: Any,
    push: Any,
    new: Any,
    above: Any,
    below: Any,
    sums: Any,
    l1: Any,
    l2: Any,
    memory: Any,
    share: float,
    floor: Any,
    tiny: Any,
) -> None:
    r, n = H.shape
    down = np.empty(n, H.dtype)
    first = second = moved = size = 0.0
    for k in range(r):
        total = 0.0
        for j in range(push.shape[1]):
            total += push[k, j]
        row = H.dtype.type(total * share)
        for j in range(n):
            down[j] = push[k, j] if push.shape[1] == n else push[k, 0]
        for j in range(n):
            h, d = H[k, j], down[j]
            p = pull[k, j] * h
            first += p
            second += d * h
            seen = denominator[k, j] > 0
            a = memory * (numerator[k, j] if seen else row * h) + p
            b = memory * (denominator[k, j] if seen else row) + d + l1 + l2 * h
            x = a / max(b, tiny)
            x = floor if x < floor else x  # NaN stays
            x = x if b > 0 else h
            above[k, j], below[k, j], new[k, j] = a, b, x
            moved += (x - h) * (x - h)
            size += x * x
    sums[0], sums[1], sums[2], sums[3] = first, second, moved, size
