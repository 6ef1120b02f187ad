"""Random problems of the kinds that occur, in NumPy float64."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np

Matrix: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]

BETAS = (-1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
BRANCHES = (-1.0, 0.0, 1.0, 2.0)  # a beta for each form that the formulas take: any, and the three with a name
DTYPES = ("float32", "float64")


class Factorization(NamedTuple):
    """Data (..., m, n) and a start (..., m, r), (..., r, n)."""

    V: Matrix
    W: Matrix
    H: Matrix


def noisy(m: int, n: int, r: int, *, seed: int = 0, zeros: bool = False) -> Factorization:
    """Gamma data with no exact model, and a start whose model is of the same size."""
    rng = np.random.default_rng(seed)
    V = rng.gamma(2.0, 1.0, size=(m, n))
    if zeros:
        V *= rng.random((m, n)) < 0.7
    W, H = rng.uniform(0.1, 1.1, size=(m, r)), rng.uniform(0.1, 1.1, size=(r, n))
    scale = np.sqrt(V.sum() / (W @ H).sum())
    return Factorization(V, scale * W, scale * H)


def various(m: int, n: int, r: int, *, count: int, seed: int, zeros: bool) -> Factorization:
    """A stack of `count` problems: scales from 1e-3 to 1e3, spread data, counts, exact models, good and bad starts.

    With `zeros`, half of them have zero entries, and some an empty row or column.
    """
    rng = np.random.default_rng(seed)
    stack = [_one(m, n, r, kind=i, zeros=zeros, rng=rng) for i in range(count)]
    V, W, H = (np.stack(matrices) for matrices in zip(*stack, strict=True))
    return Factorization(V, W, H)


def _one(m: int, n: int, r: int, *, kind: int, zeros: bool, rng: np.random.Generator) -> Factorization:
    W, H = rng.uniform(0.1, 1.1, size=(m, r)), rng.uniform(0.1, 1.1, size=(r, n))
    V: np.ndarray[Any, Any]
    match kind % 4:
        case 0:
            V = rng.gamma(1.0, 1.0, size=(m, n)) + 1e-3
        case 1:
            V = rng.lognormal(0.0, 2.0, size=(m, n))
        case 2:
            V = rng.poisson(3.0, size=(m, n)) + (0.0 if zeros else 1.0)
        case _:  # an exact model with a start beside it, where rounding is all that is left
            V = W @ H
            W, H = W * rng.uniform(0.999, 1.001, size=W.shape), H * rng.uniform(0.999, 1.001, size=H.shape)
    if zeros and kind % 2 == 0:
        V = V * (rng.random((m, n)) < 0.8)
        if kind % 8 == 0:
            V[rng.integers(m)] = 0
        if kind % 8 == 4:
            V[:, rng.integers(n)] = 0
    if kind % 4 != 3 and kind % 3 == 0:  # a start far from the data
        W = W * 10.0 ** rng.uniform(-2, 2)
    scale = 10.0 ** rng.uniform(-3, 3)
    return Factorization(scale * V, scale * W, H)
