"""Tables in sheets of Excel, which are looked at as tables of text are, and read line by line."""

from __future__ import annotations

import re
import zipfile
from typing import TYPE_CHECKING, Any

from nmf_xp.files.cells import Grid, Numbers
from nmf_xp.files.opening import FileError, check_fits, listed, optional_module
from nmf_xp.files.tables import matrix_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nmf_xp.files.matrix import Asked, Matrix

OLD = b"\xd0\xcf\x11\xe0"  # how .xls begins, and a workbook with a password
LARGER = 8  # times its size, that XML takes once it is read
PIECE = 2**20
LAST = 2**20  # row of a sheet
DECLARATION = re.compile(rb"<!(DOCTYPE|ENTITY)|encoding=[\"'](?!utf-8|us-ascii)", re.IGNORECASE)
"""What leads from XML to other files, or hides that it does."""
NO_RESULT = re.compile(rb"</f>\s*(<v\s*/>|<v>\s*</v>|</c>)")
OVERLAP = 64  # bytes in which either of them has room


def read_sheet(path: Path, asked: Asked) -> Matrix:
    """The table in the only sheet that holds something, or in the one that is asked for."""
    openpyxl = optional_module("openpyxl", "files")
    _check(path)
    book = openpyxl.load_workbook(path, read_only=True, data_only=True, keep_links=False)
    try:
        sheets = {sheet.title: sheet for sheet in book.worksheets}
        if asked.key is not None and asked.key not in sheets:
            msg = f"{path}: holds no sheet {asked.key!r}, only {listed(sheets)}"
            raise FileError(msg)
        for sheet in sheets.values():
            sheet.reset_dimensions()  # what it declares may be anything
        filled = [name for name, sheet in sheets.items() if next(_rows(path, sheet), None) is not None]
        if asked.key is None and len(filled) != 1:
            msg = f"{path}: holds {f'the sheets {listed(filled)}; say which one with --key' if filled else 'no cells'}"
            raise FileError(msg)
        name = asked.key or filled[0]
        grid = _grid(path, sheets[name], asked)
        matrix = matrix_of(grid, asked, "columns of the sheet")
    finally:
        book.close()
    return matrix if len(sheets) == 1 else matrix._replace(note=f"the sheet {name!r}, {matrix.note}")


def _rows(path: Path, sheet: Any) -> Iterator[tuple[int, list[str]]]:
    """The rows that hold something, by their numbers, without the empty cells at their ends."""
    for n, row in enumerate(sheet.iter_rows(values_only=True), 1):
        if n > LAST:
            msg = f"{path}: is damaged: it declares rows beyond the last that a sheet has, {LAST}"
            raise FileError(msg)
        cells = [_text(value) for value in row]
        while cells and not cells[-1]:
            cells.pop()
        if cells:
            yield n, cells


def _grid(path: Path, sheet: Any, asked: Asked, bounds: tuple[int, int] | None = None) -> Grid:
    """The rows between the first and the last column that holds something.

    Which those are is first taken from the first row. Where another one begins before it or ends behind it, or has
    cells at its ends that are empty, the sheet is read once more.
    """
    grid = Grid(path, Numbers(), index=asked.index)
    left, right = bounds or (0, 0)
    alike = True
    for n, cells in _rows(path, sheet):
        begin, end = next(j for j, cell in enumerate(cells) if cell), len(cells)
        if bounds is None:
            alike = alike and (not right or (begin, end) == (left, right))
            left, right = (min(left, begin), max(right, end)) if right else (begin, end)
        if alike and not grid.add(n, cells[left:] + [""] * (right - end)):
            break
    return grid if alike else _grid(path, sheet, asked, (left, right))


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool | int | float):
        return repr(float(value)) if isinstance(value, float) else str(int(value))
    return str(value).strip()


def _check(path: Path) -> None:
    """Refuse what is no workbook, leads out of itself, unfolds to more than the memory, or was never computed."""
    with path.open("rb") as file:
        head = file.read(len(OLD))
    if head == OLD or not zipfile.is_zipfile(path):
        what = (
            "is an old workbook, or has a password; save it as .xlsx without one" if head == OLD else "is no workbook"
        )
        msg = f"{path}: cannot be read: it {what}"
        raise FileError(msg)
    with zipfile.ZipFile(path) as zipped:
        parts = [member for member in zipped.infolist() if member.filename.endswith((".xml", ".rels"))]
        kept = sum(member.file_size for member in parts if "worksheets/" not in member.filename)
        check_fits(path, "what its sheets share", float(LARGER) * kept)
        for member in parts:
            with zipped.open(member) as file:
                _check_part(path, file)


def _check_part(path: Path, file: Any) -> None:
    rest = b""
    while piece := file.read(PIECE):
        text = rest + piece
        if DECLARATION.search(text):
            msg = f"{path}: holds declarations that may lead to other files; save it anew with a spreadsheet program"
            raise FileError(msg)
        if NO_RESULT.search(text):
            msg = f"{path}: holds formulas without results; save it with a spreadsheet program, which computes them"
            raise FileError(msg)
        rest = text[-OVERLAP:]
