"""Values between a device and the host: the places where something waits for a device."""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any

from nmf_xp.arrays import arrival
from nmf_xp.arrays.libraries import (
    array_namespace,
    copies,
    dtype_name,
    is_array,
    is_cupy,
    is_dask,
    is_jax,
    is_numpy,
    is_plain,
    is_torch,
    on_mesh,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from nmf_xp.arrays.typing import Array, Namespace


OUT = ("asnumpy", "unwrap_numpy", "to_numpy", "numpy", "get")
"""What libraries call their way to NumPy: dpnp and cupynumeric, ndonnx, tables, tensors, CuPy's kin."""


def computed(x: Any) -> Any:
    """A dask array as the array that it stands for, and all else as it is."""
    return x.compute() if is_dask(x) else x


def in_row_order(x: Array) -> Array:
    """The array with its rows one after the other in memory, where a library knows of such an order.

    Sums over an axis differ in their last digits from one order to the other, and no file of factors keeps it.
    """
    if is_torch(x):
        return x.contiguous()
    return array_namespace(x).ascontiguousarray(x) if is_numpy(x) or is_cupy(x) else x


def copied(x: Any) -> Any:
    """An array of its own that a callback may write into; as it is where nothing can be written."""
    if is_jax(x) or is_dask(x) or not is_array(x):
        return x
    return x.detach().clone() if is_torch(x) else array_namespace(x).asarray(x, copy=True)


def to_host(x: Any) -> np.ndarray[Any, Any]:
    """NumPy array with the values of `x`, from any device."""
    import numpy as np

    if is_cupy(x):
        return x.get()
    if is_torch(x):
        return x.detach().cpu().numpy()
    if type(x).__module__.startswith("array_api_strict"):
        import array_api_strict

        return np.asarray(x.to_device(array_api_strict.Device("CPU_DEVICE")))
    if on_mesh(x) and not x.is_fully_addressable and not x.is_fully_replicated:  # other processes hold some of it
        x = sys.modules["jax"].jit(lambda x: x, out_shardings=copies(x))(x)
    return np.asarray(x) if is_numpy(x) or is_jax(x) or not is_array(x) else _host_of_another(x)


def _host_of_another(x: Any) -> np.ndarray[Any, Any]:
    """The same for a library that is not known: by conversion, by its own way out, or by DLPack.

    Some refuse to be converted without being told, and of some NumPy makes an array of objects.
    """
    import numpy as np

    ways: list[Callable[[], Any]] = [lambda: np.asarray(x)] if hasattr(x, "__array__") else []
    ways += [functools.partial(_asked, x, name) for name in OUT if callable(getattr(x, name, None))]
    ways += [lambda: np.from_dlpack(x), lambda: np.from_dlpack(x, device="cpu")] if hasattr(x, "__dlpack__") else []
    for way in ways:
        try:
            host = way()
        except Exception:
            continue
        if host.dtype != object:
            return arrival.plain(host)
    name = f"{type(x).__module__}.{type(x).__qualname__}"
    msg = f"`V` must be of a library whose arrays can be read, got {name}; pass a NumPy array of its values"
    raise TypeError(msg)


def _asked(x: Any, name: str) -> Any:
    """What a method without arguments returns, as a NumPy array."""
    import numpy as np

    return np.asarray(getattr(x, name)())


def to_device_of(x: Any, like: Any) -> Any:
    """`x`, on the device of another array of its library."""
    if is_torch(x):
        return x.to(like.device)
    if is_cupy(x) and x.device != like.device:
        with like.device:
            return array_namespace(x).asarray(x, copy=True)
    return x


def from_host(x: np.ndarray[Any, Any], *, xp: Namespace, dtype: Any, device: Any, staged: bool = False) -> Array:
    """Array of namespace `xp` with the values of a NumPy array.

    Where they are `staged`, the copy to a GPU is one that runs beside what the GPU computes: torch has to be told to
    make it from pinned memory, CuPy does so by itself.
    """
    import numpy as np

    numpys = dtype if isinstance(dtype, np.dtype) else getattr(np, dtype_name(dtype), None)
    if numpys is not None:  # round on the host: half the bytes travel, and JAX need not warn of truncation
        x = x.astype(numpys, copy=False)
    if staged and getattr(device, "type", None) == "cuda":
        return xp.asarray(x, dtype=dtype, device="cpu").pin_memory().to(device, non_blocking=True)
    keyword = {} if device is None else {"device": device}  # a traced array has none
    return xp.asarray(x, dtype=dtype, **keyword)


def scalar(x: Array) -> float:
    """Read a 0-d array as a Python float: the one place where the loop waits for a device."""
    return float(x.detach() if is_torch(x) else x)


def least(x: Array, *, xp: Namespace) -> float:
    """The least entry, as a Python float; NumPy is asked without what it does first for other kinds of arrays."""
    if is_plain(x):
        return float(sys.modules["numpy"].minimum.reduce(x, axis=None))
    return scalar(xp.min(x))


def largest(x: Array, *, xp: Namespace) -> float:
    """The largest one likewise."""
    if is_plain(x):
        return float(sys.modules["numpy"].maximum.reduce(x, axis=None))
    return scalar(xp.max(x))
