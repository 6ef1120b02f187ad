"""Pictures with more bits than Pillow keeps: colours of 16 bits in PNG and TIFF, TIFF of float64 and long integers."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.files.opening import FileError, check_fits, optional_module

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LUMA = (0.299, 0.587, 0.114)  # as in ITU-R 601, by which Pillow makes 8 bits grey
CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}  # of a PNG, by its kind of colour
HEAD = 33  # bytes of a PNG up to the end of its first chunk
BYTES = 16  # of a pixel, while it is read


class Deep(NamedTuple):
    """The grey values of a page, and the numbers and channels from which they were made."""

    values: Any
    dtype: str
    channels: int


def is_tiff(path: Path) -> bool:
    """Whether a file begins as a TIFF, or a large one, does."""
    with path.open("rb") as file:
        return file.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def count_pages(path: Path) -> int:
    """The number of pages of a TIFF."""
    with optional_module("tifffile", "files").TiffFile(path) as file:
        return len(file.pages)


def read_tiff(path: Path, page: int) -> Deep:
    """The grey values of a page of a TIFF, with all their bits."""
    tifffile = optional_module("tifffile", "files")
    with tifffile.TiffFile(path) as file:
        found = file.pages[page]
        check_fits(path, "the picture", 2.0 * found.nbytes + BYTES * found.imagelength * found.imagewidth)
        try:
            pixels = found.asarray()
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            msg = f"{path}: is compressed as {found.compression.name}; save it without compression"
            raise FileError(msg) from error
        pixels = pixels.transpose(1, 2, 0) if found.axes == "SYX" else pixels
    return Deep(grey(pixels), str(pixels.dtype), pixels.shape[2] if pixels.ndim == 3 else 1)


def grey(pixels: Any) -> Any:
    """The grey values of colours along the last axis; a channel of transparency is left out."""
    if pixels.ndim < 3:
        return pixels
    if pixels.shape[-1] < 3:
        return pixels[..., 0]
    red, green, blue = LUMA
    return red * pixels[..., 0] + green * pixels[..., 1] + blue * pixels[..., 2]


def read_png(path: Path) -> Any:
    """The grey values of a PNG with 16 bits a channel."""
    import numpy as np

    with path.open("rb") as file:
        head = file.read(HEAD)
        width, height = int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
        depth, kind, interlaced = head[24], head[25], head[28]
        if depth != 16 or kind not in CHANNELS or interlaced:
            msg = f"{path}: holds colours of 16 bits in passes; save it without interlacing"
            raise FileError(msg)
        channels = CHANNELS[kind]
        check_fits(path, "the picture", (BYTES + 2.0 * channels) * width * height)
        values = np.empty((height, width))
        above = np.zeros((width, 2 * channels), np.uint8)
        for y, (how, line) in enumerate(_lines(path, file, height, 2 * width * channels)):
            above = _unfiltered(path, how, np.frombuffer(line, np.uint8).reshape(width, -1), above)
            values[y] = grey(above.view(">u2").reshape(1, width, channels))[0]
    return values


def _lines(path: Path, file: Any, height: int, length: int) -> Iterator[tuple[int, bytes]]:
    """The filter and the bytes of each line."""
    unfold, waiting, found = zlib.decompressobj(), b"", 0
    chunks = _data(file)
    while found < height:
        while len(waiting) <= length:
            piece = unfold.unconsumed_tail or next(chunks, b"")
            if not piece:
                msg = f"{path}: is cut short: it declares {height} lines, and holds {found}"
                raise FileError(msg)
            waiting += unfold.decompress(piece, length + 1)
        yield waiting[0], waiting[1 : length + 1]
        waiting, found = waiting[length + 1 :], found + 1


def _data(file: Any) -> Iterator[bytes]:
    """What the chunks with pixels hold."""
    while len(head := file.read(8)) == 8 and head[4:] != b"IEND":
        size = int.from_bytes(head[:4], "big")
        if head[4:] == b"IDAT":
            yield file.read(size)
            file.seek(4, 1)
        else:
            file.seek(size + 4, 1)


def _unfiltered(path: Path, how: int, line: Any, above: Any) -> Any:
    """The bytes of a line, as they were before what predicts them was taken off."""
    import numpy as np

    if how == 0:
        return line.copy()
    if how == 1:
        return np.cumsum(line, axis=0, dtype=np.uint8)
    if how == 2:
        return line + above
    if how not in (3, 4):
        msg = f"{path}: is damaged: a line has the filter {how}"
        raise FileError(msg)
    columns = [
        _average(left, up) if how == 3 else _paeth(left, up)
        for left, up in zip(line.T.tolist(), above.T.tolist(), strict=True)
    ]
    return np.ascontiguousarray(np.asarray(columns, np.uint8).T)


def _average(line: list[int], above: list[int]) -> list[int]:
    found, last = [], 0
    for x, up in zip(line, above, strict=True):
        last = (x + (last + up) // 2) & 255
        found.append(last)
    return found


def _paeth(line: list[int], above: list[int]) -> list[int]:
    found, left, corner = [], 0, 0
    for x, up in zip(line, above, strict=True):
        to_left, to_up, to_corner = abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)
        near = left if to_left <= to_up and to_left <= to_corner else up if to_up <= to_corner else corner
        left, corner = (x + near) & 255, up
        found.append(left)
    return found
