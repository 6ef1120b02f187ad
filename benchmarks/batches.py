"""Counts with planted batch effects: what is found with the effects in the model and without.

    python -m benchmarks.batches

Each seed plants 4 profiles in 200 x 150 counts and multiplies the expectation of each batch and column by a log-normal
number (three batches, sigma 0.7). The rank is the one whose fit of half of the counts, drawn binomially, gives the
other half the largest probability. cosine: of the found profiles with the planted ones, each times the geometric mean
of its column's effects, matched one to one.

Where cnmf 1.7.1 and harmonypy are installed, a third row is the way of cNMF: counts of equal depth are corrected by
Harmony in 20 principal components, clipped at zero, and factorized by scikit-learn.
"""

from __future__ import annotations

import argparse
import importlib.util
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from benchmarks.scikit_learn import machine
from nmf_xp import nmf

ROWS, COLUMNS, RANK, BATCHES, COUNTS, SIGMA = 200, 150, 4, 3, 200, 0.7
RANKS = range(2, 8)
KL: dict[str, Any] = {"beta_loss": "kullback-leibler", "n_restarts": 3, "random_state": 0, "max_iter": 1000}


def planted(seed: int) -> tuple[Any, Any, Any]:
    """Counts, the batch of each row, and the profiles as far as they can be known."""
    rng = np.random.default_rng(seed)
    W = rng.dirichlet(np.full(RANK, 0.2), size=ROWS)
    H = rng.gamma(0.3, size=(RANK, COLUMNS))
    H /= H.sum(axis=1, keepdims=True)
    batch, B = rng.integers(0, BATCHES, size=ROWS), rng.lognormal(0, SIGMA, size=(BATCHES, COLUMNS))
    V = rng.poisson(COUNTS * (W @ H) * B[batch]).astype(float)
    seen = V.sum(axis=0) > 0
    known = H * np.exp(np.log(B)[batch].mean(axis=0))
    return V[:, seen], batch, known[:, seen]


def expected(V: Any, batch: Any, rank: int, *, effects: bool) -> tuple[Any, Any]:
    """The expectation of V by a fit, and its profiles."""
    result: Any = nmf(V, rank, batch=batch if effects else None, **KL)
    rows: Any = 1.0
    if effects:
        rows = np.stack([result.batch_effects[i] for i in batch.tolist()])
    return rows * (result.W @ result.H), result.H


def by_harmony(V: Any, batch: Any, rank: int) -> Any:
    """The profiles that scikit-learn finds in what cNMF's correction by Harmony leaves of the counts."""
    preprocess = importlib.import_module("cnmf").Preprocess(random_seed=0)
    obs = importlib.import_module("pandas").DataFrame({"batch": batch.astype(str)})
    X = V * (np.median(V.sum(axis=1)) / V.sum(axis=1, keepdims=True))
    scaled = X / X.std(axis=0)
    left, sizes, _ = np.linalg.svd(scaled - scaled.mean(axis=0), full_matrices=False)
    corrected, _ = preprocess.harmony_correct_X(X, obs, left[:, :20] * sizes[:20], ["batch"])
    corrected = np.maximum(np.asarray(corrected), 0.0)
    decomposition = importlib.import_module("sklearn.decomposition")
    options = {"init": "random", "solver": "mu", "beta_loss": "kullback-leibler", "max_iter": 1000}
    fits = [decomposition.NMF(rank, random_state=seed, **options).fit(corrected) for seed in range(3)]
    return min(fits, key=lambda fit: fit.reconstruction_err_).components_


def cosine(found: Any, known: Any) -> float:
    """The mean cosine of profiles that are matched one to one."""
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (found, known))
    return float((a @ b.T)[linear_sum_assignment(-a @ b.T)].mean())


def chosen_rank(V: Any, batch: Any, seed: int, *, effects: bool) -> int:
    """The rank by the probability of the counts that were left out; a twentieth of each expectation is the mean's."""
    half = np.random.default_rng(seed).binomial(V.astype(int), 0.5).astype(float)
    rest, mean = V - half, np.outer(half.sum(axis=1), half.sum(axis=0) + 0.5) / half.sum()  # no column is impossible
    losses = []
    for rank in RANKS:
        Y = 0.95 * expected(half, batch, rank, effects=effects)[0] + 0.05 * mean
        losses.append(float(Y.sum() - (rest * np.log(np.where(rest > 0, Y, 1.0))).sum()))
    return RANKS[int(np.argmin(losses))]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    seeds = parser.parse_args().seeds
    print("| model | planted rank chosen | ranks chosen | cosine, mean | cosine, least |\n|---|---|---|---|---|")
    for effects, name in ((False, "without batches"), (True, "with `batch`")):
        ranks, cosines = [], []
        for seed in range(seeds):
            V, batch, known = planted(seed)
            cosines.append(cosine(expected(V, batch, RANK, effects=effects)[1], known))
            ranks.append(chosen_rank(V, batch, seed, effects=effects))
        listed = ", ".join(f"{r}: {ranks.count(r)}" for r in sorted(set(ranks)))
        right = f"{ranks.count(RANK)} of {seeds}"
        print(f"| {name} | {right} | {listed} | {np.mean(cosines):.4f} | {min(cosines):.4f} |", flush=True)
    if importlib.util.find_spec("cnmf") and importlib.util.find_spec("harmonypy"):
        theirs = []
        for seed in range(seeds):
            V, batch, known = planted(seed)
            theirs.append(cosine(by_harmony(V, batch, RANK), known))
        above = sum(a > b for a, b in zip(cosines, theirs, strict=True))
        print(f"| Harmony, clipped, scikit-learn | | | {np.mean(theirs):.4f} | {min(theirs):.4f} |")
        print(f"\nWith `batch` the cosine is above that of the last row in {above} of {seeds} seeds.")
    print(f"\n{machine()}")


if __name__ == "__main__":
    main()
