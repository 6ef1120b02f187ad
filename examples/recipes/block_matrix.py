"""A 3n x 3n matrix whose block (i, j) is alpha_i G(x_i - x_j) alpha_j, with zero blocks on the diagonal, without loops.

    python block_matrix.py

prints such a matrix for three dipoles.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat import array_namespace, device


def block_matrix(x: Any, alpha: Any) -> Any:
    """The blocks for positions x (n, 3) and polarizabilities alpha (n, 3, 3), with the dipole tensor.

    G(r) = (3 r r^T / |r|^2 - 1) / |r|^3
    """
    xp = array_namespace(x, alpha)
    n = x.shape[0]
    unit = xp.eye(3, dtype=x.dtype, device=device(x))
    same = xp.eye(n, dtype=xp.bool, device=device(x))

    r = x[:, None, :] - x[None, :, :]  # i, j, 3
    square = xp.where(same, 1.0, xp.sum(r * r, axis=2))[:, :, None, None]  # never 0, so that no 0 / 0 arises
    G = (3 * r[:, :, :, None] * r[:, :, None, :] / square - unit) / square**1.5  # i, j, 3, 3
    G = xp.where(same[:, :, None, None], 0.0, G)
    blocks = alpha[:, None, :, :] @ G @ alpha[None, :, :, :]

    return xp.reshape(xp.permute_dims(blocks, (0, 2, 1, 3)), (3 * n, 3 * n))  # i, row, j, column


def main() -> None:
    """Print a matrix of three dipoles, and compare one block with the formula."""
    x = np.asarray([[0.0, 0, 0], [1, 0, 0], [0, 2, 0]])
    alpha = np.asarray([1.0, 2, 4])[:, None, None] * np.eye(3)
    A = block_matrix(x, alpha)
    for row in A:
        print(" ".join(f"{value + 0.0:6.2f}" for value in row))
    r = x[2] - x[1]
    G = (3 * np.outer(r, r) / (r @ r) - np.eye(3)) / (r @ r) ** 1.5
    assert np.max(np.abs(A[6:9, 3:6] - alpha[2] @ G @ alpha[1])) < 1e-15
    print("block (2, 1) is alpha_2 G(x_2 - x_1) alpha_1, to 1e-15")


if __name__ == "__main__":
    main()
