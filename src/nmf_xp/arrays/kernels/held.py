"""What the entries of the factors of a small matrix hold, and how far each is from its optimum: twins for `endings`.

The functions have the names and the order of those in `run/held.py`, `problem/balance.py` and `problem/optimality.py`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from nmf_xp.arrays.kernels.compiling import entry, jit
from nmf_xp.arrays.kernels.tiling import as_members, copy

if TYPE_CHECKING:
    from numpy.typing import NDArray

SPECK, SMALL, AT_FLOOR = 1, 2, 4  # what an entry holds, as bits


@jit
def shares_of(W: Any, H: Any, tiny: Any) -> Any:
    """What each entry holds of the model in the row of W, or the column of H."""
    (m, r), n = W.shape, H.shape[1]
    w_shares, h_shares = np.empty_like(W), np.empty_like(H)
    w_sums, h_sums = np.zeros(r, W.dtype), np.zeros(r, W.dtype)
    for k in range(r):
        for j in range(n):
            h_sums[k] += H[k, j]
    for i in range(m):
        total = tiny - tiny
        for k in range(r):
            w_sums[k] += W[i, k]
            w_shares[i, k] = W[i, k] * h_sums[k]
            total += w_shares[i, k]
        for k in range(r):
            w_shares[i, k] /= max(total, tiny)
    for j in range(n):
        total = tiny - tiny
        for k in range(r):
            h_shares[k, j] = H[k, j] * w_sums[k]
            total += h_shares[k, j]
        for k in range(r):
            h_shares[k, j] /= max(total, tiny)
    return w_shares, h_shares


def component_scales(W: NDArray[Any], H: NDArray[Any]) -> NDArray[Any] | None:
    """The powers of two (..., 1, r) by which columns of W are to be multiplied and rows of H divided; None for none.

    W (..., m, r) and H (..., r, n) are of one matrix or a stack, without penalties and bounds.
    """
    scales = np.empty((*W.shape[:-2], 1, W.shape[-1]), W.dtype)
    changed = _scales(as_members(W), as_members(H), scales.reshape(-1, W.shape[-1]))
    return scales if changed else None


@entry("x3, x3, x2", "f")
def _scales(W: Any, H: Any, scales: Any) -> float:
    """How many of the scales are not 1."""
    changed = 0.0
    for c in range(W.shape[0]):
        _find_scales(W[c], H[c], scales[c])
        for k in range(W.shape[2]):
            changed += scales[c, k] != 1
    return changed


@jit
def _find_scales(W: Any, H: Any, scales: Any) -> None:
    """By what a component is to be multiplied in W and divided in H, so that its norms are within a factor of two."""
    left, right = largest_entries(W, H)
    w_squares, h_squares = np.zeros_like(left), np.zeros_like(right)
    for i in range(W.shape[0]):
        for k in range(W.shape[1]):
            w_squares[k] += (W[i, k] / left[k]) * (W[i, k] / left[k])
    for k in range(H.shape[0]):
        for j in range(H.shape[1]):
            h_squares[k] += (H[k, j] / right[k]) * (H[k, j] / right[k])
    for k in range(H.shape[0]):
        scale = 1.0
        if min(left[k], right[k]) > 0:
            middle = 0.5 * (math.log2(right[k]) - math.log2(left[k])) + 0.25 * math.log2(h_squares[k] / w_squares[k])
            exponent = math.floor(middle + 0.5)
            if exponent - middle == 0.5 and exponent % 2 == 1:
                exponent -= 1
            for _ in range(abs(exponent)):
                scale *= 2.0 if exponent > 0 else 0.5
        scales[k] = scale


@jit
def balance(W: Any, H: Any) -> None:
    """Multiply and divide by the scales, in place."""
    scales = np.empty(W.shape[1], W.dtype)
    _find_scales(W, H, scales)
    for i in range(W.shape[0]):
        for k in range(W.shape[1]):
            W[i, k] *= scales[k]
    for k in range(H.shape[0]):
        for j in range(H.shape[1]):
            H[k, j] /= scales[k]


@jit
def smallest_entry(x: Any) -> Any:
    """The least entry."""
    least = x[0, 0]
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            least = min(least, x[i, j])
    return least


@jit
def is_clear(before: Any, x: Any, shares: Any, slopes: Any, bounds: Any) -> bool:
    """Whether each entry holds enough and is asked for, and the floor does not show, so that none may become 0."""
    floor, least, negligible, shows = bounds
    low = max(256.0 * floor, least)
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            if not (x[i, j] * shows >= floor and before[i, j] > low):
                return False
            if not (shares[i, j] > negligible and slopes[i, j] < 1):
                return False
    return True


@jit
def held_by(before: Any, shares: Any, least: Any, floor: Any, eps: Any) -> Any:
    """What entries hold, as bits; the share of those at the floor becomes 0."""
    held = np.zeros(before.shape, np.int8)
    for i in range(before.shape[0]):
        for j in range(before.shape[1]):
            x, share = before[i, j], shares[i, j]
            low = x <= 256.0 * floor
            held[i, j] = AT_FLOOR if low else 0
            if (low and share <= eps) or share <= eps * eps:
                held[i, j] |= SPECK
            if x <= least:
                held[i, j] |= SMALL
            if low:
                shares[i, j] = 0
    return held


@jit
def entry_violation(x: Any, slope: Any, floor: Any, size: Any) -> Any:
    """That of an entry's condition, for its relative slope and the largest entry of its component."""
    return abs(min(max(x - floor, 0.0) / size, slope))


