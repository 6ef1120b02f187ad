"""Checks at the boundary: one error that names the argument, the rule, what was got and what to do.

Shapes, dtypes and namespaces are always checked; values only where they can be read without tracing.
"""

from __future__ import annotations

import math
import numbers
from typing import TYPE_CHECKING, Any

from nmf_xp import _compat

if TYPE_CHECKING:
    from collections.abc import Collection

    from nmf_xp._typing import Array, Namespace
    from nmf_xp.data import Data

NOTHING_OBSERVED = "`V` must have an observed entry, got none: each one is missing or has a weight of 0"
BETA_LOSSES = {"frobenius": 2.0, "kullback-leibler": 1.0, "itakura-saito": 0.0}


def check_beta(beta_loss: float | str) -> float:
    """The beta of a loss given by name or by number."""
    if isinstance(beta_loss, str):
        if beta_loss not in BETA_LOSSES:
            msg = f"`beta_loss` must be one of {sorted(BETA_LOSSES)} or a finite number, got {beta_loss!r}"
            raise ValueError(msg)
        return BETA_LOSSES[beta_loss]
    if not _is_real(beta_loss):
        msg = f"`beta_loss` must be one of {sorted(BETA_LOSSES)} or a finite number, got {beta_loss!r}"
        raise TypeError(msg)
    if not math.isfinite(beta_loss):
        msg = f"`beta_loss` must be one of {sorted(BETA_LOSSES)} or a finite number, got {beta_loss!r}"
        raise ValueError(msg)
    return float(beta_loss)


def check_problem(data: Data, W: Any, H: Any, weights: Any = None) -> tuple[Data, Namespace]:
    """The data in their working dtype, and the namespace of all.

    W (..., m, r), H (..., r, n) and weights must fit V (..., m, n) and each other.
    """
    xp = _compat.array_namespace(data.values)
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
    if not _is_dtype(weights, ("bool", "integral", "real floating"), xp=xp):
        msg = f"`weights` must be real or boolean, got dtype {_compat.dtype_name(weights.dtype)}"
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
    if _compat.scalar(xp.any(zeros)):
        msg = f"`H` must have a positive entry, got zeros only{_of_member(zeros, xp=xp)}"
        raise ValueError(msg)


def check_observed(weights: Array, *, xp: Namespace) -> None:
    """Refuse weights (..., m, n), or of the stored entries (k,), that leave nothing to fit, also in one of a stack."""
    nothing = xp.max(weights, axis=tuple(range(-min(weights.ndim, 2), 0))) == 0
    if _compat.scalar(xp.any(nothing)):
        raise ValueError(NOTHING_OBSERVED + _of_member(nothing, xp=xp))


def _of_member(mask: Array, *, xp: Namespace) -> str:
    """Which member of a stack is the first for which the mask holds; nothing where there is no stack."""
    return (
        f", in member {_first(mask, xp=xp).removeprefix('stored entry ').removeprefix('index ')}" if mask.ndim else ""
    )


def check_array(name: str, x: Any, *, min_ndim: int, max_ndim: int | None = None) -> Namespace:
    """The namespace of one array, whose number of axes is checked and none of which may be empty."""
    kind = _compat.unsupported_kind(name, x)
    if kind is not None:
        msg = f"`{name}` must be a plain dense array, got {kind}"
        raise TypeError(msg)
    if not _compat.is_array(x):
        rule = "an array of a namespace that follows the array API standard"
        msg = f"`{name}` must be {rule}, got {_kind(x)}{_remedy(x)}"
        raise TypeError(msg)
    ndim = len(x.shape)
    if ndim < min_ndim or (max_ndim is not None and ndim > max_ndim):
        rule = f"{min_ndim} axes" if min_ndim == max_ndim else f"at least {min_ndim} axes"
        remedy = "; reshape it to one row (1, n) or one column (m, 1)" if ndim == 1 else ""
        msg = f"`{name}` must have {rule}, got shape {tuple(x.shape)}{remedy}"
        raise ValueError(msg)
    if any(length == 0 for length in x.shape):
        msg = f"`{name}` must have no empty axis, got shape {tuple(x.shape)}"
        raise ValueError(msg)
    return _compat.array_namespace(x)


def check_sparse(name: str, x: Any) -> None:
    """Refuse a sparse array that is no matrix."""
    if len(x.shape) != 2 or 0 in x.shape:
        msg = f"`{name}` must have two axes, none of them empty, where it is sparse, got shape {tuple(x.shape)}"
        raise ValueError(msg)


