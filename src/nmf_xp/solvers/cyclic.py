"""scikit-learn's coordinate descent for the Frobenius loss: one sweep an iteration over the components of each factor.

It visits the components in their order or in given ones, lets entries be exactly zero, and can end by scikit-learn's
rule: the violation of the optimality conditions, seen by each coordinate when it is visited and summed over an
iteration, has fallen to `violation_tol` times that of the first iteration (Cichocki & Phan 2009; Hsieh & Dhillon 2011).
With weights, which scikit-learn does not have, it is seen at the start of a sweep.
Where the rule holds, the factors stay as they are; the loop learns of it at its next check.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.arrays import libraries, operators, transfer
from nmf_xp.data.blocks import Part, sweep
from nmf_xp.problem.balance import component_scale
from nmf_xp.solvers.coordinate import least_squares_gram, least_squares_sweeps, sweeps_kernel
from nmf_xp.solvers.solver import Solver
from nmf_xp.solvers.weighted import weighted_sweeps, with_close_bound
from nmf_xp.updates import slopes

if TYPE_CHECKING:
    from collections.abc import Callable

    from nmf_xp.arrays.typing import Array, Namespace
    from nmf_xp.data import Data
    from nmf_xp.data.constraints import Constraints
    from nmf_xp.problem import Problem


class State(NamedTuple):
    """The factors, and what the order and the rule need."""

    W: Array
    H: Array
    orders: Array  # (..., T, r): of the half-iterations to come, the next one first; empty for the natural order
    first: Array  # (...,): the violation of the first iteration
    iterations: Array  # (...,): iterations that ran
    ended: Array  # (...,): the iteration in which the rule held, 0 until then


@dataclasses.dataclass(frozen=True)
class CyclicDescent(Solver):
    """One sweep a half-iteration.

    `orders` are permutations of the components, one for each half-iteration, repeated where they end.
    """

    violation_tol: float | None = None
    orders: tuple[tuple[int, ...], ...] = ()

    @property
    def has_rule(self) -> bool:
        """Whether there is scikit-learn's."""
        return self.violation_tol is not None

    def prepare(self, problem: Problem, *, xp: Namespace) -> Problem:
        """Sparse data in both orders, and weights with their bound."""
        problem = problem._replace(data=problem.data.with_both_orders())
        return with_close_bound(problem, fixed_h=self.fixed_h, xp=xp)

    def init(self, problem: Problem, W: Array, H: Array, *, xp: Namespace) -> State:
        """The state at the start."""
        import numpy as np

        stack, device = W.shape[:-2], libraries.device(W)
        r = W.shape[-1]
        if any(sorted(order) != list(range(r)) for order in self.orders):
            msg = f"`orders` must be permutations of the numbers from 0 to {r - 1}, got {self.orders!r}"
            raise ValueError(msg)
        table = np.asarray(self.orders, dtype=np.int32).reshape(len(self.orders), -1 if self.orders else 0)
        orders = transfer.from_host(table, xp=xp, dtype=xp.int32, device=device)
        zero = 0.0 * xp.sum(W, axis=(-2, -1), dtype=libraries.accumulator_dtype(xp, device))
        return State(W, H, xp.broadcast_to(orders, (*stack, *orders.shape)), zero, zero, zero)

    def step(self, state: State, problem: Problem, *, xp: Namespace) -> State:
        """One iteration."""
        orders = state.orders
        W, violation = self._half(problem.data, state.W, state.H, problem.w, orders, xp=xp)
        H, orders = state.H, _rolled(orders, xp=xp)
        if not self.fixed_h:
            Ht, Wt = operators.transposed(H), operators.transposed(W)
            Ht, more = self._half(problem.data.T, Ht, Wt, problem.h.transposed(xp=xp), orders, xp=xp)
            H, violation, orders = operators.transposed(Ht), violation + more, _rolled(orders, xp=xp)
        if self.violation_tol is None:
            return state._replace(W=W, H=H, orders=orders)
        count = state.iterations + 1.0
        first = xp.where(state.iterations == 0, violation, state.first)
        running = state.ended == 0
        holds = violation <= self.violation_tol * first
        ended = xp.where(xp.logical_and(running, holds), count, state.ended)
        running = running[..., None, None]
        W, H = xp.where(running, W, state.W), xp.where(running, H, state.H)
        return State(W, H, orders, first, count, ended)

    def balanced(self, state: State, problem: Problem, *, xp: Namespace) -> State:
        """The state with balanced components: a column of W that is nearly zero makes a row of H as large."""
        scale = None
        if self.polish and not self.fixed_h:
            scale = component_scale(state.W, state.H, problem, xp=xp)
        return state if scale is None else state._replace(W=state.W * scale, H=state.H / operators.transposed(scale))

    def _half(
        self, data: Data, W: Array, H: Array, constraints: Constraints, orders: Array, *, xp: Namespace
    ) -> tuple[Array, Any]:
        """W after its sweep, and the violation that the sweep met: 0 where there is no rule."""
        order = None
        if orders.shape[-1]:
            order = xp.reshape(orders, (-1, orders.shape[-1]))[0, :]  # the same for all members of a stack
        if data.weighted:
            return self._weighted_half(data, W, H, constraints, order, xp=xp)
        gram = least_squares_gram(H, constraints, xp=xp)
        if order is not None:
            gram = xp.take(xp.take(gram, order, axis=-1), order, axis=-2)

        kernel = sweeps_kernel("least_squares_sweeps", data, W, constraints)

        def rows(block: Data, W: Array, constraints: Constraints) -> Part:
            product, model = slopes(block, W, H, beta=2.0, xp=xp)
            slope = constraints.add_slope(model - product, W, xp=xp)
            if order is None:
                return self._sweep(W, slope, gram, constraints, kernel=kernel, xp=xp)
            W, slope = xp.take(W, order, axis=-1), xp.take(slope, order, axis=-1)
            new, sums = self._sweep(W, slope, gram, constraints.columns(order, xp=xp), kernel=kernel, xp=xp)
            return Part(xp.take(new, xp.argsort(order), axis=-1), sums)

        new, sums = sweep(rows, data, W, constraints, products_only=True, xp=xp)
        return new, sum(sums)

    def _weighted_half(
        self, data: Data, W: Array, H: Array, constraints: Constraints, order: Array | None, *, xp: Namespace
    ) -> tuple[Array, Any]:
        """The same with weights, and the violation at the start of the sweep."""
        violation: Any = 0
        if self.has_rule:
            product, model = slopes(data, W, H, beta=2.0, xp=xp)
            violation = self._violation(constraints.add_slope(model - product, W, xp=xp), W, constraints, xp=xp)
        settings: Any = {"floor": self.floor, "sweeps": 1, "convex": self.fixed_h, "xp": xp}
        if order is None:
            return weighted_sweeps(data, W, H, constraints, **settings)[0], violation
        W, H = xp.take(W, order, axis=-1), xp.take(H, order, axis=-2)
        W, _ = weighted_sweeps(data, W, H, constraints.columns(order, xp=xp), **settings)
        return xp.take(W, xp.argsort(order), axis=-1), violation

    def _sweep(
        self,
        W: Array,
        slope: Array,
        gram: Array,
        constraints: Constraints,
        *,
        kernel: Callable[..., Array] | None,
        xp: Namespace,
    ) -> Part:
        move = slope
        if constraints.l1 is not None:  # it would end for good a component whose other factor is zero
            identity = xp.eye(gram.shape[-1], dtype=gram.dtype, device=libraries.device(gram))
            move = xp.where(xp.sum(gram * identity, axis=-2, keepdims=True) > 0, slope, 0.0)
        new = least_squares_sweeps(W, move, gram, constraints, kernel=kernel, floor=self.floor, sweeps=1, xp=xp)
        if self.violation_tol is None:
            return Part(new, ())
        # The slope that a coordinate met: those before it had moved already.
        met = slope + (new - W) @ xp.triu(gram, k=1)
        return Part(new, (self._violation(met, W, constraints, xp=xp),))

    def _violation(self, slope: Array, W: Array, constraints: Constraints, *, xp: Namespace) -> Array:
        """The sum of the slopes along which entries of W can move, in magnitude."""
        slope = xp.where(W <= constraints.floor(self.floor, xp=xp), operators.at_most(slope, 0.0, xp=xp), slope)
        if constraints.upper is not None:
            slope = xp.where(W >= constraints.upper, operators.at_least(slope, 0.0, xp=xp), slope)
        if constraints.fixed is not None:
            slope = xp.where(constraints.fixed, 0.0, slope)
        dtype = libraries.accumulator_dtype(xp, libraries.device(W))
        return xp.sum(xp.abs(slope), axis=(-2, -1), dtype=dtype)


def _rolled(orders: Array, *, xp: Namespace) -> Array:
    """The orders with the first one last."""
    return orders if orders.shape[-1] == 0 else xp.roll(orders, -1, axis=-2)
