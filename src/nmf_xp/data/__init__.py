"""Everything of size m x n: the data matrix behind one small seam.

A solver never touches V. It sees a `Data`, which offers V's stored entries, the model WH at those entries,
and the contractions of arrays of that pattern with the factors. One file a kind of data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from nmf_xp import _compat
from nmf_xp.data.dense import Dense
from nmf_xp.data.sparse import Sparse
from nmf_xp.data.sparse_formats import from_sparse
from nmf_xp.data.weighted import Weighted
from nmf_xp.validation import check_array, check_sparse

if TYPE_CHECKING:
    from nmf_xp._typing import Array, Namespace

__all__ = ["Data", "Dense", "Sparse", "Weighted", "as_data", "observed_only", "with_weights"]


class Data(Protocol):
    """The seam: V's entries and their contractions with the factors W (..., m, r) and H (..., r, n)."""

    @property
    def values(self) -> Array:
        """V at its stored entries; arrays of this pattern go through `contract` and `sum`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (..., m, n) of the problem."""

    @property
    def T(self) -> Data:
        """The transposed problem, V^T = H^T W^T, on the same entries in the same order."""

    @property
    def has_absent(self) -> bool:
        """Whether the domain has entries that are not stored, which are zeros."""

    def with_values(self, values: Array) -> Data:
        """The same kind of data with other values at the stored entries."""

    def flatten_stack(self, *, xp: Namespace) -> Data:
        """The same matrices with all leading axes as one."""

    def block_starts(self, n_components: int) -> list[int]:
        """First row of each block that fits the cache, and the end."""

    def rows(self, start: int, stop: int) -> Data:
        """A block of rows of one matrix."""

    def member(self, i: int) -> Data:
        """One member of a stack; data that all members share as they are."""

    def select(self, indices: Array, *, xp: Namespace) -> Data:
        """Some members of a stack; data that all members share stay as they are."""

    def predict(self, W: Array, H: Array, *, xp: Namespace) -> Array:
        """WH at the stored entries."""

    def contract(self, Z: Array, H: Array, *, xp: Namespace) -> Array:
        """Z H^T for Z on the stored entries: (..., m, r)."""

    def model_slope(self, W: Array, H: Array, Y: Array | None, *, beta: float, xp: Namespace) -> Array:
        """(WH)^(beta-1) H^T over the whole domain; Y is WH at the stored entries (None for beta 1 and 2)."""

    def sum(self, Z: Array, *, dtype: Any, xp: Namespace) -> Array:
        """Sum over the matrix of Z, given on the stored entries: (...,)."""

    def total(self, W: Array, H: Array, *, dtype: Any, xp: Namespace) -> Array:
        """Sum of WH over the whole domain: (...,)."""

    def absent(self, W: Array, H: Array, Y: Array, *, beta: float, dtype: Any, xp: Namespace) -> Array | None:
        """Divergence of the zeros that are not stored, (...,); None where every entry of the domain is stored."""


def as_data(V: Any) -> Data:
    """The Data that holds V, of the kind that its type calls for; V's type and shape are checked, not its values."""
    if _compat.sparse_library(V) is None:
        check_array("V", V, min_ndim=2)
        return Dense(V)
    check_sparse("V", V)
    return from_sparse(V)


def with_weights(data: Data, weights: Array | None, *, beta: float, xp: Namespace) -> Data:
    """Dense data with weights on its entries.

    What stands in V behind a weight of 0 is never read: it is replaced by a value at which the divergence is finite.
    """
    if weights is None:
        return data
    if isinstance(data, Sparse):
        msg = (
            "`weights` of a sparse V need its absent entries to be unobserved, not zeros: "
            "say absent='missing' in nmf() or transform(), or pass `V.toarray()`"
        )
        raise ValueError(msg)
    weights = xp.broadcast_to(xp.astype(weights, data.values.dtype, copy=False), data.values.shape)
    return Weighted(data.with_values(xp.where(weights > 0, data.values, 0.0 if beta > 0 else 1.0)), weights)


def observed_only(data: Data, weights: Array | None, *, beta: float, xp: Namespace) -> Data:
    """Sparse data whose absent entries are unobserved, with weights (m, n), or broadcasting to it, on the others."""
    if not isinstance(data, Sparse):
        msg = "`absent` must be left at 'zero' for a dense V, got 'missing'; say missing='nan', or give `weights`"
        raise ValueError(msg)
    values = data.values
    if weights is None:
        return Weighted(data, xp.ones_like(values))
    m, n = data.shape
    weights = xp.astype(xp.broadcast_to(weights, (m, n)), values.dtype)
    sampled = xp.take(xp.reshape(weights, (-1,)), xp.astype(data.i, xp.int64) * n + xp.astype(data.j, xp.int64))
    return Weighted(data.with_values(xp.where(sampled > 0, values, 0.0 if beta > 0 else 1.0)), sampled)
