"""From a block as its source holds it to data: in the dtype, on the device and in the units of the problem."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.arrays import arrival, libraries, precision, transfer
from nmf_xp.arrays.checks import as_working_dtype, check_array, check_values
from nmf_xp.data import Dense, Weighted, entry_weights, in_units, largest_observed, seen, with_weights
from nmf_xp.data.checks import stored_places
from nmf_xp.data.exposed import with_exposure
from nmf_xp.data.sparse import from_entries
from nmf_xp.data.sparse_formats import from_sparse
from nmf_xp.data.sparse_places import checked
from nmf_xp.data.units import Units, in_weight_units

if TYPE_CHECKING:
    from nmf_xp.arrays.typing import Array
    from nmf_xp.data.seam import Data


def prototype(block: Any, *, like: Array | None, dtype: str | None) -> Array:
    """An array of shape (0, n), of the namespace, device and dtype in which blocks like this one are factorized.

    Namespace and device follow `like`, or the block itself where that is None. The dtype is the one named, or the one
    for an array of the block's dtype.
    """
    values: Any = block.data if libraries.sparse_library(block) == "sparse" else arrival.plain(block)
    if libraries.sparse_library(block) == "scipy":
        values = (checked(block).tocoo() if block.format in ("lil", "dok") else block).data
    theirs = libraries.array_namespace(values)
    like = values if like is None else like
    xp, device = libraries.array_namespace(like), libraries.device(like)
    with precision.on_their_device(values):
        working = libraries.dtype_name(as_working_dtype("V", values[:0, ...], xp=theirs).dtype)
    if theirs.isdtype(values.dtype, ("bool", "integral")):
        working = libraries.dtype_name(libraries.default_dtype(xp, device))
    return xp.empty((0, block.shape[1]), dtype=getattr(xp, dtype or working), device=device)


class Range(NamedTuple):
    """The least and the largest entry of data, and the largest of their weights."""

    low: float
    high: float
    heaviest: float


class Recipe(NamedTuple):
    """How a block becomes data; what is done with it depends on no other block."""

    like: Array  # the `prototype`
    beta: float
    missing: str | None
    absent: str
    units: Units = Units()

    def __call__(self, block: Any, weights: Any = None, exposure: Any = None) -> Data:
        """The data of a block, with the weights and the exposure (m_i, n) of its entries, or broadcasting to it."""
        return self._assemble(block, weights, exposure)[0]

    def checked(self, block: Any, weights: Any = None, exposure: Any = None) -> tuple[Data, Range]:
        """The same, and the range of its entries, after a look at all of them."""
        xp = libraries.array_namespace(self.like)
        for name, x in (("weights", weights), ("exposure", exposure)):
            if x is not None:
                check_array(name, x, min_ndim=0)
        data, weights = self._assemble(block, weights, exposure)
        heaviest = 1.0 if weights is None else check_values("weights", weights, xp=xp)[1]
        if isinstance(data, Weighted):  # of a sparse block, only what is stored
            heaviest = transfer.scalar(xp.max(data.weights))
        low, high = check_values("V", data.values, xp=xp, stored=stored_places(data))
        high = largest_observed(data, high, beta=self.beta, xp=xp)
        return data, Range(0.0 if data.has_absent else low, high, heaviest)

    def _assemble(self, block: Any, weights: Any, exposure: Any) -> tuple[Data, Array | None]:
        xp = libraries.array_namespace(self.like)
        data = self.unweighted(block)
        if weights is not None:
            weights = self._moved(weights)
        exposure = None if exposure is None else self._moved(exposure)
        data, weights = with_exposure(data, weights, exposure, beta=self.beta, xp=xp)
        weights = entry_weights(data, weights, self.missing, xp=xp)
        if weights is not None:
            weights = in_weight_units(weights, self.units.weights, xp=xp)
        data = seen(with_weights(data, weights, absent=self.absent, beta=self.beta, xp=xp), block, xp=xp)
        return in_units(data, self.units.v, beta=self.beta, xp=xp), weights

    def unweighted(self, block: Any) -> Data:
        """The block on the device and in the working dtype, and no more."""
        library = libraries.sparse_library(block)
        if library is None:
            return Dense(self._moved(block))
        if library != "scipy" or libraries.is_numpy(self.like):
            data = from_sparse(block)
            return data.with_values(self._moved(data.values))
        if libraries.is_jax(self.like):  # whose sparse products would be compiled anew for every block
            msg = "`like` must not be a JAX array for sparse blocks, got one; leave it out, or make the blocks dense"
            raise TypeError(msg)
        entries = checked(block).tocoo(copy=False)
        entries.sum_duplicates()
        xp, device = libraries.array_namespace(self.like), libraries.device(self.like)
        i, j = (transfer.from_host(x, xp=xp, dtype=xp.int64, device=device) for x in (entries.row, entries.col))
        return from_entries(self._moved(entries.data), i, j, block.shape)

    def _moved(self, x: Any) -> Array:
        """An array of the working dtype on the device."""
        x = precision.as_data_only(arrival.plain(x, mapped=True))
        xp, device = libraries.array_namespace(self.like), libraries.device(self.like)
        if libraries.is_numpy(x) and not libraries.is_numpy(self.like):
            return transfer.from_host(x, xp=xp, dtype=self.like.dtype, device=device, staged=True)
        return xp.astype(transfer.to_device_of(x, self.like), self.like.dtype, copy=False)
