"""Weights on the entries of any kind of data; an entry of weight 0 is unobserved.

The domain of `Weighted` is the stored entries and no others: what is not stored is not observed. That of
`LineWeighted` is the whole of a sparse matrix, whose zeros weigh as their row and column do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from nmf_xp._typing import Array, Namespace


class Weighted(NamedTuple):
    """`base` with non-negative weights on its entries, in the order in which they are stored."""

    base: Any
    weights: Array

    @property
    def values(self) -> Array:
        return self.base.values

    @property
    def shape(self) -> tuple[int, ...]:
        return self.base.shape

    @property
    def T(self) -> Weighted:
        return Weighted(self.base.T, self.weights)

    @property
    def has_absent(self) -> bool:
        return False

    @property
    def weighted(self) -> bool:
        return True

    @property
    def products_by_blas(self) -> bool:
        return False

    def heaviest(self, *, xp: Namespace) -> Array:
        return xp.max(self.weights)

    def with_values(self, values: Array) -> Weighted:
        return self._replace(base=self.base.with_values(values))

    def with_both_orders(self) -> Weighted:
        return self._replace(base=self.base.with_both_orders())

    def flatten_stack(self, *, xp: Namespace) -> Weighted:
        return self._both(lambda base: base.flatten_stack(xp=xp))

    def block_starts(self, n_components: int) -> list[int]:
        return self.base.block_starts(n_components)

    def rows(self, start: int, stop: int) -> Weighted:
        return self._both(lambda base: base.rows(start, stop))

    def member(self, i: int) -> Weighted:
        return self._both(lambda base: base.member(i))

    def select(self, indices: Array, *, xp: Namespace) -> Weighted:
        return self._both(lambda base: base.select(indices, xp=xp))

    def _both(self, part: Callable[[Any], Any]) -> Weighted:
        """The same part of the data and of the weights."""
        return Weighted(part(self.base), part(self.base.with_values(self.weights)).values)

    def predict(self, W: Array, H: Array, *, xp: Namespace) -> Array:
        return self.base.predict(W, H, xp=xp)

    def contract(self, Z: Array, H: Array, *, xp: Namespace) -> Array:
        return self.base.contract(self.weights * Z, H, xp=xp)

    def model_slope(self, W: Array, H: Array, Y: Array | None, *, beta: float, xp: Namespace) -> Array:
        if beta == 1:
            return self.base.contract(self.weights, H, xp=xp)
        Y = self.predict(W, H, xp=xp) if Y is None else Y
        return self.contract(Y if beta == 2 else Y ** (beta - 1.0), H, xp=xp)

    def spread(self, t: Array, *, xp: Namespace) -> Array:
        return self.base.spread(t, xp=xp)

    def sum(self, Z: Array, *, dtype: Any, numbers: bool = False, xp: Namespace) -> Array:
        return self.base.sum(self.weights * Z, dtype=dtype, numbers=numbers, xp=xp)

    def total(self, W: Array, H: Array, *, dtype: Any, xp: Namespace) -> Array:
        return self.sum(self.predict(W, H, xp=xp), dtype=dtype, xp=xp)

    def absent(self, W: Array, H: Array, Y: Array, *, beta: float, dtype: Any, xp: Namespace) -> None:
        return None


class LineWeighted(NamedTuple):
    """A sparse matrix whose entry (i, j), stored or not, has the weight a_i b_j.

    Over the whole domain, sum a_i b_j y^beta is sum y^beta for the model whose rows are scaled by a^(1/beta) and whose
    columns by b^(1/beta).
    """

    base: Any
    stored: Array  # the weights of the stored entries
    rows_weights: Array  # a, (m, 1)
    columns_weights: Array  # b, (1, n)

    @property
    def values(self) -> Array:
        return self.base.values

    @property
    def shape(self) -> tuple[int, ...]:
        return self.base.shape

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
    def products_by_blas(self) -> bool:
        return False

    def heaviest(self, *, xp: Namespace) -> Array:
        return xp.max(self.rows_weights) * xp.max(self.columns_weights)

    def with_values(self, values: Array) -> LineWeighted:
        return self._replace(base=self.base.with_values(values))

    def with_both_orders(self) -> LineWeighted:
        return self._replace(base=self.base.with_both_orders())

    def flatten_stack(self, *, xp: Namespace) -> LineWeighted:
        return self

    def block_starts(self, n_components: int) -> list[int]:
        return self.base.block_starts(n_components)

    def rows(self, start: int, stop: int) -> LineWeighted:
        stored = self.base.with_values(self.stored).rows(start, stop).values
        return LineWeighted(self.base.rows(start, stop), stored, self.rows_weights[start:stop, :], self.columns_weights)

    def member(self, i: int) -> LineWeighted:
        return self

    def select(self, indices: Array, *, xp: Namespace) -> LineWeighted:
        return self

    def predict(self, W: Array, H: Array, *, xp: Namespace) -> Array:
        return self.base.predict(W, H, xp=xp)

    def contract(self, Z: Array, H: Array, *, xp: Namespace) -> Array:
        return self.base.contract(self.stored * Z, H, xp=xp)

    def model_slope(self, W: Array, H: Array, Y: Array | None, *, beta: float, xp: Namespace) -> Array:
        return self.rows_weights * self.base.weighted_slope(W, H, H * self.columns_weights, beta=beta, xp=xp)

    def spread(self, t: Array, *, xp: Namespace) -> Array:
        return self.base.spread(t, xp=xp)

    def sum(self, Z: Array, *, dtype: Any, numbers: bool = False, xp: Namespace) -> Array:
        return self.base.sum(self.stored * Z, dtype=dtype, numbers=numbers, xp=xp)

    def total(self, W: Array, H: Array, *, dtype: Any, xp: Namespace) -> Array:
        return self.base.total(self.rows_weights * W, H * self.columns_weights, dtype=dtype, xp=xp)

    def absent(self, W: Array, H: Array, Y: Array, *, beta: float, dtype: Any, xp: Namespace) -> Array | None:
        if beta <= 0:
            return self.base.absent(W, H, Y, beta=beta, dtype=dtype, xp=xp)
        a, b, stored = (x ** (1.0 / beta) for x in (self.rows_weights, self.columns_weights, self.stored))
        return self.base.absent(a * W, H * b, stored * Y, beta=beta, dtype=dtype, xp=xp)
