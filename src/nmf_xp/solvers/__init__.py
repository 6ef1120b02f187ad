"""The algorithms: frozen settings on one side, the state that changes on the other.

A solver is a NamedTuple of Python scalars, hashable, so that a compiled loop can treat it as a constant. It never
sees V, only a `Problem`. Named tuples are equal where their fields are, so each carries its name: else JAX would take
the compiled program of one wrapped solver for that of another. Adding one takes a file here and a line in `SOLVERS`.

| file | algorithm | losses | an iteration reads V |
|---|---|---|---|
| `mu` | multiplicative updates | every beta | once |
| `mm` | joint majorisation-minimisation with SQUAREM | every beta | 3 times, in a cycle of three updates |
| `newton` | Newton's method, all rows at once | 1 | twice |
| `cd` | coordinate descent on what is in `coordinate` | 1, 2 | twice; r times more for 1 without a kernel |
| `online` | online multiplicative updates, batch by batch | every beta | once |
| `cyclic` | scikit-learn's coordinate descent, without extrapolation | 2 | twice |
| `extrapolation` | around `newton` and `cd` | | once more for the objective, but for 2 |
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from nmf_xp.data.kinds import Kind
from nmf_xp.solvers.cd import CoordinateDescent
from nmf_xp.solvers.cyclic import CyclicDescent
from nmf_xp.solvers.extrapolation import Extrapolated
from nmf_xp.solvers.mm import AcceleratedMajorizer
from nmf_xp.solvers.mu import MultiplicativeUpdate
from nmf_xp.solvers.newton import Newton
from nmf_xp.solvers.online import OnlinePasses

if TYPE_CHECKING:
    from collections.abc import Callable

    from nmf_xp._typing import Array, Namespace
    from nmf_xp.problem import Problem

__all__ = ["BY_KIND", "LOSSES", "OPTIONS", "SOLVERS", "MultiplicativeUpdate", "Solver", "automatic"]


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

    @property
    def pace(self) -> int:
        """Iterations of which at least one makes progress."""

    @property
    def stacks(self) -> bool:
        """Whether NumPy runs a stack of small matrices faster than one after the other."""

    def prepare(self, problem: Problem) -> Problem:
        """The problem in the form that this algorithm reads best."""

    def init(self, problem: Problem, W: Array, H: Array, *, xp: Namespace) -> Any:
        """The state at the start; W and H respect the floor.

        A state may have a field `ended` (...,): the iteration in which a rule of the solver's own held, 0 until then.
        """

    def step(self, state: Any, problem: Problem, *, xp: Namespace) -> Any:
        """One iteration, as a pure function of arrays."""


SOLVERS: dict[str, Callable[..., Solver]] = {
    "mu": MultiplicativeUpdate,
    "mm": AcceleratedMajorizer,
    "newton": lambda **settings: Extrapolated(Newton(**settings)),
    "cd": lambda **settings: Extrapolated(CoordinateDescent(**settings)),
    "cd-plain": lambda **settings: CyclicDescent(**{**settings, "floor": 0.0}),
    "online": OnlinePasses,
}

LOSSES = {"newton": (1.0,), "cd": (1.0, 2.0), "cd-plain": (2.0,)}
"""The betas of the solvers that do not take all."""

OPTIONS = {"cd-plain": ("violation_tol", "orders"), "online": ("batch_size", "forget_factor")}
"""The settings that a user may give."""


BY_KIND = {Kind.STREAMED: ("mm", "mu", "online"), Kind.GRID: ("mu",)}
"""The solvers for data that are nowhere whole: those that read V block by block."""


def automatic(beta: float, kind: Kind = Kind.WHOLE) -> str:
    """The solver for a loss: what came first in `benchmarks/` on most data sets; or the first that there is."""
    if kind is not Kind.WHOLE:
        return BY_KIND[kind][0]
    return {1.0: "newton", 2.0: "cd"}.get(beta, "mm")
