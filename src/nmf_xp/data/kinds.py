"""How V is visited, which its type says before any of it is read."""

from __future__ import annotations

import enum
from typing import Any

from nmf_xp import _compat
from nmf_xp.data.sources import source_of


class Kind(enum.Enum):
    """Where V is."""

    WHOLE = "in memory"
    STREAMED = "read block by block"
    GRID = "dask arrays"


def kind_of(V: Any) -> Kind:
    """The kind that V is by its type."""
    if _compat.is_dask(V):
        return Kind.GRID
    return Kind.WHOLE if source_of(V) is None else Kind.STREAMED
