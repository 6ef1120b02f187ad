"""Iterations of small dense NumPy matrices in calls of a kernel that makes many of them: for which, and how many.

Between two such calls an interrupt is noticed.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from nmf_xp.arrays import libraries, threads
from nmf_xp.data import Dense

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nmf_xp.arrays.typing import Array
    from nmf_xp.problem import Problem

AT_ONCE = 2**28  # products of two numbers in a call, after which an interrupt is noticed


def is_small(W: Array, problem: Problem) -> bool:
    """Whether an iteration is no work for threads, of terms that all kernels know; a stack's threads share members."""
    if type(problem.data) is not Dense:
        return False
    if any(x.bounded or x.others or libraries.is_array(x.l1) for x in (problem.w, problem.h)):
        return False
    return W.ndim > 2 or 4 * _products(W, problem) < 2 * threads.SHARE


def penalties_of(problem: Problem) -> tuple[float, float, float, float]:
    """L1 and L2 of W, then of H."""
    return *problem.w.penalties, *problem.h.penalties


def in_calls(n: int, W: Array, problem: Problem) -> Iterator[int]:
    """How many of `n` iterations each call makes."""
    members = math.prod(W.shape[:-2])
    most = max(1, AT_ONCE // (members * (_products(W, problem) + 2**13)))  # with what an iteration costs besides
    while n > 0:
        threads.give_up_if_asked()
        yield min(n, most)
        n -= most  # lint: a Python int


def _products(W: Array, problem: Problem) -> int:
    return int(problem.data.values.shape[-1] * math.prod(W.shape[-2:]))
