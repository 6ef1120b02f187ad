"""Matrices in .npy, HDF5, zarr and AnnData files: whole where they fit in memory, else as row blocks.

Whatever is raised here names no file; `files` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.arrays import memory
from nmf_xp.data.sources import NpyFile, RowBlocks, Rows, StoredRows, has_compressed_rows

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType


class Stored(NamedTuple):
    """A matrix, or its row blocks, with the names of its rows and columns where they are stored."""

    values: Any
    row_names: list[str] | None = None
    column_names: list[str] | None = None
    note: str | None = None


def read_npy(path: Path) -> Stored:
    """The array of a .npy file."""
    import numpy as np

    note = _too_large(path.stat().st_size)
    if note:
        return Stored(RowBlocks(Rows(NpyFile(path))), note=note)
    return Stored(np.load(path, allow_pickle=False))


def read_hdf5(h5py: ModuleType, path: Path, key: str | None) -> Stored:
    """A dataset, or compressed rows or columns, of an HDF5 file."""
    file = h5py.File(path, "r")  # stays open as long as something of it is in use
    if path.suffix == ".h5ad":
        rows, columns = (_names(file, axis) if axis in file else None for axis in ("obs", "var"))
        return _read(_chosen(file, key or "X"))._replace(row_names=rows, column_names=columns)
    return _read(_chosen(file, key))


def read_zarr(zarr: ModuleType, path: Path, key: str | None) -> Stored:
    """An array, or compressed rows or columns, of a zarr store."""
    store = zarr.open(path, mode="r")
    return _read(store if hasattr(store, "dtype") and key is None else _chosen(store, key))


def _chosen(group: Any, key: str | None) -> Any:
    """The array or group of that name, or the only one."""
    names = list(group.keys())
    if "indptr" in names and key is None:
        return group
    if key is None and len(names) != 1:
        msg = f"it holds {', '.join(names) or 'nothing'}; say which one with --key"
        raise ValueError(msg)
    if key is not None and key not in group:
        msg = f"it holds no {key!r}, only {', '.join(names)}"
        raise ValueError(msg)
    return group[names[0] if key is None else key]


def _read(stored: Any) -> Stored:
    """What is stored, whole or in blocks."""
    if hasattr(stored, "dtype"):
        note = _too_large(stored.size * memory.bytes_of(stored.dtype)) if len(stored.shape) == 2 else None
        return Stored(RowBlocks(stored) if note else stored[()], note=note)
    if "indptr" not in stored:
        msg = f"the group holds {', '.join(stored.keys()) or 'nothing'}; say with --key which array to take"
        raise ValueError(msg)
    note = _too_large(3 * stored["data"].shape[0] * memory.bytes_of(stored["data"].dtype))  # an entry has two indices
    if note:
        return Stored(RowBlocks(stored), note=note)
    m, n = (int(length) for length in stored.attrs["shape"])
    if has_compressed_rows(stored, m):
        return Stored(StoredRows(stored, (m, n))[0:m])
    return Stored(StoredRows(stored, (n, m))[0:n].T)


def _names(file: Any, axis: str) -> list[str] | None:
    """The names of an AnnData file's observations or variables."""
    index = file[axis].attrs.get("_index")
    return None if index is None else file[axis][index].asstr()[:].tolist()


def _too_large(bytes_: int) -> str | None:
    """That so many bytes do not fit in memory, in words; None where they do."""
    free = memory.available()
    if memory.ROOM * bytes_ <= free:
        return None
    return f"{bytes_ / 1e9:.3g} GB with {free / 1e9:.3g} GB of memory free: read block by block, in every iteration"