@jit
def kkt_residual(W: Any, H: Any, seen: Any, floor: Any, tiny: Any, alone: bool) -> float:
    """The largest violation; infinite where one is no number."""
    largest = 0.0
    w_sizes, h_sizes = largest_entries(W, H)
    for i in range(W.shape[0]):
        for k in range(W.shape[1]):
            found = entry_violation(W[i, k], seen[0][i, k], floor, max(w_sizes[k], tiny))
            largest = max(largest, found) if found == found else math.inf
    for k in range(0 if alone else H.shape[0]):
        for j in range(H.shape[1]):
            found = entry_violation(H[k, j], seen[1][k, j], floor, max(h_sizes[k], tiny))
            largest = max(largest, found) if found == found else math.inf
    return largest


@jit
def largest_entries(W: Any, H: Any) -> Any:
    """The largest entry of each component in W, and in H."""
    left, right = np.zeros(W.shape[1], W.dtype), np.zeros(W.shape[1], W.dtype)
    for i in range(W.shape[0]):
        for k in range(W.shape[1]):
            left[k] = max(left[k], W[i, k])
    for k in range(H.shape[0]):
        for j in range(H.shape[1]):
            right[k] = max(right[k], H[k, j])
    return left, right


@jit
def is_left(x: Any, slopes: Any, held: Any) -> bool:
    """Whether some speck is still at the floor, though its slope does not fall."""
    both = AT_FLOOR | SPECK
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            if held[i, j] & both == both and x[i, j] > 0 and slopes[i, j] >= 0:
                return True
    return False


@jit
def is_near(floor: Any, W: Any, H: Any, shows: Any) -> bool:
    """Whether a component that is not zero is so small that the floor shows in it."""
    left, right = largest_entries(W, H)
    for k in range(W.shape[1]):
        smaller = min(left[k] if left[k] > 0 else 1.0, right[k] if right[k] > 0 else 1.0)
        if smaller * shows < floor:
            return True
    return False


@jit
def copied(x: Any) -> Any:
    """A copy."""
    new = np.empty(x.shape, x.dtype)
    copy(x, new)
    return new


@jit
def same(x: Any, y: Any) -> bool:
    """Whether no entry differs."""
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            if x[i, j] != y[i, j]:
                return False
    return True
