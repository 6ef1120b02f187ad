"""Arrays of a library that follows the standard, knows no devices, and refuses to be converted in silence."""

from __future__ import annotations

import operator
import types
from typing import Any

import numpy as np

WAYS = ("asnumpy", "__dlpack__")  # out of such a library; one of them


class Plain:
    """An array, without `device` and without `__array__`."""

    way = "asnumpy"

    def __init__(self, values: Any) -> None:
        self._values = values
        self.shape, self.ndim, self.dtype, self.size = values.shape, values.ndim, values.dtype, values.size

    def __array_namespace__(self, api_version: str | None = None) -> Any:
        return namespace

    def __array__(self, *_: Any, **__: Any) -> Any:
        msg = "implicit conversion is not allowed"
        raise TypeError(msg)

    def __getitem__(self, key: Any) -> Plain:
        return Plain(np.asarray(self._values[_bare(key)]))

    def __bool__(self) -> bool:
        return bool(self._values)

    def __float__(self) -> float:
        return float(self._values)

    def __int__(self) -> int:
        return int(self._values)


class ByMethod(Plain):
    """One with a method of its own."""

    def asnumpy(self) -> Any:
        """The way out."""
        return self._values


class ByDLPack(Plain):
    """One with DLPack."""

    def __dlpack__(self, **options: Any) -> Any:
        return np.asarray(self._values, order="C").__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._values.__dlpack_device__()


made: dict[str, type[Plain]] = {"asnumpy": ByMethod, "__dlpack__": ByDLPack}


def _bare(x: Any) -> Any:
    if isinstance(x, tuple | list):
        return type(x)(map(_bare, x))
    return x._values if isinstance(x, Plain) else x


def _dressed(x: Any) -> Any:
    if isinstance(x, tuple | list):
        return [_dressed(y) for y in x]
    return made[Plain.way](np.asarray(x)) if isinstance(x, np.ndarray | np.generic) else x


def _function(name: str) -> Any:
    def called(*args: Any, **options: Any) -> Any:
        if "device" in options:
            msg = f"{name}() got an unexpected keyword argument 'device'"
            raise TypeError(msg)
        return _dressed(getattr(np, name)(*map(_bare, args), **{key: _bare(x) for key, x in options.items()}))

    return called


class _Namespace(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        found = getattr(np, name)  # AttributeError as of any module
        if name in ("finfo", "isdtype") or isinstance(found, type):
            return found
        if name == "__array_namespace_info__":
            return lambda: types.SimpleNamespace(
                default_dtypes=lambda: {"real floating": np.dtype("float64")},
                dtypes=lambda **_: {"float32": np.dtype("float32"), "float64": np.dtype("float64")},
            )
        return _function(name) if callable(found) else found


namespace = _Namespace("deviceless")

for _name in ("add", "sub", "mul", "truediv", "matmul", "pow", "and", "or", "eq", "ne", "lt", "le", "gt", "ge"):
    _operator = getattr(operator, f"__{_name}__")
    setattr(Plain, f"__{_name}__", lambda self, other, _o=_operator: _dressed(_o(self._values, _bare(other))))
    setattr(Plain, f"__r{_name}__", lambda self, other, _o=_operator: _dressed(_o(_bare(other), self._values)))
for _name in ("neg", "abs", "invert"):
    _operator = getattr(operator, f"__{_name}__")
    setattr(Plain, f"__{_name}__", lambda self, _o=_operator: _dressed(_o(self._values)))
setattr(Plain, "T", property(lambda self: _dressed(self._values.T)))  # noqa: B010
setattr(Plain, "mT", property(lambda self: _dressed(np.swapaxes(self._values, -1, -2))))  # noqa: B010
setattr(Plain, "__hash__", None)  # noqa: B010
