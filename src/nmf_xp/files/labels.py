"""Labels of a matrix's rows: one a line in a text, or a column of AnnData's obs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nmf_xp.data import stores
from nmf_xp.files.opening import FileError, listed, opened, optional_module
from nmf_xp.files.tables import MISSING, lines_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

LABELS = {".txt": "\t", ".csv": ",", ".tsv": "\t"}


def read_labels(path: Path, count: int, names: Sequence[str] | None) -> list[str]:
    """The labels of so many rows: one a line in their order, or in each line a row's name and its label.

    Names are looked up in those of the rows; lines with other names, such as a heading, are left out.
    """
    with opened(path, tuple(LABELS)) as suffix:
        lines = lines_of(path, LABELS[suffix])
        widths = {len(cells) for _, cells in lines}
        if not widths <= {1} and not widths <= {2}:
            msg = f"{path}: must have in each line one label, or a row's name and its label"
            raise FileError(msg)
        if widths == {2}:
            labels = _by_name(path, [(cells[0], cells[1]) for _, cells in lines], names)
        else:
            labels = [cells[0] for _, cells in lines]
            if len(labels) != count:
                remedy = "; leave out the heading, if the first line is one" if len(labels) == count + 1 else ""
                msg = f"{path}: holds {len(labels)} labels for {count} rows{remedy}"
                raise FileError(msg)
        lacking = [i for i, label in enumerate(labels) if label in MISSING]
        if lacking:
            msg = f"{path}: has no label for row {lacking[0]}, counted from 0; name those that are unknown"
            raise FileError(msg)
    return labels


def _by_name(path: Path, pairs: list[tuple[str, str]], names: Sequence[str] | None) -> list[str]:
    """The labels in the order of the rows' names."""
    if names is None:
        msg = f"{path}: holds names of rows, which the matrix does not have; give one label a line, in its order"
        raise FileError(msg)
    found = dict(pairs)
    if any(found[name] != label for name, label in pairs):
        twice = next(name for name, label in pairs if found[name] != label)
        msg = f"{path}: has different labels for the row {twice!r}"
        raise FileError(msg)
    lacking = [repr(name) for name in names if name not in found]
    if lacking:
        msg = f"{path}: has no label for the rows {listed(lacking)}"
        raise FileError(msg)
    return [found[name] for name in names]


def read_observed(path: Path, column: str) -> list[str]:
    """A column of obs of an .h5ad file, as text."""
    with opened(path, (".h5ad",)):
        return stores.read_observed(optional_module("h5py", "files"), path, column)
