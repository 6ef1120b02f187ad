"""Lee & Seung's updates for the Kullback-Leibler divergence, step by step, on the array type of your choice.

    python lee_seung_kl.py [numpy | jax | torch | cupy]

prints the divergence after every iteration. It never rises, because each update computes WH anew.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import numpy as np

from nmf_xp import beta_divergence, update_h, update_w

RANK, ITERATIONS = 6, 50


def as_array(x: np.ndarray[Any, Any], library: str) -> Any:
    """The same numbers as an array of another library."""
    if library == "numpy":
        return x
    return importlib.import_module("jax.numpy" if library == "jax" else library).asarray(x)


def problem() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The matrix 0.01, 0.02, ..., 1.00, and random factors scaled by its mean."""
    V = np.arange(0.01, 1.01, 0.01).reshape(10, 10)
    rng = np.random.default_rng(0)
    scale = np.sqrt(V.mean() / RANK)
    return V, scale * rng.random((10, RANK)), scale * rng.random((RANK, 10))


def main(library: str = "numpy") -> list[float]:
    """Print the divergence per iteration, and return it."""
    V, W, H = (as_array(x, library) for x in problem())
    divergences = [float(beta_divergence(V, W, H, beta_loss="kullback-leibler"))]
    print(f"start         D(V | WH) = {divergences[0]:.10f}")
    for iteration in range(1, ITERATIONS + 1):
        H = update_h(V, W, H, beta_loss="kullback-leibler")
        W = update_w(V, W, H, beta_loss="kullback-leibler")
        divergences.append(float(beta_divergence(V, W, H, beta_loss="kullback-leibler")))
        print(f"iteration {iteration:3d} D(V | WH) = {divergences[-1]:.10f}")
    return divergences


if __name__ == "__main__":
    main(*sys.argv[1:2])
