"""Checks at the boundary: one error that names the argument, the rule, what was got and what to do.

Shapes, dtypes and namespaces are always checked; values only where they can be read without tracing.
"""

from __future__ import annotations

import math
import numbers
import sys
from typing import TYPE_CHECKING, Any

from nmf_xp.arrays import arrival, libraries, transfer

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from nmf_xp.arrays.typing import Array, Namespace


def unsupported_kind(name: str, x: Any) -> str | None:
    """What the argument `x` is and what to pass instead, for arrays that break the standard's promises; else None."""
    if libraries.is_plain(x):
        return None
    numpy = sys.modules.get("numpy")
    if libraries.is_dask(x):
        return "a dask array, which only `nmf` and `transform` take, as V; pass its `.compute()` if it fits in memory"
    if numpy is not None and isinstance(x, numpy.matrix):
        return "a numpy.matrix, whose `*` is a matrix product; pass `numpy.asarray` of it"
    if libraries.is_masked(x):
        return f"a masked array ({type(x).__name__}), whose mask would be ignored; {_without_mask(name, x)}"
    if arrival.units_of(x) is not None:
        return f"an array with units ({type(x).__name__}), which factors would lose; {arrival.numbers_of(x)}"
    if libraries.sparse_library(x) is not None:
        return f"a sparse array ({type(x).__name__}); make it dense"
    return None


def _without_mask(name: str, x: Any) -> str:
    """What to pass instead of a masked array."""
    if name not in ("V", "X"):  # only data can be unobserved
        return "pass a plain array, with a number for each masked entry"
    entries, observed = ".data", f"~{name}.mask"
    if libraries.is_numpy(x):
        observed = f"~numpy.ma.getmaskarray({name})"
    elif libraries.is_torch(x):
        entries, observed = ".get_data()", f"{name}.get_mask()"
    return f"pass its `{entries}`, with `weights={observed}` if a masked entry is unobserved"


def check_array(name: str, x: Any, *, min_ndim: int, max_ndim: int | None = None) -> Namespace:
    """The namespace of one array, whose number of axes is checked and none of which may be empty."""
    kind = unsupported_kind(name, x)
    if kind is not None:
        msg = f"`{name}` must be a plain dense array, got {kind}"
        raise TypeError(msg)
    if not libraries.is_array(x):
        advice = arrival.advice(name, x)
        rule = "an array" if hasattr(type(x), "columns") else "an array or a table of numbers"  # where tables are none
        msg = f"{advice}{': ' if advice else ''}`{name}` must be {rule}, got {named_kind(x)}"
        raise TypeError(msg)
    ndim = len(x.shape)
    if ndim < min_ndim or (max_ndim is not None and ndim > max_ndim):
        rule = f"{min_ndim} axes" if min_ndim == max_ndim else f"at least {min_ndim} axes"
        remedy = "; reshape it to one row (1, n) or one column (m, 1)" if ndim == 1 else ""
        msg = f"`{name}` must have {rule}, got shape {tuple(x.shape)}{remedy}"
        raise ValueError(msg)
    if 0 in x.shape:
        msg = f"`{name}` must have no empty axis, got shape {tuple(x.shape)}"
        raise ValueError(msg)
    xp = libraries.array_namespace(x)
    missing = libraries.lacking(xp)
    if missing:
        rule, advice = "an array of a namespace that follows the array API standard", arrival.advice(name, x)
        msg = f"`{name}` must be {rule}, got {named_kind(x)}, whose namespace lacks `{missing[0]}`; {advice}"
        raise TypeError(msg)
    return xp


def check_sparse(name: str, x: Any) -> None:
    """Refuse a sparse array that is no matrix."""
    if len(x.shape) != 2 or 0 in x.shape:
        msg = f"`{name}` must have two axes, none of them empty, where it is sparse, got shape {tuple(x.shape)}"
        raise ValueError(msg)


def is_dtype(x: Array, kinds: str | tuple[str, ...], *, xp: Namespace) -> bool:
    """Whether the dtype of `x` is of these kinds."""
    try:
        return bool(xp.isdtype(x.dtype, kinds))
    except TypeError:  # of a dtype that NumPy does not know itself, such as bfloat16 of ml_dtypes
        return False


