"""Where the entries of a factor may be."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from nmf_xp.arrays import libraries
from nmf_xp.problem.terms.term import Bound

if TYPE_CHECKING:
    from nmf_xp.arrays.typing import Array
    from nmf_xp.data.constraints import Constraints
    from nmf_xp.problem.terms.term import Side


@dataclasses.dataclass(frozen=True, eq=False)
class Upper(Bound):
    """No entry is above the bound: a non-negative number, or an array that broadcasts to the factor."""

    bound: float | Array

    def added(self, constraints: Constraints, side: Side, name: str) -> Constraints:
        """The least of all upper bounds."""
        upper = side.entries(name, self.bound)
        xp = libraries.array_namespace(upper)
        upper = upper if constraints.upper is None else xp.minimum(upper, constraints.upper)
        return constraints._replace(upper=upper)


@dataclasses.dataclass(frozen=True, eq=False)
class Lower(Bound):
    """No entry is below the bound: a non-negative number, or an array that broadcasts to the factor."""

    bound: float | Array

    def added(self, constraints: Constraints, side: Side, name: str) -> Constraints:
        """The largest of all lower bounds."""
        lower = side.entries(name, self.bound)
        xp = libraries.array_namespace(lower)
        lower = lower if constraints.lower is None else xp.maximum(lower, constraints.lower)
        return constraints._replace(lower=lower)


@dataclasses.dataclass(frozen=True, eq=False)
class Fixed(Bound):
    """Entries keep the value they have in ``init=(W, H)``: where a boolean array that broadcasts to the factor is true.

    They do so whatever other terms ask of them.
    """

    entries: Array

    def added(self, constraints: Constraints, side: Side, name: str) -> Constraints:
        """All entries that a term fixes."""
        fixed = side.mask(name, self.entries)
        fixed = (
            fixed
            if constraints.fixed is None
            else libraries.array_namespace(fixed).logical_or(fixed, constraints.fixed)
        )
        return constraints._replace(fixed=fixed)
