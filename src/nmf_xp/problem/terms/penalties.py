"""The penalties on each entry alone."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from nmf_xp.problem.terms.term import Penalty

if TYPE_CHECKING:
    from nmf_xp.data.constraints import Constraints


@dataclasses.dataclass(frozen=True)
class L1(Penalty):
    """strength * sum(W): small entries become zero.

    The objective has n times as much for W, m times for H, as with `alpha_W`, of which it is the share `l1_ratio`.
    """

    degree = 1

    def added(self, constraints: Constraints, weight: float) -> Constraints:
        """The weight, with those of other terms."""
        return constraints._replace(l1=weight + constraints.penalties[0])


@dataclasses.dataclass(frozen=True)
class L2(Penalty):
    """strength / 2 * sum(W^2): large entries become smaller.

    The objective has n times as much for W, m times for H, as with `alpha_W`, of which it is the share 1 - `l1_ratio`.
    """

    degree = 2

    def added(self, constraints: Constraints, weight: float) -> Constraints:
        """The weight, with those of other terms."""
        return constraints._replace(l2=weight + constraints.penalties[1])
