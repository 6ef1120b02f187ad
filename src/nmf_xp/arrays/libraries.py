"""What nmf_xp knows about array libraries: the only file that imports array-api-compat.

No array library is imported here. A library is recognised by the arrays that the user hands in, so it
has been imported already.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import array_api_compat

from nmf_xp.arrays import namespaces

if TYPE_CHECKING:
    from typing import TypeGuard

    import numpy as np

    from nmf_xp.arrays.typing import Array, Namespace


KNOWN = ("array_api_compat.", "array_api_strict", "jax.numpy", "numpy", "cupy", "dask.array", "sparse")
"""Namespaces that are asked for nothing."""

NUMBERS = "biufc"
"""The kinds of NumPy's dtypes that are numbers: an array of another kind may be JAX's, a derivative that is zero."""


def is_plain(x: Any) -> TypeGuard[np.ndarray[Any, Any]]:
    """Whether `x` is one of NumPy's own arrays in memory, as most are: so it is asked first."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and type(x) is numpy.ndarray


def is_array(x: Any) -> bool:
    """Whether `x` is an array of a namespace, as it says itself; what fails when it is asked is none."""
    if is_plain(x):
        return True
    try:
        return array_api_compat.is_array_api_obj(x)
    except Exception:
        return False


is_jax = array_api_compat.is_jax_array


is_dask = array_api_compat.is_dask_array


is_torch = array_api_compat.is_torch_array


is_cupy = array_api_compat.is_cupy_array
is_torch_namespace = array_api_compat.is_torch_namespace


def is_numpy(x: Any) -> TypeGuard[np.ndarray[Any, Any]]:
    """Whether `x` is NumPy's: asked many times an iteration, so without the cases that array-api-compat looks at."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(x, (numpy.ndarray, numpy.generic))


def array_namespace(*arrays: Any) -> Namespace:
    """Namespace of the arrays; TypeError when they are not arrays or not of one namespace."""
    for x in arrays:
        if not (is_numpy(x) and x.dtype.kind in NUMBERS):
            break
    else:
        if arrays:
            return _numpy_namespace()
    try:
        xp = array_api_compat.array_namespace(*arrays)
    except AttributeError:  # of a namespace that is no module
        kinds = ", ".join(sorted({f"{type(x).__module__}.{type(x).__qualname__}" for x in arrays}))
        msg = f"`V` must be an array of a namespace that follows the array API standard, got {kinds}"
        raise TypeError(msg) from None
    if getattr(xp, "__name__", "").startswith(KNOWN) or any(hasattr(x, "device") for x in arrays):
        return xp
    return namespaces.without_devices(xp)


@functools.cache
def _numpy_namespace() -> Namespace:
    found: Namespace = importlib.import_module("array_api_compat.numpy")
    return found


def lacking(xp: Namespace) -> tuple[str, ...]:
    """What is needed of a namespace and not there; nothing of those that are known."""
    return () if getattr(xp, "__name__", "").startswith(KNOWN) else namespaces.lacking(xp)


def device(x: Array) -> Any:
    """Device of an array, to be passed to creation functions; None where the array is being traced.

    For an array on a mesh of JAX devices it is the sharding that puts a copy on each of them.
    """
    if is_numpy(x):
        return "cpu"
    if is_traced(x):
        return None
    if on_mesh(x):
        return copies(x)
    try:
        return array_api_compat.device(x)
    except AttributeError:  # of a namespace that knows no devices
        return None


def on_mesh(x: Any) -> bool:
    """Whether `x` is a JAX array that lies, in one piece or many, on a mesh of devices."""
    if is_numpy(x) or not is_jax(x) or is_traced(x):
        return False
    return not isinstance(x.sharding, sys.modules["jax"].sharding.SingleDeviceSharding)


def copies(x: Any) -> Any:
    """The sharding that puts a copy of `x` on each device of its mesh."""
    sharding = sys.modules["jax"].sharding
    return sharding.NamedSharding(x.sharding.mesh, sharding.PartitionSpec())


def on_gpu(V: Any) -> bool:
    """Whether V, an array or a sparse array of any library, is on a device that is no CPU, as far as its type tells.

    What JAX traces is where its default device is; torch's "meta" is nowhere.
    """
    library = sparse_library(V)
    if library == "cupyx" or (library is None and array_api_compat.is_cupy_array(V)):
        return True
    if is_torch(V):
        return V.device.type not in ("cpu", "meta")
    if library != "jax" and not is_jax(V):
        return False
    jax = sys.modules["jax"]
    V = V.data if library == "jax" else V
    if is_traced(V):
        return bool(jax.default_backend() != "cpu")
    return any(device.platform != "cpu" for device in V.devices())


def is_traced(x: Any) -> bool:
    """Whether `x` stands for an array inside a user's `jax.jit`, `jax.vmap` or `jax.grad`."""
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(x, jax.core.Tracer)


