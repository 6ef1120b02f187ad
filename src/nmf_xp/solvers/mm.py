r"""Joint majorisation-minimisation accelerated by SQUAREM, in plain array operations for every loss.

**The map.** The divergence is majorised in W and H at once, at one reference (W', H') with Y' = W'H' (Marmin, Goulart &
Fevotte 2023): with P = V * Y'^(beta-2) and Q = Y'^(beta-1), both of which are made once an iteration,

    W <- W' * [P H'^T / (Q H'^T)]^gamma,     H <- H' * [chi1^T P / (chi2^T Q)]^gamma,

    chi1 = W'^(2-beta) * W^(beta-1),     chi2 = W for beta < 1,  W^beta * W'^(1-beta) for beta >= 1.

W moves first, and that is its multiplicative update. For beta 1 this is the EM algorithm of the Poisson model, one
scaling aside. For beta 2, where products with V are all that counts, beyond [0, 2), and for zeros that are not
stored, the map is an iteration of multiplicative updates.

**The acceleration.** SQUAREM (Varadhan & Roland 2008), scheme S3, on the map F, in the square roots z of the factors
(the metric of a Poisson rate, in which squares stay positive):

    r = z1 - z0,   v = (z2 - z1) - r,   a = max(1, |r| / |v|),   z' = z0 + 2 a r + a^2 v,

of which r and v are computed relative to z0, by roots of quotients: in other units of V, they are the same to the last
bit.

A cycle is three iterations: F, F, and F at z'. As F never raises D, D(F(z')) <= D(z'): the cycle ends at F(z') where
D(z') is no more than D(z1), else at z2, so the objective never rises. Both come from products that F makes anyway.
The longest step is limited, by what has succeeded before. Factors are balanced first, since the scale between W and H
is no part of the problem.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.arrays import operators
from nmf_xp.data.blocks import Part, sweep
from nmf_xp.divergences import block_divergence
from nmf_xp.problem import Factors
from nmf_xp.problem.optimality import penalties
from nmf_xp.solvers.mu import MultiplicativeUpdate
from nmf_xp.solvers.solver import Solver
from nmf_xp.updates import mm_step, power_parts

if TYPE_CHECKING:
    from nmf_xp.arrays.typing import Array, Namespace
    from nmf_xp.data import Data
    from nmf_xp.data.constraints import Constraints
    from nmf_xp.problem import Problem


LEAST = 0.5  # of a factor, below which no extrapolation takes it: multiplicative updates hardly leave zero
GROWTH = 2.0  # of the longest step, where it was taken with success; it shrinks as much otherwise


class State(NamedTuple):
    """The factors, and how far a cycle may go."""

    W: Array
    H: Array
    longest: Array  # (..., 1, 1)


class AcceleratedMajorizer(Solver):
    """The accelerated majorise-minimise iteration."""

    def stacks(self, W: Array, problem: Problem) -> bool:
        """Whether NumPy runs a stack of small matrices faster than one after the other."""
        return True

    def init(self, problem: Problem, W: Array, H: Array, *, xp: Namespace) -> State:
        """The state at the start."""
        size = xp.sum(W, axis=(-2, -1), keepdims=True)
        return State(W, H, 0.0 * size + 1.0)

    def step(self, state: State, problem: Problem, *, xp: Namespace) -> State:
        """One cycle of three iterations."""
        return self._cycle(state, problem, measured=False, xp=xp)[0]

    def measured_step(self, state: State, problem: Problem, *, xp: Namespace) -> tuple[State, Array | float]:
        """One cycle and the objective before it, without a pass of its own."""
        return self._cycle(state, problem, measured=True, xp=xp)

    def _cycle(self, state: State, problem: Problem, *, measured: bool, xp: Namespace) -> tuple[State, Array | float]:
        start = self._balanced(Factors(state.W, state.H), problem, xp=xp)
        once, before = self._map(start, problem, measured=measured, xp=xp)
        twice, safe = self._map(once, problem, xp=xp)
        changes = [_change(*xs, xp=xp) for xs in zip(start, once, twice, strict=True)]
        length = xp.minimum(self._length(start, changes, xp=xp), state.longest)
        ahead, risked = self._map(self._extrapolated(start, changes, twice, length, problem, xp=xp), problem, xp=xp)
        accepted: Any = risked <= safe
        better = accepted[..., None, None]
        W, H = (xp.where(better, new, old) for new, old in zip(ahead, twice, strict=True))
        grown = xp.where(length >= state.longest, GROWTH * state.longest, state.longest)
        return State(W, H, xp.where(better, grown, operators.at_least(state.longest / GROWTH, 1.0, xp=xp))), before

    def _map(
        self, state: Factors, problem: Problem, *, measured: bool = True, xp: Namespace
    ) -> tuple[Factors, Array | float]:
        """One iteration, and the objective before it."""
        data, w, h = problem
        W, H = state
        if not 0 <= self.beta < 2 or (data.has_absent and self.beta != 1) or self.fixed_h:
            update = MultiplicativeUpdate(self.beta, self.floor, self.fixed_h)
            if not measured:
                return update.step(state, problem, xp=xp), 0.0
            return update.measured_step(state, problem, xp=xp)

        def rows(block: Data, W: Array, constraints: Constraints) -> Part:
            return self._rows(block, W, H, constraints, measured=measured, xp=xp)

        W, sums = sweep(rows, data, W, w, xp=xp)
        Ht = mm_step(operators.transposed(H), sums[:2], h.transposed(xp=xp), beta=self.beta, floor=self.floor, xp=xp)
        before = sums[2] + penalties(problem, *state, xp=xp) if measured else 0.0
        return Factors(W, operators.transposed(Ht)), before

    def _rows(
        self, block: Data, W: Array, H: Array, constraints: Constraints, *, measured: bool, xp: Namespace
    ) -> Part:
        """New rows of W, and their share of what H needs, from one Y."""
        beta = self.beta
        Y = block.predict(W, H, xp=xp)
        divergence = (block_divergence(block, W, H, Y, beta=beta, xp=xp),) if measured else ()
        if beta == 1:
            P = operators.divide_into(block.values, Y)
            parts = block.contract(P, H, xp=xp), block.model_slope(W, H, None, beta=1.0, xp=xp)
        else:
            P, Q = power_parts(block.values, Y, beta=beta, xp=xp)
            parts = block.contract(P, H, xp=xp), block.contract(Q, H, xp=xp)
        new = mm_step(W, parts, constraints, beta=beta, floor=self.floor, xp=xp)
        least = float(xp.finfo(W.dtype).smallest_normal)
        ratio = new / operators.at_least(W, least, xp=xp)
        if constraints.fixed is not None:  # at 0, perhaps
            ratio = xp.where(constraints.fixed, 1.0, ratio)
        # The reference W' times a power of the change, so that no power of W alone can overflow.
        chi1 = W if beta == 1 else W * operators.power(ratio, beta - 1.0, xp=xp)
        chi2 = new if beta <= 1 else W * operators.power(ratio, beta, xp=xp)
        Ht, turned, T = operators.transposed(H), block.T, operators.transposed
        if beta == 1:
            model = turned.model_slope(Ht, T(chi2), None, beta=1.0, xp=xp)
        else:
            model = turned.contract(Q, T(chi2), xp=xp)
        return Part(new, (turned.contract(P, T(chi1), xp=xp), model, *divergence))

    def _extrapolated(
        self,
        start: Factors,
        changes: list[tuple[Array, Array]],
        twice: Factors,
        length: Array,
        problem: Problem,
        *,
        xp: Namespace,
    ) -> Factors:
        """The factors further on, within floor and constraints."""
        ahead = []
        for x0, (r, v), x2, c in zip(start, changes, twice, (problem.w, problem.h), strict=True):
            root = operators.at_least(1.0 + 2.0 * length * r + length * length * v, 0.0, xp=xp)
            least = operators.at_least(LEAST * x2, self.floor, xp=xp)
            ahead.append(c.enforce(xp.maximum(x0 * root * root, least), x2, xp=xp))
        return Factors(ahead[0], start.H if self.fixed_h else ahead[1])

    def _balanced(self, state: Factors, problem: Problem, *, xp: Namespace) -> Factors:
        """Columns of W and rows of H with equal sums, where nothing but the product matters.

        For beta < 1 no entry is scaled to below the floor: to raise it again would raise the objective. The power beta
        of the floor can be seen there, also that of float64 for a small beta.
        """
        if self.fixed_h or not (problem.w.free and problem.h.free):
            return state
        W, H = state
        scale = _balance(state, xp=xp)
        if self.beta < 1:
            lowest = xp.min(W, axis=-2, keepdims=True), operators.transposed(xp.min(H, axis=-1, keepdims=True))
            down, up = (operators.at_least(x / self.floor, 1.0, xp=xp) for x in lowest)
            scale = xp.minimum(xp.maximum(scale, 1.0 / down), up)
        balanced = W * scale, H / operators.transposed(scale)
        return Factors(*(operators.at_least(x, self.floor, xp=xp) for x in balanced))

    def _length(self, start: Factors, changes: list[tuple[Array, Array]], *, xp: Namespace) -> Array:
        """a = max(1, |r| / |v|) over both factors of each matrix: (..., 1, 1).

        The norms are those of balanced factors, whatever the scale between W and H, so that a penalty that forbids to
        balance them changes no step by that.
        """
        tiny = float(xp.finfo(start.W.dtype).smallest_normal)
        scales: tuple[Any, Any] = (1.0, 1.0)
        if not self.fixed_h:
            scale = _balance(start, xp=xp)
            scales = scale, 1.0 / operators.transposed(scale)
        change: Any = 0.0
        bend: Any = 0.0
        for x0, (r, v), c in zip(start, changes, scales, strict=True):
            weight = c * x0
            change = change + xp.sum(weight * (r * r), axis=(-2, -1), keepdims=True)
            bend = bend + xp.sum(weight * (v * v), axis=(-2, -1), keepdims=True)
        return operators.at_least(xp.sqrt(change / operators.at_least(bend, tiny, xp=xp)), 1.0, xp=xp)


def _change(x0: Array, x1: Array, x2: Array, *, xp: Namespace) -> tuple[Array, Array]:
    """r and v of a factor, relative to the root of x0."""
    least = operators.at_least(x0, float(xp.finfo(x0.dtype).smallest_normal), xp=xp)  # an entry may be fixed at 0
    once, twice = xp.sqrt(x1 / least), xp.sqrt(x2 / least)
    r = once - 1.0
    return r, (twice - once) - r


def _balance(state: Factors, *, xp: Namespace) -> Array:
    """By what each column of W is multiplied, and each row of H divided, to give them equal sums: (..., 1, r)."""
    W, H = state
    of_h, of_w = operators.transposed(xp.sum(H, axis=-1, keepdims=True)), xp.sum(W, axis=-2, keepdims=True)
    alive = xp.minimum(of_h, of_w) > 0  # all of one may be fixed at 0
    return xp.sqrt(xp.where(alive, of_h, 1.0) / xp.where(alive, of_w, 1.0))
