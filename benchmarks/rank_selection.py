"""`select_rank` against nimfa: ALL/AML (5000 x 38), ranks 2 to 8, Kullback-Leibler, 200 iterations a restart.

    python benchmarks/rank_selection.py [--repetitions 3] [--nimfa-restarts 2]

nimfa runs in processes of its own. It takes minutes for 50 restarts; it runs fewer, and its time is scaled up, as its
restarts run one after the other. There are three of it: as its users run it; without the objective, which it computes
in every iteration (`test_conv=200`); and that in a process whose C library keeps freed memory, as nmf_xp's does
(docs/design.md, "One pass"), because nimfa makes some ten arrays of V's size in each iteration. What `select_rank`
takes beyond the restarts, the cross-validation, is given apart. Both run the multiplicative updates of Lee & Seung and
stop nowhere early (`tol=0`); lines with the default `tol` follow. Sides are interleaved; the medians are shown.
The page faults of an iteration of nimfa are printed beside the times.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import resource
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


def theirs(V: Any, restarts: int, check_every: int | None) -> tuple[float, int]:
    """Seconds of `estimate_rank`, scaled to as many restarts, and the page faults of an iteration."""
    import nimfa

    if not hasattr(np, "mat"):
        setattr(np, "mat", np.asmatrix)  # noqa: B010  # nimfa 1.4 needs it, and NumPy 2 has no such name
    np.random.seed(0)  # noqa: NPY002  # nimfa draws from it
    options = {"update": "divergence", "objective": "div", "min_residuals": 0, "test_conv": check_every}
    model = nimfa.Nmf(V, max_iter=ITERATIONS, n_run=restarts, **options)
    faults, begin = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
    model.estimate_rank(rank_range=RANKS, n_run=restarts, what=["cophenetic", "dispersion"])
    seconds = time.perf_counter() - begin
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
    return seconds * RESTARTS / restarts, faults // (restarts * len(RANKS) * ITERATIONS)


def theirs_alone(V: Any, restarts: int, check_every: int | None = None, *, keep_memory: bool = False) -> float:
    """The same in a process of its own."""
    settings = {"MALLOC_TRIM_THRESHOLD_": str(2**26), "MALLOC_MMAP_THRESHOLD_": str(2**25)} if keep_memory else {}
    os.environ.update(settings)
    try:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            seconds, faults = pool.apply(theirs, (V, restarts, check_every))
    finally:
        for name in settings:
            del os.environ[name]
    print(f"nimfa: {faults} page faults an iteration", file=sys.stderr, flush=True)
    return seconds


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
        "nimfa": lambda: theirs_alone(V, restarts),
        "nimfa, objective once a restart": lambda: theirs_alone(V, restarts, ITERATIONS),
        "the same, freed memory kept": lambda: theirs_alone(V, restarts, ITERATIONS, keep_memory=True),
        "restarts only, `mu`, all 200 iterations": lambda: ours(
            V, rule="cophenetic", solver="mu", tol=0, max_iter=ITERATIONS
        ),
        "restarts only, default `tol`": lambda: ours(V, rule="cophenetic"),
        "with held-out entries, all defaults": lambda: ours(V),
    }
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(arguments.repetitions):
        for name, side in sides.items():
            times[name].append(side())
            print(f"{name}: {times[name][-1]:.1f} s", file=sys.stderr, flush=True)
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    theirs_first = list(medians.values())[:3]
    print(f"{platform.python_version()}, numpy {np.__version__}, {os.cpu_count()} cores\n")
    print(
        "| side | seconds | " + " | ".join(f"{name} takes" for name in list(medians)[:3]) + " |\n|---|---|---|---|---|"
    )
    for name, middle in medians.items():
        print(f"| {name} | {middle:.1f} | " + " | ".join(f"{x / middle:.1f} times" for x in theirs_first) + " |")


if __name__ == "__main__":
    main()
