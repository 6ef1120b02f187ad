"""Libraries that stand in for those that need a GPU."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = Path(__file__).parent
LIBRARIES = ("cupy", "cupyx")


@functools.cache
def needed() -> bool:
    """Whether there is no CuPy with a GPU here."""
    return importlib.util.find_spec("cupy") is None or not importlib.import_module("cupy").cuda.is_available()


_kept: dict[str, Any] = {}


@contextlib.contextmanager
def installed() -> Iterator[Any]:
    """Within it `import cupy` imports the stand-in, with nothing counted, limited or lost; yields its devices."""
    _take_away()
    sys.modules.update(_kept)
    sys.path.insert(0, str(FOLDER))
    devices = importlib.import_module("cupy._devices")
    devices.restore()
    try:
        yield devices
    finally:
        devices.restore()
        sys.path.remove(str(FOLDER))
        _kept.update(_take_away())


def _take_away() -> dict[str, Any]:
    """The modules of CuPy, and of array-api-compat for it, which are imported no more."""
    names = [name for name in sys.modules if name.removeprefix("array_api_compat.").partition(".")[0] in LIBRARIES]
    return {name: sys.modules.pop(name) for name in names}
