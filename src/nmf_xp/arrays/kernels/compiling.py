"""How kernels are compiled: once for each dtype, kept on disk, without the interpreter's lock.

Sums may be reordered, which makes them fast; NaN and infinities keep their meaning.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, TypeVar

import numba

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., Any]")

_options: Any = {"fastmath": {"contract", "reassoc", "nsz"}, "nogil": True, "error_model": "numpy"}


def jit(function: F) -> F:
    """A compiled function, kept on disk where there is a place, and compiled anew where what was kept is damaged."""
    try:
        compiled = numba.njit(cache=True, **_options)(function)
    except RuntimeError:  # neither beside the package nor at home can anything be written
        return numba.njit(**_options)(function)
    cache = compiled._cache
    load, save = cache.load_overload, cache.save_overload

    def load_if_whole(*args: Any) -> Any:
        try:
            return load(*args)
        except Exception:  # unpickling raises whatever a damaged file leads it to
            return None

    def save_if_possible(*args: Any) -> None:
        with contextlib.suppress(Exception):  # a full disk, or an interrupt that LLVM dropped
            save(*args)

    cache.load_overload, cache.save_overload = load_if_whole, save_if_possible
    return compiled


def inlined(function: F) -> F:
    """A compiled function that becomes part of its caller, where it can be optimised with it."""
    return numba.njit(inline="always", **_options)(function)
