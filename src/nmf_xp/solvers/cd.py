"""Coordinate descent for the Frobenius and the Kullback-Leibler loss, plain and with extrapolation.

One iteration updates W and then H, each by sweeps over its components. The accelerated solver moves on past each new
factor in the direction of its last change, by a share that grows while the objective falls, and goes back when
it rises (Ang & Gillis 2019, algorithm 3). Only what was accepted is seen outside, so the objective never rises.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from nmf_xp.data import Sparse
from nmf_xp.divergences import data_divergence
from nmf_xp.optimality import objective, penalties
from nmf_xp.solvers.coordinate import least_squares_sweeps, newton_sweeps
from nmf_xp.updates import slopes

if TYPE_CHECKING:
    from nmf_xp._typing import Array, Namespace
    from nmf_xp.data import Data
    from nmf_xp.problem import Constraints, Problem

SWEEPS, MOMENTUM = {1.0: 1, 2.0: 2}, {1.0: 0.05, 2.0: 0.3}  # by beta
GROWTH, LIMIT_GROWTH, REDUCTION = 1.2, 1.05, 4 / 3


class Factors(NamedTuple):
    """All that the plain solver carries."""

    W: Array
    H: Array


class CoordinateDescent(NamedTuple):
    """Settings of the plain solver: for the Frobenius loss and one sweep, it is scikit-learn's `cd`."""

    beta: float
    floor: float
    fixed_h: bool = False

    def prepare(self, problem: Problem) -> Problem:
        """Sparse data in both orders."""
        return _prepare(problem)

    def init(self, problem: Problem, W: Array, H: Array, *, xp: Namespace) -> Factors:
        """The state at the start."""
        return Factors(W, H)

    def step(self, state: Factors, problem: Problem, *, xp: Namespace) -> Factors:
        """One sweep over W, and one over H."""
        W, H = state
        W = _half(self, problem.data, W, H, problem.w, sweeps=1, xp=xp)[0]
        if self.fixed_h:
            return Factors(W, H)
        return Factors(W, _half_h(self, problem, W, H, sweeps=1, xp=xp)[0])


class State(NamedTuple):
    """The accepted factors, what the next iteration starts from, and how far it extrapolates."""

    W: Array  # accepted, extrapolated
    H: Array  # accepted
    W_new: Array  # W before its extrapolation
    H_ahead: Array  # H after its extrapolation
    momentum: Array  # (...,): the share of the last change that is added
    limit: Array  # (...,): what it may grow to
    good: Array  # (...,): the last one that was accepted
    objective: Array  # (...,): of the accepted factors
    constant: Array  # (...,): half the sum of the squares of V, for the Frobenius loss


