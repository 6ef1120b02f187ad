"""Output files: whether one can be written is found out before the work, and it is written whole or not at all."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

from nmf_xp.files.archives import archive
from nmf_xp.files.opening import FileError, optional_module, printable
from nmf_xp.files.replacing import check_place, target_of, write_atomically

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np

    HostArray = np.ndarray[Any, Any]

OUTPUTS = (".npz", ".safetensors")
FORMULAS = (
    "=",
    "+",
    "-",
    "@",
    "\t",
    "\N{FULLWIDTH EQUALS SIGN}",
    "\N{FULLWIDTH PLUS SIGN}",
    "\N{FULLWIDTH COMMERCIAL AT}",
)
"""How names begin that a spreadsheet takes for a formula."""


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


FOLDER = ("factors.npz", "W.csv", "H.csv")
"""What a folder of factors holds."""
EFFECTS = "batch_effects.csv"
"""What it holds besides for a model with batches."""


def factors_at(path: Path) -> Path:
    """The file of factors: the path itself, or what it holds where it is such a folder."""
    inside = path / FOLDER[0]
    return inside if inside.exists() else path


def is_folder(path: Path) -> bool:
    """Whether an output is to be a folder: one that is there, or a name without a suffix, and none of a file."""
    return path.suffix.lower() not in OUTPUTS and (path.is_dir() or not path.suffix)


def check_folder(path: Path, *, force: bool, batches: bool = False) -> None:
    """Find out before the work that a folder of factors can be written after it."""
    if path.is_dir():
        for name in (*FOLDER, EFFECTS) if batches else FOLDER:
            check_output(path / name, suffixes=None, force=force)
        if not batches and (path / EFFECTS).exists():
            msg = f"{path / EFFECTS}: is of a fit with batches, unlike this one; remove it, or name another folder"
            raise FileError(msg)
        return
    if path.exists():
        msg = f"{path}: is a file, not a folder; give a suffix, {' or '.join(OUTPUTS)}, or name a folder"
        raise FileError(msg)
    check_place(path)


def write_table(path: Path, rows: Sequence[str], columns: Sequence[str], values: HostArray, *, replace: bool) -> None:
    """Write a matrix as .csv with names of its rows and columns: wholly, or not at all."""

    def write(file: Any) -> None:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["", *map(_as_text, columns)])
        table.writerows([_as_text(name), *map(repr, row)] for name, row in zip(rows, values.tolist(), strict=True))
        text.detach()

    write_atomically(path, write, replace=replace)


def _as_text(name: str) -> str:
    """A name that no spreadsheet takes for a formula, that ends no line, and that no terminal obeys."""
    name = printable(" ".join(str(name).splitlines()))
    return f"'{name}" if name.lstrip().startswith(FORMULAS) else name


def write_factors(path: Path, arrays: dict[str, HostArray], settings: dict[str, str], *, replace: bool = True) -> None:
    """Write arrays and settings to .npz or .safetensors: wholly, or not at all."""
    write_atomically(path, archive(path.suffix.lower(), arrays, settings), replace=replace)
