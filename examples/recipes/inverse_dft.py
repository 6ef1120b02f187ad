"""A 2-D inverse discrete Fourier transform as two matrix products, and the loops whose picture comes out flipped.

    python inverse_dft.py

prints both pictures, and how they agree with `numpy.fft`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat import array_namespace, device

LETTER = [
    ".........",
    ".######..",
    ".##......",
    ".##......",
    ".####....",
    ".##......",
    ".##......",
    ".........",
]


def inverse_matrix(n: int, like: Any) -> Any:
    """E[a, k] = exp(+2 pi i a k / n), complex as `like`; a k is reduced modulo n, so that large n cost no digits."""
    xp = array_namespace(like)
    k = xp.arange(n, device=device(like))
    turns = xp.astype(k[:, None] * k[None, :] % n, like.dtype) / n
    return xp.exp(2j * np.pi * turns)


def inverse_dft(F: Any) -> Any:
    """f = E_M F E_N / (M N), for complex F of shape (M, N)."""
    M, N = F.shape
    return inverse_matrix(M, F) @ F @ inverse_matrix(N, F) / (M * N)


def looped(F: Any, sign: int = -1) -> Any:
    """Each pixel as a dot product of F with a wave, in two loops. Wrong: minus in the wave, and no 1 / (M N)."""
    xp = array_namespace(F)
    (M, N), on = F.shape, device(F)
    k, l = xp.arange(M, device=on)[:, None], xp.arange(N, device=on)[None, :]  # noqa: E741
    rows = []
    for a in range(M):
        row = []
        for b in range(N):
            turns = xp.astype(k * a % M, F.dtype) / M + xp.astype(l * b % N, F.dtype) / N
            row.append(xp.sum(F * xp.exp(2j * np.pi * sign * turns)))
        rows.append(xp.stack(row))
    return xp.stack(rows)


def backwards(f: Any) -> Any:
    """f[-a mod M, -b mod N]: row 0 and column 0 stay, the others change ends."""
    xp = array_namespace(f)
    return xp.roll(xp.flip(f, axis=(0, 1)), (1, 1), axis=(0, 1))


def draw(f: np.ndarray[Any, Any]) -> None:
    """Print a picture of zeros and ones."""
    for row in np.rint(f.real).astype(int):
        print("  " + "".join(".#"[value] for value in row))


def main() -> None:
    """Print the two pictures, and how they agree with numpy.fft."""
    f = np.asarray([[float(c == "#") for c in row] for row in LETTER])
    F = np.fft.fft2(f)
    assert np.max(np.abs(inverse_dft(F) - np.fft.ifft2(F))) < 1e-12
    print("inverse_dft(F), equal to numpy.fft.ifft2(F) to 1e-12:")
    draw(inverse_dft(F))
    assert np.max(np.abs(looped(F) - f.size * backwards(f))) < 1e-10
    print(f"looped(F) / {f.size}, equal to f[-a, -b]:")
    draw(looped(F) / f.size)
    assert np.max(np.abs(looped(F, +1) / f.size - f)) < 1e-12
    print(f"looped(F, +1) / {f.size} is f again, to 1e-12")


if __name__ == "__main__":
    main()
