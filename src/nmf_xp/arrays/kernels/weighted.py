"""Weighted least squares by coordinate descent, row by row with its residual: twins of `solvers/weighted.py`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from nmf_xp.arrays import threads
from nmf_xp.arrays.kernels.compiling import entry, jit
from nmf_xp.arrays.kernels.coordinate import TILE, tops
from nmf_xp.arrays.kernels.sampled import places

if TYPE_CHECKING:
    from numpy.typing import NDArray


def weighted_dense(
    V: NDArray[Any],
    weights: NDArray[Any],
    W: NDArray[Any],
    H: NDArray[Any],
    *,
    top: NDArray[Any] | None = None,
    l1: float,
    l2: float,
    floor: float,
    sweeps: int,
    settled: float,
    passes: int,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """W (m, r) after some sweeps for a dense V (m, n) and its weights, and the divergence; for `top` see `tops`."""
    W, H = np.array(W, order="C"), np.ascontiguousarray(H)
    number = W.dtype.type
    rest = H, H.max(axis=1) > 0, tops(top, W), number(l1), number(l2), number(floor), sweeps, settled, passes

    def work(start: int, stop: int) -> float:
        return _dense(V[start:stop], weights[start:stop], W[start:stop], *rest)

    return W, np.asarray(math.fsum(threads.over_rows(W.shape[0], work, products=2 * sweeps * V.size * W.shape[1])))


def weighted_sparse(
    values: NDArray[Any],
    weights: NDArray[Any],
    view: tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None],
    W: NDArray[Any],
    H: NDArray[Any],
    *,
    top: NDArray[Any] | None = None,
    l1: float,
    l2: float,
    floor: float,
    sweeps: int,
    settled: float,
    passes: int,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """The same for the stored entries of a sparse V, as `view` orders them row by row; no others are observed."""
    starts, columns, order = places(*view[:3])
    W, Ht = np.array(W, order="C"), np.ascontiguousarray(H.T)
    number = W.dtype.type
    rest = Ht, H.max(axis=1) > 0, tops(top, W), number(l1), number(l2), number(floor), sweeps, settled, passes

    def work(start: int, stop: int) -> float:
        return _sparse(values, weights, order, starts[start : stop + 1], columns, W[start:stop], *rest)

    products = 2 * sweeps * values.size * W.shape[1]
    return W, np.asarray(math.fsum(threads.over_rows(W.shape[0], work, starts, products=products)))


@jit
def _row(
    v: Any,
    u: Any,
    e: Any,
    H: Any,
    w: Any,
    c: Any,
    alive: Any,
    top: Any,
    l1: Any,
    l2: Any,
    floor: Any,
    sweeps: int,
    settled: float,
    passes: int,
) -> float:
    """Sweeps over one row w (r,) of data v with weights u (n,) and H (r, n); e and c are room, (n,) and (r,).

    In e is u (wH - v), the residual as the slopes need it. Where the last sweep lowers the divergence by more than the
    share `settled` of it, Newton's step follows; with infinity there is none.
    """
    r, n = H.shape
    zero = floor * 0
    for j in range(n):
        e[j] = zero
    for k in range(r):
        h, x = H[k], w[k]
        if x != 0:
            for j in range(n):
                e[j] += x * h[j]
    for j in range(n):
        e[j] = u[j] * (e[j] - v[j])
    fall = 0.0
    for s in range(sweeps):
        fall = 0.0
        for k in range(r):
            h = H[k]
            g = curvature = zero
            if s == 0:
                for j in range(n):
                    a = u[j] * h[j]
                    g += e[j] * h[j]
                    curvature += a * h[j]
                c[k] = curvature + l2
            else:
                for j in range(n):
                    g += e[j] * h[j]
            old = w[k]
            new = old if alive[k] == 0 else floor
            if c[k] > 0:
                new = old - (g + l1 + l2 * old) / c[k]
            new = min(max(new, floor), max(old, top[k]))
            d = new - old
            if d != 0:
                w[k] = new
                fall += 0.5 * np.float64(c[k]) * np.float64(d) * np.float64(d)
                for j in range(n):
                    e[j] += d * (u[j] * h[j])
    total = _half_square(u, e)
    if fall > settled * total:
        _newton(u, e, H, w, c, l1, l2, floor, passes)
        total = _half_square(u, e)
    return total


@jit
def _half_square(u: Any, e: Any) -> float:
    total = 0.0
    for j in range(u.shape[0]):
        if u[j] > 0:
            x = np.float64(e[j])
            total += x * (x / np.float64(u[j]))
    return 0.5 * total


@jit
def _newton(u: Any, e: Any, H: Any, w: Any, c: Any, l1: Any, l2: Any, floor: Any, passes: int) -> None:
    """The minimum over the entries of w above the floor, of which some may meet it on the way.

    In float64, since the matrix is nearly singular where this is needed; its diagonal is scaled to 1.
    """
    r, n = H.shape
    free = np.empty(r, np.int64)
    count = 0
    for k in range(r):
        if w[k] > floor and c[k] > 0:
            free[count] = k
            count += 1
    if count == 0:
        return
    gram, lower, at = np.empty((count, count)), np.empty((count, count)), np.empty(count)
    slope, scale, way, change = np.empty(count), np.empty(count), np.empty(count), np.empty(count)
    for a in range(count):
        h = H[free[a]]
        g = 0.0
        for j in range(n):
            g += np.float64(e[j]) * np.float64(h[j])
        at[a] = w[free[a]]
        slope[a] = g + l1 + l2 * at[a]
        for b in range(a + 1):
            other = H[free[b]]
            x = 0.0
            for j in range(n):
                x += np.float64(u[j] * h[j]) * np.float64(other[j])
            gram[a, b] = gram[b, a] = x + (l2 if a == b else 0.0)
    damped = 1.0 + 8 * r * np.finfo(w.dtype).eps
    for _ in range(passes):
        for a in range(count):
            scale[a] = 1 / math.sqrt(c[free[a]]) if at[a] > floor else 0.0
        _solve(gram, scale, slope, damped, lower, way)
        share = 1.0
        for a in range(count):
            if way[a] < 0:
                share = min(share, (at[a] - floor) / -way[a])
        best, gain = 0.0, 0.0
        for step in (1.0, share):  # to the minimum and back to the floor, or as far as the first entry that meets it
            for a in range(count):
                change[a] = max(step * way[a], floor - at[a])
            total = 0.0
            for a in range(count):
                bent = 0.0
                for b in range(count):
                    bent += gram[a, b] * change[b]
                total += change[a] * (slope[a] + 0.5 * bent)
            if total < gain:
                best, gain = step, total
        if best == 0:
            break
        for a in range(count):
            change[a] = max(best * way[a], floor - at[a])
            at[a] = max(at[a] + change[a], floor)
        for a in range(count):
            for b in range(count):
                slope[a] += gram[a, b] * change[b]
    for a in range(count):
        k = free[a]
        h, old = H[k], w[k]
        w[k] = at[a]
        for j in range(n):
            e[j] += (w[k] - old) * (u[j] * h[j])


@jit
def _solve(gram: Any, scale: Any, slope: Any, damped: float, lower: Any, way: Any) -> None:
    """The move to the minimum of the entries that have a scale, by Cholesky's method."""
    count = gram.shape[0]
    for a in range(count):
        for b in range(a + 1):
            x = damped if a == b else gram[a, b] * scale[a] * scale[b]
            for i in range(b):
                x -= lower[a, i] * lower[b, i]
            lower[a, b] = math.sqrt(max(x, damped - 1)) if a == b else x / lower[b, b]
    for a in range(count):
        x = -slope[a] * scale[a]
        for i in range(a):
            x -= lower[a, i] * way[i]
        way[a] = x / lower[a, a]
    for a in range(count - 1, -1, -1):
        x = way[a]
        for i in range(a + 1, count):
            x -= lower[i, a] * way[i]
        way[a] = x / lower[a, a]
    for a in range(count):
        way[a] *= scale[a]


