r"""What every backend is compared with: the formulas of the papers in plain NumPy float64.

Nothing here is shared with the library: each formula is written out as it is printed, for W and for H, without a
transposition, a scaling or a rearrangement that could hide the same mistake twice.

    [FI] C. Fevotte & J. Idier (2011), "Algorithms for nonnegative matrix factorization with the beta-divergence",
         Neural Computation 23(9), 2421-2456.
    [LS] D. D. Lee & H. S. Seung (2001), "Algorithms for non-negative matrix factorization", NIPS 13.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    Matrix: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]


def divergence(V: Matrix, W: Matrix, H: Matrix, beta: float) -> float:
    """D(V | WH) = sum of d(v | y), [FI] eq. 2.2; for beta 2, half of [LS] eq. 2; for beta 1, [LS] eq. 3.

    Correct to about eps times the magnitude of its terms (`rounding_bound`), as the printed formulas cancel at v = y.
    """
    return float(np.sum(entry_divergence(V, W @ H, beta)))


def entry_divergence(V: Matrix, Y: Matrix, beta: float) -> Matrix:
    """d(v | y) entry by entry, [FI] eq. 2.3-2.6, with its limits at zeros: 0 log 0 = 0, and infinity for beta <= 0."""
    V, Y = np.broadcast_arrays(np.asarray(V, dtype=np.float64), np.asarray(Y, dtype=np.float64))
    with np.errstate(divide="ignore", invalid="ignore"):
        if beta == 2:
            return (V - Y) ** 2 / 2
        if beta == 1:
            return np.where(V == 0, Y, V * np.log(V / Y) - V + Y)
        if beta == 0:
            d = V / Y - np.log(V / Y) - 1
        else:
            d = (V**beta + (beta - 1) * Y**beta - beta * V * Y ** (beta - 1)) / (beta * (beta - 1))
    return d if beta > 0 else np.where((V == 0) | (Y == 0), np.inf, d)


def update_w(V: Matrix, W: Matrix, H: Matrix, beta: float, floor: float = 0.0) -> Matrix:
    """W_ik <- W_ik [sum_j V_ij Y_ij^(beta-2) H_kj / sum_j Y_ij^(beta-1) H_kj]^gamma, [FI] eq. 4.1."""
    W, H = np.maximum(W, floor), np.maximum(H, floor)
    if beta == 1:  # [LS] eq. 5
        ratio = np.einsum("kj,ij->ik", H, V / (W @ H)) / np.einsum("kj->k", H)[None, :]
    elif beta == 2:  # [LS] eq. 4
        ratio = np.einsum("ij,kj->ik", V, H) / np.einsum("il,lj,kj->ik", W, H, H)
    else:
        Y = W @ H
        ratio = np.einsum("ij,kj->ik", V * Y ** (beta - 2), H) / np.einsum("ij,kj->ik", Y ** (beta - 1), H)
    return np.maximum(W * ratio ** exponent(beta), floor)


def update_h(V: Matrix, W: Matrix, H: Matrix, beta: float, floor: float = 0.0) -> Matrix:
    """H_kj <- H_kj [sum_i W_ik V_ij Y_ij^(beta-2) / sum_i W_ik Y_ij^(beta-1)]^gamma, [FI] eq. 4.1."""
    W, H = np.maximum(W, floor), np.maximum(H, floor)
    if beta == 1:  # [LS] eq. 5
        ratio = np.einsum("ik,ij->kj", W, V / (W @ H)) / np.einsum("ik->k", W)[:, None]
    elif beta == 2:  # [LS] eq. 4
        ratio = np.einsum("ik,ij->kj", W, V) / np.einsum("ik,il,lj->kj", W, W, H)
    else:
        Y = W @ H
        ratio = np.einsum("ik,ij->kj", W, V * Y ** (beta - 2)) / np.einsum("ik,ij->kj", W, Y ** (beta - 1))
    return np.maximum(H * ratio ** exponent(beta), floor)


def exponent(beta: float) -> float:
    """The gamma of [FI] eq. 4.1, with which the divergence cannot rise: Theorems 1-3."""
    if beta < 1:
        return 1 / (2 - beta)
    if beta > 2:
        return 1 / (beta - 1)
    return 1.0


def factorize(V: Matrix, W: Matrix, H: Matrix, beta: float, n_iter: int, floor: float = 0.0) -> tuple[Matrix, Matrix]:
    """`n_iter` iterations of W, then H with the new W."""
    V, W, H = (np.asarray(x, dtype=np.float64) for x in (V, W, H))
    for _ in range(n_iter):
        W = update_w(V, W, H, beta, floor)
        H = update_h(V, W, H, beta, floor)
    return W, H


def gradient(V: Matrix, W: Matrix, H: Matrix, beta: float) -> tuple[Matrix, Matrix]:
    """dD/dW and dD/dH from d'(v | y) = y^(beta-1) - v y^(beta-2), the derivative of [FI] eq. 2.3."""
    Y = W @ H
    slope = Y ** (beta - 1) - V * Y ** (beta - 2)
    return np.einsum("ij,kj->ik", slope, H), np.einsum("ik,ij->kj", W, slope)


def rounding_bound(V: Matrix, W: Matrix, H: Matrix, beta: float, eps: float) -> Matrix:
    """How much D may seem to rise over one update of W or H done in a dtype of that `eps`: shape (...).

    Every entry of a computed update is the exact one times 1 + delta. Its numerator and denominator are sums of
    positive terms, so |delta| is at most eps/2 times the roundings on the longest path, N = 2 max(m, n) + (|beta - 2| +
    |beta - 1|) (r + 1) + 12 of them: two sums of at most max(m, n) products; Y, a sum of r products, under the powers
    beta - 2 and beta - 1; three powers of at most two units in the last place each, a quotient and four products. (For
    beta 2 the denominator is W (H H^T), whose r terms are in N as well.) To first order, an update that is off by
    delta moves Y by at most |delta| Y, and D by at most |delta| sum |y d'(v | y)|. D itself is measured in float64
    before and after, each with an error below float64's eps times its terms and the r + 4 roundings in each of them.
    """
    Y = W @ H
    m, n, r = V.shape[-2], V.shape[-1], W.shape[-1]
    roundings = 2 * max(m, n) + (abs(beta - 2) + abs(beta - 1)) * (r + 1) + 12
    terms = np.sum(V * Y ** (beta - 1) + Y**beta, axis=(-2, -1))
    measure = 2 * (r + 4) * float(np.finfo(np.float64).eps) * np.sum(_term_magnitudes(V, Y, beta), axis=(-2, -1))
    return roundings * eps / 2 * terms + measure


def _term_magnitudes(V: Matrix, Y: Matrix, beta: float) -> Matrix:
    """The terms of d(v | y) with no sign, so that nothing cancels."""
    if beta == 2:
        return (V + Y) ** 2 / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        log = np.where(V == 0, 0.0, np.abs(np.log(V / Y)))
    if beta == 1:
        return V * log + V + Y
    if beta == 0:
        return V / Y + log + 1
    return (V**beta + abs(beta - 1) * Y**beta + abs(beta) * V * Y ** (beta - 1)) / abs(beta * (beta - 1))
