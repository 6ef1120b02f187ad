"""Mutations of 21 breast cancers, which vary more than Poisson counts.

    python -m benchmarks.noise

One row for each rank. Half of the 96 x 21 counts, drawn binomially, is fitted with the Kullback-Leibler loss and with
the negative binomial one, whose dispersion is found; then the log-probability of the other half, the mean of ten
draws. Both halves of a negative binomial count have one rate, of which the first tells (Bayes' rule); Poisson's are
independent. Pearson: the mean of (V - WH)^2 / WH over the degrees of freedom in a fit of all counts, 1 for Poisson's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import nbinom, poisson

from benchmarks.scikit_learn import machine
from nmf_xp import NegativeBinomial, nmf

COUNTS = Path(__file__).parents[1] / "tests" / "corpus" / "breast_cancer_mutations.tsv"
RANKS, DRAWS = range(2, 9), 10
FIT: dict[str, Any] = {"n_restarts": 5, "random_state": 0, "max_iter": 2000, "tol": 1e-6}


def counts() -> Any:
    """Kinds of mutations by cancers, (96, 21) (Nik-Zainal et al. 2012, Cell 149)."""
    return np.loadtxt(COUNTS, skiprows=1, usecols=range(1, 22), delimiter="\t")


def halves(V: Any, seed: int) -> tuple[Any, Any]:
    """The counts in two, each drawn to one of them."""
    half = np.random.default_rng(seed).binomial(V.astype(int), 0.5).astype(float)
    return half, V - half


def probabilities(V: Any, rank: int) -> tuple[float, float, float]:
    """The log-probability of the other half under Poisson and under the negative binomial, and the mean dispersion."""
    found = []
    for seed in range(DRAWS):
        half, rest = halves(V, seed)
        plain: Any = nmf(half, rank, beta_loss="kullback-leibler", **FIT)
        other: Any = nmf(half, rank, beta_loss=NegativeBinomial(), **FIT)
        means = [np.maximum(fit.W @ fit.H, 0.1) for fit in (plain, other)]
        size, mean = 1 / other.noise.dispersion + half, 1 / other.noise.dispersion + means[1]
        by_other = nbinom.logpmf(rest, size, mean / (mean + means[1])).sum()
        found.append((poisson.logpmf(rest, means[0]).sum(), by_other, other.noise.dispersion))
    mean = np.mean(found, axis=0)
    return float(mean[0]), float(mean[1]), float(mean[2])


def pearson(V: Any, rank: int) -> float:
    """How much more the counts vary than Poisson's."""
    fit: Any = nmf(V, rank, beta_loss="kullback-leibler", **FIT)
    Y = np.maximum(fit.W @ fit.H, 1e-9)
    return float(((V - Y) ** 2 / Y).sum() / (V.size - rank * (sum(V.shape) - rank)))


def main() -> None:
    """Print the table."""
    V = counts()
    print("| rank | Poisson | negative binomial | dispersion | Pearson |\n|---|---|---|---|---|")
    for rank in RANKS:
        plain, other, dispersion = probabilities(V, rank)
        print(f"| {rank} | {plain:.1f} | {other:.1f} | {dispersion:.3g} | {pearson(V, rank):.2f} |", flush=True)
    print(f"\n{machine()}")


if __name__ == "__main__":
    main()
