"""Multiplicative updates where V is a grid of dask blocks: a task for each block and half-step, H through the client.

In a grid of one column a task makes both halves of the iteration, from one look at its block. Every few iterations the
client takes W, and sends it back as the beginning of a new chain of tasks. With the H that belongs to it, this is what
the run goes back to when workers are lost: a lost block of V is made again by dask, and the iterations since by the
solver.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.arrays import libraries, operators
from nmf_xp.data.grid import Grid, GridRows, Terms, add
from nmf_xp.divergences import block_divergence
from nmf_xp.problem import Factors
from nmf_xp.problem.optimality import Report, divergence_and_slopes, penalties, relative_slope, rows_gap
from nmf_xp.solvers.mu import MultiplicativeUpdate
from nmf_xp.solvers.solver import Solver
from nmf_xp.updates import mm_step, slopes

if TYPE_CHECKING:
    from collections.abc import Callable

    from nmf_xp.arrays.typing import Array, Namespace
    from nmf_xp.data import Data
    from nmf_xp.data.constraints import Constraints
    from nmf_xp.problem import Problem

KEPT = 10  # iterations after which the client takes W; as many are made again, at most, when workers are lost


@dataclasses.dataclass
class Kept:
    """Factors that no worker can take away; a checkpoint puts later ones in their place."""

    W: list[Array]  # for each row of the grid
    H: Array
    iteration: int


class State(NamedTuple):
    """W where V is and H here, with what they are made of again if need be."""

    W: GridRows
    H: Array
    iteration: int
    kept: Kept


class GridUpdate(Solver):
    """Settings: those of the multiplicative updates."""

    @property
    def update(self) -> MultiplicativeUpdate:
        """The same updates of blocks in memory."""
        return MultiplicativeUpdate(self.beta, self.floor, self.fixed_h)

    def init(self, problem: Problem, W: Array, H: Array, *, xp: Namespace) -> State:
        """The state at the start: W goes to where V is."""
        grid = _grid(problem)
        return grid.lasting(lambda: self._begun(grid, Kept(grid.rows_of(W), H, 0)))

    def step(self, state: State, problem: Problem, *, xp: Namespace) -> State:
        """One iteration."""
        return self._moved_on(state, problem, measured=False, xp=xp)[0]

    def measured_step(self, state: State, problem: Problem, *, xp: Namespace) -> tuple[State, Array]:
        """One iteration, and the objective before it."""
        return self._moved_on(state, problem, measured=True, xp=xp)

    def kept(self, state: State, problem: Problem, *, xp: Namespace) -> Factors:
        """W and H as arrays of the client."""
        grid = _grid(problem)

        def fetched(state: State, *_: Any, **__: Any) -> list[Array]:
            return grid.runner.finish([], state.W.unpack())[1]

        if state.kept.iteration != state.iteration:
            W = self._lasting(fetched, state, problem, xp=xp)
            state.kept.W, state.kept.H, state.kept.iteration = W, state.H, state.iteration
        return Factors(xp.concat(state.kept.W), state.H)

    def taken_up(self, kept: Factors, problem: Problem, *, xp: Namespace) -> State:
        """The state that these factors are."""
        return self.init(problem, *kept, xp=xp)

    def factors(self, state: State, problem: Problem, *, xp: Namespace) -> Factors:
        """W and H as arrays of the client."""
        return self.kept(state, problem, xp=xp)

    def report(self, factors: Factors, problem: Problem, *, xp: Namespace) -> Report:
        """What a look at V says of the factors."""
        grid, w, h = _grid(problem), problem.w, problem.h
        W, H = factors
        dtype = libraries.accumulator_dtype(xp, libraries.device(H))
        measure = {"alone": self.fixed_h, "dtype": dtype, "xp": xp}

        def slopes_everywhere() -> tuple[list[Any], dict[Any, tuple[Any, ...]], Array | float]:
            rows = grid.send_rows(grid.rows_of(W))
            columns, beside = self.columns(grid, rows, H, xp=xp)
            seen = grid.tasks(self.task(_all_slopes), rows, columns, self.beta, self.floor, self.fixed_h, xp)
            of_rows = grid.on_rows(_slopes_and_gap, rows, w, measure, along=seen)
            of_rows, sums = grid.finish(of_rows, grid.summed((seen, lambda j: {"divergence": 0, j: 2})))
            return grid.runner.finish([], of_rows)[1], sums, beside

        found, sums, beside = grid.lasting(slopes_everywhere)
        w_slopes, gap = xp.concat([slopes for slopes, _ in found]), sum(gap for _, gap in found)
        (divergence,) = sums["divergence"]
        value = divergence + penalties(problem, W, H, xp=xp) + beside
        if self.fixed_h:
            return Report(divergence, value, gap, w_slopes, H[:, :0])
        turned, Ht = h.transposed(xp=xp), operators.transposed(H)
        found = [
            _slopes_and_gap(Ht[a:b, :], turned.rows(a, b), measure, ((), sums[j]))
            for j, (a, b) in enumerate(grid.column_spans)
        ]
        ht_slopes, gap = xp.concat([slopes for slopes, _ in found]), gap + sum(gap for _, gap in found)
        return Report(divergence, value, gap, w_slopes, operators.transposed(ht_slopes))

    def handed_over(self, W: Array, problem: Problem, *, xp: Namespace) -> GridRows:
        """W where V is."""
        grid = _grid(problem)
        return grid.lasting(lambda: GridRows(grid, grid.send_rows(grid.rows_of(W)), W.shape[-1]))

    def columns(self, grid: Grid, rows: list[Any], H: Array, *, xp: Namespace) -> tuple[Any, Array | float]:
        """Handles of what tasks get of H, and what the objective has besides."""
        return grid.send_columns(H), 0.0

    def task(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A task of that function, for what it gets of H."""
        return function

    def settled(self, grid: Grid, rows: list[Any], H: Array, *, xp: Namespace) -> Array:
        """The new H in the scale that is agreed upon."""
        return H

    def _begun(self, grid: Grid, kept: Kept) -> State:
        rows = grid.send_rows(kept.W)
        return State(GridRows(grid, rows, kept.H.shape[0]), kept.H, kept.iteration, kept)

    def _lasting(self, act: Callable[..., Any], state: State, problem: Problem, **options: Any) -> Any:
        """An act on the state, again from what was kept as often as workers are lost during it."""
        return _grid(problem).lasting(
            lambda: act(state, problem, **options), self._restoring(state, problem, **options)
        )

    def _moved_on(self, state: State, problem: Problem, *, measured: bool, xp: Namespace) -> Any:
        """An iteration. Who looks at its W has it made again if need be."""
        after, objective = self._lasting(self._step, state, problem, measured=measured, xp=xp)
        after.W.restore = self._restoring(after, problem, xp=xp)
        return after, objective

    def _restoring(self, state: State, problem: Problem, *, xp: Namespace, **_: Any) -> Callable[[], None]:
        """What makes the handles of its W again, from what was kept; it does not hold W, which holds it."""
        handles, kept, iteration = state.W.handles, state.kept, state.iteration

        def restore() -> None:
            again = self._begun(_grid(problem), kept)
            for _ in range(iteration - kept.iteration):
                again, _ = self._step(again, problem, measured=False, keeping=False, xp=xp)
            handles[:] = again.W.handles  # lint: a list, of which the loop has the only copy

        return restore

    def _step(
        self, state: State, problem: Problem, *, measured: bool, keeping: bool = True, xp: Namespace
    ) -> tuple[State, Array | float]:
        grid, w, h = _grid(problem), problem.w, problem.h
        rows = state.W.handles
        columns, beside = self.columns(grid, rows, state.H, xp=xp)
        if len(grid.column_spans) == 1:
            both = grid.tasks(self.task(_both_halves), rows, columns, self.update, w, measured, xp)
            new = [row[0] for row in both]
            terms: list[Terms] = [(both, lambda _: {0: 1, "before": 2})]
        else:
            along = grid.tasks(self.task(_along), rows, columns, self.beta, measured, xp)
            new = grid.on_rows(_moved, rows, w, self.beta, self.floor, xp, along=along)
            terms = (
                []
                if self.fixed_h
                else [(grid.tasks(self.task(_down), new, columns, self.beta, xp), lambda j: {j: None})]
            )
            if measured:
                penalty = [[x] for x in grid.on_rows(_penalty, rows, w, xp)]
                terms = [*terms, (along, lambda _: {"before": 1}), (penalty, lambda _: {"before": None})]
        new, sums = grid.finish(new, grid.summed(*terms))
        objective: Array | float = 0.0
        if measured:
            dtype = libraries.accumulator_dtype(xp, libraries.device(state.H))
            objective = sums["before"][0] + h.penalty(state.H, axis=-2, dtype=dtype, xp=xp) + beside
        H = state.H if self.fixed_h else self.settled(grid, new, self._new_h(state.H, sums, grid, h, xp=xp), xp=xp)
        after = State(GridRows(grid, new, H.shape[0]), H, state.iteration + 1, state.kept)
        if keeping and grid.runner.loses and after.iteration % KEPT == 0:
            W = grid.runner.finish([], after.W.unpack())[1]
            after = self._begun(grid, Kept(W, H, after.iteration))
        return after, objective

    def _new_h(self, H: Array, sums: dict[Any, Any], grid: Grid, h: Constraints, *, xp: Namespace) -> Array:
        """The new H, column of the grid by column."""
        turned = h.transposed(xp=xp)
        blocks = [
            mm_step(operators.transposed(x), sums[j], turned.rows(*span), beta=self.beta, floor=self.floor, xp=xp)
            for j, (x, span) in enumerate(zip(grid.columns_of(H), grid.column_spans, strict=True))
        ]
        return operators.transposed(xp.concat(blocks))


