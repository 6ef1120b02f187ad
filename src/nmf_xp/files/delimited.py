"""Tables in text: what separates cells and stands before decimal places is found, or said."""

from __future__ import annotations

import csv
import io
import itertools
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.arrays import memory
from nmf_xp.files.cells import MARKS, Grid, Numbers
from nmf_xp.files.gz import text_of
from nmf_xp.files.opening import GZ, FileError
from nmf_xp.files.tables import matrix_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nmf_xp.files.matrix import Asked, Matrix

BLANKS = " "  # any number of blanks and tabs
WORDS = {",": "commas", ";": "semicolons", "\t": "tabs", BLANKS: "blanks", "|": "bars"}
SAID = {"tab": "\t", r"\t": "\t", "space": BLANKS, "blank": BLANKS}
DELIMITERS = {".csv": ",;\t|", ".tsv": "\t", ".txt": "\t;,| ", ".all": "\t"}
"""What may separate cells in files of a suffix, the likely first."""
HEAD, LINES = 2**20, 100  # bytes and lines in which it is found
SHARE = 64  # of the memory that a line may take: each of its cells takes some 70 bytes
COMMENT = "#"
DECLARED = re.compile(r"sep=(.)")  # a first line that is for Excel
THOUSANDS = re.compile(r"[-+]?\d{1,3}(,\d{3})+")


class Form(NamedTuple):
    """How a table is written."""

    sep: str
    decimal: str
    encoding: str


def read_delimited(path: Path, suffix: str, asked: Asked) -> Matrix:
    """The matrix of a table in text."""
    usual = DELIMITERS[suffix.removesuffix(GZ)]
    form = _form(path, usual, asked)
    grid = _grid(path, form, asked)
    if grid is None:
        form = form._replace(encoding="cp1252")  # as spreadsheets write on Windows
        grid = _grid(path, form, asked)
    if grid is None:
        msg = f"{path}: cannot be read: it is no text in UTF-8; save it as UTF-8"
        raise FileError(msg)
    separated = WORDS.get(form.sep, repr(form.sep))
    matrix = matrix_of(grid, asked, separated)
    said = [f"separated by {separated}"] if form.sep != usual[0] else []
    lines = "a line" if grid.comments == 1 else f"{grid.comments} lines"
    said += [f"without {lines} of comments above it"] if grid.comments else []
    said += ["with decimal commas"] if form.decimal == "," else []
    said += [f"in the encoding {form.encoding}"] if form.encoding in ("cp1252", "utf-16") else []
    return matrix._replace(note=", ".join([matrix.note or "", *said]))


def _grid(path: Path, form: Form, asked: Asked) -> Grid | None:
    """The lines of the table; None where they are not in the encoding, and it may be another one."""
    grid = Grid(path, Numbers(form.decimal), index=asked.index)
    try:
        with text_of(path) as file, io.TextIOWrapper(file, encoding=form.encoding, newline="") as text:
            _fill(grid, form, text)
    except UnicodeDecodeError:
        if form.encoding == "utf-16":
            raise
        return None
    return grid


def _fill(grid: Grid, form: Form, file: Any) -> None:
    """All lines that are not empty; none of them goes on over the end of its line."""
    reader = _cells(_limited(grid.path, file), form.sep)
    empty, comments = None, list[tuple[int, list[str]]]()
    while True:
        n = reader.line_num + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            msg = f"{grid.path}: line {n} cannot be read: {error}; see whether its quotes are closed"
            raise FileError(msg) from error
        if row is None:
            return
        if not row:
            empty = empty or (n if grid.first_line else None)
            continue
        if len(row) == 1 and empty is not None:
            msg = f"{grid.path}: line {empty} is empty; write NA if the number is missing, or leave the line out"
            raise FileError(msg)
        joined = "".join(row)
        if "\n" in joined or "\r" in joined or "\0" in joined:
            raise _refusal(grid.path, n, row)
        cells = [cell.strip() for cell in row]
        if not grid.first_line and cells[0].startswith(COMMENT) and cells[0].lower() not in MARKS:
            comments.append((n, cells))
            continue
        if comments:
            _add_header(grid, comments, len(cells))
            comments.clear()
        if not (n == 1 and DECLARED.fullmatch(form.sep.join(cells))) and not grid.add(n, cells):
            return


def _add_header(grid: Grid, comments: list[tuple[int, list[str]]], width: int) -> None:
    """Take the last of the lines that begin as comments for a header, where it has as many cells as the line below."""
    line, cells = comments[-1]
    names = cells[1:] if cells[0] == COMMENT else cells
    is_header = len(names) == width > 1
    grid.comments = len(comments) - is_header
    if is_header:
        grid.add(line, names)


