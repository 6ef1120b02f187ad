"""Multiplicative updates (Lee & Seung 2001; Fevotte & Idier 2011): W, then H with the new W."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from nmf_xp.arrays import kernels, libraries, operators, threads
from nmf_xp.data import Dense, Sparse
from nmf_xp.data.blocks import Part, matmul, sweep
from nmf_xp.data.tabled import Tabled
from nmf_xp.divergences import block_divergence
from nmf_xp.problem import Factors
from nmf_xp.problem.optimality import penalties
from nmf_xp.problem.small import MOST_COMPONENTS, is_small, penalties_of
from nmf_xp.solvers.calls import in_calls
from nmf_xp.solvers.solver import Solver
from nmf_xp.updates import mm_step, multiplicative_w, slopes

if TYPE_CHECKING:
    from collections.abc import Callable

    from nmf_xp.arrays.typing import Array, Namespace
    from nmf_xp.data import Data
    from nmf_xp.data.constraints import Constraints
    from nmf_xp.problem import Problem


FIRST = 3  # iterations by which other algorithms begin


class MultiplicativeUpdate(Solver):
    """The multiplicative updates."""

    def stacks(self, W: Array, problem: Problem) -> bool:
        """Whether NumPy runs a stack of small matrices faster than one after the other."""
        return True

    def init(self, problem: Problem, W: Array, H: Array, *, xp: Namespace) -> Factors:
        """The state at the start; W and H respect the floor."""
        return Factors(W, H)

    def step(self, state: Factors, problem: Problem, *, xp: Namespace) -> Factors:
        """One iteration, in one pass over the data."""
        return self._pass(state, problem, measured=False, xp=xp)[0]

    def measured_step(self, state: Factors, problem: Problem, *, xp: Namespace) -> tuple[Factors, Array]:
        """One iteration and the objective before it, in the same pass."""
        new, divergence = self._pass(state, problem, measured=True, xp=xp)
        return new, divergence[0] + penalties(problem, *state, xp=xp)

    def rows(self, data: Data, W: Array, H: Array, w: Constraints, *, measured: bool, xp: Namespace) -> Part:
        """New rows of W, and sums over them: the divergence before, if it is `measured`, and the slopes of H."""
        Ht = operators.transposed(H)
        settings: Any = {"beta": self.beta, "xp": xp}

        def half(block: Data, W: Array, constraints: Constraints) -> Part:
            before: tuple[Array, ...] = ()
            if measured:
                before = (block_divergence(block, W, H, block.predict(W, H, xp=xp), **settings),)
            kernel = self._kernel(block, W, H, constraints)
            sums: tuple[Array, ...] = ()
            if kernel is not None:
                denominator = constraints.add_push(block.model_slope(W, H, None, **settings), W, xp=xp)
                W, numerator = kernel(W, H, denominator, floor=self.floor, alone=self.fixed_h)
                if not self.fixed_h:
                    sums = numerator, block.T.model_slope(Ht, operators.transposed(W), None, **settings)
                return Part(W, (*before, *sums))
            W = multiplicative_w(block, W, H, constraints, floor=self.floor, **settings)
            if not self.fixed_h:
                sums = slopes(block.T, Ht, operators.transposed(W), **settings)
            return Part(W, (*before, *sums))

        if not measured and self._kernel(data, W, H, w) is not None:  # without blocks: it makes nothing of their size
            return half(data, W, w)
        return sweep(half, data, W, w, xp=xp)

    def _kernel(self, data: Data, W: Array, H: Array, w: Constraints) -> Callable[..., tuple[Array, ...]] | None:
        """What makes an iteration but for the update of H, without an array of V's size; None where nothing does."""
        base: Any = data.base if type(data) is Tabled else data  # a table changes the denominators only
        if self.beta != 1 or W.ndim > 2 or w.bounded or w.curved:
            return None
        if type(base) is Sparse and base.along.others is not None:
            return _of_stored_entries(base, W, H)
        if type(base) is not Dense or W.shape[-1] > MOST_COMPONENTS:
            return None
        kernel = kernels.find("kl_half_iteration", base.values, W, H)
        return kernel and functools.partial(kernel, base.values)

    def _pass(
        self, state: Factors, problem: Problem, *, measured: bool, xp: Namespace
    ) -> tuple[Factors, tuple[Array, ...]]:
        W, sums = self.rows(problem.data, state.W, state.H, problem.w, measured=measured, xp=xp)
        before, sums = sums[:measured], sums[measured:]
        if self.fixed_h:
            return Factors(W, state.H), before
        turned = problem.h.transposed(xp=xp)
        Ht = mm_step(operators.transposed(state.H), sums, turned, beta=self.beta, floor=self.floor, xp=xp)
        return Factors(W, operators.transposed(Ht)), before

    def steps(self, state: Factors, problem: Problem, n: int, *, xp: Namespace) -> Factors:
        """`n` iterations: those of small NumPy matrices, one or a stack, in a kernel."""
        if self.beta == 1 and is_small(state.W, problem) and problem.w.free and problem.h.free:
            kernel = kernels.find("kl_iterations", problem.data.values, *state)
            if kernel is not None:
                settings: Any = {"floor": self.floor, "alone": self.fixed_h}
                for count in in_calls(n, state.W, problem):
                    state = Factors(*kernel(problem.data.values, *state, **settings, n=count))
                return state
        found = self._frobenius(state, problem, n, xp=xp)
        return super().steps(state, problem, n, xp=xp) if found is None else found[0]

    def measured_steps(
        self, state: Factors, problem: Problem, n: int, *, xp: Namespace
    ) -> tuple[Factors, float | None]:
        """The same, and where it comes with them the rest of the divergence beside sum(V^2) / 2."""
        found = None if self.fixed_h else self._frobenius(state, problem, n, xp=xp)
        if found is None:
            return self.steps(state, problem, n, xp=xp), None
        state, (product, gram) = found
        return state, rest_of_quadratic(state.H, product, gram, xp=xp)

    def _frobenius(
        self, state: Factors, problem: Problem, n: int, *, xp: Namespace
    ) -> tuple[Factors, tuple[Array, Array]] | None:
        """The iterations for the Frobenius loss, and what the last half took from V, with W's Gram matrix.

        None where there is no kernel for them.
        """
        data, factors = problem.data, Factors(state.W, state.H)
        if self.beta != 2 or not isinstance(data, Dense | Sparse):
            return None
        found: Any = None
        if is_small(state.W, problem) and (kernel := kernels.find("frobenius_iterations", data.values, *factors)):
            settings: Any = {"penalties": penalties_of(problem), "floor": self.floor, "fixed_h": self.fixed_h}
            for count in in_calls(n, state.W, problem):
                W, H, *found = kernel(data.values, *factors, **settings, n=count)
                factors = Factors(W, H)
            return factors, found
        if state.W.ndim > 2 or not (problem.w.simple and problem.h.simple):
            return None
        kernel = kernels.find("frobenius_rows", data.values, *factors)
        if kernel is None:
            return None
        W, Ht = state.W, operators.transposed(state.H)

        def half(W: Array, found: tuple[Array, Array], terms: Constraints) -> Array:
            return kernel(W, found[0], terms.add_curvature(found[1], xp=xp), terms.penalties[0], self.floor)

        for _ in range(n):
            threads.give_up_if_asked()
            if found is None or not self.fixed_h:
                found = products(data, Ht, xp=xp)
            W = half(W, found, problem.w)
            if not self.fixed_h:
                found = products(data.T, W, xp=xp)
                Ht = half(Ht, found, problem.h)
        return Factors(W, operators.transposed(Ht)), found


