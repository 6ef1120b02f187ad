"""Losses that a few wrong entries or rows of V do not rule: a concave function of the divergence of each.

With phi concave, phi(d) lies below its tangent at the present d. So the divergence with the weights phi'(d) majorises
the loss, and whatever lowers the one lowers the other (Holland & Welsch 1977; for NMF Hamza & Brady 2006). The weights
are renewed before each factor is updated, by any solver. For the divergence of a row they are weights of rows (Kong,
Ding & Huang 2011), so that the zeros of a sparse V stay what they are.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.arrays import libraries, operators, transfer
from nmf_xp.arrays.checks import check_option, is_real
from nmf_xp.data.seam import Wrapping
from nmf_xp.data.weighted import LineWeighted, Weighted, with_row_weights
from nmf_xp.divergences import check_beta, entry_divergence

if TYPE_CHECKING:
    from nmf_xp.arrays.typing import Array, Namespace
    from nmf_xp.data import Data

EFFICIENT = {"huber": 0.5 * 1.345**2, "cauchy": 0.5 * 2.385**2, "welsch": 0.5 * 2.985**2}
"""The scales at which estimates from normal errors of variance one lose 5 % of their efficiency (the same)."""
MEDIAN = 0.5 * 0.674490**2
"""The median of the divergence x^2 / 2 of such errors."""
ROWS = {"huber": 1.0, "cauchy": 1.0, "welsch": 3.0}
"""The scales for rows whose median divergence is one.

