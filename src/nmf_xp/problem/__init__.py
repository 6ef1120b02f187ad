"""What a solver is given: the data, what is asked of each factor besides the fit, and the factors."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from nmf_xp.data.constraints import FREE, Constraints

if TYPE_CHECKING:
    from nmf_xp.arrays.typing import Array
    from nmf_xp.data import Data


class Factors(NamedTuple):
    """W and H: all that a solver carries which does not look back, and the first two fields of every state."""

    W: Array
    H: Array


class Problem(NamedTuple):
    """Data, and the constraints on the two factors."""

    data: Data
    w: Constraints = FREE
    h: Constraints = FREE
