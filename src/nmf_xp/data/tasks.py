"""Where the tasks on a dask array run: in this process by dask's own scheduler, or on a `distributed` cluster.

A handle stands for what a task will return.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nmf_xp.arrays import memory, threads
from nmf_xp.data.cluster import OnCluster

if TYPE_CHECKING:
    from collections.abc import Callable

    from nmf_xp.data.cluster import Handles

HERE = ""  # the one place of tasks in this process


class InProcess:
    """dask's scheduler of threads, or whichever the user has set; a handle is a value or a Delayed."""

    loses = False

    def __init__(self, *arrays: Any) -> None:
        """Keep the blocks of V and of its weights in memory, if they fit; else they are made again in every pass."""
        from dask.base import persist

        if 2 * sum(map(_bytes, arrays)) < memory.available():
            arrays = persist(*arrays)
        self.blocks: list[Handles] = [x.to_delayed().tolist() for x in arrays]
        self.places = [[HERE] * len(row) for row in self.blocks[0]]

    def add(self, array: Any) -> None:
        """One more array whose blocks tasks see beside V's."""
        self.blocks.append(array.to_delayed().tolist())

    def send(self, values: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """Handles of values at each place."""
        return values

    def submit(self, place: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """The handle of a function's result at a place."""
        from dask.delayed import delayed

        return delayed(function, pure=False, traverse=False)(*arguments)

    def map(self, places: list[str], function: Callable[..., Any], *columns: list[Any]) -> list[Any]:
        """The handles of a function's results, each at its place, for each item of the columns of arguments."""
        return [self.submit(HERE, function, *arguments) for arguments in zip(*columns, strict=True)]

    def finish(self, keep: list[Any], fetch: list[Any]) -> tuple[list[Any], list[Any]]:
        """Handles of finished tasks, and values."""
        from dask.base import compute

        with threads.held_blas():  # a task a thread
            values = list(compute(*keep, *fetch))
        return values[: len(keep)], values[len(keep) :]

    def recover(self) -> None:
        """There is nothing to lose here."""


def runner(*arrays: Any) -> InProcess | OnCluster:
    """The runner that dask itself would use for these arrays."""
    from dask.base import get_scheduler

    client = getattr(get_scheduler(collections=arrays), "__self__", None)
    return InProcess(*arrays) if client is None else OnCluster(client, *arrays)


def _bytes(x: Any) -> int:
    """The size of a dask array; of one with sparse blocks, which are all that is known of it, 0."""
    return 0 if hasattr(x._meta, "tocsr") else int(x.nbytes)
