"""What all terms are."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from nmf_xp.arrays.checks import check_non_negative

if TYPE_CHECKING:
    from nmf_xp.arrays.typing import Array
    from nmf_xp.data.constraints import Constraints


class Side(Protocol):
    """One factor of a problem, as a bound meets it: what takes the user's arrays into its units and its layout."""

    def entries(self, name: str, x: Any) -> Array:
        """A non-negative number or array that broadcasts to the factor, in the problem's units, of its shape."""
        ...

    def mask(self, name: str, x: Any) -> Array:
        """A boolean array that broadcasts to the factor, of its shape."""
        ...


class Term:
    """What is asked of one factor besides the fit."""

    def suits(self, solver: str, beta: float, *, weighted: bool) -> bool:
        """Whether a solver can take it, for a loss, where entries of V have weights or are unobserved."""
        return True


@dataclasses.dataclass(frozen=True)
class Penalty(Term, ABC):
    """A term that adds to the objective, in scikit-learn's scaling: times n on W, times m on H."""

    strength: float

    degree: ClassVar[int]  # the power of the factor's scale with which it grows

    def __post_init__(self) -> None:
        """Refuse what is no strength."""
        check_non_negative(f"{type(self).__name__}.strength", self.strength)

    @abstractmethod
    def added(self, constraints: Constraints, weight: float) -> Constraints:
        """The constraints with this penalty, for its positive weight in their units."""


class Bound(Term, ABC):
    """A term that says where entries may be."""

    @abstractmethod
    def added(self, constraints: Constraints, side: Side, name: str) -> Constraints:
        """The constraints with this bound; an error calls it by its name."""
