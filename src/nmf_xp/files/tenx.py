"""What the programs of 10x Genomics write, .h5 and folders: the matrix that is given has the cells in rows.

In both, features (genes) stand in rows.
"""

from __future__ import annotations

import collections
import itertools
from typing import TYPE_CHECKING, Any

from nmf_xp.data import stores
from nmf_xp.data.chunks import part
from nmf_xp.data.sources import RowBlocks
from nmf_xp.files.gz import text_of
from nmf_xp.files.labels import labels
from nmf_xp.files.market import read_market
from nmf_xp.files.matrix import Matrix
from nmf_xp.files.opening import FileError, check_fits

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOTE = "counts of 10x, turned: cells in rows, features (genes) in columns"
PARTS = {
    "matrix": ("matrix.mtx", "matrix.mtx.gz"),
    "barcodes": ("barcodes.tsv", "barcodes.tsv.gz"),
    "features": ("features.tsv", "features.tsv.gz", "genes.tsv", "genes.tsv.gz"),
}
"""The files in a folder, each by the first of its names that is there."""
KINDS = "features/feature_type"  # such as genes, antibodies or guides
LONGEST = 2**16  # characters of a line with names
NAME = 200  # bytes that such a line takes


def groups_of(root: Any) -> list[str]:
    """The groups of an HDF5 file that hold counts of 10x: one, or before their version 3 one for each genome."""
    if hasattr(root, "dtype"):
        return []
    names = stores.names_in(root)
    groups = {name: root[name] for name in names[: stores.LISTED] if name in root and not hasattr(root[name], "dtype")}
    return [name for name, group in groups.items() if all(part in group for part in ("barcodes", "indptr", "shape"))]


def read_tenx(root: Any, groups: list[str], key: str | None) -> Matrix:
    """The counts in an .h5 file, by cells; `key` is the group of a genome, or a kind of features."""
    if key not in groups and len(groups) > 1:
        what = f"it holds {', '.join(groups)}; say which one with --key"
        msg = what if key is None else f"it holds no {key!r}, only {', '.join(groups)}"
        raise ValueError(msg)
    group = root[key if key in groups else groups[0]]
    declared = group["shape"]
    if getattr(declared, "shape", None) != (2,) or declared.dtype.kind not in "iu":
        msg = "it is damaged: its shape is no two integers"
        raise ValueError(msg)
    features, cells = (int(length) for length in part(declared))
    stored = stores.read_rows(group, stores.shape_of((cells, features)))
    place = next((place for place in ("features/name", "gene_names", "genes", "features/id") if place in group), None)
    names = None if place is None else labels(group[place], features, "features")
    note = ", ".join(filter(None, (NOTE, stored.note)))
    kinds = labels(group[KINDS], features, "features") if KINDS in group else []
    matrix = Matrix(stored.values, labels(group["barcodes"], cells, "barcodes"), names, note)
    return _of_kind(matrix, kinds, None if key in groups else key)


def _of_kind(matrix: Matrix, kinds: list[str], key: str | None) -> Matrix:
    """The columns of one kind, such as genes; where there are several kinds and none is asked for, which they are."""
    counts = collections.Counter(kinds)
    listed = ", ".join(f"{kind} ({count})" for kind, count in counts.items())
    if key is None:
        several = f"{matrix.note}; features of several kinds: {listed}; --key takes one of them"
        return matrix._replace(note=several) if len(counts) > 1 else matrix
    if key not in counts:
        msg = f"it holds no features of the kind {key!r}, only {listed or 'of one kind'}"
        raise ValueError(msg)
    if isinstance(matrix.values, RowBlocks):
        msg = "it does not fit in memory, and is read block by block, with features of all kinds; leave --key out"
        raise ValueError(msg)
    places = [j for j, kind in enumerate(kinds) if kind == key]
    names = None if matrix.column_names is None else [matrix.column_names[j] for j in places]
    return matrix._replace(values=matrix.values[:, places], column_names=names, note=f"{matrix.note}; {key} only")


def read_folder(path: Path, key: str | None) -> Matrix:
    """The counts in a folder with a file of entries, and one each with the names of cells and of features."""
    found = {name: next((path / one for one in names if (path / one).exists()), None) for name, names in PARTS.items()}
    matrix, barcodes, features = found["matrix"], found["barcodes"], found["features"]
    if matrix is None:
        msg = f"{path}: is a directory, not a file; of folders .zarr are read, and those of 10x, with a matrix.mtx"
        raise FileError(msg)
    for file in filter(None, found.values()):
        if not file.is_file() or file.resolve().parent != path.resolve():
            msg = f"{file}: leads out of its folder, or is no file; copy it into the folder"
            raise FileError(msg)
    entries = read_market(matrix)
    m, n = entries.shape
    row_names = None if features is None else _names(features, column=1)
    column_names = None if barcodes is None else _names(barcodes, column=0)
    lengths = tuple(None if names is None else len(names) for names in (row_names, column_names))
    by_cells = lengths == (n, m) and m != n  # as other programs write it
    wanted = (n, m) if by_cells else (m, n)
    for place, count, length, what in zip((features, barcodes), lengths, wanted, ("features", "cells"), strict=True):
        if count not in (None, length):
            msg = f"{place}: holds {count} names, and the matrix has {length} {what}"
            raise FileError(msg)
    turned = entries if by_cells else entries.T
    values = _by_rows(turned) if hasattr(turned, "tocsr") else turned
    note = NOTE.replace("turned: ", "") if by_cells else NOTE
    return _of_kind(Matrix(values, column_names, row_names, note), [] if features is None else _kinds(features), key)


def _by_rows(entries: Any) -> Any:
    """Compressed rows; of entries that are in the order of the rows, as 10x writes them, in the same memory."""
    import numpy as np
    from scipy.sparse import csr_array

    if not (entries.row[1:] >= entries.row[:-1]).all():
        return csr_array(entries)
    starts = np.searchsorted(entries.row, np.arange(entries.shape[0] + 1, dtype=entries.row.dtype))
    rows = csr_array((entries.data, entries.col, starts), shape=entries.shape)
    rows.sum_duplicates()
    return rows


def _names(path: Path, column: int) -> list[str]:
    """The names in one column of a file, or in its only one."""
    with text_of(path) as file:
        return [line.split("\t")[min(column, line.count("\t"))] for line in _lines(path, file)]


def _kinds(path: Path) -> list[str]:
    """The kind of each feature, from the third column of a file; none where a line has no such column."""
    with text_of(path) as file:
        cells = [line.split("\t") for line in _lines(path, file)]
    return [line[2] for line in cells] if min(map(len, cells), default=0) > 2 else []


def _lines(path: Path, file: Any) -> Iterator[str]:
    for n in itertools.count(1):
        line = file.readline(LONGEST)
        if not line:
            return
        if b"\0" in line or (len(line) == LONGEST and not line.endswith(b"\n")):
            msg = f"{path}: line {n} is no line of names: it holds a NUL character, or is longer than {LONGEST} bytes"
            raise FileError(msg)
        if n % LONGEST == 0:
            check_fits(path, "the names in it", float(NAME * n))
        yield line.decode("utf-8", "replace").rstrip("\r\n")