def _grid(problem: Problem) -> Grid:
    data: Any = problem.data
    assert isinstance(data, Grid)
    return data


# The tasks: functions of one block, or of one block of W, that depend on nothing else.


def _both_halves(
    data: Data, W: Array, H: Array, update: MultiplicativeUpdate, w: Constraints, measured: bool, xp: Namespace
) -> tuple[Any, ...]:
    """New rows of W, their share of H's slopes, and their divergence before."""
    part = update.rows(data, W, H, _for_all(w, W, xp=xp), measured=measured, xp=xp)
    before = add(part.sums[:1], _penalty(W, w, xp)) if measured else ()
    return part.rows, part.sums[measured:], before


def _along(data: Data, W: Array, H: Array, beta: float, measured: bool, xp: Namespace) -> tuple[Any, ...]:
    """What the update of W needs of a block, and the divergence before."""
    return slopes(data, W, H, beta=beta, xp=xp), _divergence(data, W, H, beta, xp) if measured else ()


def _moved(W: Array, w: Constraints, beta: float, floor: float, xp: Namespace, *along: tuple[Any, ...]) -> Array:
    """New rows of W from what its blocks gave."""
    return mm_step(W, add(*(part[0] for part in along)), _for_all(w, W, xp=xp), beta=beta, floor=floor, xp=xp)


