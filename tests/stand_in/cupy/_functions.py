"""NumPy's functions as CuPy has them."""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any

import numpy as np

from ._arrays import READING, SCALARS, call, ndarray

if TYPE_CHECKING:
    from collections.abc import Callable

# What NumPy has and CuPy 14 has not, of what it could be taken for.
LACKING = {"asmatrix", "block", "einsum_path", "geomspace", "insert", "matvec", "nditer", "spacing", "unstack"}
LACKING |= {
    "vecdot",
    "vecmat",
    "nanpercentile",
    "nanquantile",
    "errstate",
    "seterr",
    "geterr",
    "matrix",
    "ma",
    "longdouble",
}
PLAIN = {"result_type", "can_cast", "promote_types", "broadcast_shapes", "isdtype", "issubdtype", "isscalar"}
PLAIN |= {"finfo", "iinfo", "min_scalar_type", "ndim", "shape", "size"}
CREATION = {"arange", "empty", "eye", "full", "identity", "indices", "linspace", "logspace", "ones", "tri", "zeros"}


def wrapped(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of NumPy as CuPy has it."""

    def of_arrays(*args: Any, **options: Any) -> Any:
        if "device" in options:
            msg = f"{name}() got an unexpected keyword argument 'device'"
            raise TypeError(msg)
        first = args[0] if args else None
        if name not in CREATION and (isinstance(first, np.ndarray) or is_list_of_numbers(first)):
            msg = f"Unsupported type {type(first)} in {name}"
            raise TypeError(msg)
        if name == "repeat" and not isinstance(args[1], int):
            msg = "cupy.ndaray cannot be specified as `repeats` argument."  # before 14.1
            raise ValueError(msg)
        if name in READING or (name == "where" and len(args) == 1):
            int(call(np.count_nonzero, first))  # how many there are decides the shape
        return call(function, *args, **options)

    of_arrays.__name__ = name
    return of_arrays


def is_list_of_numbers(x: Any) -> bool:
    return isinstance(x, list | tuple) and any(isinstance(item, SCALARS) for item in x)


def plain(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of dtypes and shapes, for which nothing is launched."""
    return lambda *args, **options: function(*(x.host if isinstance(x, ndarray) else x for x in args), **options)


def functions(of: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, thing in vars(of).items():
        if name.startswith("_") or name in LACKING or isinstance(thing, types.ModuleType):
            continue
        if isinstance(thing, type) and not issubclass(thing, np.generic | np.dtype | np.finfo | np.iinfo):
            continue
        if callable(thing) and not isinstance(thing, type):
            thing = plain(thing) if name in PLAIN else wrapped(name, thing)
        found[name] = thing
    return found
