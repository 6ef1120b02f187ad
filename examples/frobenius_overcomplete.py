"""A matrix of rank 2 factorized with 4 components: how the error falls when there is more model than data.

    python frobenius_overcomplete.py [FILE.png]

prints the relative error and draws its logarithm against the iteration.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from nmf_xp import nmf

if TYPE_CHECKING:
    from nmf_xp import Result

RANK = 4


def problem() -> np.ndarray[Any, Any]:
    """A product of rank 2, each column divided by its maximum."""
    left = np.asarray([[1, 2], [3, 4], [5, 6], [7, 8]])
    right = np.asarray([[9, 11, 13], [10, 12, 14]])
    V = (left @ right).astype(float)
    return V / V.max(axis=0)


def factorize(V: np.ndarray[Any, Any]) -> Result:
    """Run 500 iterations, with the divergence noted after every one."""
    return nmf(V, RANK, beta_loss="frobenius", random_state=0, max_iter=500, tol=1e-12, check_every=1)


def plot(errors: np.ndarray[Any, Any], path: str) -> None:
    """Draw the logarithm of the error against the iteration."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    axes.semilogy(errors, color="#0072B2")
    axes.set(xlabel="iteration", ylabel=r"relative error $\|V - WH\| / \|V\|$", title="Rank 2 data, 4 components")
    axes.grid(visible=True, alpha=0.3)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main(path: str = "frobenius_overcomplete.png") -> np.ndarray[Any, Any]:
    """Print and draw the error, and return it."""
    V = problem()
    result = factorize(V)
    errors = np.sqrt(2 * np.asarray(result.history)) / np.linalg.norm(V)
    for iteration in (0, 1, 10, 100, len(errors) - 1):
        if iteration < len(errors):
            print(f"iteration {iteration:5d}  relative error {errors[iteration]:.3e}")
    print(result.status.message)
    plot(errors, path)
    return errors


if __name__ == "__main__":
    main(*sys.argv[1:2])
