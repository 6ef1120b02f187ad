r"""Counts that vary more than Poisson's: the negative binomial loss, with the variance y + alpha y^2 for the mean y.

With a = 1/alpha its deviance is twice the sum of

    d(v | y) = v log(v/y) - (v + a) log((v + a) / (y + a)) = d1(v | y) - a d1(1 + v/a | 1 + y/a)

for the Kullback-Leibler d1. The second term is concave in y, so its tangent at the present Y lies above it (Gouvert,
Oberlin & Fevotte 2020; Pelizzola, Laursen & Hobolth 2023): what is left is Kullback-Leibler with the slope
U = (1 + alpha V) / (1 + alpha Y) in the place of 1. So every solver of that loss serves, on data that are `Sloped`.
Every zero of V counts, with the loss log(1 + alpha y) / alpha: a sparse V is visited as a dense one, a few rows at a
time.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from nmf_xp.arrays import libraries, operators, transfer
from nmf_xp.arrays.checks import check_option, is_real
from nmf_xp.data import Dense, Sparse
from nmf_xp.data.blocks import Part, sweep
from nmf_xp.data.constraints import FREE
from nmf_xp.data.seam import Wrapping
from nmf_xp.data.sloped import Sloped
from nmf_xp.divergences import entry_divergence

if TYPE_CHECKING:
    from collections.abc import Callable

    from nmf_xp.arrays.typing import Array, Namespace
    from nmf_xp.data import Data
    from nmf_xp.problem import Factors

AT_ONCE = 2**20  # entries of a sparse V that are dense at a time
LEAST, MOST = 1e-6, 1e4  # of a dispersion that is found; the least one stands for none


@dataclasses.dataclass(frozen=True)
class NegativeBinomial:
    """A loss for counts that vary more than Poisson's, for `beta_loss`: half the negative binomial deviance.

    Parameters
    ----------
    dispersion : float or "global", default "global"
        alpha: the variance of a count with the mean y is y + alpha y^2. "global" finds the one number that is most
        likely, in turn with the factors; `result.noise` has it, and 1e-6 says that there is none. Towards 0 the loss is
        that of Kullback-Leibler.

    Raises
    ------
    TypeError, ValueError
        `dispersion` is no positive number, nor "global".

    Notes
    -----
    For counts far beyond 1 / alpha the loss is nearly that of Itakura-Saito, and iterations go a small part of the way.
    Give a smaller `tol` and a larger `max_iter` there.

    References
    ----------
    Gouvert, Oberlin & Fevotte (2020), IEEE Signal Processing Letters 27.

    Examples
    --------
    >>> import numpy as np
    >>> from nmf_xp import NegativeBinomial, nmf
    >>> rng = np.random.default_rng(0)
    >>> Y = 20 * rng.random((200, 3)) @ rng.random((3, 100))
    >>> V = rng.poisson(Y * rng.gamma(4.0, 0.25, size=Y.shape))  # alpha = 1/4
    >>> result = nmf(V, 3, beta_loss=NegativeBinomial(), random_state=0)
    >>> bool(abs(result.noise.dispersion - 0.25) < 0.025)
    True
    """

    dispersion: float | str = "global"

    def __post_init__(self) -> None:
        """Refuse what is no dispersion."""
        if isinstance(self.dispersion, str):
            check_option("NegativeBinomial.dispersion", self.dispersion, ("global",))
        elif not (is_real(self.dispersion) and 0 < self.dispersion < math.inf):
            msg = (
                f"`NegativeBinomial.dispersion` must be a positive number or 'global', got {self.dispersion!r}; "
                "for 0 say beta_loss='kullback-leibler'"
            )
            raise ValueError(msg)


class Fields(NamedTuple):
    """What overdispersed data are made of."""

    base: Any
    alpha: Array  # (): in the problem's units


class Overdispersed(Fields, Wrapping):
    """Counts whose loss is the negative binomial one: `base`, one matrix without weights, and the dispersion."""

    @classmethod
    def of(cls, data: Data, alpha: float, *, xp: Namespace) -> Overdispersed:
        """Data with this dispersion."""
        V = data.values
        return cls(data, xp.full((), alpha, dtype=V.dtype, device=libraries.device(V)))

    @property
    def T(self) -> Overdispersed:
        """The transposed problem."""
        return Overdispersed(self.base.T, self.alpha)

    def member(self, i: int) -> Overdispersed:
        """One member of a stack."""
        return self._replace(base=self.base.member(i))

    def select(self, indices: Array, *, xp: Namespace) -> Overdispersed:
        """Some members of a stack."""
        return self._replace(base=self.base.select(indices, xp=xp))

    def renewed(self, W: Array, H: Array, _: Any, *, whole: bool = False, beta: float, xp: Namespace) -> Data:
        """The data with the slope at these factors; if `whole`, with that of the transposed problem too."""
        along = self._slope(self.base, W, H, xp=xp)
        if not whole:
            return Sloped(self.base, along)
        Ht, Wt = operators.transposed(H), operators.transposed(W)
        return Sloped(self.base, along, self._slope(self.base.T, Ht, Wt, xp=xp))

    def divergence(self, W: Array, H: Array, _: Any, *, beta: float, xp: Namespace) -> Array:
        """Half the deviance: (...,)."""
        dtype = libraries.accumulator_dtype(xp, libraries.device(W))

        def of_block(block: Dense, W: Array) -> Part:
            return Part(None, (xp.sum(self._entries(block, W, H, xp=xp), axis=(-2, -1), dtype=dtype),))

        return operators.at_least(_visited(of_block, self.base, W, xp=xp).sums[0], 0.0, xp=xp)

    def penalty(self, W: Array, H: Array, *, xp: Namespace) -> Array | float:
        """Nothing."""
        return 0.0

    def _entries(self, block: Dense, W: Array, H: Array, *, xp: Namespace) -> Array:
        """d(v | y), entry by entry, from two forms of it.

        Where alpha y is large the terms of the usual form are as large as the counts, and cancel. There it is

            v log1p((v - y) / (y (1 + alpha v))) - log1p(alpha (v - y) / (1 + alpha y)) / alpha.
        """
        V, Y, alpha = block.values, block.predict(W, H, xp=xp), self.alpha
        settings: Any = {"beta": 1.0, "xp": xp}
        v, y = 1.0 + alpha * V, 1.0 + alpha * Y
        usual = entry_divergence(V, Y, **settings) - entry_divergence(v, y, **settings) / alpha
        seen = xp.logical_and(V > 0, alpha * Y > 1.0)
        above = xp.where(seen, Y, 1.0)
        first = V * xp.log1p(xp.where(seen, (V - Y) / above / v, 0.0))
        far = first - xp.log1p(alpha * ((V - Y) / y)) / alpha
        return operators.at_least(xp.where(seen, far, usual), 0.0, xp=xp)

    def _slope(self, base: Data, W: Array, H: Array, *, xp: Namespace) -> Array:
        """U H^T: (..., m, r)."""

        def of_block(block: Dense, W: Array) -> Part:
            U = (1.0 + self.alpha * block.values) / (1.0 + self.alpha * block.predict(W, H, xp=xp))
            return Part(block.contract(U, H, xp=xp), ())

        return _visited(of_block, base, W, xp=xp).rows


def _visited(function: Callable[[Dense, Array], Part], data: Any, W: Array, *, xp: Namespace) -> Part:
    """The function over row blocks of the data, each of them dense: rows concatenated, sums added up."""
    if not isinstance(data, Sparse):
        return sweep(lambda block, W, _: function(cast("Dense", block), W), data, W, FREE, xp=xp)
    m, n = data.shape
    step = max(1, AT_ONCE // n)
    starts = range(0, m, step)
    parts = []
    for start in starts:
        stop = min(start + step, m)
        block = data if stop - start == m else data.rows(start, stop)
        parts.append(function(Dense(block.dense(xp=xp)), W[..., start:stop, :]))
    rows = None if parts[0].rows is None else xp.concat([part.rows for part in parts], axis=-2)
    return Part(rows, tuple(sum(terms[1:], terms[0]) for terms in zip(*(part.sums for part in parts), strict=True)))


def likeliest(data: Any, factors: Factors, *, unit: float, xp: Namespace) -> float:
    """The dispersion under which counts with the means WH are most likely, for V and WH in this `unit`.

    Newton's method on its logarithm, within a bracket of the signs of the derivative that were seen.
    """
    W, H = factors
    dtype = libraries.accumulator_dtype(xp, libraries.device(W))

    def derivatives(a: float) -> tuple[float, float]:
        """Those of the log-likelihood in log a, the first and the second."""

        def of_block(block: Dense, W: Array) -> Part:
            V, Y = unit * block.values, unit * block.predict(W, H, xp=xp)
            first, second = digammas(V + a, xp=xp)
            slope = first - xp.log(a + Y) - (V + a) / (a + Y)
            curvature = second - 1.0 / (a + Y) + (V - Y) / (a + Y) ** 2
            return Part(None, tuple(xp.sum(x, dtype=dtype) for x in (slope, curvature)))

        count = math.prod(data.shape)
        of_v, bent = (transfer.scalar(x) for x in _visited(of_block, data, W, xp=xp).sums)
        alone = xp.full((), a, dtype=dtype, device=libraries.device(W))
        first, second = (transfer.scalar(x) for x in digammas(alone, xp=xp))
        slope = of_v + count * (math.log(a) + 1.0 - first)
        return a * slope, a * slope + a * a * (bent + count * (1.0 / a - second))

    low, high = -math.log(MOST), -math.log(LEAST)
    if derivatives(math.exp(high))[0] >= 0:  # the counts vary no more than Poisson's
        return LEAST
    t = 0.0
    for _ in range(60):
        slope, curvature = derivatives(math.exp(t))
        low, high = (t, high) if slope > 0 else (low, t)
        new = t - slope / curvature if curvature < 0 else math.inf
        new = new if low < new < high else 0.5 * (low + high)
        if abs(new - t) < 1e-6:
            break
        t = new
    return math.exp(-t)


def digammas(x: Array, *, xp: Namespace) -> tuple[Array, Array]:
    """The first two derivatives of log Gamma at positive numbers: by their recurrence to 8 and beyond, and its series.

    Abramowitz & Stegun (1964), 6.3.5, 6.3.18, 6.4.6 and 6.4.12.
    """
    first: Any = 0.0
    second: Any = 0.0
    for _ in range(8):
        first, second = first - 1.0 / x, second + 1.0 / x / x
        x = x + 1.0
    inverse = 1.0 / x
    square = inverse * inverse
    series = square * (1 / 12 - square * (1 / 120 - square * (1 / 252 - square * (1 / 240 - square / 132))))
    first = first + xp.log(x) - 0.5 * inverse - series
    series = square * (1 / 6 - square * (1 / 30 - square * (1 / 42 - square * (1 / 30 - square * (5 / 66)))))
    return first, second + inverse * (1.0 + 0.5 * inverse + series)
