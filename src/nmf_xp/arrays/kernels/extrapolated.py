"""Iterations of `newton` and `cd` on small dense matrices, one or a stack: twins of `Extrapolated.step`.

An iteration of so small a matrix takes less time than Python needs to begin it. So a call makes many of them, with the
momentum, the extrapolation and the test whether the objective fell.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from nmf_xp.arrays.kernels.compiling import entry, jit
from nmf_xp.arrays.kernels.coordinate import sweep_entries, sweep_rows
from nmf_xp.arrays.kernels.divergence import row_divergence
from nmf_xp.arrays.kernels.newton import correlate, step_rows
from nmf_xp.arrays.kernels.quadratic import products, side
from nmf_xp.arrays.kernels.tiling import as_members, copy, copy_transposed, smallest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Penalties = tuple[float, float, float, float]


def newton_iterations(
    V: NDArray[Any],
    state: Sequence[NDArray[Any]],
    *,
    penalties: Penalties,
    floor: float,
    pace: tuple[float, float, float],
    counts: tuple[int, int],
    n: int,
) -> tuple[NDArray[Any], ...]:
    """The arrays of the state of each member after `n` iterations for the Kullback-Leibler divergence.

    V is one matrix (m, n) or a stack (c, m, n). The penalties are L1 and L2 of W, then of H; the `pace` says by how
    much the momentum and its limit grow, and by how much the momentum is divided; the counts are sweeps and trials.
    """
    return _iterated(_row_iterations, V, state, penalties, floor, (*pace, *counts, n, False))


def coordinate_iterations(
    V: NDArray[Any],
    state: Sequence[NDArray[Any]],
    *,
    penalties: Penalties,
    floor: float,
    pace: tuple[float, float, float],
    counts: tuple[int, int],
    n: int,
) -> tuple[NDArray[Any], ...]:
    """The same by sweeps of coordinate descent, of which the first count says how many."""
    return _iterated(_row_iterations, V, state, penalties, floor, (*pace, *counts, n, True))


def descent_iterations(
    V: NDArray[Any],
    state: Sequence[NDArray[Any]],
    *,
    penalties: Penalties,
    floor: float,
    pace: tuple[float, float, float],
    counts: tuple[int, int],
    n: int,
) -> tuple[NDArray[Any], ...]:
    """The same for the Frobenius loss, where the counts are the sweeps over W and over H."""
    return _iterated(_descent_iterations, V, state, penalties, floor, (*pace, *counts, n))


def _loadings(
    V: NDArray[Any],
    state: Sequence[NDArray[Any]],
    *,
    penalties: Penalties,
    floor: float,
    counts: tuple[int, int],
    n: int,
    by_coordinates: bool,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """W of each member after `n` iterations with its H, and H, for the Kullback-Leibler divergence."""
    W, H = np.array(state[0], order="C"), state[1]
    number = V.dtype.type
    terms: Any = number(penalties[0]), number(penalties[1]), number(floor), smallest(V.dtype)
    rest: Any = *terms, *counts, n, by_coordinates
    _loading_iterations(as_members(V), as_members(W), as_members(H), *rest)
    return W, H


newton_loadings = functools.partial(_loadings, by_coordinates=False)
coordinate_loadings = functools.partial(_loadings, by_coordinates=True)


def _iterated(
    kernel: Any,
    V: NDArray[Any],
    state: Sequence[NDArray[Any]],
    penalties: Penalties,
    floor: float,
    rest: tuple[Any, ...],
) -> tuple[NDArray[Any], ...]:
    factors = [np.array(x, order="C") for x in state[:4]]
    numbers = np.stack(state[4:], axis=-1)
    number = V.dtype.type
    limits = number(floor), np.finfo(V.dtype).smallest_normal
    terms = tuple(map(number, penalties))
    kernel(as_members(V), *map(as_members, factors), numbers.reshape(-1, 5), terms, *limits, *rest)
    return (*factors, *(numbers[..., i] for i in range(5)))


@entry("x3s, x3, x3, x3, x3, f2, (x, x, x, x), x, x, f, f, f, n, n, n, b")
def _row_iterations(
    V: Any,
    W: Any,
    H: Any,
    W_new: Any,
    H_ahead: Any,
    numbers: Any,
    penalties: Any,
    floor: Any,
    tiny: Any,
    growth: float,
    limit_growth: float,
    reduction: float,
    sweeps: int,
    trials: int,
    iterations: int,
    by_coordinates: bool,
) -> None:
    w_l1, w_l2, h_l1, h_l2 = penalties
    (m, r), n = W.shape[1:], H.shape[2]
    w, wt, ht = np.empty((m, r), W.dtype), np.empty((r, m), W.dtype), np.empty((n, r), W.dtype)
    gram, sums = np.empty((r, r), W.dtype), np.empty((max(m, n), r), W.dtype)
    of_w, of_h = (gram, w_l1, w_l2, floor, tiny, sweeps, trials), (gram, h_l1, h_l2, floor, tiny, sweeps, trials)
    for c in range(W.shape[0]):
        v = V[c % V.shape[0]]
        for _ in range(iterations):
            share = W.dtype.type((1.0 - numbers[c, 3]) * numbers[c, 0])
            copy(W[c], w)
            _half(v, w, H_ahead[c], sums[:m, :r], of_w, False, by_coordinates)
            for i in range(m):
                for k in range(r):
                    wt[k, i] = _ahead(w[i, k], W_new[c, i, k], share, floor)
            copy_transposed(H_ahead[c], ht)
            current = _half(v.T, ht, wt, sums[:n, :r], of_h, True, by_coordinates)
            current += _penalty(wt, w_l1, w_l2) + _penalty(ht, h_l1, h_l2)
            if _falls(numbers[c], current, current, numbers[c, 4], growth, limit_growth, reduction):
                copy_transposed(wt, W[c])
                copy(w, W_new[c])
                for k in range(r):
                    for j in range(n):
                        H_ahead[c, k, j] = _ahead(ht[j, k], H[c, k, j], share, floor)
                copy_transposed(ht, H[c])
            else:
                copy(W[c], W_new[c])
                copy(H[c], H_ahead[c])


@entry("x3s, x3, x3, x, x, x, x, n, n, n, b")
def _loading_iterations(
    V: Any,
    W: Any,
    H: Any,
    l1: Any,
    l2: Any,
    floor: Any,
    tiny: Any,
    sweeps: int,
    trials: int,
    iterations: int,
    by_coordinates: bool,
) -> None:
    m, r = W.shape[1:]
    gram, sums = np.empty((r, r), W.dtype), np.empty((m, r), W.dtype)
    settings = gram, l1, l2, floor, tiny, sweeps, trials
    for c in range(W.shape[0]):
        for _ in range(iterations):
            _half(V[c % V.shape[0]], W[c], H[c % H.shape[0]], sums, settings, False, by_coordinates)


@jit
def _half(V: Any, W: Any, H: Any, sums: Any, settings: Any, measured: bool, by_coordinates: bool) -> float:
    """An update of W, and the divergence after it, if it is `measured`."""
    gram, l1, l2, floor, tiny, sweeps, _ = settings
    for k in range(H.shape[0]):
        total = tiny - tiny
        for j in range(H.shape[1]):
            total += H[k, j]
        for i in range(W.shape[0]):
            sums[i, k] = total
    if not by_coordinates:
        correlate(W, H, gram, tiny)
        return step_rows(V, W, H, sums, settings, measured)
    sweep_entries(V, W, H, sums, l1, l2, floor, sweeps)
    return _divergence(V, W, H) if measured else 0.0


@jit
def _divergence(V: Any, W: Any, H: Any) -> float:
    v, y = np.empty(V.shape[1], V.dtype), np.empty(V.shape[1], V.dtype)
    divergence = 0.0
    for i in range(V.shape[0]):
        y[:] = 0
        for k in range(H.shape[0]):
            for j in range(H.shape[1]):
                y[j] += W[i, k] * H[k, j]
        for j in range(V.shape[1]):
            v[j] = V[i, j]
        divergence += row_divergence(v, y)
    return divergence


@entry("x3, x3, x3, x3, x3, f2, (x, x, x, x), x, x, f, f, f, n, n, n")
def _descent_iterations(
    V: Any,
    W: Any,
    H: Any,
    W_new: Any,
    H_ahead: Any,
    numbers: Any,
    penalties: Any,
    floor: Any,
    tiny: Any,
    growth: float,
    limit_growth: float,
    reduction: float,
    w_sweeps: int,
    h_sweeps: int,
    iterations: int,
) -> None:
    w_l1, w_l2, h_l1, h_l2 = penalties
    (m, r), n = W.shape[1:], H.shape[2]
    v, h_rows, of_w = side(m, n, r, V)
    v_turned, w_rows, of_h = side(n, m, r, V)
    w, w_ahead, wt = np.empty((m, r), W.dtype), np.empty((m, r), W.dtype), np.empty((r, m), W.dtype)
    h, h_ahead = np.empty((n, r), W.dtype), np.empty((n, r), W.dtype)
    w_product, h_product, gram = np.empty((m, r), W.dtype), np.empty((n, r), W.dtype), np.empty((r, r), W.dtype)
    for c in range(W.shape[0]):
        copy(V[c % V.shape[0]], v)
        copy_transposed(V[c % V.shape[0]], v_turned)
        for _ in range(iterations):
            share = W.dtype.type((1.0 - numbers[c, 3]) * numbers[c, 0])
            products(v, H_ahead[c], h_rows, of_w, w_product, gram)
            for k in range(r):
                gram[k, k] += w_l2
            copy(W[c], w)
            copy(W_new[c], w_ahead)
            _, first = sweep_rows(w, w_ahead, w_product, gram, share, w_l1, floor, tiny, w_sweeps)
            copy_transposed(w_ahead, wt)
            products(v_turned, wt, w_rows, of_h, h_product, gram)
            for k in range(r):
                gram[k, k] += h_l2
            copy_transposed(H_ahead[c], h)
            copy_transposed(H[c], h_ahead)
            to_new, to_ahead = sweep_rows(h, h_ahead, h_product, gram, share, h_l1, floor, tiny, h_sweeps)
            if _falls(numbers[c], first + to_new, to_new - to_ahead, 0.0, growth, limit_growth, reduction):
                copy(w_ahead, W[c])
                copy(w, W_new[c])
                copy_transposed(h, H[c])
                copy_transposed(h_ahead, H_ahead[c])
            else:
                copy(W[c], W_new[c])
                copy(H[c], H_ahead[c])


@jit
def _falls(
    numbers: Any, current: float, accepted: float, before: float, growth: float, limit_growth: float, reduction: float
) -> bool:
    """Whether the objective fell, and the momentum, its limit and the rest of the `numbers` after that."""
    momentum, limit, good = numbers[0], numbers[1], numbers[2]
    if current <= numbers[4]:
        numbers[0], numbers[1], numbers[2] = min(limit, growth * momentum), min(limit_growth * limit, 1.0), momentum
        numbers[3], numbers[4] = 0.0, accepted
        return True
    numbers[0], numbers[1] = momentum / reduction, good
    numbers[3], numbers[4] = 1.0, before
    return False


@jit
def _ahead(new: Any, old: Any, share: Any, floor: Any) -> Any:
    """Beyond the new entry in the direction from the old one, but not below half of it."""
    return max(new + share * (new - old), (floor / (floor + floor)) * new, floor)


@jit
def _penalty(x: Any, l1: Any, l2: Any) -> float:
    total, squares = 0.0, 0.0
    for i in range(x.shape[0]):
        for k in range(x.shape[1]):
            total += np.float64(x[i, k])
            squares += np.float64(x[i, k] * x[i, k])
    return np.float64(l1) * total + 0.5 * np.float64(l2) * squares
