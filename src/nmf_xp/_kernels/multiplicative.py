"""Multiplicative updates of small matrices, of which many are factorized at once.

The work goes by tiles of four rows and four components: what is read once then serves four products, and the registers
hold the sums. What would make a tile a special case is padded: components and columns of V with zeros, rows of W with
zeros where they are summed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nmf_xp._kernels.compiling import jit

if TYPE_CHECKING:
    from numpy.typing import NDArray


def kl_iterations(
    V: NDArray[Any], W: NDArray[Any], H: NDArray[Any], *, floor: float, n: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """W and H of each member (c, m, r), (c, r, n) after `n` iterations of `mu` for the Kullback-Leibler divergence.

    V is one matrix (m, n) or a stack (c, m, n).
    """
    number = V.dtype.type
    W, H = np.array(W, order="C"), np.array(H, order="C")
    _iterate_members(as_members(V), W, H, number(floor), number(np.finfo(V.dtype).smallest_normal), n)
    return W, H


def as_members(V: NDArray[Any]) -> NDArray[Any]:
    """One matrix or a stack as a stack, of the one kind for which the kernels are compiled: contiguous and writable."""
    return np.require(V, requirements=["C", "W"]).reshape(-1, *V.shape[-2:])


@jit
def _iterate_members(V: Any, W: Any, H: Any, floor: Any, least: Any, iterations: Any) -> None:
    n, r = H.shape[2], H.shape[1]
    h, w, v, q = tiles(V, r)
    numerator, numerators, sums = np.empty_like(w), np.empty_like(h), np.empty((2, r), V.dtype)
    for c in range(W.shape[0]):
        h[:r, :n] = H[c]
        for _ in range(iterations):
            numerators[:] = 0
            _iterate(V[c % V.shape[0]], W[c], h, w, v, q, numerator, numerators, sums, floor, least)
        H[c] = h[:r, :n]


@jit
def _iterate(
    V: Any,
    W: Any,
    h: Any,
    padded_w: Any,
    padded_v: Any,
    q: Any,
    numerator: Any,
    numerators: Any,
    sums: Any,
    floor: Any,
    least: Any,
) -> None:
    """One pass over the rows of V: the rows of W, and with the new ones their share of the numerators of H."""
    (m, n), r = V.shape, W.shape[1]
    padded_w[:, :r] = 1
    for k in range(r):
        sums[0, k] = h[k, :n].sum()
        sums[1, k] = 0
    for i in range(0, m, 4):
        v, w = V[i : i + 4], W[i : i + 4]
        height = v.shape[0]
        if height < 4 or n < h.shape[1]:
            for a in range(height):
                for j in range(n):
                    padded_v[a, j] = v[a, j]
            v = padded_v
        if height < 4 or r < h.shape[0]:
            for a in range(height):
                for k in range(r):
                    padded_w[a, k] = w[a, k]
            w = padded_w
        _quotients(v, w, h, q, least)
        contract(q, h, numerator)
        for a in range(height):
            for k in range(r):
                w[a, k] = max(w[a, k] * numerator[a, k] / sums[0, k], floor)
                W[i + a, k] = w[a, k]
        _quotients(v, w, h, q, least)
        w[height:] = 0
        for k in range(r):
            sums[1, k] += (w[0, k] + w[1, k]) + (w[2, k] + w[3, k])
        _accumulate(w, q, numerators)
    for k in range(r):
        for j in range(n):
            h[k, j] = max(h[k, j] * numerators[k, j] / sums[1, k], floor)


@jit
def tiles(V: Any, r: Any) -> Any:
    """Padded arrays for H and for four rows of W, of V and of their quotient; the padding of WH is positive."""
    length = 64 // V.itemsize  # as many columns as the widest registers hold
    width = -(-V.shape[2] // length) * length
    h, w = np.zeros((-(-r // 4) * 4, width), V.dtype), np.zeros((4, -(-r // 4) * 4), V.dtype)
    h[:r] = 1
    w[:, :r] = 1
    return h, w, np.zeros((4, width), V.dtype), np.empty((4, width), V.dtype)


@jit
def _quotients(v: Any, w: Any, h: Any, q: Any, least: Any) -> None:
    """Q = V / (w h)."""
    predict(w, h, q)
    if not _divide_pairs(v, q, least):
        predict(w, h, q)
        for a in range(4):
            for j in range(q.shape[1]):
                q[a, j] = v[a, j] / q[a, j]


@jit
def predict(w: Any, h: Any, y: Any) -> None:
    """Y = w h."""
    for k in range(0, h.shape[0], 4):
        a0, a1, a2, a3 = w[0, k], w[0, k + 1], w[0, k + 2], w[0, k + 3]
        b0, b1, b2, b3 = w[1, k], w[1, k + 1], w[1, k + 2], w[1, k + 3]
        c0, c1, c2, c3 = w[2, k], w[2, k + 1], w[2, k + 2], w[2, k + 3]
        d0, d1, d2, d3 = w[3, k], w[3, k + 1], w[3, k + 2], w[3, k + 3]
        if k == 0:
            for j in range(h.shape[1]):
                x0, x1, x2, x3 = h[k, j], h[k + 1, j], h[k + 2, j], h[k + 3, j]
                y[0, j] = a0 * x0 + a1 * x1 + a2 * x2 + a3 * x3
                y[1, j] = b0 * x0 + b1 * x1 + b2 * x2 + b3 * x3
                y[2, j] = c0 * x0 + c1 * x1 + c2 * x2 + c3 * x3
                y[3, j] = d0 * x0 + d1 * x1 + d2 * x2 + d3 * x3
        else:
            for j in range(h.shape[1]):
                x0, x1, x2, x3 = h[k, j], h[k + 1, j], h[k + 2, j], h[k + 3, j]
                y[0, j] += a0 * x0 + a1 * x1 + a2 * x2 + a3 * x3
                y[1, j] += b0 * x0 + b1 * x1 + b2 * x2 + b3 * x3
                y[2, j] += c0 * x0 + c1 * x1 + c2 * x2 + c3 * x3
                y[3, j] += d0 * x0 + d1 * x1 + d2 * x2 + d3 * x3


@jit
def _divide_pairs(v: Any, q: Any, least: Any) -> bool:
    """V / Q in the place of Q, by one division for two quotients: 1/a = b / (ab).

    A division takes as long as many products. False where a product ab comes near under- or overflow.
    """
    one = least / least
    most = one / least
    fine = 0
    for j in range(q.shape[1]):
        a, b, c, d = q[0, j], q[1, j], q[2, j], q[3, j]
        ab, cd = a * b, c * d
        fine += (ab >= least) & (ab <= most) & (cd >= least) & (cd <= most)
        ab, cd = one / ab, one / cd
        q[0, j], q[1, j] = v[0, j] * (b * ab), v[1, j] * (a * ab)
        q[2, j], q[3, j] = v[2, j] * (d * cd), v[3, j] * (c * cd)
    return fine == q.shape[1]


@jit
def contract(q: Any, h: Any, result: Any) -> None:
    """Q h^T."""
    zero = h[0, 0] * 0
    for k in range(0, h.shape[0], 4):
        a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = zero
        c0 = c1 = c2 = c3 = d0 = d1 = d2 = d3 = zero
        for j in range(h.shape[1]):
            x0, x1, x2, x3 = h[k, j], h[k + 1, j], h[k + 2, j], h[k + 3, j]
            a, b, c, d = q[0, j], q[1, j], q[2, j], q[3, j]
            a0, a1, a2, a3 = a0 + a * x0, a1 + a * x1, a2 + a * x2, a3 + a * x3
            b0, b1, b2, b3 = b0 + b * x0, b1 + b * x1, b2 + b * x2, b3 + b * x3
            c0, c1, c2, c3 = c0 + c * x0, c1 + c * x1, c2 + c * x2, c3 + c * x3
            d0, d1, d2, d3 = d0 + d * x0, d1 + d * x1, d2 + d * x2, d3 + d * x3
        result[0, k], result[0, k + 1], result[0, k + 2], result[0, k + 3] = a0, a1, a2, a3
        result[1, k], result[1, k + 1], result[1, k + 2], result[1, k + 3] = b0, b1, b2, b3
        result[2, k], result[2, k + 1], result[2, k + 2], result[2, k + 3] = c0, c1, c2, c3
        result[3, k], result[3, k + 1], result[3, k + 2], result[3, k + 3] = d0, d1, d2, d3


@jit
def _accumulate(w: Any, q: Any, result: Any) -> None:
    """Add w^T Q."""
    for k in range(0, result.shape[0], 4):
        a0, a1, a2, a3 = w[0, k], w[0, k + 1], w[0, k + 2], w[0, k + 3]
        b0, b1, b2, b3 = w[1, k], w[1, k + 1], w[1, k + 2], w[1, k + 3]
        c0, c1, c2, c3 = w[2, k], w[2, k + 1], w[2, k + 2], w[2, k + 3]
        d0, d1, d2, d3 = w[3, k], w[3, k + 1], w[3, k + 2], w[3, k + 3]
        for j in range(result.shape[1]):
            a, b, c, d = q[0, j], q[1, j], q[2, j], q[3, j]
            result[k, j] += a0 * a + b0 * b + c0 * c + d0 * d
            result[k + 1, j] += a1 * a + b1 * b + c1 * c + d1 * d
            result[k + 2, j] += a2 * a + b2 * b + c2 * c + d2 * d
            result[k + 3, j] += a3 * a + b3 * b + c3 * c + d3 * d
