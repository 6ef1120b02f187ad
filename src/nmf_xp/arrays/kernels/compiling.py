"""How kernels are compiled: with the wheel where it could be (`ahead`), else by numba, once for each dtype.

Without the interpreter's lock. Sums may be reordered, which makes them fast; NaN and infinities keep their meaning.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import os
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from nmf_xp.arrays.kernels import interrupts

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

F = TypeVar("F", bound="Callable[..., Any]")

FILES = (
    "tiling",
    "multiplicative",
    "divergence",
    "coordinate",
    "quadratic",
    "powers",
    "sampled",
    "line_search",
    "newton",
    "stored",
    "extrapolated",
    "looks",
    "held",
    "endings",
    "online",
    "weighted",
)
"""The files of this folder that numba compiles."""

_options: Any = {"fastmath": {"contract", "reassoc", "nsz"}, "nogil": True, "error_model": "numpy"}


class Entry(NamedTuple):
    """A kernel that Python calls, and what it takes; see `entry`."""

    kernel: Callable[..., Any]
    takes: str
    gives: str


entries: dict[str, Entry] = {}
"""Those of the files that were imported, by the names of file and function."""


def entry(takes: str, gives: str = "") -> Callable[[F], F]:
    """A compiled function that Python calls, with arguments of these kinds, and what it gives.

    `x` is a number of the dtype, float32 or float64, `n` an integer, `f` a float and `b` a bool. With a digit behind it
    is a contiguous array of so many dimensions, or with an `s` one of any strides, as `i1` is one of int32 or int64.
    All of `x` are of one dtype, and so are all of `i`. Parentheses make a tuple.
    """

    def made(function: F) -> F:
        name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
        ready = library()
        if ready is not None:
            return functools.partial(ready.call, ready.index(name))  # type: ignore[return-value]
        kernel = jit(function)
        entries[name] = Entry(kernel, takes, gives)
        return kernel

    return made


@functools.cache
def library() -> ModuleType | None:
    """What was compiled with the wheel; None where it is not there, from another source, or for another processor."""
    if os.environ.get("NMF_XP_KERNELS") == "numba":
        return None
    try:
        found = importlib.import_module("nmf_xp.arrays.kernels._compiled")
    except ImportError:
        return None
    return found if found.source == source() else None


def source() -> str:
    """A hash of the text of what is compiled."""
    folder = resources.files("nmf_xp.arrays.kernels")
    digest = hashlib.blake2b(digest_size=8)
    for name in (*(f"{file}.py" for file in FILES), "compiling.py", "ahead.py", "library.c"):
        digest.update((folder / name).read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()


def jit(function: F) -> F:
    """A function for kernels: compiled by numba, and kept on disk where there is a place."""
    if library() is not None:
        return function  # which nothing calls
    numba = importlib.import_module("numba")
    try:
        compiled = numba.njit(cache=True, **_options)(function)
    except RuntimeError:  # neither beside the package nor at home can anything be written
        return _uninterrupted(numba.njit(**_options)(function))
    cache = compiled._cache
    load, save = cache.load_overload, cache.save_overload

    def load_if_whole(*args: Any) -> Any:
        try:
            return load(*args)
        except Exception:  # unpickling raises whatever a damaged file leads it to
            return None

    def save_if_possible(*args: Any) -> None:
        with contextlib.suppress(Exception):  # a full disk
            save(*args)

    cache.load_overload, cache.save_overload = load_if_whole, save_if_possible
    return _uninterrupted(compiled)


def _uninterrupted(dispatcher: Any) -> Any:
    """The same, with Ctrl-C answered when it has compiled."""
    compile_ = dispatcher.compile

    def compile_whole(*args: Any, **kwargs: Any) -> Any:
        with interrupts.later():
            return compile_(*args, **kwargs)

    dispatcher.compile = compile_whole
    return dispatcher


def inlined(function: F) -> F:
    """The same, and it becomes part of its caller, where it can be optimised with it."""
    if library() is not None:
        return function
    return importlib.import_module("numba").njit(inline="always", **_options)(function)
