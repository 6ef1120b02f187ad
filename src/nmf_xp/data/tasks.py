"""Where the tasks on a dask array run: in this process by dask's own scheduler, or on a `distributed` cluster.

A handle stands for what a task will return. On a cluster every task is bound to the worker that holds its block of V,
so that V never moves; what moves are the factors' blocks and their sums.
"""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from nmf_xp.arrays import memory, threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Handles = list[list[Any]]  # one for each block of the grid
HERE = ""  # the one place of tasks in this process
POLL = 1.0  # seconds between two looks at whether the workers are still there


class WorkersLostError(Exception):
    """Workers have left the cluster, with results that are needed."""

    def __str__(self) -> str:
        return "a worker of the dask cluster has left with results that are needed; call again"


class _CannotBeMadeError(WorkersLostError):
    """dask cannot make them again."""


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


class OnCluster:
    """The workers of a `distributed` client; a handle is a Future."""

    loses = True

    def __init__(self, client: Any, *arrays: Any) -> None:
        """Have the cluster hold the blocks of V and of its weights, where it makes them, and again if it loses them."""
        from distributed import futures_of

        self._client = client
        self._held = client.persist(list(arrays))
        self.blocks = []
        for x in self._held:
            futures = {future.key: future for future in futures_of(x)}
            self.blocks.append([[futures[key] for key in row] for row in x.__dask_keys__()])
        self.places: list[list[str]] = []
        self.recover()

    def send(self, values: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """Handles of values at each place."""
        if values.keys() - self.workers():
            raise WorkersLostError
        with _losses(KeyError):  # of a worker that has gone since
            return {
                place: self._client.scatter(list(items), workers=[place], hash=False) for place, items in values.items()
            }

    def submit(self, place: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """The handle of a function's result at a place."""
        with _losses():
            return self._client.submit(function, *arguments, workers=[place], pure=False)

    def map(self, places: list[str], function: Callable[..., Any], *columns: list[Any]) -> list[Any]:
        """The handles of a function's results, each at its place, for each item of the columns of arguments.

        The tasks of a place are sent together, which takes the scheduler half the time.
        """
        with _losses():
            made = {
                place: iter(self._client.map(function, *zip(*rows, strict=True), workers=[place], pure=False))
                for place, rows in grouped(list(zip(*columns, strict=True)), places).items()
            }
        return [next(made[place]) for place in places]

    def finish(self, keep: list[Any], fetch: list[Any]) -> tuple[list[Any], list[Any]]:
        """Handles of finished tasks, and values."""
        self._wait([*keep, *fetch])
        with _losses():
            return keep, self._client.gather(fetch)

    def recover(self) -> None:
        """Wait until all blocks of V are somewhere, and say where."""
        self._reach_scheduler()
        blocks = [block for grid in self.blocks for row in grid for block in row]
        try:
            self._wait(blocks, bound=False)
        except _CannotBeMadeError:
            self._reach_scheduler()
            msg = (
                "`V` is on a dask cluster that lost blocks of it, and cannot make them again; "
                "give an array that is read from files, or computed, and not scattered"
            )
            raise RuntimeError(msg) from None
        with _losses():
            holders = self._client.who_has(blocks)
        self.places = [[min(holders[block.key], default="") for block in row] for row in self.blocks[0]]
        if not all(place for row in self.places for place in row):
            raise WorkersLostError

    def _wait(self, futures: list[Any], *, bound: bool = True) -> None:
        """Until all are there, or those are gone that were to make them."""
        bound_to = {place for row in self.places for place in row} if bound else set()
        empty_since = None
        while not self._all_there(futures):
            workers = self.workers()
            if bound_to - workers:
                raise WorkersLostError
            empty_since = None if workers else empty_since or time.monotonic()
            if empty_since is not None and time.monotonic() - empty_since > _patience():
                msg = "`V` is on a dask cluster that has no worker left; start workers, and call again"
                raise RuntimeError(msg)

    def _all_there(self, futures: list[Any]) -> bool:
        """Whether all are finished, after some time; the error of a task is raised as it is."""
        from distributed import CancelledError, KilledWorker, wait

        try:
            wait(futures, timeout=POLL)
        except TimeoutError:
            return False
        except CancelledError:
            raise _CannotBeMadeError from None
        except OSError:
            raise WorkersLostError from None
        for future in futures:
            if future.status == "error":
                mistake = future.exception()
                raise WorkersLostError if isinstance(mistake, KilledWorker) else mistake
            if future.status == "cancelled":
                raise _CannotBeMadeError
        return all(future.status == "finished" for future in futures)  # some may be lost since, and made again

    def workers(self) -> set[str]:
        """Addresses of the workers that the scheduler knows."""
        with _losses():
            return set(self._client.nthreads())

    def _reach_scheduler(self) -> None:
        """Give the client time to find its scheduler again."""
        patience = time.monotonic() + _patience()
        while self._client.status == "connecting" and time.monotonic() < patience:
            time.sleep(POLL / 10)
        if self._client.status != "running":
            msg = "`V` is on a dask cluster whose scheduler is gone; start a cluster, and call again"
            raise RuntimeError(msg)


@contextlib.contextmanager
def _losses(*others: type[Exception]) -> Iterator[None]:
    """What distributed raises where workers are lost, as one error."""
    from distributed import CancelledError

    lost: tuple[Any, ...] = (CancelledError, OSError, *others)
    try:
        yield
    except lost as error:
        raise WorkersLostError from error


def runner(*arrays: Any) -> InProcess | OnCluster:
    """The runner that dask itself would use for these arrays."""
    from dask.base import get_scheduler

    client = getattr(get_scheduler(collections=arrays), "__self__", None)
    return InProcess(*arrays) if client is None else OnCluster(client, *arrays)


def _bytes(x: Any) -> int:
    """The size of a dask array; of one with sparse blocks, which are all that is known of it, 0."""
    return 0 if hasattr(x._meta, "tocsr") else int(x.nbytes)


def _patience() -> float:
    """Seconds to wait for a first worker: dask's own patience with a connection."""
    from dask import config
    from dask.utils import parse_timedelta

    return float(parse_timedelta(config.get("distributed.comm.timeouts.connect", 30)))


def grouped(handles: list[Any], places: list[str]) -> dict[str, list[Any]]:
    """Handles by place."""
    groups: dict[str, list[Any]] = defaultdict(list)
    for handle, place in zip(handles, places, strict=True):
        groups[place].append(handle)
    return groups
