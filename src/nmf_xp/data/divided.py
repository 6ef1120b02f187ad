"""A dense V that JAX keeps in blocks on several devices.

What it hands out is pinned to the layout of V and its factors, so that no solver can make XLA move V: whatever is of
V's size stays where it is, and sums over rows or columns are as large as blocks of factors.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nmf_xp.data.dense import Dense

if TYPE_CHECKING:
    from nmf_xp._layout import Layout
    from nmf_xp._typing import Array, Namespace


@dataclass(frozen=True)
class Divided:
    """A dense matrix (m, n), or its transposed problem, and where its entries lie."""

    base: Dense
    layout: Layout

    @property
    def values(self) -> Array:
        return self.base.values

    @property
    def shape(self) -> tuple[int, ...]:
        return self.base.shape

    @property
    def T(self) -> Divided:
        return Divided(self.base.T, self.layout.T)

    @property
    def has_absent(self) -> bool:
        return False

    @property
    def weighted(self) -> bool:
        return False

    def heaviest(self, *, xp: Namespace) -> float:
        return 1.0

    def with_values(self, values: Array) -> Divided:
        return replace(self, base=self.base.with_values(values))

    def with_both_orders(self) -> Divided:
        return self

    def flatten_stack(self, *, xp: Namespace) -> Divided:
        return self

    def block_starts(self, n_components: int) -> list[int]:
        return [0, self.shape[0]]

    def rows(self, start: int, stop: int) -> Divided:
        return replace(self, base=self.base.rows(start, stop))

    def member(self, i: int) -> Divided:
        return self

    def select(self, indices: Array, *, xp: Namespace) -> Divided:
        return self

    def predict(self, W: Array, H: Array, *, xp: Namespace) -> Array:
        return self._stored.pin(self.base.predict(W, H, xp=xp))

    def contract(self, Z: Array, H: Array, *, xp: Namespace) -> Array:
        return self.layout.W.pin(self.base.contract(self._stored.pin(Z), H, xp=xp))

    def model_slope(self, W: Array, H: Array, Y: Array | None, *, beta: float, xp: Namespace) -> Array:
        if beta in (1, 2):
            return self.base.model_slope(W, H, Y, beta=beta, xp=xp)
        assert Y is not None
        return self.contract(Y ** (beta - 1.0), H, xp=xp)

    def spread(self, t: Array, *, xp: Namespace) -> Array:
        return self.base.spread(t, xp=xp)

    def sum(self, Z: Array, *, dtype: Any, xp: Namespace) -> Array:
        return self.base.sum(self._stored.pin(Z), dtype=dtype, xp=xp)

    def total(self, W: Array, H: Array, *, dtype: Any, xp: Namespace) -> Array:
        return self.base.total(W, H, dtype=dtype, xp=xp)

    def absent(self, W: Array, H: Array, Y: Array, *, beta: float, dtype: Any, xp: Namespace) -> None:
        return None

    @property
    def _stored(self) -> Layout:
        """The layout of the entries as they are stored, which a transposed problem leaves as they are."""
        return self.layout if type(self.base) is Dense else self.layout.T


@functools.cache
def register() -> None:
    """Let compiled functions take it."""
    import jax

    jax.tree_util.register_dataclass(Divided, data_fields=["base"], meta_fields=["layout"])
