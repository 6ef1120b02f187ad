"""What scikit-learn's solvers do to the rows of a factor for the Frobenius loss, given V H^T and H H^T.

A sweep of coordinate descent in any order of the components, with the violation of the optimality conditions that each
entry met, and a multiplicative update: twins of what is in `solvers/cyclic.py` and `updates.py`. For small dense
matrices, one or a stack, there are whole iterations, with the products that they take from V.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from nmf_xp.arrays import threads
from nmf_xp.arrays.kernels.compiling import entry, jit
from nmf_xp.arrays.kernels.coordinate import AWAKE
from nmf_xp.arrays.kernels.tiling import as_members, contract, copy, copy_transposed, smallest

if TYPE_CHECKING:
    from numpy.typing import NDArray

LANES = 112  # rows that are swept over together: whole registers, and no power of two
AT_ONCE = 2**29  # products of two numbers in a call, after which an interrupt is noticed


def cyclic_sweep(
    W: NDArray[Any], product: NDArray[Any], gram: NDArray[Any], order: NDArray[Any], l1: float, floor: float
) -> tuple[NDArray[Any], float]:
    """W (m, r) after a sweep for V H^T (m, r) and the curvature (r, r), and the violation that its entries met."""
    W, product, gram = np.array(W, order="C"), np.ascontiguousarray(product), np.ascontiguousarray(gram)
    number = W.dtype.type
    rest = gram, order, number(l1), number(floor), smallest(W.dtype)
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
    rest = gram, number(l1), number(floor), smallest(W.dtype)
    step = max(LANES, AT_ONCE // gram.size)

    def work(start: int, stop: int) -> None:
        for i in range(start, stop, step):
            _frobenius_rows(W[i : min(i + step, stop)], product[i : min(i + step, stop)], *rest)

    threads.over_rows(W.shape[0], work, products=W.shape[0] * gram.size // AWAKE)
    return W


@entry("x2, x2, x2, i1, x, x, x", "f")
def _cyclic_sweep(W: Any, product: Any, gram: Any, order: Any, l1: Any, floor: Any, tiny: Any) -> float:
    """Some rows at a time, one to a lane of the vector registers. No branch depends on an entry: half of them miss."""
    m, r = W.shape
    w, curvature = _padded(W, gram)
    p, g, met = np.zeros((r, LANES), W.dtype), np.empty(LANES, W.dtype), np.empty(LANES, W.dtype)
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
            for i in range(LANES):
                g[i] = l1 - p[t, i]
            _add(curvature[t], w, g)
            inverse = one / max(gram[t, t], tiny) if gram[t, t] > 0 else zero
            for i in range(LANES):
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
    w, curvature = _padded(W, gram)
    d = np.empty((r, LANES), W.dtype)
    for first in range(0, m, LANES):
        count = min(LANES, m - first)
        for i in range(count):
            for k in range(r):
                w[k, i] = W[first + i, k]
        for k in range(r):
            d[k] = l1
            _add(curvature[k], w, d[k])
            for i in range(LANES):
                d[k, i] = w[k, i] / max(d[k, i], tiny)
        for i in range(count):
            for k in range(r):
                W[first + i, k] = max(d[k, i] * product[first + i, k], floor)


@jit
def _padded(W: Any, gram: Any) -> Any:
    """Room for rows of W, one to a lane, and the curvature, with zeros for components that fill a tile."""
    r = W.shape[1]
    components = -(-r // 4) * 4
    curvature = np.zeros((r, components), W.dtype)
    copy(gram, curvature)
    return np.zeros((components, LANES), W.dtype), curvature


@jit
def _add(factors: Any, w: Any, g: Any) -> None:
    """Add the sum of the rows of w, each with its factor, to g."""
    for k in range(0, w.shape[0], 4):
        a, b, c, d = factors[k], factors[k + 1], factors[k + 2], factors[k + 3]
        for i in range(g.shape[0]):
            g[i] += a * w[k, i] + b * w[k + 1, i] + c * w[k + 2, i] + d * w[k + 3, i]


def frobenius_iterations(
    V: NDArray[Any],
    W: NDArray[Any],
    H: NDArray[Any],
    *,
    penalties: tuple[float, float, float, float],
    floor: float,
    fixed_h: bool,
    n: int,
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """W and H of each member after `n` multiplicative iterations, and V^T W, (n, r), and W^T W of the last W.

    V is one matrix (m, n) or a stack (c, m, n); the penalties are L1 and L2 of W, then of H.
    """
    W, H = np.array(W, order="C"), np.array(H, order="C")
    found = _room(W, H)
    number = V.dtype.type
    terms, limits = tuple(map(number, penalties)), (number(floor), smallest(V.dtype))
    arrays: Any = map(as_members, (V, W, H, *found))
    rest: Any = terms, *limits, fixed_h, n
    _frobenius_iterations(*arrays, *rest)
    return W, H, *found


def cyclic_iterations(
    V: NDArray[Any],
    W: NDArray[Any],
    H: NDArray[Any],
    numbers: NDArray[np.float64],
    orders: NDArray[Any],
    *,
    penalties: tuple[float, float, float, float],
    floor: float,
    fixed_h: bool,
    violation_tol: float | None,
    n: int,
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """The same after `n` iterations of coordinate descent in these orders (t, r), one for each half-iteration.

    Changed are the `numbers` (..., 3): the first violation, how many ran, and the one in which the rule held.
    """
    W, H = np.array(W, order="C"), np.array(H, order="C")
    found = _room(W, H)
    number = V.dtype.type
    terms, limits = tuple(map(number, penalties)), (number(floor), smallest(V.dtype))
    rule = -1.0 if violation_tol is None else violation_tol
    rest: Any = numbers.reshape(-1, 3), orders.reshape(-1), terms, *limits, rule, fixed_h, n
    arrays: Any = map(as_members, (V, W, H, *found))
    _cyclic_iterations(*arrays, *rest)
    return W, H, *found


def _room(W: NDArray[Any], H: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Where V^T W and W^T W come to lie."""
    r, n = H.shape[-2:]
    return np.empty((*W.shape[:-2], n, r), W.dtype), np.empty((*W.shape[:-2], r, r), W.dtype)


