"""Namespaces that nobody has met before: what is needed of one, and one whose functions know no devices."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from nmf_xp.arrays.typing import Namespace

NEEDED = (
    *("asarray", "zeros", "ones", "full", "eye", "arange", "zeros_like", "ones_like", "astype", "isdtype", "finfo"),
    *("where", "take", "concat", "stack", "reshape", "broadcast_to", "sum", "max", "min", "any", "argmax"),
    *("minimum", "maximum", "abs", "sqrt", "log", "log2", "log1p", "expm1", "exp", "round", "isnan", "isinf"),
    *("logical_and", "logical_or", "logical_not", "__array_namespace_info__"),
)
CREATION = ("asarray", "zeros", "ones", "full", "eye", "arange", "empty", "linspace")
CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "sum(dtype=)": lambda xp, x: xp.sum(x, axis=-1, keepdims=True, dtype=xp.float32),
    "astype(copy=)": lambda xp, x: xp.astype(x, xp.float32, copy=False),
    "isdtype": lambda xp, x: xp.isdtype(x.dtype, "real floating"),
    "matmul": lambda xp, x: xp.matmul(x, x),
}
_lacking: dict[int, tuple[Any, tuple[str, ...]]] = {}
_made: dict[int, Any] = {}  # by identity, as a namespace may have no hash; each one keeps its own alive


def lacking(xp: Namespace) -> tuple[str, ...]:
    """The names of what is needed and not there."""
    if id(xp) not in _lacking:
        missing = [name for name in NEEDED if not hasattr(xp, name)]
        _lacking[id(xp)] = xp, tuple(missing or _unlike(xp))
    return _lacking[id(xp)][1]


def _unlike(xp: Namespace) -> list[str]:
    """The calls that are needed and fail."""
    missing: list[str] = []
    try:
        x = xp.asarray([[1.0]], dtype=xp.float32)  # lint: of a library that may know no devices
    except Exception:
        return ["asarray"]
    for name, call in CALLS.items():
        try:
            call(xp, x)
        except Exception:
            missing.append(name)
    return missing


def without_devices(xp: Namespace) -> Namespace:
    """The namespace with functions that take `device=None`; one and the same for one namespace."""
    if id(xp) not in _made:
        _made[id(xp)] = WithoutDevices(xp)
    found: Namespace = _made[id(xp)]
    return found


class WithoutDevices:
    """A namespace whose creation functions have no `device=`, and here leave it out."""

    def __init__(self, xp: Namespace) -> None:
        self._xp = xp
        self.__name__ = getattr(xp, "__name__", type(xp).__name__)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._xp, name)
        if name in CREATION:
            found = _without_device(found)
        elif name == "__array_namespace_info__":
            found = functools.partial(_Info, found)
        self.__dict__[name] = found
        return found


class _Info:
    """What such a namespace says of its dtypes, which it is asked for with a device."""

    def __init__(self, info: Callable[[], Any]) -> None:
        self._info = info()

    def __getattr__(self, name: str) -> Any:
        return _without_device(getattr(self._info, name))


def _without_device(function: Callable[..., Any]) -> Callable[..., Any]:
    def called(*args: Any, **options: Any) -> Any:
        return function(*args, **{name: x for name, x in options.items() if name != "device"})

    return called
