"""Whether restarts find the same components: their cosines, of which the k x k blocks are compared on the host."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.result.agreement import cosines

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
    similar = cosines((W, H), (W, H), xp=xp)
    matched, amari = [], []
    for a, b in itertools.combinations(range(restarts), 2):
        block = similar[a * k : (a + 1) * k, b * k : (b + 1) * k]
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
