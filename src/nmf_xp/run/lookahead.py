"""The loop's programs where every pass over V is dear: the objective is measured in the pass of the next step.

That step is kept for its turn. Only where the iteration ends at a check was it made for nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nmf_xp.arrays.typing import Array, Namespace
    from nmf_xp.problem import Problem


class Lookahead:
    """The programs of one run; the solver has a `measured_step` beside `step`."""

    def __init__(self) -> None:
        self._here: Any = None  # the state that the loop is at
        self._next: Any = None  # the one that follows it, where it is known

    def init(self, solver: Any, start: Any, problem: Problem, xp: Namespace) -> Any:
        """The state at the start."""
        if self._here is None:
            self._here = solver.init(problem, *start, xp=xp)
        return self._here

    def objective(self, solver: Any, factors: Any, problem: Problem, xp: Namespace) -> Array:
        """The objective, of which most comes with the next step."""
        here = self.init(solver, factors, problem, xp)
        self._next, before = solver.measured_step(here, problem, xp=xp)
        return before

    def steps(self, solver: Any, state: Any, problem: Problem, n: int, xp: Namespace) -> Any:
        """`n` iterations, of which the first may be there already."""
        if state is self._here and self._next is not None:
            state, n = self._next, n - 1
        self._here = self._next = None
        for _ in range(n):
            state = solver.step(state, problem, xp=xp)
        self._here = state
        return state