def _is_dtype(x: Array, kinds: str | tuple[str, ...], *, xp: Namespace) -> bool:
    try:
        return bool(xp.isdtype(x.dtype, kinds))
    except TypeError:  # of a dtype that NumPy does not know itself, such as bfloat16 of ml_dtypes
        return False


def as_working_dtype(name: str, x: Array, *, xp: Namespace) -> Array:
    """V in the dtype in which it is factorized.

    float32 and float64 stay; integers and booleans become the namespace's default floating dtype; 16-bit floats become
    float32, because their sums overflow and their floor would be visible.
    """
    if _is_dtype(x, ("bool", "integral"), xp=xp):
        return xp.astype(x, _compat.default_dtype(xp, _compat.device(x)))
    if not _is_dtype(x, "real floating", xp=xp):
        got = _compat.dtype_name(x.dtype)
        msg = f"`{name}` must be real: floating, integer or boolean, got dtype {got}; cast it first"
        raise TypeError(msg)
    bits = xp.finfo(x.dtype).bits
    if bits > 64:
        got = _compat.dtype_name(x.dtype)
        msg = f"`{name}` must have at most 64 bits an entry, got dtype {got}; cast it to float64"
        raise TypeError(msg)
    return x if bits >= 32 else xp.astype(x, xp.float32)


def check_factor(name: str, factor: Any, V: Any) -> None:
    """Refuse a factor that is not of V's namespace, dtype and device."""
    check_namespace(name, factor, V)
    if factor.dtype != V.dtype:
        msg = (
            f"`{name}` must have the dtype in which V is factorized, {_compat.dtype_name(V.dtype)}, "
            f"got {_compat.dtype_name(factor.dtype)}; cast it"
        )
        raise TypeError(msg)


def check_namespace(name: str, x: Any, V: Any) -> None:
    """Refuse an array that is not of V's namespace and device."""
    xp, theirs = _compat.array_namespace(V), _compat.array_namespace(x)
    if theirs is not xp:
        ours, other = _namespace_name(xp), _namespace_name(theirs)
        msg = f"`{name}` must be of `V`'s namespace, {ours}, got {other}; convert one of them"
        raise TypeError(msg)
    if _compat.on_mesh(V):  # what goes with it is laid out as it needs
        return
    here, there = _compat.device(V), _compat.device(x)
    if here is not None and there is not None and here != there:
        msg = f"`{name}` must be on `V`'s device, {here}, got {there}; move one of them"
        raise TypeError(msg)


def check_broadcast(name: str, got: tuple[int, ...], shape: tuple[int, ...]) -> None:
    """Refuse a shape that does not broadcast to another one."""
    lengths = zip(reversed(got), reversed(shape), strict=False)
    if len(got) > len(shape) or any(length not in (1, full) for length, full in lengths):
        msg = f"`{name}` must have shape {tuple(shape)} or broadcast to it, got {tuple(got)}"
        raise ValueError(msg)


def check_values(name: str, x: Array, *, xp: Namespace) -> tuple[float, float]:
    """The least and the largest entry of a readable array, all of which must be finite and non-negative."""
    low, high = _compat.scalar(xp.min(x)), _compat.scalar(xp.max(x))
    if _compat.on_mesh(x) and _compat.scalar(xp.any(xp.isnan(x))):  # the least of several devices leaves NaN out
        low = math.nan
    if math.isnan(low) or math.isinf(high) or math.isinf(low):
        what, rule = ("NaN", xp.isnan(x)) if math.isnan(low) else ("an infinity", xp.isinf(x))
        remedy = "; if NaN means unobserved, say missing='nan'" if what == "NaN" and name == "V" else ""
        msg = f"`{name}` must be finite, got {what} at {_first(rule, xp=xp)}{remedy}"
        raise ValueError(msg)
    if low < 0:
        remedy = "; shift or clip the data if negative values have no meaning" if name == "V" else ""
        msg = (
            f"`{name}` must be non-negative, got {low:g} as its least entry and a negative one at "
            f"{_first(x < 0, xp=xp)}{remedy}"
        )
        raise ValueError(msg)
    return low, high


def check_zeros(low: float, beta: float) -> None:
    """Refuse zeros in V where the divergence is infinite on them."""
    if low == 0 and beta <= 0:
        msg = (
            f"`V` must be positive for `beta_loss` {beta:g}, whose divergence is infinite on zeros, got zeros; "
            "use a beta_loss above 0, or add a small number to V"
        )
        raise ValueError(msg)


