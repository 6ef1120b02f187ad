"""Checks of the data and of what goes with them: factors, components, weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nmf_xp.arrays import libraries, transfer
from nmf_xp.arrays.checks import (
    as_working_dtype,
    check_array,
    check_broadcast,
    check_factor,
    check_namespace,
    first_place,
    is_dtype,
)

if TYPE_CHECKING:
    from nmf_xp.arrays.typing import Array, Namespace
    from nmf_xp.data.seam import Data


NOTHING_OBSERVED = "`V` must have an observed entry, got none: each one is missing or has a weight of 0"


def check_problem(data: Data, W: Any, H: Any, weights: Any = None) -> tuple[Data, Namespace]:
    """The data in their working dtype, and the namespace of all.

    W (..., m, r), H (..., r, n) and weights must fit V (..., m, n) and each other.
    """
    xp = libraries.array_namespace(data.values)
    data = data.with_values(as_working_dtype("V", data.values, xp=xp))
    V = data.values
    for name, x in (("W", W), ("H", H)):
        check_array(name, x, min_ndim=2)
        check_factor(name, x, V)
    m, n = data.shape[-2:]
    if W.shape[-2] != m or H.shape[-1] != n or W.shape[-1] != H.shape[-2]:
        msg = (
            f"The shapes of `V`, `W` and `H` must be (..., m, n), (..., m, r) and (..., r, n), "
            f"got {tuple(data.shape)}, {tuple(W.shape)} and {tuple(H.shape)}"
        )
        raise ValueError(msg)
    if weights is not None:
        check_weights(weights, V, data.shape)
    return data, xp


def check_weights(weights: Any, V: Array, shape: tuple[int, ...]) -> None:
    """Refuse weights that do not go with V; their values are checked elsewhere."""
    xp = check_array("weights", weights, min_ndim=0)
    check_namespace("weights", weights, V)
    check_broadcast("weights", weights.shape, shape)
    if not is_dtype(weights, ("bool", "integral", "real floating"), xp=xp):
        msg = f"`weights` must be real or boolean, got dtype {libraries.dtype_name(weights.dtype)}"
        raise TypeError(msg)


def check_columns(shape: tuple[int, ...], H: Array) -> None:
    """Refuse V of this shape where its rows are not of the length of the given components."""
    n = H.shape[-1]
    if shape[-1] != n:
        msg = f"`V` must have {n} columns, as the components in `H` have, got shape {tuple(shape)}"
        raise ValueError(msg)


def check_components(H: Array, *, xp: Namespace) -> None:
    """Refuse components of zeros only, with which no W can explain anything; in a stack those of any member."""
    zeros = xp.max(H, axis=(-2, -1)) == 0
    if transfer.scalar(xp.any(zeros)):
        msg = f"`H` must have a positive entry, got zeros only{_of_member(zeros, xp=xp)}"
        raise ValueError(msg)


def check_observed(weights: Array, *, xp: Namespace) -> None:
    """Refuse weights (..., m, n), or of the stored entries (k,), that leave nothing to fit, also in one of a stack."""
    nothing = xp.max(weights, axis=tuple(range(-min(weights.ndim, 2), 0))) == 0
    if transfer.scalar(xp.any(nothing)):
        raise ValueError(NOTHING_OBSERVED + _of_member(nothing, xp=xp))


def _of_member(mask: Array, *, xp: Namespace) -> str:
    """Which member of a stack is the first for which the mask holds; nothing where there is no stack."""
    if not mask.ndim:
        return ""
    index = first_place(mask, xp=xp)
    return f", in member {index[0] if len(index) == 1 else index}"


def stored_places(data: Data) -> tuple[Array, Array] | None:
    """The row and the column of each entry of a sparse V; None where V is dense."""
    found: Any = data
    while hasattr(found, "base"):
        found = found.base
    return (found.i, found.j) if found.values.ndim < 2 else None


def check_zeros(low: float, beta: float) -> None:
    """Refuse zeros in V where the divergence is infinite on them."""
    if low == 0 and beta <= 0:
        msg = (
            f"`V` must be positive for `beta_loss` {beta:g}, whose divergence is infinite on zeros, got zeros; "
            "use a `beta_loss` above 0, or add a small number to V"
        )
        raise ValueError(msg)
