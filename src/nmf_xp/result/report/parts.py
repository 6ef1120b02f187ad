"""The components as the page speaks of them: the largest first, each with its name and its shares."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nmf_xp.result.report.markup import name

if TYPE_CHECKING:
    from nmf_xp.files import HostArray
    from nmf_xp.result.report.stored import Stored

SAME = 0.9  # the cosine from which on a component counts as found again


class Part(NamedTuple):
    """A component."""

    number: int  # its row in H
    name: str  # escaped
    share: float  # of the model
    columns: HostArray  # (n,), of the component, which sums to 1
    rows: HostArray  # (m,), of the model of each row of V
    found: int | None  # how many other starts have it too


def parts_of(stored: Stored) -> list[Part]:
    """The components, the largest first."""
    # Relative to the largest entries, whose sums and products may be beyond the numbers.
    W, H = (x.astype(float) / (float(x.max()) or 1.0) for x in (stored.W, stored.H))
    within, across = _shares(H), _shares((W * H.sum(axis=1)).T, axis=0)
    amount = W.sum(axis=0) * H.sum(axis=1)
    share = amount / (amount.sum() or 1.0)
    again = stored.cells("restart_cosines")
    found = None if again is None or again.shape[1] != len(H) else (again >= SAME).sum(axis=0).tolist()
    names = stored.component_names
    return [
        Part(
            k,
            f"H[{k}]" if names is None else name(names[k]),
            float(share[k]),
            within[k],
            across[k],
            None if found is None else found[k],
        )
        for k in np.argsort(-share, kind="stable").tolist()
    ]


def _shares(x: HostArray, axis: int = 1) -> HostArray:
    """What is not negative divided by its sums, relative to its largest entries first; 0 where all is 0."""
    x = x / np.maximum(x.max(axis=axis, keepdims=True), np.finfo(float).tiny)
    sums = x.sum(axis=axis, keepdims=True)
    return x / np.where(sums > 0, sums, 1.0)
