"""Grey values of pictures, of formats that are named: a picture of another one may start a program to be drawn."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.files.opening import FileError, check_fits, optional_module

if TYPE_CHECKING:
    from pathlib import Path

FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
    ".gif": "GIF",
    ".webp": "WEBP",
}
BITS = 258  # the tag of a TIFF that says how many bits each channel has
BYTES = 16  # of a pixel, while it is read: four colours, the grey value and its number


class Picture(NamedTuple):
    """The grey values of a picture, and how they were made."""

    values: Any
    note: str


def read_picture(path: Path, key: str | None) -> Picture:
    """The grey values of a picture, or of the page with the number `key` of one that has several."""
    pillow = optional_module("PIL.Image", "files")
    import numpy as np

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pillow.DecompressionBombWarning)  # it is held against the memory here
        try:
            image = pillow.open(path, formats=sorted(set(FORMATS.values())))
        except pillow.UnidentifiedImageError as error:
            msg = f"{path}: cannot be read: it is no picture of the formats {', '.join(sorted(set(FORMATS.values())))}"
            raise FileError(msg) from error
    with image:
        page = _to_page(path, image, key)
        check_fits(path, "the picture", float(BYTES) * image.width * image.height)
        if image.mode in ("L", "I", "F") or image.mode.startswith("I;16"):
            return Picture(np.asarray(image), f"an image, read as its grey values{page}")
        deep = np.max(getattr(image, "tag_v2", {}).get(BITS, 0)) > 8
        if deep or any(";16" in str(tile) for tile in image.tile):  # as Pillow calls numbers of 16 bits
            msg = f"{path}: holds colours of 16 bits, of which 8 would be lost; save it as a grey picture of 16 bits"
            raise FileError(msg)
        return Picture(np.asarray(image.convert("L")), f"an image of mode {image.mode}, read as greyscale{page}")


def _to_page(path: Path, image: Any, key: str | None) -> str:
    """Turn to the page that is asked for; says which it is where there are several."""
    pages = getattr(image, "n_frames", 1)
    if pages == 1 and key in (None, "1"):
        return ""
    if key is None or not (key.isascii() and key.isdigit() and 1 <= int(key) <= pages):
        got = "" if key is None else f", got {key!r}"
        msg = f"{path}: holds {pages} pictures; say with --key which one, a number from 1 to {pages}{got}"
        raise FileError(msg)
    image.seek(int(key) - 1)
    return f", number {key} of {pages}"
