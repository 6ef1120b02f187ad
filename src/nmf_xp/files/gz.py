"""The bytes of a file of text, or what they stand for where gzip has compressed it, as they are read."""

from __future__ import annotations

import contextlib
import gzip
from typing import TYPE_CHECKING, Any

from nmf_xp.files.opening import GZ, FileError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PIECE = 2**20  # bytes that are looked at together
GZIP = b"\x1f\x8b"
OTHERS = {
    GZIP: "is compressed by gzip, which its name does not say; let it end with .gz",
    b"PK\x03\x04": "is a zip archive, whatever its name says; unpack it first",
    b"BZh": "is compressed by bzip2; unpack it first",
    b"\xfd7zXZ": "is compressed by xz; unpack it first",
    b"\x28\xb5\x2f\xfd": "is compressed by zstd; unpack it first",
}
"""How files begin that hold no text."""


@contextlib.contextmanager
def text_of(path: Path) -> Iterator[Any]:
    """The bytes of a file of text, which stands at its begin."""
    with contextlib.ExitStack() as stack:
        file: Any = stack.enter_context(path.open("rb"))
        if path.suffix.lower() == GZ:
            if file.read(len(GZIP)) != GZIP:
                msg = f"{path}: cannot be read: it is not compressed by gzip, as its name says"
                raise FileError(msg)
            file.seek(0)
            file = stack.enter_context(gzip.GzipFile(fileobj=file, mode="rb"))
        head = file.read(8)
        file.seek(0)
        for begin, what in OTHERS.items():
            if head.startswith(begin):
                within = path.suffix.lower() == GZ
                what = "holds what is compressed a second time; unpack it first" if within else what
                msg = f"{path}: {what}"
                raise FileError(msg)
        yield file


def pieces(file: Any) -> Iterator[bytes]:
    """The rest of an open file, a piece at a time."""
    while piece := file.read(PIECE):
        yield piece
