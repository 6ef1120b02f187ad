"""Labels of a matrix's rows: one a line in a text, or a column of AnnData's obs."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

from nmf_xp.arrays import memory
from nmf_xp.data.outside import Within
from nmf_xp.data.stores import names_in
from nmf_xp.data.unfolding import check_stored
from nmf_xp.files.opening import FileError, check_fits, listed, opened, optional_module

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

LABELS = {".txt": "\t", ".csv": ",", ".tsv": "\t"}
MISSING = {"", "NA"}  # cells without a label
BYTES = 64  # that a label takes at least, as a line of cells


def read_labels(path: Path, count: int, names: Sequence[str] | None) -> list[str]:
    """The labels of so many rows: one a line in their order, or in each line a row's name and its label.

    Names are looked up in those of the rows; lines with other names, such as a heading, are left out.
    """
    with opened(path, tuple(LABELS)) as suffix:
        lines = _lines(path, LABELS[suffix])
        widths = set(map(len, lines))
        if not widths <= {1} and not widths <= {2}:
            msg = f"{path}: must have in each line one label, or a row's name and its label"
            raise FileError(msg)
        if widths == {2}:
            labels = _by_name(path, [(cells[0], cells[1]) for cells in lines], names)
        else:
            labels = [cells[0] for cells in lines]
            if len(labels) != count:
                remedy = "; leave out the heading, if the first line is one" if len(labels) == count + 1 else ""
                msg = f"{path}: holds {len(labels)} labels for {count} rows{remedy}"
                raise FileError(msg)
        lacking = [i for i, label in enumerate(labels) if label in MISSING]
        if lacking:
            msg = f"{path}: has no label for row {lacking[0]}, counted from 0; name those that are unknown"
            raise FileError(msg)
    return labels


def _lines(path: Path, separator: str) -> list[list[str]]:
    """The cells of all lines, of which none but the last ones may be empty."""
    check_fits(path, "its labels", BYTES * path.stat().st_size)
    lines: list[list[str]] = []
    empty = None
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, delimiter=separator, strict=True)
        try:
            for row in reader:
                if row and empty is not None:
                    msg = f"{path}: line {empty} is empty; write a label of its own where none is known"
                    raise FileError(msg)
                if any(c in cell for cell in row for c in "\n\r\0"):
                    msg = f"{path}: line {reader.line_num}: a label is one line of text; close its quotes"
                    raise FileError(msg)
                if row:
                    lines.append([cell.strip() for cell in row])
                else:
                    empty = empty or reader.line_num
        except csv.Error as error:
            msg = f"{path}: line {reader.line_num} cannot be read: {error}; see whether its quotes are closed"
            raise FileError(msg) from error
    return lines


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
    """A column of obs of an .h5ad file, as text; each row must have a value."""
    with opened(path, (".h5ad",)):
        h5py = optional_module("h5py", "files")
        with h5py.File(path, "r") as file:
            obs = Within(h5py, file)["obs"]
            if not isinstance(obs, Within):
                msg = (
                    f"{path}: its obs is stored as records, of which no column is read; write the labels to a text file"
                )
                raise FileError(msg)
            known = names_in(obs)
            if column not in known:
                msg = f"{path}: its obs holds no {column!r}, only {listed(known)}"
                raise FileError(msg)
            values = _values(h5py, obs[column], column)
    if None in values:
        msg = f"{path}: obs/{column} has no value for row {values.index(None)}, counted from 0; name the unknown ones"
        raise FileError(msg)
    return list(map(str, values))


def _values(h5py: Any, stored: Any, column: str) -> list[Any]:
    """Texts, numbers or categories along one axis, None for what is missing."""
    if isinstance(stored, Within) and "codes" in stored and "categories" in stored:
        categories, codes = (_values(h5py, stored[name], column) for name in ("categories", "codes"))
        return [categories[x] if type(x) is int and 0 <= x < len(categories) else None for x in codes]
    if not hasattr(stored, "dtype") or len(stored.shape) != 1:
        msg = f"obs/{column} holds no text, numbers or categories along one axis"
        raise ValueError(msg)
    if BYTES * int(stored.shape[0]) > memory.available():
        msg = f"obs/{column} declares {stored.shape[0]} labels, which do not fit in memory"
        raise ValueError(msg)
    if h5py.check_string_dtype(stored.dtype):
        return list(stored.asstr()[:].tolist())
    if stored.dtype.kind not in "biuf":
        msg = f"obs/{column} must hold text or numbers, got dtype {stored.dtype}"
        raise ValueError(msg)
    check_stored(stored)
    return [None if value != value else value for value in stored[:].tolist()]
