"""JAX and torch on a CPU against NumPy: the time of an iteration, as `nmf` runs them and with their own operators.

    python benchmarks/other_libraries.py [--shape 2000 1000] [--rank 20] [--rounds 5]

An iteration is the difference of runs of 21 and of 1. The sides take turns; medians, relative to NumPy's.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import time
from typing import Any

import jax
import numpy as np
import torch

from nmf_xp import nmf
from nmf_xp.run.hosted import natively

CASES = (("newton", 1.0), ("mu", 1.0), ("cd", 2.0), ("mm", 0.0), ("mm", 0.5), ("mm", 1.5))
STEPS = 20


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=2, default=(2000, 1000))
    parser.add_argument("--rank", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    config: Any = jax.config
    config.update("jax_enable_x64", True)
    V = np.random.default_rng(0).poisson(3.0, asked.shape).astype(float)
    arrays = {"NumPy": V, "JAX": jax.numpy.asarray(V), "torch": torch.asarray(V)}
    sides = [(name, own) for name in arrays for own in (False, True) if name != "NumPy" or not own]
    print(f"load {os.getloadavg()[0]:.1f}")
    columns = ("solver, beta", "NumPy, ms", "JAX", "torch", "JAX, own operators", "torch, own operators")
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for solver, beta in CASES:
        options: dict[str, Any] = {"solver": solver, "beta_loss": beta, "random_state": 0, "tol": 0}
        times: dict[Any, list[float]] = {side: [] for side in sides}
        for _ in range(asked.rounds + 1):
            for name, own in sides:
                with natively() if own else contextlib.nullcontext():
                    times[name, own].append(_iteration(arrays[name], asked.rank, options))
        found = {side: statistics.median(seconds[1:]) for side, seconds in times.items()}
        base = found["NumPy", False]
        ratios = [found[name, own] / base for own in (False, True) for name in ("JAX", "torch")]
        print(f"| {solver}, {beta:g} | {base * 1e3:.1f} | {' | '.join(f'{x:.1f}' for x in ratios)} |")
    print(f"load {os.getloadavg()[0]:.1f}")


def _iteration(V: Any, rank: int, options: dict[str, Any]) -> float:
    times = []
    for n in (1, STEPS + 1):
        begun = time.perf_counter()
        nmf(V, rank, max_iter=n, **options)
        times.append(time.perf_counter() - begun)
    return (times[1] - times[0]) / STEPS


if __name__ == "__main__":
    main()
