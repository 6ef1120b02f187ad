"""Catch every read of a value, on the backends where that can be seen."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from nmf_xp.testing.report import Skip

if TYPE_CHECKING:
    from collections.abc import Callable

    from nmf_xp.testing.backends import Target

READS = ("__array__", "__bool__", "__buffer__", "__complex__", "__float__", "__index__", "__int__")


def run_without_host_reads(function: Callable[..., Any], target: Target, *arrays: Any) -> str:
    """Call a function such that every read of a value raises; returns how that is seen.

    torch's meta device has no values, array-api-strict is told to raise, and inside `jax.jit` there is nothing to read.
    """
    if target.name.startswith("torch"):
        _explain(function, *(x.to("meta") for x in arrays))
        return "on torch's meta device"
    if target.is_jax:
        _explain(importlib.import_module("jax").jit(function), *arrays)
        return "inside jax.jit"
    if target.name.startswith("array_api_strict"):
        _with_reads_forbidden(type(arrays[0]), function, arrays)
        return "reads raise"
    msg = "its arrays live on the host" if target.name.startswith("numpy") else "its reads cannot be intercepted"
    raise Skip(msg)


def _explain(function: Callable[..., Any], *arrays: Any) -> None:
    try:
        function(*arrays)
    except Exception as error:
        msg = f"a value was read from the device: {' '.join(str(error).split())[:120]}"
        raise AssertionError(msg) from error


def _with_reads_forbidden(array: type, function: Callable[..., Any], arrays: tuple[Any, ...]) -> None:
    saved = {name: vars(array)[name] for name in READS if name in vars(array)}

    def read(*_: Any, **__: Any) -> None:
        msg = "a value was read from the device"
        raise AssertionError(msg)

    for name in saved:
        setattr(array, name, read)
    try:
        function(*arrays)
    finally:
        for name, method in saved.items():
            setattr(array, name, method)
