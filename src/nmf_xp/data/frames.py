"""The numbers of a frame, column by column: of pandas by itself, of other libraries through narwhals."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from nmf_xp.data.naming import Arrived, Names, numbers_of, refuse_columns

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

FRAMES = ("pandas", "polars", "pyarrow", "modin", "cudf", "narwhals")
TYPES = ("DataFrame", "Table", "RecordBatch")
NAMING = ("row", "component")
"""A first column of text with such a name holds the names of rows, as `to_frame` writes it."""
KINDS = {"O": "mixed values", "M": "dates", "m": "durations", "c": "complex numbers", "U": "text", "S": "text"}


def of_pandas(name: str, x: Any) -> Arrived:
    """The numbers of a pandas frame: sparse ones where all columns are."""
    import numpy as np

    pandas: Any = sys.modules["pandas"]
    names = Names(_labels(x.index), _labels(x.columns), "pandas")
    dtypes = list(x.dtypes)
    objects = {j: _objects(x.iloc[:, j]) for j, dtype in enumerate(dtypes) if dtype.kind == "O" and _is_plain(dtype)}
    kinds = [objects[j] if j in objects else _kind(dtype, pandas) for j, dtype in enumerate(dtypes)]
    refused = [(x.columns[j], kind) for j, kind in enumerate(kinds) if isinstance(kind, str) and kind]
    refuse_columns(name, refused, "select_dtypes('number')")
    target = _common([getattr(dtype, "numpy_dtype", getattr(dtype, "subtype", dtype)) for dtype in dtypes])
    sparse = [isinstance(dtype, pandas.SparseDtype) for dtype in dtypes]
    if sparse and all(sparse) and all(dtype.fill_value == 0 for dtype in dtypes):
        return Arrived(x.sparse.to_coo().tocsr().astype(target, copy=False), names)
    if not objects and all(map(_is_plain, dtypes)):
        return Arrived(x.to_numpy(dtype=target), names)
    values = np.empty(x.shape, dtype=target)
    for j in range(x.shape[1]):
        column = objects[j] if j in objects else x.iloc[:, j].to_numpy(dtype=target, na_value=np.nan)
        values[:, j] = column  # lint: made here
    return Arrived(values, names)


def _is_plain(dtype: Any) -> bool:
    """Whether it is a dtype of NumPy's, and not of pandas' own."""
    import numpy as np

    return isinstance(dtype, np.dtype)


def _objects(column: Any) -> list[float] | str:
    """Numbers that a column of objects holds, or in words what else."""
    values = column.tolist()
    found = numbers_of(values)
    if found is not None:
        return found
    return "text" if all(isinstance(value, str) or value != value or value is None for value in values) else KINDS["O"]


def _labels(index: Any) -> tuple[Hashable, ...] | None:
    """The labels of an index; None for one that only counts from 0, which says no more than an array does."""
    if type(index).__name__ == "RangeIndex" and (index.start, index.step) == (0, 1):
        return None
    return tuple(index.tolist())


def _kind(dtype: Any, pandas: Any) -> str:
    """In words what a column of pandas holds instead of numbers; empty where it holds numbers."""
    kind = getattr(dtype, "kind", "O")
    if kind != "c" and pandas.api.types.is_numeric_dtype(dtype):
        return ""
    if isinstance(dtype, pandas.CategoricalDtype):
        return "categories"
    is_text = isinstance(dtype, pandas.StringDtype) or "string" in str(dtype)
    return "text" if is_text else KINDS.get(kind, str(dtype))


def of_frame(name: str, x: Any) -> Arrived:
    """The numbers of a table that is not of pandas, through narwhals."""
    import numpy as np

    library = next(base.__module__.partition(".")[0] for base in type(x).__mro__ if base.__qualname__ in TYPES)
    try:
        narwhals = importlib.import_module("narwhals")
    except ImportError as error:
        msg = f'a table of {library} needs narwhals: pip install "nmf_xp[tables]"; or pass its numbers as an array'
        raise ImportError(msg) from error
    if library == "pyarrow":  # whose names may be there twice
        columns = tuple(x.schema.names)
        pyarrow: Any = sys.modules["pyarrow"]
        labels = [str(j) for j in range(len(columns))]
        x = pyarrow.Table.from_arrays([x.column(j) for j in range(len(columns))], labels)
        frame = narwhals.from_native(x, eager_only=True)
    else:
        frame = narwhals.from_native(x, eager_only=True)
        columns = tuple(frame.columns)
    names = Names(None, columns, library)
    native = narwhals.to_native(frame)
    if hasattr(native, "index"):  # modin and cudf have pandas' index
        names = names._replace(rows=_labels(native.index))
    cells = list(frame.iter_columns())
    if cells and columns[0] in NAMING and cells[0].dtype == narwhals.String:
        names = names._replace(rows=tuple(cells[0].to_list()), columns=columns[1:])
        columns, cells = columns[1:], cells[1:]
    taken, refused, floats = [], [], []
    for label, column in zip(columns, cells, strict=True):
        dtype = column.dtype
        if not (dtype.is_numeric() or dtype == narwhals.Boolean or column.null_count() == len(column)):
            refused.append((label, _words(str(dtype))))
            continue
        floats.append(np.dtype("float32") if dtype == narwhals.Float32 else np.dtype("float64"))
        taken.append(column.cast(narwhals.Float32 if dtype == narwhals.Float32 else narwhals.Float64))
    refuse_columns(name, refused, "select(polars.selectors.numeric())" if library == "polars" else "select(...)")
    values = np.empty((len(frame), len(taken)), dtype=_common(floats))
    for j, column in enumerate(taken):
        values[:, j] = column.to_numpy()  # lint: made here
    return Arrived(values, names)


def _words(dtype: str) -> str:
    """A dtype of narwhals in words."""
    if dtype.startswith(("String", "Binary")):
        return "text"
    if dtype.startswith(("Date", "Time")):
        return "dates"
    return "categories" if dtype.startswith(("Cat", "Enum")) else dtype.lower()


def _common(dtypes: Sequence[Any]) -> Any:
    """The dtype of the array: that of the columns where all are of floats, else float64."""
    import numpy as np

    if dtypes and all(dtype.kind == "f" for dtype in dtypes):
        return np.result_type(*dtypes)
    return np.dtype("float64")
