"""How much components are alike, and in which of several runs each component of the best is found again.

A component is the matrix w h of one column of W and its row of H, so neither its scale nor its number matters. The
cosine of two of them is the product of the cosines of their columns and of their rows, which are two matrix products
on V's device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nmf_xp.arrays import libraries, operators, transfer

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from nmf_xp.arrays.typing import Array, Namespace

    Matrix = np.ndarray[Any, Any]


def cosines(one: tuple[Array, Array], other: tuple[Array, Array], *, xp: Namespace) -> Matrix:
    """The cosine of each component of one pair of factors, (..., m, k) and (..., k, n), with each of another.

    Components of a stack stand one member after the other. The matrix is on the host.
    """
    (W, H), (U, G) = (_unit(one, xp=xp), _unit(other, xp=xp))
    return transfer.to_host(W @ operators.transposed(U)) * transfer.to_host(H @ operators.transposed(G))


def found_again(result: Any) -> Matrix | None:
    """For each restart but the best, and each component of the best, the cosine with the one that is matched with it.

    Most alike are matched first, one to one. None where there are no factors of several restarts.
    """
    import numpy as np

    restarts = result.restarts
    if restarts is None or restarts.W.shape[0] < 2:
        return None
    r = result.W.shape[-1]
    objectives = np.asarray(restarts.objective, dtype=float)
    best = int(np.where(np.isnan(objectives), np.inf, objectives).argmin())
    found = cosines((result.W, result.H), (restarts.W, restarts.H), xp=libraries.array_namespace(result.W))
    return np.stack([_matched(found[:, i * r : (i + 1) * r]) for i in range(restarts.W.shape[0]) if i != best])


def _matched(similarity: Matrix) -> Matrix:
    """For each row its entry in the column that is matched with it."""
    import numpy as np

    left = np.nan_to_num(similarity.astype(float)) + 1.0  # above what is taken already
    found = np.zeros(len(left))
    for _ in range(len(left)):
        row, column = np.unravel_index(left.argmax(), left.shape)
        found[row] = min(left[row, column] - 1.0, 1.0)
        left[row, :] = left[:, column] = 0.0
    return found


def _unit(factors: tuple[Array, Array], *, xp: Namespace) -> Iterator[Array]:
    """The components of W and of H as rows of length 1, or of zeros."""
    for components in (operators.transposed(factors[0]), factors[1]):
        flat = xp.reshape(components, (-1, components.shape[-1]))
        largest = xp.max(flat, axis=1, keepdims=True)
        flat = flat / xp.where(largest > 0, largest, 1.0)
        length = xp.sqrt(xp.sum(flat * flat, axis=1, keepdims=True))
        yield flat / xp.where(length > 0, length, 1.0)
