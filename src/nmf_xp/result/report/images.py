"""Matrices as PNG images inside the page: data URIs, a pixel an entry.

Dark is large on white. The page inverts lightness where it is dark, and keeps the hues.
"""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any

import numpy as np

Matrix = np.ndarray[Any, Any]

# Of even steps in lightness on both sides of white: below zero, zero, above zero.
DIFFERENCE = np.asarray([(45, 0, 75), (129, 115, 174), (247, 247, 247), (224, 132, 28), (127, 59, 8)], dtype=float)
UNOBSERVED = (207, 232, 247)


def grey(values: Matrix, high: float) -> str:
    """The data URI of non-negative values as shades of grey, from white for 0 to black for `high` and above."""
    share = np.nan_to_num(np.clip(values / (high or 1.0), 0, 1))
    shades = np.repeat((255 * (1 - share)).round().astype(np.uint8)[..., None], 3, axis=-1)
    return _data_uri(_with_gaps(shades, values))


def difference(values: Matrix, far: float) -> str:
    """The data URI of differences: purple for -`far` and below, white for 0, orange for `far` and above."""
    position = 2 + 2 * np.nan_to_num(np.clip(values / (far or 1.0), -1, 1))
    anchors = np.arange(len(DIFFERENCE))
    colours = np.stack([np.interp(position, anchors, channel) for channel in DIFFERENCE.T], axis=-1)
    return _data_uri(_with_gaps(colours.round().astype(np.uint8), values))


def scale(low: str, kind: str, high: str) -> str:
    """What the shades of "grey" or of "difference" mean, between the words for the ends."""
    ramp = np.linspace(0, 1, 64)[None, :]
    uri = grey(ramp, 1.0) if kind == "grey" else difference(2 * ramp - 1, 1.0)
    return f'<div class="scale">{low}<img class="shades" alt="from {low} to {high}" src="{uri}">{high}</div>'


def _with_gaps(pixels: Matrix, values: Matrix) -> Matrix:
    """Pixels (height, width, 3) with their own colour where there is no value."""
    return np.where(np.isnan(values)[..., None], np.asarray(UNOBSERVED, dtype=np.uint8), pixels)


def _data_uri(pixels: Matrix) -> str:
    return "data:image/png;base64," + base64.b64encode(png(pixels)).decode("ascii")


def png(pixels: Matrix) -> bytes:
    """The file of an image of 8 bits and three colours, (height, width, 3) (PNG, third edition, sections 5 and 11)."""
    height, width, _ = pixels.shape
    unfiltered = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(unfiltered.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
