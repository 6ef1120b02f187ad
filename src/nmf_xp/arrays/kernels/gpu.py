"""How a Pallas kernel stands in for its twin in JAX programs.

Whether a kernel compiles depends on the GPU and on JAX's version, so each is compiled once for its shapes before it is
used; where that fails, the twin stays. Stacks under `jax.vmap`, derivatives, and programs for other devices are the
twin's.
"""

from __future__ import annotations

import functools
import warnings
from typing import TYPE_CHECKING, Any

import jax

if TYPE_CHECKING:
    from collections.abc import Callable

LARGEST_ROW = 512  # bytes of a row of a factor, such that the tiles fit any GPU's registers and shared memory
FIRST_CAPABILITY = 8  # Ampere, the oldest that Pallas compiles for

array: Any = jax.ShapeDtypeStruct  # the shape and dtype of one


def serves(*arrays: Any) -> bool:
    """Whether a kernel may take these arrays: single matrices of a dtype that it knows, on the one CUDA device.

    With several devices arrays may be divided among them, which a trace does not show and a kernel cannot follow.
    """
    return (
        device() is not None
        and all(x.ndim < 3 for x in arrays)
        and all(x.dtype.name in ("float32", "float64") for x in arrays if x.dtype.kind == "f")
    )


def device() -> Any:
    """The one GPU that kernels are for; None where there is none or several, or it is too old or not NVIDIA's.

    Nor where the user has chosen another default device: JAX 0.11 asks that one for which chip a kernel is compiled.
    """
    if jax.default_backend() != "gpu" or jax.device_count() > 1:
        return None
    (found,) = jax.devices()
    config: Any = jax.config
    if config.jax_default_device not in (None, found, "gpu"):
        return None
    major = str(getattr(found, "compute_capability", "")).partition(".")[0]
    return found if major.isdigit() and int(major) >= FIRST_CAPABILITY else None


def run(kernel: Callable[..., Any], twin: Callable[..., Any], *args: Any, factor: Any) -> Any:
    """`twin(*args)`, in the kernel where that compiles and is made for the rank of a `factor` (m, r).

    Both are functions of a module, so that programs are kept.
    """
    leaves, structure = jax.tree.flatten(args)
    too_wide = factor.shape[1] * factor.dtype.itemsize > LARGEST_ROW
    if too_wide or not compiles(kernel, structure, *((x.shape, x.dtype) for x in leaves)):
        return twin(*args)
    return program(kernel, twin)(*args)


@functools.cache
def program(kernel: Callable[..., Any], twin: Callable[..., Any]) -> Callable[..., Any]:
    """The kernel where a program is compiled for CUDA; else, under `jax.vmap` and in derivatives, the twin."""

    @jax.custom_batching.custom_vmap
    def choose(*args: Any) -> Any:
        return jax.lax.platform_dependent(*args, cuda=kernel, default=twin)

    @choose.def_vmap
    def _(size: int, batched: Any, *args: Any) -> Any:
        axes = jax.tree.map(lambda is_batched: 0 if is_batched else None, batched)
        return jax.vmap(twin, in_axes=tuple(axes), axis_size=size)(*args), True

    differentiable: Any = jax.custom_jvp(choose)
    differentiable.defjvp(lambda primals, tangents: jax.jvp(twin, primals, tangents))
    return jax.jit(differentiable)


@functools.cache
def compiles(kernel: Callable[..., Any], structure: Any, *leaves: tuple[tuple[int, ...], Any]) -> bool:
    """Whether the kernel compiles on this GPU for arrays of these shapes and dtypes."""
    here = jax.sharding.SingleDeviceSharding(device())
    args = jax.tree.unflatten(structure, [array(*leaf, sharding=here) for leaf in leaves])
    try:
        with warnings.catch_warnings():  # JAX 0.11 deprecates the language of the kernels
            warnings.simplefilter("ignore", DeprecationWarning)
            jax.jit(kernel).lower(*args).compile()
    except Exception as error:  # of many kinds, and each leaves the twin
        msg = f"the kernel {kernel.__name__} does not compile here and is left out; the results are the same: {error}"
        warnings.warn(msg, RuntimeWarning, stacklevel=2)
        return False
    return True
