"""A factor as a table, with the names of its rows and columns."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from nmf_xp.arrays import transfer
from nmf_xp.arrays.checks import check_option
from nmf_xp.data.naming import text

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

KINDS = ("pandas", "polars", "pyarrow")


def component_names(result: Any) -> tuple[Hashable, ...]:
    """The names of the components, or component_0, component_1 and so on."""
    return result.component_names or tuple(f"component_{k}" for k in range(result.W.shape[-1]))


def frame_of(result: Any, which: str, kind: str | None) -> Any:
    """The table of W, with V's rows, or of H, with V's columns; see `Result.to_frame`."""
    check_option("which", which, ("W", "H"))
    if kind is not None:
        check_option("kind", kind, KINDS)
    factor = result.W if which == "W" else result.H
    if factor.ndim != 2:
        msg = f"only one member of a stack, such as result[0], is a table, got {which} of shape {tuple(factor.shape)}"
        raise TypeError(msg)
    kind = kind or (result.table if result.table in KINDS else "pandas")
    library = _library(kind)
    values, rows, columns = _sides(result, which)
    if kind == "pandas":
        return library.DataFrame(values, index=_index(library, rows), columns=_index(library, columns))
    labels = [str(j) for j in range(values.shape[1])] if columns is None else list(map(text, columns))
    cells: dict[str, Any] = {name: values[:, j] for j, name in enumerate(_apart(labels))}
    if rows is not None:
        cells = {"component" if which == "H" else "row": list(map(text, rows)), **cells}
    return made(cells, kind)


def made(cells: dict[str, Any], kind: str) -> Any:
    """The table with these columns, of the library of that name."""
    library = _library(check_option("kind", kind, KINDS))
    return library.table(cells) if kind == "pyarrow" else library.DataFrame(cells)


def _library(kind: str) -> Any:
    try:
        return importlib.import_module(kind)
    except ImportError as error:
        msg = f"a table needs {kind}: pip install {kind}"
        raise ImportError(msg) from error


def _sides(result: Any, which: str) -> tuple[Any, Any, Any]:
    """The values of a factor, on the host, and the names of its rows and columns; None where there are none."""
    values = transfer.to_host(transfer.computed(result.W if which == "W" else result.H))
    components = component_names(result)
    return values, *((result.row_names, components) if which == "W" else (components, result.column_names))


def table_of(result: Any, which: str) -> tuple[list[str], list[str], Any]:
    """The names of rows and columns of a factor, numbers where there are none, and its values, on the host."""
    values, *names = _sides(result, which)
    counted = (range(length) if labels is None else labels for labels, length in zip(names, values.shape, strict=True))
    rows, columns = (list(map(text, labels)) for labels in counted)
    return rows, columns, values


def _index(pandas: Any, labels: Sequence[Hashable] | None) -> Any:
    """Labels as pandas has them; those of several levels as levels."""
    if labels is None:
        return None
    if labels and all(isinstance(label, tuple) for label in labels) and len(set(map(len, labels))) == 1:  # type: ignore[arg-type]
        return pandas.MultiIndex.from_tuples(labels)
    return pandas.Index(list(labels))


def _apart(labels: list[str]) -> list[str]:
    """The labels, with a number behind those that were there before, as a table must tell its columns apart."""
    seen: dict[str, int] = {}
    found = []
    for label in labels:
        seen[label] = seen.get(label, 0) + 1
        found.append(label if seen[label] == 1 else f"{label} ({seen[label]})")
    return found
