"""What batches cost: the time of an iteration with `batch` and without.

    python -m benchmarks.batches_cost

The Reuters words are those of the package lda, 395 x 4258 (CSR). The sparse counts have the shape of the whole
collection, 8293 x 18933 with 400 000 entries drawn. The dense ones are 2000 x 1000. All are in three batches, at rank
20. Given is the processor time of an iteration, which other programs disturb least: the difference between runs of 15
and of 3 iterations, the least of several rounds in which the two take turns.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from scipy import sparse

from benchmarks.datasets import REAL
from benchmarks.scikit_learn import machine
from nmf_xp import nmf

RANK, BATCHES, SHORT, LONG = 20, 3, 3, 15
SOLVERS = ("mu", "mm", "newton", "cd")


def words(rows: int = 8293, columns: int = 18933, entries: int = 400_000) -> Any:
    """Sparse counts whose columns are as frequent as words are."""
    rng = np.random.default_rng(0)
    places = rng.integers(0, rows, entries), rng.zipf(1.3, entries) % columns
    counts = sparse.coo_array((np.ones(entries), places), shape=(rows, columns)).tocsr()
    counts.sum_duplicates()
    return counts


def seconds(V: Any, batch: Any, solver: str, max_iter: int) -> float:
    """Processor time of a run."""
    begin = time.process_time()
    nmf(V, RANK, beta_loss=1.0, solver=solver, batch=batch, tol=0, max_iter=max_iter, random_state=0)
    return time.process_time() - begin


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    print("| data | solver | without, ms | with `batch`, ms | ratio |\n|---|---|---|---|---|")
    dense = np.random.default_rng(1).poisson(2.0, (2000, 1000)).astype(float)
    for name, V in (("reuters", REAL["reuters"].load()), ("sparse", words()), ("dense", dense)):
        labels = np.arange(V.shape[0]) % BATCHES
        for solver in SOLVERS:
            keys = [(with_batch, n) for with_batch in (False, True) for n in (SHORT, LONG)]
            taken: dict[Any, list[float]] = {key: [] for key in keys}
            for _ in range(rounds):
                for key in keys:
                    taken[key].append(seconds(V, labels if key[0] else None, solver, key[1]))
            plain, batched = ((min(taken[x, LONG]) - min(taken[x, SHORT])) / (LONG - SHORT) for x in (False, True))
            print(
                f"| {name} | {solver} | {1e3 * plain:.1f} | {1e3 * batched:.1f} | {batched / plain:.2f} |", flush=True
            )
    print(f"\n{machine()}")


if __name__ == "__main__":
    main()
