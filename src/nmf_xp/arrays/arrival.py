"""An array as it arrives from elsewhere: in memory that kernels can read, or refused with what to pass instead."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from typing import Any

UNITS = ("unit", "units")  # where astropy, pint and their like keep them
NUMBERS = ("magnitude", "value")  # and the numbers without them


def plain(x: Any, *, mapped: bool = False) -> Any:
    """A NumPy array without a type of its own, in the machine's byte order and aligned; all else as it is.

    What is so already is not copied. A memory map stays one, unless it is to be read whole: `mapped`. What means more
    than its numbers (a mask, units, another product) stays what it is, to be refused.
    """
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(x, numpy.ndarray):
        return x
    if type(x) is not numpy.ndarray:
        if isinstance(x, numpy.matrix | numpy.ma.MaskedArray) or units_of(x) is not None:
            return x
        if isinstance(x, numpy.memmap) and not mapped:
            return x
        x = x.view(numpy.ndarray)
    if not x.dtype.isnative:
        return x.astype(x.dtype.newbyteorder("="))
    return x if x.flags.aligned else x.copy()


def each_plain(x: Any) -> Any:
    """The same for an argument, which may be a pair of arrays."""
    if not isinstance(x, tuple | list):
        return plain(x)
    items = list(map(plain, x))
    if all(new is old for new, old in zip(items, x, strict=True)):
        return x
    return type(x)(*items) if hasattr(x, "_fields") else type(x)(items)


def plain_sparse(V: Any) -> Any:
    """A SciPy sparse array with entries in the machine's byte order; all else as it is."""
    return V if getattr(V.dtype, "isnative", True) else V.astype(V.dtype.newbyteorder("="))


def units_of(x: Any) -> Any:
    """The units of an array of astropy, pint and their like; None for a plain array."""
    for name in UNITS:
        found = _asked(x, name)  # which is not believed of what answers to every name
        if found is not None and inspect.getattr_static(x, name, None) is not None:
            return found
    return None


def numbers_of(x: Any) -> str:
    """What to pass of an array with units."""
    for name in NUMBERS:
        if _asked(x, name) is not None:
            return f"pass its `.{name}`"
    return "pass `numpy.asarray(...)` of it"


def advice(x: Any) -> str:
    """What to pass instead of what is no array, as the end of a sentence; empty where nothing is known of it."""
    if isinstance(x, list | tuple):
        lengths = {len(row) for row in x if isinstance(row, list | tuple)}
        ragged = "; fill its rows up to one length first" if len(lengths) > 1 else ""
        return ragged or "; pass `numpy.asarray(...)` of it"
    if isinstance(x, str | bytes) or x is None:
        return ""
    if isinstance(x, Iterator):
        return "; pass `RowBlocks` of a function that returns such blocks"
    if units_of(x) is not None:
        return f", which has units; {numbers_of(x)}"
    # What only answers to every name is not believed: the type has to know it.
    known = type(x)
    if known.__module__.startswith("awkward"):
        return "; pass its `.to_numpy()`, with rows of one length"
    for name, said in WAYS.items():
        if hasattr(known, name):
            return f"; {said}"
    return "; pass a NumPy array of its values"


WAYS = {
    "collect": "pass its `.collect().to_numpy()`",  # lazy frames
    "to_dataarray": "pass one of its variables, `.to_numpy()` of it",
    "to_numpy": "pass its `.to_numpy()`",
    "to_pandas": "pass its `.to_pandas().to_numpy()`",
    "compute": "pass its `.compute()`, if that is an array",
    "toarray": "pass its `.toarray()`",
    "numpy": "pass its `.numpy()`",
    "__dlpack__": "pass `numpy.from_dlpack(...)` of it",
    "__array__": "pass `numpy.asarray(...)` of it",
    "__array_interface__": "pass `numpy.asarray(...)` of it",
    "tobytes": "pass `numpy.asarray(...)` of it",
}


def _asked(x: Any, name: str) -> Any:
    """An attribute, or None where there is none, or where asking for it fails."""
    try:
        return getattr(x, name, None)
    except Exception:
        return None
