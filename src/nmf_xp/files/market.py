"""Matrices in Matrix Market files.

SciPy's reader is fast, and reads beyond its memory at what it does not expect: a NUL character, blanks behind the last
number, a matrix without rows, or an error in one of its threads. So it gets none of these, and one thread. It also
takes of a cell as much as looks like a number, 1 of `1D5`, and leaves out cells. So every line is checked before.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.files.cells import BEYOND
from nmf_xp.files.gz import pieces, text_of
from nmf_xp.files.opening import GZ, FileError, check_fits, optional_module

if TYPE_CHECKING:
    from pathlib import Path

LAYOUTS, FIELDS, SYMMETRIES = ("array", "coordinate"), ("real", "integer", "pattern"), ("general", "symmetric")
LINE = 1024  # bytes that the first line has at most
LONGEST = 2**20  # bytes that any other line has at most
NEWLINE = b"\n"

INTEGER = rb"[-+]?\d+"
REAL = rb"[-+]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|(?i:nan|inf|infinity))"
CELLS = {"real": REAL, "integer": INTEGER}
ONE_DIGIT = bytes(ord("0") if chr(byte).isdigit() and byte < 128 else byte for byte in range(256))


class Header(NamedTuple):
    """What the first lines declare."""

    layout: str
    field: str
    symmetric: bool
    shape: tuple[int, int]
    entries: int  # that stand in the file
    lines: int  # of the file up to here

    @property
    def cells(self) -> list[bytes]:
        """What each cell of a line with an entry looks like."""
        places = [INTEGER, INTEGER] if self.layout == "coordinate" else []
        return places + ([CELLS[self.field]] if self.field in CELLS else [])


def read_market(path: Path) -> Any:
    """A dense or sparse matrix, whose size is held against the memory before it is made."""
    scipy_io, threadpoolctl = optional_module("scipy.io", "files"), optional_module("threadpoolctl", "files")
    with text_of(path) as file:
        header = _header(path, file)
    (m, n), entries = header.shape, header.entries
    stored = (1 + header.symmetric) * entries
    dense = header.layout == "array"
    check_fits(path, f"its {m} x {n} matrix", 8.0 * m * n if dense else 24.0 * stored + 8.0 * (m + n))
    with text_of(path) as file:
        for _ in range(header.lines):
            file.readline()
        found, ended = _check_lines(path, header, file)
    if found < entries:
        msg = f"{path}: is cut short: it declares {entries} entries, and holds {found}"
        raise FileError(msg)
    with threadpoolctl.threadpool_limits(1, user_api="scipy"), text_of(path) as file:
        plain = ended and path.suffix.lower() != GZ
        matrix = scipy_io.mmread(path if plain else _Text(file, b"" if ended else NEWLINE))
    _check_range(path, getattr(matrix, "data", matrix))
    return matrix


def _header(path: Path, file: Any) -> Header:
    """What is declared; the file stands behind it."""
    banner = file.readline(LINE).decode("latin-1").lower().split()
    lines = 1
    if len(banner) != 5 or banner[:2] != ["%%matrixmarket", "matrix"]:
        msg = f"{path}: cannot be read: it does not begin as Matrix Market files do, %%MatrixMarket matrix ..."
        raise FileError(msg)
    layout, field, symmetry = banner[2:]
    fields = FIELDS if layout == "coordinate" else FIELDS[:2]
    if layout not in LAYOUTS or field not in fields or symmetry not in SYMMETRIES:
        msg = f"{path}: must hold real numbers, general or symmetric, got {' '.join(banner[2:])[:60]}"
        raise FileError(msg)
    line = b"%"
    while line.startswith(b"%") or line.isspace():
        line = file.readline()
        lines += 1
        _check_text(path, line, lines)
    sizes = line.decode("latin-1").split()
    count = 2 if layout == "array" else 3
    if len(sizes) != count or not all(size.isascii() and size.isdigit() and len(size) < 20 for size in sizes):
        msg = f"{path}: cannot be read: its sizes are no {count} integers"
        raise FileError(msg)
    m, n, *entries = map(int, sizes)
    if not m * n or (symmetry == "symmetric" and m != n):
        msg = f"{path}: cannot be read: it declares a {symmetry} matrix of shape {m} x {n}"
        raise FileError(msg)
    whole = m * (m + 1) // 2 if symmetry == "symmetric" else m * n
    (count,) = entries or [whole]
    return Header(layout, field, symmetry == "symmetric", (m, n), count, lines)


def _check_text(path: Path, line: bytes, number: int) -> None:
    if b"\0" in line:
        msg = f"{path}: line {number} holds a NUL character; save the matrix as text"
        raise FileError(msg)


def _check_lines(path: Path, header: Header, file: Any) -> tuple[int, bool]:
    """Refuse a file with a line that is no entry; returns how many are, and whether the last line has an end.

    Lines are looked at by their form, in which all digits are one: of these a file has few.
    """
    blank = rb"[ \t\r]"
    form = re.compile(rb"%b*(?:%b%b*)?" % (blank, (blank + b"+").join(header.cells), blank))
    number, found, rest = header.lines + 1, 0, b""
    for piece in pieces(file):
        lines, newline, rest = (rest + piece).rpartition(NEWLINE)
        if not newline:
            if len(rest) > LONGEST:
                msg = f"{path}: line {number} is longer than an entry can be"
                raise FileError(msg)
            continue
        found += _entries(path, lines, number, form, header)
        number += 1 + lines.count(NEWLINE)
    return found + _entries(path, rest, number, form, header), not rest


def _entries(path: Path, text: bytes, number: int, form: re.Pattern[bytes], header: Header) -> int:
    """How many of these lines are entries; the others are blank."""
    lines = text.split(NEWLINE)
    forms = set(text.translate(ONE_DIGIT).split(NEWLINE))
    if not all(map(form.fullmatch, forms)):
        for n, line in enumerate(lines, number):
            _check_text(path, line, n)
            if not form.fullmatch(line):
                raise FileError(_wrong_line(path, line, n, header.cells))
    blank = any(not form.strip() for form in forms)
    return sum(map(bool, map(bytes.strip, lines))) if blank else len(lines)


def _check_range(path: Path, values: Any) -> None:
    """Refuse numbers that became infinite, since they are written with too large an exponent."""
    import numpy as np

    if not np.isinf(values).any():
        return
    with text_of(path) as file:
        for n, line in enumerate(file, 1):
            cell = line.split()[-1:] if not line.startswith(b"%") else []
            if cell and re.fullmatch(REAL, cell[0]) and b"n" not in cell[0].lower() and np.isinf(float(cell[0])):
                msg = f"{path}: line {n}: {cell[0].decode('latin-1')[:40]!r} {BEYOND}"
                raise FileError(msg)


def _wrong_line(path: Path, line: bytes, number: int, cells: list[bytes]) -> str:
    """What is wrong with a line."""
    found = line.split()
    if len(found) != len(cells):
        return f"{path}: line {number} has {len(found)} cells, where an entry has {len(cells)}"
    for cell, rule in zip(found, cells, strict=True):
        if not re.fullmatch(rule, cell):
            text = cell.decode("latin-1")[:40]
            fortran = re.fullmatch(REAL, re.sub(rb"[dD]", b"e", cell, count=1))
            remedy = f"; write it as {text.lower().replace('d', 'e')}" if fortran and rule == REAL else ""
            return f"{path}: line {number}: {text!r} is no {'integer' if rule == INTEGER else 'number'}{remedy}"
    return f"{path}: line {number}: its cells must be separated by blanks"


class _Text:
    """A file whose last line gets the end that it may lack; what can only be read, SciPy gives up without a crash."""

    def __init__(self, file: Any, end: bytes) -> None:
        self._file, self._end = file, end

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        piece: bytes = self._file.read(size)
        if not piece:
            piece, self._end = self._end, b""
        return piece
