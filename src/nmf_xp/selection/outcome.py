"""What the selection of a rank returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from nmf_xp.result import Result


@dataclass(frozen=True, repr=False)
class RankSelection:
    """How the ranks compare, and the one that is recommended.

    Attributes
    ----------
    rank : int
        The recommended rank.
    rule : {"held-out", "bi-cross-validation", "relevance", "cophenetic", "stability"}
        The rule that recommends it.
    doubts : tuple of str
        What makes the evidence for it weak; empty where nothing does.
    table : dict of str to numpy.ndarray
        Columns of one length, which ``pandas.DataFrame(selection.table)`` takes as they are: "rank"; "divergence",
        that of the best restart; "cophenetic", "dispersion", "matched" and "amari", the agreement of the restarts;
        "relevance", in row k that of component k of the largest rank, in falling order, 0 where it is not needed;
        and with a rule that predicts "loss", the mean divergence of an entry that was held out, and "loss_error", its
        standard error.
    consensus : dict of int to numpy.ndarray
        For each rank, how often two columns of V are in one group: shape (n, n), on the host.
    best : dict of int to Result
        For each rank the best restart.

    Notes
    -----
    ``print(selection)`` shows the table and the recommendation; `nmf_xp.plot.ranks` and `nmf_xp.plot.consensus` draw
    them.
    """

    rank: int
    rule: str
    doubts: tuple[str, ...]
    table: dict[str, np.ndarray[Any, Any]]
    consensus: dict[int, np.ndarray[Any, Any]]
    best: dict[int, Result]

    @property
    def weak(self) -> bool:
        """Whether the evidence is weak."""
        return bool(self.doubts)

    def __repr__(self) -> str:
        return f"RankSelection(rank={self.rank}, rule={self.rule!r}, weak={self.weak})"

    def __str__(self) -> str:
        lines = ["".join(f"{name:>13}" for name in self.table)]
        lines += ["".join(f"{x:>13.6g}" for x in row) for row in zip(*self.table.values(), strict=True)]
        verdict = f"Recommended: rank {self.rank}, by the rule {self.rule!r}."
        if self.doubts:
            verdict += f" The evidence is weak: {'; '.join(self.doubts)}."
        return "\n".join([*lines, verdict])
