"""The columns of V that speak for each component: by their share of it, or by how far they tell it from the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nmf_xp.arrays import transfer
from nmf_xp.arrays.checks import check_integer, check_option
from nmf_xp.data.naming import text
from nmf_xp.files import in_line
from nmf_xp.result.frames import component_names

if TYPE_CHECKING:
    from collections.abc import Hashable

    import numpy as np

    Matrix = np.ndarray[Any, Any]

WAYS = ("share", "specific")
LEAST = 1e-3  # of the share of each column, if all were equal: what an entry of another component counts as at least


@dataclass(frozen=True, repr=False)
class TopFeatures:
    """The features of each component, those that say most first.

    Attributes
    ----------
    names : dict
        For each component, by its name, the names of its features, or their numbers where V has no names.
    scores : dict
        For each component the numbers by which they are ordered, between 0 and 1 for ``by="share"``.
    by : {"share", "specific"}
        What the numbers are.

    Notes
    -----
    ``top["component_0"]`` is the tuple of names of one component, and ``print(top)`` shows all.
    """

    names: dict[Hashable, tuple[Hashable, ...]]
    scores: dict[Hashable, tuple[float, ...]]
    by: str

    def __getitem__(self, component: Hashable) -> tuple[Hashable, ...]:
        return self.names[component]

    def __repr__(self) -> str:
        return f"TopFeatures({len(self.names)} components, by={self.by!r})"

    def __str__(self) -> str:
        called = {component: in_line(text(component)) for component in self.names}
        width = max(map(len, called.values()))
        sign = ".1%" if self.by == "share" else ".3g"
        lines = []
        for component, names in self.names.items():
            said = (f"{in_line(text(name))} {x:{sign}}" for name, x in zip(names, self.scores[component], strict=True))
            lines.append(f"{called[component]:<{width}}  {', '.join(said)}")
        return "\n".join(lines)


def top_features(result: Any, n: int, by: str) -> TopFeatures:
    """The `n` features of each component that say most; see `Result.top`."""
    import numpy as np

    check_integer("n", n, minimum=1)
    check_option("by", by, WAYS)
    H = transfer.to_host(result.H)
    if H.ndim != 2:
        msg = f"only one member of a stack, such as result[0], has features, got H of shape {tuple(H.shape)}"
        raise TypeError(msg)
    shares = _shares(H)
    scores = shares if by == "share" else specific(shares)
    labels = result.column_names or tuple(range(H.shape[1]))
    names: dict[Hashable, tuple[Hashable, ...]] = {}
    numbers: dict[Hashable, tuple[float, ...]] = {}
    for name, row in zip(component_names(result), scores, strict=True):
        first = [j for j in np.argsort(-row, kind="stable")[:n].tolist() if row[j] > 0]
        names[name] = tuple(labels[j] for j in first)
        numbers[name] = tuple(row[first].tolist())
    return TopFeatures(names, numbers, by)


def _shares(H: Matrix) -> Matrix:
    """Each row divided by its sum, relative to its largest entry first, as sums may be beyond the numbers."""
    import numpy as np

    largest = H.max(axis=1, keepdims=True).astype(float)
    H = H / np.where(largest > 0, largest, 1.0)
    return H / np.maximum(H.sum(axis=1, keepdims=True), 1.0)


def specific(shares: Matrix) -> Matrix:
    """p log(p / q) - p + q, where p is a feature's share of a component, and q its largest share of any other.

    It is the least of the Kullback-Leibler distances to the others (Dey, Hsiao & Stephens 2017, PLoS Genetics 13(3):
    e1006599), and 0 where another component has more of the feature. Alone, a component is compared with equal shares.
    """
    import numpy as np

    r, n = shares.shape
    if r == 1:
        others = np.full_like(shares, 1 / n)
    else:
        ordered = np.sort(shares, axis=0)
        others = np.where(shares == ordered[-1], ordered[-2], ordered[-1])
    others = np.maximum(others, LEAST / n)
    ahead = shares > others
    p = np.where(ahead, shares, 1.0)
    return np.where(ahead, p * np.log(p / others) - p + others, 0.0)
