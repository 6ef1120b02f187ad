"""Multiplicative updates of dense matrices for the Kullback-Leibler divergence, one pass over V an iteration.

The work goes by tiles (`tiling`). H is kept in chunks of some columns, each of which stays in the cache while a batch
of rows meets it. What would make a tile a special case is padded: H with ones in columns and zeros in components, V
with zeros, rows of W with ones where they are models and with zeros where they are summed.

Rows as short as a few registers are no loop worth its beginning and end. Of such a V the rows lie along the registers:
a block of them is turned, and W and H change places in the tiles.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nmf_xp.arrays import threads
from nmf_xp.arrays.kernels.compiling import entry, jit
from nmf_xp.arrays.kernels.tiling import (
    TURNED,
    accumulate,
    as_members,
    contract,
    copy,
    copy_transposed,
    predict,
    tiles,
    turned_rows,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

CHUNK = 2**18  # bytes of H that share a core's cache with as many sums
BATCH = 64  # rows that meet a chunk together
NARROW = 128  # columns of a V whose rows are turned: so short a loop is mostly its beginning and its end
AT_HAND = 2**12  # entries of a matrix that stays in the nearest cache
GATHERED = 256  # rows that are copied together where those of V are not contiguous


def kl_iterations(
    V: NDArray[Any], W: NDArray[Any], H: NDArray[Any], *, floor: float, alone: bool = False, n: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """W and H of each member (..., m, r), (..., r, n) after `n` iterations of `mu` for the Kullback-Leibler divergence.

    V is one matrix (m, n) or a stack (c, m, n). Where W is `alone`, H is fixed.
    """
    W, H = np.array(W, order="C"), np.array(H, order="C")
    _iterate_members(as_members(V), as_members(W), as_members(H), *_limits(V, floor), alone, n)
    return W, H


def kl_half_iteration(
    V: NDArray[Any], W: NDArray[Any], H: NDArray[Any], denominator: NDArray[Any], *, floor: float, alone: bool = False
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """W (m, r) after an iteration of `mu`, and for this W the numerator of H, (n, r), unless W is `alone`.

    The denominator of W is (m, r), or (1, r) for all rows.
    """
    (r, n), m = H.shape, W.shape[0]
    W, denominator = np.array(W, order="C"), np.maximum(denominator, np.finfo(W.dtype).smallest_normal, order="C")
    narrow = is_narrow(V)
    h = turned(H) if narrow else in_chunks(H)
    rest: Any = *_limits(V, floor), alone

    def work(start: int, stop: int) -> NDArray[Any]:
        numerator = np.zeros_like(h)
        for rows, block in of_rows(V, start, stop, turned=narrow):
            below = denominator if denominator.shape[0] == 1 else denominator[rows]
            (_turned_half_iteration if narrow else _half_iteration)(block, W[rows], numerator, below, n, h, *rest)
        return numerator

    parts = threads.over_rows(m, work, products=4 * W.size * n)
    if alone:
        return W, None
    numerator = sum(parts[1:], parts[0])
    if not narrow:
        numerator = numerator.transpose(0, 2, 1).reshape(-1, h.shape[1])
    return W, numerator[:n, :r]


def is_narrow(V: NDArray[Any]) -> bool:
    """Whether the rows of V lie along the registers."""
    return V.shape[1] <= NARROW and V.shape[0] >= TURNED // 2


def of_rows(V: NDArray[Any], start: int, stop: int, *, turned: bool) -> Iterator[tuple[slice, NDArray[Any]]]:
    """The rows from `start` to `stop` as the kernels take them, in blocks where they are to be copied for that."""
    V = V if turned else _with_gaps(V)
    step = stop - start if turned or (V.flags.c_contiguous and V.flags.writeable) else GATHERED
    for i in range(start, stop, step):
        rows = slice(i, min(i + step, stop))
        yield rows, V[rows] if turned else as_members(V[rows])[0]


def _with_gaps(V: NDArray[Any]) -> NDArray[Any]:
    """V with what lies between its rows as more columns, which are not to be read: so it is contiguous.

    One that cannot be written to is left as it is, because its rows will be copied, and after the last there may be
    nothing.
    """
    width, rest = divmod(V.strides[0], V.itemsize)
    if rest or width < V.shape[1] or V.strides[1] != V.itemsize or not V.flags.writeable:
        return V
    return np.lib.stride_tricks.as_strided(V, (V.shape[0], width))


def _limits(V: NDArray[Any], floor: float) -> tuple[Any, Any, Any]:
    """The floor, and bounds for a product of two entries of WH, far from under- and overflow.

    The floor goes with the root of V's largest entry (`data/units.py`). The bounds go with the square of that entry, so
    that V in units of four is divided in the same way.
    """
    info = np.finfo(V.dtype)
    room = float(info.maxexp)
    usual = 2.0 ** -int(0.4375 * room - 12.0)  # the floor where V is of order one
    order = min(2.0 ** (room / 8), max(2.0 ** -(room / 8), (floor / usual) ** 2)) ** 2
    return tuple(V.dtype.type(x) for x in (floor, 2.0 ** (-0.625 * room) * order, 2.0 ** (0.625 * room) * order))


def in_chunks(H: NDArray[Any]) -> NDArray[Any]:
    """H (r, n) as (chunks, components, columns), padded."""
    r, n = H.shape
    components, lanes = -(-r // 4) * 4, 64 // H.itemsize  # as many columns as the widest registers hold
    chunks = max(1, -(-components * n * H.itemsize // CHUNK))
    columns = -(-n // chunks // lanes) * lanes
    chunks = -(-n // columns)
    h = np.zeros((components, chunks * columns), H.dtype)
    h[:r] = 1
    h[:r, :n] = H
    return np.ascontiguousarray(h.reshape(components, chunks, columns).transpose(1, 0, 2))


def turned(H: NDArray[Any]) -> NDArray[Any]:
    """H^T (columns, components), padded with ones in columns and zeros in components."""
    r, n = H.shape
    h = np.zeros((-(-n // 4) * 4, -(-r // 4) * 4), H.dtype)
    h[:, :r] = 1
    h[:n, :r] = H.T
    return h


@entry("x3, x3, x3, x, x, x, b, n")
def _iterate_members(V: Any, W: Any, H: Any, floor: Any, least: Any, most: Any, alone: Any, iterations: Any) -> None:
    (m, r), n = W.shape[1:], H.shape[2]
    length = 64 // V.itemsize
    if m * n <= AT_HAND and -(-m // length) * -(-n // 4) <= -(-n // length) * -(-m // 4):
        for c in range(W.shape[0]):
            _turned_iterations(V[c % V.shape[0]], W[c], H[c], floor, least, most, alone, iterations)
        return
    padded = tiles(V, r)[0]
    h = np.empty((1, *padded.shape), V.dtype)
    copy(padded, h[0])
    numerators, h_sums, w_sums = np.empty_like(h), np.empty((1, r), V.dtype), np.empty(r, V.dtype)
    for c in range(W.shape[0]):
        copy(H[c], h[0])
        for _ in range(iterations):
            numerators[:] = 0
            for k in range(r):
                h_sums[0, k] = h[0, k, :n].sum()
            _half_iteration(V[c % V.shape[0]], W[c], numerators, h_sums, n, h, floor, least, most, alone)
            if alone:
                continue
            w_sums[:] = 0
            for i in range(m):
                for k in range(r):
                    w_sums[k] += W[c, i, k]
            for k in range(r):
                for j in range(n):
                    h[0, k, j] = max(h[0, k, j] * numerators[0, k, j] / w_sums[k], floor)
        copy(h[0, :r, :n], H[c])


@jit
def _turned_iterations(V: Any, W: Any, H: Any, floor: Any, least: Any, most: Any, alone: Any, iterations: Any) -> None:
    """Iterations of one matrix that is at hand as a whole, all of whose rows lie along the registers."""
    (m, r), n, length = W.shape, H.shape[1], 64 // V.itemsize
    lanes, columns, components = -(-m // length) * length, -(-n // 4) * 4, -(-r // 4) * 4
    v, w, h = (
        np.zeros((columns, lanes), V.dtype),
        np.zeros((components, lanes), V.dtype),
        np.zeros((columns, components), V.dtype),
    )
    w[:r] = 1
    h[:, :r] = 1
    copy_transposed(V, v)
    copy_transposed(W, w)
    copy_transposed(H, h)
    q, numerator, numerators = np.empty((4, lanes), V.dtype), np.empty_like(w), np.empty_like(h)
    zero = least - least
    for _ in range(iterations):
        numerator[:] = 0
        for j in range(0, columns, 4):
            _turned_quotients(v[j : j + 4], h[j : j + 4], w, q, least, most)
            accumulate(h[j : j + 4], q, numerator)
        for k in range(r):
            total = zero
            for j in range(n):
                total += h[j, k]
            for i in range(m):
                w[k, i] = max(w[k, i] * numerator[k, i] / total, floor)
        if alone:
            continue
        numerators[:] = 0
        for j in range(0, columns, 4):
            _turned_quotients(v[j : j + 4], h[j : j + 4], w, q, least, most)
            contract(q, w, numerators[j : j + 4])
        for k in range(r):
            total = zero
            for i in range(m):
                total += w[k, i]
            for j in range(n):
                h[j, k] = max(h[j, k] * numerators[j, k] / total, floor)
    copy_transposed(w[:r, :m], W)
    copy_transposed(h[:n, :r], H)


@entry("x2, x2, x3, x2, n, x3, x, x, x, b")
def _half_iteration(
    V: Any, W: Any, numerators: Any, denominator: Any, n: int, h: Any, floor: Any, least: Any, most: Any, alone: Any
) -> None:
    """The rows of W, and with the new ones their share of the numerators for H; V has n columns."""
    m, r = W.shape
    chunks, components, columns = h.shape
    size = BATCH if chunks > 1 else 4
    w, v, q = np.zeros((4, components), V.dtype), np.zeros((4, columns), V.dtype), np.empty((4, columns), V.dtype)
    numerator = np.empty((size, components), V.dtype)
    for first in range(0, m, size):
        last = min(first + size, m)
        numerator[:] = 0
        for c in range(chunks):
            for i in range(first, last, 4):
                load(W, i, w)
                _quotients(V, n, i, c * columns, w, h[c], v, q, least, most)
                contract(q, h[c], numerator[i - first : i - first + 4])
        for i in range(first, last):
            below = denominator[i % denominator.shape[0]]
            for k in range(r):
                W[i, k] = max(W[i, k] * numerator[i - first, k] / below[k], floor)
        for c in range(0 if alone else chunks):
            for i in range(first, last, 4):
                load(W, i, w)
                _quotients(V, n, i, c * columns, w, h[c], v, q, least, most)
                w[m - i :] = 0
                accumulate(w, q, numerators[c])


@entry("x2s, x2, x2, x2, n, x2, x, x, x, b")
def _turned_half_iteration(
    V: Any, W: Any, numerators: Any, denominator: Any, n: int, h: Any, floor: Any, least: Any, most: Any, alone: Any
) -> None:
    """The same for h and numerators (columns, components)."""
    (m, r), (columns, components) = W.shape, h.shape
    step, lanes = turned_rows(m)
    v, q = np.zeros((columns, lanes), V.dtype), np.empty((4, lanes), V.dtype)
    w, numerator = np.zeros((components, lanes), V.dtype), np.empty((components, lanes), V.dtype)
    for first in range(0, m, step):
        count = min(step, m - first)
        v[:, count:] = 0
        w[:r, count:] = 1
        copy_transposed(V[first : first + count, :n], v)
        copy_transposed(W[first : first + count], w)
        numerator[:] = 0
        for j in range(0, columns, 4):
            _turned_quotients(v[j : j + 4], h[j : j + 4], w, q, least, most)
            accumulate(h[j : j + 4], q, numerator)
        for i in range(count):
            below = denominator[(first + i) % denominator.shape[0]]
            for k in range(r):
                w[k, i] = max(w[k, i] * numerator[k, i] / below[k], floor)
                W[first + i, k] = w[k, i]
        for j in range(0, 0 if alone else columns, 4):
            _turned_quotients(v[j : j + 4], h[j : j + 4], w, q, least, most)
            contract(q, w, numerators[j : j + 4])


@jit
def load(W: Any, i: Any, w: Any) -> None:
    """Four rows of W; ones for those that W has no more."""
    for a in range(4):
        for k in range(W.shape[1]):
            w[a, k] = W[i + a, k] if i + a < W.shape[0] else 1


@jit
def _quotients(V: Any, n: Any, i: Any, first: Any, w: Any, h: Any, spare: Any, q: Any, least: Any, most: Any) -> None:
    """Q = V / (w h) for four rows of V and the columns of h; zero where there are none."""
    m = V.shape[0]
    count = min(n - first, q.shape[1])
    if i + 4 > m:
        copy(V[i:, first : first + count], spare)
        v0, v1, v2, v3 = spare[0, :count], spare[1, :count], spare[2, :count], spare[3, :count]
    else:
        last = first + count
        v0, v1, v2, v3 = V[i, first:last], V[i + 1, first:last], V[i + 2, first:last], V[i + 3, first:last]
    _divide(v0, v1, v2, v3, w, h, q, least, most)
    q[:, count:] = 0


@jit
def _turned_quotients(v: Any, h: Any, w: Any, q: Any, least: Any, most: Any) -> None:
    """The same for four columns of V, (4, lanes), of which those of H are (4, components)."""
    _divide(v[0], v[1], v[2], v[3], h, w, q, least, most)


@jit
def _divide(v0: Any, v1: Any, v2: Any, v3: Any, w: Any, h: Any, q: Any, least: Any, most: Any) -> None:
    """Q = V / (w h), as far as the rows of V go."""
    predict(w, h, q)
    if not _divide_pairs(v0, v1, v2, v3, q, least, most):
        predict(w, h, q)
        for j in range(v0.shape[0]):
            q[0, j], q[1, j], q[2, j], q[3, j] = v0[j] / q[0, j], v1[j] / q[1, j], v2[j] / q[2, j], v3[j] / q[3, j]


@jit
def _divide_pairs(v0: Any, v1: Any, v2: Any, v3: Any, q: Any, least: Any, most: Any) -> bool:
    """V / Q in the place of Q, by one division for two quotients: 1/a = b / (ab).

    A division takes as long as many products. False where a product ab comes near under- or overflow.
    """
    one = least / least
    fine = 0
    for j in range(v0.shape[0]):
        a, b, c, d = q[0, j], q[1, j], q[2, j], q[3, j]
        ab, cd = a * b, c * d
        fine += (ab >= least) & (ab <= most) & (cd >= least) & (cd <= most)
        ab, cd = one / ab, one / cd
        q[0, j], q[1, j] = v0[j] * (b * ab), v1[j] * (a * ab)
        q[2, j], q[3, j] = v2[j] * (d * cd), v3[j] * (c * cd)
    return fine == v0.shape[0]
