"""Tables in Parquet and Feather files, which hold column by column, each of a kind of its own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.files import arrow
from nmf_xp.files.labels import NONE
from nmf_xp.files.matrix import Matrix
from nmf_xp.files.opening import FileError, check_fits, listed, optional_module

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

ROWS = 2**16  # that are read at a time
PASSES, FEWEST = 8, 64  # in which columns are read at most, and the columns of one at least
NAME = 64  # bytes that a name takes


class Source(NamedTuple):
    """A table of which some columns are read at a time, and of these some rows."""

    schema: Any
    rows: int
    batches: Callable[[list[int]], Iterable[Any]]


def read_parquet(path: Path) -> Matrix:
    """The numbers of a Parquet file."""
    parquet = optional_module("pyarrow.parquet", "files")
    with parquet.ParquetFile(path, memory_map=False) as file:
        schema = file.schema_arrow

        def batches(columns: list[int]) -> Iterable[Any]:
            some = [schema.field(j).name for j in columns]
            return file.iter_batches(max(1, min(ROWS, 2**22 // len(some))), columns=some, use_threads=False)

        return _read(path, Source(schema, file.metadata.num_rows, batches))


def read_feather(path: Path) -> Matrix:
    """The numbers of a Feather file, which is one of Arrow."""
    schema, rows = arrow.read_schema(path)
    return _read(path, Source(schema, rows, lambda columns: arrow.batches(path, columns)))


def _read(path: Path, source: Source) -> Matrix:
    """All columns of numbers, and the names of rows where there is a column for them."""
    import numpy as np

    schema = source.schema
    if len(set(schema.names)) < len(schema.names):
        msg = f"{path}: holds columns of the same name; give each its own"
        raise FileError(msg)
    index = _index(schema)
    columns = [j for j in range(len(schema)) if j not in index]
    _check_kinds(path, schema, columns)
    check_fits(path, f"its table of {source.rows} x {len(columns)}", 8.0 * source.rows * len(columns))
    check_fits(path, "its row names", float(NAME * source.rows * len(index)))
    single = all(str(schema.field(j).type) in ("float", "halffloat") for j in columns)
    values = np.empty((source.rows, len(columns)), np.float32 if single else np.float64)
    together = max(FEWEST, -(-len(columns) // PASSES))
    for first in range(0, len(columns), together):
        some = columns[first : first + together]
        for start, batch in _batches(path, source, some):
            for place, j in enumerate(some, first):
                column = batch.column(schema.field(j).name)
                values[start : start + batch.num_rows, place] = _numbers(column)
    names: list[str] = []
    for _, batch in _batches(path, source, index) if index else ():
        parts = [_texts(batch.column(schema.field(j).name)) for j in index]
        names += map(", ".join, zip(*parts, strict=True))
    found = "column names and row names" if index else "column names"
    return Matrix(values, names if index else None, [schema.field(j).name for j in columns], f"a table with {found}")


def _batches(path: Path, source: Source, columns: list[int]) -> Iterator[tuple[int, Any]]:
    """Each batch of some columns, with its first row; together as many as are declared."""
    start = 0
    for batch in source.batches(columns):
        batch.validate(full=True)
        if start + batch.num_rows > source.rows:
            break
        yield start, batch
        start += batch.num_rows
    if start != source.rows:
        msg = f"{path}: is damaged: it declares {source.rows} rows, and holds {start} or more"
        raise FileError(msg)


def _index(schema: Any) -> list[int]:
    """The columns that hold names of rows: those that pandas says, or else a first one of text."""
    names = [field.name for field in schema]
    try:
        said = json.loads((schema.metadata or {}).get(b"pandas", b"{}")).get("index_columns", [])
    except (ValueError, AttributeError):
        said = []
    index = [names.index(name) for name in said if isinstance(name, str) and names.count(name) == 1]
    if not index and len(names) > 1 and _is_text(schema.field(0).type):
        index = [0]
    return index


def _is_text(kind: Any) -> bool:
    name = str(getattr(kind, "value_type", kind))
    return name in ("string", "large_string", "string_view", "binary", "large_binary")


def _is_number(kind: Any) -> bool:
    name = str(kind)
    return name in ("bool", "float", "double", "halffloat") or name.startswith(("int", "uint", "decimal"))


def _check_kinds(path: Path, schema: Any, columns: list[int]) -> None:
    """Refuse columns that hold no numbers, all in one error."""
    wrong = [schema.field(j) for j in columns if not _is_number(schema.field(j).type)]
    if wrong:
        kinds = listed(sorted({str(field.type)[:40] for field in wrong}))
        which = "columns" if len(wrong) > 1 else "column"
        names = listed(repr(field.name) for field in wrong)
        msg = f"{path}: holds {kinds} in the {which} {names}, where all must be numbers; leave them out"
        raise FileError(msg)
    if not columns:
        msg = f"{path}: holds no column of numbers"
        raise FileError(msg)


def _numbers(column: Any) -> Any:
    """The numbers of a column, NaN where one is missing."""
    kind = str(column.type)
    if kind.startswith("decimal") or column.null_count:
        column = column.cast("double") if kind != "bool" else column.cast("uint8").cast("double")
    return column.to_numpy(zero_copy_only=False)


def _texts(column: Any) -> list[str]:
    return [NONE if value is None or value != value else _text(value) for value in column.to_pylist()]


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
