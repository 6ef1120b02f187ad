"""Matrices of AnnData in .h5ad and .zarr, of every age: cells, or other observations, in rows and genes in columns.

Before 0.7 the tables of observations and variables were arrays of records, and the parts of `raw` stood beside `X`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from nmf_xp.data import stores
from nmf_xp.data.chunks import part
from nmf_xp.data.unfolding import check_stored
from nmf_xp.files.labels import field_labels, labels
from nmf_xp.files.matrix import Matrix

NOTE = "AnnData, with its observations (cells) in rows and its variables (genes) in columns"
RECORD_NAMES = ("index", "_index")  # the field with the names, in arrays of records; else the first
TABLES = {
    "X": ("obs", "var"),
    "layers": ("obs", "var"),
    "raw": ("obs", "raw/var"),
    "raw.X": ("obs", "raw.var"),
    "obsm": ("obs", None),
    "varm": ("var", None),
    "obsp": ("obs", "obs"),
    "varp": ("var", "var"),
}
"""Where the names of the rows and columns of an array are, by the place of the array."""
VARIABLES = ("var", "raw/var", "raw.var")


class Frame(NamedTuple):
    """The numbers of a table that is stored column by column."""

    values: Any
    columns: list[str]


def is_annotated(root: Any) -> bool:
    """Whether a group of a file is what AnnData writes."""
    return not hasattr(root, "dtype") and "obs" in root and "var" in root


def read_annotated(root: Any, key: str | None) -> Matrix:
    """`X` or another matrix, with the names of its rows and columns."""
    name = _place(root, (key or "X").strip("/"))
    first, _, within = name.partition("/")
    tables = TABLES.get(first, (None, None))
    stored, columns = _found(root, name, first, within)
    if stored is None:
        there = ", ".join(_matrices(root)) or "nothing"
        msg = f"it holds no {name!r}, only {there}" + ("; say which one with --key" if key is None else "")
        raise ValueError(msg)
    m, n = stored.values.shape
    row_names = _names(root, tables[0], m)
    note = NOTE if first == "X" else f"{NOTE}: {name}" if tables[1] in VARIABLES else f"AnnData: {name}"
    note = ", ".join(filter(None, (note, stored.note)))
    return Matrix(stored.values, row_names, columns or _names(root, tables[1], n), note)


def _found(root: Any, name: str, first: str, within: str) -> tuple[stores.Stored | None, list[str] | None]:
    """The matrix of that name, if there is one, with names of columns that it has itself."""
    if first in ("obsm", "varm") and first in root and _is_records(root[first]):
        if within not in root[first].dtype.names:
            return None, None
        check_stored(root[first])
        values = root[first][within]
        return stores.Stored(values.reshape(len(values), -1)), None
    if name not in root:
        return None, None
    if _is_frame(root[name]):
        frame = _frame(root[name])
        return stores.Stored(frame.values), frame.columns
    return stores.read(root[name]), None


def _place(root: Any, name: str) -> str:
    """The name of a matrix in this file: `raw` is that of `raw/X`, which was once `raw.X`."""
    if name in ("raw", "raw/X", "raw.X"):
        return "raw.X" if "raw.X" in root else "raw/X"
    return name


def _matrices(root: Any) -> list[str]:
    """The names of the matrices that can be asked for."""
    found = [name for name in ("X", "raw/X", "raw.X") if name in root]
    for place in ("layers", "obsm", "varm", "obsp", "varp"):
        if place in root and not hasattr(root[place], "dtype"):
            found += [f"{place}/{name}" for name in stores.names_in(root[place])]
        elif place in root and _is_records(root[place]):
            found += [f"{place}/{name}" for name in root[place].dtype.names]
    return found[: stores.LISTED]


def _is_records(stored: Any) -> bool:
    return getattr(getattr(stored, "dtype", None), "names", None) is not None


def _is_frame(stored: Any) -> bool:
    return not hasattr(stored, "dtype") and stored.attrs.get("encoding-type") == "dataframe"


def _names(root: Any, table: str | None, length: int) -> list[str] | None:
    """The names in a table of observations or variables, one for each of so many lines."""
    if table is None or table not in root:
        return None
    stored = root[table]
    if _is_records(stored):
        fields = stored.dtype.names
        field = next((name for name in RECORD_NAMES if name in fields), fields[0])
        return field_labels(stored, field, length, table)
    index = None if hasattr(stored, "dtype") else stored.attrs.get("_index")
    if index is None:
        return None
    index = index.decode("utf-8", "replace") if isinstance(index, bytes) else index
    if not isinstance(index, str) or index not in stored:
        msg = f"it is damaged: {table} has no names {index!r}"
        raise ValueError(msg)
    return labels(stored[index], length, f"{table}/{index}")


def _frame(stored: Any) -> Frame:
    """The columns of a table, each an array of numbers, some of which may be missing."""
    import numpy as np

    names = [str(name) for name in np.asarray(stored.attrs.get("column-order", ())).tolist()]
    columns = [_column(stored, name) for name in names]
    if not columns:
        msg = "it is a table without columns"
        raise ValueError(msg)
    return Frame(np.column_stack(columns), names)


def _column(stored: Any, name: str) -> Any:
    import numpy as np

    column = {name: stored[name]} if name in stored else {}
    nullable = (
        column and not hasattr(column[name], "dtype") and {"values", "mask"} <= set(stores.names_in(column[name]))
    )
    parts = [column[name]["values"], column[name]["mask"]] if nullable else [column.get(name)]
    for one in parts:
        if one is None or getattr(getattr(one, "dtype", None), "kind", "") not in "biuf" or len(one.shape) != 1:
            msg = f"its column {name!r} holds no numbers along one axis"
            raise ValueError(msg)
        check_stored(one)
    values = part(parts[0])
    return np.where(part(parts[1]).astype(bool), np.nan, values) if nullable else values
