"""Optional twins of array-API functions: compiled for NumPy arrays, and by Pallas for JAX arrays on an NVIDIA GPU.

For NumPy they come compiled with the wheel (`ahead`), and take no time to load. Where that could not be, numba compiles
them when they are first called, if it is there.

Remove this package and every answer stays the same, to rounding. A kernel is chosen here and nowhere else; the
conformance kit compares each with its twin. `NMF_XP_KERNELS=0` in the environment does without all of them; it is
asked for whenever a function looks for a kernel, which is once for each program that JAX compiles. With `numba` those
that came with the wheel are left out; this is asked once.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
from typing import TYPE_CHECKING, Any

from nmf_xp.arrays import libraries
from nmf_xp.arrays.kernels import compiling, interrupts

if TYPE_CHECKING:
    from collections.abc import Callable

KERNELS = {
    "kl_divergence": "divergence",
    "kl_entries": "divergence",
    "kl_half_iteration": "multiplicative",
    "kl_iterations": "multiplicative",
    "least_squares_rows": "coordinate",
    "least_squares_sweeps": "coordinate",
    "coordinate_dense": "coordinate",
    "coordinate_sparse": "coordinate",
    "cyclic_iterations": "quadratic",
    "cyclic_sweep": "quadratic",
    "frobenius_iterations": "quadratic",
    "frobenius_rows": "quadratic",
    "small_cyclic_sweep": "small",
    "component_scales": "held",
    "dense_ending": "endings",
    "dense_report": "looks",
    "weighted_dense": "weighted",
    "weighted_sparse": "weighted",
    "coordinate_iterations": "extrapolated",
    "descent_iterations": "extrapolated",
    "newton_iterations": "extrapolated",
    "coordinate_loadings": "extrapolated",
    "newton_loadings": "extrapolated",
    "online_components": "online",
    "online_loadings": "online",
    "newton_dense": "newton",
    "newton_sparse": "stored",
    "kl_half_iteration_sparse": "stored",
    "kl_slopes_sparse": "stored",
    "power_parts": "powers",
    "power_divergence": "powers",
    "sampled_product": "sampled",
    "by_columns": "sampled",
    "dense_quotient": "fused_dense",
    "transposed_quotient": "fused_dense",
    "sparse_quotient": "fused_sparse",
    "gathered_product": "fused_sparse",
}
"""Which file holds which kernel."""

LEAST = 2**12
"""How many numbers there must be in NumPy arrays for numba: for less, loading it takes longer than all else."""

FOR_SMALL = {"small"}
"""The files whose kernels are for less than that, where none are compiled. They are NumPy's own operators."""

ONE_DTYPE = ({"d"}, {"f"})
"""The dtypes that kernels know, by NumPy's letters."""

FOR_JAX = {"fused_dense", "fused_sparse"}
"""The files whose kernels are for JAX. They take their twin first, for what they leave to it; see `gpu`."""


def find(name: str, *arrays: Any) -> Callable[..., Any] | None:
    """The kernel for these arrays; None where it is not for arrays of their kind or what compiles it is not here."""
    module = KERNELS[name]
    if module in FOR_JAX:
        usable = all(libraries.is_jax(x) for x in arrays) and wanted() and _serves_jax(*arrays)
    else:
        usable = _numpy_of_one_dtype(arrays) and wanted()
        if usable and compiling.library() is None:
            small = sum(x.size for x in arrays) < LEAST
            usable = small == (module in FOR_SMALL) and (small or _has_numba())
        else:
            usable = usable and module not in FOR_SMALL
    return _kernel(module, name) if usable else None


def _numpy_of_one_dtype(arrays: tuple[Any, ...]) -> bool:
    """Whether all are NumPy's, and those that are not indices of the same one of float32 and float64."""
    if not all(map(libraries.is_numpy, arrays)):
        return False
    return {x.dtype.char for x in arrays if x.dtype.kind not in "iu"} in ONE_DTYPE


@functools.cache
def _kernel(module: str, name: str) -> Callable[..., Any]:
    with interrupts.later():
        return getattr(importlib.import_module(f"nmf_xp.arrays.kernels.{module}"), name)


def wanted() -> bool:
    """Whether the environment leaves kernels on."""
    return os.environ.get("NMF_XP_KERNELS") != "0"


def compiles() -> bool:
    """Whether NumPy arrays have kernels in this process."""
    return wanted() and (compiling.library() is not None or _has_numba())


@functools.cache
def _has_numba() -> bool:
    return importlib.util.find_spec("numba") is not None


def _serves_jax(*arrays: Any) -> bool:
    gpu = importlib.import_module("nmf_xp.arrays.kernels.gpu")
    return gpu.serves(*arrays) and _has_pallas()


@functools.cache
def _has_pallas() -> bool:
    try:
        importlib.import_module("jax.experimental.pallas.triton")
    except ImportError:  # JAX promises nothing about it
        return False
    return True
