"""Coordinate descent for the Frobenius and the Kullback-Leibler loss: W and then H, by sweeps over their components."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from nmf_xp import _compat
from nmf_xp.data.blocks import Part, sweep
from nmf_xp.solvers.coordinate import least_squares_gram, least_squares_sweeps, newton_sweeps, sweeps_kernel
from nmf_xp.solvers.extrapolation import Extrapolated
from nmf_xp.updates import slopes

if TYPE_CHECKING:
    from nmf_xp._typing import Array, Namespace
    from nmf_xp.data import Data
    from nmf_xp.problem import Constraints


class CoordinateDescent(Extrapolated):
    """Sweeps over the components of one factor after the other.

    There are as many sweeps as take about as long as the products that they use (Gillis & Glineur 2012), and one for
    the Kullback-Leibler loss, where each of them reads V.
    """

    def half(
        self, data: Data, W: Array, H: Array, constraints: Constraints, *, measured: bool = False, xp: Namespace
    ) -> tuple[Array, Array | None]:
        """W after its sweeps; for the Frobenius loss also the sum of V * WH, which costs next to nothing."""
        if self.beta == 1:
            return newton_sweeps(data, W, H, constraints, floor=self.floor, sweeps=1, xp=xp), None
        r = W.shape[-1]
        entries = math.prod(data.values.shape[-2:]) / data.shape[-2]
        sweeps = min(4, max(1, round(entries / (2 * r))))
        gram = least_squares_gram(data, H, constraints, xp=xp)

        name = "least_squares_sweeps" if data.weighted else "least_squares_rows"
        kernel = sweeps_kernel(name, data, W, constraints)
        dtype = _compat.accumulator_dtype(xp, _compat.device(W))
        floor = self.floor

        def rows(block: Data, W: Array, constraints: Constraints) -> Part:
            if kernel is not None and not data.weighted:
                product = block.contract(block.values, H, xp=xp)
                l1 = constraints.penalties[0]
                return Part(*kernel(W, product, gram, l1=l1, floor=floor, sweeps=sweeps))
            product, model = slopes(block, W, H, beta=2.0, xp=xp)
            slope = constraints.add_slope(model - product, W)
            W = least_squares_sweeps(W, slope, gram, constraints, kernel=kernel, floor=floor, sweeps=sweeps, xp=xp)
            return Part(W, (xp.sum(W * product, axis=(-2, -1), dtype=dtype),))

        W, (inner,) = sweep(rows, data, W, constraints, products_only=True, xp=xp)
        return W, inner
