"""The sum over i, j, k of p_ijk c_ijk f_i(x) g_j(y) h_k(z) at many points, one axis after another.

    python separable_sum.py

prints how it agrees with the sum that builds everything, and how many numbers each holds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat import array_namespace


def on_grid(p: Any, c: Any, f: Any, g: Any, h: Any) -> Any:
    """S[x, y, z] where every x meets every y and z, for f[i, x], g[j, y], h[k, z]."""
    xp = array_namespace(p, c, f, g, h)
    S = p * c  # i, j, k
    for functions in (f, g, h):
        S = xp.tensordot(S, functions, axes=((0,), (0,)))  # the first axis goes, its points come last
    return S


def at_points(p: Any, c: Any, f: Any, g: Any, h: Any) -> Any:
    """S[q] at the points (x_q, y_q, z_q), for f[i, q], g[j, q], h[k, q]."""
    xp = array_namespace(p, c, f, g, h)
    S = xp.tensordot(h, p * c, axes=((0,), (2,)))  # q, i, j
    S = (S @ xp.matrix_transpose(g)[:, :, None])[:, :, 0]  # q, i
    return xp.sum(S * xp.matrix_transpose(f), axis=1)


def waves(n: int, t: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The functions cos(i t) for i < n, one a row."""
    return np.cos(np.arange(n)[:, None] * t)


def main() -> None:
    """Compare both with the sum that builds everything, and count the numbers that each holds at most."""
    rng = np.random.default_rng(0)
    I, J, K = 8, 9, 10  # noqa: E741
    p, c = rng.random((I, J, K)), rng.normal(size=(I, J, K))

    x, y, z = rng.random((3, 2000))
    f, g, h = waves(I, x), waves(J, y), waves(K, z)
    terms = (p * c)[..., None] * f[:, None, None] * g[None, :, None] * h[None, None]
    assert np.max(np.abs(at_points(p, c, f, g, h) - terms.sum(axis=(0, 1, 2)))) < 1e-11
    print(f"2000 points: agrees to 1e-11, {2000 * I * J:,} numbers at most instead of {terms.size:,}")

    f, g, h = f[:, :12], g[:, :13], h[:, :14]
    terms = (
        (p * c)[..., None, None, None]
        * f[:, None, None, :, None, None]
        * g[None, :, None, None, :, None]
        * h[None, None, :, None, None, :]
    )
    assert np.max(np.abs(on_grid(p, c, f, g, h) - terms.sum(axis=(0, 1, 2)))) < 1e-11
    most = max(J * K * 12, K * 12 * 13, 12 * 13 * 14)
    print(f"12 x 13 x 14 grid: agrees to 1e-11, {most:,} numbers at most instead of {terms.size:,}")


if __name__ == "__main__":
    main()
