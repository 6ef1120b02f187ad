"""Which line and column of a table hold names, where nobody says so."""

from __future__ import annotations

import itertools
import math
import re
from typing import TYPE_CHECKING

from nmf_xp.files.opening import FileError

if TYPE_CHECKING:
    from nmf_xp.files.cells import Grid

FAR = 10  # times the largest entry: above it the numbers of a first line are not like the entries


def is_corner(grid: Grid, *, header: bool | None, index: bool | None) -> bool:
    """Whether a table begins with a cell between both kinds of names, as spreadsheets, pandas and R write it.

    One with text is no entry, so what is beside it and below it are names. Where it is empty, names that are numbers
    may as well be entries, of which the first one is missing: then it has to be said.
    """
    first, *rest = grid.first
    numbers, column = grid.numbers, grid.column
    if not rest or header is False or index is False or len(grid.first) != grid.width:
        return False
    if first:
        texts = numbers.are_names([first]) and numbers.are_distinct(rest)
        return texts and bool(column) and numbers.are_distinct(column)
    if header or index or not column or numbers.are_names(rest):
        return bool(column)
    if not numbers.are_distinct(rest):
        return False
    if numbers.are_names(column):
        return True
    if not numbers.are_distinct(column):
        return False
    counts = [[numbers.of(cell) for cell in cells] == list(range(len(cells))) for cells in (rest, column)]
    if all(counts) or (counts[0] and len(rest) > 2) or (counts[1] and len(column) > 2):  # as pandas numbers them
        return True
    msg = (
        f"{grid.path}: line {grid.first_line}, column 1 is empty; say --header and --index if its line and column hold "
        "names, or --no-header and --no-index if its number is missing"
    )
    raise FileError(msg)


def is_header(grid: Grid) -> bool:
    """Whether a table's first line holds names: all of its cells are text, or its numbers look like names."""
    first, numbers = grid.first, grid.numbers
    over_names = numbers.are_names(grid.column)
    if over_names and grid.ragged is None and grid.width == len(first) + 1:
        return numbers.are_names(first) or numbers.are_distinct(first)
    cells = first[1:] if over_names and len(first) > 1 else first
    if numbers.are_names(cells):
        return True
    if numbers.are_names(first[:1]) and len(first) > 1 and numbers.are_distinct(first[1:]) and not over_names:
        return grid.lines > 0  # text in the corner of numbers
    return over_names and numbers.is_text(first[0]) and _are_labels(grid)


def _are_labels(grid: Grid) -> bool:
    """Whether a line of numbers over a table with row names holds column names: wavelengths, years, doses.

    They are distinct. What stands before them is unlike all row names, as `id` is unlike `s1`, or they are evenly
    spaced as no line below is, or all far above the entries.
    """
    if not grid.numbers.are_distinct(grid.first[1:]):
        return False
    if _form(grid.first[0]) not in set(map(_form, grid.column)):
        return True
    labels = [number for number in map(grid.numbers.of, grid.first[1:]) if number is not None]
    below = grid.values(index=True)
    rows = ([x for x in row if not math.isnan(x)] for row in map(list, below))
    if _evenly_spaced(labels) and not any(map(_evenly_spaced, rows)):
        return True
    return min(labels) > FAR * max((abs(x) for row in below for x in row if x == x), default=0.0)


def _form(name: str) -> str:
    """The kinds of characters of a name: `s1` and `s24` are of one form, as are `TP53` and `BRCA1`."""
    return re.sub(r"[^\W\d_]+", lambda letters: "A" if letters[0].isupper() else "a", re.sub(r"\d+", "0", name))


def _evenly_spaced(numbers: list[float]) -> bool:
    """Whether there are three numbers or more, each by the same step from the one before it."""
    steps = [b - a for a, b in itertools.pairwise(numbers)]
    return len(steps) > 1 and steps[0] != 0 and all(math.isclose(step, steps[0], rel_tol=1e-6) for step in steps)
