"""Batches for the solvers that update both factors in one pass over V: W and H, and then the table.

With the table as it is the solver lowers the divergence, and the best table for the new factors lowers it again. So
what the solver remembers of its steps stays true, and an iteration reads V as often as without batches; once more
where entries have weights, for the table's sums.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from nmf_xp.problem.optimality import report
from nmf_xp.solvers.reweighted import Reweighted

if TYPE_CHECKING:
    from nmf_xp.arrays.typing import Array, Namespace
    from nmf_xp.problem import Factors, Problem
    from nmf_xp.problem.optimality import Report


@dataclasses.dataclass(frozen=True)
class InBatches(Reweighted):
    """Iterations of the `inner` solver, "mu" or "mm", each with the best table for its start."""

    def prepare(self, problem: Problem, *, xp: Namespace) -> Problem:
        """The problem as it is."""
        return problem

    def init(self, problem: Problem, W: Array, H: Array, *, xp: Namespace) -> Any:
        """The inner solver's state at the start."""
        return self._inner.init(problem, W, H, xp=xp)

    def step(self, state: Any, problem: Problem, *, xp: Namespace) -> Any:
        """One iteration."""
        new = self._inner.step(state, self._tabled(state, problem, xp=xp), xp=xp)
        return self._shrunk(new, problem, xp=xp)

    def measured_step(self, state: Any, problem: Problem, *, xp: Namespace) -> tuple[Any, Array | float]:
        """One iteration, and the objective before it."""
        data: Any = problem.data
        new, before = self._inner.measured_step(state, self._tabled(state, problem, xp=xp), xp=xp)
        return self._shrunk(new, problem, xp=xp), before + data.penalty(state.W, state.H, xp=xp)

    def balanced(self, state: Any, problem: Problem, *, xp: Namespace) -> Any:
        """The state as it is, in which mu and mm keep each component in range."""
        return state

    def report(self, factors: Factors, problem: Problem, *, xp: Namespace) -> Report:
        """What a look at V says of the factors with their table."""
        data: Any = problem.data
        settings: Any = {"beta": self.beta, "floor": self.floor, "fixed_h": self.fixed_h, "xp": xp}
        seen = report(self._tabled(factors, problem, xp=xp), *factors, **settings)
        return seen._replace(objective=seen.objective + data.penalty(*factors, xp=xp))

    @property
    def _inner(self) -> Any:
        return self.inner(beta=self.beta, floor=self.floor, fixed_h=self.fixed_h)

    def _tabled(self, state: Any, problem: Problem, *, xp: Namespace) -> Problem:
        """The problem with the best table."""
        data: Any = problem.data
        return problem._replace(data=data.renewed(state.W, state.H, None, beta=self.beta, xp=xp))

    def _shrunk(self, state: Any, problem: Problem, *, xp: Namespace) -> Any:
        """The state with the best scale of H's columns, where a prior makes that a part of the loss."""
        data: Any = problem.data
        if not data.effects.scale_matters:
            return state
        return state._replace(H=self._settled(state.W, state.H, problem, xp=xp).H)