@entry("x3, x3, x3, x3, x3, (x, x, x, x), x, x, b, n")
def _frobenius_iterations(
    V: Any, W: Any, H: Any, product: Any, gram: Any, penalties: Any, floor: Any, tiny: Any, fixed_h: bool, n: int
) -> None:
    w_l1, w_l2, h_l1, h_l2 = penalties
    (height, r), width = W.shape[1:], H.shape[2]
    v, h_rows, of_w = side(height, width, r, V)
    v_turned, w_rows, of_h = side(width, height, r, V)
    wt, ht, curvature = np.empty((r, height), V.dtype), np.empty((width, r), V.dtype), np.empty((r, r), V.dtype)
    w_product = np.empty((height, r), V.dtype)
    for c in range(W.shape[0]):
        copy(V[c % V.shape[0]], v)
        copy_transposed(V[c % V.shape[0]], v_turned)
        copy_transposed(H[c], ht)
        for i in range(n):
            if i == 0 or not fixed_h:
                products(v, H[c], h_rows, of_w, w_product, curvature)
                for k in range(r):
                    curvature[k, k] += w_l2
            _frobenius_rows(W[c], w_product, curvature, w_l1, floor, tiny)
            if fixed_h:
                continue
            copy_transposed(W[c], wt)
            products(v_turned, wt, w_rows, of_h, product[c], gram[c])
            copy(gram[c], curvature)
            for k in range(r):
                curvature[k, k] += h_l2
            _frobenius_rows(ht, product[c], curvature, h_l1, floor, tiny)
            copy_transposed(ht, H[c])


@entry("x3, x3, x3, x3, x3, f2, i1, (x, x, x, x), x, x, f, b, n")
def _cyclic_iterations(
    V: Any,
    W: Any,
    H: Any,
    product: Any,
    gram: Any,
    numbers: Any,
    orders: Any,
    penalties: Any,
    floor: Any,
    tiny: Any,
    rule: float,
    fixed_h: bool,
    n: int,
) -> None:
    w_l1, w_l2, h_l1, h_l2 = penalties
    (height, r), width = W.shape[1:], H.shape[2]
    v, h_rows, of_w = side(height, width, r, V)
    v_turned, w_rows, of_h = side(width, height, r, V)
    wt, ht, curvature = np.empty((r, height), V.dtype), np.empty((width, r), V.dtype), np.empty((r, r), V.dtype)
    w_product = np.empty((height, r), V.dtype)
    for c in range(W.shape[0]):
        copy(V[c % V.shape[0]], v)
        copy_transposed(V[c % V.shape[0]], v_turned)
        copy_transposed(H[c], ht)
        at = 0
        for i in range(n):
            if rule >= 0:
                numbers[c, 1] += 1
            if numbers[c, 2] > 0:
                continue
            if i == 0 or not fixed_h:
                products(v, H[c], h_rows, of_w, w_product, curvature)
                for k in range(r):
                    curvature[k, k] += w_l2
            violation = _cyclic_sweep(W[c], w_product, curvature, orders[at : at + r], w_l1, floor, tiny)
            at = (at + r) % orders.shape[0]
            if not fixed_h:
                copy_transposed(W[c], wt)
                products(v_turned, wt, w_rows, of_h, product[c], gram[c])
                copy(gram[c], curvature)
                for k in range(r):
                    curvature[k, k] += h_l2
                violation += _cyclic_sweep(ht, product[c], curvature, orders[at : at + r], h_l1, floor, tiny)
                at = (at + r) % orders.shape[0]
                copy_transposed(ht, H[c])
            if rule >= 0:
                if numbers[c, 1] == 1:
                    numbers[c, 0] = violation
                if violation <= rule * numbers[c, 0]:
                    numbers[c, 2] = numbers[c, 1]


@jit
def side(m: Any, n: Any, r: Any, like: Any) -> Any:
    """Room for V (m, n), the other factor (r, n) and their product, padded so that `contract` meets full tiles."""
    length = 64 // like.itemsize  # as many columns as the widest registers hold
    height, width, components = -(-m // 4) * 4, -(-n // length) * length, -(-r // 4) * 4
    rows = np.zeros((components, width), like.dtype)
    return np.zeros((height, width), like.dtype), rows, np.empty((max(height, components), components), like.dtype)


@jit
def products(v: Any, H: Any, rows: Any, sums: Any, product: Any, gram: Any) -> None:
    """V H^T and H H^T, by the room of a `side`."""
    copy(H, rows)
    for x, result in ((v, product), (rows, gram)):
        sums[:] = 0
        for i in range(0, x.shape[0], 4):
            contract(x[i : i + 4], rows, sums[i : i + 4])
        for i in range(result.shape[0]):
            for k in range(result.shape[1]):
                result[i, k] = sums[i, k]
