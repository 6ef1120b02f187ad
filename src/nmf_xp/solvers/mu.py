"""Multiplicative updates (Lee & Seung 2001; Fevotte & Idier 2011): W, then H with the new W."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from nmf_xp import _kernels
from nmf_xp.data import Dense
from nmf_xp.data.blocks import Part, sweep
from nmf_xp.updates import mm_step, multiplicative_w, slopes

if TYPE_CHECKING:
    from nmf_xp._typing import Array, Namespace
    from nmf_xp.data import Data
    from nmf_xp.problem import Constraints, Problem


class Factors(NamedTuple):
    """The factors: all that a solver carries which does not look back."""

    W: Array
    H: Array


class MultiplicativeUpdate(NamedTuple):
    """Settings of the multiplicative updates."""

    beta: float
    floor: float
    fixed_h: bool = False
    pace: int = 1
    stacks: bool = True
    name: str = "mu"

    def prepare(self, problem: Problem) -> Problem:
        """The problem as it is."""
        return problem

    def init(self, problem: Problem, W: Array, H: Array, *, xp: Namespace) -> Factors:
        """The state at the start; W and H respect the floor."""
        return Factors(W, H)

    def step(self, state: Factors, problem: Problem, *, xp: Namespace) -> Factors:
        """One iteration, in one pass over the data."""
        data, w, h = problem
        beta, floor = self.beta, self.floor
        Ht = xp.matrix_transpose(state.H)

        def half(block: Data, W: Array, constraints: Constraints) -> Part:
            W = multiplicative_w(block, W, state.H, constraints, beta=beta, floor=floor, xp=xp)
            return Part(W, () if self.fixed_h else slopes(block.T, Ht, xp.matrix_transpose(W), beta=beta, xp=xp))

        W, sums = sweep(half, data, state.W, w, xp=xp)
        if self.fixed_h:
            return Factors(W, state.H)
        Ht = mm_step(Ht, sums, h.transposed(xp=xp), beta=beta, floor=floor, xp=xp)
        return Factors(W, xp.matrix_transpose(Ht))

    def steps(self, state: Factors, problem: Problem, n: int, *, xp: Namespace) -> Factors:
        """`n` iterations: those of a stack of small NumPy matrices in a kernel."""
        data, w, h = problem
        if self.beta == 1 and state.W.ndim > 2 and isinstance(data, Dense) and w.free and h.free and not self.fixed_h:
            kernel = _kernels.find("kl_iterations", data.values, *state)
            if kernel is not None:
                return Factors(*kernel(data.values, *state, floor=self.floor, n=n))
        for _ in range(n):
            state = self.step(state, problem, xp=xp)
        return state
