"""Tables of numbers in text, with names or without.

Nothing of a table is left out in silence. A line or column holds names where all of it is text; one bad cell is an
error that says where it is.
"""

from __future__ import annotations

import csv
import itertools
import math
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.files.opening import FileError, check_fits, pieces

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    HostArray = np.ndarray[Any, Any]

MISSING = {"", "NA"}  # cells that are read as NaN: what spreadsheets and R write
MARKS = {
    *("n/a", "n.a.", "<na>", "nat", "null", "none", "nil", "-", "--", "?", ".", "..", "*"),
    *("\N{EN DASH}", "\N{EM DASH}", "\N{MINUS SIGN}", "n.d.", "nd", "n/d", "b.d.", "bdl", "<lod", "<loq"),
    *("#n/a", "#na", "#ref!", "#value!", "#div/0!", "#name?", "#num!", "#null!", "#spill!", "#calc!"),
}
"""What programs and people write where there is no number, in lower case."""
BEFORE = r"[-+(~=<>$\u20ac\u00a3\u00a5\u00b1\u2010-\u2015\u2212\u2248\u2264\u2265]*"
AFTER = r"[%)*?$\u20ac\u00a3\u00a5\u2020\u2030]*"
EXPONENT = r"(\s*([eEdD]|[x*\u00d7]\s*10\^?)\s*[-+\u2212]?\d+)?"
SPOILT = re.compile(rf"{BEFORE}\s*[.,]?\d([\d\s.,'\u2019\u00b1]|_\d{{3}}\b)*{EXPONENT}\s*{AFTER}|0[xX][0-9a-fA-F]+")
"""Numbers that float does not read: of other countries and programs, with bounds, units of money and footnotes."""
FAR = 10  # times the largest entry: above it the numbers of a first line are not like the entries
CELL, LINE = 64, 200  # bytes that Python takes for a cell with a number, and for a line

Lines = list[tuple[int, list[str]]]  # the cells of each line, with its number in the file


class Table(NamedTuple):
    """The numbers of a table, the names it has, and what was found."""

    values: HostArray
    row_names: list[str] | None
    column_names: list[str] | None
    note: str


class Guessed(NamedTuple):
    """What nobody said of a table: that the line of this number holds no names, and the first column none."""

    line: int | None  # the first line's number; None where it was said
    column: bool


def read_table(path: Path, separator: str, *, header: bool | None, index: bool | None) -> Table:
    """A table, in which names are found unless it is said where they are."""
    check_fits(path, "its table", _memory(path, separator))
    lines = _lines(path, separator)
    if not lines:
        msg = f"{path}: the file is empty"
        raise FileError(msg)
    number, first = lines[0]
    guessed = Guessed(number if header is None else None, index is None)
    corner = _is_corner(path, lines, header=header, index=index)
    if header is None:
        header = corner or _is_header(first, [row for _, row in lines[1:]])
    names = lines.pop(0)[1] if header else None
    if not lines:
        msg = f"{path}: holds a row of names and nothing below it"
        raise FileError(msg)
    width = len(lines[0][1])
    if index is None:
        index = corner or _are_names([row[0] for _, row in lines])
    if width == index or (width == 1 and all(re.search(r"\d[,;\t]\s*[-+.\d]", row[0]) for _, row in lines)):
        separators = "commas" if separator == "," else "tabs"
        msg = f"{path}: holds one column, of names; cells must be separated by {separators}"
        raise FileError(msg)
    if names is not None and len(names) == width:
        names = names[index:]
    elif names is not None and len(names) != width - index:
        remedy = "; say --index if the first column holds row names" if len(names) == width - 1 else ""
        msg = f"{path}: line {number} has {len(names)} names for the {width - index} columns below it{remedy}"
        raise FileError(msg)
    found = [name for name, there in (("column names", header), ("row names", index)) if there]
    note = f"a table with {' and '.join(found)}" if found else "a table without names"
    row_names = [row[0] for _, row in lines] if index else None
    return Table(_numbers(path, lines, width, skip=int(index), guessed=guessed), row_names, names, note)


def _memory(path: Path, separator: str) -> int:
    """About the bytes that a table takes while it is read, as text in its cells: far more than in the file."""
    bytes_ = 0
    for piece in pieces(path):
        ends = piece.count(b"\n")
        bytes_ += 2 * len(piece) + CELL * (piece.count(separator.encode()) + ends) + LINE * ends
    return bytes_


def _lines(path: Path, separator: str) -> Lines:
    """The cells of all lines that are not empty; none of them goes on over the end of its line."""
    lines: Lines = []
    empty = None
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, delimiter=separator, strict=True)
        while True:
            n = reader.line_num + 1
            try:
                row = next(reader, None)
            except csv.Error as error:
                msg = f"{path}: line {n} cannot be read: {error}; see whether its quotes are closed"
                raise FileError(msg) from error
            if row is None:
                return lines
            if not row:
                empty = empty or (n if lines else None)
                continue
            if len(row) == 1 and empty is not None:
                msg = f"{path}: line {empty} is empty; write NA if the number is missing, or leave the line out"
                raise FileError(msg)
            for j, cell in enumerate(row):
                if "\n" in cell or "\r" in cell:
                    msg = (
                        f"{path}: line {n}, column {j + 1}: the cell goes on over the end of the line; close its quotes"
                    )
                    raise FileError(msg)
                if "\0" in cell:
                    msg = f"{path}: line {n}, column {j + 1}: holds a NUL character; save the table as text in UTF-8"
                    raise FileError(msg)
            lines.append((n, [cell.strip() for cell in row]))


