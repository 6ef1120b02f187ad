r"""Online multiplicative updates: one block of rows after the other, for every beta (Lefevre, Bach & Fevotte 2011).

The minimum over H of the majoriser of all blocks seen so far is a quotient of two sums over the blocks,

    H = (A / B)^gamma,    A <- rho A + H^(1/gamma) * W^T (V * Y^(beta-2)),    B <- rho B + W^T Y^(beta-1),    Y = WH,

with the exponent gamma of `updates.mm_exponent`. The factor rho forgets old blocks. What is kept, H, A and B, has the
size of H, however many blocks there are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from nmf_xp import _compat
from nmf_xp.data.blocks import Part, sweep
from nmf_xp.divergences import block_divergence
from nmf_xp.optimality import penalties
from nmf_xp.updates import mm_exponent, multiplicative_w, slopes

if TYPE_CHECKING:
    from nmf_xp._typing import Array, Namespace
    from nmf_xp.data import Data
    from nmf_xp.problem import Constraints, Problem


class OnlineState(NamedTuple):
    """The components and what they are the quotient of, each (r, n)."""

    H: Array
    numerator: Array
    denominator: Array


class OnlineUpdate(NamedTuple):
    """Settings; `memory` is the rho with which each block lets the sums of the earlier ones fade, 1 for not at all."""

    beta: float
    floor: float
    memory: float

    def init(self, H: Array, *, xp: Namespace) -> OnlineState:
        """The state before the first block, which weighs little beside it."""
        H = xp.maximum(H, self.floor)
        return OnlineState(H, H, xp.ones_like(H))

    def step(
        self, state: OnlineState, problem: Problem, W: Array, *, update_w: bool, xp: Namespace
    ) -> tuple[OnlineState, Array, Array]:
        """The state after a block, the block's W, and its objective for the H before; without `update_w` W is kept."""
        data, w, h = problem
        H, Ht = state.H, xp.matrix_transpose(state.H)

        def half(block: Data, W: Array, constraints: Constraints) -> Part:
            if update_w:
                W = multiplicative_w(block, W, H, constraints, beta=self.beta, floor=self.floor, xp=xp)
            Y = block.predict(W, H, xp=xp)
            divergence = block_divergence(block, W, H, Y, beta=self.beta, xp=xp)
            return Part(W, (divergence, *slopes(block.T, Ht, xp.matrix_transpose(W), beta=self.beta, xp=xp)))

        W, (divergence, numerator, denominator) = sweep(half, data, W, w, xp=xp)
        objective = divergence + penalties(problem, W, H, xp=xp)
        gamma = mm_exponent(self.beta, quadratic=h.l2 is not None)
        numerator, denominator = (xp.matrix_transpose(x) for x in (numerator, denominator))
        numerator = self.memory * state.numerator + numerator * (H if gamma == 1 else H ** (1.0 / gamma))
        denominator = self.memory * state.denominator + (denominator + h.slope(H))
        tiny = float(xp.finfo(H.dtype).smallest_normal)
        ratio = numerator / xp.maximum(denominator, tiny)
        H = xp.maximum(ratio if gamma == 1 else ratio**gamma, self.floor)
        return OnlineState(H, numerator, denominator), W, objective

    def loadings(self, problem: Problem, W: Array, H: Array, *, max_iter: int, tol: float, xp: Namespace) -> Array:
        """W after updates for a fixed H, until one changes it by no more than `tol` of its norm."""
        data, w, _ = problem

        def half(block: Data, W: Array, constraints: Constraints) -> Part:
            return Part(multiplicative_w(block, W, H, constraints, beta=self.beta, floor=self.floor, xp=xp), ())

        for _ in range(max_iter):
            old, W = W, sweep(half, data, W, w, xp=xp).rows
            if tol > 0 and _compat.scalar(relative_change(W, old, xp=xp)) <= tol:
                break
        return W


def relative_change(new: Array, old: Array, *, xp: Namespace) -> Array:
    """The norm of the change, relative to that of the new factor."""
    dtype = _compat.accumulator_dtype(xp, _compat.device(new))
    change, size = (xp.sum(x * x, dtype=dtype) for x in (new - old, new))
    return xp.sqrt(change / xp.maximum(size, float(xp.finfo(dtype).smallest_normal)))