The divergences of rows of many entries are nearly the same for one distribution of errors, so little is lost. And a
larger scale lets loud rows have a component each.
"""


@dataclasses.dataclass(frozen=True)
class Robust:
    """A loss for data with outliers, for `beta_loss`: the sum of phi(d) over the entries or the rows of V.

    d is the beta-divergence of an entry, or the sum of those of a row.

    Parameters
    ----------
    beta : float or {"frobenius", "kullback-leibler", "itakura-saito"}, default "frobenius"
        The beta of the divergence d.
    phi : {"huber", "cauchy", "welsch"}, default "huber"
        Up to the scale s they are close to d; beyond it they grow less, and the weight phi'(d) falls:

        - "huber": d up to s, then 2 sqrt(s d) - s; the weight is min(1, sqrt(s / d)).
        - "cauchy": s log(1 + d / s); the weight is 1 / (1 + d / s).
        - "welsch": s (1 - exp(-d / s)); the weight is exp(-d / s), so that what is far does not count.
    scale : float, optional
        s, in the units of the divergence: for "frobenius" half the square of V's. By default it is found from a short
        fit without it: for entries such that with normal errors little is lost, for rows the median of their
        divergences, for "welsch" three times as much. Infinite: phi(d) = d.
    of : {"entries", "rows"}, default "entries"
        What is doubted. "rows": each row of V as a whole. Then V may be sparse, and weights and exposures count within
        d. "huber" with a scale far below all d is, but for a factor, the L2,1 norm of V - WH for "frobenius". Very loud
        rows win a component of their own from it; take "welsch" there.

    Raises
    ------
    TypeError, ValueError
        `beta`, `phi` or `of` is unknown, or `scale` is not positive.

    References
    ----------
    Hamza & Brady (2006), IEEE Transactions on Signal Processing 54, for entries; Kong, Ding & Huang (2011), CIKM, for
    rows.

    Examples
    --------
    >>> import numpy as np
    >>> from nmf_xp import Robust, nmf
    >>> V = np.random.default_rng(0).random((30, 3)) @ np.random.default_rng(1).random((3, 20))
    >>> V[3, 5] = 1000.0  # a wrong entry
    >>> plain = nmf(V, 3, random_state=0)
    >>> robust = nmf(V, 3, beta_loss=Robust("frobenius", "cauchy"), random_state=0)
    >>> bool(np.median(abs(V - robust.W @ robust.H)) < 0.1 * np.median(abs(V - plain.W @ plain.H)))
    True
    """

    beta: float | str = "frobenius"
    phi: str = "huber"
    scale: float | None = None
    of: str = "entries"

    def __post_init__(self) -> None:
        """Refuse what is no loss."""
        check_beta(self.beta)
        check_option("Robust.of", self.of, ("entries", "rows"))
        check_option("Robust.phi", self.phi, tuple(EFFICIENT))
        if self.scale is None:
            return
        if not (is_real(self.scale) and self.scale > 0):
            msg = f"`Robust.scale` must be a positive number, or None to find one, got {self.scale!r}"
            raise ValueError(msg)
        try:
            float(self.scale)
        except OverflowError:
            msg = "`Robust.scale` must be a number that a float can hold, or infinite, got an integer beyond them"
            raise ValueError(msg) from None

    def value(self, d: Array, scale: Array, *, xp: Namespace) -> Array:
        """phi(d), entry by entry."""
        if self.phi == "huber":
            beyond = 2.0 * xp.sqrt(scale * xp.maximum(d, scale)) - scale
            return xp.where(d <= scale, d, beyond)
        ratio = d / scale
        beyond = scale * (xp.log1p(ratio) if self.phi == "cauchy" else -xp.expm1(-ratio))
        # Both begin as d (1 - d / 2s). A small ratio may have lost its digits, or stand for an infinite scale.
        return xp.where(ratio < float(xp.finfo(d.dtype).eps) ** 0.5, d * (1.0 - 0.5 * ratio), beyond)

    def weight(self, d: Array, scale: Array, *, xp: Namespace) -> Array:
        """phi'(d), entry by entry, up to 1.

        It is at least a number whose share of the loss is far below rounding. So a row of which every entry is doubted
        is not taken for one of which nothing is observed.
        """
        if self.phi == "huber":
            weight = xp.sqrt(scale / xp.maximum(d, scale))
        else:
            ratio = d / scale
            weight = 1.0 / (1.0 + ratio) if self.phi == "cauchy" else xp.exp(-ratio)
        return operators.at_least(weight, float(xp.finfo(d.dtype).smallest_normal) ** 0.5, xp=xp)

    def scale_of(self, d: Any, rounding: float) -> float:
        """The scale for divergences from a fit, a NumPy array: of entries as for normal errors of their median.

        That must be more than what `rounding` explains.
        """
        import numpy as np

        median = float(np.median(d))
        if not rounding < median < math.inf:
            what = f"half of the {self.of} are fitted exactly" if median <= rounding else "they are not finite"
            msg = f"`Robust.scale` must be given where it cannot be found from the divergences: {what}"
            raise ValueError(msg)
        return (EFFICIENT[self.phi] / MEDIAN if self.of == "entries" else ROWS[self.phi]) * median


class Fields(NamedTuple):
    """What doubted data are made of."""

    base: Any
    scale: Array  # (), or of each stored entry


class Doubted(Fields, Wrapping):
    """Data whose entries a robust loss may doubt: `base`, with or without weights, and the loss's scale.

    With an exposure U the divergence from the model is c d, for c = U^beta and the d of the `base`, which has c among
    its weights. For each phi here, phi(c d) with the scale s is c phi(d) with the scale s / c. So an exposure is no
    more than a scale for each entry.
    """

    @property
    def T(self) -> Any:
        """The transposed problem."""
        return self._replace(base=self.base.T)

    def member(self, i: int) -> Any:
        """One member of a stack."""
        return type(self)(self.base.member(i), self.scale[i, ...] if self.scale.ndim > 2 else self.scale)

    def select(self, indices: Array, *, xp: Namespace) -> Any:
        """Some members of a stack."""
        scale = xp.take(self.scale, indices, axis=0) if self.scale.ndim > 2 else self.scale
        return type(self)(self.base.select(indices, xp=xp), scale)

    def divergences(self, W: Array, H: Array, *, beta: float, xp: Namespace) -> Array:
        """d(v | WH), entry by entry."""
        Y = self.base.predict(W, H, xp=xp)
        return operators.at_least(entry_divergence(self.base.values, Y, beta=beta, xp=xp), 0.0, xp=xp)

    def divergence(self, W: Array, H: Array, loss: Robust, *, beta: float, xp: Namespace) -> Array:
        """The loss: (...,)."""
        dtype = libraries.accumulator_dtype(xp, libraries.device(W))
        entries = loss.value(self.divergences(W, H, beta=beta, xp=xp), self.scale, xp=xp)
        return self.base.sum(entries, dtype=dtype, xp=xp)

    def penalty(self, W: Array, H: Array, *, xp: Namespace) -> float:
        """Nothing."""
        return 0.0

    def renewed(self, W: Array, H: Array, loss: Robust, *, whole: bool = False, beta: float, xp: Namespace) -> Data:
        """The data with the weights that the loss gives to their entries at these factors."""
        weights = loss.weight(self.divergences(W, H, beta=beta, xp=xp), self.scale, xp=xp)
        if isinstance(self.base, Weighted):
            return Weighted(self.base.base, self.base.weights * weights)
        return Weighted(self.base, weights)

    def weights_of_rows(self, W: Array, H: Array, loss: Robust, *, beta: float, xp: Namespace) -> Array:
        """The mean of the weights that the loss gives to the observed entries of each row: (..., m)."""
        weights = loss.weight(self.divergences(W, H, beta=beta, xp=xp), self.scale, xp=xp)
        observed = _observed(self.base, xp.ones_like(weights), xp=xp)
        plain, ones = getattr(self.base, "base", self.base), xp.ones_like(H[..., :1, :])
        count = plain.contract(observed, ones, xp=xp)
        total = plain.contract(observed * weights, ones, xp=xp)
        return xp.where(count > 0, total / operators.at_least(count, 1.0, xp=xp), 1.0)[..., 0]

    def seen(self, W: Array, H: Array, *, beta: float, xp: Namespace) -> tuple[Any, float]:
        """The divergences that count for a scale of 1, on the host, and what of them rounding explains."""
        d = self.divergences(W, H, beta=beta, xp=xp) / self.scale
        observed = _observed(self.base, xp.ones_like(d), xp=xp)
        size = (xp.max if beta > 0 else xp.min)(self.values**beta / self.scale)
        rounding = (16.0 * float(xp.finfo(d.dtype).eps)) ** 2
        return transfer.to_host(d)[transfer.to_host(observed) > 0], rounding * transfer.scalar(size)


class DoubtedRows(Doubted):
    """Data of which a robust loss may doubt whole rows: the scale is one number.

    Weights and exposures count within the divergence of a row.
    """

    @property
    def T(self) -> Any:
        """The transposed problem."""
        return DoubtedColumns(self.base.T, self.scale)

    def divergences(self, W: Array, H: Array, *, beta: float, xp: Namespace) -> Array:
        """The divergence of each row: (..., m, 1)."""
        base, Y = self.base, self.base.predict(W, H, xp=xp)
        entries = operators.at_least(entry_divergence(base.values, Y, beta=beta, xp=xp), 0.0, xp=xp)
        stored = base.contract(_observed(base, entries, xp=xp), xp.ones_like(H[..., :1, :]), xp=xp)
        if not base.has_absent:
            return stored
        dtype = libraries.accumulator_dtype(xp, libraries.device(W))
        absent = base.absent_of_rows(W, H, Y, stored, beta=beta, dtype=dtype, xp=xp)
        return stored + xp.astype(absent, stored.dtype, copy=False)

    def divergence(self, W: Array, H: Array, loss: Robust, *, beta: float, xp: Namespace) -> Array:
        """The loss: (...,)."""
        dtype = libraries.accumulator_dtype(xp, libraries.device(W))
        rows = loss.value(self.divergences(W, H, beta=beta, xp=xp), self.scale, xp=xp)
        return xp.sum(rows, axis=(-2, -1), dtype=dtype)

    def renewed(self, W: Array, H: Array, loss: Robust, *, whole: bool = False, beta: float, xp: Namespace) -> Data:
        """The data with the weights that the loss gives to their rows at these factors."""
        return with_row_weights(self.base, self._weights(W, H, loss, beta=beta, xp=xp), xp=xp)

    def weights_of_rows(self, W: Array, H: Array, loss: Robust, *, beta: float, xp: Namespace) -> Array:
        """The weights that the loss gives to the rows: (..., m)."""
        return self._weights(W, H, loss, beta=beta, xp=xp)[..., 0]

    def seen(self, W: Array, H: Array, *, beta: float, xp: Namespace) -> tuple[Any, float]:
        """The divergences that count, on the host, and what of them rounding explains.

        Rows without a positive entry that is observed have none to speak of, however many they are.
        """
        base, d = self.base, self.divergences(W, H, beta=beta, xp=xp)
        ones, eps = xp.ones_like(H[..., :1, :]), float(xp.finfo(d.dtype).eps)
        size = base.contract(_observed(base, base.values**beta, xp=xp), ones, xp=xp)
        rounding = eps if base.has_absent else (16.0 * eps) ** 2  # what is absent is a difference
        positive = transfer.to_host(size) > 0
        d = transfer.to_host(d)
        return d[positive] if positive.any() else d, rounding * transfer.scalar((xp.max if beta > 0 else xp.min)(size))

    def _weights(self, W: Array, H: Array, loss: Robust, *, beta: float, xp: Namespace) -> Array:
        return loss.weight(self.divergences(W, H, beta=beta, xp=xp), self.scale, xp=xp)


class DoubtedColumns(DoubtedRows):
    """The transposed problem, whose columns are the rows that may be doubted."""

    @property
    def T(self) -> Any:
        """The problem as it was."""
        return DoubtedRows(self.base.T, self.scale)

    def renewed(self, W: Array, H: Array, loss: Robust, *, whole: bool = False, beta: float, xp: Namespace) -> Data:
        """The data with the weights that the loss gives to their columns at these factors."""
        turned = operators.transposed(H), operators.transposed(W)
        return self.T.renewed(*turned, loss, whole=whole, beta=beta, xp=xp).T


def _observed(data: Any, entries: Array, *, xp: Namespace) -> Array:
    """The entries, and 0 where nothing is observed: what stands there may be infinitely far from its model."""
    if not data.weighted:
        return entries
    weights = data.stored if isinstance(data, LineWeighted) else data.weights
    return xp.where(weights > 0, entries, 0.0)
