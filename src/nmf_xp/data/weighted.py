"""Weights on the entries of any kind of data; an entry of weight 0 is unobserved.

The domain of `Weighted` is the stored entries and no others: what is not stored is not observed. That of
`LineWeighted` is the whole of a sparse matrix, whose zeros weigh as their row and column do.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.arrays import libraries, transfer
from nmf_xp.data.seam import Bound, Wrapping

if TYPE_CHECKING:
    from collections.abc import Callable

    from nmf_xp.arrays.typing import Array, Namespace
    from nmf_xp.data.seam import Data


class WeightedFields(NamedTuple):
    """What data with weights are made of."""

    base: Any
    weights: Array
    bound: Bound | None = None  # only where it is close


class Weighted(WeightedFields, Wrapping):
    """`base` with non-negative weights on its entries, in the order in which they are stored."""

    @property
    def T(self) -> Weighted:
        return Weighted(self.base.T, self.weights, self.bound and self.bound.T)

    @property
    def weighted(self) -> bool:
        return True

    def flatten_stack(self, *, xp: Namespace) -> Weighted:
        return self._both(lambda base: base.flatten_stack(xp=xp))

    def rows(self, start: int, stop: int) -> Weighted:
        return self._both(lambda base: base.rows(start, stop), self.bound and self.bound.part(start, stop))

    def member(self, i: int) -> Weighted:
        return self._both(lambda base: base.member(i), self.bound and self.bound.member(i))

    def select(self, indices: Array, *, xp: Namespace) -> Weighted:
        return self._both(lambda base: base.select(indices, xp=xp), self.bound and self.bound.select(indices, xp=xp))

    def _both(self, part: Callable[[Any], Any], bound: Bound | None = None) -> Weighted:
        """The same part of the data and of the weights, and their bound."""
        return Weighted(part(self.base), part(self.base.with_values(self.weights)).values, bound)

    def contract(self, Z: Array, H: Array, *, xp: Namespace) -> Array:
        return self.base.contract(self.weights * Z, H, xp=xp)

    def model_slope(self, W: Array, H: Array, power: Array | None, *, beta: float, xp: Namespace) -> Array:
        if beta == 1:
            return self.base.contract(self.weights, H, xp=xp)
        return super().model_slope(W, H, power, beta=beta, xp=xp)

    def sum(self, Z: Array, *, dtype: Any, numbers: bool = False, xp: Namespace) -> Array:
        # What is not observed may be infinitely far from its model.
        Z = self.weights * xp.where(self.weights > 0, Z, 0.0)
        return self.base.sum(Z, dtype=dtype, numbers=numbers, xp=xp)


class LineWeightedFields(NamedTuple):
    """What a sparse matrix with weights along its lines is made of."""

    base: Any
    stored: Array  # the weights of the stored entries
    rows_weights: Array  # a, (m, 1)
    columns_weights: Array  # b, (1, n)


class LineWeighted(LineWeightedFields, Wrapping):
    """A sparse matrix whose entry (i, j), stored or not, has the weight a_i b_j.

    Over the whole domain, sum a_i b_j y^beta is sum y^beta for the model whose rows are scaled by a^(1/beta) and whose
    columns by b^(1/beta).
    """

    @property
    def T(self) -> LineWeighted:
        a, b = self.rows_weights[:, 0], self.columns_weights[0, :]
        return LineWeighted(self.base.T, self.stored, b[:, None], a[None, :])

    @property
    def has_absent(self) -> bool:
        return self.base.has_absent

    @property
    def weighted(self) -> bool:
        return True

    @property
    def bound(self) -> Bound:
        return Bound(self.rows_weights, self.columns_weights)

    def rows(self, start: int, stop: int) -> LineWeighted:
        stored = self.base.with_values(self.stored).rows(start, stop).values
        return LineWeighted(self.base.rows(start, stop), stored, self.rows_weights[start:stop, :], self.columns_weights)

    def contract(self, Z: Array, H: Array, *, xp: Namespace) -> Array:
        return self.base.contract(self.stored * Z, H, xp=xp)

    def model_slope(self, W: Array, H: Array, power: Array | None, *, beta: float, xp: Namespace) -> Array:
        if power is not None and not self.has_absent:
            return self.contract(power, H, xp=xp)
        return self.rows_weights * self.base.weighted_slope(W, H, H * self.columns_weights, beta=beta, xp=xp)

    def sum(self, Z: Array, *, dtype: Any, numbers: bool = False, xp: Namespace) -> Array:
        # What is not observed may be infinitely far from its model.
        Z = self.stored * xp.where(self.stored > 0, Z, 0.0)
        return self.base.sum(Z, dtype=dtype, numbers=numbers, xp=xp)

    def total(self, W: Array, H: Array, *, dtype: Any, xp: Namespace) -> Array:
        return self.base.total(self.rows_weights * W, H * self.columns_weights, dtype=dtype, xp=xp)

    def absent(
        self, W: Array, H: Array, Y: Array, stored: Array, *, beta: float, dtype: Any, xp: Namespace
    ) -> Array | None:
        if beta <= 0:
            return self.base.absent(W, H, Y, stored, beta=beta, dtype=dtype, xp=xp)
        return self.base.absent(*self._scaled(W, H, Y, beta), stored, beta=beta, dtype=dtype, xp=xp)

    def absent_of_rows(
        self, W: Array, H: Array, Y: Array, stored: Array, *, beta: float, dtype: Any, xp: Namespace
    ) -> Array:
        """The same row by row; see `Sparse`."""
        return self.base.absent_of_rows(*self._scaled(W, H, Y, beta), stored, beta=beta, dtype=dtype, xp=xp)

    def _scaled(self, W: Array, H: Array, Y: Array, beta: float) -> tuple[Array, Array, Array]:
        """The model whose unweighted powers are the weighted ones of this: its factors, and its stored entries."""
        a, b, c = (x ** (1.0 / beta) for x in (self.rows_weights, self.columns_weights, self.stored))
        return a * W, H * b, c * Y


def with_row_weights(data: Any, a: Array, *, xp: Namespace) -> Data:
    """The data with one number more for the weights of each row, a (..., m, 1), none of them 0."""
    along = data.spread(a, xp=xp)
    if isinstance(data, LineWeighted):
        return data._replace(stored=data.stored * along, rows_weights=data.rows_weights * a)
    if isinstance(data, Weighted):
        bound = data.bound and data.bound._replace(rows=data.bound.rows * a)
        return Weighted(data.base, data.weights * along, bound)
    ones = xp.ones((*a.shape[:-2], 1, data.shape[-1]), dtype=a.dtype, device=libraries.device(a))
    if data.has_absent:
        return LineWeighted(data, along, a, ones)
    return Weighted(data, along + xp.zeros_like(data.values), Bound(a, ones))


def with_bound(data: Data, *, least: float, xp: Namespace) -> Data:
    """The data with a bound on their weights, where these can be read and it is close.

    It is close where the weights of every row and of every column have in sum at least the share `least` of their
    bounds: 1 for weights that are products of one number for each row and one for each column, and for 0 and 1 the
    share that is observed.
    """
    if not isinstance(data, Weighted) or data.weights.ndim < 2 or not libraries.is_readable(data.weights):
        return data
    weights, dtype = data.weights, libraries.accumulator_dtype(xp, libraries.device(data.weights))
    rows = xp.max(weights, axis=-1, keepdims=True)
    columns = xp.max(weights / xp.where(rows > 0, rows, 1.0), axis=-2, keepdims=True)
    shares = [
        _least_share(weights, along, across, axis=axis, dtype=dtype, xp=xp)
        for along, across, axis in ((rows, columns, -1), (columns, rows, -2))
    ]
    close = xp.minimum(*shares)[..., None, None] >= least
    count = transfer.scalar(xp.sum(xp.astype(close, xp.int32)))
    if count == 0:
        return data
    return data._replace(bound=Bound(rows, columns, None if count == math.prod(close.shape) else close))


def _least_share(weights: Array, along: Array, across: Array, *, axis: int, dtype: Any, xp: Namespace) -> Array:
    """The least share of their bound that the weights of a line have; lines without an observed entry do not count."""
    bound = along * xp.sum(across, axis=axis, keepdims=True, dtype=dtype)
    total = xp.sum(weights, axis=axis, keepdims=True, dtype=dtype)
    return xp.min(xp.where(bound > 0, total / xp.where(bound > 0, bound, 1.0), 1.0), axis=(-2, -1))
