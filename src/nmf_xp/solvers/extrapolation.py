"""Extrapolation with restart, around any solver that updates one factor after the other and never raises the objective.

Each new factor is moved on in the direction of its last change, by a share that grows while the objective falls; where
it rises, the iteration is dropped and the share reduced (Ang & Gillis 2019, algorithm 3). Only what was accepted is
seen outside, so the objective never rises. The iteration after a dropped one does not extrapolate, so that one of two
makes progress.

Whether it rises is a matter of differences. Where the objective is a quadratic of each factor, as for the Frobenius
loss, its change is a sum of few terms as small as itself, which an iteration has at hand: from the accepted W0, H0,

    F(W, H) - F(W0, H0) = [F(W0, Ha) - F(W0, H0)] + [F(W, Ha) - F(W0, Ha)] + [F(W, H) - F(W, Ha)]

for the extrapolated Ha from which W was found and H began; the first bracket is a change of the iteration before. So V
is not looked at again, and nothing of V's size cancels, as near an exact fit it would. Else the objective is computed.
"""

from __future__ import annotations

import abc
import functools
from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.arrays import kernels, libraries, operators
from nmf_xp.problem import Factors
from nmf_xp.problem.balance import component_scale, is_penalised
from nmf_xp.problem.optimality import penalties
from nmf_xp.problem.small import is_small, penalties_of
from nmf_xp.solvers.calls import in_calls
from nmf_xp.solvers.solver import Solver
from nmf_xp.updates import factor_floor

if TYPE_CHECKING:
    from collections.abc import Callable

    from nmf_xp.arrays.typing import Array, Namespace
    from nmf_xp.data import Data
    from nmf_xp.data.constraints import Constraints
    from nmf_xp.problem import Problem

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
    objective: Array  # (...,): of the accepted factors; where changes are known, beyond that of W and H_ahead


LARGEST = 2.0**7
"""To which an entry may grow beside weights, in units of the root of V's largest entry."""


class Momentum(NamedTuple):
    """How a new factor is extrapolated."""

    old: Array  # (..., m, r): what the last change led to
    share: Array  # (..., 1, 1): of the change from there, which is added


