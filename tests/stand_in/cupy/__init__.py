"""CuPy 14 as far as this project and array-api-compat use it, made of NumPy, for machines without a GPU.

It refuses what CuPy refuses, counts what the host waits for and what travels, and has two devices. What it cannot show
is said in docs/how-to/gpu.md. A test has it by `tests.stand_in.installed`, another process by its folder on PYTHONPATH.
"""

from __future__ import annotations

import builtins
import sys
import types
from typing import Any

import numpy as np

from . import _devices
from ._arrays import call as _call
from ._arrays import from_host as _from_host
from ._arrays import ndarray
from ._functions import functions as _functions

__version__ = "14.2.0"


def asarray(a: Any, dtype: Any = None, order: Any = None, *, copy: bool | None = None, blocking: bool = False) -> Any:
    """An array of the current device; `a` itself where it is one."""
    return array(a, dtype, copy, order)


def array(
    obj: Any,
    dtype: Any = None,
    copy: bool | None = True,
    order: Any = "K",
    subok: bool = False,
    ndmin: int = 0,
    *,
    blocking: bool = False,
) -> Any:
    """An array of the current device."""
    if not isinstance(obj, ndarray):
        if copy is False:
            msg = "Unable to avoid copy while creating an array as requested"
            raise ValueError(msg)
        if isinstance(obj, list | tuple) and builtins.any(isinstance(x, ndarray) for x in obj):
            return stack([asarray(x, dtype) for x in obj])  # type: ignore[name-defined] # noqa: F821
        host = np.array(obj, dtype=dtype, order=order or "K", ndmin=ndmin)
        return _from_host(host) if isinstance(obj, np.ndarray) and host.ndim else _call(lambda: host)
    if obj.device != _devices.Device():
        obj = obj.copy()
    return obj.astype(obj.dtype if dtype is None else dtype, order=order or "K", copy=builtins.bool(copy))


def asnumpy(a: Any, *_: Any, **__: Any) -> Any:
    """A NumPy array."""
    return a.get() if isinstance(a, ndarray) else np.asarray(a)


def searchsorted(a: Any, v: Any, side: str = "left", sorter: Any = None) -> Any:
    """Of arrays only."""
    if not isinstance(a, ndarray):
        msg = "Only int or ndarray are supported for a"
        raise NotImplementedError(msg)
    if not isinstance(v, ndarray):
        msg = "Only python scalars or ndarrays are supported for v"
        raise NotImplementedError(msg)
    return _call(np.searchsorted, a, v, side, sorter)


def may_share_memory(a: Any, b: Any, max_work: Any = None) -> bool:
    """Whether two arrays lie in the same memory."""
    return np.may_share_memory(a.host, b.host)


def _module(name: str, **things: Any) -> types.ModuleType:
    module = types.ModuleType(f"{__name__}.{name}")
    module.__dict__.update(things, __path__=[])
    sys.modules[module.__name__] = module
    return module


globals().update({name: thing for name, thing in _functions(np).items() if name not in globals()})
newaxis = None
linalg = _module("linalg", LinAlgError=np.linalg.LinAlgError, **_functions(np.linalg))
fft = _module("fft", **_functions(np.fft))
for _extension in (linalg, fft):
    _extension.__all__ = [name for name in vars(_extension) if not name.startswith("_")]  # type: ignore[attr-defined]
random = _module("random", default_rng=lambda seed=None: _Generator(seed))
testing = _module("testing")


class _Generator:
    """Random numbers, which are not CuPy's."""

    def __init__(self, seed: int | None) -> None:
        self._host = np.random.default_rng(seed)

    def random(self, size: Any = None, dtype: Any = float) -> Any:
        """Uniform numbers."""
        return _call(lambda: np.asarray(self._host.random(size, dtype)))


cuda = _module(
    "cuda",
    Device=_devices.Device,
    Event=_devices.Event,
    Stream=_devices.Stream,
    get_current_stream=_devices.get_current_stream,
    is_available=lambda: len(_devices.failing) < _devices.COUNT,
    runtime=_module(
        "cuda.runtime",
        CUDARuntimeError=_devices.CUDARuntimeError,
        getDevice=lambda: _devices.current.device,
        getDeviceCount=lambda: _devices.COUNT,
    ),
    memory=_module("cuda.memory", OutOfMemoryError=_devices.OutOfMemoryError),
    device=_module("cuda.device", Device=_devices.Device),
    MemoryPool=_devices.MemoryPool,
)


def get_default_memory_pool() -> _devices.MemoryPool:
    """The pool of the current device."""
    return _devices.MemoryPool()


_NOT_OURS = ("annotations", "builtins", "np", "sys", "types")
__all__ = [name for name in list(globals()) if not name.startswith("_") and name not in _NOT_OURS]