def _down(data: Data, W: Array, H: Array, beta: float, xp: Namespace) -> tuple[Array, Array]:
    """What the update of H needs of a block."""
    return slopes(data.T, operators.transposed(H), operators.transposed(W), beta=beta, xp=xp)


def _all_slopes(
    data: Data, W: Array, H: Array, beta: float, floor: float, fixed_h: bool, xp: Namespace
) -> tuple[Any, ...]:
    """The divergence, the slopes of W, and the slopes of H."""
    settings: Any = {"beta": beta, "floor": floor, "fixed_h": fixed_h, "xp": xp}
    divergence, along, down = divergence_and_slopes(data, W, H, **settings)
    return (divergence,), along, down


def _divergence(data: Data, W: Array, H: Array, beta: float, xp: Namespace) -> tuple[Array]:
    return (block_divergence(data, W, H, data.predict(W, H, xp=xp), beta=beta, xp=xp),)


def _slopes_and_gap(W: Array, w: Constraints, measure: dict[str, Any], *seen: tuple[Any, ...]) -> tuple[Array, Array]:
    """The relative slopes of some rows of W, and their gap."""
    parts, w = add(*(part[1] for part in seen)), _for_all(w, W, xp=measure["xp"])
    return relative_slope(W, parts, w, xp=measure["xp"]), rows_gap(W, parts, w, **measure)


def _penalty(W: Array, w: Constraints, xp: Namespace) -> tuple[Array | float]:
    return (w.penalty(W, dtype=libraries.accumulator_dtype(xp, libraries.device(W)), xp=xp),)


def _for_all(w: Constraints, W: Array, *, xp: Namespace) -> Constraints:
    """The constraints on each component, on all rows."""
    upper, lower = (None if x is None else xp.broadcast_to(x, W.shape) for x in (w.upper, w.lower))
    return w._replace(upper=upper, lower=lower)
