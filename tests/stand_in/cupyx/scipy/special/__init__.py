"""See cupy."""

from __future__ import annotations

from typing import Any

import cupy._arrays
import scipy.special


def xlog1py(x: Any, y: Any) -> Any:
    """x log1p(y), 0 where x is 0 and y a number."""
    return cupy._arrays.call(scipy.special.xlog1py, x, y)
