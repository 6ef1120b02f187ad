"""Output files: whether one can be written is found out before the work, and it is written whole or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nmf_xp.files.archives import archive
from nmf_xp.files.opening import FileError, optional_module
from nmf_xp.files.replacing import check_place, target_of, write_atomically

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np

    HostArray = np.ndarray[Any, Any]

OUTPUTS = (".npz", ".safetensors")


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