def _is_corner(path: Path, lines: Lines, *, header: bool | None, index: bool | None) -> bool:
    """Whether the table begins with an empty cell between both kinds of names, as spreadsheets, pandas and R write it.

    Names that are numbers may as well be entries, of which the first one is missing: then it has to be said.
    """
    (n, (first, *rest)), *below = lines
    if first or not rest or header is False or index is False:
        return False
    column = [row[0] for _, row in below]
    if header or index or not column or _are_names(rest):
        return bool(column)
    if not _are_distinct_numbers(rest):
        return False
    if _are_names(column):
        return True
    if not _are_distinct_numbers(column):
        return False
    counts = [[float(cell) for cell in cells] == list(range(len(cells))) for cells in (rest, column)]
    if all(counts) or (counts[0] and len(rest) > 2) or (counts[1] and len(column) > 2):  # as pandas numbers them
        return True
    msg = (
        f"{path}: line {n}, column 1 is empty; say --header and --index if its line and column hold names, "
        "or --no-header and --no-index if its number is missing"
    )
    raise FileError(msg)


def _is_header(first: list[str], below: list[list[str]]) -> bool:
    """Whether a table's first line holds names: all of its cells are text, or its numbers look like names."""
    over_names = bool(below) and _are_names([row[0] for row in below])
    if over_names and all(len(row) == len(first) + 1 for row in below):
        return _are_names(first) or _are_distinct_numbers(first)
    cells = first[1:] if over_names and len(first) > 1 else first
    if _are_names(cells):
        return True
    return over_names and _is_text(first[0]) and _are_labels(first, below)


def _are_labels(first: list[str], below: list[list[str]]) -> bool:
    """Whether a line of numbers over a table with row names holds column names: wavelengths, years, doses.

    They are distinct. What stands before them is unlike all row names, as `id` is unlike `s1`, or they are evenly
    spaced as no line below is, or all far above the entries.
    """
    if not _are_distinct_numbers(first[1:]):
        return False
    if _form(first[0]) not in {_form(row[0]) for row in below}:
        return True
    rows = [[float(cell) for cell in row[1:] if cell not in MISSING and _is_number(cell)] for row in below]
    numbers = [float(cell) for cell in first[1:]]
    if _evenly_spaced(numbers) and not any(map(_evenly_spaced, rows)):
        return True
    return min(numbers) > FAR * max((abs(x) for row in rows for x in row), default=0.0)


def _form(name: str) -> str:
    """The kinds of characters of a name: `s1` and `s24` are of one form, as are `TP53` and `BRCA1`."""
    return re.sub(r"[^\W\d_]+", lambda letters: "A" if letters[0].isupper() else "a", re.sub(r"\d+", "0", name))


def _evenly_spaced(numbers: list[float]) -> bool:
    """Whether there are three numbers or more, each by the same step from the one before it."""
    steps = [b - a for a, b in itertools.pairwise(numbers)]
    return len(steps) > 1 and steps[0] != 0 and all(math.isclose(step, steps[0], rel_tol=1e-6) for step in steps)


def _are_names(cells: list[str]) -> bool:
    """Whether all cells are text, and not all of them numbers that were spoilt or marks of what is missing.

    A single one that begins as a number does is a number with a slip of the pen.
    """
    if not cells or not all(map(_is_text, cells)):
        return False
    if len(cells) == 1 and re.match(r"[-+.]?\d", cells[0]):
        return False
    return not all(cell.lower() in MARKS or SPOILT.fullmatch(cell) for cell in cells)


def _are_distinct_numbers(cells: list[str]) -> bool:
    """Whether all cells are numbers, none of which is missing or there twice."""
    return all(map(_is_number, cells)) and len(set(cells)) == len(cells) and MISSING.isdisjoint(cells)


def _numbers(path: Path, lines: Lines, width: int, *, skip: int, guessed: Guessed) -> HostArray:
    """The numbers of numbered lines of cells, of which `skip` at the left hold none."""
    import numpy as np

    for n, row in lines:
        if len(row) != width:
            msg = f"{path}: line {n} has {len(row)} cells, the lines above it have {width}"
            raise FileError(msg)
    values = np.empty((len(lines), width - skip))
    for i, (n, row) in enumerate(lines):
        for j, cell in enumerate(row[skip:]):
            if not _is_number(cell):
                remedy = "; say --header if this line holds names" if n == guessed.line else ""
                if j + skip == 0 and guessed.column:
                    remedy += "; say --index if this column holds names"
                msg = f"{path}: line {n}, column {j + skip + 1}: {cell!r} is not a number{remedy}"
                raise FileError(msg)
            values[i, j] = float("nan") if cell in MISSING else float(cell)
    return values


def _is_text(cell: str) -> bool:
    """Whether a cell is there, and no number."""
    return not _is_number(cell)


def _is_number(cell: str) -> bool:
    """Whether a cell holds a number, or is one that is missing."""
    try:
        float(cell)
    except ValueError:
        return cell in MISSING
    return "_" not in cell  # 1_2 is a number for Python only
