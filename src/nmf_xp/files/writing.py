"""Output files: whether one can be written is found out before the work, and it is written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nmf_xp.files.archives import archive
from nmf_xp.files.opening import FileError, optional_module

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np

    HostArray = np.ndarray[Any, Any]

OUTPUTS = (".npz", ".safetensors")


def check_output(path: Path, *, suffixes: Sequence[str] = OUTPUTS, force: bool) -> None:
    """Find out before the work that a file can be written after it."""
    if path.suffix.lower() not in suffixes:
        msg = f"{path}: the suffix {path.suffix!r} is none of {', '.join(suffixes)}"
        raise FileError(msg)
    try:
        if path.is_dir():
            msg = f"{path}: is a directory, not a file"
            raise FileError(msg)
        if path.exists() and not force:
            msg = f"{path}: exists already; say --force to replace it"
            raise FileError(msg)
    except OSError as error:
        msg = f"{path}: cannot be written: {error.strerror or error}"
        raise FileError(msg) from error
    check_folder(path)
    if path.suffix.lower() == ".safetensors":
        optional_module("safetensors.numpy", "files")


def check_folder(path: Path) -> None:
    """Find out whether a file of this name can be made."""
    try:
        with tempfile.TemporaryFile(dir=path.resolve().parent):
            pass
    except OSError as error:
        msg = f"{path}: cannot be written: {error.strerror or error}"
        raise FileError(msg) from error


def write_factors(path: Path, arrays: dict[str, HostArray], settings: dict[str, str]) -> None:
    """Write arrays and settings to .npz or .safetensors: wholly, or not at all."""
    write_atomically(path, archive(path.suffix.lower(), arrays, settings))


def write_atomically(path: Path, write: Callable[[Any], Any]) -> None:
    """Write beside `path`, flush to the disk, and only then take the name of `path`; a link stays a link."""
    try:
        target = path.resolve()
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=".nmf-xp-")
        try:
            write_through(descriptor, write)
            Path(name).chmod(0o666 & ~_umask())
            Path(name).replace(target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        sync_folder(target.parent)
    except OSError as error:
        msg = f"{path}: cannot be written: {error.strerror or error}"
        raise FileError(msg) from error


def write_through(file: Path | int, write: Callable[[Any], Any]) -> None:
    """Write a file, by its path or descriptor, through to the disk."""
    with open(file, "wb") as stream:  # noqa: PTH123
        write(stream)
        stream.flush()
        os.fsync(stream.fileno())


def sync_folder(folder: Path) -> None:
    """Make the names in a folder last, where the system lets a folder be flushed."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _umask() -> int:
    """The process's umask, which can be read only by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
