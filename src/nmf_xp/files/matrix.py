"""What a reader is asked, and what it gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple


class Matrix(NamedTuple):
    """A matrix from a file: a NumPy or SciPy sparse array, or row blocks, with names where the file has them."""

    values: Any
    row_names: list[str] | None = None
    column_names: list[str] | None = None
    note: str | None = None  # what the reader made of the file, where the file leaves a choice


@dataclass(frozen=True)
class Asked:
    """What is said of a file; None where its reader finds out."""

    key: str | None = None  # the array, sheet, layer or picture to take
    header: bool | None = None  # whether the first line of a table holds column names
    index: bool | None = None  # whether its first column holds row names
    sep: str | None = None  # what separates its cells
    decimal: str | None = None  # what stands before its decimal places
