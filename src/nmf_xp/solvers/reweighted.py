"""Any solver for a loss that a divergence majorises: before it updates a factor, the data are renewed.

A robust loss weighs the entries anew; batches get the best table for the present factors; a negative binomial loss gets
its slope there. The divergence of the renewed data lies above the loss, but for a number, and meets it at the present
factors, so no step raises the loss. A solver is asked for one factor at a time, with the other one fixed: what it
remembers from one iteration to the next (momentum) belongs to other data.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from nmf_xp.arrays import libraries, operators
from nmf_xp.problem import Factors, Problem
from nmf_xp.problem.balance import balanced
from nmf_xp.problem.batched import Batched
from nmf_xp.problem.optimality import penalties, report
from nmf_xp.solvers.extrapolation import Extrapolated, Half
from nmf_xp.solvers.mu import MultiplicativeUpdate, multiplied
from nmf_xp.solvers.solver import Solver

if TYPE_CHECKING:
    from collections.abc import Callable

    from nmf_xp.arrays.typing import Array, Namespace
    from nmf_xp.data import Data
    from nmf_xp.data.constraints import Constraints
    from nmf_xp.problem.optimality import Report
    from nmf_xp.problem.robust import Doubted, Robust
    from nmf_xp.solvers.extrapolation import Momentum

FIRST = 20
"""Iterations of the fit from which the scale is found."""


@dataclasses.dataclass(frozen=True)
class Reweighted(Solver):
    """One half-iteration of the `inner` solver for each factor, on data that can be `renewed`."""

    inner: Callable[..., Solver] = MultiplicativeUpdate
    loss: Robust | None = None  # of doubted data

    @property
    def convex(self) -> bool:
        """Never: phi is concave, and so is what the best table leaves."""
        return False

    def prepare(self, problem: Problem, *, xp: Namespace) -> Problem:
        """Sparse data in both orders."""
        return problem._replace(data=problem.data.with_both_orders())

    def init(self, problem: Problem, W: Array, H: Array, *, xp: Namespace) -> Any:
        """The state at the start."""
        return self._settled(W, H, problem, xp=xp)

    def step(self, state: Any, problem: Problem, *, xp: Namespace) -> Any:
        """One iteration."""
        data: Any = problem.data
        W, H = state.W, state.H
        W = self._half(data, W, H, problem.w, xp=xp)
        if self.fixed_h:
            return Factors(W, H)
        Wt, Ht = operators.transposed(W), operators.transposed(H)
        H = operators.transposed(self._half(data.T, Ht, Wt, problem.h.transposed(xp=xp), xp=xp))
        if isinstance(data, Batched) and data.effects.scale_matters:
            return self._settled(W, H, problem, xp=xp)
        return Factors(W, H)

    def _settled(self, W: Array, H: Array, problem: Problem, *, xp: Namespace) -> Factors:
        """The factors, and where the scale of H's columns is no part of the loss, that which is agreed upon."""
        data: Any = problem.data
        if self.fixed_h or not isinstance(data, Batched) or not problem.h.free:
            return Factors(W, H)
        return Factors(W, operators.at_least(data.settled(W, H, xp=xp), self.floor, xp=xp))

    def _half(self, data: Any, W: Array, H: Array, w: Constraints, *, xp: Namespace, **how: Any) -> Array:
        """W after one iteration of the inner solver that looks for W alone, on data that are renewed so."""
        solver = self.inner(beta=self.beta, floor=self.floor, fixed_h=True)
        problem = Problem(data.renewed(W, H, self.loss, beta=self.beta, xp=xp, **how), w)
        new: Array = solver.step(solver.init(problem, W, H, xp=xp), problem, xp=xp).W
        return new

    def balanced(self, state: Any, problem: Problem, *, xp: Namespace) -> Any:
        """The state with balanced components, no entry of which has gone below the floor."""
        W, H = balanced(state, problem, fixed_h=self.fixed_h, xp=xp)
        W = problem.w.enforce(operators.at_least(W, self.floor, xp=xp), W, xp=xp)
        if not self.fixed_h:
            H = problem.h.enforce(operators.at_least(H, self.floor, xp=xp), H, xp=xp)
        return Factors(W, H)

    def objective(self, problem: Problem, W: Array, H: Array, *, xp: Namespace) -> Array:
        """The loss and the penalties."""
        data: Any = problem.data
        return data.divergence(W, H, self.loss, beta=self.beta, xp=xp) + self._beside(problem, W, H, xp=xp)

    def _beside(self, problem: Problem, W: Array, H: Array, *, xp: Namespace) -> Array | float:
        data: Any = problem.data
        return penalties(problem, W, H, xp=xp) + data.penalty(W, H, xp=xp)

    def report(self, factors: Factors, problem: Problem, *, xp: Namespace) -> Report:
        """What a look at V says of the factors: the slopes are those of the weighted divergence."""
        data: Any = problem.data
        renewed: Data = data.renewed(*factors, self.loss, whole=True, beta=self.beta, xp=xp)
        settings: Any = {"beta": self.beta, "floor": self.floor, "fixed_h": self.fixed_h, "xp": xp}
        seen = report(problem._replace(data=renewed), *factors, **settings)
        loss = data.divergence(*factors, self.loss, beta=self.beta, xp=xp)
        return seen._replace(divergence=loss, objective=loss + self._beside(problem, *factors, xp=xp))


class ReweightedAhead(Extrapolated, Reweighted):
    """The same for a loss that its divergence majorises so far that an iteration goes a small way.

    Iterations are extrapolated, and take data with the curvature of the loss, which are no majoriser. After one that
    raised the loss comes one that cannot. Where only W is looked for, each of its rows takes what suits it.
    """

    def half(
        self,
        data: Any,
        W: Array,
        H: Array,
        constraints: Constraints,
        *,
        momentum: Momentum | None = None,
        top: Array | None = None,
        measured: bool = False,
        xp: Namespace,
    ) -> Half:
        """The new W."""
        if momentum is not None:
            return Half(self._half(data, W, H, constraints, bold=momentum.share > 0, xp=xp))
        new = self._half(data, W, H, constraints, xp=xp)
        if constraints.penalised:
            return Half(new)
        bold = self._half(data, W, H, constraints, bold=True, xp=xp)
        fell = data.of_rows(bold, H, xp=xp) <= data.of_rows(new, H, xp=xp)
        return Half(xp.where(fell, bold, new))


def found_scale(
    doubted: Doubted,
    problem: Problem,
    start: Factors,
    loss: Robust,
    *,
    beta: float,
    floor: float,
    fixed_h: bool,
    xp: Namespace,
) -> float:
    """The scale of a loss that leaves it open, in the problem's units, from a short fit without it.

    The scale of the `doubted` data is what makes one of the problem's divergences: without an exposure it is 1.
    """
    if not libraries.is_readable(start.W):
        msg = "`Robust.scale` must be given in a compiled function, got None, which needs the values of `V`"
        raise ValueError(msg)
    state = multiplied(problem, *start, beta=beta, floor=floor, fixed_h=fixed_h, count=FIRST, xp=xp)
    return loss.scale_of(*doubted.seen(*state, beta=beta, xp=xp))
