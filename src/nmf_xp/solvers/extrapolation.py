"""Extrapolation with restart, around any solver that updates one factor after the other and never raises the objective.

Each new factor is moved on in the direction of its last change, by a share that grows while the objective falls; where
it rises, the iteration is dropped and the share reduced (Ang & Gillis 2019, algorithm 3). Only what was accepted is
seen outside, so the objective never rises. The iteration after a dropped one does not extrapolate, so that one of two
makes progress.
"""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, NamedTuple

from nmf_xp import _compat
from nmf_xp._ending import component_scale
from nmf_xp.divergences import data_divergence
from nmf_xp.optimality import objective, penalties
from nmf_xp.problem import Factors
from nmf_xp.solvers.solver import Solver

if TYPE_CHECKING:
    from nmf_xp._typing import Array, Namespace
    from nmf_xp.data import Data
    from nmf_xp.problem import Constraints, Problem

MOMENTUM, GROWTH, LIMIT_GROWTH, REDUCTION = 0.5, 1.05, 1.01, 1.5  # as published


class State(NamedTuple):
    """The accepted factors, what the next iteration starts from, and how far it extrapolates."""

    W: Array  # accepted, extrapolated
    H: Array  # accepted
    W_new: Array  # W before its extrapolation
    H_ahead: Array  # H after its extrapolation
    momentum: Array  # (...,): the share of the last change that is added
    limit: Array  # (...,): what it may grow to
    good: Array  # (...,): the last one that was accepted
    pause: Array  # (...,): 1 after an iteration that was dropped, else 0
    objective: Array  # (...,): of the accepted factors
    constant: Array  # (...,): half the sum of the squares of V, for the Frobenius loss


class Extrapolated(Solver):
    """W, and then H as the W of the transposed problem; one factor alone, which is a convex problem, as it comes."""

    pace = 2

    def prepare(self, problem: Problem, *, xp: Namespace) -> Problem:
        """Sparse data in both orders."""
        return problem._replace(data=problem.data.with_both_orders())

    def begin(self, problem: Problem, W: Array, H: Array, *, xp: Namespace) -> Factors:
        """The factors to begin with."""
        return Factors(W, H)

    @abc.abstractmethod
    def half(
        self, data: Data, W: Array, H: Array, constraints: Constraints, *, measured: bool = False, xp: Namespace
    ) -> tuple[Array, Array | None]:
        """The new W and, if `measured`, what comes with it for the objective, (...,).

        For the Frobenius loss without weights that is the sum of V * WH, else the divergence; None where neither does.
        """

    def init(self, problem: Problem, W: Array, H: Array, *, xp: Namespace) -> State | Factors:
        """The state at the start."""
        W, H = self.begin(problem, W, H, xp=xp)
        if self.fixed_h:
            return Factors(W, H)
        start = objective(problem, W, H, beta=self.beta, xp=xp)
        zero = 0.0 * start
        constant = zero
        if self._has_gram(problem.data):
            constant = zero + data_divergence(problem.data, 0.0 * W, H, beta=2.0, xp=xp)
        momentum = zero + MOMENTUM
        return State(W, H, W, H, momentum, zero + 1.0, momentum, zero, start, constant)

    def step(self, state: State | Factors, problem: Problem, *, xp: Namespace) -> State | Factors:
        """One iteration: extrapolated where that lowers the objective, else back to the accepted factors."""
        if isinstance(state, Factors):
            return Factors(self.half(problem.data, state.W, state.H, problem.w, xp=xp)[0], state.H)
        share = xp.astype((1.0 - state.pause) * state.momentum, state.W.dtype)[..., None, None]
        W_new, _ = self.half(problem.data, state.W, state.H_ahead, problem.w, xp=xp)
        W = problem.w.enforce(self._ahead(W_new, state.W_new, share, xp=xp), W_new, xp=xp)
        Wt, Ht, turned = _compat.transposed(W), _compat.transposed(state.H_ahead), problem.h.transposed(xp=xp)
        Ht, found = self.half(problem.data.T, Ht, Wt, turned, measured=True, xp=xp)
        H = _compat.transposed(Ht)
        H_ahead = problem.h.enforce(self._ahead(H, state.H, share, xp=xp), H, xp=xp)
        current = self._objective(state, problem, W, H, found, xp=xp)
        fell = current <= state.objective

        def choose(yes: Array, no: Array) -> Array:
            return _compat.choose(fell, yes, no, xp=xp)

        return State(
            choose(W, state.W),
            choose(H, state.H),
            choose(W_new, state.W),
            choose(H_ahead, state.H),
            choose(xp.minimum(state.limit, GROWTH * state.momentum), state.momentum / REDUCTION),
            choose(_compat.at_most(LIMIT_GROWTH * state.limit, 1.0, xp=xp), state.good),
            choose(state.momentum, state.good),
            choose(0.0 * state.limit, 0.0 * state.limit + 1.0),
            choose(current, state.objective),
            state.constant,
        )

    def balanced(self, state: State | Factors, problem: Problem, *, xp: Namespace) -> State | Factors:
        """The state with balanced components: where a column of W reaches the floor, H takes all that it held."""
        scale = (
            None if isinstance(state, Factors) else component_scale(state.W, state.H, problem, tilt=self.tilt, xp=xp)
        )
        if isinstance(state, Factors) or scale is None:
            return state
        turned = _compat.transposed(scale)
        return state._replace(
            W=state.W * scale,
            W_new=state.W_new * scale,
            H=state.H / turned,
            H_ahead=state.H_ahead / turned,
        )

    def _ahead(self, new: Array, old: Array, share: Array, *, xp: Namespace) -> Array:
        """Beyond `new` in the direction from `old`, but not below half of it: what is cut to zero comes back slowly."""
        return xp.maximum(new + share * (new - old), _compat.at_least(0.5 * new, self.floor, xp=xp))

    def _has_gram(self, data: Data) -> bool:
        """Whether the objective follows from products that an iteration makes anyway."""
        return self.beta == 2 and not data.weighted

    def _objective(
        self, state: State, problem: Problem, W: Array, H: Array, found: Array | None, *, xp: Namespace
    ) -> Array:
        """The objective at W and H, from what was `found` with H where that is enough.

        For the Frobenius loss that is a difference of sums as large as V's squares. Where it is so small beside them
        that rounding would decide what is accepted, the residual is summed.
        """
        if found is None:
            return objective(problem, W, H, beta=self.beta, xp=xp)
        if not self._has_gram(problem.data):
            return found + penalties(problem, W, H, xp=xp)
        gram_w, gram_h = _compat.transposed(W) @ W, H @ _compat.transposed(H)
        square = xp.sum(gram_w * gram_h, axis=(-2, -1), dtype=state.objective.dtype)
        quick = state.constant - found + 0.5 * square
        rough = _compat.cancelled(quick, state.constant, W.dtype, xp=xp)

        def exact() -> Array:
            return xp.where(rough, data_divergence(problem.data, W, H, beta=2.0, xp=xp), quick)

        return _compat.either(xp.any(rough), exact, lambda: quick, xp=xp) + penalties(problem, W, H, xp=xp)
