"""Matrices from files, and factors into files.

A reader says what is wrong with a file, and where. A writer leaves either the whole new file or what was there before.
"""

from __future__ import annotations

import contextlib
import csv
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np

    HostArray = np.ndarray[Any, Any]

IMAGES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp"}
TABLES = {".csv": ",", ".tsv": "\t"}
INPUTS = (".npy", ".npz", *TABLES, ".mtx", *sorted(IMAGES))
OUTPUTS = (".npz", ".safetensors")


class FileError(Exception):
    """A file that cannot be read or written, in one sentence that names it."""


class Matrix(NamedTuple):
    """A matrix from a file: a NumPy or SciPy sparse array, with names where the file has them."""

    values: Any
    row_names: list[str] | None = None
    column_names: list[str] | None = None


def read_matrix(path: Path, *, key: str | None = None, header: bool | None = None, index: bool | None = None) -> Matrix:
    """Read a matrix of any format in `INPUTS`.

    `key` names the array in an .npz of several. `header` and `index` say whether a table begins with a row of column
    names and a column of row names; None finds out.
    """
    suffix = path.suffix.lower()
    if suffix not in INPUTS:
        msg = f"{path}: the suffix {suffix!r} is none of {', '.join(INPUTS)}"
        raise FileError(msg)
    if path.is_dir():
        msg = f"{path}: is a directory, not a file"
        raise FileError(msg)
    if not path.exists():
        msg = f"{path}: no such file"
        raise FileError(msg)
    if path.stat().st_size == 0:
        msg = f"{path}: the file is empty"
        raise FileError(msg)
    with _explained(path):
        if suffix in TABLES:
            return _read_table(path, TABLES[suffix], header=header, index=index)
        if suffix in IMAGES:
            return Matrix(_read_image(path))
        if suffix == ".mtx":
            return Matrix(_module("scipy.io", "files").mmread(path))
        if suffix == ".npz":
            return Matrix(_read_npz(path, key))
        import numpy as np

        return Matrix(np.load(path, allow_pickle=False))


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what a reader raises into one sentence."""
    try:
        yield
    except FileError:
        raise
    except ImportError:
        raise
    except Exception as error:  # readers raise whatever their format leads them to
        reason = " ".join(str(error).split()) or type(error).__name__
        if "pickle" in reason.lower():
            reason = "it holds pickled Python objects, which could run any code; save plain numbers instead"
        msg = f"{path}: cannot be read: {reason}"
        raise FileError(msg) from error


def _module(name: str, extra: str) -> Any:
    """A module from an optional package."""
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        msg = f'this needs {name.partition(".")[0]}: pip install "nmf_xp[{extra}]"'
        raise ImportError(msg) from error


def _read_image(path: Path) -> HostArray:
    """Grey values of an image."""
    import numpy as np

    with _module("PIL.Image", "files").open(path) as image:
        return np.asarray(image if image.mode in ("I;16", "I", "F", "L") else image.convert("L"))


def _read_npz(path: Path, key: str | None) -> Any:
    import numpy as np

    with np.load(path, allow_pickle=False) as archive:
        names = list(archive)
        if {"format", "shape", "data"} <= set(names) and key is None:
            return _module("scipy.sparse", "files").load_npz(path)
        if key is None and len(names) != 1:
            msg = f"{path}: holds the arrays {', '.join(names)}; say which one with --key"
            raise FileError(msg)
        if key is not None and key not in names:
            msg = f"{path}: holds no array {key!r}, only {', '.join(names)}"
            raise FileError(msg)
        return archive[key or names[0]]


def _read_table(path: Path, separator: str, *, header: bool | None, index: bool | None) -> Matrix:
    import numpy as np

    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = [(n, row) for n, row in enumerate(csv.reader(file, delimiter=separator), 1) if row]
    if not lines:
        msg = f"{path}: the file is empty"
        raise FileError(msg)
    if header is None:
        header = not all(_is_number(cell) for cell in lines[0][1][1:] or lines[0][1])
    names = [cell.strip() for cell in lines.pop(0)[1]] if header else None
    if not lines:
        msg = f"{path}: holds a row of names and nothing below it"
        raise FileError(msg)
    if index is None:
        index = not all(_is_number(row[0]) for _, row in lines)
    width = len(lines[0][1])
    values = np.empty((len(lines), width - index))
    for i, (n, row) in enumerate(lines):
        if len(row) != width:
            msg = f"{path}: line {n} has {len(row)} cells, the lines above it have {width}"
            raise FileError(msg)
        for j, cell in enumerate(row[index:]):
            if not _is_number(cell):
                msg = f"{path}: line {n}, column {j + index + 1}: {cell!r} is not a number"
                raise FileError(msg)
            values[i, j] = float(cell) if cell.strip() else float("nan")
    if names is not None and len(names) - index == values.shape[1]:
        names = names[index:]
    if names is not None and len(names) != values.shape[1]:
        msg = f"{path}: the first line has {len(names)} names for {values.shape[1]} columns"
        raise FileError(msg)
    return Matrix(values, [row[0].strip() for _, row in lines] if index else None, names)


def _is_number(cell: str) -> bool:
    """Whether a cell holds a number, or nothing, which is read as NaN."""
    try:
        float(cell.strip() or "nan")
    except ValueError:
        return False
    return True


def check_output(path: Path, *, force: bool) -> None:
    """Find out before the work that a file can be written after it."""
    if path.suffix.lower() not in OUTPUTS:
        msg = f"{path}: the suffix {path.suffix!r} is none of {', '.join(OUTPUTS)}"
        raise FileError(msg)
    if path.is_dir():
        msg = f"{path}: is a directory, not a file"
        raise FileError(msg)
    if path.exists() and not force:
        msg = f"{path}: exists already; say --force to replace it"
        raise FileError(msg)
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        msg = f"{path}: cannot be written: {error.strerror or error}"
        raise FileError(msg) from error
    if path.suffix.lower() == ".safetensors":
        _module("safetensors.numpy", "files")


def write_factors(path: Path, arrays: dict[str, HostArray], settings: dict[str, str]) -> None:
    """Write arrays and settings to .npz or .safetensors: wholly, or not at all."""
    import numpy as np

    # safetensors writes the memory of an array as it lies, whatever its strides say.
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    if path.suffix.lower() == ".safetensors":
        numbers = {name: array for name, array in arrays.items() if array.dtype.kind != "U"}
        texts = {name: "\n".join(array.tolist()) for name, array in arrays.items() if array.dtype.kind == "U"}
        data = _module("safetensors.numpy", "files").save(numbers, metadata={**settings, **texts})
        write_atomically(path, lambda file: file.write(data))
    else:
        everything: dict[str, Any] = {**arrays, **settings}
        write_atomically(path, lambda file: np.savez(file, **everything))


def write_atomically(path: Path, write: Callable[[Any], Any]) -> None:
    """Write beside `path`, flush to the disk, and only then take the name of `path`."""
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(0o666 & ~_umask())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        if os.name == "posix":
            directory = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
    except OSError as error:
        msg = f"{path}: cannot be written: {error.strerror or error}"
        raise FileError(msg) from error


def _umask() -> int:
    """The process's umask, which can be read only by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
