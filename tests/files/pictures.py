"""Pictures of 16 bits a channel, written as PNG with any of its filters."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np


def png(pixels: Any, how: int) -> bytes:
    """A PNG of pixels (height, width, channels) of uint16, in which each line has that filter."""
    height, width, channels = pixels.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    above, lines = np.zeros((width, 2 * channels), int), b""
    for line in pixels.astype(">u2").reshape(height, -1):
        now = line.view(np.uint8).reshape(width, -1).astype(int)
        left, corner = (np.vstack([np.zeros((1, now.shape[1]), int), x[:-1]]) for x in (now, above))
        guess = (0 * now, left, above, (left + above) // 2, paeth(left, above, corner))[how]
        lines += bytes([how]) + ((now - guess) % 256).astype(np.uint8).tobytes()
        above = now
    head = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    chunks = (struct.pack(">I", len(x)) + name + x + struct.pack(">I", zlib.crc32(name + x)) for name, x in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def paeth(left: Any, above: Any, corner: Any) -> Any:
    """Which of the three neighbours is nearest to the plane through them."""
    guess = left + above - corner
    to_left, to_above, to_corner = (np.abs(guess - x) for x in (left, above, corner))
    nearest = np.where(to_above <= to_corner, above, corner)
    return np.where((to_left <= to_above) & (to_left <= to_corner), left, nearest)
