"""The machine and the versions with which a command ran."""

from __future__ import annotations

import platform
import sys

from nmf_xp.arrays import kernels
from nmf_xp.arrays.blas import processors
from nmf_xp.arrays.kernels import compiling

# What numbers and times depend on, by the names under which they are imported.
PACKAGES = ("numpy", "scipy", "numba", "threadpoolctl", "jax", "jaxlib", "torch", "cupy", "array_api_strict")


def environment() -> dict[str, str]:
    """Names and values, of the packages only those that are loaded."""
    said = {
        "python": platform.python_version(),
        "system": f"{platform.system()} on {platform.machine()}",
        "cores": str(processors()),
    }
    ready = compiling.library() if kernels.wanted() else None
    said |= {} if ready is None else {"kernels": ready.used()}
    return said | {name: str(sys.modules[name].__version__) for name in PACKAGES if name in sys.modules}
