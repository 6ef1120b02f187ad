"""Optional twins of array-API functions: compiled by numba, where it is installed, for NumPy arrays.

Remove this package and every answer stays the same, to rounding. A kernel is chosen here and nowhere else; the
conformance kit compares each with its twin.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from nmf_xp import _compat

if TYPE_CHECKING:
    from collections.abc import Callable

KERNELS = {
    "kl_iteration": "multiplicative",
    "least_squares_sweeps": "coordinate",
    "newton_dense": "coordinate",
    "newton_sparse": "coordinate",
    "sampled_product": "sampled",
}
"""Which file holds which kernel."""


def find(name: str, *arrays: Any) -> Callable[..., Any] | None:
    """The kernel for these arrays; None where they are not NumPy's, not contiguous, or numba is not installed."""
    if not _has_numba() or not all(_compat.is_numpy(x) for x in arrays):
        return None
    return getattr(importlib.import_module(f"nmf_xp._kernels.{KERNELS[name]}"), name)


@functools.cache
def _has_numba() -> bool:
    return importlib.util.find_spec("numba") is not None
