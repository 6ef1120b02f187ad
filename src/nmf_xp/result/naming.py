"""Names on a result, and rows of its model by their names."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nmf_xp.arrays import libraries

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable


def named(result: Any, *, table: str | None, **given: Iterable[Hashable] | None) -> Any:
    """The result with names; see `Result.named`."""
    counts = {"rows": result.W.shape[-2], "columns": result.H.shape[-1], "components": result.H.shape[-2]}
    fields = {"rows": "row_names", "columns": "column_names", "components": "component_names"}
    new: dict[str, Any] = {} if table is None else {"table": table}
    for name, labels in given.items():
        if labels is None:
            continue
        if isinstance(labels, str):
            msg = f"`{name}` must be a sequence of names, got the text {labels!r}"
            raise TypeError(msg)
        listed = labels if isinstance(labels, tuple) else tuple(getattr(labels, "tolist", lambda x=labels: x)())
        if len(listed) != counts[name]:
            msg = f"`{name}` must hold {counts[name]} names, one for each of the {name}, got {len(listed)}"
            raise ValueError(msg)
        new[fields[name]] = listed
    found = replace(result, **new)
    if result.restarts is not None:
        restarts = replace(result.restarts, **new)
        found = replace(found, restarts=restarts)
    return found._remember(result._seen)


def reconstruct(result: Any, rows: Any) -> Any:
    """Rows of WH; see `Result.reconstruct`."""
    W, H = result.W, result.H
    if rows is None:
        return W @ H
    if isinstance(rows, slice):
        return W[..., rows, :] @ H
    several = isinstance(rows, list | range) or hasattr(rows, "tolist")
    xp = libraries.array_namespace(H)
    places = [_place(result, row) for row in (getattr(rows, "tolist", lambda: rows)() if several else [rows])]
    model = xp.take(W, xp.asarray(places, dtype=xp.int64, device=libraries.device(W)), axis=-2) @ H
    return model if several else model[..., 0, :]


def _names(result: Any) -> tuple[Hashable, ...]:
    return result.row_names or ()


def _place(result: Any, row: Any) -> int:
    """The number of a row that is given by its name or its number."""
    count = _names(result).count(row)
    if count > 1:
        msg = f"{count} rows have the name {row!r}; give the number of one"
        raise KeyError(msg)
    if count:
        return result.row_names.index(row)
    m = result.W.shape[-2]
    if isinstance(row, int):
        if -m <= row < m:
            return row % m
        msg = f"there are {m} rows, got number {row}"
        raise IndexError(msg)
    msg = f"no row has the name {row!r}"
    raise KeyError(msg)
