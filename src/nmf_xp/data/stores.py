"""Matrices in .npy, HDF5, zarr and AnnData files: whole where they fit in memory, else as row blocks.

Whatever is raised here names no file; `files` does.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.arrays import memory
from nmf_xp.data.chunks import ALWAYS, part
from nmf_xp.data.outside import Within, check_folder
from nmf_xp.data.sources import NpyFile, RowBlocks, Rows, StoredRows, has_compressed_rows, npy_header, of_store
from nmf_xp.data.unfolding import check_stored

if TYPE_CHECKING:
    from types import ModuleType


NAME = 64  # bytes that a name takes


class Stored(NamedTuple):
    """A matrix, or its row blocks, with the names of its rows and columns where they are stored."""

    values: Any
    row_names: list[str] | None = None
    column_names: list[str] | None = None
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


def read_hdf5(h5py: ModuleType, path: Path, key: str | None) -> Stored:
    """A dataset, or compressed rows or columns, of an HDF5 file."""
    file = Within(h5py, h5py.File(path, "r"))  # stays open as long as something of it is in use
    if path.suffix.lower() != ".h5ad":
        return _read(_chosen(file, key))
    key = key or "X"
    stored = _read(_chosen(file, key))
    names = [_names(file, axis, length) for axis, length in zip(_axes(key), stored.values.shape, strict=True)]
    return stored._replace(row_names=names[0], column_names=names[1])


def _axes(key: str) -> tuple[str | None, str | None]:
    """Where AnnData has the names of the rows and columns of an array."""
    place = key.strip("/").partition("/")[0]
    if place in ("X", "layers"):
        return "obs", "var"
    return ("obs" if place == "obsm" else "var" if place == "varm" else None), None


def read_zarr(zarr: ModuleType, path: Path, key: str | None) -> Stored:
    """An array, or compressed rows or columns, of a zarr store."""
    check_folder(path)
    store = zarr.open(path, mode="r")
    return _read(store if hasattr(store, "dtype") and key is None else _chosen(store, key))


def _chosen(group: Any, key: str | None) -> Any:
    """The array or group of that name, or the only one."""
    names = names_in(group)
    if "indptr" in names and key is None:
        return group
    if key is None and len(names) != 1:
        msg = f"it holds {', '.join(names) or 'nothing'}; say which one with --key"
        raise ValueError(msg)
    if key is not None and key not in group:
        msg = f"it holds no {key!r}, only {', '.join(names)}"
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


def _read(stored: Any) -> Stored:
    """What is stored, whole or in blocks; nothing is decoded before it is known to be numbers that fit."""
    if hasattr(stored, "dtype"):
        shape = _shape(stored.shape)
        _check_numbers(stored, "biuf", axes=2)
        check_stored(stored)
        note = _too_large(math.prod(shape) * memory.bytes_of(stored.dtype))
        if note:
            _check_room(shape, stored.dtype)
        return Stored(RowBlocks(stored) if note else part(stored), note=note)
    lacking = [name for name in ("indptr", "indices", "data") if name not in stored]
    if lacking:
        msg = f"the group holds {', '.join(names_in(stored)) or 'nothing'}; say with --key which array to take"
        raise ValueError(msg)
    for name, kinds in (("data", "biuf"), ("indices", "iu"), ("indptr", "iu")):
        _check_numbers(stored[name], kinds, axes=1)
        check_stored(stored[name])
    m, n = shape = _shape(stored.attrs["shape"])
    _check_room(shape, stored["data"].dtype)
    note = _too_large(3 * int(stored["data"].shape[0]) * memory.bytes_of(stored["data"].dtype))  # with two indices
    if note:
        return Stored(RowBlocks(of_store(stored)), note=note)
    if has_compressed_rows(stored, m):
        return Stored(StoredRows(stored, shape)[0:m])
    return Stored(StoredRows(stored, (n, m))[0:n].T)


def _shape(declared: Any) -> tuple[int, int]:
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


def _names(file: Any, axis: str | None, length: int) -> list[str] | None:
    """The names of an AnnData file's observations or variables, of which a matrix has so many."""
    index = file[axis].attrs.get("_index") if axis is not None and axis in file else None
    if axis is None or index is None:
        return None
    if not isinstance(index, str) or index not in file[axis]:
        msg = f"it is damaged: {axis} has no names {index!r}"
        raise ValueError(msg)
    names = file[axis][index]
    if len(names.shape) != 1 or NAME * int(names.shape[0]) > max(memory.available(), ALWAYS):
        msg = f"it declares names of the shape {tuple(names.shape)}, which do not fit in memory along one axis"
        raise ValueError(msg)
    if int(names.shape[0]) != length:
        what = "rows" if axis == "obs" else "columns"
        msg = f"it is damaged: {axis}/{index} holds {names.shape[0]} names, and the matrix has {length} {what}"
        raise ValueError(msg)
    return names.asstr()[:].tolist()


def _too_large(bytes_: int) -> str | None:
    """That so many bytes do not fit in memory, in words; None where they do."""
    free = memory.available()
    if memory.ROOM * bytes_ <= free:
        return None
    return f"{bytes_ / 1e9:.3g} GB with {free / 1e9:.3g} GB of memory free: read block by block, in every iteration"
