"""What one look at a dense matrix says of its factors: a twin of `report` in `problem/optimality.py`.

The work goes by tiles, as in `multiplicative`, and the tile of the model serves all three: the divergence, and the
slopes of both factors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nmf_xp.arrays import threads
from nmf_xp.arrays.kernels.compiling import entry, jit
from nmf_xp.arrays.kernels.divergence import row_divergence
from nmf_xp.arrays.kernels.multiplicative import BATCH, in_chunks, is_narrow, load, of_rows, turned
from nmf_xp.arrays.kernels.tiling import (
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
    from numpy.typing import NDArray

    Penalties = tuple[float, float, float, float]
    Found = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[Any], NDArray[Any]]


def dense_report(
    V: NDArray[Any],
    W: NDArray[Any],
    H: NDArray[Any],
    *,
    beta: float,
    penalties: Penalties,
    floor: float,
    alone: bool,
    constants: tuple[float, float],
) -> Found:
    """The divergence, the gap, and the relative slopes of W and of H, for one matrix or a stack and beta 1 or 2.

    The penalties are L1 and L2 of W, then of H, which has no slopes where W is `alone`. The constants are the share of
    a row below which an entry holds nothing, and the slope of one on which nothing depends.
    """
    w_slopes, h_slopes = np.empty_like(W, order="C"), np.empty_like(H, order="C")
    found = np.empty((*W.shape[:-2], 2))
    number, info = W.dtype.type, np.finfo(W.dtype)
    terms: Any = tuple(map(number, penalties))
    limits: Any = tuple(map(number, (floor, info.smallest_normal, info.eps, *constants)))
    given: Any = terms, limits, beta == 2, alone
    if W.ndim == 2 and 3 * W.size * H.shape[-1] >= 2 * threads.SHARE:
        found[...] = _in_threads(V, W, np.require(H, requirements=["C", "W"]), w_slopes, h_slopes, *given)
    else:
        arrays: Any = (as_members(x) for x in (V, W, H, w_slopes, h_slopes))
        _report(*arrays, *(found.reshape(-1, 2), *given))
    return found[..., 0], found[..., 1], w_slopes, h_slopes[..., :0] if alone else h_slopes


def _in_threads(
    V: NDArray[Any],
    W: NDArray[Any],
    H: NDArray[Any],
    w_slopes: NDArray[Any],
    h_slopes: NDArray[Any],
    terms: Any,
    limits: Any,
    squares: bool,
    alone: bool,
) -> NDArray[np.float64]:
    """The divergence and the gap of one matrix whose rows are shared by threads; the slopes go where they are to be."""
    (m, r), n = W.shape, H.shape[1]
    narrow = is_narrow(V)
    h = turned(H) if narrow else in_chunks(H)
    below = H @ H.T if squares else H.sum(axis=1)[None, :]

    def work(start: int, stop: int) -> tuple[NDArray[np.float64], NDArray[Any]]:
        pulls, found = np.zeros_like(h), np.zeros(2)
        for rows, block in of_rows(V, start, stop, turned=narrow):
            given = block, W[rows], w_slopes[rows], pulls, below, n, h, found
            (_turned_rows if narrow else _rows)(*given, terms, limits, squares, alone)
        return found, pulls

    W = np.require(W, requirements=["C", "W"])
    parts = threads.over_rows(m, work, products=3 * m * r * n)
    found: NDArray[np.float64] = sum(part for part, _ in parts)  # type: ignore[assignment]
    if not alone:
        pulls: Any = sum(part for _, part in parts)
        if not narrow:
            pulls = pulls.transpose(0, 2, 1).reshape(-1, h.shape[1])
        beside = W.T @ W if squares else W.sum(axis=0)[None, :]
        found[1] += _columns(H, np.ascontiguousarray(pulls[:n, :r]), beside, h_slopes, terms, limits, squares)
    return found


@entry("x3, x3, x3, x3, x3, f2, (x, x, x, x), (x, x, x, x, x), b, b")
def _report(
    V: Any,
    W: Any,
    H: Any,
    w_slopes: Any,
    h_slopes: Any,
    found: Any,
    terms: Any,
    limits: Any,
    squares: bool,
    alone: bool,
) -> None:
    for c in range(W.shape[0]):
        look(V[c % V.shape[0]], W[c], H[c], w_slopes[c], h_slopes[c], found[c], terms, limits, squares, alone)


@jit
def look(
    V: Any,
    W: Any,
    H: Any,
    w_slopes: Any,
    h_slopes: Any,
    found: Any,
    terms: Any,
    limits: Any,
    squares: bool,
    alone: bool,
) -> None:
    """The divergence and the gap into `found`, and the slopes, of one matrix in the calling thread."""
    r, n = H.shape
    room = tiles(V, r)[0]
    h = np.zeros((1, *room.shape), V.dtype)
    copy(room, h[0])
    copy(H, h[0])
    pulls, below = np.zeros_like(h), np.zeros((r if squares else 1, r), V.dtype)
    for k in range(r):
        for i in range(r if squares else 1):
            for j in range(n):
                below[i, k] += H[i, j] * H[k, j] if squares else H[k, j]
    found[0], found[1] = 0.0, 0.0
    _rows(V, W, w_slopes, pulls, below, n, h, found, terms, limits, squares, alone)
    if not alone:
        columns = np.empty((n, r), V.dtype)
        copy_transposed(pulls[0, :r, :n], columns)
        for k in range(r):
            for i in range(r if squares else 1):
                below[i, k] = 0
                for j in range(W.shape[0]):
                    below[i, k] += W[j, i] * W[j, k] if squares else W[j, k]
        found[1] += _columns(H, columns, below, h_slopes, terms, limits, squares)


@entry("x2, x2, x2, x3, x2, n, x3, f1, (x, x, x, x), (x, x, x, x, x), b, b")
def _rows(
    V: Any,
    W: Any,
    slopes: Any,
    pulls: Any,
    below: Any,
    n: int,
    h: Any,
    found: Any,
    terms: Any,
    limits: Any,
    squares: bool,
    alone: bool,
) -> None:
    """What is found in some rows: the slopes of W there, and what they pull at H; V has n columns."""
    m, r = W.shape
    chunks, components, columns = h.shape
    size = BATCH if chunks > 1 else 4
    w, q, push = np.zeros((4, components), V.dtype), np.empty((4, columns), V.dtype), np.empty(r, V.dtype)
    pull = np.empty((size, components), V.dtype)
    for first in range(0, m, size):
        last = min(first + size, m)
        pull[:] = 0
        for c in range(chunks):
            start = c * columns
            count = min(n - start, columns)
            for i in range(first, last, 4):
                load(W, i, w)
                predict(w, h[c], q)
                q[:, count:] = 0
                q[m - i :] = 0
                for a in range(min(4, m - i)):
                    found[0] += _measure(V[i + a, start : start + count], q[a, :count], limits[0], squares)
                contract(q, h[c], pull[i - first : i - first + 4])
                if not alone:
                    w[m - i :] = 0
                    accumulate(w, q, pulls[c])
        for i in range(first, last):
            _push(W[i], below, terms[0], terms[1], squares, push)
            found[1] += _relative(W[i], pull[i - first], push, slopes[i], limits, alone)


@entry("x2s, x2, x2, x2, x2, n, x2, f1, (x, x, x, x), (x, x, x, x, x), b, b")
def _turned_rows(
    V: Any,
    W: Any,
    slopes: Any,
    pulls: Any,
    below: Any,
    n: int,
    h: Any,
    found: Any,
    terms: Any,
    limits: Any,
    squares: bool,
    alone: bool,
) -> None:
    """The same for h and pulls (columns, components), with the rows along the registers."""
    (m, r), (columns, components) = W.shape, h.shape
    step, lanes = turned_rows(m)
    v, q = np.zeros((columns, lanes), V.dtype), np.empty((4, lanes), V.dtype)
    w, numerator = np.zeros((components, lanes), V.dtype), np.empty((components, lanes), V.dtype)
    pull, push = np.empty(r, V.dtype), np.empty(r, V.dtype)
    for first in range(0, m, step):
        count = min(step, m - first)
        w[:r, count:] = 1
        copy_transposed(V[first : first + count, :n], v)
        copy_transposed(W[first : first + count], w)
        numerator[:] = 0
        for j in range(0, n, 4):
            predict(h[j : j + 4], w, q)
            q[:, count:] = 0
            q[n - j :] = 0
            for a in range(min(4, n - j)):
                found[0] += _measure(v[j + a, :count], q[a, :count], limits[0], squares)
            accumulate(h[j : j + 4], q, numerator)
            if not alone:
                contract(q, w, pulls[j : j + 4])
        for i in range(count):
            for k in range(r):
                pull[k] = numerator[k, i]
            _push(W[first + i], below, terms[0], terms[1], squares, push)
            found[1] += _relative(W[first + i], pull, push, slopes[first + i], limits, alone)


@entry("x2, x2, x2, x2, (x, x, x, x), (x, x, x, x, x), b", "f")
def _columns(H: Any, pulls: Any, below: Any, slopes: Any, terms: Any, limits: Any, squares: bool) -> float:
    """The slopes of H, for what V pulls at each of its columns, (n, r); and their gap."""
    r, n = H.shape
    column, push, found = np.empty(r, H.dtype), np.empty(r, H.dtype), np.empty(r, H.dtype)
    gap = 0.0
    for j in range(n):
        for k in range(r):
            column[k] = H[k, j]
        _push(column, below, terms[2], terms[3], squares, push)
        gap += _relative(column, pulls[j], push, found, limits, False)
        for k in range(r):
            slopes[k, j] = found[k]
    return gap


@jit
def _measure(v: Any, y: Any, floor: Any, squares: bool) -> float:
    """The divergence of a row, whose model becomes what pulls at the factors: V, or V / WH."""
    if squares:
        total = 0.0
        for j in range(v.shape[0]):
            total += 0.5 * np.float64((v[j] - y[j]) * (v[j] - y[j]))
            y[j] = v[j]
        return total
    total = row_divergence(v, y)
    for j in range(v.shape[0]):
        y[j] = v[j] / max(y[j], floor * floor)
    return total


@jit
def _push(w: Any, below: Any, l1: Any, l2: Any, squares: bool, push: Any) -> None:
    """What pushes each entry down: the model, by the Gram matrix or the sums of the other factor, and the penalties."""
    for k in range(w.shape[0]):
        push[k] = l1 + l2 * w[k]
    for i in range(below.shape[0]):
        for k in range(w.shape[0]):
            push[k] += w[i] * below[i, k] if squares else below[0, k]


@jit
def _relative(w: Any, pull: Any, push: Any, slopes: Any, limits: Any, alone: bool) -> float:
    """The relative slopes of a row, and its gap, from the two parts of its slope."""
    _, tiny, eps, nothing, unseen = limits
    zero = tiny - tiny
    one = tiny / tiny
    pulled, pushed = zero, zero
    for k in range(w.shape[0]):
        quotient = pull[k] / max(push[k], tiny)
        slopes[k] = unseen if push[k] == 0 and pull[k] == 0 else one - quotient
        pulled += w[k] * pull[k]
        pushed += w[k] * push[k]
    held = max(pulled, pushed)
    steepest = zero
    for k in range(w.shape[0]):
        if alone or w[k] * push[k] <= nothing * held:
            steepest = max(steepest, pull[k] / max(push[k], tiny) - one)
    gap = steepest * held if held > 0 else zero
    if alone:
        gap += pushed - pulled
    return max(np.float64(gap - 16 * eps * held), 0.0)
