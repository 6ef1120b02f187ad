"""What the header of a checkpoint must hold, whoever wrote it.

A checksum finds accidents and proves nothing of a header that was made by hand, so each entry is looked at.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from nmf_xp.result import Status

if TYPE_CHECKING:
    import numpy as np

    HostArray = np.ndarray[Any, Any]

ALL: dict[str, Any] = {"nmf_xp": str, "at": str, "options": dict, "contents": dict}
OF_A_RUN: dict[str, Any] = {
    "n_iter": int,
    "checked": bool,
    "rows": list,
    "ends": list,
    "strides": dict,
    "history": list,
}
OF_A_SELECTION: dict[str, Any] = {"seed": int, "ranks": dict}
OF_A_RANK: dict[str, Any] = {
    "divergence": float,
    "objective": float,
    "kkt_residual": float,
    "n_iter": int,
    "solver": str,
    "beta": float,
    "history": list,
    "status": str,
    "row": dict,
}


def text(entries: Any, **options: Any) -> str:
    """The entries as JSON, with NumPy's numbers as Python's."""
    return json.dumps(entries, default=lambda number: number.item(), **options)


def mark(header: dict[str, Any]) -> str:
    """What one run has in common with no other: a hash of its options and of what V and the rest hold."""
    said = text([header["options"], header["contents"]], sort_keys=True)
    return hashlib.blake2b(said.encode(), digest_size=8).hexdigest()


def fault(header: Any, arrays: dict[str, HostArray]) -> str | None:
    """What is wrong with a header, in words; None where nothing is."""
    wrong = _wrong(header, ALL)
    if wrong is not None:
        return wrong
    if "ranks" in header:
        return _of_selection(header, arrays)
    return _of_run(header, arrays)


def _wrong(entries: Any, kinds: dict[str, Any]) -> str | None:
    """The first entry that is missing or of another kind."""
    if not isinstance(entries, dict):
        return "its header is no table of entries"
    for name, kind in kinds.items():
        if name not in entries:
            return f"its header has no {name!r}"
        if not _is(entries[name], kind):
            return f"its header has a wrong {name!r}"
    return None


def _is(value: Any, kind: Any) -> bool:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63
    return isinstance(value, kind)


def _are(values: Any, kind: Any) -> bool:
    return isinstance(values, list) and all(_is(value, kind) for value in values)


def _of_run(header: dict[str, Any], arrays: dict[str, HostArray]) -> str | None:
    wrong = _wrong(header, OF_A_RUN)
    if wrong is not None:
        return wrong
    rows, ends, history = header["rows"], header["ends"], header["history"]
    running = {member for member, end in enumerate(ends) if end is None}
    ordered = _are(rows, int) and rows == sorted(set(rows)) and running <= set(rows) <= set(range(len(ends)))
    if not ordered or not ends or (ends[0] is None and not rows):
        return "its header has wrong 'rows'"
    if len(history) != len(ends) or not all(_are(past, float) and past for past in history):
        return "its header has a wrong 'history'"
    for end in ends:
        if end is None:
            continue
        if _wrong(end, {"n_iter": int, "status": str}) or end["status"] not in Status.__members__:
            return "its header has wrong 'ends'"
        if end["n_iter"] > header["n_iter"]:
            return "its header has wrong 'ends'"
    for name, array in arrays.items():
        if name not in header["strides"] or not _fits(header["strides"][name], array):
            return f"its header has no 'strides' that fit {name!r}"
    return None


def _fits(strides: Any, array: HostArray) -> bool:
    """Whether there is a step from entry to entry for each axis of an array."""
    if not isinstance(strides, list) or len(strides) != array.ndim:
        return False
    return all(isinstance(step, int) and not isinstance(step, bool) for step in strides)


def _of_selection(header: dict[str, Any], arrays: dict[str, HostArray]) -> str | None:
    wrong = _wrong(header, OF_A_SELECTION)
    if wrong is not None:
        return wrong
    for rank, numbers in header["ranks"].items():
        if not (rank.isascii() and rank.isdigit()) or _wrong(numbers, OF_A_RANK):
            return f"its header has a wrong rank {rank!r}"
        known = numbers["status"] in Status.__members__ and _are(numbers["history"], float)
        if not known or not _are(list(numbers["row"].values()), float):
            return f"its header has a wrong rank {rank!r}"
        if not {f"{rank}.{name}" for name in ("W", "H", "consensus", "loss")} <= set(arrays):
            return f"it holds not all arrays of rank {rank}"
    return None
