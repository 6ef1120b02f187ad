"""Matrices from files, and factors into files.

A reader says what is wrong with a file, and where. A writer leaves either the whole new file or what was there before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nmf_xp.files.archives import archive, read_archive, read_npz
from nmf_xp.files.cells import MISSING
from nmf_xp.files.matrix import Matrix
from nmf_xp.files.opening import FileError, check_fits, in_line, listed, opened, optional_module, printable, stem_of
from nmf_xp.files.reading import IMAGES, INPUTS, read_matrix
from nmf_xp.files.replacing import write_atomically
from nmf_xp.files.row_labels import LABELS, read_labels, read_observed
from nmf_xp.files.writing import (
    EFFECTS,
    FOLDER,
    OUTPUTS,
    check_folder,
    check_output,
    factors_at,
    is_folder,
    write_factors,
    write_table,
)

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    HostArray = np.ndarray[Any, Any]

__all__ = [
    "EFFECTS",
    "FOLDER",
    "IMAGES",
    "INPUTS",
    "LABELS",
    "MISSING",
    "OUTPUTS",
    "FileError",
    "Matrix",
    "archive",
    "check_folder",
    "check_output",
    "factors_at",
    "in_line",
    "is_folder",
    "opened",
    "optional_module",
    "printable",
    "read_archive",
    "read_factors",
    "read_labels",
    "read_matrix",
    "read_observed",
    "stem_of",
    "write_atomically",
    "write_factors",
    "write_table",
]


def read_factors(path: Path) -> tuple[HostArray, HostArray]:
    """The arrays W and H of a file that `write_factors` wrote, or of another .npz or .safetensors file."""
    with opened(path, OUTPUTS) as suffix:
        if suffix == ".npz":
            return read_npz(path, "W"), read_npz(path, "H")
        check_fits(path, "what it holds", path.stat().st_size)
        found = optional_module("safetensors.numpy", "files").load_file(path)
        for name in ("W", "H"):
            if name not in found:
                msg = f"{path}: holds no array {name!r}, only {listed(found)}"
                raise FileError(msg)
        return found["W"], found["H"]
