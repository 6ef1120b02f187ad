"""Components that are to overlap less."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.arrays import libraries
from nmf_xp.problem.terms.term import Penalty

if TYPE_CHECKING:
    from nmf_xp.arrays.typing import Array, Namespace
    from nmf_xp.data.constraints import Constraints


@dataclasses.dataclass(frozen=True)
class Decorrelate(Penalty):
    """strength * sum of w_k . w_l over all pairs k < l: components, columns of W or rows of H, overlap less.

    The objective has n times as much for W, m times for H. It shrinks with the factor, so ask something of the other
    one as well, for example an L2 penalty: else the scale of W goes to zero, and that of H grows as much.
    """

    degree = 2

    def added(self, constraints: Constraints, weight: float) -> Constraints:
        """One more quadratic penalty."""
        return constraints._replace(others=(*constraints.others, Decorrelated(weight)))

    def suits(self, solver: str, beta: float, *, weighted: bool) -> bool:
        """By majorisation for every loss; by coordinate descent where all rows have one curvature."""
        return solver in ("mu", "mm") or (solver in ("cd", "cd-plain") and beta == 2 and not weighted)


class Decorrelated(NamedTuple):
    """The penalty w Q w / 2 on each row w, for Q = strength * (1 - I), of which no entry is negative."""

    strength: Any

    def push(self, W: Array, *, xp: Namespace) -> Array:
        """W Q."""
        return W @ self.matrix(W, xp=xp)

    def pull(self, W: Array, *, xp: Namespace) -> None:
        """Nothing."""

    def matrix(self, gram: Array, *, xp: Namespace) -> Array:
        """Q."""
        r, kind = gram.shape[-1], {"dtype": gram.dtype, "device": libraries.device(gram)}
        return self.strength * (xp.ones((r, r), **kind) - xp.eye(r, **kind))

    def columns(self, order: Array, *, xp: Namespace) -> Decorrelated:
        """The same: every pair counts as much."""
        return self
