"""Coordinate descent over the rows of a factor, each row in the cache: twins of what is in `solvers/coordinate.py`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from nmf_xp.arrays import threads
from nmf_xp.arrays.kernels.compiling import entry, inlined, jit
from nmf_xp.arrays.kernels.sampled import of_one_dtype

if TYPE_CHECKING:
    from numpy.typing import NDArray

LANES = 64  # rows that are swept over together
AWAKE = 8  # times as much work is sooner done than given to threads, while those of BLAS are still awake
TILE = 16  # columns of V that are read together, so that whole cache lines are used


def least_squares_sweeps(
    W: NDArray[Any],
    slope: NDArray[Any],
    gram: NDArray[Any],
    scale: NDArray[Any] | None,
    *,
    top: NDArray[Any] | None = None,
    floor: float,
    sweeps: int,
) -> NDArray[Any]:
    """W (m, r) after some sweeps over the quadratic of each row; no entry grows beyond that of its column in `top`."""
    scale = np.ones_like(W) if scale is None else scale
    W, slope, gram, scale = np.array(W, order="C"), *map(np.ascontiguousarray, (slope, gram, scale))
    rest = gram, tops(top, W), W.dtype.type(floor), np.finfo(W.dtype).smallest_normal, sweeps

    def work(start: int, stop: int) -> None:
        _least_squares_sweeps(W[start:stop], slope[start:stop], scale[start:stop], *rest)

    threads.over_rows(W.shape[0], work, products=sweeps * W.size * W.shape[1])
    return W


def tops(top: NDArray[Any] | None, W: NDArray[Any]) -> NDArray[Any]:
    """The largest entry (r,) to which one of a column of W may grow: infinity where nothing bounds it."""
    return np.full(W.shape[-1], np.inf, W.dtype) if top is None else np.ascontiguousarray(top.reshape(-1))


@entry("x2, x2, x2, x2, x1, x, x, n")
def _least_squares_sweeps(
    W: Any, slope: Any, scale: Any, gram: Any, top: Any, floor: Any, tiny: Any, sweeps: int
) -> None:
    """Some rows at a time, one to a lane of the vector registers."""
    m, r = W.shape
    work = np.empty((4, r, LANES), W.dtype)
    w, g, s, inverse = work[0], work[1], work[2], work[3]
    one = tiny / tiny
    for first in range(0, m, LANES):
        count = min(LANES, m - first)
        for i in range(count):
            for k in range(r):
                x = scale[first + i, k]
                w[k, i], s[k, i], g[k, i] = W[first + i, k], x, slope[first + i, k] / x
                inverse[k, i] = one / (max(gram[k, k], tiny) * x)
        descend(w, g, gram, s, inverse, count, top, floor, sweeps)
        for i in range(count):
            for k in range(r):
                W[first + i, k] = w[k, i]


def least_squares_rows(
    W: NDArray[Any],
    product: NDArray[Any],
    gram: NDArray[Any],
    momentum: tuple[NDArray[Any], NDArray[Any]] | None,
    *,
    l1: float,
    floor: float,
    sweeps: int,
) -> tuple[NDArray[Any], NDArray[Any] | None, tuple[NDArray[Any], NDArray[Any]] | None]:
    """W (m, r) after some sweeps for V H^T (m, r) and H H^T; with a momentum it extrapolated, and the changes to both.

    A momentum is what the last change led to, and the share of the change from there that is added.
    """
    W, product, gram = np.array(W, order="C"), *map(np.ascontiguousarray, (product, gram))
    number = W.dtype.type
    ahead, share = np.empty((0, W.shape[1]), W.dtype), number(0)
    if momentum is not None:
        ahead, share = np.array(momentum[0], order="C"), number(momentum[1].item())
    rest = gram, share, number(l1), number(floor), np.finfo(W.dtype).smallest_normal, sweeps

    def work(start: int, stop: int) -> tuple[float, float]:
        return sweep_rows(W[start:stop], ahead[start:stop], product[start:stop], *rest)

    parts = threads.over_rows(W.shape[0], work, products=W.shape[0] * gram.size * sweeps // AWAKE)
    if momentum is None:
        return W, None, None
    to_new, to_ahead = (np.asarray(math.fsum(terms)) for terms in zip(*parts, strict=True))
    return W, ahead, (to_new, to_ahead)


@entry("x2, x2, x2, x2, x, x, x, x, n", "f, f")
def sweep_rows(
    W: Any, ahead: Any, product: Any, gram: Any, share: Any, l1: Any, floor: Any, tiny: Any, sweeps: int
) -> tuple[float, float]:
    """`ahead` holds the old factor, and then the extrapolated one; without rows there is none."""
    m, r = W.shape
    work = np.empty((7, r, LANES), W.dtype)
    w, g, s, inverse, begun, step, bent = work[0], work[1], work[2], work[3], work[4], work[5], work[6]
    to_new, beyond = np.zeros(LANES), np.zeros(LANES)
    one = tiny / tiny
    half = one / 2
    s[:] = one
    top = np.full(r, np.inf, W.dtype)
    for k in range(r):
        inverse[k] = one / max(gram[k, k], tiny)
    for first in range(0, m, LANES):
        count = min(LANES, m - first)
        for i in range(count):
            for k in range(r):
                w[k, i], g[k, i] = W[first + i, k], l1 - product[first + i, k]
        add_product(g, w, gram, count)
        for k in range(r):
            for i in range(count):
                step[k, i], begun[k, i] = w[k, i], g[k, i]
        descend(w, g, gram, s, inverse, count, top, floor, sweeps)
        for i in range(count):
            for k in range(r):
                W[first + i, k] = w[k, i]
        if ahead.shape[0] == 0:
            continue
        # The change of a quadratic is a step times the mean of the slopes at its ends.
        for k in range(r):
            for i in range(count):
                to_new[i] += np.float64(w[k, i] - step[k, i]) * np.float64(half * (begun[k, i] + g[k, i]))
        for i in range(count):
            for k in range(r):
                new = w[k, i]
                to = max(new + share * (new - ahead[first + i, k]), half * new, floor)
                ahead[first + i, k], step[k, i], bent[k, i] = to, to - new, 0
        add_product(bent, step, gram, count)
        for k in range(r):
            for i in range(count):
                beyond[i] += np.float64(step[k, i]) * np.float64(g[k, i] + half * bent[k, i])
    return to_new.sum(), to_new.sum() + beyond.sum()


@inlined
def add_product(g: Any, w: Any, gram: Any, count: int) -> None:
    """The product of `count` rows, the columns of w (r, .), with gram (r, r), added to g (r, .)."""
    r = w.shape[0]
    for k in range(r):
        for other in range(r):
            x = gram[k, other]
            for i in range(count):
                g[other, i] += w[k, i] * x


@jit
def descend(w: Any, g: Any, gram: Any, scale: Any, inverse: Any, count: int, top: Any, floor: Any, sweeps: int) -> None:
    """Sweeps over `count` rows at once, the columns of w (r, .), with slopes g S and curvatures S gram S.

    `inverse` is 1 / (S times the diagonal of gram).
    """
    r = w.shape[0]
    d = np.empty(count, w.dtype)
    for _ in range(sweeps):
        for k in range(r):
            for i in range(count):
                new = min(max(w[k, i] - g[k, i] * inverse[k, i], floor), max(w[k, i], top[k]))
                d[i] = (new - w[k, i]) * scale[k, i]
                w[k, i] = new
            for other in range(r):
                x = gram[k, other]
                for i in range(count):
                    g[other, i] += d[i] * x


def coordinate_dense(
    V: NDArray[Any],
    W: NDArray[Any],
    H: NDArray[Any],
    *,
    l1: float,
    l2: float,
    floor: float,
    sweeps: int,
    sums: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """W (m, r) after some sweeps of Newton coordinate descent for a dense V (m, n).

    `sums` (m, r) is how fast the model of each row grows with its entries, where that is not by the sums of H.
    """
    W, H = np.array(W, order="C"), np.ascontiguousarray(H)
    number = W.dtype.type
    growth = np.broadcast_to(H.sum(axis=1) if sums is None else sums, W.shape)
    rest = number(l1), number(l2), number(floor), sweeps

    def work(start: int, stop: int) -> None:
        sweep_entries(V[start:stop], W[start:stop], H, growth[start:stop], *rest)

    threads.over_rows(W.shape[0], work, products=2 * sweeps * V.size * W.shape[1])
    return W


def coordinate_sparse(
    values: NDArray[Any],
    starts: NDArray[Any],
    columns: NDArray[Any],
    W: NDArray[Any],
    H: NDArray[Any],
    *,
    l1: float,
    l2: float,
    floor: float,
    sweeps: int,
    sums: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """The same for the stored entries of a sparse V, which stand row by row."""
    starts, columns = of_one_dtype(starts, columns)
    W, Ht = np.array(W, order="C"), np.ascontiguousarray(H.T)
    number = W.dtype.type
    growth = np.broadcast_to(Ht.sum(axis=0) if sums is None else sums, W.shape)
    rest = number(l1), number(l2), number(floor), sweeps

    def work(start: int, stop: int) -> None:
        rows = starts[start : stop + 1]
        _coordinate_sparse(values, rows, columns, W[start:stop], Ht, growth[start:stop], *rest)

    threads.over_rows(W.shape[0], work, starts, products=2 * sweeps * values.size * W.shape[1])
    return W


@inlined
def _newton_row(v: Any, y: Any, z: Any, H: Any, w: Any, sums: Any, l1: Any, l2: Any, floor: Any, sweeps: int) -> None:
    """Sweeps over one row w (r,) with y = w H and z = 1/y (n,) and H (r, n).

    The reciprocal is kept, for most entries of a factor stay at the floor, and then nothing is divided.
    """
    r, n = H.shape
    least = floor * floor
    one = floor / floor
    for j in range(n):
        z[j] = one / y[j]
    for _ in range(sweeps):
        for k in range(r):
            h = H[k]
            numerator = curvature = floor * 0
            for j in range(n):
                a = h[j] * z[j]
                t = v[j] * a
                numerator += t
                curvature += t * a
            old = w[k]
            g = sums[k] + l1 + l2 * old - numerator
            c = curvature + l2
            if g < 0:
                new = max(old - g / max(c, least), floor)
            elif g > 0:
                new = max(old * (c * old) / (g + c * old), floor)
            else:
                new = old
            d = new - old
            if d != 0:
                w[k] = new
                for j in range(n):
                    x = max(y[j] + d * h[j], least)
                    y[j] = x
                    z[j] = one / x


@entry("x2s, x2, x2, x2s, x, x, x, n")
def sweep_entries(V: Any, W: Any, H: Any, sums: Any, l1: Any, l2: Any, floor: Any, sweeps: int) -> None:
    """Some rows at a time, which may be columns in memory."""
    """Some rows at a time, which may be columns in memory."""
    (m, n), r = V.shape, W.shape[1]
    tile = np.empty((TILE, n), V.dtype)
    y, z = np.empty(n, V.dtype), np.empty(n, V.dtype)
    for first in range(0, m, TILE):
        height = min(TILE, m - first)
        for j in range(n):
            for i in range(height):
                tile[i, j] = V[first + i, j]
        for i in range(height):
            w = W[first + i]
            y[:] = 0
            for k in range(r):
                for j in range(n):
                    y[j] += w[k] * H[k, j]
            _newton_row(tile[i], y, z, H, w, sums[first + i], l1, l2, floor, sweeps)


@entry("x1, i1, i1, x2, x2, x2s, x, x, x, n")
def _coordinate_sparse(
    values: Any,
    starts: Any,
    columns: Any,
    W: Any,
    Ht: Any,
    sums: Any,
    l1: Any,
    l2: Any,
    floor: Any,
    sweeps: int,
) -> None:
    """Each row gathers its entries and the columns of H that they meet."""
    m, r = W.shape
    longest = 0
    for i in range(m):
        longest = max(longest, starts[i + 1] - starts[i])
    gathered = np.empty(r * longest, values.dtype)
    y, z = np.empty(longest, values.dtype), np.empty(longest, values.dtype)
    for i in range(m):
        first, n = starts[i], starts[i + 1] - starts[i]
        w = W[i]
        H = gathered[: r * n].reshape(r, n)
        whole = n // 4 * 4
        for p in range(0, whole, 4):
            q = first + p
            h0, h1, h2, h3 = Ht[columns[q]], Ht[columns[q + 1]], Ht[columns[q + 2]], Ht[columns[q + 3]]
            y0 = y1 = y2 = y3 = floor * 0
            for k in range(r):
                x, to = w[k], H[k]
                x0, x1, x2, x3 = h0[k], h1[k], h2[k], h3[k]
                to[p], to[p + 1], to[p + 2], to[p + 3] = x0, x1, x2, x3
                y0, y1, y2, y3 = y0 + x * x0, y1 + x * x1, y2 + x * x2, y3 + x * x3
            y[p], y[p + 1], y[p + 2], y[p + 3] = y0, y1, y2, y3
        for p in range(whole, n):
            h = Ht[columns[first + p]]
            total = floor * 0
            for k in range(r):
                H[k, p] = h[k]
                total += w[k] * h[k]
            y[p] = total
        _newton_row(values[first : first + n], y[:n], z[:n], H, w, sums[i], l1, l2, floor, sweeps)
