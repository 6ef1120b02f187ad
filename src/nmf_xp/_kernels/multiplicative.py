"""Multiplicative updates of small matrices, of which many are factorized at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nmf_xp._kernels.compiling import inlined, jit

if TYPE_CHECKING:
    from numpy.typing import NDArray


def kl_iteration(
    V: NDArray[Any], W: NDArray[Any], H: NDArray[Any], *, floor: float
) -> tuple[NDArray[Any], NDArray[Any]]:
    """W and H of each member (c, m, r), (c, r, n) after one iteration of `mu` for the Kullback-Leibler divergence.

    V is one matrix (m, n) or a stack (c, m, n).
    """
    V = np.ascontiguousarray(np.broadcast_to(V, (1, *V.shape) if V.ndim == 2 else V.shape))
    W, H = np.array(W, order="C"), np.array(H, order="C")
    _iterate_members(V, W, H, V.dtype.type(floor))
    return W, H


@inlined
def _predict(w: Any, H: Any, y: Any) -> None:
    """Y = w H for one row, four components at a time."""
    r, n = H.shape
    fours = r // 4 * 4
    if fours:
        a, b, c, d = w[0], w[1], w[2], w[3]
        for j in range(n):
            y[j] = a * H[0, j] + b * H[1, j] + c * H[2, j] + d * H[3, j]
    else:
        y[:] = 0
    for k in range(4, fours, 4):
        a, b, c, d = w[k], w[k + 1], w[k + 2], w[k + 3]
        for j in range(n):
            y[j] += a * H[k, j] + b * H[k + 1, j] + c * H[k + 2, j] + d * H[k + 3, j]
    for k in range(fours, r):
        a = w[k]
        for j in range(n):
            y[j] += a * H[k, j]


@jit
def _iterate(V: Any, W: Any, H: Any, floor: Any) -> None:
    """One pass over the rows of V: the row of W, and with it the row's share of the numerator of H.

    The division takes most of the time, so it is overlapped with the products of the first four components.
    """
    (m, n), r = V.shape, W.shape[1]
    fours = r // 4 * 4
    q = np.empty_like(V[0])
    numerator = np.empty_like(W[0])
    w_sums = np.zeros_like(W[0])
    h_sums = np.zeros_like(W[0])
    numerators = np.zeros_like(H)
    zero = floor * 0
    for k in range(r):
        for j in range(n):
            h_sums[k] += H[k, j]
    for i in range(m):
        w = W[i]
        _predict(w, H, q)
        if fours:
            a = b = c = d = zero
            for j in range(n):
                x = V[i, j] / q[j]
                q[j] = x
                a += x * H[0, j]
                b += x * H[1, j]
                c += x * H[2, j]
                d += x * H[3, j]
            numerator[0], numerator[1], numerator[2], numerator[3] = a, b, c, d
        else:
            for j in range(n):
                q[j] = V[i, j] / q[j]
        for k in range(min(4, fours), r):
            a = zero
            for j in range(n):
                a += q[j] * H[k, j]
            numerator[k] = a
        for k in range(r):
            w[k] = max(w[k] * numerator[k] / h_sums[k], floor)
            w_sums[k] += w[k]
        _predict(w, H, q)
        if fours:
            a, b, c, d = w[0], w[1], w[2], w[3]
            for j in range(n):
                x = V[i, j] / q[j]
                q[j] = x
                numerators[0, j] += a * x
                numerators[1, j] += b * x
                numerators[2, j] += c * x
                numerators[3, j] += d * x
        else:
            for j in range(n):
                q[j] = V[i, j] / q[j]
        for k in range(min(4, fours), r):
            a = w[k]
            for j in range(n):
                numerators[k, j] += a * q[j]
    for k in range(r):
        for j in range(n):
            H[k, j] = max(H[k, j] * numerators[k, j] / w_sums[k], floor)


@jit
def _iterate_members(V: Any, W: Any, H: Any, floor: Any) -> None:
    for c in range(W.shape[0]):
        _iterate(V[c % V.shape[0]], W[c], H[c], floor)
