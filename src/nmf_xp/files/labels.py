"""Names of rows and columns in HDF5 and zarr files, in all the ways in which AnnData has stored them."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from nmf_xp.arrays import memory
from nmf_xp.data.chunks import ALWAYS, check_chunks, is_zarr, part
from nmf_xp.data.codecs import check_codecs, names_of
from nmf_xp.data.unfolding import COMPRESSORS, check_unfolding, pieces_of
from nmf_xp.files.opening import optional_module

if TYPE_CHECKING:
    from collections.abc import Iterator

NONE = "NA"  # a name that is missing
NAME = 64  # bytes that a name takes
LONGEST = 2**16  # characters of a name
TOGETHER = 512  # names that are read at a time: each may be any part of the file, again and again
TEXTS = ("vlen-utf8", "vlen-bytes")  # codecs that make text


def labels(stored: Any, length: int, what: str) -> list[str]:
    """Names, one for each of so many lines; `what` says in an error where they stand."""
    if not hasattr(stored, "dtype"):
        if "codes" in stored and "categories" in stored:  # categories
            categories = [*labels(stored["categories"], _length(stored["categories"]), what), NONE]
            codes = [int(code) for code in part(_checked(stored["codes"], length, what))]
            if codes and not -1 <= min(codes) <= max(codes) < len(categories) - 1:
                msg = f"it is damaged: {what} has a name beyond its {len(categories) - 1} categories"
                raise ValueError(msg)
            return [categories[code] for code in codes]
        if "values" in stored and "mask" in stored:  # text or integers that may be missing
            mask = part(_checked(stored["mask"], length, what))
            found = labels(stored["values"], length, what)
            return [NONE if missing else name for name, missing in zip(found, mask, strict=True)]
        msg = f"the names in {what} are stored in a way that is not known"
        raise ValueError(msg)
    return list(_texts(_checked(stored, length, what), length, what))


def field_labels(stored: Any, field: str, length: int, what: str) -> list[str]:
    """Names in one field of records, as AnnData stored its tables before 0.7."""
    _checked(stored, length, what)
    return [_text(value) for value in stored[field].tolist()]


def _length(stored: Any) -> int:
    """The number of names, as they are stored."""
    while not hasattr(stored, "dtype"):
        if "values" not in stored:
            return 0
        stored = stored["values"]
    return int(stored.shape[0]) if len(stored.shape) == 1 else 0


def _checked(stored: Any, length: int, what: str) -> Any:
    """The array itself, which has so many entries along one axis, and is safe to decode."""
    if not hasattr(stored, "dtype") or len(stored.shape) != 1:
        msg = f"it is damaged: the names in {what} are no array along one axis"
        raise ValueError(msg)
    found = int(stored.shape[0])
    if max(NAME, stored.dtype.itemsize) * found > max(memory.available(), ALWAYS):
        msg = f"it declares {found} names in {what}, which do not fit in memory"
        raise ValueError(msg)
    if found != length:
        msg = f"it is damaged: {what} holds {found} names, where the matrix needs {length}"
        raise ValueError(msg)
    check_chunks(stored)
    check_codecs(stored, TEXTS)
    check_unfolding(stored)
    if is_zarr(stored):
        _check_counts(stored)
    return stored


def _check_counts(stored: Any) -> None:
    """Refuse a chunk of texts that says it holds more than there are: its decoder makes room for them at once."""
    names = [name.removeprefix("numcodecs.") for name in names_of(stored)]
    if not {*TEXTS} & {*names}:
        return
    codecs = [optional_module("numcodecs", "files").get_codec({"id": name}) for name in names if name in COMPRESSORS]
    if {*names} - {*TEXTS} - COMPRESSORS:
        msg = f"its names are stored by {', '.join(names)}; store them anew"
        raise ValueError(msg)
    for path, begin, size in pieces_of(stored):
        with path.open("rb") as file:
            file.seek(begin)
            content = file.read(size)
        for codec in codecs:
            content = codec.decode(content)
        found = int.from_bytes(bytes(content[:4]), "little")
        if found > max(stored.chunks):
            msg = f"it is damaged: a chunk of names declares {found} of them"
            raise ValueError(msg)


def _texts(stored: Any, length: int, what: str) -> Iterator[str]:
    """The names in an array of texts or numbers, a few at a time."""
    left = max(memory.available(), ALWAYS)
    pieces = [(0, length)] if is_zarr(stored) else itertools.pairwise([*range(0, length, TOGETHER), length])
    for start, stop in pieces:
        for value in stored[start:stop].tolist():
            name = _text(value)
            left -= NAME + len(name)
            if len(name) > LONGEST or left < 0:
                msg = f"the names in {what} are longer than names are, or do not fit in memory"
                raise ValueError(msg)
            yield name


def _text(value: Any) -> str:
    """A name as text, whatever it is stored as."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if value is None or value != value:
        return NONE
    return str(value)
