"""The array: NumPy's numbers, in memory that only the current device and ordered streams may touch."""

from __future__ import annotations

import functools
import operator
import sys
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _devices

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

IMPLICIT = (
    "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array explicitly."
)
SCALARS = (bool, int, float, complex, np.generic)
READING = {"nonzero", "argwhere", "flatnonzero", "unique", "bincount", "extract", "compress", "setdiff1d"}
"""Functions that wait for a value, because the shape of what they return depends on it."""


class ndarray:  # noqa: N801 - CuPy's name
    """An array on a device: nothing converts it to NumPy's but `get`, and it takes none of NumPy's beside it."""

    __array_priority__ = 100
    __hash__ = None  # type: ignore[assignment]
    host: np.ndarray[Any, Any]  # the numbers
    memory: _devices.Memory

    def __init__(self, shape: Any, dtype: Any = float) -> None:
        self._set(np.empty(shape, dtype))

    def _set(self, host: np.ndarray[Any, Any], memory: _devices.Memory | None = None) -> ndarray:
        self.host = host
        self.memory = memory or _devices.Memory(host.nbytes)
        return self

    @property
    def device(self) -> _devices.Device:
        """Where it is."""
        return _devices.Device(self.memory.device)

    T = property(lambda self: call(np.transpose, self))
    mT = property(lambda self: call(np.swapaxes, self, -1, -2))  # noqa: N815 - the standard's
    real = property(lambda self: call(np.real, self))
    base = property(lambda self: None if self.host.base is None else self)

    def __len__(self) -> int:
        return len(self.host)

    def __iter__(self) -> Iterator[ndarray]:
        if not self.host.ndim:
            msg = "iteration over a 0-d array"
            raise TypeError(msg)
        return (self[i] for i in range(len(self)))

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError(IMPLICIT)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        function = getattr(sys.modules["cupy"], ufunc.__name__, None)
        if method != "__call__" or function is None:
            return NotImplemented
        return function(*inputs, **options)

    def __array_function__(self, function: Any, types: Any, inputs: Any, options: Any) -> Any:
        ours = getattr(sys.modules["cupy"], function.__name__, None)
        if ours is None or not all(issubclass(kind, ndarray) for kind in types):
            return NotImplemented
        return ours(*inputs, **options)

    def get(self, stream: Any = None, order: Any = "C", out: Any = None, blocking: bool = True) -> Any:
        """The values as a NumPy array: the host waits for the current stream, whose device need not be the array's."""
        with self.device:
            key = _devices.launch()
            self.memory.reads(key)
            _devices.counts.to_host += 1
            _devices.read_host(key)
            return self.host.copy(order=order)

    def item(self) -> Any:
        """The one value."""
        return self.get().item()

    def tolist(self) -> Any:
        """The values as Python numbers."""
        return self.get().tolist()

    def __bool__(self) -> bool:
        return bool(self.get())

    def __int__(self) -> int:
        return int(self.get())

    def __float__(self) -> float:
        return float(self.get())

    def __complex__(self) -> complex:
        return complex(self.get())

    def __index__(self) -> int:
        return operator.index(self.get().item())

    def __repr__(self) -> str:
        return repr(self.get())

    def __getitem__(self, key: Any) -> ndarray:
        for mask in key if isinstance(key, tuple) else (key,):
            if isinstance(mask, ndarray) and mask.host.dtype == bool:
                int(call(np.count_nonzero, mask))  # how many there are decides the shape
        return call(operator.getitem, self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        change(operator.setitem, self, key, value)

    def fill(self, value: Any) -> None:
        """One value everywhere."""
        change(np.ndarray.fill, self, value)

    def astype(
        self, dtype: Any, order: Any = "K", casting: Any = None, subok: Any = None, copy: bool = True
    ) -> ndarray:
        """The same values in a dtype; the array itself where it has it and `copy` is False."""
        if not copy and self.host.dtype == np.dtype(dtype):
            return self
        return call(np.ndarray.astype, self, dtype, order=order)

    def copy(self, order: Any = "C") -> ndarray:
        """A copy on the current device, wherever the array is."""
        if self.memory.device == _devices.current.device:
            return call(np.ndarray.copy, self, order)
        with self.device:
            key = _devices.launch()
            self.memory.reads(key)
            event = _devices.get_current_stream().record()
        _devices.get_current_stream().wait_event(event)
        return new(self.host.copy(order))

    def reshape(self, *shape: Any, order: Any = "C") -> ndarray:
        """A view where that is possible."""
        return call(np.ndarray.reshape, self, *shape, order=order)

    def view(self, dtype: Any = None) -> ndarray:
        """The same memory."""
        return call(np.ndarray.view, self) if dtype is None else call(np.ndarray.view, self, dtype)


def new(host: np.ndarray[Any, Any]) -> ndarray:
    """An array that something launched now makes."""
    array = object.__new__(ndarray)._set(host)
    array.memory.writes(_devices.launch())
    return array


def from_host(host: np.ndarray[Any, Any]) -> ndarray:
    """A copy of NumPy's numbers: CuPy stages them in pinned memory, so that the host need not wait."""
    array = new(host)
    _devices.counts.to_device += 1
    key = _devices.get_current_stream().key
    _devices.counts.transfers.append(_devices.Transfer(key, host.nbytes, dict(_devices.clocks[key])))
    return array


def call(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """NumPy's function of the numbers, launched on the current stream where it is more than a view of them."""
    inputs = list(_arrays((args, options)))
    found = _numbers(function, args, options)
    out = options.get("out")
    made: list[ndarray] = []
    result = out if isinstance(out, ndarray) else _dressed(found, inputs, made)
    if made or out is not None:
        key = _touch(inputs)
        for array in made if out is None else [out]:
            array.memory.writes(key)
    return result


def change(function: Callable[..., Any], array: ndarray, *args: Any) -> ndarray:
    """The same for a function that writes into its first argument."""
    _numbers(function, (array, *args), {})
    array.memory.writes(_touch(list(_arrays((array, args)))))
    return array


def _numbers(function: Callable[..., Any], args: Any, options: Any) -> Any:
    with np.errstate(all="ignore"), warnings.catch_warnings():  # a kernel says nothing of overflow
        warnings.simplefilter("ignore", RuntimeWarning)
        return function(*_bare(args), **_bare(options))


def _touch(inputs: list[ndarray]) -> _devices.Key:
    """Launch something that reads these arrays, which must be on the current device."""
    for array in inputs:
        if array.memory.device != _devices.current.device:
            where = f"({array.memory.device}) is different from the current device ({_devices.current.device})"
            msg = f"The device where the array resides {where}. Peer access is unavailable between these devices."
            raise ValueError(msg)
    key = _devices.launch()
    for array in inputs:
        array.memory.reads(key)
    return key


def _arrays(x: Any) -> Iterator[ndarray]:
    """The arrays in arguments; NumPy's are refused."""
    if isinstance(x, ndarray):
        yield x
    elif isinstance(x, np.ndarray):
        msg = f"Unsupported type {type(x)}"
        raise TypeError(msg)
    elif isinstance(x, dict):
        yield from _arrays(tuple(x.values()))
    elif isinstance(x, tuple | list):
        for item in x:
            yield from _arrays(item)


def _bare(x: Any) -> Any:
    """Arguments with the numbers in the place of the arrays."""
    if isinstance(x, ndarray):
        return x.host
    if isinstance(x, dict):
        return {name: _bare(value) for name, value in x.items()}
    return type(x)(map(_bare, x)) if type(x) in (tuple, list) else x


def _dressed(x: Any, inputs: list[ndarray], made: list[ndarray]) -> Any:
    """What NumPy returned with arrays of the device in the place of its own; new ones also go into `made`."""
    if isinstance(x, tuple | list):
        parts = [_dressed(part, inputs, made) for part in x]
        return type(x)(*parts) if hasattr(x, "_fields") else type(x)(parts)
    if not isinstance(x, np.ndarray | np.generic):
        return x
    host = np.asarray(x)  # there are no scalars of its own
    for array in inputs:
        if host.size and np.may_share_memory(host, array.host):
            return object.__new__(ndarray)._set(host, array.memory)
    made.append(object.__new__(ndarray)._set(host))
    return made[-1]


def _operator(name: str, function: Callable[..., Any]) -> None:
    def forward(self: ndarray, other: Any) -> Any:
        if isinstance(other, np.ndarray):
            msg = f"Unsupported type {type(other)}"
            raise TypeError(msg)
        return call(function, self, other) if isinstance(other, (ndarray, *SCALARS)) else NotImplemented

    def backward(self: ndarray, other: Any) -> Any:
        return call(function, other, self) if isinstance(other, SCALARS) else NotImplemented

    def in_place(self: ndarray, other: Any) -> Any:
        return change(getattr(operator, f"i{name.strip('_')}"), self, other)

    setattr(ndarray, f"__{name}__", forward)
    if name not in COMPARISONS:
        setattr(ndarray, f"__r{name}__", backward)
        setattr(ndarray, f"__i{name}__", in_place)


COMPARISONS = ("lt", "le", "gt", "ge", "eq", "ne")
for _name in (*COMPARISONS, "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor"):
    _operator(_name, getattr(operator, f"__{_name}__"))
METHODS = (
    *("__neg__", "__pos__", "__abs__", "__invert__", "sum", "prod", "mean", "std", "var", "min", "max", "any", "all"),
    *("argmin", "argmax", "argsort", "cumsum", "ravel", "flatten", "take", "repeat", "dot", "round", "clip", "squeeze"),
    *("swapaxes", "transpose", "diagonal"),
)
for _name in METHODS:
    _method = getattr(np.ndarray, _name)
    setattr(ndarray, _name, functools.partialmethod(lambda self, f, *a, **k: call(f, self, *a, **k), _method))
for _name in ("shape", "dtype", "ndim", "size", "nbytes", "itemsize", "strides", "flags"):
    setattr(ndarray, _name, property(operator.attrgetter(f"host.{_name}")))
ndarray.__module__ = "cupy"
