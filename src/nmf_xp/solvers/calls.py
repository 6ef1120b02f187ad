"""How many iterations a call of a kernel makes that makes many of them: between two calls an interrupt is noticed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from nmf_xp.arrays import threads
from nmf_xp.problem.small import products_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nmf_xp.arrays.typing import Array
    from nmf_xp.problem import Problem

AT_ONCE = 2**28  # products of two numbers in a call, after which an interrupt is noticed


def in_calls(n: int, W: Array, problem: Problem) -> Iterator[int]:
    """How many of `n` iterations each call makes."""
    members = math.prod(W.shape[:-2])
    most = max(1, AT_ONCE // (members * (products_of(W, problem) + 2**13)))  # with what an iteration costs besides
    while n > 0:
        threads.give_up_if_asked()
        yield min(n, most)
        n -= most  # lint: a Python int
