"""Several arrays in one file: .npz and .safetensors, read without running anything, and written."""

from __future__ import annotations

import json
import zipfile
from typing import TYPE_CHECKING, Any

from nmf_xp.data.sources import npy_header
from nmf_xp.data.sparse_places import checked
from nmf_xp.files.matrix import Matrix
from nmf_xp.files.opening import FileError, check_fits, listed, optional_module

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np

    HostArray = np.ndarray[Any, Any]

SPARSE = {"format", "shape", "data"}  # what SciPy calls the parts of a sparse matrix


NAMES = {"W": ("row_names", "component_names"), "H": ("component_names", "column_names")}
"""The arrays with the names of rows and columns, beside factors that were written here."""


def named_npz(path: Path, key: str | None) -> Matrix:
    """An array of an .npz file, or SciPy's sparse matrix; a factor that was written here with its names."""
    values = read_npz(path, key)
    there = set(npz_sizes(path)) if key in NAMES else set()
    names = {name: read_npz(path, name).tolist() for name in NAMES.get(key or "", ()) if name in there}
    return _named(path, values, key, names)


def read_tensor(path: Path, key: str | None) -> Matrix:
    """An array of a .safetensors file, or its only matrix; a factor that was written here with its names."""
    check_fits(path, "what it holds", path.stat().st_size)
    with optional_module("safetensors", "files").safe_open(path, "numpy") as stored:
        shapes = {name: stored.get_slice(name).get_shape() for name in stored.keys()}  # noqa: SIM118
        matrices = [name for name, shape in shapes.items() if len(shape) == 2]
        if key is not None and key not in shapes:
            msg = f"{path}: holds no array {key!r}, only {listed(shapes)}"
            raise FileError(msg)
        if key is None and len(matrices) != 1:
            msg = f"{path}: holds the arrays {listed(matrices or shapes)}; say which one with --key"
            raise FileError(msg)
        name = key or matrices[0]
        texts = stored.metadata() or {}
        names = {which: json.loads(texts[which]) for which in NAMES.get(name, ()) if which in texts}
        return _named(path, stored.get_tensor(name), name, names)


def _named(path: Path, values: Any, key: str | None, names: dict[str, Any]) -> Matrix:
    """The array of that name, with the names of its rows and columns that are there."""
    found: dict[int, list[str]] = {}
    for axis, which in enumerate(NAMES.get(key or "", ())):
        texts = names.get(which)
        if texts is None:
            continue
        if not isinstance(texts, list) or len(texts) != values.shape[axis]:
            msg = f"{path}: is damaged: its {which} are not as many as {key!r} has along that axis"
            raise FileError(msg)
        found[axis] = list(map(str, texts))
    return Matrix(values, found.get(0), found.get(1))


def read_npz(path: Path, key: str | None) -> Any:
    """An array of an .npz file, or SciPy's sparse matrix."""
    import numpy as np

    sizes = npz_sizes(path)
    if set(sizes) >= SPARSE and key is None:
        check_fits(path, "what it holds", 2.0 * sum(sizes.values()))
        return checked(optional_module("scipy.sparse", "files").load_npz(path))
    if key is None and len(sizes) != 1:
        msg = f"{path}: holds the arrays {listed(sizes)}; say which one with --key"
        raise FileError(msg)
    if key is not None and key not in sizes:
        msg = f"{path}: holds no array {key!r}, only {listed(sizes)}"
        raise FileError(msg)
    name = key or next(iter(sizes))
    check_fits(path, f"its array {name!r}", sizes[name])
    with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:  # np.load leaves a damaged one open
        return stored[name]


def npz_sizes(path: Path) -> dict[str, int]:
    """The arrays of an .npz file and the bytes that each takes in memory, of which nothing is read but the headers."""
    path.stat()  # which says what is wrong with a path, where there is no file
    if not zipfile.is_zipfile(path):
        msg = f"{path}: cannot be read: it is no NumPy file"
        raise FileError(msg)
    sizes = {}
    with zipfile.ZipFile(path) as zipped:
        for member in zipped.infolist():
            with zipped.open(member) as file:
                try:
                    header = npy_header(file)
                except ValueError:
                    if member.filename.endswith(".npy"):
                        raise
                    continue  # a file beside the arrays
            if header.bytes > member.file_size - header.begin and header.dtype.kind != "O":
                msg = f"{path}: is damaged: {member.filename!r} holds less than it declares"
                raise FileError(msg)
            sizes[member.filename.removesuffix(".npy")] = max(header.bytes, member.file_size)
    return sizes


def read_archive(path: Path, suffix: str | None = None) -> tuple[dict[str, HostArray], dict[str, str]]:
    """The arrays and the texts of an .npz or .safetensors file."""
    if (suffix or path.suffix).lower() == ".safetensors":
        check_fits(path, "what it holds", path.stat().st_size)
        with optional_module("safetensors", "files").safe_open(path, "numpy") as stored:
            return {name: stored.get_tensor(name) for name in stored.keys()}, stored.metadata() or {}  # noqa: SIM118
    import numpy as np

    check_fits(path, "what it holds", sum(npz_sizes(path).values()))
    with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
        found = dict(stored)
    texts = {name: str(array) for name, array in found.items() if array.dtype.kind == "U" and array.ndim == 0}
    return {name: array for name, array in found.items() if name not in texts}, texts


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
        texts = {name: text.encode("utf-8", "backslashreplace").decode() for name, text in texts.items()}  # its own
        data = optional_module("safetensors.numpy", "files").save(numbers, metadata={**texts, **lists})
        return lambda file: file.write(data)
    everything: dict[str, Any] = {**arrays, **texts}
    return lambda file: np.savez(file, **everything)