def check_shape(name: str, x: Array, shape: tuple[int, ...]) -> None:
    """Refuse another shape."""
    if tuple(x.shape) != shape:
        msg = f"`{name}` must have shape {shape}, got {tuple(x.shape)}"
        raise ValueError(msg)


def check_init(init: Any, names: Collection[str], n_components: int, shape: tuple[int, ...]) -> None:
    """A name that suits the rank, or a pair of factors."""
    if isinstance(init, str):
        check_option("init", init, names)
        if init != "random" and n_components > min(shape):
            msg = (
                f"`init` {init!r} needs n_components <= min(m, n) = {min(shape)}, got {n_components}; use init='random'"
            )
            raise ValueError(msg)
    elif not (isinstance(init, tuple | list) and len(init) == 2):
        msg = f"`init` must be one of {sorted(names)} or a pair (W, H), got {_kind(init)}"
        raise TypeError(msg)


def check_penalties(alpha_W: Any, alpha_H: Any, l1_ratio: Any) -> tuple[float, float]:
    """The two penalty strengths."""
    alpha_W = check_non_negative("alpha_W", alpha_W)
    if isinstance(alpha_H, str):
        check_option("alpha_H", alpha_H, ("same",))
        alpha_H = alpha_W
    if check_non_negative("l1_ratio", l1_ratio) > 1:
        msg = f"`l1_ratio` must be from 0 to 1, got {l1_ratio}"
        raise ValueError(msg)
    return alpha_W, check_non_negative("alpha_H", alpha_H)


def check_n_components(n_components: Any, shape: tuple[int, ...]) -> int:
    """The rank as a Python int, between 1 and m + n."""
    m, n = shape[-2:]
    if not _is_integer(n_components):
        msg = f"`n_components` must be an integer from 1 to m + n = {m + n}, got {n_components!r}"
        raise TypeError(msg)
    if not 1 <= n_components <= m + n:
        msg = f"`n_components` must be an integer from 1 to m + n = {m + n}, got {n_components}"
        raise ValueError(msg)
    return int(n_components)


def check_integer(name: str, value: Any, *, minimum: int) -> int:
    """A Python int that is at least `minimum`."""
    if not _is_integer(value):
        msg = f"`{name}` must be an integer of at least {minimum}, got {value!r}"
        raise TypeError(msg)
    if value < minimum:
        msg = f"`{name}` must be an integer of at least {minimum}, got {value}"
        raise ValueError(msg)
    return int(value)


def check_non_negative(name: str, value: Any) -> float:
    """A finite Python float that is not negative."""
    if not _is_real(value):
        msg = f"`{name}` must be a non-negative number, got {value!r}"
        raise TypeError(msg)
    if not (math.isfinite(value) and value >= 0):
        msg = f"`{name}` must be a non-negative number, got {value}"
        raise ValueError(msg)
    return float(value)


def check_callable(name: str, value: Any) -> None:
    """A callable, or None."""
    if value is not None and not callable(value):
        msg = f"`{name}` must be callable or None, got {value!r}"
        raise TypeError(msg)


def check_option(name: str, value: Any, allowed: Collection[str]) -> str:
    """One of the allowed strings."""
    if not isinstance(value, str) or value not in allowed:
        msg = f"`{name}` must be one of {sorted(allowed)}, got {value!r}"
        raise ValueError(msg)
    return value


def _is_integer(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _is_real(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _namespace_name(xp: Namespace) -> str:
    return str(xp.__name__).removeprefix("array_api_compat.")


def _kind(x: Any) -> str:
    return f"{type(x).__module__}.{type(x).__qualname__}".removeprefix("builtins.")


def _remedy(x: Any) -> str:
    if isinstance(x, list | tuple):
        return "; pass `numpy.asarray(...)` of it"
    if hasattr(x, "to_numpy"):
        return "; pass its `.to_numpy()`"
    return ""


def _first(mask: Array, *, xp: Namespace) -> str:
    """Where the first true entry is."""
    index: list[int] = []
    stored = mask.ndim == 1
    while mask.ndim:  # axis by axis: a reshape would collect an array that is divided among devices
        hits = xp.any(mask, axis=tuple(range(1, mask.ndim))) if mask.ndim > 1 else mask
        index.append(int(_compat.scalar(xp.argmax(xp.astype(hits, xp.int32)))))
        mask = xp.take(mask, xp.asarray(index[-1:], device=_compat.device(mask)), axis=0)[0, ...]
    return f"stored entry {index[0]}" if stored else f"index {tuple(index)}"
