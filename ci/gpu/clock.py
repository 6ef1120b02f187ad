"""Data on a backend, its clock, and what is counted besides: the most memory, and the waits for the device."""

from __future__ import annotations

import importlib
import statistics
import sys
import time
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from nmf_xp.cli.placement import Place

if TYPE_CHECKING:
    from collections.abc import Callable

DEVICES = {"torch:cuda": "cuda", "torch": "cpu", "jax:gpu": "gpu", "jax": "cpu"}


class Clock:
    """The clock of a backend."""

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self.library = backend.partition(":")[0]
        self.place = Place(self.library, DEVICES.get(backend))
        importlib.import_module(self.library)

    def asarray(self, values: Any, dtype: str | None = None) -> Any:
        """A NumPy array or a SciPy sparse one on the backend."""
        return self.place.asarray(values, dtype)

    def wait(self, x: Any = None) -> None:
        """Until all is computed."""
        if self.library == "cupy":
            importlib.import_module("cupy").cuda.Device().synchronize()
        elif self.backend == "torch:cuda":
            importlib.import_module("torch").cuda.synchronize()
        elif self.library == "jax":
            importlib.import_module("jax").block_until_ready(x)

    def milliseconds(self, function: Callable[[], Any], repeats: int = 3) -> float:
        """Median of several calls, each to the end of its work, after one that is not counted."""
        self.wait(function())
        times = []
        for _ in range(repeats):
            begin = time.perf_counter()
            self.wait(function())
            times.append(time.perf_counter() - begin)
        return statistics.median(times) * 1e3

    def forget_peak(self) -> None:
        """Count the most memory from here on."""
        if self.backend == "torch:cuda":
            importlib.import_module("torch").cuda.reset_peak_memory_stats()
        if (pool := self.pool()) is not None:
            pool.free_all_blocks()

    def peak(self) -> int | None:
        """The most bytes on the device since then, V among them; None where the library does not count them."""
        if self.backend == "torch:cuda":
            return int(importlib.import_module("torch").cuda.max_memory_allocated())
        pool = self.pool()  # it keeps what it once had
        return None if pool is None else int(pool.total_bytes()) or None

    def pool(self) -> Any:
        """CuPy's memory; None for the other libraries, and where a stand-in for CuPy has none."""
        if self.library != "cupy":
            return None
        return getattr(sys.modules["cupy"], "get_default_memory_pool", lambda: None)()

    def waits(self, function: Callable[[], Any]) -> int | None:
        """How often a call makes the host wait for the device; None where the library does not say."""
        if self.backend != "torch:cuda":
            return None
        torch = importlib.import_module("torch")
        self.wait()
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter("always")
                function()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return sum("synchroniz" in str(warning.message) for warning in seen)


def uniform(shape: tuple[int, int], seed: int) -> Any:
    """Positive float32 numbers, never constants, on which a chip may run faster."""
    return np.random.default_rng(seed).random(shape, dtype="float32") + np.float32(0.1)


def factors(shape: tuple[int, int], rank: int) -> tuple[Any, Any]:
    """W and H to start from."""
    return uniform((shape[0], rank), 2), uniform((rank, shape[1]), 3)


def counts(shape: tuple[int, int], drawn: int) -> Any:
    """Sparse counts: so many entries, less those that fall on one another."""
    from scipy.sparse import coo_array

    rng = np.random.default_rng(0)
    places: Any = np.unique(rng.integers(0, shape[0] * shape[1], drawn))
    values = rng.poisson(2.0, places.shape[0]).astype("float32") + 1
    return coo_array((values, (places // shape[1], places % shape[1])), shape=shape).tocsr()
