"""Where a command runs: host arrays in the chosen library, on its device, in the chosen dtype."""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

import nmf_xp
from nmf_xp.arrays import faults, libraries
from nmf_xp.cli.terminal import say

BACKENDS = ("numpy", "jax", "torch", "cupy", "array_api_strict")


class Place(NamedTuple):
    """An array library, by the name under which it is imported, and a device and a dtype of it.

    Without a device it is the library's own choice. Without a dtype it is that of the data, on every backend alike:
    float32 for floating data of at most 32 bits, and float64 for all else.
    """

    backend: str
    device: str | None = None
    dtype: str | None = None

    def asarray(self, values: Any, dtype: str | None = None) -> Any:
        """The values of a NumPy or SciPy sparse array as an array of this place, in its dtype or in the one named.

        Row blocks are to come here one by one.
        """
        if isinstance(values, nmf_xp.RowBlocks):
            import numpy as np

            stored: Any = values.source
            name = dtype or self.dtype or _working_dtype(stored.dtype)
            return nmf_xp.RowBlocks(values, like=self.asarray(np.empty((0, 1)), name), dtype=name)
        name = dtype or self.dtype or _working_dtype(values.dtype)
        values = values.astype(name, copy=False)
        try:
            module = importlib.import_module(self.backend)
        except ImportError as error:
            msg = f"--backend {self.backend}: {error}; install it as its own documentation says, or choose another"
            raise ImportError(msg) from error
        if self.backend == "jax" and name == "float64":
            module.config.update("jax_enable_x64", True)
        sparse = not hasattr(values, "__array__")
        if sparse and self.backend == "array_api_strict":
            values, sparse = _dense(values), False
        try:
            return _SPARSE[self.backend](values, self.device) if sparse else _dense_array(values, self)
        except Exception as error:  # every library has its own for a device that is not there, or not large enough
            device = "" if self.device is None else f" --device {self.device}"
            said = " ".join(str(error).split()) or type(error).__name__
            advice = faults.remedy(said)
            msg = f"--backend {self.backend}{device}: {said}{'' if advice is None else f'; {advice}'}"
            raise ValueError(msg) from error


def describe(V: Any, place: Place) -> str:
    """Library, kind, device and dtype of an array, in words."""
    sparse = libraries.sparse_library(V) is not None
    values = V.data if sparse and place.backend != "torch" else V  # the stored entries say where they are
    device = str(getattr(values, "device", "cpu")).removeprefix("array_api_strict.")
    return f"{place.backend}{' (sparse)' if sparse else ''} on {device}, {libraries.dtype_name(V.dtype)}"


def _working_dtype(dtype: Any) -> str:
    """The dtype for data of this one: without rounding, but for what float64 cannot hold."""
    return "float32" if dtype.kind == "f" and dtype.itemsize <= 4 else "float64"


def _dense(values: Any) -> Any:
    """A sparse array with its zeros, said aloud, for a library that has no sparse arrays."""
    size = values.shape[0] * values.shape[1] * values.dtype.itemsize
    say(f"array_api_strict has no sparse arrays: the file is made dense, which takes {size / 1e6:.3g} MB")
    return values.toarray()


def _dense_array(values: Any, place: Place) -> Any:
    module = importlib.import_module("jax.numpy" if place.backend == "jax" else place.backend)
    xp = libraries.array_namespace(module.empty(0))
    device = None if place.device is None else _device(place.backend, place.device)
    return xp.asarray(values, **({} if device is None else {"device": device}))


def _device(backend: str, name: str) -> Any:
    """The device of that name; None for CuPy, where it becomes the current one."""
    match backend:
        case "jax":
            kind, _, number = name.partition(":")
            devices = importlib.import_module("jax").devices(kind)
            if not (number or "0").isdigit() or int(number or 0) >= len(devices):
                msg = f"there are only {', '.join(f'{kind}:{i}' for i in range(len(devices)))}"
                raise ValueError(msg)
            return devices[int(number or 0)]
        case "array_api_strict":
            return importlib.import_module(backend).Device(name)
        case "cupy":
            kind, _, number = name.rpartition(":")
            importlib.import_module(backend).cuda.Device(int(number.removeprefix("cuda") or 0)).use()
            return None
    return name


def _sparse_numpy(values: Any, device: str | None) -> Any:
    if device not in (None, "cpu"):
        msg = "numpy has no device but cpu"
        raise ValueError(msg)
    return values


def _sparse_torch(values: Any, device: str | None) -> Any:
    import numpy as np
    import torch

    values = values.tocoo()
    index = torch.from_numpy(np.stack([values.row, values.col]).astype(np.int64))
    return torch.sparse_coo_tensor(
        index, torch.from_numpy(values.data), values.shape, device=device, check_invariants=True
    )


def _sparse_jax(values: Any, device: str | None) -> Any:
    import jax
    from jax.experimental.sparse import BCOO

    return jax.device_put(BCOO.from_scipy_sparse(values), None if device is None else _device("jax", device))


def _sparse_cupy(values: Any, device: str | None) -> Any:
    if device is not None:
        _device("cupy", device)
    return importlib.import_module("cupyx.scipy.sparse").csr_matrix(values.tocsr())


_SPARSE = {"numpy": _sparse_numpy, "torch": _sparse_torch, "jax": _sparse_jax, "cupy": _sparse_cupy}