class Half(NamedTuple):
    """A new factor, and what came with it."""

    new: Array
    divergence: Array | None = None  # (...,): at `new`
    ahead: Array | None = None  # `new`, extrapolated
    changes: tuple[Array, Array] | None = None  # (...,): of the objective, from the start to `new` and to `ahead`


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
        self,
        data: Data,
        W: Array,
        H: Array,
        constraints: Constraints,
        *,
        momentum: Momentum | None = None,
        top: Array | None = None,
        measured: bool = False,
        xp: Namespace,
    ) -> Half:
        """The new W, within `top`; if `measured`, with its divergence where that costs little.

        Where changes are known, they come with the extrapolated W for every `momentum`.
        """

    def in_one_call(self, problem: Problem, r: int) -> tuple[str, tuple[int, int]] | None:
        """The kernel that makes many iterations of small matrices, and the counts that it takes."""
        return None

    def knows_changes(self, data: Data) -> bool:
        """Whether changes of the objective come with each half."""
        return False

    def init(self, problem: Problem, W: Array, H: Array, *, xp: Namespace) -> State | Factors:
        """The state at the start."""
        W, H = self.begin(problem, W, H, xp=xp)
        if self.fixed_h:
            return Factors(W, H)
        if self.knows_changes(problem.data):
            start = 0.0 * xp.sum(W, axis=(-2, -1), dtype=libraries.accumulator_dtype(xp, libraries.device(W)))
        else:
            start = self.objective(problem, W, H, xp=xp)
        zero = 0.0 * start
        momentum = zero + MOMENTUM
        return State(W, H, W, H, momentum, zero + 1.0, momentum, zero, start)

    def step(self, state: State | Factors, problem: Problem, *, xp: Namespace) -> State | Factors:
        """One iteration: extrapolated where that lowers the objective, else back to the accepted factors."""
        if isinstance(state, Factors):
            return Factors(self.half(problem.data, state.W, state.H, problem.w, xp=xp).new, state.H)
        share = xp.astype((1.0 - state.pause) * state.momentum, state.W.dtype)[..., None, None]
        momentum = Momentum(state.W_new, share)
        top = self.top(problem.data, state.H_ahead, xp=xp)
        first = self.half(problem.data, state.W, state.H_ahead, problem.w, momentum=momentum, top=top, xp=xp)
        W = self.ahead(first.new, momentum, problem.w, top, xp=xp) if first.ahead is None else first.ahead
        Wt, Ht, turned = operators.transposed(W), operators.transposed(state.H_ahead), problem.h.transposed(xp=xp)
        momentum = Momentum(operators.transposed(state.H), share)
        top = self.top(problem.data, Wt, xp=xp)
        second = self.half(problem.data.T, Ht, Wt, turned, momentum=momentum, top=top, measured=True, xp=xp)
        Ht = self.ahead(second.new, momentum, turned, top, xp=xp) if second.ahead is None else second.ahead
        H, H_ahead = operators.transposed(second.new), operators.transposed(Ht)
        if first.changes is None or second.changes is None:
            current = accepted = self._objective(problem, W, H, second.divergence, xp=xp)
            before = state.objective
        else:
            current, accepted = first.changes[1] + second.changes[0], second.changes[0] - second.changes[1]
            before = 0.0 * state.limit  # what is dropped leaves H_ahead at H
        fell = current <= state.objective

        def choose(yes: Array, no: Array) -> Array:
            return operators.choose(fell, yes, no, xp=xp)

        return State(
            choose(W, state.W),
            choose(H, state.H),
            choose(first.new, state.W),
            choose(H_ahead, state.H),
            choose(xp.minimum(state.limit, GROWTH * state.momentum), state.momentum / REDUCTION),
            choose(operators.at_most(LIMIT_GROWTH * state.limit, 1.0, xp=xp), state.good),
            choose(state.momentum, state.good),
            choose(0.0 * state.limit, 0.0 * state.limit + 1.0),
            choose(accepted, before),
        )

    def steps(self, state: State | Factors, problem: Problem, n: int, *, xp: Namespace) -> State | Factors:
        """`n` iterations: those of small NumPy matrices, one or a stack, in a kernel."""
        kernel = self._small(state.W, problem)
        if kernel is None:
            return super().steps(state, problem, n, xp=xp)
        for count in in_calls(n, state.W, problem):
            state = type(state)(*kernel(problem.data.values, state, n=count))
        return state

    def stacks(self, W: Array, problem: Problem) -> bool:
        """Whether NumPy runs a stack of small matrices faster than one after the other."""
        return self._small(W, problem) is not None

    def _small(self, W: Array, problem: Problem) -> Callable[..., Any] | None:
        if not is_small(W, problem):
            return None
        found = self.in_one_call(problem, W.shape[-1])
        kernel = None if found is None else kernels.find(found[0], problem.data.values, W)
        if found is None or kernel is None:
            return None
        pace: dict[str, Any] = {} if self.fixed_h else {"pace": (GROWTH, LIMIT_GROWTH, REDUCTION)}
        return functools.partial(kernel, penalties=penalties_of(problem), floor=self.floor, counts=found[1], **pace)

    def balanced(self, state: State | Factors, problem: Problem, *, xp: Namespace) -> State | Factors:
        """The state with balanced components: where a column of W reaches the floor, H takes all that it held."""
        scale = None if isinstance(state, Factors) else component_scale(state.W, state.H, problem, xp=xp)
        if isinstance(state, Factors) or scale is None:
            return state
        turned = operators.transposed(scale)
        moved = state._replace(
            W=state.W * scale,
            W_new=state.W_new * scale,
            H=state.H / turned,
            H_ahead=state.H_ahead / turned,
        )
        if not is_penalised(problem):
            return moved
        fell = self._penalties(moved, problem, xp=xp) - self._penalties(state, problem, xp=xp)
        return moved._replace(objective=state.objective + fell)

    def _penalties(self, state: State, problem: Problem, *, xp: Namespace) -> Any:
        """What the scale of components moves of the `objective` in a state."""
        if not self.knows_changes(problem.data):
            return penalties(problem, state.W, state.H, xp=xp)
        dtype = state.objective.dtype
        now, ahead = (problem.h.penalty(x, axis=-2, dtype=dtype, xp=xp) for x in (state.H, state.H_ahead))
        return now - ahead

    def ahead(
        self, new: Array, momentum: Momentum, constraints: Constraints, top: Array | None = None, *, xp: Namespace
    ) -> Array:
        """Beyond `new` in the direction from the old one, but not below half of it, nor from below `top` beyond that.

        So what is cut to zero comes back slowly.
        """
        moved = new + momentum.share * (new - momentum.old)
        if top is not None:
            moved = xp.minimum(moved, xp.maximum(new, top))
        moved = xp.maximum(moved, operators.at_least(0.5 * new, self.floor, xp=xp))
        return constraints.enforce(moved, new, xp=xp)

    def top(self, data: Data, H: Array, *, xp: Namespace) -> Array | None:
        """To which entries (..., 1, r) of W may grow beside weights, for the other factor H.

        Where an entry of V is not observed, a component may fit its row and its column at once, the better the larger
        its two entries there are: the divergence has no minimum, and they would grow without end.
        """
        if not data.weighted:
            return None
        unit = self.floor / factor_floor(H.dtype, beta=self.beta, xp=xp)  # near the root of V's largest entry
        tiny = float(xp.finfo(H.dtype).smallest_normal)
        return (LARGEST * unit) ** 2 / operators.at_least(
            operators.transposed(xp.max(H, axis=-1, keepdims=True)), tiny, xp=xp
        )

    def _objective(self, problem: Problem, W: Array, H: Array, divergence: Array | None, *, xp: Namespace) -> Array:
        """The objective at W and H, for their divergence where it came with H."""
        if divergence is None:
            return self.objective(problem, W, H, xp=xp)
        return divergence + penalties(problem, W, H, xp=xp)
