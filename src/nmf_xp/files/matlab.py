"""Matrices in MATLAB's .mat files: of version 4 to 7, and of 7.3, which are HDF5 and hold each matrix turned."""

from __future__ import annotations

import math
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.data import stores
from nmf_xp.data.sources import COLUMNS, RowBlocks
from nmf_xp.data.sparse_places import checked
from nmf_xp.files.matrix import Matrix
from nmf_xp.files.opening import FileError, check_fits, listed, optional_module

if TYPE_CHECKING:
    from pathlib import Path

HDF5, USER_BLOCK = b"\x89HDF", 512  # how HDF5 begins, and what stands before it
NUMBERS = {
    *(
        "double",
        "single",
        "logical",
        "sparse",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
    ),
}
"""The classes that hold numbers, as MATLAB calls them."""
STORED_SMALLER = {"double": "float64", "single": "float32", "sparse": "float64"}
"""Classes whose numbers MATLAB stores as small integers, where they are such."""
BEGIN = 128  # bytes before the first variable
COMPRESSED = 15  # what a compressed variable is called
PIECE = 2**20


class Variable(NamedTuple):
    """A variable of a file, and its shape as it is declared."""

    name: str
    shape: tuple[int, ...]

    @property
    def is_matrix(self) -> bool:
        """Whether it has rows and columns, and is no single number or vector."""
        return len(self.shape) == 2 and min(self.shape) > 1


class Sparse:
    """MATLAB's sparse matrix in HDF5, by the names that compressed rows have elsewhere: it is one by columns."""

    def __init__(self, group: Any) -> None:
        """Nothing is read yet."""
        self._group = group

    def __getitem__(self, name: str) -> Any:
        return self._group[{"indices": "ir", "indptr": "jc"}.get(name, name)]


def read_matlab(path: Path, key: str | None) -> Matrix:
    """A variable of a .mat file: the one that is asked for, or the only matrix."""
    with path.open("rb") as file:
        file.seek(USER_BLOCK)
        if file.read(len(HDF5)) == HDF5:
            return _read_hdf5(path, key)
    scipy_io = optional_module("scipy.io", "files")
    _check_unfolding(path)
    found = [(name, shape, kind) for name, shape, kind in scipy_io.whosmat(path) if kind in NUMBERS]
    variables = [Variable(name, shape) for name, shape, _ in found if not name.startswith("__")]
    name = _chosen(path, variables, key)
    shape, kind = next((shape, kind) for one, shape, kind in found if one == name)
    numbers = max(shape, default=1) if kind == "sparse" else math.prod(shape)
    check_fits(path, f"its variable {name!r}", 8.0 * numbers)
    values = scipy_io.loadmat(path, variable_names=[name], appendmat=False)[name]
    values = checked(values) if hasattr(values, "format") else values
    if values.dtype.kind in "iu" and kind in STORED_SMALLER:
        values = values.astype(STORED_SMALLER[kind])
    return Matrix(values, note=_note(name, variables, key))


def _chosen(path: Path, variables: list[Variable], key: str | None) -> str:
    """The name of the variable to take."""
    names = [variable.name for variable in variables]
    if key is not None and key not in names:
        msg = f"{path}: holds no matrix {key!r}, only {listed(names) or 'what are no numbers'}"
        raise FileError(msg)
    matrices = [variable.name for variable in variables if variable.is_matrix]
    name = key or next(iter(names if len(names) == 1 else matrices), None)
    if name is None or (key is None and len(names) > 1 and len(matrices) != 1):
        msg = f"{path}: holds {listed(names) or 'no numbers'}{'; say which one with --key' if names else ''}"
        raise FileError(msg)
    return name


def _note(name: str, variables: list[Variable], key: str | None) -> str | None:
    """Which variable was taken, where there are several and none was asked for."""
    return None if key is not None or len(variables) == 1 else f"its only matrix, {name!r}"


def _check_unfolding(path: Path) -> None:
    """Refuse a file with a compressed variable that unfolds to more than the memory."""
    with path.open("rb") as file:
        head = file.read(BEGIN)
        order: Any = {b"IM": "little", b"MI": "big"}.get(head[126:128])
        while order and len(tag := file.read(8)) == 8:
            kind, size = int.from_bytes(tag[:4], order), int.from_bytes(tag[4:], order)
            begin = file.tell()
            if kind == COMPRESSED:
                _check_variable(path, file, size)
            file.seek(begin + size)


def _check_variable(path: Path, file: Any, size: int) -> None:
    unfold, found, looked = zlib.decompressobj(), 0, 0
    while size > 0 and not unfold.eof and (piece := file.read(min(PIECE, size))):
        size -= len(piece)
        while piece and not unfold.eof:
            found += len(unfold.decompress(piece, PIECE))
            piece = unfold.unconsumed_tail
            if found - looked > 2**24 or (found > looked and size == 0):
                looked = found
                check_fits(path, "what one of its variables unfolds to", found)


def _read_hdf5(path: Path, key: str | None) -> Matrix:
    """A variable of version 7.3, whose columns are the rows of HDF5."""
    root = stores.open_hdf5(optional_module("h5py", "files"), path)
    found = {name: root[name] for name in stores.names_in(root) if not name.startswith("#")}
    shapes = {name: _shape(stored) for name, stored in found.items()}
    variables = [Variable(name, shape) for name, shape in shapes.items() if shape is not None]
    name = _chosen(path, variables, key)
    stored, shape = found[name], shapes[name]
    note = _note(name, variables, key)
    if hasattr(stored, "dtype"):
        read = stores.read(stored, transposed=True)
        return Matrix(read.values, note=", ".join(filter(None, (note, read.note))) or None)
    m, n = stores.shape_of(shape)
    values = stores.read_rows(Sparse(stored), (n, m)).values
    if isinstance(values, RowBlocks):
        raise ValueError(COLUMNS)
    return Matrix(checked(values.T), note=note)


def _shape(stored: Any) -> tuple[int, ...] | None:
    """The shape of a variable that holds numbers."""
    kind = stored.attrs.get("MATLAB_class", b"double")
    kind = kind.decode("latin-1") if isinstance(kind, bytes) else str(kind)
    if kind not in NUMBERS:
        return None
    if hasattr(stored, "dtype"):
        return tuple(int(length) for length in reversed(stored.shape))
    if "MATLAB_sparse" in stored.attrs and "jc" in stored:
        return int(stored.attrs["MATLAB_sparse"]), max(0, int(stored["jc"].shape[0]) - 1)
    return None