def as_working_dtype(name: str, x: Array, *, xp: Namespace) -> Array:
    """V in the dtype in which it is factorized.

    float32 and float64 stay; integers and booleans become the namespace's default floating dtype; 16-bit floats become
    float32, because their sums overflow and their floor would be visible.
    """
    if libraries.is_numpy(x) and x.dtype.char in "fd":  # asked first, as most are
        return x
    if is_dtype(x, ("bool", "integral"), xp=xp):
        return xp.astype(x, libraries.default_dtype(xp, libraries.device(x)))
    if not is_dtype(x, "real floating", xp=xp):
        got = libraries.dtype_name(x.dtype)
        msg = f"`{name}` must be real: floating, integer or boolean, got dtype {got}; cast it first"
        raise TypeError(msg)
    bits = xp.finfo(x.dtype).bits
    if bits > 64:
        got = libraries.dtype_name(x.dtype)
        msg = f"`{name}` must have at most 64 bits an entry, got dtype {got}; cast it to float64"
        raise TypeError(msg)
    return x if bits >= 32 else xp.astype(x, xp.float32)


def check_factor(name: str, factor: Any, V: Any) -> None:
    """Refuse a factor that is not of V's namespace, dtype and device."""
    check_namespace(name, factor, V)
    if factor.dtype != V.dtype:
        msg = (
            f"`{name}` must have the dtype in which V is factorized, {libraries.dtype_name(V.dtype)}, "
            f"got {libraries.dtype_name(factor.dtype)}; cast it"
        )
        raise TypeError(msg)


def check_namespace(name: str, x: Any, V: Any) -> None:
    """Refuse an array that is not of V's namespace and device."""
    if libraries.is_numpy(x) and libraries.is_numpy(V):
        return
    xp, theirs = libraries.array_namespace(V), libraries.array_namespace(x)
    if theirs is not xp:
        ours, other = _namespace_name(xp), _namespace_name(theirs)
        msg = f"`{name}` must be of `V`'s namespace, {ours}, got {other}; convert one of them"
        raise TypeError(msg)
    if libraries.on_mesh(V):  # what goes with it is laid out as it needs
        return
    here, there = libraries.device(V), libraries.device(x)
    if here is not None and there is not None and here != there:
        msg = f"`{name}` must be on `V`'s device, {here}, got {there}; move one of them"
        raise TypeError(msg)


def check_broadcast(name: str, got: tuple[int, ...], shape: tuple[int, ...]) -> None:
    """Refuse a shape that does not broadcast to another one."""
    lengths = zip(reversed(got), reversed(shape), strict=False)
    if len(got) > len(shape) or any(length not in (1, full) for length, full in lengths):
        msg = f"`{name}` must have shape {tuple(shape)} or broadcast to it, got {tuple(got)}"
        raise ValueError(msg)


class WrongEntry(str):
    """The message of an error about an entry, which knows where it stands, so that it can be said by its names."""

    __slots__ = ("parts",)
    parts: tuple[str, str, tuple[int, ...], str, str, str]

    def __new__(
        cls, name: str, what: str, place: tuple[int, ...], remedy: str = "", names: str = "", where: str = ""
    ) -> WrongEntry:
        """`place` is the index of the entry, `names` those of its row and column and `where` its block, in words."""
        made = super().__new__(cls, f"`{name}` {what} at index {place}{names}{f'; {remedy}' if remedy else ''}{where}")
        made.parts = name, what, place, remedy, names, where
        return made

    def __getnewargs__(self) -> Any:
        return self.parts

    def named(self, rows: Sequence[Any] | None, columns: Sequence[Any] | None, *, besides: str = "") -> WrongEntry:
        """The same with the names of its row and column, where there are any, and what may be done besides.

        Names are those of V.
        """
        name, what, place, remedy, _, where = self.parts
        if name != "V" or len(place) < 2:
            return self
        sides = zip(("row", "column"), place[-2:], (rows, columns), strict=True)
        said = [f", {side} {str(labels[i])!r}" for side, i, labels in sides if labels is not None and i < len(labels)]
        return WrongEntry(name, what, place, remedy + besides, "".join(said), where)

    def below(self, start: int, where: str) -> WrongEntry:
        """The same in a block of rows, of which the first is this one of V, and where that block is."""
        name, what, place, remedy, names, _ = self.parts
        rows = start if name == "V" else 0  # what lies beside V may be one row for all
        return WrongEntry(name, what, (place[0] + rows, *place[1:]), remedy, names, where)


