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
import functools
import hashlib
import math
import operator
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from nmf_xp.arrays import libraries, operators, transfer
from nmf_xp.arrays.checks import check_option, is_real
from nmf_xp.data import Dense, Sparse
from nmf_xp.data.blocks import Part, sweep
from nmf_xp.data.constraints import FREE
from nmf_xp.data.dense import DenseTransposed
from nmf_xp.data.exposed import at_stored
from nmf_xp.data.seam import Wrapping
from nmf_xp.data.sloped import Sloped
from nmf_xp.data.tabled import ByBatch, sums_of_batches
from nmf_xp.data.weighted import LineWeighted, Weighted
from nmf_xp.divergences import entry_divergence

if TYPE_CHECKING:
    from collections.abc import Callable

    from nmf_xp.arrays.typing import Array, Namespace
    from nmf_xp.data import Data
    from nmf_xp.problem.effects import Effects

AT_ONCE = 2**20  # entries of a sparse V that are dense at a time
AXES = {"global": (-2, -1), "row": -1, "column": -2}
"""Along which counts share a dispersion."""


@dataclasses.dataclass(frozen=True, eq=False)
class NegativeBinomial:
    """A loss for counts that vary more than Poisson's, for `beta_loss`: half the negative binomial deviance.

    Parameters
    ----------
    dispersion : float, {"global", "row", "column"} or array, shape (m, 1) or (1, n), default "global"
        alpha: the variance of a count with the mean y is y + alpha y^2. "global" finds the one number that is most
        likely, in turn with the factors, "row" one for each row of V and "column" one for each column; `result.noise`
        has them, and 1e-6 says that there is none. Towards 0 the loss is that of Kullback-Leibler.

    Raises
    ------
    TypeError, ValueError
        `dispersion` has a number that is not positive and finite, or is no name, or of another shape.

    Notes
    -----
    A dispersion that is found from few counts is uncertain, and too small by about the share of the counts that the
    factors use up.

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

    dispersion: Any = "global"

    def __post_init__(self) -> None:
        """Refuse what is no dispersion, and keep an array as one of NumPy."""
        given = self.dispersion
        if libraries.is_array(given) and given.ndim == 0 and libraries.is_readable(given):
            given = transfer.scalar(given)
            object.__setattr__(self, "dispersion", given)
        if isinstance(given, str):
            check_option("NegativeBinomial.dispersion", given, tuple(AXES))
            return
        if libraries.is_array(given) or isinstance(given, list | tuple):
            object.__setattr__(self, "dispersion", _checked(given))
        elif not (is_real(given) and 0 < given < math.inf):
            msg = (
                f"`NegativeBinomial.dispersion` must be a positive number, an array of them, 'global', 'row' or "
                f"'column', got {given!r}; for 0 say beta_loss='kullback-leibler'"
            )
            raise ValueError(msg)

    @property
    def of(self) -> str:
        """What has a dispersion of its own: "global", "row" or "column"."""
        if isinstance(self.dispersion, str):
            return self.dispersion
        rows, columns = getattr(self.dispersion, "shape", (1, 1))
        return "row" if rows > 1 else "column" if columns > 1 else "global"

    @property
    def for_other_rows(self) -> NegativeBinomial:
        """The same loss of other rows of V: dispersions of rows are theirs, and found anew."""
        return NegativeBinomial("row") if self.of == "row" else self

    @property
    def identity(self) -> str:
        """What tells this loss from others, for a checkpoint."""
        return f"{self} {hashlib.blake2b(repr(self._key).encode(), digest_size=8).hexdigest()}"

    def __eq__(self, other: object) -> bool:
        """Whether it is the same loss, to the last digit."""
        return isinstance(other, NegativeBinomial) and self._key == other._key

    def __hash__(self) -> int:
        """A number for the same losses."""
        return hash(self._key)

    @property
    def _key(self) -> Any:
        x = self.dispersion
        return (x.shape, *x.ravel().tolist()) if libraries.is_array(x) else x

    def __str__(self) -> str:
        """In words."""
        if isinstance(self.dispersion, str):
            return f"negative binomial, a dispersion found {_SHARED[self.dispersion]}"
        if not libraries.is_array(self.dispersion):
            return f"negative binomial, dispersion {self.dispersion:.4g}"
        low, high = float(self.dispersion.min()), float(self.dispersion.max())
        return f"negative binomial, a dispersion {_SHARED[self.of]}, {low:.4g} to {high:.4g}"


def as_negative_binomial(beta_loss: Any) -> NegativeBinomial | None:
    """The negative binomial loss that `beta_loss` is or names; None for another one."""
    if isinstance(beta_loss, str) and beta_loss == "negative-binomial":
        return NegativeBinomial()
    return beta_loss if isinstance(beta_loss, NegativeBinomial) else None


_SHARED = {"global": "for all", "row": "for each row", "column": "for each column"}


def _checked(given: Any) -> Any:
    """Dispersions as a NumPy array, (m, 1) or (1, n)."""
    import numpy as np

    if libraries.is_array(given) and not libraries.is_readable(given):
        msg = "`NegativeBinomial.dispersion` must have values in a compiled function, got a traced array"
        raise TypeError(msg)
    try:
        found = np.array(transfer.to_host(given) if libraries.is_array(given) else given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        msg = f"`NegativeBinomial.dispersion` must be an array of numbers, got {given!r}"
        raise TypeError(msg) from error
    if found.ndim != 2 or 1 not in found.shape or not found.size:
        msg = (
            "`NegativeBinomial.dispersion` must have the shape (m, 1), a number for each row, or (1, n), one for each "
            f"column, got {found.shape}; x[:, None] or x[None, :] makes it so"
        )
        raise ValueError(msg)
    if not (np.isfinite(found).all() and found.min() > 0):
        msg = (
            "`NegativeBinomial.dispersion` must be of positive and finite numbers, got "
            f"{found[~((found > 0) & np.isfinite(found))][0]:g}; 1e-6 stands for none"
        )
        raise ValueError(msg)
    found.flags.writeable = False
    return found


class Fields(NamedTuple):
    """What overdispersed data are made of; arrays are multiplied with each other, and broadcast to the entries.

    Beside a dense base they lie in the order of its entries, which stays in the transposed problem; beside a sparse one
    they are one number for each row or each column, and turn with it.
    """

    base: Any
    alpha: tuple[Any, ...]  # the dispersion in the problem's units, times exposures
    weights: tuple[Any, ...] = ()
    beside: Any = 0.0  # of the objective: what a prior adds for the effects of batches


class Overdispersed(Fields, Wrapping):
    """Counts whose loss is the negative binomial one: `base`, one matrix, its dispersion, and its weights."""

    @classmethod
    def of(cls, data: Any, alpha: tuple[Array, ...], *, xp: Namespace) -> Overdispersed:
        """Data with this dispersion, whose weights are taken from them."""
        if isinstance(data, LineWeighted):
            return cls(data.base, alpha, (data.rows_weights, data.columns_weights))
        if not isinstance(data, Weighted):
            return cls(data, alpha)
        if not isinstance(data.base, Sparse):
            return cls(data.base, alpha, (data.weights,))
        if not data.base.has_absent:
            base, weights = (data.base.with_values(x).dense(xp=xp) for x in (data.values, data.weights))
            return cls(Dense(base), alpha, (weights,))
        msg = (
            "`beta_loss` must be no `NegativeBinomial` for a sparse V with weights that are none of rows or columns, "
            "or whose zeros are missing; give V as a dense array"
        )
        raise ValueError(msg)

    def with_dispersion(self, dispersion: Any, *, xp: Namespace) -> Overdispersed:
        """The same with dispersions, a NumPy array (m or 1, n or 1), beside the exposure that they have."""
        W = self.values
        info = xp.finfo(W.dtype)
        alpha = dispersion.clip(float(info.smallest_normal) ** 0.5)  # below rounding: the loss of Kullback-Leibler
        found = transfer.from_host(alpha, xp=xp, dtype=W.dtype, device=libraries.device(W))
        return self._replace(alpha=(found, *self.alpha))

    def in_batches(self, codes: Array, table: Array, prior: Any, *, xp: Namespace) -> Overdispersed:
        """The same with the effects of batches, which are exposures: u d(v/u | y; alpha u) = d(v | u y; alpha)."""
        u = ByBatch(codes, operators.at_least(table, float(xp.finfo(table.dtype).smallest_normal) ** 0.25, xp=xp))
        base = self.base.with_values(self.values / u.at(self.base, xp=xp))
        return Overdispersed(base, (*self.alpha, u), (*self.weights, u), prior)

    def better_table(self, W: Array, H: Array, effects: Effects, *, xp: Namespace) -> Array:
        """The table after a step of Fisher's scoring for these factors: (G, n)."""
        table = self.weights[-1].table

        def of_block(block: Overdispersed, W: Array) -> Part:
            Y = block.predict(W, H, xp=xp)
            scale, codes = block._scale(True, Y, xp=xp), block.weights[-1].codes
            sums = (sums_of_batches(codes, scale * x, effects.batches, xp=xp) for x in (block.values, Y))
            return Part(None, tuple(sums))

        counts, model = self.visited(of_block, W, xp=xp).sums
        return effects._replace(counts=counts).best(model / table, xp=xp)

    @property
    def weighted(self) -> bool:
        """Whether the entries have weights."""
        return bool(self.weights)

    @property
    def T(self) -> Overdispersed:
        """The transposed problem."""
        if isinstance(self.base, Sparse):
            return self._each(self.base.T, lambda x: x.T if isinstance(x, ByBatch) else operators.transposed(x))
        return self._replace(base=self.base.T)

    def rows(self, start: int, stop: int) -> Overdispersed:
        """A block of rows."""
        return self._each(self.base.rows(start, stop), lambda x: self._part(x, start, stop))

    def member(self, i: int) -> Overdispersed:
        """One member of a stack."""
        return self._each(self.base.member(i), lambda x: x[i, ...] if x.ndim > 2 else x)

    def select(self, indices: Array, *, xp: Namespace) -> Overdispersed:
        """Some members of a stack."""
        base = self.base.select(indices, xp=xp)
        return self._each(base, lambda x: xp.take(x, indices, axis=0) if x.ndim > 2 else x)

    def renewed(
        self, W: Array, H: Array, _: Any = None, *, whole: bool = False, bold: Any = False, beta: float, xp: Namespace
    ) -> Data:
        """The data with the slopes at these factors; if `whole`, with that of the transposed problem too.

        Where `bold`, a bool or an array of them that broadcasts to V, they have the curvature of the loss.
        """
        values, along = self._scaled(bold, W, H, xp=xp), self._slope(bold, W, H, xp=xp)
        if not whole:
            return Sloped(self.base.with_values(values), along)
        Ht, Wt = operators.transposed(H), operators.transposed(W)
        return Sloped(self.base.with_values(values), along, self.T._slope(bold, Ht, Wt, xp=xp))

    def divergence(self, W: Array, H: Array, _: Any = None, *, beta: float = 1.0, xp: Namespace) -> Array:
        """Half the deviance: (...,)."""
        dtype = libraries.accumulator_dtype(xp, libraries.device(W))

        def of_block(block: Overdispersed, W: Array) -> Part:
            return Part(None, (xp.sum(block._entries(W, H, xp=xp), axis=(-2, -1), dtype=dtype),))

        return operators.at_least(self.visited(of_block, W, xp=xp).sums[0], 0.0, xp=xp)

    def of_rows(self, W: Array, H: Array, *, xp: Namespace) -> Array:
        """The same of each row of the problem: (..., m, 1)."""

        def of_block(block: Overdispersed, W: Array) -> Part:
            turned = isinstance(block.base, DenseTransposed)
            rows = xp.sum(block._entries(W, H, xp=xp), axis=-2 if turned else -1, keepdims=True)
            return Part(operators.transposed(rows) if turned else rows, ())

        return self.visited(of_block, W, xp=xp).rows

    def penalty(self, W: Array, H: Array, *, xp: Namespace) -> Array | float:
        """What a prior adds to the objective, for effects of batches that stay."""
        return self.beside

    def visited(self, function: Callable[[Overdispersed, Array], Part], W: Array, *, xp: Namespace) -> Part:
        """The function over row blocks of the data, each of them dense: rows concatenated, sums added up."""
        if not isinstance(self.base, Sparse):
            return sweep(lambda block, W, _: function(cast("Overdispersed", block), W), self, W, FREE, xp=xp)
        m, n = self.shape
        step = max(1, AT_ONCE // n)
        parts = []
        for start in range(0, m, step):
            stop = min(start + step, m)
            block = self if stop - start == m else self.rows(start, stop)
            parts.append(function(block._on(Dense(block.base.dense(xp=xp))), W[start:stop, :]))
        rows = None if parts[0].rows is None else xp.concat([part.rows for part in parts], axis=-2)
        return Part(rows, tuple(sum(terms[1:], terms[0]) for terms in zip(*(part.sums for part in parts), strict=True)))

    def _each(self, base: Any, part: Callable[[Array], Array]) -> Overdispersed:
        return Overdispersed(base, tuple(map(part, self.alpha)), tuple(map(part, self.weights)), self.beside)

    def _part(self, x: Any, start: int, stop: int) -> Any:
        """The part of an array beside the entries that belongs to some rows of the problem."""
        if isinstance(x, ByBatch):
            return x.part(start, stop, of_columns=x.turned or isinstance(self.base, DenseTransposed))
        if isinstance(self.base, DenseTransposed):
            return x if x.shape[-1] == 1 else x[..., start:stop]
        return x if x.shape[-2] == 1 else x[..., start:stop, :]

    def stored(self, factors: tuple[Array, ...], *, xp: Namespace) -> Any:
        """The product of arrays at the stored entries, or broadcasting to them; 1 where there is none."""
        at = (x.at(self.base, xp=xp) if isinstance(x, ByBatch) else at_stored(self.base, x, xp=xp) for x in factors)
        return functools.reduce(operator.mul, at, 1.0)

    def _scaled(self, bold: Any, W: Array, H: Array, *, xp: Namespace) -> Array:
        """V at the stored entries, in the scale of the slopes."""
        if bold is False and not self.weights:
            return self.values
        if isinstance(self.base, Sparse):
            return self.values * self._scale(bold, self.predict(W, H, xp=xp), xp=xp)
        turned = isinstance(self.base, DenseTransposed)

        def of_block(block: Overdispersed, W: Array) -> Part:
            V = block.values * block._scale(bold, block.predict(W, H, xp=xp), xp=xp)
            return Part(operators.transposed(V) if turned else V, ())

        V = self.visited(of_block, W, xp=xp).rows
        return operators.transposed(V) if turned else V

    def _scale(self, bold: Any, Y: Array, *, xp: Namespace) -> Any:
        weights = self.stored(self.weights, xp=xp)
        if bold is False:
            return weights
        scale = weights / (1.0 + self.stored(self.alpha, xp=xp) * Y)
        return scale if bold is True else xp.where(at_stored(self.base, bold, xp=xp), scale, weights)

    def _slope(self, bold: Any, W: Array, H: Array, *, xp: Namespace) -> Array:
        """The second slope: (..., m, r)."""

        def of_block(block: Overdispersed, W: Array) -> Part:
            alpha = block.stored(block.alpha, xp=xp)
            above = 1.0 if bold is True else 1.0 + alpha * block.values
            above = above if isinstance(bold, bool) else xp.where(bold, 1.0, above)
            U = block.stored(block.weights, xp=xp) * above / (1.0 + alpha * block.predict(W, H, xp=xp))
            return Part(block.base.contract(U, H, xp=xp), ())

        return self.visited(of_block, W, xp=xp).rows

    def _entries(self, W: Array, H: Array, *, xp: Namespace) -> Array:
        """d(v | y) of dense data, entry by entry and weighted, from two forms of it.

        Where alpha y is large the terms of the usual form are as large as the counts, and cancel. There it is

            v log1p((v - y) / (y (1 + alpha v))) - log1p(alpha (v - y) / (1 + alpha y)) / alpha.
        """
        V, Y, alpha = self.values, self.predict(W, H, xp=xp), self.stored(self.alpha, xp=xp)
        settings: Any = {"beta": 1.0, "xp": xp}
        v, y = 1.0 + alpha * V, 1.0 + alpha * Y
        usual = entry_divergence(V, Y, **settings) - entry_divergence(v, y, **settings) / alpha
        large = alpha * Y > 1.0
        above, seen = xp.where(large, Y, 1.0), xp.where(xp.logical_and(large, V > 0), V, xp.where(large, Y, 1.0))
        first = V * _log(seen / above * (y / v), (seen - above) / above / v, xp=xp)
        far = first - _log(v / y, alpha * ((V - Y) / y), xp=xp) / alpha
        found = operators.at_least(xp.where(large, far, usual), 0.0, xp=xp)
        if not self.weights:
            return found
        weights = self.stored(self.weights, xp=xp)  # what is not observed may be infinitely far from its model
        return weights * xp.where(weights > 0, found, 0.0)


def _log(ratio: Array, less: Array, *, xp: Namespace) -> Array:
    """The logarithm of a ratio, which is 1 + `less`: by the one or the other, whichever has its digits."""
    near = less > -0.5
    return xp.where(near, xp.log1p(xp.where(near, less, 0.0)), xp.log(xp.where(near, 1.0, ratio)))