def _cells(lines: Iterator[str], sep: str) -> Any:
    """The cells of each line."""
    if sep == BLANKS:
        lines = (line.replace("\t", BLANKS).strip() for line in lines)
    return csv.reader(lines, delimiter=sep, strict=True, skipinitialspace=sep == BLANKS)


def _limited(path: Path, file: Any) -> Iterator[str]:
    """The lines of a file, of which none may be longer than the memory allows."""
    limit = max(2**20, memory.available() // SHARE)
    for n in itertools.count(1):
        line = file.readline(limit)
        if not line:
            return
        if len(line) == limit and not line.endswith("\n"):
            msg = f"{path}: line {n} has more than {limit / 1e6:.3g} million characters, which do not fit in memory"
            raise FileError(msg)
        yield line


def _refusal(path: Path, line: int, row: list[str]) -> FileError:
    """What is wrong with a line of which a cell holds what none may hold."""
    j, cell = next((j, cell) for j, cell in enumerate(row, 1) if not {"\n", "\r", "\0"}.isdisjoint(cell))
    what = "the cell goes on over the end of the line; close its quotes, or take the line break out"
    if "\0" in cell:
        what = "holds a NUL character; save the table as text in UTF-8"
    return FileError(f"{path}: line {line}, column {j}: {what}")


def _form(path: Path, usual: str, asked: Asked) -> Form:
    """How the table is written: as it is said, or by its first lines."""
    with text_of(path) as file:
        head: bytes = file.read(HEAD)
    encoding = "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    text = head.decode("utf-16" if encoding == "utf-16" else "latin-1", "ignore").lstrip("\ufeff")
    lines = [line for line in re.split(r"\r\n|\r|\n", text) if line.strip()]
    lines = lines[:-1] if len(head) == HEAD and len(lines) > 1 else lines  # the last one is cut
    sep = None if asked.sep is None else SAID.get(asked.sep, asked.sep)
    declared = DECLARED.fullmatch(lines[0].strip()) if lines else None
    sep = declared[1] if declared and sep is None else sep
    lines = [line for line in lines if not line.startswith(COMMENT) and not DECLARED.fullmatch(line.strip())]
    decimals = (".", ",") if asked.decimal is None else (asked.decimal,)
    if sep is not None and (len(sep) != 1 or sep in '"\r\n\0'):
        msg = f"`sep` must be one character, 'tab' or 'space', got {asked.sep!r}"
        raise ValueError(msg)
    if asked.decimal not in (None, ".", ","):
        msg = f"`decimal` must be '.' or ',', got {asked.decimal!r}"
        raise ValueError(msg)
    forms = [(one, point) for one in (sep or usual) for point in decimals]
    # Where both are commas, numbers stand within quotes. `a;1,5` is more likely a number than a name with a semicolon.
    forms.sort(key=lambda form: (form[0] == form[1], form[0] != ";"))
    forms = [form for form in forms if form[0] != form[1] or asked.decimal is not None]
    best = max(forms, key=lambda form: _fitness(lines[:LINES], *form))
    return Form(*(best if _fitness(lines[:LINES], *best) > (0, 0.0, 0.0) else (sep or usual[0], decimals[0])), encoding)


def _fitness(lines: list[str], sep: str, decimal: str) -> tuple[int, float, float]:
    """How well lines are read so: whether they have one number of cells, and the share of these that are numbers.

    Those of the first column, which may be names, count where the others do not decide.
    """
    try:
        rows = [row for row in _cells(iter(lines), sep) if row]
    except csv.Error:
        return (0, 0.0, 0.0)
    if not rows:
        return (0, 0.0, 0.0)
    below = rows[1:] or rows
    widths = {len(row) for row in below}
    even = 0 if len(widths) > 1 or max(widths) < 2 else {0: 2, 1: 1}.get(max(widths) - len(rows[0]), 0)
    numbers = Numbers(decimal)
    cells = [cell.strip() for row in below for cell in row[1:]]
    if not cells:  # which is no reason to read it so
        return (0, 0.0, 0.0)
    share = sum(map(numbers.is_number, cells)) / len(cells)
    commas = [cell.strip() for row in below for cell in row if "," in cell]
    if decimal == "," != sep and sep != ";" and all(map(THOUSANDS.fullmatch, commas)):
        share = 0.0  # 1,500 may be either, so it has to be said
    return (1 + even, share, sum(numbers.is_number(row[0].strip()) for row in below) / len(below))