def _of_stored_entries(data: Sparse, W: Array, H: Array) -> Callable[..., tuple[Array, ...]] | None:
    """The same for a sparse V: row by row, and where both orders are known what H takes column by column."""
    xp = libraries.array_namespace(W)

    def of(name: str, data: Sparse) -> Callable[..., tuple[Array, ...]] | None:
        kernel = kernels.find(name, data.values, W, H)
        return kernel and functools.partial(kernel, data.row_values(xp=xp), data.along.starts, data.along.others)

    rows = of("kl_half_iteration_sparse", data)
    columns = None if data.across.others is None else of("kl_slopes_sparse", data.T)
    if rows is None or columns is None:
        return rows

    def half(W: Array, H: Array, denominator: Array, *, floor: float, alone: bool) -> tuple[Array, ...]:
        new: Any = rows(W, H, denominator, floor=floor, alone=True)[0]
        numerator: Any = None if alone else columns(operators.transposed(H), operators.transposed(new), least=0.0)[0]
        return new, numerator

    return half


def products(data: Data, Ht: Array, *, xp: Namespace) -> tuple[Array, Array]:
    """V H^T and H H^T: all that W's part of the Frobenius loss takes from V and H."""
    H = operators.transposed(Ht)
    return matmul(data, H, xp=xp), H @ Ht


def half_square(data: Data, *, xp: Namespace) -> float:
    """sum(V^2) / 2."""
    values: Any = data.values
    return 0.5 * float(xp.sum(values * values, dtype=xp.float64))


def rest_of_quadratic(H: Array, product: Array, gram: Array, *, xp: Namespace) -> float:
    """The Frobenius loss but for sum(V^2) / 2, from V^T W, (n, r), and W^T W."""
    dtype = libraries.accumulator_dtype(xp, libraries.device(H))
    square = xp.sum((H @ operators.transposed(H)) * gram, dtype=dtype)
    return float(0.5 * square - xp.sum(operators.transposed(H) * product, dtype=dtype))


def multiplied(
    problem: Problem,
    W: Array,
    H: Array,
    *,
    beta: float,
    floor: float,
    fixed_h: bool = False,
    count: int = FIRST,
    xp: Namespace,
) -> Factors:
    """The factors after a few iterations, by which other algorithms begin: a model is then near the data."""
    update, start = MultiplicativeUpdate(beta, floor, fixed_h), Factors(W, H)
    if libraries.is_traced(W):  # three in a row would take JAX three times as long to compile
        found: Factors = operators.repeated(functools.partial(update.step, problem=problem, xp=xp), start, count)
        return found
    return update.steps(start, problem, count, xp=xp)
