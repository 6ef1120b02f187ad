"""The seam: what a solver sees of V."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from nmf_xp.arrays import libraries, operators, transfer

if TYPE_CHECKING:
    from nmf_xp.arrays.typing import Array, Namespace


class Bound(NamedTuple):
    """Numbers a_i and b_j with a_i b_j >= w_ij, by which all rows share the curvature H diag(b) H^T, up to a factor."""

    rows: Array  # a, (..., m, 1)
    columns: Array  # b, (..., 1, n)
    members: Array | None = None  # (..., 1, 1): the members of a stack for which it is close; None for all

    @property
    def T(self) -> Bound:
        return Bound(operators.transposed(self.columns), operators.transposed(self.rows), self.members)

    def part(self, start: int, stop: int) -> Bound:
        """That of some rows."""
        return self._replace(rows=self.rows[..., start:stop, :])

    def member(self, i: int) -> Bound | None:
        """That of one member of a stack; None where it is not close."""
        if self.rows.ndim == 2:
            return self
        if self.members is not None and not transfer.scalar(self.members[i, 0, 0]):
            return None
        return Bound(self.rows[i, ...], self.columns[i, ...])

    def select(self, indices: Array, *, xp: Namespace) -> Bound:
        """That of some members of a stack."""
        if self.rows.ndim == 2:
            return self
        rows, columns = (xp.take(x, indices, axis=0) for x in self[:2])
        return Bound(rows, columns, None if self.members is None else xp.take(self.members, indices, axis=0))


class Data(Protocol):
    """The seam: V's entries and their contractions with the factors W (..., m, r) and H (..., r, n).

    Its heart is five: `values`, `shape`, `T`, `predict` and `contract`. A kind of data that is `Derived` has the rest
    from them.
    """

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

    @property
    def weighted(self) -> bool:
        """Whether the entries have weights."""

    @property
    def products_by_blas(self) -> bool:
        """Whether V's products with a factor are BLAS's, which then divides them among threads better than blocks."""

    @property
    def bound(self) -> Bound | None:
        """A close bound on the weights, a number for each row and one for each column; None where there is none."""

    def with_values(self, values: Array) -> Data:
        """The same kind of data with other values at the stored entries."""

    def with_both_orders(self) -> Data:
        """The same data, stored so that rows and columns are both quickly found."""

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

    def observed(self, Y: Array, *, xp: Namespace) -> Array:
        """The model of V at its stored entries, for WH there: WH itself, but where rows and columns have factors."""

    def contract(self, Z: Array, H: Array, *, xp: Namespace) -> Array:
        """Z H^T for Z on the stored entries: (..., m, r)."""

    def model_slope(self, W: Array, H: Array, power: Array | None, *, beta: float, xp: Namespace) -> Array:
        """(WH)^(beta-1) H^T over the whole domain; `power` is (WH)^(beta-1) at the stored entries, if it is known."""

    def spread(self, t: Array, *, xp: Namespace) -> Array:
        """One number for each row, t (..., m, 1), at the stored entries or broadcasting to them."""

    def sum(self, Z: Array, *, dtype: Any, numbers: bool = False, xp: Namespace) -> Array:
        """Sum over the matrix of Z, given on the stored entries: (...,); of its `numbers`, see `sum_of_numbers`."""

    def total(self, W: Array, H: Array, *, dtype: Any, xp: Namespace) -> Array:
        """Sum of WH over the whole domain: (...,)."""

    def absent(
        self, W: Array, H: Array, Y: Array, stored: Array, *, beta: float, dtype: Any, xp: Namespace
    ) -> Array | None:
        """Divergence of the zeros that are not stored, (...,), beside that of the `stored` ones; None without any."""


class Derived:
    """What follows from the heart of a kind of data, one matrix of which every entry is stored and observed.

    Beside `Derived` the kind inherits from a named tuple with the field `values`. It overrides what it does faster, and
    what is otherwise.
    """

    __slots__ = ()

    if TYPE_CHECKING:

        @property
        def values(self) -> Array: ...

        @property
        def shape(self) -> tuple[int, ...]: ...

        @property
        def T(self) -> Any: ...

        def predict(self, W: Array, H: Array, *, xp: Namespace) -> Array: ...

        def contract(self, Z: Array, H: Array, *, xp: Namespace) -> Array: ...

    @property
    def has_absent(self) -> bool:
        return False

    @property
    def weighted(self) -> bool:
        return False

    @property
    def products_by_blas(self) -> bool:
        return False

    @property
    def bound(self) -> Bound | None:
        return None

    def with_values(self, values: Array) -> Any:
        fields: Any = self
        return fields._replace(values=values)

    def with_both_orders(self) -> Any:
        return self

    def flatten_stack(self, *, xp: Namespace) -> Any:
        return self

    def block_starts(self, n_components: int) -> list[int]:
        return [0, self.shape[-2]]

    def member(self, i: int) -> Any:
        return self

    def select(self, indices: Array, *, xp: Namespace) -> Any:
        return self

    def observed(self, Y: Array, *, xp: Namespace) -> Array:
        return Y

    def model_slope(self, W: Array, H: Array, power: Array | None, *, beta: float, xp: Namespace) -> Array:
        if power is None:
            power = operators.power(self.predict(W, H, xp=xp), beta - 1.0, xp=xp)
        return self.contract(power, H, xp=xp)

    def spread(self, t: Array, *, xp: Namespace) -> Array:
        return self.predict(t, xp.ones((1, self.shape[-1]), dtype=t.dtype, device=libraries.device(t)), xp=xp)

    def sum(self, Z: Array, *, dtype: Any, numbers: bool = False, xp: Namespace) -> Array:
        axis = (-2, -1) if Z.ndim > 1 else None
        if numbers:
            return operators.sum_of_numbers(Z, axis=axis, dtype=dtype, xp=xp)
        return xp.sum(Z, axis=axis, dtype=dtype)

    def total(self, W: Array, H: Array, *, dtype: Any, xp: Namespace) -> Array:
        return self.sum(self.predict(W, H, xp=xp), dtype=dtype, xp=xp)

    def absent(
        self, W: Array, H: Array, Y: Array, stored: Array, *, beta: float, dtype: Any, xp: Namespace
    ) -> Array | None:
        return None


class Wrapping(Derived):
    """Data made of other data, the field `base`, whose entries, order and model are its own."""

    __slots__ = ()

    if TYPE_CHECKING:
        base: Any

    @property
    def values(self) -> Array:
        return self.base.values

    @property
    def shape(self) -> tuple[int, ...]:
        return self.base.shape

    def with_values(self, values: Array) -> Any:
        return self._on(self.base.with_values(values))

    def with_both_orders(self) -> Any:
        return self._on(self.base.with_both_orders())

    def block_starts(self, n_components: int) -> list[int]:
        return self.base.block_starts(n_components)

    def predict(self, W: Array, H: Array, *, xp: Namespace) -> Array:
        return self.base.predict(W, H, xp=xp)

    def spread(self, t: Array, *, xp: Namespace) -> Array:
        return self.base.spread(t, xp=xp)

    def _on(self, base: Any) -> Any:
        """The same on other data."""
        fields: Any = self
        return fields._replace(base=base)
