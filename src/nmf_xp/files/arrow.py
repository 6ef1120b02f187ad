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

BEGIN, OLD = b"ARROW1\0\0", b"FEA1"
NEXT = b"\xff\xff\xff\xff"  # how each message begins
BODY_LENGTH, HEADER, KIND = 3, 2, 1  # fields of a message
ROWS, BUFFERS, COMPRESSION = 0, 2, 3  # fields of a record batch
SCHEMA, BATCH = 1, 3  # kinds of messages
AS_IT_IS = -1  # the declared size of a part that is not compressed


class Message(NamedTuple):
    """A message, its kind, the rows it declares, and the bytes that its parts become."""

    content: bytes
    kind: int
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
    """The schema of a file and its rows, once it is known that all of its messages can be decoded."""
    arrow = optional_module("pyarrow", "files")
    schema, rows, bytes_ = None, 0, 0
    for message in _messages(path):
        if message.kind == SCHEMA:
            schema = arrow.ipc.read_schema(arrow.py_buffer(message.content))
        rows, bytes_ = rows + message.rows, max(bytes_, message.bytes)
    if schema is None:
        msg = f"{path}: cannot be read: it has no schema"
        raise FileError(msg)
    check_fits(path, "a part of its table", bytes_)
    return schema, rows


def batches(path: Path, schema: Any) -> Iterator[Any]:
    """The record batches, not yet known to be consistent."""
    arrow = optional_module("pyarrow", "files")
    for message in _messages(path):
        if message.kind == BATCH:
            yield arrow.ipc.read_record_batch(arrow.ipc.read_message(message.content), schema)


def _messages(path: Path) -> Iterator[Message]:
    """The messages of a file, of which none is larger than what is left of it."""
    with path.open("rb") as file:
        left = os.fstat(file.fileno()).st_size
        begin = file.read(len(BEGIN))
        if begin != BEGIN:
            what = "is an old Feather file; write it anew" if begin.startswith(OLD) else "is no Feather file"
            msg = f"{path}: cannot be read: it {what}"
            raise FileError(msg)
        while (head := file.read(8))[:4] == NEXT and any(head[4:]):
            size = int.from_bytes(head[4:], "little")
            said = file.read(min(size, left))
            message = Table(said, struct.unpack_from("<I", said)[0])
            length = message.number(BODY_LENGTH, "<q")
            if len(said) < size or not 0 <= length <= left:
                break
            body = file.read(length)
            if len(body) < length:
                break
            place, kind = message.target(HEADER), message.number(KIND, "<B")
            batch = None if place is None or kind != BATCH else Table(said, place)
            rows = 0 if batch is None else batch.number(ROWS, "<q")
            yield Message(head + said + body, kind, rows, 0 if batch is None else _unfolded(said, batch, body))
        else:
            return
    msg = f"{path}: is cut short"
    raise FileError(msg)


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
