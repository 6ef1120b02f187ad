"""Coordinate descent for the Frobenius and the Kullback-Leibler loss: W and then H, by sweeps over their components."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from nmf_xp import _compat
from nmf_xp.data.blocks import Part, sweep
from nmf_xp.solvers.coordinate import least_squares_gram, least_squares_sweeps, newton_sweeps, sweeps_kernel
from nmf_xp.solvers.extrapolation import Extrapolated
from nmf_xp.solvers.weighted import weighted_sweeps, with_close_bound
from nmf_xp.updates import slopes

if TYPE_CHECKING:
    from nmf_xp._typing import Array, Namespace
    from nmf_xp.data import Data
    from nmf_xp.problem import Constraints, Problem


class CoordinateDescent(Extrapolated):
    """Sweeps over the components of one factor after the other.

    There are as many sweeps as take about as long as the products that they use (Gillis & Glineur 2012), and one for
    the Kullback-Leibler loss, where each of them reads V.
    """

    def prepare(self, problem: Problem, *, xp: Namespace) -> Problem:
        """Sparse data in both orders, and weights with their bound."""
        problem = super().prepare(problem, xp=xp)
        return with_close_bound(problem, fixed_h=self.fixed_h, xp=xp) if self.beta == 2 else problem

    def half(
        self, data: Data, W: Array, H: Array, constraints: Constraints, *, measured: bool = False, xp: Namespace
    ) -> tuple[Array, Array | None]:
        """W after its sweeps; for the Frobenius loss also what costs next to nothing."""
        if self.beta == 1:
            return newton_sweeps(data, W, H, constraints, floor=self.floor, sweeps=1, xp=xp), None
        r = W.shape[-1]
        entries = math.prod(data.values.shape[-2:]) / data.shape[-2]
        sweeps = min(4, max(1, round(entries / (2 * r))))
        floor = self.floor
        if data.weighted:
            settings: Any = {"floor": floor, "sweeps": sweeps, "convex": self.fixed_h, "xp": xp}
            return weighted_sweeps(data, W, H, constraints, **settings)
        gram = least_squares_gram(H, constraints, xp=xp)
        kernel = sweeps_kernel("least_squares_rows", data, W, constraints)
        dtype = _compat.accumulator_dtype(xp, _compat.device(W))

        def rows(block: Data, W: Array, constraints: Constraints) -> Part:
            if kernel is not None:
                product = block.contract(block.values, H, xp=xp)
                l1 = constraints.penalties[0]
                return Part(*kernel(W, product, gram, l1=l1, floor=floor, sweeps=sweeps))
            product, model = slopes(block, W, H, beta=2.0, xp=xp)
            slope = constraints.add_slope(model - product, W)
            W = least_squares_sweeps(W, slope, gram, constraints, floor=floor, sweeps=sweeps, xp=xp)
            return Part(W, (xp.sum(W * product, axis=(-2, -1), dtype=dtype),))

        W, (inner,) = sweep(rows, data, W, constraints, products_only=True, xp=xp)
        return W, inner
