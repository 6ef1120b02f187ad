"""scikit-learn's coordinate descent for the Frobenius loss: one sweep an iteration over the components of each factor.

It visits the components in their order or in given ones, lets entries be exactly zero, and can end by scikit-learn's
rule: the violation of the optimality conditions, seen by each coordinate when it is visited and summed over an
iteration, has fallen to `violation_tol` times that of the first iteration (Cichocki & Phan 2009; Hsieh & Dhillon 2011).
With weights, which scikit-learn does not have, it is seen at the start of a sweep.
Where the rule holds, the factors stay as they are; the loop learns of it at its next check.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.arrays import kernels, libraries, operators, threads, transfer
from nmf_xp.data import Dense, Sparse
from nmf_xp.data.blocks import Part, sweep
from nmf_xp.problem.balance import component_scale
from nmf_xp.problem.small import is_small, penalties_of
from nmf_xp.solvers.calls import in_calls
from nmf_xp.solvers.coordinate import least_squares_gram, least_squares_sweeps
from nmf_xp.solvers.mu import products, rest_of_quadratic
from nmf_xp.solvers.solver import Solver
from nmf_xp.solvers.weighted import weighted_sweeps, with_close_bound
from nmf_xp.updates import slopes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

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

    def steps(self, state: State, problem: Problem, n: int, *, xp: Namespace) -> State:
        """`n` iterations, by a kernel where there is one."""
        found = self._steps(state, problem, n, xp=xp)
        return super().steps(state, problem, n, xp=xp) if found is None else found[0]

    def stacks(self, W: Array, problem: Problem) -> bool:
        """Whether NumPy runs a stack of small matrices faster than one after the other."""
        return self._small(W, problem) is not None

    def _small(self, W: Array, problem: Problem) -> Callable[..., Any] | None:
        kernel = kernels.find("cyclic_iterations", problem.data.values, W) if is_small(W, problem) else None
        if kernel is None:
            return None
        settings: Any = {"penalties": penalties_of(problem), "floor": self.floor, "fixed_h": self.fixed_h}
        return functools.partial(kernel, **settings, violation_tol=self.violation_tol)

    def measured_steps(self, state: State, problem: Problem, n: int, *, xp: Namespace) -> tuple[State, float | None]:
        """The same, and where it comes with them the rest of the divergence beside sum(V^2) / 2."""
        found = None if self.fixed_h else self._steps(state, problem, n, xp=xp)
        if found is None or found[1] is None:
            return self.steps(state, problem, n, xp=xp) if found is None else found[0], None
        return found[0], rest_of_quadratic(found[0].H, *found[1], xp=xp)

    def _steps(
        self, state: State, problem: Problem, n: int, *, xp: Namespace
    ) -> tuple[State, tuple[Array, Array] | None] | None:
        """The same, up to the iteration in which the rule holds: nothing changes after it.

        With it comes what the last half-iteration took from V, and W's Gram matrix. None where there is no kernel.
        """
        import numpy as np

        if (kernel := self._small(state.W, problem)) is not None:
            return self._steps_of_small(state, problem, n, kernel, xp=xp)
        sweep = None if state.W.ndim > 2 else _kernel(state, problem)
        if sweep is None:
            return None
        W, Ht, table = state.W, operators.transposed(state.H), _table(state)
        count, first, ended = (transfer.scalar(x) for x in (state.iterations, state.first, state.ended))
        left, right = self._half_by(problem.data, problem.w, sweep, xp), None
        if not self.fixed_h:
            right = self._half_by(problem.data.T, problem.h, sweep, xp)
        quadratic: Any = None
        at, done = 0, 0
        while done < n and not ended:
            threads.give_up_if_asked()
            W, violation, quadratic = left(W, Ht, table[at % len(table)], quadratic if self.fixed_h else None)
            if right is not None:
                Ht, more, quadratic = right(Ht, W, table[(at + 1) % len(table)], None)
                violation += more  # lint: a Python float
            done, at = done + 1, at + self._halves
            if self.violation_tol is None:
                continue
            count += 1  # lint: a Python int
            first = violation if count == 1 else first
            ended = count if violation <= self.violation_tol * first else 0
        found = None if quadratic is None else (quadratic[0], quadratic[2])
        numbers = (np.asarray(float(x), dtype=np.float64) for x in (first, count + (n - done), ended))
        return self._after(state, W, operators.transposed(Ht), numbers, n, xp=xp), found

    def _steps_of_small(
        self, state: State, problem: Problem, n: int, kernel: Callable[..., Any], *, xp: Namespace
    ) -> tuple[State, tuple[Array, Array] | None]:
        """The same in few calls of a kernel."""
        import numpy as np

        numbers: Any = np.stack(list(map(np.asarray, (state.first, state.iterations, state.ended))), axis=-1)
        table = _table(state)
        W, H, done = state.W, state.H, 0
        found: Any = None
        for count in in_calls(n, W, problem):
            if numbers[..., 2].all():  # the rest is not computed
                numbers[..., 1] += n - done  # lint: made here
                break
            orders = np.roll(table, -done * self._halves, axis=0) if done else table
            W, H, *found = kernel(problem.data.values, W, H, numbers, orders, n=count)
            done += count  # lint: a Python int
        return self._after(state, W, H, (numbers[..., i] for i in range(3)), n, xp=xp), found

    @property
    def _halves(self) -> int:
        return 1 if self.fixed_h else 2

    def _after(self, state: State, W: Array, H: Array, numbers: Iterable[Array], n: int, *, xp: Namespace) -> State:
        """The state after `n` iterations with these factors."""
        orders = state.orders
        if orders.shape[-1] and n * self._halves % orders.shape[-2]:
            orders = xp.roll(orders, -n * self._halves, axis=-2)
        state = state._replace(W=W, H=H, orders=orders)
        return state if self.violation_tol is None else State(*state[:3], *numbers)

    def _half_by(
        self, data: Data, terms: Constraints, kernel: Callable[..., tuple[Array, float]], xp: Namespace
    ) -> Callable[..., tuple[Array, float, Any]]:
        """A half-iteration. V H^T, the curvature and H H^T are given, or it makes them and gives them back."""
        l1, floor = terms.penalties[0], self.floor

        def half(W: Array, Ht: Array, order: Array, quadratic: Any) -> tuple[Array, float, Any]:
            if quadratic is None:
                product, gram = products(data, Ht, xp=xp)
                quadratic = product, terms.add_curvature(gram, xp=xp), gram
            return *kernel(W, *quadratic[:2], order, l1, floor), quadratic

        return half

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

        def rows(block: Data, W: Array, constraints: Constraints) -> Part:
            product, model = slopes(block, W, H, beta=2.0, xp=xp)
            slope = constraints.add_slope(model - product, W, xp=xp)
            if order is None:
                return self._sweep(W, slope, gram, constraints, xp=xp)
            W, slope = xp.take(W, order, axis=-1), xp.take(slope, order, axis=-1)
            new, sums = self._sweep(W, slope, gram, constraints.columns(order, xp=xp), xp=xp)
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

    def _sweep(self, W: Array, slope: Array, gram: Array, constraints: Constraints, *, xp: Namespace) -> Part:
        move = slope
        if constraints.l1 is not None:  # it would end for good a component whose other factor is zero
            identity = xp.eye(gram.shape[-1], dtype=gram.dtype, device=libraries.device(gram))
            move = xp.where(xp.sum(gram * identity, axis=-2, keepdims=True) > 0, slope, 0.0)
        new = least_squares_sweeps(W, move, gram, constraints, floor=self.floor, sweeps=1, xp=xp)
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


def _kernel(state: State, problem: Problem) -> Callable[..., tuple[Array, float]] | None:
    """What makes a sweep of one matrix, without bounds and with penalties that all know."""
    data, terms = problem.data, (problem.w, problem.h)
    if not isinstance(data, Dense | Sparse) or any(x.bounded or x.others for x in terms):
        return None
    arrays = data.values, state.W, state.H
    return kernels.find("cyclic_sweep", *arrays) or kernels.find("small_cyclic_sweep", *arrays)


def _table(state: State) -> Any:
    """The order of each half-iteration to come, (t, r): all members of a stack have the same."""
    import numpy as np

    orders, r = np.asarray(state.orders), state.W.shape[-1]
    if orders.shape[-1] == 0:
        return np.arange(r, dtype=np.int32)[None, :]
    return np.ascontiguousarray(orders.reshape(-1, *orders.shape[-2:])[0])


def _rolled(orders: Array, *, xp: Namespace) -> Array:
    """The orders with the first one last."""
    return orders if orders.shape[-1] == 0 else xp.roll(orders, -1, axis=-2)
