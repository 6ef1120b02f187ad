"""A matrix from a file of any kind: the suffix says which, and each kind has a reader of its own."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING

from nmf_xp.data import stores
from nmf_xp.data.sources import RowBlocks
from nmf_xp.data.sparse_places import checked
from nmf_xp.files.annotated import is_annotated, read_annotated
from nmf_xp.files.archives import named_npz, read_tensor
from nmf_xp.files.columns import read_feather, read_parquet
from nmf_xp.files.delimited import DELIMITERS, read_delimited
from nmf_xp.files.loom import read_loom
from nmf_xp.files.market import read_market
from nmf_xp.files.matlab import read_matlab
from nmf_xp.files.matrix import Asked, Matrix
from nmf_xp.files.opening import FOLDER, GZ, FileError, check_fits, opened, optional_module, suffix_of
from nmf_xp.files.pictures import FORMATS, read_picture
from nmf_xp.files.sheets import read_sheet
from nmf_xp.files.sounds import read_sound
from nmf_xp.files.tenx import groups_of, read_folder, read_tenx

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

IMAGES = set(FORMATS)
SHEETS = (".xlsx", ".xlsm")
TABLES = (*DELIMITERS, *(f"{suffix}{GZ}" for suffix in DELIMITERS))


def _read_hdf5(path: Path, asked: Asked) -> Matrix:
    """What is in an HDF5 file, by what it looks like."""
    root = stores.open_hdf5(optional_module("h5py", "files"), path)
    groups = groups_of(root)
    if groups and (asked.key is None or asked.key not in root or asked.key in groups):
        return read_tenx(root, groups, asked.key)
    if path.suffix.lower() == ".h5ad" or is_annotated(root):
        return read_annotated(root, asked.key)
    return _plain(stores.read(stores.chosen(root, asked.key)))


def _read_loom(path: Path, asked: Asked) -> Matrix:
    return read_loom(stores.open_hdf5(optional_module("h5py", "files"), path), asked.key)


def _read_zarr(path: Path, asked: Asked) -> Matrix:
    root = stores.open_zarr(optional_module("zarr", "files"), path)
    if is_annotated(root):
        return read_annotated(root, asked.key)
    return _plain(stores.read(stores.chosen(root, asked.key)))


def _plain(stored: stores.Stored) -> Matrix:
    return Matrix(stored.values, note=stored.note)


READERS: dict[str, Callable[[Path, Asked], Matrix]] = {
    ".npy": lambda path, _: _plain(stores.read_npy(path)),
    ".npz": lambda path, asked: named_npz(path, asked.key),
    ".safetensors": lambda path, asked: read_tensor(path, asked.key),
    **{suffix: lambda path, asked: read_delimited(path, suffix_of(path), asked) for suffix in TABLES},
    **dict.fromkeys(SHEETS, read_sheet),
    ".parquet": lambda path, _: read_parquet(path),
    ".feather": lambda path, _: read_feather(path),
    ".mtx": lambda path, _: Matrix(read_market(path)),
    f".mtx{GZ}": lambda path, _: Matrix(read_market(path)),
    ".h5": _read_hdf5,
    ".hdf5": _read_hdf5,
    ".h5ad": _read_hdf5,
    ".loom": _read_loom,
    ".zarr": _read_zarr,
    ".mat": lambda path, asked: read_matlab(path, asked.key),
    ".wav": lambda path, _: read_sound(path),
    **{suffix: lambda path, asked: read_picture(path, asked.key) for suffix in sorted(IMAGES)},
}
INPUTS = tuple(READERS)
SINGLE = (*TABLES, ".npy", ".parquet", ".feather", ".mtx", f".mtx{GZ}", ".wav")  # what holds one matrix only


def read_matrix(
    path: Path,
    *,
    key: str | None = None,
    header: bool | None = None,
    index: bool | None = None,
    sep: str | None = None,
    decimal: str | None = None,
) -> Matrix:
    """Read a matrix of any format in `INPUTS`, or a folder that the programs of 10x wrote.

    What is stored in .npy, HDF5 and zarr, and does not fit in memory, comes as row blocks, and the note says so.

    `key` names the array in a file of several, a sheet or a layer, or is the number of a picture. `header` and `index`
    say whether a table begins with a row of column names and a column of row names. `sep` separates the cells of a
    table in text, and `decimal` stands before decimal places. None finds out.
    """
    asked = Asked(key, header, index, sep, decimal)
    with opened(path, (*INPUTS, FOLDER), _kind(path)) as suffix:
        _check_asked(path, suffix, asked)
        matrix = read_folder(path, key) if suffix == FOLDER else READERS[suffix](path, asked)
        if hasattr(matrix.values, "format"):
            m, n = checked(matrix.values).shape
            check_fits(path, f"one line of its {m} x {n} matrix", 8.0 * max(m, n))
    if isinstance(matrix.values, RowBlocks):
        return _with_repeated(matrix)
    if len(matrix.values.shape) != 2:
        msg = f"{path}: must hold a matrix, which has 2 axes, got shape {matrix.values.shape}"
        raise FileError(msg)
    if matrix.values.dtype.kind not in "biuf":
        msg = f"{path}: must hold real numbers, got dtype {matrix.values.dtype}"
        raise FileError(msg)
    return _with_repeated(matrix)


def _check_asked(path: Path, suffix: str, asked: Asked) -> None:
    """Refuse what is said of a file that has nothing of the kind."""
    table = suffix in (*TABLES, *SHEETS)
    means = {"key": suffix not in SINGLE, "header": table, "index": table, "sep": suffix in TABLES}
    means["decimal"] = suffix in TABLES
    lost = [f"--{name}" for name, meant in means.items() if not meant and getattr(asked, name) is not None]
    if lost:
        msg = f"{path}: {' and '.join(lost)} cannot be said of {suffix}; leave it out"
        raise FileError(msg)


def _kind(path: Path) -> str:
    """The suffix of a file, or that in the place of one for a folder that is no store of its own."""
    suffix = suffix_of(path)
    try:
        return FOLDER if suffix not in INPUTS and path.is_dir() else suffix
    except OSError:  # which is said once the path is opened
        return suffix


def _with_repeated(matrix: Matrix) -> Matrix:
    """The matrix, whose note says which names are there more than once."""
    said = [matrix.note] if matrix.note else []
    for what, names in (("row", matrix.row_names), ("column", matrix.column_names)):
        if names and len(set(names)) < len(names):
            name, times = collections.Counter(names).most_common(1)[0]
            said.append(f"{what} names are there more than once, such as {name!r} ({times} times)")
    return matrix._replace(note="; ".join(said) or None)
