"""Matrices in Matrix Market files.

SciPy's reader is fast, and reads beyond its memory at what it does not expect: a NUL character, blanks behind the last
number, a matrix without rows, or an error in one of its threads. So it gets none of these, and one thread.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.files.opening import FileError, check_fits, optional_module, pieces

if TYPE_CHECKING:
    from pathlib import Path

LAYOUTS, FIELDS, SYMMETRIES = ("array", "coordinate"), ("real", "integer", "pattern"), ("general", "symmetric")
LINE = 1024  # bytes that the first line has at most
NEWLINE = b"\n"


class Header(NamedTuple):
    """What the first lines declare."""

    layout: str
    symmetric: bool
    shape: tuple[int, int]
    entries: int  # that stand in the file


def read_market(path: Path) -> Any:
    """A dense or sparse matrix, whose size is held against the memory before it is made."""
    scipy_io, threadpoolctl = optional_module("scipy.io", "files"), optional_module("threadpoolctl", "files")
    ended = _is_ended(path)
    with path.open("rb") as file:
        layout, symmetric, (m, n), entries = _header(path, file)
        left = path.stat().st_size - file.tell()
    stored = (1 + symmetric) * entries
    check_fits(path, f"its {m} x {n} matrix", 8.0 * m * n if layout == "array" else 24.0 * stored + 8.0 * (m + n))
    if entries > left:
        msg = f"{path}: is cut short: it declares {entries} entries, which is more than it holds"
        raise FileError(msg)
    with threadpoolctl.threadpool_limits(1, user_api="scipy"):
        return scipy_io.mmread(path if ended else io.BytesIO(path.read_bytes() + NEWLINE))


def _header(path: Path, file: Any) -> Header:
    """What is declared; the file stands behind it."""
    banner = file.readline(LINE).decode("latin-1").lower().split()
    if len(banner) != 5 or banner[:2] != ["%%matrixmarket", "matrix"]:
        msg = f"{path}: cannot be read: it does not begin as Matrix Market files do, %%MatrixMarket matrix ..."
        raise FileError(msg)
    layout, field, symmetry = banner[2:]
    fields = FIELDS if layout == "coordinate" else FIELDS[:2]
    if layout not in LAYOUTS or field not in fields or symmetry not in SYMMETRIES:
        msg = f"{path}: must hold real numbers, general or symmetric, got {layout} {field} {symmetry}"
        raise FileError(msg)
    line = b"%"
    while line.startswith(b"%") or line.isspace():
        line = file.readline()
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
    return Header(layout, symmetry == "symmetric", (m, n), *(entries or [whole]))


def _is_ended(path: Path) -> bool:
    """Whether the last line has an end; a file with a NUL character is refused."""
    line, piece = 1, b""
    for piece in pieces(path):
        at = piece.find(b"\0")
        if at >= 0:
            number = line + piece.count(NEWLINE, 0, at)
            msg = f"{path}: line {number} holds a NUL character; save the matrix as text"
            raise FileError(msg)
        line += piece.count(NEWLINE)
    return piece.endswith(NEWLINE)