def in_host_memory(x: Any) -> bool:
    """Whether `x` is an array of JAX or torch whose values NumPy can read where they are."""
    if is_torch(x):
        torch = sys.modules["torch"]
        plain = type(x) in (torch.Tensor, torch.nn.Parameter) and x.device.type == "cpu" and x.layout is torch.strided
        return plain and not torch._C._functorch.is_functorch_wrapped_tensor(x)
    if not is_jax(x) or is_traced(x) or on_mesh(x):
        return False
    return [device.platform for device in x.devices()] == ["cpu"]


def is_readable(x: Any) -> bool:
    """Whether the values of `x` can be read now: not for a JAX tracer, a dask array or a torch meta tensor."""
    return is_numpy(x) or not (is_traced(x) or is_dask(x) or str(getattr(x, "device", "")) == "meta")


def is_masked(x: Any) -> bool:
    """Whether `x` is a masked array: NumPy's, torch's or marray's."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(x, numpy.ma.MaskedArray):
        return True
    return type(x).__module__.startswith(("torch.masked", "marray"))


def sparse_library(x: Any) -> str | None:
    """The library of a sparse array, also of an instance of a subclass; None for all else."""
    if is_torch(x):
        return None if str(x.layout) == "torch.strided" else "torch"
    kind: Any = type(x)
    return _sparse_library_of(kind)


@functools.lru_cache(maxsize=256)
def _sparse_library_of(kind: type) -> str | None:
    modules = [base.__module__ for base in kind.__mro__]
    for prefix in ("scipy.sparse", "cupyx.scipy.sparse", "jax.experimental.sparse", "sparse."):
        if any(module.startswith(prefix) for module in modules):
            return prefix.partition(".")[0]
    return None


def is_foreign(x: Any) -> bool:
    """Whether `x` is an array, or a sparse array, of another library than NumPy and SciPy."""
    if is_numpy(x):
        return False
    library = sparse_library(x)
    return library != "scipy" if library is not None else is_array(x)


def dtype_name(dtype: Any) -> str:
    """Name of a dtype without its namespace: `float32`, whoever made it."""
    return getattr(dtype, "name", None) or str(dtype).rsplit(".", 1)[-1]


def default_dtype(xp: Namespace, device: Any) -> Any:
    """The namespace's default floating dtype on the device."""
    return xp.__array_namespace_info__().default_dtypes(device=device)["real floating"]


def accumulator_dtype(xp: Namespace, device: Any) -> Any:
    """The dtype in which sums accumulate: float64 where the device has it, else float32."""
    known = device if isinstance(device, Hashable) else None  # CuPy's have no hash, and all of them the same dtypes
    return _widest_dtype(xp, known, _jax_x64())


@functools.lru_cache(maxsize=64)
def _widest_dtype(xp: Namespace, device: Any, _x64: bool) -> Any:
    dtypes = xp.__array_namespace_info__().dtypes(kind="real floating", device=device)
    return dtypes.get("float64", dtypes["float32"])


def _jax_x64() -> bool:
    jax = sys.modules.get("jax")
    return jax is not None and bool(jax.config.jax_enable_x64)
