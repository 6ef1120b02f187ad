"""A factor for each batch of rows and each column: V is modelled by B[g_i, j] (WH)_ij, for the Kullback-Leibler loss.

With U = B[g] the slopes are those of WH alone but for the second part, which is U H^T in the place of the sums of H:
(V / UWH) U = V / WH. So what is stored of V is met as it is, and nothing of V's size is made. Where entries have
weights of their own, that part is contracted with these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from nmf_xp.arrays import libraries, operators, threads
from nmf_xp.data.blocks import Blockwise, Part, sweep
from nmf_xp.data.constraints import FREE
from nmf_xp.data.seam import Wrapping
from nmf_xp.data.sparse import Sparse
from nmf_xp.data.weighted import LineWeighted, Weighted

if TYPE_CHECKING:
    from nmf_xp.arrays.typing import Array, Namespace
    from nmf_xp.data.constraints import Constraints

AT_ONCE = 2**22  # entries of an indicator matrix
FEWER = 4  # blocks of a sparse matrix in one


class Fields(NamedTuple):
    """What data with a table are made of."""

    base: Any
    codes: Array  # g (..., m): the batch of each row of V
    table: Array  # B (..., G, n)


class Tabled(Fields, Wrapping):
    """`base`, with or without weights, whose model is WH times the entry of a table.

    `predict` is WH, as the slopes need it; `observed` is the model of V.
    """

    turned: ClassVar[bool] = False

    @property
    def T(self) -> Tabled:
        return TabledTransposed(self.base.T, self.codes, self.table)

    @property
    def has_absent(self) -> bool:
        return self.base.has_absent

    @property
    def weighted(self) -> bool:
        return self.base.weighted

    def rows(self, start: int, stop: int) -> Tabled:
        return self._replace(base=self.base.rows(start, stop), codes=self.codes[..., start:stop])

    def block_starts(self, n_components: int) -> list[int]:
        """Those of the base, of sparse data fewer of them: each block makes the second part of the slopes anew."""
        starts = self.base.block_starts(n_components)
        if self.values.ndim > 1:
            return starts
        step = max(1, min(FEWER, (len(starts) - 1) // threads.count()))
        return [*starts[:-1:step], starts[-1]]

    def contract(self, Z: Array, H: Array, *, xp: Namespace) -> Array:
        return self.base.contract(Z, H, xp=xp)

    def effects(self, *, xp: Namespace) -> Array:
        """The entry of the table at each stored entry, in V's order whether it is turned or not."""
        if self.values.ndim > 1:
            return of_rows(self.table, self.codes, xp=xp)
        sparse: Sparse = self.base if isinstance(self.base, Sparse) else self.base.base
        return of_stored(sparse, self.table, self.codes, turned=self.turned, xp=xp)

    def model_slope(self, W: Array, H: Array, power: Array | None, *, beta: float, xp: Namespace) -> Array:
        if isinstance(self.base, Weighted):
            return self.base.contract(self.effects(xp=xp), H, xp=xp)
        if isinstance(self.base, LineWeighted):
            a, b = self.base.rows_weights, self.base.columns_weights
            return a * self._replace(base=self.base.base).model_slope(W, H * b, None, beta=beta, xp=xp)
        return self._slope(H, xp=xp)

    def _slope(self, H: Array, *, xp: Namespace) -> Array:
        """U H^T."""
        return of_rows(self.table @ operators.transposed(H), self.codes, xp=xp)

    def observed(self, Y: Array, *, xp: Namespace) -> Array:
        return Y * self.effects(xp=xp)

    def sum(self, Z: Array, *, dtype: Any, numbers: bool = False, xp: Namespace) -> Array:
        return self.base.sum(Z, dtype=dtype, numbers=numbers, xp=xp)

    def total(self, W: Array, H: Array, *, dtype: Any, xp: Namespace) -> Array:
        return xp.sum(self.table * self._sums(W, H, xp=xp), axis=(-2, -1), dtype=dtype)

    def _sums(self, W: Array, H: Array, *, xp: Namespace) -> Array:
        return model_sums(self.base, self.codes, W, H, self.table.shape[-2], turned=self.turned, xp=xp)

    def absent(
        self, W: Array, H: Array, Y: Array, stored: Array, *, beta: float, dtype: Any, xp: Namespace
    ) -> Array | None:
        if not self.has_absent:
            return None
        wide = self._replace(table=xp.astype(self.table, dtype, copy=False))
        W, H = (xp.astype(x, dtype, copy=False) for x in (W, H))
        everywhere = wide.total(W, H, dtype=dtype, xp=xp)
        return operators.at_least(everywhere - self.sum(Y, dtype=dtype, xp=xp), 0.0, xp=xp)


