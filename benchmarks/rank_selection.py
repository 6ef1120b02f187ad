"""`select_rank` against nimfa: ALL/AML (5000 x 38), ranks 2 to 8, Kullback-Leibler, 200 iterations a restart.

    python benchmarks/rank_selection.py [--repetitions 3] [--nimfa-restarts 2]

nmf_xp raises the allocator's threshold in its process (docs/design.md, "One pass"), and nimfa, which makes large
arrays in each step, gains by that too; so it runs in a process of its own, and beside nmf_xp for comparison. nimfa
takes minutes for 50 restarts; it runs fewer, and its time is scaled up, as its restarts run one after the other. What
`select_rank` takes beyond the restarts, the cross-validation, is given apart. Both run the multiplicative updates of
Lee & Seung and stop nowhere early (`tol=0`); a line with the default `tol` follows. Sides are interleaved; the
medians are shown.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.datasets import leukemia
from nmf_xp import select_rank

if TYPE_CHECKING:
    from collections.abc import Callable

RANKS, RESTARTS, ITERATIONS = range(2, 9), 50, 200


def ours(V: Any, **options: Any) -> float:
    """Seconds of `select_rank`."""
    begin = time.perf_counter()
    select_rank(V, RANKS, n_restarts=RESTARTS, beta_loss="kullback-leibler", random_state=0, **options)
    return time.perf_counter() - begin


def theirs(V: Any, restarts: int) -> float:
    """Seconds of `estimate_rank`, scaled to as many restarts."""
    import nimfa

    if not hasattr(np, "mat"):
        setattr(np, "mat", np.asmatrix)  # noqa: B010  # nimfa 1.4 needs it, and NumPy 2 has no such name
    np.random.seed(0)  # noqa: NPY002  # nimfa draws from it
    model = nimfa.Nmf(V, max_iter=ITERATIONS, update="divergence", objective="div", min_residuals=0, n_run=restarts)
    begin = time.perf_counter()
    model.estimate_rank(rank_range=RANKS, n_run=restarts, what=["cophenetic", "dispersion"])
    return (time.perf_counter() - begin) * RESTARTS / restarts


def theirs_alone(V: Any, restarts: int) -> float:
    """The same in a process of its own, as nimfa's users run it."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(theirs, (V, restarts))


def main() -> None:
    """Print a table."""
    V = leukemia()
    parser = argparse.ArgumentParser()
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--nimfa-restarts", type=int, default=2)
    arguments = parser.parse_args()
    restarts = arguments.nimfa_restarts
    ours(V[:200], rule="auto")  # kernels are compiled
    sides: dict[str, Callable[[], float]] = {
        "restarts only, mu, all iterations": lambda: ours(
            V, rule="cophenetic", solver="mu", tol=0, max_iter=ITERATIONS
        ),
        "restarts only, default tol": lambda: ours(V, rule="cophenetic"),
        "with held-out entries, default tol": lambda: ours(V),
        f"nimfa beside nmf_xp, from {restarts} restarts": lambda: theirs(V, restarts),
        f"nimfa, from {restarts} restarts": lambda: theirs_alone(V, restarts),
    }
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(arguments.repetitions):
        for name, side in sides.items():
            times[name].append(side())
            print(f"{name}: {times[name][-1]:.1f} s", file=sys.stderr, flush=True)
    nimfa = statistics.median(list(times.values())[-1])
    print(f"{platform.python_version()}, numpy {np.__version__}, {os.cpu_count()} cores\n")
    print("| side | seconds | nimfa takes |\n|---|---|---|")
    for name, seconds in times.items():
        middle = statistics.median(seconds)
        print(f"| {name} | {middle:.1f} | {nimfa / middle:.1f} times |")


if __name__ == "__main__":
    main()
