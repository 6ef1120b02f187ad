"""Fits where other programs have the cores: as many spinning processes as cores, against an idle machine.

    python benchmarks/busy_cores.py [--rounds 9]

Digits (1797 x 64), rank 10, 60 iterations: the default of each loss, and scikit-learn's `cd` and `mu`. Each round runs
every side idle and busy in turn, in this process; medians of wall times. A ratio of 2 is what sharing each core with
one other process comes to.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import time
import warnings
from typing import TYPE_CHECKING, Any

from sklearn.datasets import load_digits
from sklearn.decomposition import NMF

from nmf_xp import nmf
from nmf_xp.arrays.blas import processors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ITERATIONS = 60


@contextlib.contextmanager
def spinning(count: int) -> Iterator[None]:
    """So many processes that take all they can get."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        time.sleep(0.5)
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def sides() -> dict[str, Callable[[], Any]]:
    """What is timed."""
    V = load_digits().data
    options: dict[str, Any] = {"random_state": 0, "max_iter": ITERATIONS, "tol": 0}
    found: dict[str, Callable[[], Any]] = {
        "nmf_xp, KL": lambda: nmf(V, 10, beta_loss=1, **options),
        "nmf_xp, Frobenius": lambda: nmf(V, 10, **options),
        "scikit-learn, cd": lambda: NMF(10, init="random", **options).fit(V),
        "scikit-learn, mu, KL": lambda: NMF(10, init="random", solver="mu", beta_loss=1, **options).fit(V),
    }
    try:
        import torch
    except ImportError:
        return found
    T = torch.asarray(V)
    return found | {"nmf_xp, KL, torch": lambda: nmf(T, 10, beta_loss=1, **options)}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="how often each side runs")
    rounds, jobs = parser.parse_args().rounds, sides()
    warnings.simplefilter("ignore")
    print(f"load {os.getloadavg()[0]:.1f}, {processors()} cores")
    times: dict[tuple[str, bool], list[float]] = {}
    for _ in range(rounds + 1):
        for busy in (False, True):
            with spinning(processors() if busy else 0):
                for name, job in jobs.items():
                    begun = time.perf_counter()
                    job()
                    times.setdefault((name, busy), []).append(time.perf_counter() - begun)
    print("| fit | idle, ms | busy, ms | ratio |\n|---|---|---|---|")
    for name in jobs:
        alone, beside = (statistics.median(times[name, state][1:]) for state in (False, True))
        print(f"| {name} | {alone * 1e3:.0f} | {beside * 1e3:.0f} | {beside / alone:.1f} |")


if __name__ == "__main__":
    main()
