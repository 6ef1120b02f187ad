"""Data whose second slope is given: what grows with the model is a line, in the place of the model's own sum.

For the Kullback-Leibler loss that is all by which V's negative binomial loss, majorised at given factors, differs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.data.seam import Wrapping

if TYPE_CHECKING:
    from nmf_xp.arrays.typing import Array, Namespace


class Fields(NamedTuple):
    """What data with a given slope are made of."""

    base: Any
    along: Array  # (..., m, r)
    down: Array | None = None  # (..., n, r): that of the transposed problem, where it is asked for


class Sloped(Fields, Wrapping):
    """`base`, one matrix without weights, with the second part of the slopes as it is given."""

    @property
    def T(self) -> Sloped:
        assert self.down is not None
        return Sloped(self.base.T, self.down, self.along)

    def rows(self, start: int, stop: int) -> Sloped:
        share = (stop - start) / self.shape[-2]  # of what is a sum over rows, and will be summed over blocks
        down = None if self.down is None else self.down * share
        return Sloped(self.base.rows(start, stop), self.along[..., start:stop, :], down)

    def contract(self, Z: Array, H: Array, *, xp: Namespace) -> Array:
        return self.base.contract(Z, H, xp=xp)

    def model_slope(self, W: Array, H: Array, power: Array | None, *, beta: float, xp: Namespace) -> Array:
        return self.along
