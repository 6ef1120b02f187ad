"""A factor for each batch of rows and each column: V is modelled by B[g_i, j] (WH)_ij, for the Kullback-Leibler loss.

With U = B[g] the slopes are those of WH alone but for the second part, which is U H^T in the place of the sums of H:
(V / UWH) U = V / WH. So what is stored of V is met as it is, and nothing of V's size is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from nmf_xp.arrays import libraries, operators
from nmf_xp.data.seam import Wrapping

if TYPE_CHECKING:
    from nmf_xp.arrays.typing import Array, Namespace

AT_ONCE = 2**22  # entries of an indicator matrix


class Fields(NamedTuple):
    """What data with a table are made of."""

    base: Any
    codes: Array  # g (m,): the batch of each row of V
    table: Array  # B (..., G, n)


class Tabled(Fields, Wrapping):
    """`base`, one matrix without weights, whose model is WH times the entry of a table.

    `predict` is WH, as the slopes need it; `observed` is the model of V.
    """

    turned: ClassVar[bool] = False

    @property
    def T(self) -> Tabled:
        return TabledTransposed(self.base.T, self.codes, self.table)

    @property
    def has_absent(self) -> bool:
        return self.base.has_absent

    def rows(self, start: int, stop: int) -> Tabled:
        return self._replace(base=self.base.rows(start, stop), codes=self.codes[start:stop])

    def contract(self, Z: Array, H: Array, *, xp: Namespace) -> Array:
        return self.base.contract(Z, H, xp=xp)

    def model_slope(self, W: Array, H: Array, power: Array | None, *, beta: float, xp: Namespace) -> Array:
        return xp.take(self.table @ operators.transposed(H), self.codes, axis=-2)

    def observed(self, Y: Array, *, xp: Namespace) -> Array:
        if Y.ndim > 1:  # of dense data, in V's order whether it is turned or not
            return Y * xp.take(self.table, self.codes, axis=-2)
        i, j = (self.base.j, self.base.i) if self.turned else (self.base.i, self.base.j)
        places = xp.astype(xp.take(self.codes, i), j.dtype) * self.table.shape[-1] + j
        return Y * xp.take(xp.reshape(self.table, (-1,)), places)

    def total(self, W: Array, H: Array, *, dtype: Any, xp: Namespace) -> Array:
        model = model_sums(self.codes, W, H, self.table.shape[-2], turned=self.turned, xp=xp)
        return xp.sum(self.table * model, axis=(-2, -1), dtype=dtype)

    def absent(
        self, W: Array, H: Array, Y: Array, stored: Array, *, beta: float, dtype: Any, xp: Namespace
    ) -> Array | None:
        if not self.has_absent:
            return None
        wide = self._replace(table=xp.astype(self.table, dtype, copy=False))
        W, H = (xp.astype(x, dtype, copy=False) for x in (W, H))
        everywhere = wide.total(W, H, dtype=dtype, xp=xp)
        return operators.at_least(everywhere - xp.sum(Y, dtype=dtype), 0.0, xp=xp)


class TabledTransposed(Tabled):
    """The transposed problem: the table stays as it is."""

    turned: ClassVar[bool] = True

    @property
    def T(self) -> Tabled:
        return Tabled(self.base.T, self.codes, self.table)

    def rows(self, start: int, stop: int) -> Tabled:
        return self._replace(base=self.base.rows(start, stop), table=self.table[..., start:stop])

    def model_slope(self, W: Array, H: Array, power: Array | None, *, beta: float, xp: Namespace) -> Array:
        sums = sums_of_batches(self.codes, operators.transposed(H), self.table.shape[-2], xp=xp)
        return operators.transposed(self.table) @ sums


def model_sums(codes: Array, W: Array, H: Array, count: int, *, turned: bool, xp: Namespace) -> Array:
    """The sums of WH over the rows of each batch, (..., G, n); turned, over its columns, and transposed."""
    W, H = (operators.transposed(H), operators.transposed(W)) if turned else (W, H)
    return sums_of_batches(codes, W, count, xp=xp) @ H


def sums_of_batches(codes: Array, X: Array, count: int, *, xp: Namespace) -> Array:
    """The sums of the rows of X (..., m, k) over each batch: (..., G, k)."""
    m, batches = codes.shape[0], xp.arange(count, dtype=codes.dtype, device=libraries.device(codes))
    step = max(1, AT_ONCE // count)
    total: Any = 0.0
    for start in range(0, m, step):
        stop = min(start + step, m)
        member = xp.astype(batches[:, None] == codes[None, start:stop], X.dtype)
        total = total + member @ X[..., start:stop, :]
    return total
