"""Grey values of pictures, of formats that are named: a picture of another one may start a program to be drawn."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.files.deep import count_pages, is_tiff, read_png, read_tiff
from nmf_xp.files.matrix import Matrix
from nmf_xp.files.opening import FileError, check_fits, optional_module

if TYPE_CHECKING:
    from collections.abc import Callable
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
BITS, FORMAT = 258, 339  # the tags of a TIFF that say how many bits each channel has, and of which kind of number
TURNED = {(8, 2), (32, 1)}  # signed bytes and long integers without sign, which Pillow takes for the other kind
ALL = "all"  # in the place of a page's number
BYTES = 16  # of a pixel, while it is read: four colours, the grey value and its number


class Page(NamedTuple):
    """The grey values of one page, and how they were made."""

    values: Any
    how: str


def read_picture(path: Path, key: str | None) -> Matrix:
    """The grey values of a picture, of the page with the number `key`, or of all pages, each of which is a row."""
    pillow = optional_module("PIL.Image", "files")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pillow.DecompressionBombWarning)  # it is held against the memory here
        try:
            image = pillow.open(path, formats=sorted(set(FORMATS.values())))
        except pillow.UnidentifiedImageError as error:
            if is_tiff(path):  # of numbers that Pillow does not know
                return _chosen(path, key, count_pages(path), lambda number: _of_tiff(path, number))
            msg = f"{path}: cannot be read: it is no picture of the formats {', '.join(sorted(set(FORMATS.values())))}"
            raise FileError(msg) from error
    with image:
        return _chosen(path, key, getattr(image, "n_frames", 1), lambda number: _page(path, image, number))


def _chosen(path: Path, key: str | None, pages: int, page: Callable[[int], Page]) -> Matrix:
    """The page that is asked for, or all."""
    if pages == 1 and key in (None, "1", ALL):
        values, how = page(0)
        return Matrix(values, note=f"an image{how}")
    if key == ALL:
        return _stacked(path, pages, page)
    if key is None or not (key.isascii() and key.isdigit() and 1 <= int(key) <= pages):
        got = "" if key is None else f", got {key!r}"
        what = f"holds {pages} pictures; say with --key which one, a number from 1 to {pages}, or all, each as a row"
        msg = f"{path}: {what}{got}"
        raise FileError(msg)
    values, how = page(int(key) - 1)
    return Matrix(values, note=f"an image{how}, number {key} of {pages}")


def _stacked(path: Path, pages: int, page: Callable[[int], Page]) -> Matrix:
    """All pages, each as a row of its pixels."""
    import numpy as np

    first = page(0).values
    height, width = first.shape
    check_fits(path, f"its {pages} pictures", float(pages) * first.nbytes)
    values = np.empty((pages, first.size), first.dtype)
    for number in range(pages):
        found = page(number).values
        if found.shape != first.shape:
            size = " x ".join(map(str, found.shape))
            msg = (
                f"{path}: its picture {number + 1} has {size} pixels, the first {height} x {width}; say one with --key"
            )
            raise FileError(msg)
        values[number] = found.reshape(-1)
    note = f"{pages} images of {height} x {width} grey values, each a row"
    return Matrix(values, [f"picture {i + 1}" for i in range(pages)], None, note)


def _page(path: Path, image: Any, number: int) -> Page:
    """A page that Pillow has opened."""
    import numpy as np

    image.seek(number)
    check_fits(path, "the picture", float(BYTES) * image.width * image.height)
    if image.format == "TIFF" and _is_cut(image.tag_v2):
        return _of_tiff(path, number)
    if image.mode in ("L", "I", "F") or image.mode.startswith("I;16"):
        return Page(np.asarray(image), ", read as its grey values")
    if any(";16" in str(tile) for tile in image.tile):  # as Pillow calls numbers of 16 bits
        if image.format != "PNG" or number:
            msg = f"{path}: holds colours of 16 bits, of which 8 would be lost; save it as .png or .tif"
            raise FileError(msg)
        return Page(read_png(path), " with colours of 16 bits, read as greyscale")
    return Page(np.asarray(image.convert("L")), f" of mode {image.mode}, read as greyscale")


def _is_cut(tags: Any) -> bool:
    """Whether Pillow loses bits or signs of the numbers in a page of a TIFF."""
    import numpy as np

    bits, kind = np.atleast_1d(tags.get(BITS, 1)), np.atleast_1d(tags.get(FORMAT, 1))
    most = int(bits.max())
    return most > 32 or (most > 8 and bits.size > 1) or (most, int(kind[0])) in TURNED


def _of_tiff(path: Path, number: int) -> Page:
    """A page of a TIFF that Pillow would cut."""
    values, dtype, channels = read_tiff(path, number)
    return Page(values, f" of {dtype}, read as {'greyscale' if channels > 1 else 'its grey values'}")
