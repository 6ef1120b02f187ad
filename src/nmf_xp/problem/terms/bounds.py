"""Where the entries of a factor may be."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

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
        return _with(constraints, "upper", side.entries(name, self.bound), "minimum")


@dataclasses.dataclass(frozen=True, eq=False)
class Lower(Bound):
    """No entry is below the bound: a non-negative number, or an array that broadcasts to the factor."""

    bound: float | Array

    def added(self, constraints: Constraints, side: Side, name: str) -> Constraints:
        """The largest of all lower bounds."""
        return _with(constraints, "lower", side.entries(name, self.bound), "maximum")


@dataclasses.dataclass(frozen=True, eq=False)
class Fixed(Bound):
    """Entries keep their value, whatever other terms ask of them.

    A boolean array that broadcasts to the factor: where it is true, they keep what they have in ``init=(W, H)``. Or
    numbers, in `nmf`: ``h=[Fixed(H0)]`` keeps the rows of H0, (k, n), as the first k components, and ``w=[Fixed(W0)]``
    the columns of W0, (m, k). The others are free, and drawn where there is no `init`.
    """

    entries: Array

    def added(self, constraints: Constraints, side: Side, name: str) -> Constraints:
        """All entries that a term fixes."""
        return _with(constraints, "fixed", side.mask(name, self.entries), "logical_or")


def _with(constraints: Constraints, field: str, entries: Array, together: str) -> Constraints:
    """The constraints with these entries in a field, `together` with what other terms have put there."""
    before = getattr(constraints, field)
    if before is not None:
        entries = getattr(libraries.array_namespace(entries), together)(entries, before)
    new: dict[str, Any] = {field: entries}
    return constraints._replace(**new)
