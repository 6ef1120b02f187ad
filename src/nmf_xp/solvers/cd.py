"""Coordinate descent for the Frobenius and the Kullback-Leibler loss: W and then H, by sweeps over their components."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from nmf_xp.arrays import libraries
from nmf_xp.data.blocks import Part, sweep
from nmf_xp.problem import Factors
from nmf_xp.solvers.coordinate import least_squares_gram, least_squares_sweeps, newton_sweeps, sweeps_kernel
from nmf_xp.solvers.extrapolation import Extrapolated, Half
from nmf_xp.solvers.mu import multiplied
from nmf_xp.solvers.weighted import weighted_sweeps, with_close_bound

if TYPE_CHECKING:
    from nmf_xp.arrays.typing import Array, Namespace
    from nmf_xp.data import Data
    from nmf_xp.data.constraints import Constraints
    from nmf_xp.problem import Problem
    from nmf_xp.solvers.extrapolation import Momentum


class CoordinateDescent(Extrapolated):
    """Sweeps over the components of one factor after the other.

    There are as many sweeps as take about as long as the products that they use (Gillis & Glineur 2012), and one for
    the Kullback-Leibler loss, where each of them reads V.
    """

    def prepare(self, problem: Problem, *, xp: Namespace) -> Problem:
        """Sparse data in both orders, and weights with their bound."""
        problem = super().prepare(problem, xp=xp)
        return with_close_bound(problem, fixed_h=self.fixed_h, xp=xp) if self.beta == 2 else problem

    def knows_changes(self, data: Data) -> bool:
        """For the Frobenius loss, a quadratic of each factor, whose weights are the same in all rows."""
        return self.beta == 2 and not data.weighted

    def begin(self, problem: Problem, W: Array, H: Array, *, xp: Namespace) -> Factors:
        """The factors after some multiplicative iterations beside an L1 penalty.

        The first sweeps may leave a component to the others. Without the penalty it comes back from next to nothing,
        and with it, however small, never.
        """
        if self.fixed_h or (problem.w.l1 is None and problem.h.l1 is None):
            return Factors(W, H)
        return multiplied(problem, W, H, beta=self.beta, floor=self.floor, xp=xp)

    def in_one_call(self, problem: Problem, r: int) -> tuple[str, tuple[int, int]] | None:
        """The kernel that makes many iterations of small matrices, and the counts that it takes."""
        if self.beta == 1:
            return "coordinate_loadings" if self.fixed_h else "coordinate_iterations", (1, 0)
        if self.fixed_h:
            return None
        return "descent_iterations", (_sweeps_for(problem.data, r), _sweeps_for(problem.data.T, r))

    def half(
        self,
        data: Data,
        W: Array,
        H: Array,
        constraints: Constraints,
        *,
        momentum: Momentum | None = None,
        top: Array | None = None,
        measured: bool = False,
        xp: Namespace,
    ) -> Half:
        """W after its sweeps."""
        if self.beta == 1:
            return Half(newton_sweeps(data, W, H, constraints, top=top, floor=self.floor, sweeps=1, xp=xp))
        sweeps = _sweeps_for(data, W.shape[-1])
        if data.weighted:
            settings: Any = {"top": top, "floor": self.floor, "sweeps": sweeps, "convex": self.fixed_h, "xp": xp}
            return Half(*weighted_sweeps(data, W, H, constraints, **settings))

        def of_block(block: Data, *_: Any) -> Part:
            return Part(block.contract(block.values, H, xp=xp), ())

        product = sweep(of_block, data, W, constraints, products_only=True, xp=xp).rows
        return self._least_squares(data, W, H, product, constraints, momentum, sweeps=sweeps, xp=xp)

    def _least_squares(
        self,
        data: Data,
        W: Array,
        H: Array,
        product: Array,
        constraints: Constraints,
        momentum: Momentum | None,
        *,
        sweeps: int,
        xp: Namespace,
    ) -> Half:
        """W after sweeps over the quadratic that V H^T, the `product`, and H H^T make of the objective."""
        gram = least_squares_gram(H, constraints, xp=xp)
        kernel = sweeps_kernel("least_squares_rows", data, W, constraints)
        if kernel is not None:
            settings: Any = {"l1": constraints.penalties[0], "floor": self.floor, "sweeps": sweeps}
            new, ahead, changes = kernel(W, product, gram, momentum, **settings)
            return Half(new, None, ahead, changes)
        slope = W @ gram - product
        slope = slope if constraints.l1 is None else slope + constraints.l1  # the rest of the penalty is in `gram`
        new = least_squares_sweeps(W, slope, gram, constraints, floor=self.floor, sweeps=sweeps, xp=xp)
        if momentum is None:
            return Half(new)
        dtype = libraries.accumulator_dtype(xp, libraries.device(W))

        def change(to: Array) -> Array:
            step = to - W
            return xp.sum(step * (slope + 0.5 * (step @ gram)), axis=(-2, -1), dtype=dtype)

        ahead = self.ahead(new, momentum, constraints, xp=xp)
        return Half(new, None, ahead, (change(new), change(ahead)))


def _sweeps_for(data: Data, r: int) -> int:
    """How many sweeps take about as long as the products, which grow with the entries in a row."""
    entries = math.prod(data.values.shape[-2:]) / data.shape[-2]
    return min(4, max(1, round(entries / (2 * r))))