class TabledTransposed(Tabled):
    """The transposed problem: the table stays as it is."""

    turned: ClassVar[bool] = True

    @property
    def T(self) -> Tabled:
        return Tabled(self.base.T, self.codes, self.table)

    def rows(self, start: int, stop: int) -> Tabled:
        return self._replace(base=self.base.rows(start, stop), table=self.table[..., start:stop])

    def _slope(self, H: Array, *, xp: Namespace) -> Array:
        sums = sums_of_batches(self.codes, operators.transposed(H), self.table.shape[-2], xp=xp)
        return operators.transposed(self.table) @ sums


class ByBatchFields(NamedTuple):
    """What numbers by batch are made of."""

    codes: Array  # (m,)
    table: Array  # (G, n)


class ByBatch(ByBatchFields):
    """Numbers of the entries of V, from a table of the batches of its rows."""

    __slots__ = ()
    turned: ClassVar[bool] = False
    ndim: ClassVar[int] = 2

    @property
    def T(self) -> ByBatch:
        """The same beside the transposed problem of sparse data."""
        return (ByBatch if self.turned else ByBatchTurned)(self.codes, self.table)

    def part(self, start: int, stop: int, *, of_columns: bool) -> ByBatch:
        """That of some rows of V, or of some columns."""
        if of_columns:
            return self._replace(table=self.table[:, start:stop])
        return self._replace(codes=self.codes[start:stop])

    def at(self, base: Any, *, xp: Namespace) -> Array:
        """The numbers at the stored entries."""
        if isinstance(base, Sparse):
            return of_stored(base, self.table, self.codes, turned=self.turned, xp=xp)
        entries = of_rows(self.table, self.codes, xp=xp)
        return operators.transposed(entries) if self.turned else entries


class ByBatchTurned(ByBatch):
    """The same beside the transposed problem."""

    __slots__ = ()
    turned: ClassVar[bool] = True


class CodedFields(NamedTuple):
    """What data whose rows are in batches are made of."""

    base: Any
    codes: Array


