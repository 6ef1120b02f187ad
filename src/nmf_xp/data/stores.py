"""Matrices in .npy, HDF5 and zarr files: whole where they fit in memory, else as row blocks.

Whatever is raised here names no file; `files` does.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.arrays import memory
from nmf_xp.data.chunks import ALWAYS, part
from nmf_xp.data.outside import Within, check_folder
from nmf_xp.data.sources import (
    NpyFile,
    RowBlocks,
    Rows,
    StoredRows,
    Transposed,
    declared_shape,
    has_compressed_rows,
    npy_header,
    of_store,
    rows_of,
)
from nmf_xp.data.unfolding import check_stored

if TYPE_CHECKING:
    from types import ModuleType


LISTED = 20  # names in a message


class Stored(NamedTuple):
    """A matrix, or its row blocks, and a word about it where it is too large for the memory."""

    values: Any
    note: str | None = None


def read_npy(path: Path) -> Stored:
    """The array of a .npy file."""
    import numpy as np

    with path.open("rb") as file:
        header = npy_header(file)
    size = path.stat().st_size
    if header.bytes > size - header.begin and not header.dtype.hasobject:
        msg = (
            f"it is cut short: its header declares shape {header.shape} of {header.dtype}, which is more than it holds"
        )
        raise ValueError(msg)
    note = _too_large(size)
    if note:
        _check_room(header.shape, header.dtype)
        return Stored(RowBlocks(Rows(NpyFile(path))), note=note)
    return Stored(np.load(path, allow_pickle=False))


def open_hdf5(h5py: ModuleType, path: Path) -> Any:
    """An HDF5 file, which stays open as long as something of it is in use."""
    if path.is_file() and not h5py.is_hdf5(path):
        msg = "it is no HDF5 file"
        raise ValueError(msg)
    return Within(h5py, h5py.File(path, "r"))


def open_zarr(zarr: ModuleType, path: Path) -> Any:
    """A zarr store in a folder: an array or a group."""
    if path.is_file():
        msg = "it is a file, and a zarr store is a folder; if it is an archive, unpack it"
        raise ValueError(msg)
    check_folder(path)
    return zarr.open(path, mode="r")


def chosen(group: Any, key: str | None) -> Any:
    """What has that name in a group of a file, or the only thing in it."""
    if hasattr(group, "dtype"):
        return group
    names = names_in(group)
    if "indptr" in names and key is None:
        return group
    if key is None and len(names) != 1:
        msg = f"it holds {', '.join(names[:LISTED]) or 'nothing'}; say which one with --key"
        raise ValueError(msg)
    if key is not None and key not in group:
        msg = f"it holds no {key!r}, only {', '.join(names[:LISTED])}"
        raise ValueError(msg)
    return group[names[0] if key is None else key]


def names_in(group: Any) -> list[str]:
    """The names in a group of a file.

    Those in a folder of zarr are asked for one by one. zarr asks for all at once, and of several that are damaged it
    raises one error and prints the others.
    """
    root = getattr(getattr(group, "store", None), "root", None)
    if root is None:
        return list(group.keys())
    folder = Path(root, group.path)
    return sorted(inner.name for inner in folder.iterdir() if inner.is_dir() and inner.name in group)


def read(stored: Any, *, transposed: bool = False) -> Stored:
    """What is stored, whole or in blocks; nothing is decoded before it is known to be numbers that fit.

    `transposed` takes the columns of an array as rows.
    """
    if not hasattr(stored, "dtype"):
        return _read_sparse(stored)
    shape = shape_of(stored.shape)
    _check_numbers(stored, "biuf", axes=2)
    check_stored(stored)
    note = _too_large(math.prod(shape) * memory.bytes_of(stored.dtype))
    if note:
        _check_room(shape, stored.dtype)
    if not transposed:
        return Stored(RowBlocks(stored) if note else part(stored), note=note)
    chunks = getattr(stored, "chunks", None)
    rows = Rows(Transposed(stored), step=chunks[1] if chunks else 1)
    return Stored(RowBlocks(rows) if note else part(stored).T, note=note)


def _read_sparse(group: Any) -> Stored:
    """A matrix in compressed rows or columns."""
    lacking = [name for name in ("indptr", "indices", "data") if name not in group]
    declared = declared_shape(group)
    if lacking or declared is None:
        msg = f"the group holds {', '.join(names_in(group)[:LISTED]) or 'nothing'}; say with --key which array to take"
        raise ValueError(msg)
    m, n = shape_of(declared)
    _check_parts(group)
    if has_compressed_rows(group, m):
        return read_rows(group, (m, n))
    note = _check_sparse(group, (m, n))
    if note:
        return Stored(RowBlocks(of_store(group)), note=note)
    return Stored(StoredRows(group, (n, m))[0:n].T)


def read_rows(group: Any, shape: tuple[int, int]) -> Stored:
    """A matrix of that shape in compressed rows, whatever else is said of it."""
    _check_parts(group)
    note = _check_sparse(group, shape)
    if note:
        return Stored(RowBlocks(rows_of(group, shape)), note=note)
    return Stored(StoredRows(group, shape)[0 : shape[0]])


def _check_parts(group: Any) -> None:
    """Refuse compressed rows or columns whose parts are no numbers along one axis, or not safe to decode."""
    for name, kinds in (("data", "biuf"), ("indices", "iu"), ("indptr", "iu")):
        _check_numbers(group[name], kinds, axes=1)
        check_stored(group[name])


def _check_sparse(group: Any, shape: tuple[int, int]) -> str | None:
    """Refuse a shape of which one line does not fit; a word where the matrix is too large for the memory."""
    _check_room(shape, group["data"].dtype)
    return _too_large(3 * int(group["data"].shape[0]) * memory.bytes_of(group["data"].dtype))  # with two indices


def shape_of(declared: Any) -> tuple[int, int]:
    """Rows and columns, as a file declares them."""
    lengths = tuple(int(length) for length in declared)
    if len(lengths) != 2 or min(lengths) < 0:
        msg = f"it must hold a matrix, which has 2 axes, got shape {lengths}"
        raise ValueError(msg)
    return lengths


def _check_numbers(stored: Any, kinds: str, *, axes: int) -> None:
    """Refuse an array of a file that is not of these kinds of numbers, or has more axes or fewer."""
    if getattr(stored, "dtype", None) is None or stored.dtype.kind not in kinds or len(stored.shape) != axes:
        what = f"{getattr(stored, 'dtype', 'a group')} of shape {tuple(getattr(stored, 'shape', ()))}"
        msg = f"it must hold real numbers along {axes} axes, as indices integers, got dtype {what}"
        raise ValueError(msg)


def _check_room(shape: tuple[int, ...], dtype: Any) -> None:
    """Refuse a matrix of which not one row, or not one number a row, fits in memory."""
    m, n = shape
    free = memory.available()
    if memory.bytes_of(dtype) * max(m, n) > max(free, ALWAYS):
        msg = f"it declares the shape {m} x {n}, of which one line does not fit in {free / 1e9:.3g} GB of free memory"
        raise ValueError(msg)


def _too_large(bytes_: int) -> str | None:
    """That so many bytes do not fit in memory, in words; None where they do."""
    free = memory.available()
    if memory.ROOM * bytes_ <= free:
        return None
    return f"{bytes_ / 1e9:.3g} GB with {free / 1e9:.3g} GB of memory free: read block by block, in every iteration"
