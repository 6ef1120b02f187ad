"""A sparse V: the entries that are not stored are zeros.

Kullback-Leibler and Frobenius touch only the stored entries: the model is needed there alone, since its sums over the
whole domain are sums of the factors. Other losses visit the whole domain, a few rows at a time. The temporaries are one
number for each stored entry (of a block of rows on NumPy), and `CHUNK` more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.arrays import kernels, libraries, operators, transfer
from nmf_xp.data.dense import full_domain_slope, full_domain_total
from nmf_xp.data.seam import Derived
from nmf_xp.data.sparse_products import CHUNK, View, absent_powers, indices, product, sampled_product, with_matrix

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nmf_xp.arrays.typing import Array, Namespace


class Fields(NamedTuple):
    """What a sparse matrix is made of."""

    values: Array  # (nnz,)
    rows_of: Array | None  # (nnz,): row of each entry; None where `along` is in their order, and tells it
    columns_of: Array | None  # (nnz,): its column; None where `across` tells it
    along: View  # the entries row by row
    across: View  # the entries column by column


class Sparse(Fields, Derived):
    """The stored entries of a sparse matrix in one order, and how to multiply by them along both axes.

    The transposed problem exchanges the two index arrays and the two views; the entries stay as they stand.
    """

    @property
    def i(self) -> Array:
        """Row of each entry."""
        return indices(self.along) if self.rows_of is None else self.rows_of

    @property
    def j(self) -> Array:
        """Column of each entry."""
        return indices(self.across) if self.columns_of is None else self.columns_of

    @property
    def shape(self) -> tuple[int, ...]:
        return self.along.starts.shape[0] - 1, self.across.starts.shape[0] - 1

    @property
    def T(self) -> Sparse:
        return Sparse(self.values, self.columns_of, self.rows_of, self.across, self.along)

    @property
    def has_absent(self) -> bool:
        m, n = self.shape
        return self.values.shape[0] < m * n

    def with_values(self, values: Array) -> Sparse:
        """The same places with other entries, which nothing keeps twice."""
        along, across = (view._replace(values=None) for view in (self.along, self.across))
        return Sparse(values, self.rows_of, self.columns_of, along, across)

    def with_both_orders(self) -> Sparse:
        """On NumPy the entries column by column too, for what visits one column after the other."""
        if self.across.others is not None or not libraries.is_numpy(self.values):
            return self
        kernel = kernels.find("by_columns", self.values)
        if kernel is not None:
            return self._replace(across=View(*kernel(self.along.starts, self.along.others, self.values, self.shape[1])))
        import numpy as np
        from scipy.sparse import csr_matrix

        numbers = np.arange(self.values.shape[0], dtype=self.along.starts.dtype)
        across = csr_matrix((numbers, self.along.others, self.along.starts), shape=self.shape).tocsc()
        return self._replace(across=View(across.indptr, across.indices, across.data))

    def row_values(self, *, xp: Namespace) -> Array:
        """The entries row by row."""
        if self.along.order is None:
            return self.values
        return xp.take(self.values, self.along.order) if self.along.values is None else self.along.values

    def with_one_order(self) -> Sparse:
        """Only as its entries are stored, which is all that SciPy's products need."""
        return self._replace(across=View(self.across.starts, None, None))

    def dense(self, *, xp: Namespace) -> Array:
        """V as a dense array; where an array library cannot write to places, V I or I V, whichever I is smaller."""
        m, n = self.shape
        if libraries.is_numpy(self.values):
            V: Any = xp.zeros((m, n), dtype=self.values.dtype, device=libraries.device(self.values))
            V[self.i, self.j] = self.values  # lint: made here
            return V
        eye = xp.eye(min(m, n), dtype=self.values.dtype, device=libraries.device(self.values))
        if n <= m:
            return self.contract(self.values, eye, xp=xp)
        return operators.transposed(self.T.contract(self.values, eye, xp=xp))

    def block_starts(self, n_components: int) -> list[int]:
        """Blocks of rows with about the same number of entries, enough of them to outweigh a sum of H's size."""
        m, n = self.shape
        nnz = self.values.shape[0]
        known = libraries.is_numpy(self.values) and self.along.others is not None
        count = min(m, nnz // max(2**16, 2 * n)) if known else 1
        if count < 2:
            return [0, m]
        import numpy as np

        targets = np.arange(1, count) * (nnz // count)
        return [0, *np.unique(np.searchsorted(np.asarray(self.along.starts), targets)).tolist(), m]

    def rows(self, start: int, stop: int) -> Sparse:
        starts = self.along.starts[start : stop + 1]
        first, last = int(transfer.scalar(starts[0])), int(transfer.scalar(starts[-1]))
        stored: Any = slice(first, last) if self.along.order is None else self.along.order[first:last]
        values = self.values[stored]
        if libraries.is_numpy(self.values):
            assert self.along.others is not None
            i, j = None, self.along.others[first:last]
        else:
            i, j = self.i[stored] - start, self.j[stored]
            if self.across.others is not None:  # torch and JAX need both orders
                return from_entries(values, i, j, (stop - start, self.shape[1]))
        return Sparse(values, i, j, View(starts - first, j, None), View(self.across.starts, None, None))

    def predict(self, W: Array, H: Array, *, xp: Namespace) -> Array:
        Ht = operators.transposed(H)
        if self.columns_of is None:  # the transpose has its entries row by row
            return self.T.predict(Ht, operators.transposed(W), xp=xp)
        kernel = kernels.find("sampled_product", self.columns_of, W, Ht) if self.rows_of is None else None
        if kernel is not None:
            return kernel(self.along.starts, self.columns_of, W, Ht)
        return sampled_product(self.i, self.j, W, Ht, xp=xp)

    def contract(self, Z: Array, H: Array, *, xp: Namespace) -> Array:
        if Z is self.values and self.along.values is not None:
            along = self.along._replace(order=None)
            return product(along, self.across, self.along.values, operators.transposed(H), xp=xp)
        return product(self.along, self.across, Z, operators.transposed(H), xp=xp)

    def model_slope(self, W: Array, H: Array, power: Array | None, *, beta: float, xp: Namespace) -> Array:
        if power is not None and not self.has_absent:
            return self.contract(power, H, xp=xp)
        return self.weighted_slope(W, H, H, beta=beta, xp=xp)

    def weighted_slope(self, W: Array, H: Array, G: Array, *, beta: float, xp: Namespace) -> Array:
        """(WH)^(beta-1) G^T over the whole domain."""
        if beta in (1, 2):
            return full_domain_slope(W, H, G, beta=beta, xp=xp)
        info = xp.finfo(W.dtype)  # the power of the least is finite: a model may be zero
        least = max(float(info.smallest_normal), float(info.max) ** (-0.8 / max(1.0, 1.0 - beta)))
        bounded = (operators.at_least(Y, least, xp=xp) for Y in _model_blocks(W, H))
        powers = (operators.power(Y, beta - 1.0, xp=xp) for Y in bounded)
        return xp.concat([power @ operators.transposed(G) for power in powers], axis=0)

    def spread(self, t: Array, *, xp: Namespace) -> Array:
        return xp.take(t[:, 0], self.i)

    def total(self, W: Array, H: Array, *, dtype: Any, xp: Namespace) -> Array:
        return full_domain_total(W, H, dtype=dtype, xp=xp)

    def absent(
        self, W: Array, H: Array, Y: Array, stored: Array, *, beta: float, dtype: Any, xp: Namespace
    ) -> Array | None:
        """(sum of y^beta over the domain - the sum over the stored entries) / beta.

        Where the model is nearly zero but at the stored entries the two sums are almost equal, and their difference is
        rounding. It is taken again in the wider dtype, where there is one, else by a sum over what is absent alone. So
        in float32 a divergence keeps three quarters of its digits, in float64 a half.
        """
        if not self.has_absent:
            return None
        if beta <= 0:
            return xp.full((), float("inf"), dtype=dtype, device=libraries.device(W))
        here = xp.sum(operators.power(Y, beta, xp=xp), dtype=dtype)
        return self.absent_beside(W, H, here, stored, beta=beta, dtype=dtype, xp=xp)

    def absent_beside(
        self, W: Array, H: Array, here: Array, stored: Array, *, beta: float, dtype: Any, xp: Namespace
    ) -> Array:
        """The same for beta > 0, where the sum of y^beta over the stored entries is `here`."""
        everywhere, absent = self._absent(W, H, here, beta=beta, dtype=dtype, xp=xp)

        def again() -> Array:
            if W.dtype != dtype:
                wide = xp.astype(W, dtype), xp.astype(H, dtype)
                exact = xp.sum(operators.power(self.predict(*wide, xp=xp), beta, xp=xp))
                return self._absent(*wide, exact, beta=beta, dtype=dtype, xp=xp)[1]
            if operators.is_slow_to_ask(W):
                return absent
            return xp.sum(absent_powers(self.i, self.j, W, H, beta=beta, dtype=dtype, xp=xp)) / beta

        lost = 0.5 if W.dtype == dtype else 0.25  # a model in the wider dtype is cheap, what is absent alone is not
        rough = operators.cancelled(absent + stored, everywhere, W.dtype, lost=lost, xp=xp)
        return operators.at_least(operators.either(rough, again, lambda: absent, xp=xp), 0.0, xp=xp)

    def absent_of_rows(
        self, W: Array, H: Array, Y: Array, stored: Array, *, beta: float, dtype: Any, xp: Namespace
    ) -> Array:
        """What `absent` sums, row by row: (m, 1), for the divergences of the `stored` entries, (m, 1).

        The sum of y^beta along a row is that of w_ik times the slope of the model.
        """
        if beta <= 0:
            return xp.full((), float("inf"), dtype=dtype, device=libraries.device(W))
        everywhere, absent = self._absent_of_rows(W, H, Y, beta=beta, xp=xp)

        def again() -> Array:
            if W.dtype != dtype:
                wide = xp.astype(W, dtype), xp.astype(H, dtype)
                return self._absent_of_rows(*wide, self.predict(*wide, xp=xp), beta=beta, xp=xp)[1]
            if operators.is_slow_to_ask(W):
                return absent
            return absent_powers(self.i, self.j, W, H, beta=beta, dtype=dtype, xp=xp)[:, None] / beta

        lost = 0.5 if W.dtype == dtype else 0.25
        sums = xp.sum(absent + stored), xp.sum(everywhere)
        rough = operators.cancelled(*sums, W.dtype, lost=lost, xp=xp)
        found = operators.either(rough, again, lambda: xp.astype(absent, dtype, copy=False), xp=xp)
        return operators.at_least(found, 0.0, xp=xp)

    def _absent_of_rows(self, W: Array, H: Array, Y: Array, *, beta: float, xp: Namespace) -> tuple[Array, Array]:
        slope = self.weighted_slope(W, H, H, beta=beta, xp=xp)
        everywhere = xp.sum(W * slope, axis=-1, keepdims=True)
        here = self.contract(operators.power(Y, beta, xp=xp), xp.ones_like(H[:1, :]), xp=xp)
        return everywhere / beta, (everywhere - here) / beta

    def _absent(
        self, W: Array, H: Array, here: Array, *, beta: float, dtype: Any, xp: Namespace
    ) -> tuple[Array, Array]:
        """The sum over the domain, and its difference from that over the stored entries, divided by beta."""
        if beta == 1:
            everywhere = self.total(W, H, dtype=dtype, xp=xp)
        elif beta == 2:
            left, right = (xp.astype(x, dtype, copy=False) for x in (operators.transposed(W), H))  # most cancels
            everywhere = xp.sum((left @ operators.transposed(left)) * (right @ operators.transposed(right)))
        else:
            everywhere = sum(xp.sum(operators.power(Y, beta, xp=xp), dtype=dtype) for Y in _model_blocks(W, H))
        return everywhere / beta, (everywhere - here) / beta


def _model_blocks(W: Array, H: Array) -> Iterator[Array]:
    """WH, a few rows at a time."""
    height = max(1, CHUNK // H.shape[-1])
    return (W[start : start + height, :] @ H for start in range(0, W.shape[0], height))


def from_entries(values: Array, i: Array, j: Array, shape: tuple[int, ...]) -> Sparse:
    """Entries in order of rows, with a second order by columns."""
    xp: Namespace = libraries.array_namespace(values)
    device = libraries.device(values)
    if values.shape[0] == 0:
        values = xp.zeros(1, dtype=values.dtype, device=device)
        i = j = xp.zeros(1, dtype=i.dtype, device=device)
    order = xp.argsort(j, stable=True)
    by_column = xp.take(j, order)
    m, n = shape
    starts = [
        xp.searchsorted(index, xp.arange(length + 1, dtype=index.dtype, device=device))
        for index, length in ((i, m), (by_column, n))
    ]
    along, across = View(starts[0], j, None), View(starts[1], xp.take(i, order), order)
    return Sparse(values, i, j, with_matrix(along, values, (m, n)), with_matrix(across, values, (n, m)))
