r"""Multiplicative updates accelerated by SQUAREM, for every loss and every backend.

Varadhan & Roland (2008), scheme S3, on the map F of one multiplicative iteration, in the square roots z of the factors
(the metric of a Poisson rate, in which squares stay positive):

    r = z1 - z0,   v = (z2 - z1) - r,   a = max(1, |r| / |v|),   z' = z0 + 2 a r + a^2 v.

One cycle is three iterations: F, F, and F at z'. It ends at the better one of F(z') and of z2, so the objective never
rises. Factors are balanced first, since the scale between W and H is no part of the problem.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from nmf_xp.optimality import objective
from nmf_xp.solvers.mu import MultiplicativeUpdate, State

if TYPE_CHECKING:
    from nmf_xp._typing import Array, Namespace
    from nmf_xp.problem import Problem


LONGEST = 1024.0  # more is rounding error


class AcceleratedMultiplicativeUpdate(NamedTuple):
    """Settings of the accelerated multiplicative updates."""

    beta: float
    floor: float
    fixed_h: bool = False

    def prepare(self, problem: Problem) -> Problem:
        """The problem as it is."""
        return problem

    def init(self, problem: Problem, W: Array, H: Array, *, xp: Namespace) -> State:
        """The state at the start; W and H respect the floor."""
        return State(W, H)

    def step(self, state: State, problem: Problem, *, xp: Namespace) -> State:
        """One cycle of three iterations."""
        iterate = MultiplicativeUpdate(self.beta, self.floor, self.fixed_h).step
        start = self._balanced(state, problem, xp=xp)
        once = iterate(start, problem, xp=xp)
        twice = iterate(once, problem, xp=xp)
        ahead = iterate(self._ahead(start, once, twice, problem, xp=xp), problem, xp=xp)
        better = self._objective(ahead, problem, xp=xp) <= self._objective(twice, problem, xp=xp)
        better = better[..., None, None]
        return State(*(xp.where(better, new, safe) for new, safe in zip(ahead, twice, strict=True)))

    def _objective(self, state: State, problem: Problem, *, xp: Namespace) -> Array:
        return objective(problem, state.W, state.H, beta=self.beta, xp=xp)

    def _ahead(self, start: State, once: State, twice: State, problem: Problem, *, xp: Namespace) -> State:
        """The extrapolated factors, within floor and constraints."""
        roots = [[xp.sqrt(x) for x in state] for state in (start, once, twice)]
        changes = [z1 - z0 for z0, z1 in zip(roots[0], roots[1], strict=True)]
        bends = [z2 - z1 - r for z1, z2, r in zip(roots[1], roots[2], changes, strict=True)]
        tiny = float(xp.finfo(start.W.dtype).smallest_normal) ** 0.5
        length = _norm(changes, xp=xp) / xp.maximum(_norm(bends, xp=xp), tiny)
        length = xp.minimum(xp.maximum(length, 1.0), LONGEST)
        ahead = []
        for z, r, v, old, c in zip(roots[0], changes, bends, twice, (problem.w, problem.h), strict=True):
            root = xp.maximum(z + 2.0 * length * r + length * length * v, 0.0)
            ahead.append(c.enforce(xp.maximum(root * root, self.floor), old, xp=xp))
        return State(ahead[0], start.H if self.fixed_h else ahead[1])

    def _balanced(self, state: State, problem: Problem, *, xp: Namespace) -> State:
        """Columns of W and rows of H with equal sums, where nothing but the product matters."""
        if self.fixed_h or not (problem.w.free and problem.h.free):
            return state
        W, H = state
        scale = xp.sqrt(xp.matrix_transpose(xp.sum(H, axis=-1, keepdims=True)) / xp.sum(W, axis=-2, keepdims=True))
        return State(xp.maximum(W * scale, self.floor), xp.maximum(H / xp.matrix_transpose(scale), self.floor))


def _norm(parts: list[Array], *, xp: Namespace) -> Array:
    """Euclidean norm over both factors, of each matrix: (..., 1, 1)."""
    squares = (xp.sum(x * x, axis=(-2, -1), keepdims=True) for x in parts)
    return xp.sqrt(sum(squares))
