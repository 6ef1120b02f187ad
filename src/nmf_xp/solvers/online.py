r"""Online multiplicative updates: one block of rows after the other, for every beta (Lefevre, Bach & Fevotte 2011).

The minimum over H of the majoriser of all blocks seen so far is a quotient of two sums over the blocks,

    H = (A / B)^gamma,    A <- rho A + H^(1/gamma) * W^T (V * Y^(beta-2)),    B <- rho B + W^T Y^(beta-1),    Y = WH,

with the exponent gamma of `updates.mm_exponent`. The factor rho forgets old blocks. What is kept, H, A and B, has the
size of H, however many blocks there are. An L1 penalty is added to B; the weights of L2 penalties have a sum of their
own, and H is the minimum of the majoriser with that penalty.

**No unit.** Before the first block that sees an entry of H, its B is what one row of the block adds on average to its
component, and its A is what makes H their quotient. So nothing depends on the units of V, W or the weights.

**scikit-learn's rule** begins with A = H and B = 1, and adds the slope of an L2 penalty at the H of each block to B.

**Frobenius loss.** All that is needed of V are its products with the factors. The divergence is

    sum(V^2) / 2 - <W^T V, H> + <W^T W H, H> / 2,

and where that has lost digits, beside a close model, it is taken from the residual.

`OnlineUpdate` is the algorithm for one block. `OnlinePasses` makes passes over a matrix of it, whose W it keeps, as a
solver for the loop. No step need lower the objective of all rows.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.arrays import kernels, libraries, operators, transfer
from nmf_xp.data import Dense, Sparse
from nmf_xp.data.blocks import Part, in_order, sweep
from nmf_xp.data.units import Units, times_power
from nmf_xp.divergences import block_divergence, data_divergence
from nmf_xp.problem import Problem
from nmf_xp.problem.optimality import penalties
from nmf_xp.solvers.mu import half_square
from nmf_xp.solvers.solver import Solver
from nmf_xp.updates import is_steep, mm_exponent, mm_step, ridge_minimum, slopes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nmf_xp.arrays.typing import Array, Namespace
    from nmf_xp.data import Data
    from nmf_xp.data.constraints import Constraints


LOST = 1 / 3  # of the digits of a divergence, which the residual keeps: from there on it is taken from that


class OnlineState(NamedTuple):
    """The components, what they are the quotient of, and the weight of the L2 penalty, (..., 1, 1)."""

    H: Array
    numerator: Array
    denominator: Array  # 0 where nothing has been seen
    ridge: Array
    units: Units | None = None  # those of all but H, where they are not one


class Block(NamedTuple):
    """A block of rows with what is the same whenever it is visited."""

    problem: Problem
    loadings: Callable[..., Array] | None  # a kernel for W, where products are all that is needed of V
    components: Callable[..., Any] | None  # a kernel for H
    measured: bool
    square: float | None  # sum(V^2) / 2, where the divergence is made of it
    least: float  # what that must be, or it has lost too many digits


class Moved(NamedTuple):
    """What a block led to, with two numbers, maybe 0-d arrays, where it is `measured`."""

    state: OnlineState
    W: Array
    objective: Any = None  # for the new W and the H before
    change: Any = None  # the norm of H's change relative to H's


class OnlineUpdate(NamedTuple):
    """Settings; `memory` is the rho with which each block lets the sums of the earlier ones fade, 1 for not at all."""

    beta: float
    floor: float
    memory: float
    scikit_learn: bool = False  # its rule

    def init(self, H: Array, *, xp: Namespace) -> OnlineState:
        """The state before the first block, which weighs little beside it; H may be below the floor until then."""
        ridge = xp.zeros((*H.shape[:-2], 1, 1), dtype=H.dtype, device=libraries.device(H))
        if self.scikit_learn:
            return OnlineState(H, H, xp.ones_like(H), ridge)
        return OnlineState(H, xp.zeros_like(H), xp.zeros_like(H), ridge)

    def block(self, problem: Problem, H: Array, *, measured: bool = True, xp: Namespace) -> Block:
        """A block for steps from such an H, which say what they led to where they are `measured`."""
        data, w, h = problem
        loadings = components = None
        if mm_exponent(self.beta) == 1 and H.ndim == 2 and h.simple and (h.l2 is None or self.scikit_learn):
            components = kernels.find("online_components", H)
        if components is not None and self.beta == 2 and isinstance(data, Dense | Sparse) and w.simple:
            loadings = kernels.find("online_loadings", data.values, H)
        square = half_square(data, xp=xp) if measured and loadings is not None else None
        least = 0.0 if square is None else square * float(xp.finfo(H.dtype).eps) ** LOST
        return Block(problem, loadings, components, measured, square, least)

    def step(self, state: OnlineState, block: Block, W: Array, *, update_w: bool, xp: Namespace) -> Moved:
        """A step with a block; without `update_w` W is kept."""
        H, problem = state.H, block.problem
        divergence: Any = None
        if block.loadings is None:
            W, sums, divergence = self._swept(block, W, H, update_w=update_w, xp=xp)
        else:
            W, sums = self._multiplied(block, W, H, update_w=update_w, xp=xp)
        after, numbers = self._components(state, sums, block, xp=xp)
        if not block.measured:
            return Moved(after, W)
        if block.square is not None and numbers is not None:
            divergence = block.square - numbers.pulled + 0.5 * numbers.pushed
            if not divergence > block.least:
                divergence = data_divergence(problem.data, W, H, beta=self.beta, xp=xp)
        if problem.w.penalised or problem.h.penalised:
            divergence = divergence + penalties(problem, W, H, xp=xp)
        return Moved(after, W, divergence, relative_change(after.H, H, xp=xp) if numbers is None else numbers.change)

    def _multiplied(
        self, block: Block, W: Array, H: Array, *, update_w: bool, xp: Namespace
    ) -> tuple[Array, tuple[Array, Array]]:
        """The new W and the `slopes` of H for the Frobenius loss, by products in one pass."""
        (data, w, _), gram = block.problem, H @ operators.transposed(H)

        def half(part: Data, W: Array, _: Constraints) -> Part:
            if update_w:
                W = self._updated(block, W, product_of_rows(part, H, xp=xp), gram, xp=xp)
            Wt = operators.transposed(W)
            return Part(W, (operators.transposed(part.T.contract(part.values, Wt, xp=xp)), Wt @ W))

        W, (product, curvature) = sweep(half, data, W, w, xp=xp)
        return W, (product, curvature @ H)

    def _updated(self, block: Block, W: Array, product: Array, gram: Array, *, xp: Namespace) -> Array:
        """The update of a block's W by its kernel, for H V^T and H H^T."""
        assert block.loadings is not None
        w = block.problem.w
        curvature, l1 = w.add_curvature(gram, xp=xp), w.penalties[0]
        return operators.transposed(
            block.loadings(operators.transposed(W), product, curvature, l1=l1, floor=self.floor)
        )

    def _swept(
        self, block: Block, W: Array, H: Array, *, update_w: bool, xp: Namespace
    ) -> tuple[Array, tuple[Array, Array], Any]:
        """The new W, the `slopes` of H and, if it is `measured`, the divergence before H changes, in one pass."""
        (data, w, _), beta, Ht = block.problem, self.beta, operators.transposed(H)

        def half(part: Data, W: Array, constraints: Constraints) -> Part:
            if update_w:
                W = self._rows(part, W, H, constraints, xp=xp)
            turned, Wt = part.T, operators.transposed(W)
            if not block.measured:
                return Part(W, slopes(turned, Ht, Wt, beta=beta, xp=xp))
            Y = part.predict(W, H, xp=xp)
            cost = block_divergence(part, W, H, Y, beta=beta, xp=xp)
            if beta != 1:
                return Part(W, (*slopes(turned, Ht, Wt, Y, beta=beta, xp=xp), cost))
            numerator = turned.contract(operators.divide_into(part.values, Y), Wt, xp=xp)
            return Part(W, (numerator, turned.model_slope(Ht, Wt, None, beta=beta, xp=xp), cost))

        W, (numerator, denominator, *cost) = sweep(half, data, W, w, xp=xp)
        return W, (operators.transposed(numerator), operators.transposed(denominator)), cost[0] if cost else None

    def _rows(self, block: Data, W: Array, H: Array, constraints: Constraints, *, xp: Namespace) -> Array:
        """The update of a block's W."""
        numerator, denominator = slopes(block, W, H, beta=self.beta, xp=xp)
        if self.scikit_learn:
            denominator = constraints.add_push(denominator, W, xp=xp)
            constraints = constraints._replace(l1=None, l2=None)
        return mm_step(W, (numerator, denominator), constraints, beta=self.beta, floor=self.floor, xp=xp)

    def _components(
        self, state: OnlineState, sums: tuple[Array, Array], block: Block, *, xp: Namespace
    ) -> tuple[OnlineState, Numbers | None]:
        """The state after a block with these `slopes` of H, and what a kernel counts besides."""
        H, h, rows, gamma = state.H, block.problem.h, block.problem.data.shape[-2], mm_exponent(self.beta)
        if block.components is not None:
            known: Any = {"penalties": h.penalties, "memory": self.memory, "rows": rows, "floor": self.floor}
            H, numerator, denominator, numbers = block.components(*state[:3], *sums, **known)
            return OnlineState(H, numerator, denominator, self.memory * state.ridge), Numbers(*numbers)
        powers = H if gamma == 1 else H ** (1.0 / gamma)
        row = xp.mean(sums[1], axis=-1, keepdims=True) / rows
        seen = state.denominator > 0
        numerator = self.memory * xp.where(seen, state.numerator, row * powers) + sums[0] * powers
        denominator = self.memory * xp.where(seen, state.denominator, row) + sums[1]
        ridge = self.memory * state.ridge
        if self.scikit_learn:
            denominator = h.add_push(denominator, H, xp=xp)
        else:
            denominator = denominator if h.l1 is None else denominator + h.l1
            ridge = ridge if h.l2 is None else ridge + h.l2
        if h.l2 is None or self.scikit_learn:
            new = _quotient(numerator, denominator, gamma, xp=xp)
        elif self.beta < 2:
            slope = ridge if self.beta <= 1 else ridge * H ** (self.beta - 1.0)
            new = ridge_minimum(numerator, denominator, slope, beta=self.beta, xp=xp)
        else:
            new = _quotient(numerator, denominator + ridge * H, gamma, xp=xp)
        known = denominator > 0
        if is_steep(self.beta):
            known = xp.logical_and(known, xp.isfinite(new))
        new = xp.where(known, operators.at_least(new, self.floor, xp=xp), H)
        return OnlineState(h.enforce(new, H, xp=xp), numerator, denominator, ridge), None

    def entered(self, state: OnlineState, units: Units, *, xp: Namespace) -> OnlineState:
        """The state in the units of a problem, of which its sums are or which they have not entered yet.

        Factors that could overflow with the dtype are bounded: what is so large is all that counts.
        """
        H, *sums, ridge = state[:4]
        if state.units is None and any(units):
            most = 5 / 16 * math.log2(float(xp.finfo(H.dtype).max))
            slope, root = (
                -max(-most, min(most, x)) for x in (units.penalty("H", 1, self.beta), units.h / mm_exponent(self.beta))
            )
            sums = [times_power(times_power(sums[0], root), slope), times_power(sums[1], slope)]
            ridge = times_power(ridge, -units.penalty("H", 2, self.beta))
        return OnlineState(operators.at_least(times_power(H, -units.h), self.floor, xp=xp), sums[0], sums[1], ridge)

    def loadings(self, block: Block, W: Array, H: Array, *, max_iter: int, tol: float, xp: Namespace) -> Array:
        """W after updates for a fixed H, until one changes it by no more than `tol` of its norm."""
        data, w, _ = block.problem
        found = None
        if block.loadings is not None:
            found = product_of_rows(data, H, xp=xp), H @ operators.transposed(H)

        def half(part: Data, W: Array, constraints: Constraints) -> Part:
            return Part(self._rows(part, W, H, constraints, xp=xp), ())

        for _ in range(max_iter):
            old = W
            W = sweep(half, data, W, w, xp=xp).rows if found is None else self._updated(block, W, *found, xp=xp)
            if tol > 0 and transfer.scalar(relative_change(W, old, xp=xp)) <= tol:
                break
        return W


