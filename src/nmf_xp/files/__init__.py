"""Matrices from files, and factors into files.

A reader says what is wrong with a file, and where. A writer leaves either the whole new file or what was there before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.data import stores
from nmf_xp.data.sources import RowBlocks
from nmf_xp.data.sparse_places import checked
from nmf_xp.files.archives import archive, read_archive, read_npz
from nmf_xp.files.market import read_market
from nmf_xp.files.opening import FileError, check_fits, listed, opened, optional_module, printable
from nmf_xp.files.pictures import FORMATS, read_picture
from nmf_xp.files.replacing import write_atomically
from nmf_xp.files.row_labels import LABELS, read_labels, read_observed
from nmf_xp.files.tables import MISSING, read_table
from nmf_xp.files.writing import (
    EFFECTS,
    FOLDER,
    OUTPUTS,
    check_folder,
    check_output,
    is_folder,
    write_factors,
    write_table,
)

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    HostArray = np.ndarray[Any, Any]

__all__ = [
    "EFFECTS",
    "FOLDER",
    "HDF5",
    "IMAGES",
    "INPUTS",
    "LABELS",
    "MISSING",
    "OUTPUTS",
    "TABLES",
    "FileError",
    "Matrix",
    "archive",
    "check_folder",
    "check_output",
    "is_folder",
    "opened",
    "optional_module",
    "printable",
    "read_archive",
    "read_factors",
    "read_labels",
    "read_matrix",
    "read_observed",
    "write_atomically",
    "write_factors",
    "write_table",
]

IMAGES = set(FORMATS)
TABLES = {".csv": ",", ".tsv": "\t"}
HDF5 = (".h5", ".hdf5", ".h5ad")
INPUTS = (".npy", ".npz", *TABLES, ".mtx", *HDF5, ".zarr", *sorted(IMAGES))


class Matrix(NamedTuple):
    """A matrix from a file: a NumPy or SciPy sparse array, or row blocks, with names where the file has them."""

    values: Any
    row_names: list[str] | None = None
    column_names: list[str] | None = None
    note: str | None = None  # what the reader made of the file, where the file leaves a choice


def read_matrix(path: Path, *, key: str | None = None, header: bool | None = None, index: bool | None = None) -> Matrix:
    """Read a matrix of any format in `INPUTS`.

    What is stored in .npy, HDF5 and zarr, and does not fit in memory, comes as row blocks, and the note says so.

    `key` names the array in a file of several, or the number of a picture. `header` and `index` say whether a table
    begins with a row of column names and a column of row names; None finds out.
    """
    with opened(path, INPUTS) as suffix:
        if suffix in TABLES:
            matrix = Matrix(*read_table(path, TABLES[suffix], header=header, index=index))
        elif suffix in IMAGES:
            values, note = read_picture(path, key)
            matrix = Matrix(values, note=note)
        elif suffix == ".mtx":
            matrix = Matrix(read_market(path))
        elif suffix == ".npz":
            matrix = Matrix(read_npz(path, key))
        elif suffix in HDF5:
            matrix = Matrix(*stores.read_hdf5(optional_module("h5py", "files"), path, key))
        elif suffix == ".zarr":
            matrix = Matrix(*stores.read_zarr(optional_module("zarr", "files"), path, key))
        else:
            matrix = Matrix(*stores.read_npy(path))
        if hasattr(matrix.values, "format"):
            m, n = checked(matrix.values).shape
            check_fits(path, f"one line of its {m} x {n} matrix", 8.0 * max(m, n))
    if isinstance(matrix.values, RowBlocks):
        return matrix
    if len(matrix.values.shape) != 2:
        msg = f"{path}: must hold a matrix, which has 2 axes, got shape {matrix.values.shape}"
        raise FileError(msg)
    if matrix.values.dtype.kind not in "biuf":
        msg = f"{path}: must hold real numbers, got dtype {matrix.values.dtype}"
        raise FileError(msg)
    return matrix


def read_factors(path: Path) -> tuple[HostArray, HostArray]:
    """The arrays W and H of a file that `write_factors` wrote, or of another .npz or .safetensors file."""
    with opened(path, OUTPUTS) as suffix:
        if suffix == ".npz":
            return read_npz(path, "W"), read_npz(path, "H")
        check_fits(path, "what it holds", path.stat().st_size)
        found = optional_module("safetensors.numpy", "files").load_file(path)
        for name in ("W", "H"):
            if name not in found:
                msg = f"{path}: holds no array {name!r}, only {listed(found)}"
                raise FileError(msg)
        return found["W"], found["H"]