@entry("x2s, x2s, x2, x2, b1, x1, x, x, x, n, f, n", "f")
def _dense(
    V: Any,
    weights: Any,
    W: Any,
    H: Any,
    alive: Any,
    top: Any,
    l1: Any,
    l2: Any,
    floor: Any,
    sweeps: int,
    settled: float,
    passes: int,
) -> float:
    (m, n), r = V.shape, W.shape[1]
    v, u = np.empty((TILE, n), V.dtype), np.empty((TILE, n), V.dtype)
    e, c = np.empty(n, V.dtype), np.empty(r, V.dtype)
    total = 0.0
    for first in range(0, m, TILE):
        height = min(TILE, m - first)
        for j in range(n):
            for i in range(height):
                v[i, j], u[i, j] = V[first + i, j], weights[first + i, j]
        for i in range(height):
            total += _row(v[i], u[i], e, H, W[first + i], c, alive, top, l1, l2, floor, sweeps, settled, passes)
    return total


@entry("x1, x1, i1, i1, i1, x2, x2, b1, x1, x, x, x, n, f, n", "f")
def _sparse(
    values: Any,
    weights: Any,
    order: Any,
    starts: Any,
    columns: Any,
    W: Any,
    Ht: Any,
    alive: Any,
    top: Any,
    l1: Any,
    l2: Any,
    floor: Any,
    sweeps: int,
    settled: float,
    passes: int,
) -> float:
    """Each row gathers its entries, their weights and the columns of H that they meet."""
    m, r = W.shape
    longest = 0
    for i in range(m):
        longest = max(longest, starts[i + 1] - starts[i])
    gathered, c = np.empty(r * longest, values.dtype), np.empty(r, values.dtype)
    v, u, e = np.empty(longest, values.dtype), np.empty(longest, values.dtype), np.empty(longest, values.dtype)
    total = 0.0
    for i in range(m):
        first, n = starts[i], starts[i + 1] - starts[i]
        H = gathered[: r * n].reshape(r, n)
        for p in range(n):
            at = order[first + p] if order.shape[0] else first + p
            v[p], u[p] = values[at], weights[at]
            h = Ht[columns[first + p]]
            for k in range(r):
                H[k, p] = h[k]
        total += _row(v[:n], u[:n], e, H, W[i], c, alive, top, l1, l2, floor, sweeps, settled, passes)
    return total