class Numbers(NamedTuple):
    """What `online_components` counts: <V, WH> and <WH, WH> for the Frobenius loss, and how far H moved."""

    pulled: float
    pushed: float
    moved: float
    size: float

    @property
    def change(self) -> float:
        """The norm of the change, relative to that of the new factor."""
        return math.sqrt(self.moved / self.size) if self.size > 0 else 0.0


def _quotient(numerator: Array, denominator: Array, gamma: float, *, xp: Namespace) -> Array:
    """The minimum of the majoriser."""
    ratio = numerator / operators.at_least(denominator, float(xp.finfo(numerator.dtype).smallest_normal), xp=xp)
    return ratio if gamma == 1 else ratio**gamma


class PassesState(NamedTuple):
    """W of all rows, each batch's as its last visit left it, and the `OnlineState`."""

    W: Array
    H: Array
    numerator: Array
    denominator: Array
    ridge: Array


@dataclasses.dataclass(frozen=True)
class OnlinePasses(Solver):
    """A solver: an iteration is a pass, after which `forget_factor` of the past is left."""

    batch_size: int = 1024
    forget_factor: float = 0.7

    may_rise = True
    compiles = False  # a program would hold its batches one after the other

    def init(self, problem: Problem, W: Array, H: Array, *, xp: Namespace) -> PassesState:
        """The state at the start."""
        return PassesState(W, *OnlineUpdate(self.beta, self.floor, 1.0).init(H, xp=xp)[:4])

    def step(self, state: PassesState, problem: Problem, *, xp: Namespace) -> PassesState:
        """One pass; each batch lets the past fade by its share of the rows."""
        m = problem.data.shape[-2]
        online = OnlineState(*state[1:])
        parts: list[Array] = []
        for start, stop, batch in batches(problem, self.batch_size):
            update = OnlineUpdate(self.beta, self.floor, self.forget_factor ** ((stop - start) / m))
            W = state.W[..., start:stop, :]
            block = update.block(batch, online.H, measured=False, xp=xp)
            online, W = update.step(online, block, W, update_w=True, xp=xp)[:2]
            parts.append(W)
        return PassesState(xp.concat(parts, axis=-2), *online[:4])