class AcceleratedCoordinateDescent(NamedTuple):
    """Settings of the accelerated solver."""

    beta: float
    floor: float
    fixed_h: bool = False

    def prepare(self, problem: Problem) -> Problem:
        """Sparse data in both orders."""
        return _prepare(problem)

    def init(self, problem: Problem, W: Array, H: Array, *, xp: Namespace) -> State | Factors:
        """The state at the start."""
        if self.fixed_h:  # convex in one factor: sweeps need no help
            return Factors(W, H)
        start = objective(problem, W, H, beta=self.beta, xp=xp)
        zero = 0.0 * start
        constant = zero
        if self._has_gram(problem.data):
            constant = zero + data_divergence(problem.data, 0.0 * W, H, beta=2.0, xp=xp)
        return State(W, H, W, H, zero + MOMENTUM[self.beta], zero + 1.0, zero + MOMENTUM[self.beta], start, constant)

    def step(self, state: State | Factors, problem: Problem, *, xp: Namespace) -> State | Factors:
        """One iteration: extrapolated where that lowers the objective, else back to the accepted factors."""
        sweeps = SWEEPS[self.beta]
        if isinstance(state, Factors):
            W = _half(self, problem.data, state.W, state.H, problem.w, sweeps=sweeps, xp=xp)[0]
            return Factors(W, state.H)
        w, h = problem.w, problem.h
        share = xp.astype(state.momentum, state.W.dtype)[..., None, None]
        W_new, _ = _half(self, problem.data, state.W, state.H_ahead, w, sweeps=sweeps, xp=xp)
        W = w.enforce(self._ahead(W_new, state.W_new, share, xp=xp), W_new, xp=xp)
        H, numerator = _half_h(self, problem, W, state.H_ahead, sweeps=sweeps, xp=xp)
        H_ahead = h.enforce(self._ahead(H, state.H, share, xp=xp), H, xp=xp)
        current = self._objective(state, problem, W, H, numerator, xp=xp)

        fell = current <= state.objective

        def choose(yes: Array, no: Array) -> Array:
            condition = fell[..., None, None] if yes.ndim > fell.ndim else fell
            return xp.where(condition, yes, no)

        return State(
            choose(W, state.W),
            choose(H, state.H),
            choose(W_new, state.W),
            choose(H_ahead, state.H),
            choose(xp.minimum(state.limit, GROWTH * state.momentum), state.momentum / REDUCTION),
            choose(xp.minimum(LIMIT_GROWTH * state.limit, 0.0 * state.limit + 1.0), state.good),
            choose(state.momentum, state.good),
            choose(current, state.objective),
            state.constant,
        )

    def _ahead(self, new: Array, old: Array, share: Array, *, xp: Namespace) -> Array:
        """Beyond `new` in the direction from `old`, but not below half of it: what is cut to zero comes back slowly."""
        return xp.maximum(new + share * (new - old), xp.maximum(0.5 * new, self.floor))

    def _has_gram(self, data: Data) -> bool:
        """Whether the objective follows from products that an iteration makes anyway."""
        return self.beta == 2 and not data.weighted

    def _objective(
        self, state: State, problem: Problem, W: Array, H: Array, numerator: Array | None, *, xp: Namespace
    ) -> Array:
        if numerator is None or not self._has_gram(problem.data):
            return objective(problem, W, H, beta=self.beta, xp=xp)
        dtype, Ht = state.objective.dtype, xp.matrix_transpose(H)
        gram_w, gram_h = xp.matrix_transpose(W) @ W, H @ Ht
        product = xp.sum(Ht * numerator, axis=(-2, -1), dtype=dtype)
        square = xp.sum(gram_w * gram_h, axis=(-2, -1), dtype=dtype)
        return state.constant - product + 0.5 * square + penalties(problem, W, H, xp=xp)


def _prepare(problem: Problem) -> Problem:
    data = problem.data
    return problem._replace(data=data.with_both_orders()) if isinstance(data, Sparse) else problem


def _half(
    solver: CoordinateDescent | AcceleratedCoordinateDescent,
    data: Data,
    W: Array,
    H: Array,
    constraints: Constraints,
    *,
    sweeps: int,
    xp: Namespace,
) -> tuple[Array, Array | None]:
    """W after sweeps over its components; for the Frobenius loss also V H^T."""
    if solver.beta == 1:
        return newton_sweeps(data, W, H, constraints, floor=solver.floor, sweeps=sweeps, xp=xp), None
    numerator, denominator = slopes(data, W, H, beta=2.0, xp=xp)
    gram = H @ xp.matrix_transpose(H)
    if data.weighted:  # a bound that weighs every entry as the heaviest one
        gram = gram * data.heaviest(xp=xp)
    slope = denominator - numerator
    W = least_squares_sweeps(W, slope, gram, constraints, floor=solver.floor, sweeps=sweeps, xp=xp)
    return W, numerator


def _half_h(
    solver: CoordinateDescent | AcceleratedCoordinateDescent,
    problem: Problem,
    W: Array,
    H: Array,
    *,
    sweeps: int,
    xp: Namespace,
) -> tuple[Array, Array | None]:
    """The same for H, on the transposed problem."""
    Ht, Wt = xp.matrix_transpose(H), xp.matrix_transpose(W)
    Ht, numerator = _half(solver, problem.data.T, Ht, Wt, problem.h.transposed(xp=xp), sweeps=sweeps, xp=xp)
    return xp.matrix_transpose(Ht), numerator
