"""Matrices from files, and factors into files.

A reader says what is wrong with a file, and where. A writer leaves either the whole new file or what was there before.
"""

from __future__ import annotations

import contextlib
import csv
import importlib
import itertools
import json
import math
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.data import stores
from nmf_xp.data.sources import RowBlocks
from nmf_xp.files.replacing import FileError, check_place, target_of, write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import numpy as np

    HostArray = np.ndarray[Any, Any]

__all__ = [
    "IMAGES",
    "INPUTS",
    "OUTPUTS",
    "FileError",
    "Matrix",
    "archive",
    "check_output",
    "opened",
    "optional_module",
    "read_archive",
    "read_factors",
    "read_matrix",
    "write_atomically",
    "write_factors",
]

IMAGES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp"}
TABLES = {".csv": ",", ".tsv": "\t"}
HDF5 = (".h5", ".hdf5", ".h5ad")
INPUTS = (".npy", ".npz", *TABLES, ".mtx", *HDF5, ".zarr", *sorted(IMAGES))
OUTPUTS = (".npz", ".safetensors")
MISSING = {"", "NA"}  # cells that are read as NaN: what spreadsheets and R write
FAR = 10  # times the largest entry: above it the numbers of a first line are not like the entries


class Matrix(NamedTuple):
    """A matrix from a file: a NumPy or SciPy sparse array, or row blocks, with names where the file has them."""

    values: Any
    row_names: list[str] | None = None
    column_names: list[str] | None = None
    note: str | None = None  # what the reader made of the file, where the file leaves a choice


class Guessed(NamedTuple):
    """What nobody said of a table: that the line of this number holds no names, and the first column none."""

    line: int | None  # the first line's number; None where it was said
    column: bool


def read_matrix(path: Path, *, key: str | None = None, header: bool | None = None, index: bool | None = None) -> Matrix:
    """Read a matrix of any format in `INPUTS`.

    What is stored in .npy, HDF5 and zarr, and does not fit in memory, comes as row blocks, and the note says so.

    `key` names the array in a file of several. `header` and `index` say whether a table begins with a row of column
    names and a column of row names; None finds out.
    """
    with opened(path, INPUTS) as suffix:
        if suffix in TABLES:
            matrix = _read_table(path, TABLES[suffix], header=header, index=index)
        elif suffix in IMAGES:
            matrix = _read_image(path)
        elif suffix == ".mtx":
            matrix = Matrix(optional_module("scipy.io", "files").mmread(path))
        elif suffix == ".npz":
            matrix = Matrix(_read_npz(path, key))
        elif suffix in HDF5:
            matrix = Matrix(*stores.read_hdf5(optional_module("h5py", "files"), path, key))
        elif suffix == ".zarr":
            matrix = Matrix(*stores.read_zarr(optional_module("zarr", "files"), path, key))
        else:
            matrix = Matrix(*stores.read_npy(path))
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
            return _read_npz(path, "W"), _read_npz(path, "H")
        found = optional_module("safetensors.numpy", "files").load_file(path)
        for name in ("W", "H"):
            if name not in found:
                msg = f"{path}: holds no array {name!r}, only {', '.join(found)}"
                raise FileError(msg)
        return found["W"], found["H"]


@contextlib.contextmanager
def opened(path: Path, suffixes: Sequence[str], suffix: str | None = None) -> Iterator[str]:
    """The suffix of a file that is to be read; what its reader raises becomes one sentence.

    It is that of the path, unless a link with another `suffix` leads to it.
    """
    suffix = (suffix or path.suffix).lower()
    if suffix not in suffixes:
        msg = f"{path}: the suffix {suffix!r} is none of {', '.join(suffixes)}"
        raise FileError(msg)
    try:
        if path.is_dir() and suffix != ".zarr":
            msg = f"{path}: is a directory, not a file"
            raise FileError(msg)
        if path.is_file() and path.stat().st_size == 0:
            msg = f"{path}: the file is empty"
            raise FileError(msg)
        yield suffix
    except (FileError, ImportError):
        raise
    except FileNotFoundError as error:
        msg = f"{path}: no such file"
        raise FileError(msg) from error
    except Exception as error:  # readers raise whatever their format leads them to
        msg = f"{path}: cannot be read: {reason_of(error)}"
        raise FileError(msg) from error


def reason_of(error: Exception) -> str:
    """What an exception says, on one line."""
    reason = " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
    if isinstance(error, ValueError) and reason.startswith("Object arrays cannot be loaded"):
        return "it holds pickled Python objects, which could run any code; save plain numbers instead"
    if isinstance(error, ValueError) and "pickle" in reason.lower():  # NumPy's guess where it knows no better
        return "it is no NumPy file"
    return reason


