"""Batches of a dask array: what a task does with the table, and the sums from which the client makes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nmf_xp.arrays import libraries
from nmf_xp.data.grid import Grid, GridRows, add
from nmf_xp.data.tabled import Coded, Tabled, model_sums, sums_of_batches, sums_of_data

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from nmf_xp.arrays.typing import Array, Namespace
    from nmf_xp.problem.effects import Effects


class BatchedGrid(Grid):
    """A grid whose tasks know the batch of each row, and what V says of the effects."""

    def __init__(self, grid: Grid, effects: Effects) -> None:
        """Of a grid that is coded."""
        vars(self).update(vars(grid))
        self.effects = effects

    def sums(self, rows: list[Any], H: Array, *, xp: Namespace) -> Array:
        """The sums of WH, weighted as V's entries are, over the rows of each batch, for handles of W: (G, n)."""
        count = self.effects.batches
        if not self.weighted:  # no look at V
            handles = self.on_rows(_sums_of_rows, rows, count, xp, along=self.codes)
            (sums,) = add(*self.runner.finish([], handles)[1])
            return sums @ H
        tasks = self.tasks(_model_sums, rows, self.send_columns(H), count, xp)
        found = self.finish([], self.summed((tasks, lambda j: {j: None})))[1]
        return xp.concat([found[j][0] for j in range(len(self.column_spans))], axis=-1)

    def table(self, W: Any, H: Array, *, xp: Namespace) -> Array:
        """The best B for these factors: (G, n)."""

        def found() -> Array:
            rows = W.handles if isinstance(W, GridRows) else self.send_rows(self.rows_of(W))
            return self.effects.best(self.sums(rows, H, xp=xp), xp=xp)

        return self.lasting(found, getattr(W, "restore", None))


def what_v_says(grid: Grid, codes: np.ndarray[Any, Any], count: int, *, xp: Namespace) -> tuple[Array, Array]:
    """The sums over the rows of each batch of V and of its weights: (G, n) both."""
    grid.coded(codes)
    ones = xp.ones((1, grid.shape[1]), dtype=grid.values.dtype, device=libraries.device(grid.values))
    parts = grid.over_columns(_Looked(count, xp), ones)
    counts, weights = (xp.concat(x, axis=-1) for x in zip(*parts, strict=True))
    return counts, weights


class _Looked:
    """What a look at a block says of its batches."""

    def __init__(self, count: int, xp: Namespace) -> None:
        self.count, self.xp = count, xp

    def __call__(self, data: Coded, _: None, ones: Array) -> tuple[Array, Array]:
        xp = self.xp
        rows = xp.ones((data.shape[0], 1), dtype=ones.dtype, device=libraries.device(ones))
        counts = sums_of_data(data.base, data.codes, self.count, xp=xp)
        return counts, model_sums(data.base, data.codes, rows, ones, self.count, xp=xp)


class WithTable:
    """A task of a function on data with the table, whose columns come below those of H."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, data: Coded, W: Array, both: Array, *settings: Any) -> Any:
        """What the function returns."""
        r = W.shape[1]
        return self.function(Tabled(data.base, data.codes, both[r:, :]), W, both[:r, :], *settings)


def _sums_of_rows(W: Array, count: int, xp: Namespace, codes: Any) -> tuple[Array]:
    return (sums_of_batches(codes[:, 0], W, count, xp=xp),)


def _model_sums(data: Coded, W: Array, H: Array, count: int, xp: Namespace) -> tuple[Array]:
    return (model_sums(data.base, data.codes, W, H, count, xp=xp),)
