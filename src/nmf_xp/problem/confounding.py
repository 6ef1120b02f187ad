"""What each batch holds of each component, on the host: where that is all, nothing tells component and batch apart."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    import numpy as np

    HostArray = np.ndarray[Any, Any]

ALONE = 0.99  # of a component, which then lives in one batch
LISTED = 5  # components in a message


class ConfoundingWarning(UserWarning):
    """A component lives in one batch only, so that it cannot be told from an effect of the batch."""


def loadings_of(W: HostArray, codes: HostArray, count: int) -> HostArray:
    """The sums of W (..., m, r) over the rows of each batch, (..., G, r), for the numbers (m,) of each member's."""
    import numpy as np

    found = np.zeros((*W.shape[:-2], count, W.shape[-1]), dtype=W.dtype)
    for member in np.ndindex(W.shape[:-2]):
        np.add.at(found[member], codes if codes.ndim == 1 else codes[member], W[member])
    return found


def held(loadings: HostArray, H: HostArray, table: HostArray) -> HostArray:
    """The share of each component (r) that is in each batch, (G, r), of the model with the effects."""
    import numpy as np

    parts = loadings * (table @ H.T)
    return parts / np.maximum(parts.sum(axis=0), np.finfo(parts.dtype).tiny)


def alone(loadings: HostArray, H: HostArray, table: HostArray) -> HostArray:
    """Which component lives in which batch, (G, r), where not all of the model does."""
    parts = loadings * (table @ H.T)
    some: HostArray = parts.sum(axis=1, keepdims=True) < ALONE * parts.sum()
    return (held(loadings, H, table) >= ALONE) & some


def moved(loadings: HostArray, H: HostArray, table: HostArray) -> HostArray:
    """The share of each component (r) that the effects change: from 0, without them, to 1.

    It is the sum of |B - 1| over what the component has without effects, divided by that of the larger of both.
    """
    import numpy as np

    change, larger = (loadings * (x @ H.T) for x in (np.abs(table - 1.0), np.maximum(table, 1.0)))
    return change.sum(axis=0) / np.maximum(larger.sum(axis=0), np.finfo(change.dtype).tiny)


def warn_of_confounded(
    loadings: HostArray, H: HostArray, table: HostArray, labels: Sequence[Hashable], *, stacklevel: int
) -> None:
    """Say which components live in one batch, in one matrix or in the members of a stack."""
    import numpy as np

    found: list[str] = []
    for member in np.ndindex(loadings.shape[:-2]):
        which = f" of member {', '.join(map(str, member))}" if member else ""
        pairs = np.argwhere(alone(loadings[member], H[member], table[member])).tolist()
        found.extend(f"component {k}{which} in {labels[g]!r}" for g, k in pairs)
    if found:
        more = f" and {len(found) - LISTED} more" if len(found) > LISTED else ""
        msg = (
            f"{', '.join(found[:LISTED])}{more}: of a component that lives in one batch only, nothing tells "
            "whether it is an effect of the batch or a difference of its rows"
        )
        warnings.warn(msg, ConfoundingWarning, stacklevel=stacklevel)
