"""What is stored in chunks: how many are decoded at a time, and that none is larger than the memory."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

from nmf_xp.arrays import memory

if TYPE_CHECKING:
    from collections.abc import Iterator

ALWAYS = 2**16
"""Bytes that are always there."""

TOGETHER = 2**12
"""Chunks that are asked for at a time: zarr makes a task of each, of some 2 kB."""


def is_zarr(stored: Any) -> bool:
    """Whether this is an array or a group of zarr."""
    return type(stored).__module__.startswith("zarr")


def check_chunks(stored: Any) -> None:
    """Refuse an array of which one chunk alone does not fit in memory."""
    chunks = getattr(stored, "chunks", None) or ()
    bytes_, free = math.prod(int(length) for length in chunks) * stored.dtype.itemsize, memory.available()
    if bytes_ > max(free, ALWAYS):
        msg = f"it is stored in chunks of {bytes_ / 1e9:.3g} GB, with {free / 1e9:.3g} GB of memory free; store it anew"
        raise ValueError(msg)


def part(stored: Any, start: int = 0, stop: int | None = None) -> Any:
    """Some of what is stored along its first axis, as a plain array."""
    shape = tuple(int(length) for length in stored.shape)
    first = [(start, shape[0] if stop is None else min(stop, shape[0]))] if shape else []
    bounds = first + [(0, length) for length in shape[1:]]
    chunks = getattr(stored, "chunks", None)
    if not is_zarr(stored) or chunks is None or _count(bounds, chunks) <= TOGETHER:
        return stored[tuple(slice(*ends) for ends in bounds)]
    import numpy as np

    values = np.empty([max(0, b - a) for a, b in bounds], stored.dtype)
    for piece in _pieces(bounds, chunks):
        place = tuple(slice(s.start - a, s.stop - a) for s, (a, _) in zip(piece, bounds, strict=True))
        values[place] = stored[piece]  # lint: of its own
    return values


def _count(bounds: list[tuple[int, int]], chunks: tuple[int, ...]) -> int:
    return math.prod(-(-b // c) - a // c for (a, b), c in zip(bounds, chunks, strict=True))


def _pieces(bounds: list[tuple[int, int]], chunks: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Pieces of whole chunks, of which none has more than there may be together."""
    left, axes = TOGETHER, list[list[slice]]()
    for (a, b), chunk in reversed(list(zip(bounds, chunks, strict=True))):
        many = max(1, min(left, -(-b // chunk) - a // chunk))
        step, left = many * chunk, left // many
        ends = [a, *range((a // chunk + many) * chunk, b, step), b]
        axes.insert(0, list(itertools.starmap(slice, itertools.pairwise(ends))))
    return itertools.product(*axes)
