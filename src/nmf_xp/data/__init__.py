"""Everything of size m x n: the data matrix behind one small seam.

A solver never touches V. It sees a `Data`, which offers V's stored entries, the model WH at those entries,
and the contractions of arrays of that pattern with the factors. One file a kind of data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nmf_xp.arrays import libraries, mesh, transfer
from nmf_xp.arrays.checks import check_array, check_option, check_sparse
from nmf_xp.data.dense import Dense
from nmf_xp.data.seam import Data
from nmf_xp.data.sparse import Sparse
from nmf_xp.data.sparse_formats import from_sparse, stores_nothing
from nmf_xp.data.units import times_power
from nmf_xp.data.weighted import LineWeighted, Weighted, with_bound

if TYPE_CHECKING:
    from nmf_xp.arrays.typing import Array, Namespace

__all__ = [
    "Data",
    "Dense",
    "Sparse",
    "Weighted",
    "as_data",
    "dense_if_quicker",
    "entry_weights",
    "in_units",
    "largest_observed",
    "seen",
    "with_bound",
    "with_weights",
]


def as_data(V: Any) -> Data:
    """The Data that holds V, of the kind that its type calls for; V's type and shape are checked, not its values."""
    if libraries.sparse_library(V) is None:
        check_array("V", V, min_ndim=2)
        return Dense(mesh.with_auto_axes(V))
    check_sparse("V", V)
    return from_sparse(V)


def seen(data: Data, V: Any, *, xp: Namespace) -> Data:
    """The data with a weight of 0 on the explicit zero of a sparse V that stores nothing, of which nothing is seen."""
    if isinstance(data, Weighted) and isinstance(data.base, Sparse) and stores_nothing(V):
        return data._replace(weights=xp.zeros_like(data.weights))
    return data


def entry_weights(data: Data, weights: Any, missing: str | None, *, xp: Namespace) -> Array | None:
    """The weights of the entries, unchecked, 0 where one is missing; None where all entries weigh the same."""
    V = data.values
    if missing is not None:
        check_option("missing", missing, ("nan",))
        if V.ndim < 2:
            msg = (
                "`missing` must be None for a sparse V: store no entry where none is observed, and say absent='missing'"
            )
            raise ValueError(msg)
        observed = xp.astype(xp.logical_not(xp.isnan(V)), V.dtype)
        weights = observed if weights is None else observed * xp.astype(weights, V.dtype)
    return None if weights is None else xp.astype(weights, V.dtype, copy=False)


def with_weights(data: Data, weights: Array | None, *, absent: str, beta: float, xp: Namespace) -> Data:
    """The data with weights (..., m, n), or broadcasting to it, on its entries.

    The entries that a sparse V does not store are zeros, or unobserved, as `absent` says ("zero" or "missing").

    What stands in V behind a weight of 0 is never read: it is replaced by a value at which the divergence is finite. A
    sparse V stays sparse where the weights are constant along rows or columns; else they are as large as a dense V.
    """
    check_option("absent", absent, ("zero", "missing"))
    if absent == "missing":
        return _observed_only(data, weights, beta=beta, xp=xp)
    if weights is None:
        return data
    weights = xp.astype(weights, data.values.dtype, copy=False)
    if isinstance(data, Sparse):
        if not data.has_absent:
            return _observed_only(data, weights, beta=beta, xp=xp)
        if 1 in (1, 1, *weights.shape)[-2:] and beta > 0:
            return _line_weighted(data, weights, beta=beta, xp=xp)
        data = Dense(data.dense(xp=xp))
    weights = xp.broadcast_to(weights, data.values.shape)
    return Weighted(_without_unobserved(data, weights, beta=beta, xp=xp), weights)


DENSE = 2**12
"""The least number of entries for which `dense_if_quicker` looks: for fewer it would gain nothing."""


def dense_if_quicker(data: Data, *, xp: Namespace) -> Data:
    """A sparse V of which at least half is stored as a dense one, on NumPy; all other data as they are.

    An entry then costs half of what it does in a sparse V, and with its two places there it takes as much memory.
    """
    if not isinstance(data, Sparse) or not libraries.is_numpy(data.values):
        return data
    m, n = data.shape
    return Dense(data.dense(xp=xp)) if DENSE <= m * n <= 2 * data.values.shape[0] else data


def _line_weighted(data: Sparse, weights: Array, *, beta: float, xp: Namespace) -> Data:
    m, n = data.shape
    weights = xp.reshape(weights, (1, 1, *weights.shape)[-2:])
    ones = [xp.ones(shape, dtype=weights.dtype, device=libraries.device(weights)) for shape in ((m, 1), (1, n))]
    a, b = (weights * ones[0], ones[1]) if weights.shape[1] == 1 else (ones[0], weights * ones[1])
    stored = xp.take(a[:, 0], data.i) * xp.take(b[0, :], data.j)
    return LineWeighted(_without_unobserved(data, stored, beta=beta, xp=xp), stored, a, b)


def _without_unobserved(data: Data, weights: Array, *, beta: float, xp: Namespace) -> Data:
    """The data without what stands behind weights of 0."""
    return data.with_values(xp.where(weights > 0, data.values, 0.0 if beta > 0 else 1.0))


def largest_observed(data: Data, largest: float, *, beta: float, xp: Namespace) -> float:
    """The largest entry but for what stands behind weights of 0."""
    if not isinstance(data, Weighted) or beta > 0:
        return largest
    return transfer.scalar(xp.max(xp.where(data.weights > 0, data.values, 0.0)))


def in_units(data: Data, exponent: int, *, beta: float, xp: Namespace) -> Data:
    """The data divided by 2^exponent, but for what stands behind weights of 0."""
    if exponent == 0:
        return data
    data = data.with_values(times_power(data.values, -exponent))
    if not isinstance(data, Weighted) or beta > 0:
        return data
    return _without_unobserved(data, data.weights, beta=beta, xp=xp)


def _observed_only(data: Data, weights: Array | None, *, beta: float, xp: Namespace) -> Data:
    """Sparse data whose absent entries are unobserved, with weights (m, n), or broadcasting to it, on the others."""
    if not isinstance(data, Sparse):
        msg = "`absent` must be left at 'zero' for a dense V, got 'missing'; say missing='nan', or give `weights`"
        raise ValueError(msg)
    values = data.values
    if weights is None:
        return Weighted(data, xp.ones_like(values))
    m, n = data.shape
    weights = xp.astype(xp.broadcast_to(weights, (m, n)), values.dtype)
    stored = xp.take(xp.reshape(weights, (-1,)), xp.astype(data.i, xp.int64) * n + xp.astype(data.j, xp.int64))
    return Weighted(_without_unobserved(data, stored, beta=beta, xp=xp), stored)
