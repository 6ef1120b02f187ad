"""What the first call on a machine costs: fits of the digits in fresh processes, with kernels of each origin.

    python benchmarks/first_call.py [--rounds 5]

`compiled` are the kernels that came with the wheel, `numba, first` those that numba compiles (its cache is empty),
`numba, again` those that it finds in its cache, and `none` NumPy's operators. The sides take turns; medians of wall
times, in seconds. The load of the machine is printed before and after.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile

FIT = """
import time
import numpy as np
from sklearn.datasets import load_digits
V = load_digits().data
begun = time.perf_counter()
from nmf_xp import nmf
for options in ({"beta_loss": 1}, {"beta_loss": 2}):
    for _ in range(2):
        nmf(V, 10, random_state=0, max_iter=60, tol=0, **options)
        print(time.perf_counter() - begun, end=" ")
        begun = time.perf_counter()
"""
SIDES = {"compiled": "", "numba, first": "numba", "numba, again": "numba", "none": "0"}
COLUMNS = ("import and first fit, KL", "second fit, KL", "first fit, Frobenius", "second fit, Frobenius")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often each side runs")
    rounds = parser.parse_args().rounds
    print(f"load {os.getloadavg()[0]:.1f}")
    times: dict[str, list[list[float]]] = {side: [] for side in SIDES}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as cache:
            for side, kernels in SIDES.items():
                times[side].append(_run({"NMF_XP_KERNELS": kernels, "NUMBA_CACHE_DIR": cache}))
    print(f"| kernels | {' | '.join(COLUMNS)} |\n|---|{'---|' * len(COLUMNS)}")
    for side, found in times.items():
        print(f"| {side} | {' | '.join(f'{statistics.median(column):.3f}' for column in zip(*found, strict=True))} |")
    print(f"load {os.getloadavg()[0]:.1f}")


def _run(environment: dict[str, str]) -> list[float]:
    left_out = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
    inherited = {name: value for name, value in os.environ.items() if name not in left_out}
    done = subprocess.run(
        [sys.executable, "-c", FIT], env=inherited | environment, capture_output=True, text=True, check=True
    )
    return [float(word) for word in done.stdout.split()]


if __name__ == "__main__":
    main()
