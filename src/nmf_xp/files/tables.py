"""Tables of numbers with names or without, of text and of spreadsheets alike.

Nothing of a table is left out in silence. A line or column holds names where all of it is text; one bad cell is an
error that says where it is.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from nmf_xp.files.cells import Wrong
from nmf_xp.files.headers import is_corner, is_header
from nmf_xp.files.matrix import Matrix
from nmf_xp.files.opening import FileError

if TYPE_CHECKING:
    from nmf_xp.files.cells import Grid, HostArray
    from nmf_xp.files.matrix import Asked

SIGPROFILER = ("MutationType", "Mutation Types")  # how the first line of its matrices begins
COMMA = re.compile(r"[-+]?\d*,\d+")
SEPARATED = re.compile(r"\d[,;\t]\s*[-+.\d]")


def matrix_of(grid: Grid, asked: Asked, separated: str) -> Matrix:
    """The matrix of a table, in which names are found unless it is said where they are.

    `separated` says in words what separates its cells.
    """
    path, first = grid.path, grid.first
    if not grid.first_line:
        msg = f"{path}: the file is empty"
        raise FileError(msg)
    known = grid.first[0] in SIGPROFILER
    header, index = ((known or None) if said is None else said for said in (asked.header, asked.index))
    corner = is_corner(grid, header=header, index=index)
    if header is None:
        header = corner or is_header(grid)
    if header and not grid.width:
        msg = f"{path}: holds a row of names and nothing below it"
        raise FileError(msg)
    width = grid.width if header else len(first)
    column = grid.column if header else [first[0], *grid.column]
    if index is None:
        index = corner or ((header or len(first) == grid.width or not grid.width) and grid.numbers.are_names(column))
    if width == index or (width == 1 and column and all(map(SEPARATED.search, column))):
        msg = f"{path}: holds one column, of names; cells must be separated by {separated}, or say --sep"
        raise FileError(msg)
    if header and len(first) not in (width, width - index):
        remedy = "; say --index if the first column holds row names" if len(first) == width - 1 else ""
        what = f"line {grid.first_line} has {len(first)} names for the {width - index} columns below it"
        msg = f"{path}: {what}{remedy}"
        raise FileError(msg)
    if header and index and not (first[0] or column[0]) and len(first) == width and None in (asked.header, asked.index):
        msg = (
            f"{path}: lines {grid.first_line} and {grid.second_line} both begin with an empty cell; leave one out if "
            "both hold column names, or say --header and --index if a row has no name"
        )
        raise FileError(msg)
    values = _values(grid, asked, header=header, index=index)
    if values[0, 0] != values[0, 0] and not (values == values).any():
        msg = f"{path}: holds no number, only names and what is missing"
        raise FileError(msg)
    names = [name for name, there in (("column names", header), ("row names", index)) if there]
    note = f"a table with {' and '.join(names)}" if names else "a table without names"
    if header and index and known:
        note = "a matrix of SigProfiler, with mutation types as its row names and samples as its column names"
    columns = first[len(first) - width + index :] if header else None
    return Matrix(values, column if index else None, columns, note)


def _values(grid: Grid, asked: Asked, *, header: bool, index: bool) -> HostArray:
    """The numbers, of which each line has as many, and no cell is anything else."""
    import numpy as np

    width = len(grid.first)
    ragged = grid.ragged
    if not header and grid.width not in (0, width):
        ragged = grid.second_line, grid.width
    if ragged is not None:
        line, cells = ragged
        msg = f"{grid.path}: line {line} has {cells} cells, the lines above it have {grid.width if header else width}"
        raise FileError(msg)
    wrong = None if header else _wrong_in_first(grid, index=index)
    wrong = wrong or min(filter(None, (None if index else grid.at_left, grid.inside)), default=None)
    if wrong is not None:
        raise _refusal(grid, asked, wrong)
    if header:
        return np.ascontiguousarray(grid.values(index=index))
    values = np.empty((grid.lines + 1, width - index))
    values[0] = [grid.numbers.of(cell) for cell in grid.first[int(index) :]]
    if grid.lines:
        values[1:] = grid.values(index=index)
    return values


def _wrong_in_first(grid: Grid, *, index: bool) -> Wrong | None:
    """The first bad cell of a first line that holds no names."""
    for j, cell in enumerate(grid.first[int(index) :], int(index) + 1):
        why = grid.numbers.wrong(cell)
        if why is not None:
            return Wrong(grid.first_line, j, cell, why)
    return None


def _refusal(grid: Grid, asked: Asked, wrong: Wrong) -> FileError:
    """What is wrong with a cell, and what to say if it is a name after all."""
    remedy = ""
    if wrong.line == grid.first_line and asked.header is None:
        remedy += "; say --header if this line holds names"
    if wrong.column == 1 and asked.index is None:
        remedy += "; say --index if this column holds names"
    if asked.decimal is None and COMMA.fullmatch(wrong.cell):
        remedy = f"{remedy}; say --decimal , if its comma stands before decimal places"
    return FileError(f"{grid.path}: line {wrong.line}, column {wrong.column}: {wrong.cell!r} {wrong.why}{remedy}")