class Coded(CodedFields, Wrapping):
    """Data and the batch of each row."""

    def rows(self, start: int, stop: int) -> Coded:
        return Coded(self.base.rows(start, stop), self.codes[..., start:stop])

    def sums(self, Z: Array, count: int, *, xp: Namespace) -> Array:
        """The sums over the rows of each batch of Z, weighted as V's entries are: (..., G, n)."""
        step = max(1, AT_ONCE // self.codes.shape[-1])
        parts = []
        for start in range(0, count, step):
            member = _members(self.codes, start, min(start + step, count), dtype=Z.dtype, xp=xp)
            parts.append(operators.transposed(self.base.T.contract(Z, member, xp=xp)))
        return parts[0] if len(parts) == 1 else xp.concat(parts, axis=-2)


def coded(base: Any, codes: Array) -> Any:
    """Data and the batch of each row; those that come in blocks, each with its rows'."""
    if not isinstance(base, Blockwise):
        return Coded(base, codes)

    def dress(start: int, block: Any) -> Any:
        return Coded(block, codes[start : start + block.shape[0]])

    return base.dressed(dress)


def tabled(base: Any, codes: Array, table: Array, *, turned: bool = False) -> Any:
    """Data whose model is WH times the entry of a table."""
    if not isinstance(base, Blockwise):
        return (TabledTransposed if turned else Tabled)(base, codes, table)

    def dress(start: int, block: Any) -> Any:
        return Tabled(block, codes[start : start + block.shape[0]], table)

    return base.dressed(dress)


def sums_of_data(base: Any, codes: Array, count: int, *, xp: Namespace) -> Array:
    """The sums of V, weighted as its entries are, over the rows of each batch: (..., G, n)."""

    def of_block(block: Any, *_: Any) -> Part:
        return Part(None, (block.sums(block.base.values, count, xp=xp),))

    data = coded(base, codes)
    if not isinstance(base, Blockwise):
        return of_block(data).sums[0]
    nothing = xp.zeros((base.shape[0], 0), dtype=base.values.dtype, device=libraries.device(base.values))
    return sweep(of_block, data, nothing, FREE, xp=xp).sums[0]


def model_sums(
    base: Any, codes: Array, W: Array, H: Array, count: int, *, turned: bool = False, xp: Namespace
) -> Array:
    """The sums of WH, weighted as V's entries are, over the rows of each batch: (..., G, n)."""
    if turned:
        base, W, H = base.T, operators.transposed(H), operators.transposed(W)
    if isinstance(base, Weighted):

        def of_entries(block: Any, W: Array, _: Constraints) -> Part:
            return Part(None, (block.sums(block.base.predict(W, H, xp=xp), count, xp=xp),))

        return sweep(of_entries, Coded(base, codes), W, FREE, xp=xp).sums[0]
    if isinstance(base, Blockwise) and base.weighted:

        def of_block(block: Any, W: Array, _: Constraints) -> Part:
            return Part(None, (model_sums(block.base, block.codes, W, H, count, xp=xp),))

        return sweep(of_block, coded(base, codes), W, FREE, xp=xp).sums[0]
    if isinstance(base, LineWeighted):
        W, H = base.rows_weights * W, H * base.columns_weights
    return sums_of_batches(codes, W, count, xp=xp) @ H


def of_rows(table: Array, codes: Array, *, xp: Namespace) -> Array:
    """For each row that of the table of its batch."""
    if codes.ndim == 1:
        return xp.take(table, codes, axis=-2)
    members, count, n = table.shape  # each with batches of its own
    first = xp.arange(members, dtype=codes.dtype, device=libraries.device(codes)) * count
    rows = xp.take(xp.reshape(table, (-1, n)), xp.reshape(codes + first[:, None], (-1,)), axis=0)
    return xp.reshape(rows, (*codes.shape, n))


def of_stored(sparse: Sparse, table: Array, codes: Array, *, turned: bool, xp: Namespace) -> Array:
    """For each stored entry that of the table of its batch; turned, of the transposed problem."""
    i, j = (sparse.j, sparse.i) if turned else (sparse.i, sparse.j)
    places = xp.astype(xp.take(codes, i), j.dtype) * table.shape[-1] + j
    return xp.take(xp.reshape(table, (-1,)), places)


def sums_of_batches(codes: Array, X: Array, count: int, *, xp: Namespace) -> Array:
    """The sums of the rows of X (..., m, k) over each batch: (..., G, k)."""
    m = codes.shape[-1]
    step = max(1, AT_ONCE // count)
    total: Any = 0.0
    for start in range(0, m, step):
        stop = min(start + step, m)
        member = _members(codes[..., start:stop], 0, count, dtype=X.dtype, xp=xp)
        total = total + member @ X[..., start:stop, :]
    return total


def _members(codes: Array, start: int, stop: int, *, dtype: Any, xp: Namespace) -> Array:
    """Ones for the rows that are in each of some batches: (..., stop - start, m)."""
    batches = xp.arange(start, stop, dtype=codes.dtype, device=libraries.device(codes))
    return xp.astype(batches[:, None] == codes[..., None, :], dtype)
