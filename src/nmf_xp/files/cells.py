"""Cells of tables: what is a number, what is missing, what is a name; and a table as its reader finds it."""

from __future__ import annotations

import array
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.arrays import memory
from nmf_xp.files.opening import FileError

if TYPE_CHECKING:
    from collections.abc import Iterable
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
BEYOND = "is beyond the numbers of float64, which end at 1.8e308"
INFINITE = float("inf")
STEP = 2**17  # numbers after which the memory is looked at again


class Numbers(NamedTuple):
    """What stands before decimal places, and so what is a number."""

    decimal: str = "."

    def of(self, cell: str) -> float | None:
        """The number in a cell, NaN where it is missing; None where there is none."""
        if cell in MISSING:
            return float("nan")
        if self.decimal != ".":
            if "." in cell:
                return None
            cell = cell.replace(self.decimal, ".")
        try:
            number = float(cell)
        except ValueError:
            return None
        return None if "_" in cell else number  # 1_2 is a number for Python only

    def line(self, cells: list[str]) -> list[float] | None:
        """The numbers in all cells; None where one is missing, is none, or is not finite."""
        joined = "".join(cells)
        if "_" in joined:
            return None
        if self.decimal != ".":
            if "." in joined:
                return None
            cells = [cell.replace(self.decimal, ".") for cell in cells]
        try:
            numbers = list(map(float, cells))
        except ValueError:
            return None
        return None if INFINITE in numbers or -INFINITE in numbers else numbers

    def wrong(self, cell: str) -> str | None:
        """What is wrong with a cell that should hold a number."""
        number = self.of(cell)
        if number is None:
            return "is not a number"
        return BEYOND if abs(number) == INFINITE and "inf" not in cell.lower() else None

    def is_number(self, cell: str) -> bool:
        """Whether a cell holds a number, or one that is missing."""
        return self.of(cell) is not None

    def is_text(self, cell: str) -> bool:
        """Whether a cell is there, and no number."""
        return self.of(cell) is None

    def are_names(self, cells: Iterable[str]) -> bool:
        """Whether all cells are text, and not all of them numbers that were spoilt or marks of what is missing.

        A single one that begins as a number does is a number with a slip of the pen.
        """
        found = list(cells)
        if not found or not all(map(self.is_text, found)):
            return False
        if len(found) == 1 and re.match(r"[-+.]?\d", found[0]):
            return False
        return not all(cell.lower() in MARKS or SPOILT.fullmatch(cell) for cell in found)

    def are_distinct(self, cells: list[str]) -> bool:
        """Whether all cells are numbers, none of which is missing or there twice."""
        return all(map(self.is_number, cells)) and len(set(cells)) == len(cells) and MISSING.isdisjoint(cells)


class Wrong(NamedTuple):
    """A cell that should hold a number, where it stands, and what is wrong with it."""

    line: int
    column: int
    cell: str
    why: str


class Grid:
    """A table, line by line: the first one as text, of the others the numbers, and the text of their first cell.

    That text is kept as long as it may be a name. So it takes little more memory than its numbers.
    """

    def __init__(self, path: Path, numbers: Numbers, *, index: bool | None) -> None:
        """Nothing is read yet."""
        self.path, self.numbers = path, numbers
        self.first: list[str] = []
        self.first_line = 0  # its number in the file
        self.second_line = 0
        self.width = 0  # cells of the second line and those below it
        self.column: list[str] = []
        self.lines = 0  # below the first
        self.comments = 0  # lines above it that are left out
        self.skipped = 0  # columns at the left whose numbers are not kept
        self.ragged: tuple[int, int] | None = None  # the first line of another length, and that length
        self.at_left: Wrong | None = None  # the first bad cell of the first column
        self.inside: Wrong | None = None  # that of all others
        self._index = index
        self._values = array.array("d")
        self._looked = 0

    def add(self, line: int, cells: list[str]) -> bool:
        """Take a line; returns whether there is a use in more."""
        if not self.first_line:
            self.first, self.first_line = cells, line
            return True
        if not self.second_line:
            self.second_line, self.width = line, len(cells)
            self.skipped = int(self._index is not False and self.numbers.of(cells[0]) is None)
        if len(cells) != self.width:
            self.ragged = line, len(cells)
            return False
        self.lines += 1
        numbers = self.numbers.line(cells)
        self._values.extend((self._one_by_one(line, cells) if numbers is None else numbers)[self.skipped :])
        if self._index is not False:
            self.column.append(cells[0])
            if self._index is None and numbers is not None and self.numbers.line(self.first[:1]) is not None:
                self._index = False  # two numbers are no names
                self.column.clear()
        if len(self._values) - self._looked > STEP:
            self._check_room()
        return True

    def _one_by_one(self, line: int, cells: list[str]) -> list[float]:
        found = []
        for j, cell in enumerate(cells):
            why = self.numbers.wrong(cell)
            if why is not None:
                wrong = Wrong(line, j + 1, cell, why)
                if j == 0:
                    self.at_left = self.at_left or wrong
                else:
                    self.inside = self.inside or wrong
            number = self.numbers.of(cell)
            found.append(float("nan") if number is None else number)
        return found

    def _check_room(self) -> None:
        """Refuse a table before it takes what is free: it is copied once, where its first column holds names."""
        self._looked = len(self._values)
        bytes_, free = 8 * len(self._values), memory.available()
        if bytes_ > free:
            msg = f"{self.path}: its table takes more than {bytes_ / 1e9:.3g} GB, and {free / 1e9:.3g} GB are free"
            raise FileError(msg)

    def values(self, *, index: bool) -> HostArray:
        """The numbers below the first line, of all columns or of those that follow the first."""
        import numpy as np

        kept = np.frombuffer(self._values, dtype=np.float64).reshape(self.lines, self.width - self.skipped)
        return kept[:, int(index) - self.skipped :]
