"""Record batches of a Feather file, each looked at before it is decoded.

Arrow believes what a message says of its own size and of what its compressed parts become. So both are read here
from the message before Arrow gets it.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.files.opening import FileError, check_fits, optional_module

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAGIC, OLD = b"ARROW1", b"FEA1"  # how files begin and end
NEXT = b"\xff\xff\xff\xff"  # how a message may begin, before its size
DICTIONARIES, BATCHES = 2, 3  # fields of the footer
BLOCK = struct.Struct("<qi4xq")  # where a message begins, and the lengths of its parts
HEADER, KIND = 2, 1  # fields of a message
ROWS, BUFFERS, COMPRESSION = 0, 2, 3  # fields of a record batch
BATCH = 3  # the kind of a message with one
AS_IT_IS = -1  # the declared size of a part that is not compressed


class Message(NamedTuple):
    """A message with a record batch, the rows it declares, and the bytes that its parts become."""

    rows: int
    bytes: int


class Table:
    """A table of flatbuffers within a message: fields are looked up by their numbers."""

    def __init__(self, data: bytes, place: int) -> None:
        """Find where the fields stand."""
        self._data, self._place = data, place
        self._fields = place - struct.unpack_from("<i", data, place)[0]

    def _of(self, field: int) -> int | None:
        """Where a field stands; None where it has its default."""
        at = 4 + 2 * field
        if min(self._place, self._fields) < 0 or at >= struct.unpack_from("<H", self._data, self._fields)[0]:
            return None
        offset = struct.unpack_from("<H", self._data, self._fields + at)[0]
        return self._place + offset if offset else None

    def number(self, field: int, form: str) -> int:
        """A number, 0 by default."""
        at = self._of(field)
        return 0 if at is None else int(struct.unpack_from(form, self._data, at)[0])

    def target(self, field: int) -> int | None:
        """What a field leads to."""
        at = self._of(field)
        return None if at is None else at + int(struct.unpack_from("<I", self._data, at)[0])


def read_schema(path: Path) -> tuple[Any, int]:
    """The schema of a file and its rows, once it is known that all of its batches can be decoded."""
    arrow = optional_module("pyarrow", "files")
    rows, bytes_ = 0, 0
    for message in _messages(path):
        rows, bytes_ = rows + message.rows, max(bytes_, message.bytes)
    check_fits(path, "a part of its table", bytes_)
    with arrow.OSFile(str(path)) as file, arrow.ipc.open_file(file) as reader:
        schema = reader.schema
    return schema, rows


def batches(path: Path, columns: list[int]) -> Iterator[Any]:
    """The record batches of a file that was looked at, with some of its columns, not yet known to be consistent."""
    arrow = optional_module("pyarrow", "files")
    options = arrow.ipc.IpcReadOptions(included_fields=columns, use_threads=False)
    with arrow.OSFile(str(path)) as file, arrow.ipc.open_file(file, options=options) as reader:
        for i in range(reader.num_record_batches):
            yield reader.get_batch(i)


def _messages(path: Path) -> Iterator[Message]:
    """The messages with record batches that the end of a file lists, each of which must lie within it."""
    with path.open("rb") as file:
        whole = os.fstat(file.fileno()).st_size
        begin = file.read(len(MAGIC))
        file.seek(max(0, whole - len(MAGIC) - 4))
        end = file.read()
        size = int.from_bytes(end[:4], "little")
        if begin != MAGIC or end[4:] != MAGIC or not 0 < size < whole:
            what = "is an old Feather file; write it anew" if begin.startswith(OLD) else "is no whole Feather file"
            msg = f"{path}: cannot be read: it {what}"
            raise FileError(msg)
        file.seek(max(0, whole - len(MAGIC) - 4 - size))
        footer = file.read(size)
        lists = Table(footer, struct.unpack_from("<I", footer)[0])
        if _count(footer, lists.target(DICTIONARIES)):
            msg = f"{path}: holds categories; save them as text"
            raise FileError(msg)
        place = lists.target(BATCHES)
        count = _count(footer, place)
        for i in range(count):
            offset, said, length = BLOCK.unpack_from(footer, (place or 0) + 4 + BLOCK.size * i)
            if min(offset, said, length) < 0 or offset + said + length > whole:
                msg = f"{path}: is damaged: one of its parts lies outside of it"
                raise FileError(msg)
            file.seek(offset)
            yield _message(file.read(said), file.read(length))


def _count(data: bytes, place: int | None) -> int:
    """The length of a list, which may not be there."""
    return 0 if place is None else int(struct.unpack_from("<I", data, place)[0])


def _message(said: bytes, body: bytes) -> Message:
    """A message, by what it says of itself."""
    begin = 8 if said.startswith(NEXT) else 4
    table = said[begin:]
    message = Table(table, struct.unpack_from("<I", table)[0])
    place = message.target(HEADER)
    if place is None or message.number(KIND, "<B") != BATCH:
        msg = "it is damaged: what should be a part of the table is none"
        raise ValueError(msg)
    batch = Table(table, place)
    return Message(batch.number(ROWS, "<q"), _unfolded(table, batch, body))


def _unfolded(said: bytes, batch: Table, body: bytes) -> int:
    """The bytes that the parts of a record batch become."""
    place = batch.target(BUFFERS)
    if place is None or batch.target(COMPRESSION) is None:
        return len(body)
    count = struct.unpack_from("<I", said, place)[0]
    total = 0
    for offset, length in struct.iter_unpack("<qq", said[place + 4 : place + 4 + 16 * count]):
        if length >= 8:
            size = struct.unpack_from("<q", body, offset)[0]
            total += length if size == AS_IT_IS else size % 2**63
    return total
