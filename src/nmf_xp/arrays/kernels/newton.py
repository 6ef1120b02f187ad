"""Newton's method for the rows of a factor, each row in the cache: twins of `newton_rows` in `solvers/newton.py`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from nmf_xp.arrays import threads
from nmf_xp.arrays.kernels.compiling import entry, jit
from nmf_xp.arrays.kernels.coordinate import descend
from nmf_xp.arrays.kernels.divergence import row_divergence
from nmf_xp.arrays.kernels.line_search import length, lengths
from nmf_xp.arrays.kernels.tiling import (
    TURNED,
    accumulate,
    contract,
    copy,
    copy_transposed,
    predict,
    tiles,
    turned_rows,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

BATCH = 64  # rows, at most, whose models are minimised together, one to a lane of the vector registers
NARROW = 80  # columns of a V whose rows are turned: so short a loop is mostly its beginning and its end


def newton_dense(
    V: NDArray[Any],
    W: NDArray[Any],
    H: NDArray[Any],
    *,
    l1: float,
    l2: float,
    floor: float,
    sweeps: int,
    trials: int,
    measured: bool,
    sums: NDArray[Any] | None = None,
) -> tuple[NDArray[Any], tuple[NDArray[Any]] | None]:
    """W (m, r) after one step of Newton's method for each row of a dense V (m, n); if `measured`, its divergence.

    `sums` (m, r) is how fast the model of each row grows with its entries, where that is not by the sums of H.
    """
    W, H = np.array(W, order="C"), np.ascontiguousarray(H)
    growth = np.broadcast_to(H.sum(axis=1) if sums is None else sums, W.shape)
    rest = shared_settings(W, H, l1, l2, floor, sweeps, trials), measured

    def work(start: int, stop: int) -> float:
        return step_rows(V[start:stop], W[start:stop], H, growth[start:stop], *rest)

    parts = threads.over_rows(W.shape[0], work, products=4 * V.size * W.shape[1])
    return W, (np.asarray(math.fsum(parts)),) if measured else None


def shared_settings(
    W: NDArray[Any], H: NDArray[Any], l1: float, l2: float, floor: float, sweeps: int, trials: int
) -> tuple[Any, ...]:
    """What the kernels share: C, the penalties, the floor, a least number, and how many sweeps and trials."""
    number = W.dtype.type
    tiny = number(np.finfo(W.dtype).smallest_normal)
    correlation = np.empty((H.shape[0], H.shape[0]), W.dtype)
    correlate(W, H, correlation, tiny)
    return correlation, number(l1), number(l2), number(floor), tiny, sweeps, trials


@entry("x2, x2, x2, x")
def correlate(W: Any, H: Any, gram: Any, tiny: Any) -> None:
    """In `gram` C (r, r), the correlations of the rows of H weighted by the sums of the columns of WH."""
    (m, r), n = W.shape, H.shape[1]
    weights, inverse = np.zeros(r, W.dtype), np.zeros(n, W.dtype)
    one = tiny / tiny
    for i in range(m):
        for k in range(r):
            weights[k] += W[i, k]
    for k in range(r):
        for j in range(n):
            inverse[j] += weights[k] * H[k, j]
    for j in range(n):
        inverse[j] = one / max(inverse[j], tiny)
    for k in range(r):
        for other in range(k + 1):
            total = tiny - tiny
            for j in range(n):
                total += H[k, j] * inverse[j] * H[other, j]
            gram[k, other] = gram[other, k] = total
    for k in range(r):
        weights[k] = one / np.sqrt(max(gram[k, k], tiny))
    for k in range(r):
        for other in range(r):
            gram[k, other] *= weights[k] * weights[other]


@entry("x2s, x2, x2, x2s, (x2, x, x, x, x, n, n), b", "f")
def step_rows(V: Any, W: Any, H: Any, sums: Any, settings: Any, measured: bool) -> float:
    """A step for each row; those that are short lie along the registers, as in `multiplicative`."""
    if V.shape[1] <= NARROW and V.shape[0] >= TURNED // 2:
        return _step_turned(V, W, H, sums, settings, measured)
    return _step_batches(V, W, H, sums, settings, measured)


@jit
def _step_batches(V: Any, W: Any, H: Any, sums: Any, settings: Any, measured: bool) -> float:
    """A batch of rows at a time, and its products by tiles of four rows."""
    _, l1, l2, floor, tiny, _, trials = settings
    (m, n), r = V.shape, W.shape[1]
    size = min(BATCH, max(8, 2**15 // n // 4 * 4))  # at least as many rows as a cache line has of a column
    divergence = 0.0
    h, w, q, c = tiles(np.empty((1, 4, n), V.dtype), r)
    copy(H, h)
    h[:, n:] = 1
    squares = h * h
    v, y = np.zeros((size, h.shape[1]), V.dtype), np.empty((size, h.shape[1]), V.dtype)
    numerator, curvature = np.empty((size, w.shape[1]), V.dtype), np.empty((size, w.shape[1]), V.dtype)
    change, slopes, work = np.empty((size, r), V.dtype), np.empty(size, V.dtype), np.empty((6, r, size), V.dtype)
    one = floor / floor
    for first in range(0, m, size):
        height = min(size, m - first)
        if V.strides[1] == V.itemsize:
            copy(V[first : first + height], v)
        else:
            _gather(V[first : first + height], v)
        rows = W[first : first + height]
        numerator[:] = 0
        curvature[:] = 0
        for i in range(0, height, 4):
            copy(rows[i : i + 4], w)
            predict(w, h, y[i : i + 4])
            for a in range(4):
                for j in range(h.shape[1]):
                    z = one / y[i + a, j]
                    x = v[i + a, j] * z
                    q[a, j] = x
                    c[a, j] = x * z
            contract(q, h, numerator[i : i + 4])
            contract(c, squares, curvature[i : i + 4])
        growth = sums[first : first + rows.shape[0]]
        minimise(rows, numerator, curvature, growth, settings, work, change, slopes)
        for i in range(0, height, 4):
            copy(change[i : min(i + 4, height)], w)
            predict(w, h, q)
            for a in range(min(4, height - i)):
                row, d = rows[i + a], change[i + a]
                t = length(v[i + a], y[i + a], q[a], d, row, growth[i + a], slopes[i + a], l1, l2, floor, tiny, trials)
                for k in range(r):
                    row[k] = max(row[k] + t * d[k], floor)
                if measured:
                    model, change_of_model = y[i + a, :n], q[a, :n]
                    for j in range(n):
                        model[j] = max(model[j] + t * change_of_model[j], floor * floor)
                    divergence += row_divergence(v[i + a, :n], model)
        w[:, :r] = 1
    return divergence


@jit
def _step_turned(V: Any, W: Any, H: Any, sums: Any, settings: Any, measured: bool) -> float:
    """Many rows at a time, one to a lane of the registers."""
    floor = settings[3]
    (m, r), n = W.shape, V.shape[1]
    step, lanes = turned_rows(m)
    columns, components = -(-n // 4) * 4, -(-r // 4) * 4
    h = np.zeros((columns, components), W.dtype)
    h[:, :r] = 1
    copy_transposed(H, h)
    squares = h * h
    v, y = np.zeros((columns, lanes), W.dtype), np.empty((columns, lanes), W.dtype)
    e, room = np.empty((columns, lanes), W.dtype), np.empty((3, columns * lanes), W.dtype)
    w, d = np.zeros((components, lanes), W.dtype), np.zeros((components, lanes), W.dtype)
    numerator, curvature = np.empty((components, lanes), W.dtype), np.empty((components, lanes), W.dtype)
    q, c, t = np.empty((4, lanes), W.dtype), np.empty((4, lanes), W.dtype), np.empty(lanes, W.dtype)
    new, growth = np.empty((r, lanes), W.dtype), np.empty((r, lanes), W.dtype)
    inverse, slope = np.empty((r, lanes), W.dtype), np.empty((r, lanes), W.dtype)
    one, divergence = floor / floor, 0.0
    for first in range(0, m, step):
        count = min(step, m - first)
        v[:, count:] = 0
        w[:r, count:] = 1
        growth[:, count:] = 1
        rows = W[first : first + count]
        copy_transposed(V[first : first + count], v)
        copy_transposed(rows, w)
        copy_transposed(sums[first : first + count], growth)
        numerator[:] = 0
        curvature[:] = 0
        for j in range(0, columns, 4):
            predict(h[j : j + 4], w, y[j : j + 4])
            for a in range(4):
                for i in range(lanes):
                    z = one / y[j + a, i]
                    x = v[j + a, i] * z
                    q[a, i] = x
                    c[a, i] = x * z
            accumulate(h[j : j + 4], q, numerator)
            accumulate(squares[j : j + 4], c, curvature)
        copy(w[:r], new)
        _decrease(new, numerator[:r], curvature[:r], growth, inverse, slope, settings, lanes)
        for k in range(r):
            for i in range(lanes):
                d[k, i] = new[k, i] - w[k, i]
        for j in range(0, columns, 4):
            predict(h[j : j + 4], d, e[j : j + 4])
        lengths(v, y, e, d[:r], w[:r], growth, slope, settings, room, t)
        for k in range(r):
            for i in range(count):
                w[k, i] = max(w[k, i] + t[i] * d[k, i], floor)
        copy_transposed(w[:r, :count], rows)
        for j in range(n if measured else 0):
            for i in range(count):
                y[j, i] = max(y[j, i] + t[i] * e[j, i], floor * floor)
            divergence += row_divergence(v[j, :count], y[j, :count])
    return divergence


@jit
def _gather(V: Any, v: Any) -> None:
    """Rows of V that are columns in memory: some at a time, so that whole cache lines are read and written."""
    height, n = V.shape
    whole = n // 8 * 8
    for j in range(0, whole, 8):
        for i in range(height):
            x0, x1, x2, x3 = V[i, j], V[i, j + 1], V[i, j + 2], V[i, j + 3]
            x4, x5, x6, x7 = V[i, j + 4], V[i, j + 5], V[i, j + 6], V[i, j + 7]
            v[i, j], v[i, j + 1], v[i, j + 2], v[i, j + 3] = x0, x1, x2, x3
            v[i, j + 4], v[i, j + 5], v[i, j + 6], v[i, j + 7] = x4, x5, x6, x7
    for j in range(whole, n):
        for i in range(height):
            v[i, j] = V[i, j]


@jit
def minimise(
    W: Any, numerator: Any, curvature: Any, sums: Any, settings: Any, work: Any, change: Any, slopes: Any
) -> None:
    """For each row of W the change that sweeps over its model make, and the slope along it at the start."""
    m, r = W.shape
    w, g, scale, growth, inverse, slope = work[0], work[1], work[2], work[3], work[4], work[5]
    for i in range(m):
        for k in range(r):
            w[k, i], g[k, i], scale[k, i], growth[k, i] = W[i, k], numerator[i, k], curvature[i, k], sums[i, k]
    _decrease(w, g, scale, growth, inverse, slope, settings, m)
    slopes[:] = 0
    for i in range(m):
        for k in range(r):
            change[i, k] = w[k, i] - W[i, k]
            slopes[i] += slope[k, i] * change[i, k]


@jit
def _decrease(
    w: Any, numerator: Any, curvature: Any, growth: Any, inverse: Any, slope: Any, settings: Any, count: int
) -> None:
    """The columns of w (r, .) after sweeps over their models, and their slopes at the start."""
    gram, l1, l2, floor, tiny, sweeps, _ = settings
    r = w.shape[0]
    one, root = floor / floor, np.sqrt(tiny)
    most = one / tiny  # of a curvature, which may be that of an entry at the square of the floor
    for k in range(r):
        for i in range(count):
            s = np.sqrt(min(max(curvature[k, i] + l2, root), most))
            x = one / s
            slope[k, i] = growth[k, i] + l1 + l2 * w[k, i] - numerator[k, i]
            curvature[k, i], inverse[k, i], numerator[k, i] = s, x, slope[k, i] * x
    descend(w, numerator, gram, curvature, inverse, count, np.full(r, np.inf, w.dtype), floor, sweeps)
