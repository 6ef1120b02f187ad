"""What the comparison of losses returns."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nmf_xp.result import display, frames

if TYPE_CHECKING:
    import numpy as np

    from nmf_xp.result import Result

APART = 2.0  # standard errors of a difference, beyond which two losses are told apart
NONE = 1e-5  # a dispersion up to which a negative binomial is Poisson's
NEAR = 2.0  # by which factor Pearson's number may differ from 1
SHORT = {"log_probability": "log prob.", "error": "error", "pearson": "Pearson", "dispersion": "dispersion"}


@dataclass(frozen=True, repr=False)
class LossComparison:
    """How well the noise of each loss predicts what a fit has not seen, and the loss that is recommended.

    Attributes
    ----------
    recommended : float, str or NegativeBinomial
        The loss to take, as `beta_loss` has it: of those that cannot be told apart from the best one, the first without
        a dispersion to find, else the best.
    doubts : tuple of str
        What makes the evidence for it weak; empty where nothing does.
    losses : tuple
        All losses, in the order of the table.
    table : dict of str to numpy.ndarray
        Columns of one length: "noise"; "log_probability", the mean of an entry that was not seen (a log-density for
        numbers that are no counts); "error", its standard error over the splits; "pearson", the mean of
        (V - WH)^2 / variance over the degrees of freedom in a fit of all of V, which is near 1 for the right noise;
        "dispersion", in that fit, NaN for Poisson. It is the variance of the Gaussian, the inverse shape of gamma, phi
        of Tweedie and alpha of the negative binomial, of which the mean is shown where there are several.
    differences, errors : numpy.ndarray
        In row i and column j how much more log-probability the loss i gives to an entry than j, and the standard error
        of that: the larger of those over the splits and over the entries (Vuong 1989).
    fits : dict of str to Result
        For each noise the fit of all of V.

    Notes
    -----
    ``print(comparison)`` and a notebook show the table; `nmf_xp.plot.losses` draws it.
    """

    recommended: Any
    doubts: tuple[str, ...]
    losses: tuple[Any, ...]
    table: dict[str, np.ndarray[Any, Any]]
    differences: np.ndarray[Any, Any]
    errors: np.ndarray[Any, Any]
    fits: dict[str, Result]

    @property
    def weak(self) -> bool:
        """Whether the evidence is weak."""
        return bool(self.doubts)

    @property
    def noise(self) -> str:
        """The name of the noise that is recommended."""
        return str(self.table["noise"][self.losses.index(self.recommended)])

    @property
    def best(self) -> Result:
        """The fit of all of V with the loss that is recommended."""
        return self.fits[self.noise]

    def to_frame(self, *, kind: str | None = None) -> Any:
        """The table as a table of pandas, or of "polars" or "pyarrow" if `kind` says so."""
        return frames.made({name: column.tolist() for name, column in self.table.items()}, kind or "pandas")

    def named(self, **names: Any) -> LossComparison:
        """The same with names of rows and columns on all fits; see `Result.named`."""
        return replace(self, fits={noise: fit.named(**names) for noise, fit in self.fits.items()})

    def __repr__(self) -> str:
        columns = self._columns()
        widths = [max(map(len, (name, *cells))) for name, cells in columns.items()]
        rows = [list(columns), *map(list, zip(*columns.values(), strict=True))]
        shown = [
            "  ".join(f"{cell:<{width}}" if i == 0 else f"{cell:>{width}}" for i, (cell, width) in enumerate(pairs))
            for pairs in (list(zip(row, widths, strict=True)) for row in rows)
        ]
        return "\n".join([*shown, self._verdict()])

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return display.columns(self._columns(), self._verdict())

    def _columns(self) -> dict[str, list[str]]:
        """The table as text."""
        shown = {"noise": [str(name) for name in self.table["noise"]]}
        for name, short in SHORT.items():
            how = ".4f" if name in ("log_probability", "error") else ".3g"
            shown[short] = ["-" if x != x else format(x, how) for x in self.table[name].tolist()]
        return shown

    def _verdict(self) -> str:
        verdict = f"Recommended: {self.noise}, beta_loss={self.recommended!r}."
        if self.doubts:
            verdict += f" The evidence is weak: {'; '.join(self.doubts)}."
        return verdict


def compared(table: dict[str, Any], simple: list[bool], differences: Any, errors: Any) -> tuple[int, tuple[str, ...]]:
    """Which of the losses is recommended, and what speaks against it. The `simple` ones have no dispersion to find."""
    import numpy as np

    names, pearson = table["noise"], table["pearson"]
    best = int(np.argmax(table["log_probability"]))
    near = [i for i in range(len(names)) if differences[best, i] <= APART * errors[best, i]]
    if not simple[best] and table["dispersion"][best] <= NONE:  # it is Poisson's then, however small its error
        near = sorted({*near, *np.flatnonzero(np.isnan(table["dispersion"])).tolist()})
    chosen = next((i for i in near if simple[i]), best)
    doubts = [
        f"{names[i]} cannot be told apart from it, as they differ by {abs(differences[chosen, i]):.2g} an entry, "
        f"with a standard error of {errors[chosen, i]:.2g}"
        for i in near
        if i != chosen and not (simple[chosen] and table["dispersion"][i] <= NONE)
    ]
    if pearson[chosen] > NEAR:
        doubts.append(
            f"V varies {pearson[chosen]:.2g} times as much as {names[chosen]}: by another noise, or more rank"
        )
    if pearson[chosen] < 1.0 / NEAR:
        doubts.append(f"V varies only {pearson[chosen]:.2g} times as much as {names[chosen]}")
    return chosen, tuple(doubts)
