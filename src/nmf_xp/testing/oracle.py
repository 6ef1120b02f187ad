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
        ratio = _ratio(np.einsum("kj,ij->ik", H, _slope(V, W @ H, 1.0)), np.einsum("kj->k", H)[None, :])
    elif beta == 2:  # [LS] eq. 4
        ratio = _ratio(np.einsum("ij,kj->ik", V, H), np.einsum("il,lj,kj->ik", W, H, H))
    else:
        Y = W @ H
        ratio = _ratio(np.einsum("ij,kj->ik", _slope(V, Y, beta), H), np.einsum("ij,kj->ik", Y ** (beta - 1), H))
    return np.maximum(W * ratio ** exponent(beta), floor)


def update_h(V: Matrix, W: Matrix, H: Matrix, beta: float, floor: float = 0.0) -> Matrix:
    """H_kj <- H_kj [sum_i W_ik V_ij Y_ij^(beta-2) / sum_i W_ik Y_ij^(beta-1)]^gamma, [FI] eq. 4.1."""
    W, H = np.maximum(W, floor), np.maximum(H, floor)
    if beta == 1:  # [LS] eq. 5
        ratio = _ratio(np.einsum("ik,ij->kj", W, _slope(V, W @ H, 1.0)), np.einsum("ik->k", W)[:, None])
    elif beta == 2:  # [LS] eq. 4
        ratio = _ratio(np.einsum("ik,ij->kj", W, V), np.einsum("ik,il,lj->kj", W, W, H))
    else:
        Y = W @ H
        ratio = _ratio(np.einsum("ik,ij->kj", W, _slope(V, Y, beta)), np.einsum("ik,ij->kj", W, Y ** (beta - 1)))
    return np.maximum(H * ratio ** exponent(beta), floor)


def _slope(V: Matrix, Y: Matrix, beta: float) -> Matrix:
    """V Y^(beta-2), and 0 where V is 0: an entry that is zero pulls at nothing, though Y may be 0 there as well."""
    return np.multiply(V, np.power(Y, beta - 2, where=V > 0, out=np.zeros(Y.shape)))


def _ratio(numerator: Matrix, denominator: Matrix) -> Matrix:
    """Their quotient; 0 where the denominator underflows, which it does only where the data are zero."""
    out = np.zeros(np.broadcast_shapes(numerator.shape, denominator.shape))
    return np.divide(numerator, denominator, out=out, where=np.broadcast_to(denominator > 0, out.shape))


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
    """How much D may seem to rise when W or H was updated in a dtype of that `eps`: (...), for the result (W, H).

    1. Every entry of a computed update is the exact one times 1 + delta, |delta| <= u = N eps/2, with N the roundings
       on the longest path, as numerator and denominator are sums of positive terms. N = 2 max(m, n) + (|beta - 2| +
       |beta - 1|) (r + 1) + 12: two sums of at most max(m, n) products; Y, a sum of r products, under the powers
       beta - 2 and beta - 1; three powers of at most two units in the last place, a quotient, and four products.
       (For beta 2 the denominator is W (H H^T), whose r terms take the place of Y's.)
    2. It moves each entry of Y by at most u y, and D by at most u sum |y d'| + u^2 / 2 sum |y^2 d''|, with
       y d' = y^beta - v y^(beta-1) and y^2 d'' = (beta - 1) y^beta - (beta - 2) v y^(beta-1). Twice the last term
       covers what is beyond second order.
    3. D is measured before and after in float64, each time with the error of its terms (`_measuring_error`).
    """
    Y = W @ H
    m, n, r = V.shape[-2], V.shape[-1], W.shape[-1]
    u = (2 * max(m, n) + (abs(beta - 2) + abs(beta - 1)) * (r + 1) + 12) * eps / 2
    data, model = V * Y ** (beta - 1), Y**beta
    first = np.sum(np.abs(model - data), axis=(-2, -1))
    second = np.sum(abs(beta - 1) * model + abs(beta - 2) * data, axis=(-2, -1))
    return u * first + u**2 * second + 2 * _measuring_error(V, Y, beta, r)


def _measuring_error(V: Matrix, Y: Matrix, beta: float, r: int) -> Matrix:
    """Error of `divergence`: roundings of Y's r products, of the powers and terms, and of the sum over the entries."""
    with np.errstate(divide="ignore", invalid="ignore"):
        log = np.where(V == 0, 0.0, np.abs(np.log(V / Y)))
    if beta == 2:
        terms = (V + Y) ** 2 / 2
    elif beta == 1:
        terms = V * (log + 1) + Y
    elif beta == 0:
        terms = V / Y + log + 1
    else:
        terms = (V**beta + abs(beta - 1) * Y**beta + abs(beta) * V * Y ** (beta - 1)) / abs(beta * (beta - 1))
    roundings = (r + 2) * max(1.0, abs(beta), abs(beta - 1)) + 4 + np.log2(V.shape[-2] * V.shape[-1])
    return roundings * float(np.finfo(np.float64).eps) / 2 * np.sum(terms, axis=(-2, -1))
