"""(V / WH) H^T, which is all that the Kullback-Leibler updates take from V: fused, where there is a kernel for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nmf_xp.arrays import kernels, libraries, operators
from nmf_xp.data.dense import Dense, DenseTransposed
from nmf_xp.data.sparse import Sparse

if TYPE_CHECKING:
    from collections.abc import Callable

    from nmf_xp.arrays.typing import Array
    from nmf_xp.data.seam import Data

KERNELS: dict[type, str] = {
    Dense: "dense_quotient",
    DenseTransposed: "transposed_quotient",
    Sparse: "sparse_quotient",
}


def contract_quotient(data: Data, W: Array, H: Array) -> Array:
    """(V / WH) H^T over the entries, weighted as they are: (..., m, r)."""
    kernel = _kernel(data, W, H)
    return unfused(data, W, H) if kernel is None else kernel(unfused, data, W, H)


def unfused(data: Data, W: Array, H: Array) -> Array:
    """(V / WH) H^T with V / WH in memory."""
    xp = libraries.array_namespace(W)
    return data.contract(operators.divide_into(data.values, data.predict(W, H, xp=xp)), H, xp=xp)


def _kernel(data: Data, W: Array, H: Array) -> Callable[..., Array] | None:
    name = KERNELS.get(type(data))
    return None if name is None else kernels.find(name, data.values, W, H)
