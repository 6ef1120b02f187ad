"""Dense NumPy matrices that kernels take as a whole: small ones at once, and those of few components by tiles."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from nmf_xp.arrays import threads
from nmf_xp.data import Dense

if TYPE_CHECKING:
    from nmf_xp.arrays.typing import Array
    from nmf_xp.problem import Problem

MOST_COMPONENTS = 32
"""For more, products are most of the work, and BLAS is as fast as a kernel."""


def takes_tiles(W: Array, problem: Problem) -> bool:
    """Whether kernels make the products of such a problem themselves, with terms that all of them know."""
    simple = type(problem.data) is Dense and problem.w.simple and problem.h.simple
    return simple and (W.shape[-1] <= MOST_COMPONENTS or is_small(W, problem))


def is_small(W: Array, problem: Problem) -> bool:
    """Whether an iteration is no work for threads, of terms that all kernels know; a stack's threads share members."""
    if type(problem.data) is not Dense:
        return False
    if not (problem.w.simple and problem.h.simple):
        return False
    return W.ndim > 2 or 4 * products_of(W, problem) < 2 * threads.SHARE


def penalties_of(problem: Problem) -> tuple[float, float, float, float]:
    """L1 and L2 of W, then of H."""
    return *problem.w.penalties, *problem.h.penalties


def products_of(W: Array, problem: Problem) -> int:
    """Products of two numbers that make the model of a member."""
    return int(problem.data.values.shape[-1] * math.prod(W.shape[-2:]))
