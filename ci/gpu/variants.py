"""Other settings of the kernel of dense data, and kernels carried along in .gpu/: time and error of the quotient.

A file .gpu/kl_LIBRARY.py, for `cupy` or `triton`, holds `quotient(V, W, H)`, which is (V / WH) H^T for arrays of any
strides, and may hold `SETTINGS`, a list of keyword arguments to try.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np

from ci.gpu.clock import Clock, factors, uniform
from nmf_xp.arrays import transfer

if TYPE_CHECKING:
    from collections.abc import Callable

    from ci.gpu.task import Run

CARRIED = Path(__file__).parents[2] / ".gpu"
FILES = {"cupy": "kl_cupy.py", "torch": "kl_triton.py"}
RANKS = (64, 16, 128)
TILES: tuple[dict[str, Any], ...] = (
    {},
    {"precision": "TF32_TF32_F32_X3"},
    {"precision": "TF32_TF32_F32_X3", "PART": 64},
    {"precision": "TF32_TF32_F32_X3", "PART": 64, "COLUMNS": 64},
    {"PART": 64},
    {"COLUMNS": 64},
)


def main(run: Run) -> None:
    """All that there is for the backend's library."""
    clock = Clock(run.task.backend)
    n, ranks = (70, (4,)) if run.small else (16_384, RANKS)
    tried: list[tuple[str, Callable[..., Any]]]
    if clock.library == "jax":
        tried = [(f"Pallas {named(settings)}", functools.partial(pallas, **settings)) for settings in TILES]
        tried = tried[:1] if run.small else tried  # interpreted, all are the same
    else:
        tried = carried(CARRIED / FILES[clock.library])
        if not tried:
            run.emit(what="all", not_run=f"there is no kernel for it here, nor in .gpu/{FILES[clock.library]}")
            return
    V = uniform((n, n), 0)
    for rank in ranks:
        W, H = factors((n, n), rank)
        for name, quotient in tried:
            run.attempt(f"{name}, rank {rank}", lambda f=quotient, W=W, H=H: measured(clock, f, V, W, H))  # type: ignore[misc]


def named(settings: dict[str, Any]) -> str:
    """Settings in words."""
    return ", ".join(f"{name} {value}" for name, value in settings.items()) or "as it is"


def measured(clock: Clock, quotient: Callable[..., Any], V: Any, W: Any, H: Any) -> dict[str, Any]:
    """Milliseconds along the rows and along the columns, and the error of some rows against NumPy in float64."""
    v, w, h = (clock.asarray(x) for x in (V, W, H))
    along = clock.milliseconds(lambda: quotient(v, w, h), 7)
    across = clock.milliseconds(lambda: quotient(v.T, h.T, w.T), 7)
    some = slice(0, 200)
    wide = [x.astype("float64") for x in (V[some], W[some], H)]
    expected = (wide[0] / (wide[1] @ wide[2])) @ wide[2].T
    found = transfer.to_host(quotient(v, w, h))[some]
    norm = float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
    return {"along": along, "across": across, "norm": norm}


def pallas(V: Any, W: Any, H: Any, *, precision: str | None = None, **tiles: int) -> Any:
    """The project's kernel with other tiles, or with another arithmetic of its products."""
    return _pallas(precision, tuple(tiles.items()))(V, W, H)


@functools.cache
def _pallas(precision: str | None, tiles: tuple[tuple[str, int], ...]) -> Callable[..., Any]:
    import jax

    from nmf_xp.arrays.kernels import fused_dense

    interpret = jax.default_backend() != "gpu"
    settings: dict[str, Any] = dict(tiles)
    if precision is not None:
        algorithm: Any = jax.lax.DotAlgorithmPreset[precision]
        settings["_dot"] = functools.partial(jax.numpy.dot, precision=algorithm)

    def quotient(V: Any, W: Any, H: Any) -> Any:
        with contextlib.ExitStack() as stack:  # while it is traced
            for name, value in settings.items():
                stack.enter_context(mock.patch.object(fused_dense, name, value))
            return fused_dense.quotient(V, W, H, interpret=interpret)

    return jax.jit(quotient)


def carried(path: Path) -> list[tuple[str, Callable[..., Any]]]:
    """The kernel of a file in each of its settings; none where the file is not there."""
    if not path.exists():
        return []
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tried = getattr(module, "SETTINGS", [{}])
    return [(f"{path.name} {named(settings)}", functools.partial(module.quotient, **settings)) for settings in tried]
