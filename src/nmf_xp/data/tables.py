"""Tables with names, as the array that each of them holds: pandas, polars, pyarrow, xarray, AnnData, lists of lists.

None of their libraries is imported here: a table is recognised by its type, so its library is there already. Tables
other than pandas' are read through narwhals. A missing value becomes NaN, whatever the table calls it.
"""

from __future__ import annotations

import decimal
import functools
import importlib
import numbers
import sys
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from nmf_xp.arrays import libraries
from nmf_xp.arrays.checks import check_keywords

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

F = TypeVar("F", bound="Callable[..., Any]")

LISTED = 5  # columns that an error names
FRAMES = ("pandas", "polars", "pyarrow", "modin", "cudf", "narwhals")
TYPES = ("DataFrame", "Table", "RecordBatch")
KINDS = {"O": "mixed values", "M": "dates", "m": "durations", "c": "complex numbers", "U": "text", "S": "text"}


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


def arrived(name: str, x: Any, *, layer: str | None = None) -> Arrived:
    """The array of what may be a table; of all else the thing itself, without names.

    `name` is what an error calls it. `layer` is that of AnnData, instead of its `X`.

    Raises
    ------
    TypeError
        Columns hold no numbers; the error names them.
    ValueError
        The layer is asked of what has none, or is not there.
    ImportError
        The table needs narwhals, which is not installed.
    """
    read = _reader_of(x)
    if layer is not None and read is not _of_anndata:
        msg = f"`layer` must be None for a `{name}` that is no AnnData, got {layer!r}"
        raise ValueError(msg)
    if read is None:
        return Arrived(_of_scipy(x))
    return read(name, x) if layer is None else _of_anndata(name, x, layer)


def array_of(name: str, x: Any) -> Any:
    """The array of what may be a table, without its names; the members of a pair likewise."""
    if isinstance(x, tuple) and len(x) == 2 and any(_reader_of(part) is not None for part in x):
        return tuple(arrived(f"{name}[{i}]", part).values for i, part in enumerate(x))
    return x if isinstance(x, tuple) else arrived(name, x).values


def taken(function: F) -> F:
    """The function of arrays, where tables and lists of lists stand for the arrays that they hold."""

    @functools.wraps(function)
    def wrapped(V: Any, /, *args: Any, **options: Any) -> Any:
        check_keywords(function, options)
        values = arrived("V", V, layer=options.pop("layer", None)).values
        others = {name: array_of(name, x) for name, x in options.items()}
        return function(values, *(array_of(which, x) for which, x in zip("WH", args, strict=False)), **others)

    wrapper: Any = wrapped
    return wrapper


def is_named(x: Any) -> bool:
    """Whether `x` is a table."""
    return _reader_of(x) not in (None, _of_list)


def _reader_of(x: Any) -> Callable[..., Arrived] | None:
    kind: Any = type(x)
    return _reader(kind)


@functools.lru_cache(maxsize=256)
def _reader(kind: type) -> Callable[..., Arrived] | None:
    """What reads a table of this type; None for all else."""
    if kind is list:
        return _of_list
    for base in kind.__mro__:  # a frame of geopandas is one of pandas
        library, name = base.__module__.partition(".")[0], base.__qualname__
        if library == "anndata" and name in ("AnnData", "Raw"):
            return _of_anndata
        if library == "xarray" and name == "DataArray":
            return _of_xarray
        if library in FRAMES and name in TYPES:
            return _of_pandas if library == "pandas" else _of_frame
    return None


def _of_list(_: str, x: list[Any]) -> Arrived:
    """Rows of numbers as lists or arrays; what is nothing of the kind stays what it is, to be refused."""
    import numpy as np

    if not x or not all(isinstance(row, list | tuple | np.ndarray) for row in x):
        return Arrived(x)
    if any(libraries.is_masked(row) for row in x) or len({len(row) for row in x if hasattr(row, "__len__")}) != 1:
        return Arrived(x)
    try:
        values = np.asarray(x)
    except ValueError:  # of rows that differ further down
        return Arrived(x)
    if values.dtype.kind == "O":
        flat = _numbers(values.ravel().tolist())
        return Arrived(x if flat is None else np.asarray(flat).reshape(values.shape))
    return Arrived(values)