def optional_module(name: str, extra: str) -> Any:
    """A module from an optional package."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = {"PIL": "pillow"}.get(name.partition(".")[0], name.partition(".")[0])
        msg = f'this needs {package}: pip install "nmf_xp[{extra}]"'
        raise ImportError(msg) from error


def _read_image(path: Path) -> Matrix:
    """Grey values of an image."""
    import numpy as np

    with optional_module("PIL.Image", "files").open(path) as image:
        if image.mode in ("L", "I", "F") or image.mode.startswith("I;16"):
            return Matrix(np.asarray(image), note="an image, read as its grey values")
        return Matrix(np.asarray(image.convert("L")), note=f"an image of mode {image.mode}, read as greyscale")


def _read_npz(path: Path, key: str | None) -> Any:
    import numpy as np

    with np.load(path, allow_pickle=False) as archive:
        names = list(archive)
        if {"format", "shape", "data"} <= set(names) and key is None:
            return optional_module("scipy.sparse", "files").load_npz(path)
        if key is None and len(names) != 1:
            msg = f"{path}: holds the arrays {', '.join(names)}; say which one with --key"
            raise FileError(msg)
        if key is not None and key not in names:
            msg = f"{path}: holds no array {key!r}, only {', '.join(names)}"
            raise FileError(msg)
        return archive[key or names[0]]


def _read_table(path: Path, separator: str, *, header: bool | None, index: bool | None) -> Matrix:
    """A table, in which names are found unless it is said where they are."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, delimiter=separator)
        lines = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if row]
    if not lines:
        msg = f"{path}: the file is empty"
        raise FileError(msg)
    first = lines[0][1]
    # With an empty corner spreadsheets, pandas and R begin a table that has both kinds of names, which may be numbers.
    corner = len(first) > 1 and first[0] == "" and header is not False and index is not False
    guessed = Guessed(lines[0][0] if header is None else None, index is None)
    if header is None:
        header = corner or _is_header(first, [row for _, row in lines[1:]])
    names = lines.pop(0)[1] if header else None
    if not lines:
        msg = f"{path}: holds a row of names and nothing below it"
        raise FileError(msg)
    width = len(lines[0][1])
    if index is None:
        one_short = names is not None and len(names) == width - 1  # names of the columns that hold numbers
        index = corner or one_short or _are_names([row[0] for _, row in lines])
    if width == index:
        msg = (
            f"{path}: holds one column, of names; cells must be separated by {'commas' if separator == ',' else 'tabs'}"
        )
        raise FileError(msg)
    if names is not None and len(names) == width:
        names = names[index:]
    elif names is not None and len(names) != width - index:
        msg = f"{path}: the first line has {len(names)} names for {width - index} columns"
        raise FileError(msg)
    found = [name for name, there in (("column names", header), ("row names", index)) if there]
    note = f"a table with {' and '.join(found)}" if found else "a table without names"
    row_names = [row[0] for _, row in lines] if index else None
    return Matrix(_numbers(path, lines, width, skip=int(index), guessed=guessed), row_names, names, note)


def _is_header(first: list[str], below: list[list[str]]) -> bool:
    """Whether a table's first line holds names: most of its cells are no numbers, or its numbers look like names.

    One cell that is no number among others is one that is wrong, and no name.
    """
    over_names = bool(below) and _are_names([row[0] for row in below])
    if over_names and all(len(row) == len(first) + 1 for row in below):
        return True
    cells = first[1:] if over_names and len(first) > 1 else first
    if _are_names(cells):
        return True
    return over_names and not _is_number(first[0]) and _are_labels(first, below)


def _are_labels(first: list[str], below: list[list[str]]) -> bool:
    """Whether a line of numbers over a table with row names holds column names: wavelengths, years, doses.

    They are distinct. What stands before them is unlike all row names, as `id` is unlike `s1`, or they are evenly
    spaced as no line below is, or all far above the entries.
    """
    if not all(map(_is_number, first[1:])) or len(set(first[1:])) < len(first[1:]) or not MISSING.isdisjoint(first[1:]):
        return False
    if _form(first[0]) not in {_form(row[0]) for row in below}:
        return True
    rows = [[float(cell) for cell in row[1:] if cell not in MISSING and _is_number(cell)] for row in below]
    numbers = [float(cell) for cell in first[1:]]
    if _evenly_spaced(numbers) and not any(map(_evenly_spaced, rows)):
        return True
    return min(numbers) > FAR * max((abs(x) for row in rows for x in row), default=0.0)


