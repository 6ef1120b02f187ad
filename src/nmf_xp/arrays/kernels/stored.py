"""The stored entries of a sparse V, row by row: what Newton's method and multiplicative updates take from them.

Entries go by four: what is read of a row of W, and what is added to its sums, then serves all of them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from nmf_xp.arrays import threads
from nmf_xp.arrays.kernels.compiling import entry, inlined, jit
from nmf_xp.arrays.kernels.divergence import row_divergence
from nmf_xp.arrays.kernels.line_search import length
from nmf_xp.arrays.kernels.newton import BATCH, minimise, shared_settings
from nmf_xp.arrays.kernels.sampled import of_one_dtype

if TYPE_CHECKING:
    from numpy.typing import NDArray


def newton_sparse(
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
    trials: int,
    measured: bool,
    sums: NDArray[Any] | None = None,
) -> tuple[NDArray[Any], tuple[NDArray[Any], NDArray[Any]] | None]:
    """As `newton_dense`, for entries that stand row by row; their divergence, and the sum of the model there."""
    starts, columns = of_one_dtype(starts, columns)
    W, Ht = np.array(W, order="C"), np.ascontiguousarray(H.T)
    growth = np.broadcast_to(Ht.sum(axis=0) if sums is None else sums, W.shape)
    rest = shared_settings(W, np.ascontiguousarray(H), l1, l2, floor, sweeps, trials), measured

    def work(start: int, stop: int) -> tuple[float, float]:
        return _newton_rows(values, starts[start : stop + 1], columns, W[start:stop], Ht, growth[start:stop], *rest)

    parts = threads.over_rows(W.shape[0], work, starts, products=4 * values.size * W.shape[1])
    if not measured:
        return W, None
    divergence, model = (np.asarray(math.fsum(terms)) for terms in zip(*parts, strict=True))
    return W, (divergence, model)


@entry("x1, i1, i1, x2, x2, x2s, (x2, x, x, x, x, n, n), b", "f, f")
def _newton_rows(
    values: Any, starts: Any, columns: Any, W: Any, Ht: Any, sums: Any, settings: Any, measured: bool
) -> tuple[float, float]:
    """A batch of rows at a time."""
    _, l1, l2, floor, tiny, _, trials = settings
    m, r = W.shape
    longest = 1
    for first in range(0, m, BATCH):
        longest = max(longest, starts[min(first + BATCH, m)] - starts[first])
    y, e = np.empty(longest, values.dtype), np.empty(longest, values.dtype)
    numerator, curvature = np.empty((BATCH, r), W.dtype), np.empty((BATCH, r), W.dtype)
    change, slopes, work = np.empty((BATCH, r), W.dtype), np.empty(BATCH, W.dtype), np.empty((6, r, BATCH), W.dtype)
    least = floor * floor
    divergence = model = 0.0
    for first in range(0, m, BATCH):
        rows = W[first : first + BATCH]
        begin = starts[first]
        numerator[:] = 0
        curvature[:] = 0
        for i in range(rows.shape[0]):
            a, b = starts[first + i], starts[first + i + 1]
            _slopes(values[a:b], columns[a:b], rows[i], Ht, y[a - begin : b - begin], numerator[i], curvature[i])
        growth = sums[first : first + rows.shape[0]]
        minimise(rows, numerator, curvature, growth, settings, work, change, slopes)
        for i in range(rows.shape[0]):
            row, d = rows[i], change[i]
            a, b = starts[first + i], starts[first + i + 1]
            v, here, there = values[a:b], y[a - begin : b - begin], e[a - begin : b - begin]
            _predict(columns[a:b], d, Ht, there)
            t = length(v, here, there, d, row, growth[i], slopes[i], l1, l2, floor, tiny, trials)
            for k in range(r):
                row[k] = max(row[k] + t * d[k], floor)
            if measured:
                total = 0.0
                for p in range(v.shape[0]):
                    x = max(here[p] + t * there[p], least)
                    here[p] = x
                    total += x
                model += total
                divergence += row_divergence(v, here)
    return divergence, model


@inlined
def _products(w: Any, h0: Any, h1: Any, h2: Any, h3: Any) -> Any:
    """The products of four rows of H^T with w."""
    t0 = t1 = t2 = t3 = w[0] - w[0]
    for k in range(w.shape[0]):
        x = w[k]
        t0 += x * h0[k]
        t1 += x * h1[k]
        t2 += x * h2[k]
        t3 += x * h3[k]
    return t0, t1, t2, t3


@jit
def _predict(columns: Any, w: Any, Ht: Any, y: Any) -> None:
    """The model w H at the entries of a row."""
    n, r = columns.shape[0], w.shape[0]
    whole = n // 4 * 4
    for p in range(0, whole, 4):
        h0, h1, h2, h3 = Ht[columns[p]], Ht[columns[p + 1]], Ht[columns[p + 2]], Ht[columns[p + 3]]
        y[p], y[p + 1], y[p + 2], y[p + 3] = _products(w, h0, h1, h2, h3)
    for p in range(whole, n):
        h = Ht[columns[p]]
        total = w[0] - w[0]
        for k in range(r):
            total += w[k] * h[k]
        y[p] = total


@jit
def _slopes(v: Any, columns: Any, w: Any, Ht: Any, y: Any, numerator: Any, curvature: Any) -> None:
    """The model at the entries of a row, and added to the sums over them (v / y) h^T and (v / y^2) (h^2)^T."""
    n, r = columns.shape[0], w.shape[0]
    whole = n // 4 * 4
    for p in range(0, whole, 4):
        h0, h1, h2, h3 = Ht[columns[p]], Ht[columns[p + 1]], Ht[columns[p + 2]], Ht[columns[p + 3]]
        y0, y1, y2, y3 = _products(w, h0, h1, h2, h3)
        q0, q1, q2, q3 = v[p] / y0, v[p + 1] / y1, v[p + 2] / y2, v[p + 3] / y3
        c0, c1, c2, c3 = q0 / y0, q1 / y1, q2 / y2, q3 / y3
        y[p], y[p + 1], y[p + 2], y[p + 3] = y0, y1, y2, y3
        for k in range(r):
            x0, x1, x2, x3 = h0[k], h1[k], h2[k], h3[k]
            numerator[k] += q0 * x0 + q1 * x1 + q2 * x2 + q3 * x3
            curvature[k] += c0 * x0 * x0 + c1 * x1 * x1 + c2 * x2 * x2 + c3 * x3 * x3
    for p in range(whole, n):
        h = Ht[columns[p]]
        total = w[0] - w[0]
        for k in range(r):
            total += w[k] * h[k]
        q = v[p] / total
        c = q / total
        y[p] = total
        for k in range(r):
            numerator[k] += q * h[k]
            curvature[k] += c * h[k] * h[k]


def kl_half_iteration_sparse(
    values: NDArray[Any],
    starts: NDArray[Any],
    columns: NDArray[Any],
    W: NDArray[Any],
    H: NDArray[Any],
    denominator: NDArray[Any],
    *,
    floor: float,
    alone: bool = False,
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """As `kl_half_iteration`, for entries that stand row by row."""
    starts, columns = of_one_dtype(starts, columns)
    W, Ht = np.array(W, order="C"), np.ascontiguousarray(H.T)
    below = np.broadcast_to(np.maximum(denominator, np.finfo(W.dtype).smallest_normal), W.shape)
    number = W.dtype.type(floor)

    def work(start: int, stop: int) -> NDArray[Any]:
        numerators = np.zeros((0, W.shape[1]) if alone else Ht.shape, W.dtype)
        rows = starts[start : stop + 1], columns, W[start:stop], Ht, below[start:stop], numerators
        _multiplied_rows(values, *rows, number)
        return numerators

    parts = threads.over_rows(W.shape[0], work, starts, products=4 * values.size * W.shape[1])
    return W, None if alone else sum(parts[1:], parts[0])


@entry("x1, i1, i1, x2, x2, x2s, x2, x")
def _multiplied_rows(
    values: Any, starts: Any, columns: Any, W: Any, Ht: Any, below: Any, numerators: Any, floor: Any
) -> None:
    """Each row of W, and with the new one its share of the numerators for H, (n, r), unless there are none."""
    m, r = W.shape
    numerator, y = np.empty(r, W.dtype), np.empty(_longest(starts), W.dtype)
    for i in range(m):
        a, b = starts[i], starts[i + 1]
        v, here, w = values[a:b], columns[a:b], W[i]
        numerator[:] = 0
        _numerator(v, here, w, Ht, y, numerator, floor * 0)
        for k in range(r):
            w[k] = max(w[k] * numerator[k] / below[i, k], floor)
        if numerators.shape[0]:
            _spread(v, here, w, Ht, numerators)


def kl_slopes_sparse(
    values: NDArray[Any],
    starts: NDArray[Any],
    columns: NDArray[Any],
    W: NDArray[Any],
    H: NDArray[Any],
    *,
    least: float,
) -> tuple[NDArray[Any], tuple[NDArray[Any], NDArray[Any]]]:
    """(V / WH) H^T for entries that stand row by row, their divergence, and the sum of the model there.

    In the quotient the model is at least `least`.
    """
    starts, columns = of_one_dtype(starts, columns)
    W, Ht = np.require(W, requirements=["C", "W"]), np.ascontiguousarray(H.T)
    numerators, number = np.zeros_like(W), W.dtype.type(least)

    def work(start: int, stop: int) -> tuple[float, float]:
        rows = starts[start : stop + 1], columns, W[start:stop], Ht, numerators[start:stop]
        return _slopes_of_rows(values, *rows, number)

    parts = threads.over_rows(W.shape[0], work, starts, products=2 * values.size * W.shape[1])
    divergence, model = (np.asarray(math.fsum(terms)) for terms in zip(*parts, strict=True))
    return numerators, (divergence, model)


@entry("x1, i1, i1, x2, x2, x2, x", "f, f")
def _slopes_of_rows(
    values: Any, starts: Any, columns: Any, W: Any, Ht: Any, numerators: Any, least: Any
) -> tuple[float, float]:
    y = np.empty(_longest(starts), W.dtype)
    divergence = model = 0.0
    for i in range(W.shape[0]):
        a, b = starts[i], starts[i + 1]
        v, here = values[a:b], y[: b - a]
        _numerator(v, columns[a:b], W[i], Ht, here, numerators[i], least)
        total = 0.0
        for p in range(b - a):
            total += here[p]
        model += total
        divergence += row_divergence(v, here)
    return divergence, model


@jit
def _longest(starts: Any) -> Any:
    """How many entries the longest row has."""
    longest = 0
    for i in range(starts.shape[0] - 1):
        longest = max(longest, starts[i + 1] - starts[i])
    return longest


@jit
def _numerator(v: Any, columns: Any, w: Any, Ht: Any, y: Any, numerator: Any, least: Any) -> None:
    """The model at the entries of a row, and added to the sums over them (v / y) h^T."""
    n, r = columns.shape[0], w.shape[0]
    whole = n // 4 * 4
    for p in range(0, whole, 4):
        h0, h1, h2, h3 = Ht[columns[p]], Ht[columns[p + 1]], Ht[columns[p + 2]], Ht[columns[p + 3]]
        y0, y1, y2, y3 = _products(w, h0, h1, h2, h3)
        y[p], y[p + 1], y[p + 2], y[p + 3] = y0, y1, y2, y3
        q0, q1 = v[p] / max(y0, least), v[p + 1] / max(y1, least)
        q2, q3 = v[p + 2] / max(y2, least), v[p + 3] / max(y3, least)
        for k in range(r):
            numerator[k] += q0 * h0[k] + q1 * h1[k] + q2 * h2[k] + q3 * h3[k]
    for p in range(whole, n):
        h = Ht[columns[p]]
        total = w[0] - w[0]
        for k in range(r):
            total += w[k] * h[k]
        y[p] = total
        q = v[p] / max(total, least)
        for k in range(r):
            numerator[k] += q * h[k]


@jit
def _spread(v: Any, columns: Any, w: Any, Ht: Any, numerators: Any) -> None:
    """Added to the row of `numerators` of each entry (v / y) w."""
    n, r = columns.shape[0], w.shape[0]
    whole = n // 4 * 4
    for p in range(0, whole, 4):
        j0, j1, j2, j3 = columns[p], columns[p + 1], columns[p + 2], columns[p + 3]
        y0, y1, y2, y3 = _products(w, Ht[j0], Ht[j1], Ht[j2], Ht[j3])
        q0, q1, q2, q3 = v[p] / y0, v[p + 1] / y1, v[p + 2] / y2, v[p + 3] / y3
        for j, q in ((j0, q0), (j1, q1), (j2, q2), (j3, q3)):
            to = numerators[j]
            for k in range(r):
                to[k] += q * w[k]
    for p in range(whole, n):
        h, to = Ht[columns[p]], numerators[columns[p]]
        total = w[0] - w[0]
        for k in range(r):
            total += w[k] * h[k]
        q = v[p] / total
        for k in range(r):
            to[k] += q * w[k]
