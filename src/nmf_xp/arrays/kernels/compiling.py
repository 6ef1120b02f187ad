"""How kernels are compiled: once for each dtype, kept on disk, without the interpreter's lock.

Sums may be reordered, which makes them fast; NaN and infinities keep their meaning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numba

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., Any]")

_options: Any = {"fastmath": {"contract", "reassoc", "nsz"}, "nogil": True, "error_model": "numpy"}


def jit(function: F) -> F:
    """A compiled function."""
    return numba.njit(cache=True, **_options)(function)


def inlined(function: F) -> F:
    """A compiled function that becomes part of its caller, where it can be optimised with it."""
    return numba.njit(inline="always", **_options)(function)
