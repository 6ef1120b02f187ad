"""One checkpoint as a file, or as a folder: arrays, a header in JSON, and a checksum over both.

Nothing in it is ever executed.
"""

from __future__ import annotations

import hashlib
import json
import math
import operator
import os
import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.data.chunks import part
from nmf_xp.data.outside import check_folder
from nmf_xp.data.stores import names_in
from nmf_xp.data.unfolding import check_stored
from nmf_xp.files import FileError, archive, opened, optional_module, read_archive
from nmf_xp.files.opening import check_fits
from nmf_xp.files.replacing import sync_folder, write_through
from nmf_xp.run.checkpoint import header as headers

if TYPE_CHECKING:
    import numpy as np

    HostArray = np.ndarray[Any, Any]

SUFFIXES = (".npz", ".safetensors", ".zarr")
PACKAGE_FOR = {".safetensors": "safetensors", ".zarr": "zarr"}
FORMAT = 1


class CheckpointError(FileError):
    """A checkpoint that cannot be written, is damaged, or is of another run; one sentence that names the file."""


class Stored(NamedTuple):
    """What a checkpoint holds."""

    header: dict[str, Any]
    arrays: dict[str, HostArray]


def checked_path(path: Any) -> Path:
    """The user's `checkpoint`; refused where it is of a format that there is not, or whose library is missing."""
    if not isinstance(path, str | os.PathLike):
        msg = f"`checkpoint` must be the path of a file, got {path!r}"
        raise TypeError(msg)
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        msg = f"`checkpoint` must have one of the suffixes {', '.join(SUFFIXES)}, got {str(path)!r}"
        raise ValueError(msg)
    if suffix in PACKAGE_FOR:
        optional_module(PACKAGE_FOR[suffix], "files")
    return path


def save(path: Path, stored: Stored, *, private: bool) -> None:
    """Write a checkpoint where nothing is, through to the disk; for its owner only if it is `private`."""
    header = headers.text({"format": FORMAT, **stored.header}, indent=1)
    texts = {"header": header, "checksum": _checksum(header, stored.arrays)}
    if path.suffix.lower() == ".zarr":
        path.mkdir(mode=0o700 if private else 0o777)
        _write_zarr(path, stored.arrays, texts)
        return
    exclusive = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, exclusive, 0o600 if private else 0o666)
    write_through(descriptor, archive(path.suffix.lower(), stored.arrays, texts))


def remove(path: Path) -> None:
    """Remove a checkpoint, if it is there; of a link, the link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def read(path: Path, suffix: str | None = None) -> Stored:
    """A checkpoint that is whole, of the format of this suffix; without one, of its own."""
    suffix = (suffix or path.suffix).lower()
    folder = suffix == ".zarr"
    kind = "directory" if path.is_dir() else "file" if path.is_file() else "device, a pipe or a socket"
    if kind != ("directory" if folder else "file") and path.exists():
        msg = f"{path}: is a {kind}, not a checkpoint"
        raise CheckpointError(msg)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what readers make of damaged files
            if folder:
                arrays, texts = _read_zarr(path)
            else:
                with opened(path, SUFFIXES, suffix):
                    arrays, texts = read_archive(path, suffix)
            marked = {"header", "checksum"} <= set(texts)
            fits = marked and _checksum(texts["header"], arrays) == texts["checksum"]
    except ImportError:
        raise
    except Exception as error:
        msg = f"{path}: is damaged, or no checkpoint ({str(error).removeprefix(f'{path}: ')})"
        raise CheckpointError(msg) from error
    if not marked:
        msg = f"{path}: is no checkpoint"
        raise CheckpointError(msg)
    if not fits:
        msg = f"{path}: is damaged (its checksum does not fit)"
        raise CheckpointError(msg)
    try:
        header = json.loads(texts["header"])
    except (ValueError, RecursionError) as error:
        msg = f"{path}: is no checkpoint: its header is no JSON"
        raise CheckpointError(msg) from error
    if isinstance(header, dict) and header.get("format") != FORMAT and "format" in header:
        version = str(header.get("nmf_xp"))[:40]
        msg = f"{path}: is a checkpoint of nmf_xp {version}, in a format that this version does not read"
        raise CheckpointError(msg)
    wrong = headers.fault(header, arrays)
    if wrong is not None:
        msg = f"{path}: is no checkpoint that nmf_xp wrote: {wrong}"
        raise CheckpointError(msg)
    return Stored(header, arrays)


def _checksum(header: str, arrays: dict[str, HostArray]) -> str:
    """A hash of all that a checkpoint holds, the same in every file format."""
    import numpy as np

    digest = hashlib.blake2b(header.encode(), digest_size=32)
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.asarray(array, order="C").data)
    return digest.hexdigest()


def _write_zarr(path: Path, arrays: dict[str, HostArray], texts: dict[str, str]) -> None:
    """Into an empty folder, file by file: zarr's own threads would still write here after the first error."""
    zarr = optional_module("zarr", "files")
    files: dict[str, Any] = {}
    group = zarr.open_group(zarr.storage.MemoryStore(files), mode="a", attributes=texts)
    for name, array in arrays.items():
        group.create_array(name, data=array, compressors=None)
    for name, content in files.items():
        file = path.joinpath(*name.split("/"))
        file.parent.mkdir(parents=True, exist_ok=True)
        write_through(file, operator.methodcaller("write", content.to_bytes()))
    for folder, _, _ in os.walk(path):
        sync_folder(Path(folder))


def _read_zarr(path: Path) -> tuple[dict[str, HostArray], dict[str, str]]:
    check_folder(path)
    group = optional_module("zarr", "files").open_group(path, mode="r")
    stored = {name: array for name in names_in(group) if hasattr(array := group[name], "dtype")}
    for array in stored.values():
        check_stored(array)
    check_fits(path, "what it holds", sum(math.prod(array.shape) * array.dtype.itemsize for array in stored.values()))
    return {name: part(array) for name, array in stored.items()}, dict(group.attrs)
