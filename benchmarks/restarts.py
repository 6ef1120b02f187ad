"""100 restarts at once against 100 calls in a loop: Kullback-Leibler, 96 x 200, rank 8, `mu`, float64.

    python benchmarks/restarts.py

A line each for NumPy and JAX on a CPU, with numba and as if it were not installed, for a fixed number of iterations and
with a check every 10. The ratio, loop over restarts, is the median of interleaved repetitions. Both forms have run
before; what the first call took beyond a later one, compilation, is given apart. `cores` is how many the restarts kept
busy: far below the machine's number, something else ran.
"""

from __future__ import annotations

import importlib.metadata
import os
import statistics
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from nmf_xp import nmf
from nmf_xp.arrays import kernels

if TYPE_CHECKING:
    from collections.abc import Callable


def timed(function: Callable[..., Any], *arguments: Any) -> tuple[float, float, Any]:
    """Seconds, how many cores were busy with it, and the result."""
    begin, work = time.perf_counter(), time.process_time()
    result = function(*arguments)
    seconds = time.perf_counter() - begin
    return seconds, (time.process_time() - work) / seconds, result


def together(V: Any, count: int, options: dict[str, Any]) -> Any:
    """The divergences of all restarts."""
    result: Any = nmf(V, 8, n_restarts=count, keep_restarts=True, random_state=0, **options)
    return result.restarts.divergence


def one_by_one(V: Any, count: int, options: dict[str, Any]) -> Any:
    """The divergences of as many calls, from the same starts."""
    rng = np.random.default_rng(0)
    return np.asarray([nmf(V, 8, random_state=rng, **options).divergence for _ in range(count)])


def compare(name: str, V: Any, options: dict[str, Any], *, count: int = 100, repetitions: int = 3) -> None:
    """Print one line."""
    first = timed(together, V, count, options)[0]
    one_by_one(V, 1, options)
    times: list[tuple[float, float]] = []
    cores: list[float] = []
    difference = 0.0
    for _ in range(repetitions):
        (alone, _, expected), (stacked, busy, found) = (timed(f, V, count, options) for f in (one_by_one, together))
        times.append((alone, stacked))
        cores.append(busy)
        difference = max(difference, float(np.max(np.abs(found / expected - 1))))
    loop, stack = (statistics.median(seconds) for seconds in zip(*times, strict=True))
    ratio = statistics.median(alone / stacked for alone, stacked in times)
    print(
        f"{name:<32}{loop:>8.3f} s{stack:>8.3f} s{ratio:>7.2f}{statistics.median(cores):>7.2f}"
        f"   first call +{max(0.0, first - stack):.2f} s   differences {difference:.0e}",
        flush=True,
    )


def main() -> None:
    """Print versions and one line for each setting."""
    versions = {name: importlib.metadata.version(name) for name in ("numpy", "numba", "jax")}
    print(", ".join(f"{name} {version}" for name, version in versions.items()), f"{os.cpu_count()} cores", sep=", ")
    print(f"{'':<32}{'loop':>10}{'restarts':>10}{'ratio':>7}{'cores':>7}")
    import jax

    jax.config.update("jax_enable_x64", True)  # type: ignore[no-untyped-call]
    data = np.random.default_rng(0).poisson(np.random.default_rng(1).gamma(1.0, 5.0, (96, 1)), (96, 200)).astype(float)
    find = kernels.find
    for with_kernels in (True, False):
        kernels.find = find if with_kernels else lambda *_: None
        for library, V in (("NumPy", data), ("JAX", jax.numpy.asarray(data))):
            for setting, options in (("tol=0", {"tol": 0}), ("default tol", {})):
                name = f"{library}, {setting}{'' if with_kernels else ', no numba'}"
                compare(name, V, {"beta_loss": "kullback-leibler", "solver": "mu", "max_iter": 200, **options})


if __name__ == "__main__":
    main()
