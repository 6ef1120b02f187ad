"""Whether restarts find the same components.

A component is the matrix w h of one column of W and its row of H, so neither its scale nor its number matters. The
cosine of two of them is the product of the cosines of their columns and of their rows. Those of all restarts come
from two matrix products on V's device; the k x k blocks are compared on the host.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.arrays import operators, transfer

if TYPE_CHECKING:
    import numpy as np

    from nmf_xp.arrays.typing import Array, Namespace

    Matrix = np.ndarray[Any, Any]


ROUNDING = 64  # times the dtype's precision, up to which a mean of cosines is 1


class Stability(NamedTuple):
    """Means over all pairs of restarts."""

    matched: float  # cosine of the components that are matched one to one; 1 where all restarts agree
    amari: float  # 0 where all restarts agree, at most 1


def stability(W: Array, H: Array, *, xp: Namespace) -> Stability:
    """Compare the components of all pairs of restarts, W (restarts, m, k) and H (restarts, k, n)."""
    import scipy.optimize

    restarts, k = W.shape[0], W.shape[-1]
    cosines = _cosines(operators.transposed(W), xp=xp) * _cosines(H, xp=xp)
    matched, amari = [], []
    for a, b in itertools.combinations(range(restarts), 2):
        block = cosines[a * k : (a + 1) * k, b * k : (b + 1) * k]
        rows, columns = scipy.optimize.linear_sum_assignment(block, maximize=True)
        matched.append(block[rows, columns].mean())
        amari.append(amari_distance(block))
    rounding = ROUNDING * float(xp.finfo(W.dtype).eps)
    match, distance = sum(matched) / len(matched), sum(amari) / len(amari)
    return Stability(1.0 if abs(1 - match) <= rounding else match, 0.0 if distance <= rounding else distance)


def amari_distance(similarity: Matrix) -> float:
    """How far a k x k matrix of similarities is from a permutation (Wu et al. 2016).

    1 - (sum of the largest entries of the columns + those of the rows) / 2k.
    """
    k = len(similarity)
    # Rounding makes cosines of 1 a little larger.
    return max(0.0, float(1 - (similarity.max(axis=0).sum() + similarity.max(axis=1).sum()) / (2 * k)))


def _cosines(components: Array, *, xp: Namespace) -> Matrix:
    """Cosines between all components (restarts, k, length) of all restarts."""
    flat = xp.reshape(components, (-1, components.shape[-1]))
    largest = xp.max(flat, axis=1, keepdims=True)
    flat = flat / xp.where(largest > 0, largest, 1.0)
    length = xp.sqrt(xp.sum(flat * flat, axis=1, keepdims=True))
    flat = flat / xp.where(length > 0, length, 1.0)
    return transfer.to_host(flat @ operators.transposed(flat))
