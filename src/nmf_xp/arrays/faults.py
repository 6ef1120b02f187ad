"""What a device says when it fails, as one error that says what to do; and nothing that it was doing is kept."""

from __future__ import annotations

import functools
import gc
import math
import sys
import traceback
from typing import TYPE_CHECKING, Any, TypeVar

from nmf_xp.arrays import libraries, memory, precision

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., Any]")

ARRAYS = 14  # of a block's size: three are read ahead, in use and not yet free, a divergence has the others
OF_A_GPU = (
    *("CUDARuntimeError", "CUDADriverError", "CompileException", "AcceleratorError", "NVRTCError"),
    *("CUBLASError", "CuSparseError", "CUSOLVERError", "CURANDError", "CuFFTError"),
)
# What a library says where its device has no more memory: torch's of cuBLAS too, which needs some of its own.
FULL = ("out of memory", "out_of_memory", "resource_exhausted", "alloc_failed", "cublas_status_not_initialized")
REMEDIES = {
    "no GPU can be seen; see whether `nvidia-smi` lists one and CUDA_VISIBLE_DEVICES names it, or use a CPU": (
        *("no CUDA-capable device", "Found no NVIDIA driver", "CUDA_ERROR_NO_DEVICE"),
    ),
    "the driver does not fit the CUDA of this library; update it, or install the library's build for an older CUDA": (
        *("driver version is insufficient", "driver on your system is too old", "DriverMismatch", "DRIVER_MISMATCH"),
        *("unsupported toolchain", "UnsupportedPtxVersion"),
    ),
    "the GPU is too old for this build of the library; install one that supports it, or use a CPU": (
        *("no kernel image", "gpu-architecture", "invalid device function", "NO_BINARY_FOR_GPU"),
    ),
}
LOST = (
    "nothing on it can be used any more; start a new process, "
    "in which the same call with a `checkpoint` goes on from where it was last kept"
)


class DeviceError(RuntimeError):
    """A device or its driver failed."""


def explained(function: F) -> F:
    """The function of V with one error where its device has no more memory or fails."""

    @functools.wraps(function)
    def wrapped(V: Any, /, *args: Any, **options: Any) -> Any:
        try:
            return function(V, *args, **options)
        except Exception as error:
            full = is_out_of_memory(error)
            if not full and not is_of_a_device(error):
                raise
            said = _first_line(error)
            _forget(error)
        # Out of the handler the error is gone, and with it the arrays of its frames.
        if full:
            with precision.on_their_device(V, *args, *options.values()):
                _release()
            raise MemoryError(_what_fits(V))
        msg = f"`V`'s device failed in the middle of the run, got {said}: {remedy(said) or LOST}"
        raise DeviceError(msg)

    return wrapped  # type: ignore[return-value]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a library says so; NumPy and CuPy raise a MemoryError, torch and JAX errors of their own."""
    said, theirs = str(error).lower(), isinstance(error, RuntimeError) or type(error).__name__ in OF_A_GPU
    return isinstance(error, MemoryError) or (theirs and any(words in said for words in FULL))


def is_of_a_device(error: BaseException) -> bool:
    """Whether a GPU or its driver failed."""
    said = str(error)
    return type(error).__name__ in OF_A_GPU or (
        isinstance(error, RuntimeError) and ("CUDA error" in said or "CUDA_ERROR" in said)
    )


def remedy(words: str) -> str | None:
    """What to do where a library says this of its GPU; None where that is not known."""
    for advice, signs in REMEDIES.items():
        if any(sign in words for sign in signs):
            return advice
    return None


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _forget(error: BaseException | None) -> None:
    """Empty the frames that an error holds, and those of the errors behind it: what was computed is there."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _release() -> None:
    """Give memory that is out of use back to the device."""
    gc.collect()
    if "cupy" in sys.modules:
        sys.modules["cupy"].get_default_memory_pool().free_all_blocks()
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _what_fits(V: Any) -> str:
    """How much V takes, how much is left, and how many rows at a time would do."""
    shape = getattr(V, "shape", None)
    if libraries.is_dask(V):
        return (
            "`V` and what an iteration needs beside it must fit in the memory of the workers, one of which had no "
            "more. What fits: smaller chunks of V, fewer threads a worker, or float32"
        )
    if libraries.sparse_library(V) is not None or not libraries.is_array(V) or len(shape or ()) != 2:
        return (
            "`V` and what an iteration needs beside it must fit in the memory, which had no more. What fits: blocks of "
            "fewer rows as `RowBlocks`, fewer restarts or a smaller stack at a time, or float32"
        )
    m, n = V.shape
    itemsize = V.dtype.itemsize
    free = _free(V)
    rows = min(m, (free + m * n * itemsize) // (ARRAYS * n * itemsize))
    narrower = ", or float32, which takes half of it" if itemsize == 8 else ""
    return (
        f"`V` and what an iteration needs beside it must fit in the memory, got shape {(m, n)} in "
        f"{libraries.dtype_name(V.dtype)}, which takes {_size(m * n * itemsize)}, and {_size(free)} beside it. "
        f"What fits: V on the host, read in blocks of at most {max(1, rows)} rows, "
        f"`RowBlocks(..., like=V[:1])`{narrower}"
    )


def _free(V: Any) -> int:
    """Bytes that are free where V is."""
    if libraries.is_cupy(V):
        return int(V.device.mem_info[0])
    if libraries.is_torch(V) and V.device.type == "cuda":
        return int(sys.modules["torch"].cuda.mem_get_info(V.device)[0])
    if libraries.is_jax(V) and not libraries.is_traced(V):
        (device, *_) = V.devices()
        stats = device.memory_stats() or {}
        if "bytes_limit" in stats:
            return max(0, int(stats["bytes_limit"] - stats["bytes_in_use"]))
    return memory.available()


def _size(count: int) -> str:
    """Bytes, in words."""
    power = min(3, int(math.log(max(1, count), 1000)))
    return f"{count / 1000**power:.3g} {('bytes', 'kB', 'MB', 'GB')[power]}"
