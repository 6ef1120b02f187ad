"""Matrices in Matrix Market files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nmf_xp.files.opening import check_fits, optional_module

if TYPE_CHECKING:
    from pathlib import Path


def read_market(path: Path) -> Any:
    """A dense or sparse matrix, whose size is held against the memory before it is made."""
    scipy_io = optional_module("scipy.io", "files")
    m, n, entries, layout, _, symmetry = scipy_io.mminfo(path)
    stored = (1 if symmetry == "general" else 2) * entries
    bytes_ = 8.0 * m * n if layout == "array" else 24.0 * stored + 8.0 * (m + n)  # an entry has two indices
    check_fits(path, f"its {m} x {n} matrix", bytes_)
    return scipy_io.mmread(path)
