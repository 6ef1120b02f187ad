"""What the loop asks of an algorithm: frozen settings on one side, the state that changes on the other."""

from __future__ import annotations

import abc
import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

from nmf_xp.arrays import threads
from nmf_xp.problem import Factors
from nmf_xp.problem.optimality import objective, report

if TYPE_CHECKING:
    from nmf_xp.arrays.typing import Array, Namespace
    from nmf_xp.problem import Problem
    from nmf_xp.problem.optimality import Report


@dataclasses.dataclass(frozen=True)
class Solver(abc.ABC):
    """Settings of an algorithm, which never sees V, only a `Problem`.

    They are Python scalars, hashable, so that a compiled loop can treat them as a constant.
    """

    beta: float
    """The beta of the divergence."""
    floor: float
    """The least value of a factor's entry."""
    fixed_h: bool = False
    """Whether only W is updated."""
    polish: bool = True
    """Whether what is returned is balanced and has exact zeros; else it is what the last iteration left."""

    pace: ClassVar[int] = 1
    """Iterations of which at least one makes progress."""
    may_rise: ClassVar[bool] = False
    """Whether a rise of the objective is no end of the run."""
    compiles: ClassVar[bool] = True
    """Whether an iteration can be part of a compiled program, and its objective come with the next one."""

    @property
    def convex(self) -> bool:
        """Whether the problem is: only W is to be found, and the divergence is convex in the model."""
        return self.fixed_h and 1 <= self.beta <= 2

    @property
    def has_rule(self) -> bool:
        """Whether it ends by a rule of its own: its state has `ended` (...,), the iteration in which it held, or 0."""
        return False

    def prepare(self, problem: Problem, *, xp: Namespace) -> Problem:
        """The problem in the form that this algorithm reads best."""
        return problem

    @abc.abstractmethod
    def init(self, problem: Problem, W: Array, H: Array, *, xp: Namespace) -> Any:
        """The state at the start; W and H respect the floor."""

    @abc.abstractmethod
    def step(self, state: Any, problem: Problem, *, xp: Namespace) -> Any:
        """One iteration, as a pure function of arrays."""

    def steps(self, state: Any, problem: Problem, n: int, *, xp: Namespace) -> Any:
        """`n` iterations of eager arrays."""
        for _ in range(n):
            threads.give_up_if_asked()
            state = self.step(state, problem, xp=xp)
        return state

    def stacks(self, W: Array, problem: Problem) -> bool:
        """Whether NumPy runs a stack of small matrices faster than one after the other."""
        return False

    def measured_steps(self, state: Any, problem: Problem, n: int, *, xp: Namespace) -> tuple[Any, float | None]:
        """The same, and where it comes with them the divergence, but for sum(V^2) / 2, from which it is subtracted."""
        return self.steps(state, problem, n, xp=xp), None

    def balanced(self, state: Any, problem: Problem, *, xp: Namespace) -> Any:
        """The state with balanced components, for a solver whose steps may throw the scale of one out of range."""
        return state

    def factors(self, state: Any, problem: Problem, *, xp: Namespace) -> Factors:
        """W and H as arrays."""
        return Factors(state.W, state.H)

    def objective(self, problem: Problem, W: Array, H: Array, *, xp: Namespace) -> Array:
        """What an iteration lowers: the divergence and the penalties, (...,)."""
        return objective(problem, W, H, beta=self.beta, xp=xp)

    def report(self, factors: Factors, problem: Problem, *, xp: Namespace) -> Report:
        """What a look at V says of the factors."""
        return report(problem, *factors, beta=self.beta, floor=self.floor, fixed_h=self.fixed_h, xp=xp)

    def handed_over(self, W: Array, problem: Problem, *, xp: Namespace) -> Any:
        """W as it is returned."""
        return W

    def kept(self, state: Any, problem: Problem, *, xp: Namespace) -> Any:
        """The state as arrays that a recorder can keep."""
        return state

    def taken_up(self, kept: Any, problem: Problem, *, xp: Namespace) -> Any:
        """The state that was kept."""
        return kept
