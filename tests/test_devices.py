"""What a device may be: libraries differ in more than its name."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace

import numpy as np

from nmf_xp import _compat


class Unhashable:
    """A device as CuPy has it: compared by its number, without a hash."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Unhashable)


def test_a_device_without_a_hash_has_an_accumulator_dtype() -> None:
    info = SimpleNamespace(dtypes=lambda **_: {"float32": np.float32, "float64": np.float64})
    library = ModuleType("library")
    library.__array_namespace_info__ = lambda: info  # type: ignore[attr-defined]
    for device in (Unhashable(), "a device with a hash"):
        assert _compat.accumulator_dtype(library, device) is np.float64
