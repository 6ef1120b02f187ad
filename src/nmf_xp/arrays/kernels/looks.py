"""What one look at a small dense matrix says of its factors: a twin of `report` in `problem/optimality.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nmf_xp.arrays.kernels.compiling import entry, jit
from nmf_xp.arrays.kernels.divergence import row_divergence
from nmf_xp.arrays.kernels.tiling import as_members

if TYPE_CHECKING:
    from numpy.typing import NDArray


def small_report(
    V: NDArray[Any],
    W: NDArray[Any],
    H: NDArray[Any],
    *,
    beta: float,
    penalties: tuple[float, float, float, float],
    floor: float,
    alone: bool,
    constants: tuple[float, float],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[Any], NDArray[Any]]:
    """The divergence, the gap, and the relative slopes of W and of H, for one matrix or a stack and beta 1 or 2.

    The penalties are L1 and L2 of W, then of H, which has no slopes where W is `alone`. The constants are the share of
    a row below which an entry holds nothing, and the slope of one on which nothing depends.
    """
    w_slopes, h_slopes = np.empty_like(W, order="C"), np.empty_like(H, order="C")
    found = np.empty((*W.shape[:-2], 2))
    number, info = W.dtype.type, np.finfo(W.dtype)
    arrays: Any = (as_members(x) for x in (V, W, H, w_slopes, h_slopes))
    rest: Any = number(floor), info.smallest_normal, info.eps, *map(number, constants), beta == 2, alone
    _report(*arrays, *(found.reshape(-1, 2), tuple(map(number, penalties)), *rest))
    return found[..., 0], found[..., 1], w_slopes, h_slopes[..., :0] if alone else h_slopes


@entry("x3, x3, x3, x3, x3, f2, (x, x, x, x), x, x, x, x, x, b, b")
def _report(
    V: Any,
    W: Any,
    H: Any,
    w_slopes: Any,
    h_slopes: Any,
    found: Any,
    penalties: Any,
    floor: Any,
    tiny: Any,
    eps: Any,
    nothing: Any,
    unseen: Any,
    squares: bool,
    alone: bool,
) -> None:
    w_l1, w_l2, h_l1, h_l2 = penalties
    (m, r), n = W.shape[1:], H.shape[2]
    y, q, w_sums, h_sums = np.empty(n, W.dtype), np.empty(n, W.dtype), np.empty(r, W.dtype), np.empty(r, W.dtype)
    pull, push = np.empty(r, W.dtype), np.empty(r, W.dtype)
    h_pull, h_push, column = np.empty((r, n), W.dtype), np.empty((r, n), W.dtype), np.empty(r, W.dtype)
    zero = tiny - tiny
    for c in range(W.shape[0]):
        matrix, h = V[c % V.shape[0]], H[c]
        divergence, gap = 0.0, 0.0
        w_sums[:] = zero
        h_pull[:] = zero
        h_push[:] = zero
        for k in range(r):
            h_sums[k] = zero
            for j in range(n):
                h_sums[k] += h[k, j]
        for i in range(m):
            v, w = matrix[i], W[c, i]
            y[:] = zero
            for k in range(r):
                for j in range(n):
                    y[j] += w[k] * h[k, j]
            if squares:
                for j in range(n):
                    q[j] = v[j]
                    divergence += 0.5 * np.float64((v[j] - y[j]) * (v[j] - y[j]))
            else:
                divergence += row_divergence(v, y)
                for j in range(n):
                    q[j] = v[j] / max(y[j], floor * floor)
            for k in range(r):
                numerator, denominator = zero, zero
                for j in range(n):
                    numerator += q[j] * h[k, j]
                    h_pull[k, j] += w[k] * q[j]
                if squares:
                    for j in range(n):
                        denominator += y[j] * h[k, j]
                        h_push[k, j] += w[k] * y[j]
                else:
                    denominator = h_sums[k]
                pull[k], push[k] = numerator, denominator + w_l1 + w_l2 * w[k]
                w_sums[k] += w[k]
            gap += _row(w, pull, push, w_slopes[c, i], tiny, eps, nothing, unseen, alone)
        for j in range(0 if alone else n):
            for k in range(r):
                column[k], pull[k] = h[k, j], h_pull[k, j]
                push[k] = (h_push[k, j] if squares else w_sums[k]) + h_l1 + h_l2 * h[k, j]
            gap += _row(column, pull, push, h_sums, tiny, eps, nothing, unseen, False)
            for k in range(r):
                h_slopes[c, k, j] = h_sums[k]
        found[c, 0], found[c, 1] = divergence, gap


@jit
def _row(
    w: Any, pull: Any, push: Any, slopes: Any, tiny: Any, eps: Any, nothing: Any, unseen: Any, alone: bool
) -> float:
    """The relative slopes of a row, and its gap, from the two parts of its slope."""
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
