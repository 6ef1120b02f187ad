"""Batches where V is a grid of dask blocks: the table is made by the client, and goes to the tasks with H."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nmf_xp.arrays import operators
from nmf_xp.problem.batched_grid import BatchedGrid, WithTable
from nmf_xp.solvers.grid import GridUpdate

if TYPE_CHECKING:
    from collections.abc import Callable

    from nmf_xp.arrays.typing import Array, Namespace
    from nmf_xp.data.grid import Grid


class BatchedGridUpdate(GridUpdate):
    """An iteration with the best table for its start."""

    @property
    def convex(self) -> bool:
        """Never: what the best table leaves is concave."""
        return False

    def columns(self, grid: Grid, rows: list[Any], H: Array, *, xp: Namespace) -> tuple[Any, Array | float]:
        """H with the table below it, and what the prior adds to the objective."""
        data = _batched(grid)
        table = data.effects.best(data.sums(rows, H, xp=xp), xp=xp)
        beside = data.effects.penalty(table, xp=xp) if data.effects.scale_matters else 0.0
        return grid.send_columns(xp.concat([H, table])), beside

    def task(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same on data with the table."""
        return WithTable(function)

    def settled(self, grid: Grid, rows: list[Any], H: Array, *, xp: Namespace) -> Array:
        """The best scale of H's columns, where a prior makes it a part of the loss."""
        data = _batched(grid)
        if not data.effects.scale_matters:
            return H
        return operators.at_least(H * data.effects.scale(data.sums(rows, H, xp=xp), xp=xp), self.floor, xp=xp)


def _batched(grid: Any) -> BatchedGrid:
    assert isinstance(grid, BatchedGrid)
    return grid
