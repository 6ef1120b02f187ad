"""The algorithms: frozen settings on one side, the state that changes on the other.

A solver is a NamedTuple of Python scalars, hashable, so that a compiled loop can treat it as a constant. It never
sees V, only a `Problem`. Adding one takes a file here and a line in `SOLVERS`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from nmf_xp.solvers.cd import AcceleratedCoordinateDescent, CoordinateDescent
from nmf_xp.solvers.mm import AcceleratedMultiplicativeUpdate
from nmf_xp.solvers.mu import MultiplicativeUpdate

if TYPE_CHECKING:
    from collections.abc import Callable

    from nmf_xp._typing import Array, Namespace
    from nmf_xp.problem import Problem

__all__ = ["SOLVERS", "MultiplicativeUpdate", "Solver"]


class Factors(Protocol):
    """The part that every solver's state has in common."""

    @property
    def W(self) -> Array: ...
    @property
    def H(self) -> Array: ...


class Solver(Protocol):
    """What the loop asks of an algorithm."""

    @property
    def beta(self) -> float:
        """The beta of the divergence."""

    @property
    def floor(self) -> float:
        """The least value of a factor's entry."""

    @property
    def fixed_h(self) -> bool:
        """Whether only W is updated."""

    def prepare(self, problem: Problem) -> Problem:
        """The problem in the form that this algorithm reads best."""

    def init(self, problem: Problem, W: Array, H: Array, *, xp: Namespace) -> Any:
        """The state at the start; W and H respect the floor."""

    def step(self, state: Any, problem: Problem, *, xp: Namespace) -> Any:
        """One iteration, as a pure function of arrays."""


SOLVERS: dict[str, Callable[..., Solver]] = {
    "mu": MultiplicativeUpdate,
    "mm": AcceleratedMultiplicativeUpdate,
    "cd": AcceleratedCoordinateDescent,
    "cd-plain": CoordinateDescent,
}