def _of_scipy(x: Any) -> Any:
    """An instance of a subclass of SciPy's sparse arrays, such as a view of AnnData's, as SciPy's own."""
    kind = type(x)
    if libraries.sparse_library(x) != "scipy" or kind.__module__.startswith("scipy."):
        return x
    base: Any = next(base for base in kind.__mro__ if base.__module__.startswith("scipy.sparse"))
    return base(x)


def _of_xarray(_: str, x: Any) -> Arrived:
    """The array of a DataArray, with the coordinates of its last two dimensions."""
    rows, columns = (
        tuple(x.indexes[dim].tolist()) if dim in x.indexes else None for dim in ((None, None, *x.dims)[-2:])
    )
    return Arrived(x.data, Names(rows, columns, "xarray"))


def _of_anndata(name: str, x: Any, layer: str | None = None) -> Arrived:
    """The matrix of AnnData or of its `raw`, with the names of observations and variables.

    Backed AnnData stays in its file.
    """
    names = Names(tuple(x.obs_names.tolist()), tuple(x.var_names.tolist()), "anndata")
    if layer is not None:
        if layer not in x.layers:
            known = ", ".join(map(repr, x.layers)) or "none"
            msg = f"`layer` must be one of the layers of `{name}`, which are {known}, got {layer!r}"
            raise ValueError(msg)
        return Arrived(_of_scipy(x.layers[layer]), names)
    if x.X is None:
        msg = f"`{name}` must hold a matrix, got AnnData without `X`; say which layer: `layer=...`"
        raise ValueError(msg)
    if getattr(x, "isbacked", False) and not x.is_view:
        return Arrived(x, names)
    return Arrived(_of_scipy(x.X), names)


def _of_pandas(name: str, x: Any) -> Arrived:
    """The numbers of a pandas frame: sparse ones where all columns are."""
    import numpy as np

    pandas: Any = sys.modules["pandas"]
    names = Names(_labels(x.index), _labels(x.columns), "pandas")
    dtypes = list(x.dtypes)
    objects = {j: _objects(x.iloc[:, j]) for j, dtype in enumerate(dtypes) if dtype.kind == "O" and _is_plain(dtype)}
    kinds = [objects[j] if j in objects else _kind(dtype, pandas) for j, dtype in enumerate(dtypes)]
    refused = [(x.columns[j], kind) for j, kind in enumerate(kinds) if isinstance(kind, str) and kind]
    _refuse(name, refused, "`.select_dtypes('number')` of it")
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
    found = _numbers(values)
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


def _of_frame(name: str, x: Any) -> Arrived:
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
        cells, labels = [x.column(j) for j in range(len(columns))], [str(j) for j in range(len(columns))]
        x = pyarrow.Table.from_arrays(cells, labels)
        frame = narwhals.from_native(x, eager_only=True)
    else:
        frame = narwhals.from_native(x, eager_only=True)
        columns = tuple(frame.columns)
    names = Names(None, columns, library)
    native = narwhals.to_native(frame)
    if hasattr(native, "index"):  # modin and cudf have pandas' index
        names = names._replace(rows=_labels(native.index))
    taken, refused, floats = [], [], []
    for label, column in zip(columns, frame.iter_columns(), strict=True):
        dtype = column.dtype
        if not (dtype.is_numeric() or dtype == narwhals.Boolean or column.null_count() == len(column)):
            refused.append((label, _words(str(dtype))))
            continue
        floats.append(np.dtype("float32") if dtype == narwhals.Float32 else np.dtype("float64"))
        taken.append(column.cast(narwhals.Float32 if dtype == narwhals.Float32 else narwhals.Float64))
    _refuse(name, refused, "the others alone")
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


def _numbers(values: list[Any]) -> list[float] | None:
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


def _refuse(name: str, columns: list[tuple[Any, str]], remedy: str) -> None:
    """One error for all columns without numbers."""
    if not columns:
        return
    kinds = " and ".join(sorted({kind for _, kind in columns}))
    listed = ", ".join(repr(text(label)) for label, _ in columns[:LISTED])
    more = f" and {len(columns) - LISTED} more" if len(columns) > LISTED else ""
    which = "columns" if len(columns) > 1 else "column"
    msg = f"`{name}` must hold numbers, got {kinds} in the {which} {listed}{more}; pass {remedy}"
    raise TypeError(msg)
