"""Tables with names, as the array that each of them holds: pandas, polars, pyarrow, xarray, AnnData, lists of lists.

None of their libraries is imported here: a table is recognised by its type, so its library is there already. Tables
other than pandas' are read through narwhals. A missing value becomes NaN, whatever the table calls it.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, TypeVar

from nmf_xp.arrays import libraries
from nmf_xp.arrays.keywords import check_keywords
from nmf_xp.data.frames import FRAMES, TYPES, of_frame, of_pandas
from nmf_xp.data.naming import Arrived, Names, numbers_of

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., Any]")


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
            return of_pandas if library == "pandas" else of_frame
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
        flat = numbers_of(values.ravel().tolist())
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
        layers = getattr(x, "layers", {})  # which `raw` has not
        if layer not in layers:
            known = ", ".join(map(repr, layers)) or "none"
            msg = f"`layer` must be one of the layers of `{name}`, which are {known}, got {layer!r}"
            raise ValueError(msg)
        return Arrived(_of_scipy(x.layers[layer]), names)
    if x.X is None:
        msg = f"`{name}` must hold a matrix, got AnnData without `X`; say which layer: `layer=...`"
        raise ValueError(msg)
    if getattr(x, "isbacked", False) and not x.is_view:
        return Arrived(x, names)
    return Arrived(_of_scipy(x.X), names)