def wrong_entry(error: ValueError) -> WrongEntry | None:
    """The entry that an error is about; None where it is about anything else."""
    message = error.args[0] if error.args else None
    return message if isinstance(message, WrongEntry) else None


def check_values(name: str, x: Array, *, xp: Namespace, stored: Any = None) -> tuple[float, float]:
    """The least and the largest entry of a readable array, all of which must be finite and non-negative.

    `stored` has the row and the column of each entry of a sparse one.
    """
    low, high = transfer.least(x, xp=xp), transfer.largest(x, xp=xp)
    if libraries.on_mesh(x) and transfer.scalar(xp.any(xp.isnan(x))):  # the least of several devices leaves NaN out
        low = math.nan
    if math.isnan(low) or math.isinf(high) or math.isinf(low):
        what, rule = ("NaN", xp.isnan(x)) if math.isnan(low) else ("an infinity", xp.isinf(x))
        remedy = "if NaN means unobserved, say missing='nan'" if what == "NaN" and name == "V" else ""
        raise ValueError(WrongEntry(name, f"must be finite, got {what}", _place(rule, stored, xp=xp), remedy))
    if low < 0:
        remedy = "shift or clip the data if negative values have no meaning" if name == "V" else ""
        what = f"must be non-negative, got {low:g} as its least entry and a negative one"
        raise ValueError(WrongEntry(name, what, _place(x < 0, stored, xp=xp), remedy))
    return low, high


def check_shape(name: str, x: Array, shape: tuple[int, ...]) -> None:
    """Refuse another shape."""
    if tuple(x.shape) != shape:
        msg = f"`{name}` must have shape {shape}, got {tuple(x.shape)}"
        raise ValueError(msg)


def check_integer(name: str, value: Any, *, minimum: int) -> int:
    """A Python int that is at least `minimum`."""
    if not is_integer(value):
        msg = f"`{name}` must be an integer of at least {minimum}, got {value!r}"
        raise TypeError(msg)
    if value < minimum:
        msg = f"`{name}` must be an integer of at least {minimum}, got {value}"
        raise ValueError(msg)
    return int(value)


def check_non_negative(name: str, value: Any) -> float:
    """A finite Python float that is not negative."""
    if not is_real(value):
        msg = f"`{name}` must be a finite non-negative number, got {value!r}"
        raise TypeError(msg)
    try:
        number = float(value)
    except OverflowError:  # an integer beyond all floats
        number = math.inf
    if not (math.isfinite(number) and number >= 0):
        msg = f"`{name}` must be a finite non-negative number, got {value if math.isfinite(number) else number}"
        raise ValueError(msg)
    return number


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


def is_integer(value: Any) -> bool:
    """Whether it is an integer of any library, and no bool."""
    return isinstance(value, (int, numbers.Integral)) and not isinstance(value, bool)


def is_real(value: Any) -> bool:
    """Whether it is a real number of any library, and no bool."""
    return isinstance(value, (int, float, numbers.Real)) and not isinstance(value, bool)


def _namespace_name(xp: Namespace) -> str:
    return str(xp.__name__).removeprefix("array_api_compat.")


def named_kind(x: Any) -> str:
    """The type of `x` as a user would write it."""
    return f"{type(x).__module__}.{type(x).__qualname__}".removeprefix("builtins.")


def _place(mask: Array, stored: Any, *, xp: Namespace) -> tuple[int, ...]:
    """Where the first true entry stands in its matrix."""
    index = first_place(mask, xp=xp)
    return index if stored is None else tuple(int(transfer.scalar(x[index[0]])) for x in stored)


def first_place(mask: Array, *, xp: Namespace) -> tuple[int, ...]:
    """The index of the first true entry."""
    index: list[int] = []
    while mask.ndim:  # axis by axis: a reshape would collect an array that is divided among devices
        hits = xp.any(mask, axis=tuple(range(1, mask.ndim))) if mask.ndim > 1 else mask
        index.append(int(transfer.scalar(xp.argmax(xp.astype(hits, xp.int32)))))
        mask = xp.take(mask, xp.asarray(index[-1:], device=libraries.device(mask)), axis=0)[0, ...]
    return tuple(index)
