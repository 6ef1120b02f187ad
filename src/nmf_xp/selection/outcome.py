"""What the selection of a rank returns."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nmf_xp.result import display

if TYPE_CHECKING:
    import numpy as np

    from nmf_xp.result import Result

ROUNDING = 1e-14  # of the largest number of a column, below which one is shown as 0


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
    ``print(selection)`` and a notebook show the table and the recommendation, with 0 for what is rounding;
    `nmf_xp.plot.ranks` and `nmf_xp.plot.consensus` draw them.
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

    def named(self, **names: Any) -> RankSelection:
        """The same with names of rows and columns on the results of all ranks; see `Result.named`."""
        names = {name: labels for name, labels in names.items() if name != "components"}
        return replace(self, best={rank: result.named(**names) for rank, result in self.best.items()})

    def __repr__(self) -> str:
        return f"RankSelection(rank={self.rank}, rule={self.rule!r}, weak={self.weak})"

    def __str__(self) -> str:
        columns = self._columns()
        lines = ["".join(f"{name:>13}" for name in columns)]
        lines += ["".join(f"{cell:>13}" for cell in row) for row in zip(*columns.values(), strict=True)]
        return "\n".join([*lines, self._verdict()])

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return display.columns(self._columns(), self._verdict())

    def _columns(self) -> dict[str, list[str]]:
        """The table as text, in which rounding is 0."""
        import numpy as np

        shown = {}
        for name, column in self.table.items():
            least = ROUNDING * np.abs(column).max()
            shown[name] = [f"{0.0 if abs(x) <= least else x:.6g}" for x in column]
        return shown

    def _verdict(self) -> str:
        verdict = f"Recommended: rank {self.rank}, by the rule {self.rule!r}."
        if self.doubts:
            verdict += f" The evidence is weak: {'; '.join(self.doubts)}."
        return verdict
