"""Coordinate descent over the rows of a factor, each row in the cache: twins of what is in `solvers/coordinate.py`."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from nmf_xp import _threads
from nmf_xp._kernels.compiling import inlined, jit

if TYPE_CHECKING:
    from numpy.typing import NDArray

TILE = 16  # columns of V that are read together, so that whole cache lines are used


def least_squares_sweeps(
    W: NDArray[Any], slope: NDArray[Any], gram: NDArray[Any], *, l1: float, l2: float, floor: float, sweeps: int
) -> NDArray[Any]:
    """W (m, r) after some sweeps of hierarchical alternating least squares."""
    W, slope, gram = np.array(W, order="C"), np.array(slope, order="C"), np.ascontiguousarray(gram)
    number = W.dtype.type
    settings = number(l1), number(l2), number(floor), sweeps
    _in_threads(W.shape[0], lambda start, stop: _least_squares(W[start:stop], slope[start:stop], gram, *settings))
    return W


@jit
def _least_squares(W: Any, slope: Any, gram: Any, l1: Any, l2: Any, floor: Any, sweeps: int) -> None:
    m, r = W.shape
    for i in range(m):
        w, s = W[i], slope[i]
        for _ in range(sweeps):
            for k in range(r):
                curvature = gram[k, k] + l2
                if curvature > 0:
                    new = max(w[k] - (s[k] + l1 + l2 * w[k]) / curvature, floor)
                    d = new - w[k]
                    w[k] = new
                    if d != 0:
                        g = gram[k]
                        for j in range(r):
                            s[j] += d * g[j]


def newton_dense(
    V: NDArray[Any], W: NDArray[Any], H: NDArray[Any], *, l1: float, l2: float, floor: float, sweeps: int
) -> NDArray[Any]:
    """W (m, r) after some sweeps of Newton coordinate descent for a dense V (m, n)."""
    W, H = np.array(W, order="C"), np.ascontiguousarray(H)
    number = W.dtype.type
    rest = H, H.sum(axis=1), number(l1), number(l2), number(floor), sweeps
    _in_threads(W.shape[0], lambda start, stop: _newton_dense(V[start:stop], W[start:stop], *rest))
    return W


def newton_sparse(
    values: NDArray[Any],
    view: tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None],
    W: NDArray[Any],
    H: NDArray[Any],
    *,
    l1: float,
    l2: float,
    floor: float,
    sweeps: int,
) -> NDArray[Any]:
    """The same for the stored entries of a sparse V, as `view` orders them row by row."""
    starts, columns, order = view
    order = np.empty(0, dtype=starts.dtype) if order is None else order
    W, Ht = np.array(W, order="C"), np.ascontiguousarray(H.T)
    number = W.dtype.type
    rest = Ht, Ht.sum(axis=0), number(l1), number(l2), number(floor), sweeps

    def work(start: int, stop: int) -> None:
        _newton_sparse(values, order, starts[start : stop + 1], columns, W[start:stop], *rest)

    _in_threads(W.shape[0], work, starts)
    return W


def _in_threads(m: int, work: Any, starts: NDArray[Any] | None = None) -> None:
    """`work` on ranges of rows, with about the same number of entries in each."""
    count = min(m, 8)  # more than threads, as rows differ
    if starts is None:
        bounds = [m * i // count for i in range(count + 1)]
    else:
        targets = np.linspace(0, starts[-1], count + 1)[1:-1]
        bounds = [0, *np.searchsorted(starts, targets).clip(0, m).tolist(), m]
    ranges = [(a, b) for a, b in itertools.pairwise(bounds) if a < b]
    _threads.run(lambda rows: work(*rows), ranges)


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
                new = max(old - g / c, floor)
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


@jit
def _newton_dense(V: Any, W: Any, H: Any, sums: Any, l1: Any, l2: Any, floor: Any, sweeps: int) -> None:
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
            _newton_row(tile[i], y, z, H, w, sums, l1, l2, floor, sweeps)


@jit
def _newton_sparse(
    values: Any,
    order: Any,
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
    v, y, z = np.empty(longest, values.dtype), np.empty(longest, values.dtype), np.empty(longest, values.dtype)
    for i in range(m):
        first, n = starts[i], starts[i + 1] - starts[i]
        w = W[i]
        if n == 0:
            w[:] = floor
            continue
        H = gathered[: r * n].reshape(r, n)
        for p in range(n):
            v[p] = values[order[first + p]] if order.shape[0] else values[first + p]
            h = Ht[columns[first + p]]
            total = floor * 0
            for k in range(r):
                H[k, p] = h[k]
                total += w[k] * h[k]
            y[p] = total
        _newton_row(v[:n], y[:n], z[:n], H, w, sums, l1, l2, floor, sweeps)
