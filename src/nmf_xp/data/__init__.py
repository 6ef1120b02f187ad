"""Everything of size m x n: the data matrix behind one small seam.

A solver never touches V. It sees a `Data`, which offers V's stored entries, the model WH at those entries,
and the contractions of arrays of that pattern with the factors. One file a kind of data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from nmf_xp.data.dense import Dense

if TYPE_CHECKING:
    from nmf_xp._typing import Array, Namespace

__all__ = ["Data", "Dense", "as_data"]


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

    def predict(self, W: Array, H: Array, *, xp: Namespace) -> Array:
        """WH at the stored entries."""

    def contract(self, Z: Array, H: Array, *, xp: Namespace) -> Array:
        """Z H^T for Z on the stored entries: (..., m, r)."""

    def model_slope(self, W: Array, H: Array, Y: Array | None, *, beta: float, xp: Namespace) -> Array:
        """(WH)^(beta-1) H^T over the whole domain; Y is WH at the stored entries (None for beta 1 and 2)."""

    def sum(self, Z: Array, *, dtype: Any, xp: Namespace) -> Array:
        """Sum over the matrix of Z, given on the stored entries: (...,)."""


def as_data(V: Any) -> Data:
    """The Data that holds V: V itself where it is one, or the kind that its type calls for."""
    return V if isinstance(V, Dense) else Dense(V)
