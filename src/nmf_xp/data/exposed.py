"""A known exposure of each entry: V is modelled by U * WH, entry by entry.

The divergence is homogeneous, d(c v | c y) = c^beta d(v | y) (Fevotte & Idier 2011, section 2.1). So that of V from
U * WH is that of V / U from WH, with weights U^beta: no solver knows of exposures.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from nmf_xp.arrays import libraries, mesh
from nmf_xp.arrays.checks import check_array, check_broadcast, check_namespace, check_values, is_dtype
from nmf_xp.data.sparse import Sparse

if TYPE_CHECKING:
    from nmf_xp.arrays.typing import Array, Namespace
    from nmf_xp.data.seam import Data


def check_exposure(exposure: Any, V: Array, shape: tuple[int, ...], *, beta: float) -> None:
    """Refuse an exposure that does not go with V, or is not positive, or whose power leaves the range of numbers."""
    xp = check_array("exposure", exposure, min_ndim=0)
    check_namespace("exposure", exposure, V)
    check_broadcast("exposure", exposure.shape, shape)
    if not is_dtype(exposure, ("integral", "real floating"), xp=xp):
        msg = f"`exposure` must be real, got dtype {libraries.dtype_name(exposure.dtype)}"
        raise TypeError(msg)
    if not libraries.is_readable(exposure):
        return
    low, high = check_values("exposure", exposure, xp=xp)
    if low == 0:
        msg = "`exposure` must be positive, got zeros; give a weight of 0 to entries that cannot be observed"
        raise ValueError(msg)
    largest = float(xp.finfo(V.dtype).max)
    if max(abs(math.log(x)) for x in (low, high)) * max(1.0, abs(beta)) > 0.5 * math.log(largest):
        msg = (
            f"`exposure` must have powers within the range of {libraries.dtype_name(V.dtype)}, "
            f"got entries from {low:g} to {high:g}; divide it by a number, by which W is then multiplied"
        )
        raise ValueError(msg)


def with_exposure(
    data: Data, weights: Array | None, exposure: Any, *, beta: float, xp: Namespace
) -> tuple[Data, Array | None]:
    """The data V / U, and the weights times U^beta; both as they are without an exposure."""
    if exposure is None:
        return data, weights
    check_exposure(exposure, data.values, data.shape, beta=beta)
    exposure = xp.astype(mesh.like(data.values, exposure), data.values.dtype, copy=False)
    data = data.with_values(data.values / at_stored(data, exposure, xp=xp))
    if beta == 0:
        return data, weights
    power = exposure**beta
    return data, power if weights is None else power * xp.astype(weights, power.dtype, copy=False)


def flat_exposure(exposure: Any, data: Data, stack: tuple[int, ...], *, xp: Namespace) -> Array | None:
    """A checked exposure in the dtype of the data, and laid out as they are, with at most one leading axis."""
    if exposure is None:
        return None
    exposure = xp.astype(mesh.like(data.values, exposure), data.values.dtype, copy=False)
    if exposure.ndim <= 2:
        return exposure
    shape = exposure.shape[-2:]
    return xp.reshape(xp.broadcast_to(exposure, (*stack, *shape)), (-1, *shape))


def at_stored(data: Data, exposure: Array, *, xp: Namespace) -> Array:
    """The exposure of the stored entries, or broadcasting to them."""
    if not isinstance(data, Sparse):
        return exposure
    (m, n), exposure = data.shape, xp.reshape(exposure, (1, 1, *exposure.shape)[-2:])
    if exposure.shape[0] == 1:
        return xp.take(exposure[0, :], data.j) if exposure.shape[1] == n > 1 else exposure[0, :]
    if exposure.shape[1] == 1:
        return xp.take(exposure[:, 0], data.i)
    return xp.take(xp.reshape(exposure, (m * n,)), xp.astype(data.i, xp.int64) * n + xp.astype(data.j, xp.int64))
