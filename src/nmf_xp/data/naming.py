"""The names that a table brings, what it holds beside them, and its columns that hold no numbers."""

from __future__ import annotations

import decimal
import numbers
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Hashable

LISTED = 5  # names that an error lists


class Names(NamedTuple):
    """Labels of rows and columns, as the table has them, and the library of the table; None where it has none."""

    rows: tuple[Hashable, ...] | None = None
    columns: tuple[Hashable, ...] | None = None
    kind: str | None = None


class Arrived(NamedTuple):
    """What a table holds: an array, a sparse array, or what is read block by block; and its names."""

    values: Any
    names: Names = Names()


def text(label: Any) -> str:
    """A label as text; the levels of one of several are set apart by commas."""
    return ", ".join(map(str, label)) if isinstance(label, tuple) else str(label)


def numbers_of(values: list[Any]) -> list[float] | None:
    """Objects that are numbers or missing as numbers; None where one is neither."""
    found = []
    for value in values:
        if isinstance(value, numbers.Real | decimal.Decimal):
            found.append(float(value))
        elif value is None or type(value).__name__ in ("NAType", "NaTType"):
            found.append(float("nan"))
        else:
            return None
    return found


def refuse_columns(name: str, columns: list[tuple[Any, str]], remedy: str) -> None:
    """One error for all columns without numbers."""
    if not columns:
        return
    kinds = " and ".join(sorted({kind for _, kind in columns}))
    listed = ", ".join(repr(text(label)) for label, _ in columns[:LISTED])
    more = f" and {len(columns) - LISTED} more" if len(columns) > LISTED else ""
    which = "columns" if len(columns) > 1 else "column"
    msg = f"pass `{name}.{remedy}`: `{name}` must hold numbers, got {kinds} in the {which} {listed}{more}"
    raise TypeError(msg)
