"""Rows that are noise: what they do to the fit of the others.

    python -m benchmarks.robust

One row in fifty is replaced by uniform noise, up to the largest entry of V or 10 or 100 times as much. One row of the
table for each loss and loudness. Shown is the root of the divergence of the other rows, divided by that of a fit of
these rows alone: for the plain loss and for robust ones of rows. It is the worst of three draws, and in brackets how
many of the noisy rows are among those with the least weights, in the worst draw.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.datasets import load_digits

from benchmarks.scikit_learn import machine
from nmf_xp import Robust, beta_divergence, nmf

LOUD, DRAWS = (1, 10, 100), 3
PHIS = ("huber", "cauchy", "welsch")
FIT: dict[str, Any] = {"random_state": 0, "max_iter": 400}


def digits(_: int, __: float) -> Any:
    """1797 images of 64 pixels."""
    return load_digits().data


def planted(seed: int, beta: float) -> Any:
    """Of rank 5, 300 x 80, with the noise of the loss."""
    rng = np.random.default_rng(50 + seed)
    Y = 10 * rng.gamma(0.5, size=(300, 5)) @ rng.gamma(0.5, size=(5, 80))
    return rng.poisson(Y).astype(float) if beta == 1 else np.maximum(rng.normal(Y, 1.0), 0)


SETS: dict[str, tuple[Any, int]] = {"digits": (digits, 10), "planted": (planted, 5)}


def spoiled(V: Any, seed: int, loud: float) -> tuple[Any, Any]:
    """V with one row in fifty replaced, and which rows these are."""
    rng = np.random.default_rng(seed)
    bad = np.zeros(len(V), dtype=bool)
    bad[rng.choice(len(V), len(V) // 50, replace=False)] = True
    return np.where(bad[:, None], loud * V.max() * rng.random(V.shape), V), bad


def errors(V: Any, rank: int, beta: float, seed: int, loud: float) -> list[tuple[float, float]]:
    """The error on clean rows beside that without outliers, and the share of outliers found, of each loss."""
    X, bad = spoiled(V, seed, loud)

    def error(W: Any, H: Any) -> float:
        return float(beta_divergence(V[~bad], W, H, beta_loss=beta)) ** 0.5

    clean = nmf(V[~bad], rank, beta_loss=beta, **FIT)
    least = error(clean.W, clean.H)
    plain = nmf(X, rank, beta_loss=beta, **FIT)
    found = [(error(plain.W[~bad], plain.H) / least, np.nan)]
    for phi in PHIS:
        fit: Any = nmf(X, rank, beta_loss=Robust(beta, phi, of="rows"), **FIT)
        suspects = np.argsort(fit.weights_of_rows)[: bad.sum()]
        found.append((error(fit.W[~bad], fit.H) / least, bad[suspects].mean()))
    return found


def main() -> None:
    """Print the table."""
    print(f"| V | loss | noise | plain | {' | '.join(PHIS)} |\n|{'---|' * 7}")
    for name, (make, rank) in SETS.items():
        for beta, loss in ((2, "Frobenius"), (1, "Kullback-Leibler")):
            for loud in LOUD:
                draws = np.asarray([errors(make(seed, beta), rank, beta, seed, loud) for seed in range(DRAWS)])
                worst, found = draws[..., 0].max(axis=0), draws[..., 1].min(axis=0)
                pairs = zip(worst[1:], found[1:], strict=True)
                cells = [f"{worst[0]:.2f}", *(f"{error:.2f} ({share:.0%})" for error, share in pairs)]
                print(f"| {name} | {loss} | {loud} x | {' | '.join(cells)} |", flush=True)
    print(f"\n{machine()}")


if __name__ == "__main__":
    main()