def batches(problem: Problem, size: int) -> Iterator[tuple[int, int, Problem]]:
    """Row by row the problem's batches, with their share of the penalty on H; none goes beyond a block of a source."""
    m = problem.data.shape[-2]
    for first, block in in_order(problem.data):
        height = block.shape[-2]
        for a in range(0, height, size):
            b = min(height, a + size)
            share = (b - a) / m
            h = problem.h._replace(l1=problem.h.l1 and problem.h.l1 * share, l2=problem.h.l2 and problem.h.l2 * share)
            data = block if b - a == height else block.rows(a, b)
            yield first + a, first + b, Problem(data, problem.w.rows(first + a, first + b), h)


def product_of_rows(data: Data, H: Array, *, xp: Namespace) -> Array:
    """H V^T, (r, m). BLAS makes a product with few rows in less time than its transpose."""
    if type(data) is Dense:
        return H @ operators.transposed(data.values)
    return operators.transposed(data.contract(data.values, H, xp=xp))


def left(state: OnlineState, units: Units) -> OnlineState:
    """The state with H in the units of the user."""
    return state._replace(H=times_power(state.H, units.h), units=units if any(units) else None)


def relative_change(new: Array, old: Array, *, xp: Namespace) -> Array:
    """The norm of the change, relative to that of the new factor."""
    dtype = libraries.accumulator_dtype(xp, libraries.device(new))
    change, size = (xp.sum(x * x, dtype=dtype) for x in (new - old, new))
    return xp.sqrt(change / operators.at_least(size, float(xp.finfo(dtype).smallest_normal), xp=xp))
