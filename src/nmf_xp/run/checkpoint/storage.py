"""Checkpoints on the disk: whole or not there, and always the last two.

Of `run.npz` there is `run.previous.npz`, the one before, and for a moment `run.next.npz`. A new one is written under
the last of these names, flushed to the disk, and takes its place by two renamings. So a file is torn only while it is
called `next`; where the process dies between the renamings, `run.npz` is missing and `next` is whole, and is taken.

A file holds arrays, a header in JSON, and a checksum over both. Nothing in it is ever executed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.data.codecs import check_codecs
from nmf_xp.files import (
    FileError,
    archive,
    check_folder,
    opened,
    optional_module,
    read_archive,
    sync_folder,
    write_through,
)

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


def check_writable(path: Path) -> None:
    """Find out before the run whether its checkpoints can be made."""
    try:
        check_folder(path)
    except FileError as error:
        raise CheckpointError(str(error)) from error


def previous(path: Path) -> Path:
    """Where the checkpoint before the last one is."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def _next(path: Path) -> Path:
    return path.with_name(f"{path.stem}.next{path.suffix}")


def last(path: Path) -> Stored | None:
    """The last checkpoint, None where there is none; one that is damaged is refused, with a way out."""
    unfinished = _next(path)
    if not path.exists():
        try:
            stored = _read(unfinished) if unfinished.exists() else None
        except CheckpointError:  # the first one of all, which never became whole
            return None
        if stored is not None:
            unfinished.rename(path)
        return stored
    try:
        return _read(path)
    except CheckpointError as error:
        msg = f"{error}; {_way_out(path)}"
        raise CheckpointError(msg) from error


def _way_out(path: Path) -> str:
    before = previous(path)
    try:
        at = _read(before).header["at"]
    except CheckpointError:
        return "no whole one is left: remove it, or name another file, to begin anew"
    return f"the one before it is whole, {at}: rename {before.name} to {path.name} to go on from there"


def write(path: Path, stored: Stored) -> None:
    """Write a checkpoint; what was the last one becomes the previous one."""
    unfinished = _next(path)
    header = json.dumps({"format": FORMAT, **stored.header}, indent=1)
    texts = {"header": header, "checksum": _checksum(header, stored.arrays)}
    try:
        try:
            _remove(unfinished)
            if path.suffix.lower() == ".zarr":
                _write_zarr(unfinished, stored.arrays, texts)
            else:
                write_through(unfinished, archive(path.suffix.lower(), stored.arrays, texts))
            sync_folder(path.parent)
            if path.exists():
                if path.is_dir():
                    _remove(previous(path))
                path.replace(previous(path))
            unfinished.rename(path)
            sync_folder(path.parent)
        except BaseException:
            if path.exists():
                _remove(unfinished)
            raise
    except OSError as error:
        intact = "; the last checkpoint is intact" if path.exists() else ""
        msg = f"{path}: cannot be written: {error.strerror or error}{intact}"
        raise CheckpointError(msg) from error


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _read(path: Path) -> Stored:
    """A checkpoint that is whole."""
    if path.suffix.lower() != ".zarr" and path.is_dir():
        msg = f"{path}: is a directory, not a checkpoint"
        raise CheckpointError(msg)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what readers make of damaged files
            if path.suffix.lower() == ".zarr":
                arrays, texts = _read_zarr(path)
            else:
                with opened(path, SUFFIXES):
                    arrays, texts = read_archive(path)
    except ImportError:
        raise
    except Exception as error:
        msg = f"{path}: is damaged, or no checkpoint ({str(error).removeprefix(f'{path}: ')})"
        raise CheckpointError(msg) from error
    if not {"header", "checksum"} <= set(texts):
        msg = f"{path}: is no checkpoint"
        raise CheckpointError(msg)
    if _checksum(texts["header"], arrays) != texts["checksum"]:
        msg = f"{path}: is damaged (its checksum does not fit)"
        raise CheckpointError(msg)
    header = json.loads(texts["header"])
    if header["format"] != FORMAT:
        msg = f"{path}: is a checkpoint of nmf_xp {header['nmf_xp']}, in a format that this version does not read"
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
    group = optional_module("zarr", "files").open_group(str(path), mode="w", attributes=texts)
    for name, array in arrays.items():
        group.create_array(name, data=array, compressors=None)
    for folder, _, names in os.walk(path):
        for name in names:
            with open(os.path.join(folder, name), "rb") as file:  # noqa: PTH118, PTH123
                os.fsync(file.fileno())


def _read_zarr(path: Path) -> tuple[dict[str, HostArray], dict[str, str]]:
    group = optional_module("zarr", "files").open_group(str(path), mode="r")
    stored = dict(group.arrays())
    for array in stored.values():
        check_codecs(array)
    return {name: array[...] for name, array in stored.items()}, dict(group.attrs)
