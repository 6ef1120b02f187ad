"""An array as it arrives from elsewhere: in memory that kernels can read, or refused with what to pass instead."""

from __future__ import annotations

import inspect
import os
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
    if not isinstance(x, (tuple, list)):
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


def numbers_of(x: Any, name: str = "") -> str:
    """What to pass of an array with units; by a name, if it has one."""
    for attribute in NUMBERS:
        if _asked(x, attribute) is not None:
            return f"pass `{name}.{attribute}`" if name else f"pass its `.{attribute}`"
    return f"pass `numpy.asarray({name or '...'})`"


def advice(name: str, x: Any) -> str:
    """What to do about an argument that is no array, as the beginning of a sentence; empty where nothing is known."""
    if isinstance(x, list | tuple):
        lengths = {len(row) for row in x if isinstance(row, list | tuple)}
        return f"fill the rows of `{name}` up to one length" if len(lengths) > 1 else f"pass `numpy.asarray({name})`"
    if isinstance(x, str | os.PathLike):
        return "read the file first, such as with `pandas.read_csv`"
    if isinstance(x, bytes) or x is None:
        return ""
    if isinstance(x, Iterator):
        return "pass `RowBlocks` of a function that returns such blocks"
    if units_of(x) is not None:
        return numbers_of(x, name)
    # What only answers to every name is not believed: the type has to know it.
    known = type(x)
    if known.__module__.startswith("awkward"):
        return f"pass `{name}.to_numpy()`, with rows of one length"
    for attribute, said in WAYS.items():
        if hasattr(known, attribute):
            return f"pass `{said.format(name)}`"
    return "pass a NumPy array of its values"


WAYS = {
    "collect": "{}.collect()",  # lazy frames
    "to_dataarray": "{}[...]` with the name of one of its variables in the place of `...",
    "to_frame": "{}.to_frame()",  # one column
    "to_numpy": "{}.to_numpy()",
    "to_pandas": "{}.to_pandas()",
    "compute": "{}.compute()",
    "toarray": "{}.toarray()",
    "numpy": "{}.numpy()",
    "__dlpack__": "numpy.from_dlpack({})",
    "__array__": "numpy.asarray({})",
    "__array_interface__": "numpy.asarray({})",
    "tobytes": "numpy.asarray({})",
}


def _asked(x: Any, name: str) -> Any:
    """An attribute, or None where there is none, or where asking for it fails."""
    try:
        return getattr(x, name, None)
    except Exception:
        return None