def _form(name: str) -> str:
    """The kinds of characters of a name: `s1` and `s24` are of one form, as are `TP53` and `BRCA1`."""
    return re.sub(r"[^\W\d_]+", lambda letters: "A" if letters[0].isupper() else "a", re.sub(r"\d+", "0", name))


def _evenly_spaced(numbers: list[float]) -> bool:
    """Whether there are three numbers or more, each by the same step from the one before it."""
    steps = [b - a for a, b in itertools.pairwise(numbers)]
    return len(steps) > 1 and steps[0] != 0 and all(math.isclose(step, steps[0], rel_tol=1e-6) for step in steps)


def _are_names(cells: list[str]) -> bool:
    """Whether most of the cells are no numbers."""
    return 2 * sum(not _is_number(cell) for cell in cells) > len(cells)


def _numbers(path: Path, lines: list[tuple[int, list[str]]], width: int, *, skip: int, guessed: Guessed) -> HostArray:
    """The numbers of numbered lines of cells, of which `skip` at the left hold none."""
    import numpy as np

    values = np.empty((len(lines), width - skip))
    for i, (n, row) in enumerate(lines):
        if len(row) != width:
            msg = f"{path}: line {n} has {len(row)} cells, the lines above it have {width}"
            raise FileError(msg)
        for j, cell in enumerate(row[skip:]):
            if not _is_number(cell):
                remedy = "; say --header if this line holds names" if n == guessed.line else ""
                if j + skip == 0 and guessed.column:
                    remedy += "; say --index if this column holds names"
                msg = f"{path}: line {n}, column {j + skip + 1}: {cell!r} is not a number{remedy}"
                raise FileError(msg)
            values[i, j] = float("nan") if cell in MISSING else float(cell)
    return values


def _is_number(cell: str) -> bool:
    """Whether a cell holds a number, or is one that is missing."""
    try:
        float(cell)
    except ValueError:
        return cell in MISSING
    return "_" not in cell  # 1_2 is a number for Python only


def check_output(path: Path, *, suffixes: Sequence[str] | None = OUTPUTS, force: bool) -> None:
    """Find out before the work that a file can be written after it."""
    if suffixes is not None and path.suffix.lower() not in suffixes:
        msg = f"{path}: the suffix {path.suffix!r} is none of {', '.join(suffixes)}"
        raise FileError(msg)
    target = target_of(path)
    if target.is_dir():
        msg = f"{path}: is a directory, not a file"
        raise FileError(msg)
    if target.exists() and not target.is_file():
        msg = f"{path}: is a device, a pipe or a socket, not a file; name another one"
        raise FileError(msg)
    if target.exists() and not force:
        msg = f"{path}: exists already; say --force to replace it"
        raise FileError(msg)
    check_place(path)
    if path.suffix.lower() == ".safetensors":
        optional_module("safetensors.numpy", "files")


def write_factors(path: Path, arrays: dict[str, HostArray], settings: dict[str, str], *, replace: bool = True) -> None:
    """Write arrays and settings to .npz or .safetensors: wholly, or not at all."""
    write_atomically(path, archive(path.suffix.lower(), arrays, settings), replace=replace)


def archive(suffix: str, arrays: dict[str, HostArray], texts: dict[str, str]) -> Callable[[Any], Any]:
    """What writes arrays and texts to an open .npz or .safetensors file.

    In .safetensors, which knows no text, arrays of text are JSON in the metadata, beside the texts.
    """
    import numpy as np

    # safetensors writes the memory of an array as it lies, whatever its strides say.
    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    if suffix == ".safetensors":
        numbers = {name: array for name, array in arrays.items() if array.dtype.kind != "U"}
        lists = {name: json.dumps(array.tolist()) for name, array in arrays.items() if array.dtype.kind == "U"}
        data = optional_module("safetensors.numpy", "files").save(numbers, metadata={**texts, **lists})
        return lambda file: file.write(data)
    everything: dict[str, Any] = {**arrays, **texts}
    return lambda file: np.savez(file, **everything)


def read_archive(path: Path, suffix: str | None = None) -> tuple[dict[str, HostArray], dict[str, str]]:
    """The arrays and the texts of an .npz or .safetensors file."""
    if (suffix or path.suffix).lower() == ".safetensors":
        with optional_module("safetensors", "files").safe_open(path, "numpy") as stored:
            return {name: stored.get_tensor(name) for name in stored.keys()}, stored.metadata() or {}  # noqa: SIM118
    import numpy as np

    with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:  # np.load leaves a damaged one open
        found = dict(stored)
    texts = {name: str(array) for name, array in found.items() if array.dtype.kind == "U" and array.ndim == 0}
    return {name: array for name, array in found.items() if name not in texts}, texts
