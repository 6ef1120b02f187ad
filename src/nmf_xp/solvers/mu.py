"""Multiplicative updates (Lee & Seung 2001; Fevotte & Idier 2011): W, then H with the new W."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from nmf_xp.updates import multiplicative_h, multiplicative_w

if TYPE_CHECKING:
    from nmf_xp._typing import Array, Namespace
    from nmf_xp.problem import Problem


class State(NamedTuple):
    """The factors: all that multiplicative updates carry."""

    W: Array
    H: Array


class MultiplicativeUpdate(NamedTuple):
    """Settings of the multiplicative updates."""

    beta: float
    floor: float
    fixed_h: bool = False

    def init(self, problem: Problem, W: Array, H: Array, *, xp: Namespace) -> State:
        """The state at the start; W and H respect the floor."""
        return State(W, H)

    def step(self, state: State, problem: Problem, *, xp: Namespace) -> State:
        """One iteration."""
        W, H = state
        data, w, h = problem
        W = multiplicative_w(data, W, H, w, beta=self.beta, floor=self.floor, xp=xp)
        if not self.fixed_h:
            H = multiplicative_h(data, W, H, h, beta=self.beta, floor=self.floor, xp=xp)
        return State(W, H)
