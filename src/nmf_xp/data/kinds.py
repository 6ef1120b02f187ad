"""How V is visited, which its type says before any of it is read; of a memory map, also its size."""

from __future__ import annotations

import enum
from typing import Any

from nmf_xp.arrays import arrival, libraries, memory
from nmf_xp.data.sources import RowBlocks, is_mapped, source_of


class Kind(enum.Enum):
    """Where V is."""

    WHOLE = "in memory"
    STREAMED = "read block by block"
    GRID = "dask arrays"


def settled(V: Any) -> Any:
    """A memory map as the array that it is where it fits in memory, and as row blocks where not; all else as it is.

    What is free can change: so it is asked once for each V.
    """
    if not is_mapped(V):
        return V
    fits = memory.ROOM * V.size * memory.bytes_of(V.dtype) <= memory.available()
    return unmapped(V) if fits or V.ndim != 2 else RowBlocks(V)


def unmapped(x: Any) -> Any:
    """A NumPy memory map as a plain array, over the same memory where that can be read; all else as it is."""
    return arrival.plain(x, mapped=True)


def kind_of(V: Any) -> Kind:
    """The kind that V is by its type."""
    if not libraries.is_plain(V) and libraries.is_dask(V):
        return Kind.GRID
    return Kind.WHOLE if source_of(V) is None else Kind.STREAMED
