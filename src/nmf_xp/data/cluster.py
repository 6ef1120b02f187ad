"""Tasks on the workers of a `distributed` cluster, any of which may be lost, full, or of another version.

Every task is bound to the worker that holds its block of V, so that V never moves; what moves are the factors' blocks
and their sums.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import re
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from nmf_xp.data.versions import unlike, versions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Handles = list[list[Any]]  # one for each block of the grid
POLL = 1.0  # seconds between two looks at whether the workers are still there


class WorkersLostError(RuntimeError):
    """Workers have left the cluster, with results that are needed."""

    def __str__(self) -> str:
        return "a worker of the dask cluster has left with results that are needed; call again"


class _CannotBeMadeError(WorkersLostError):
    """The cluster has forgotten them, and how they are made."""


class OnCluster:
    """The workers of a `distributed` client; a handle is a Future.

    Nothing is asked of the cluster before the first `recover`.
    """

    loses = True

    def __init__(self, client: Any, *arrays: Any) -> None:
        """The cluster is to hold the blocks of V and of its weights, where it makes them."""
        self._client = client
        self._arrays = arrays
        self._held: list[Any] = []
        self._complete = False  # whether all arrays are among them
        self._alike: set[str] = set()  # addresses of those that were asked for their versions
        self.blocks: list[Handles] = []
        self.places: list[list[str]] = []

    def add(self, array: Any) -> None:
        """One more array whose blocks tasks see beside V's, from the next `recover` on."""
        self._arrays, self._complete = (*self._arrays, array), False

    def send(self, values: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """Handles of values at each place."""
        if values.keys() - self.workers():
            raise WorkersLostError
        return {place: self._scattered(place, list(items)) for place, items in values.items()}

    def submit(self, place: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """The handle of a function's result at a place."""
        with self._losses():
            return self._client.submit(_bound(function), *arguments, workers=[place], pure=False)

    def map(self, places: list[str], function: Callable[..., Any], *columns: list[Any]) -> list[Any]:
        """The handles of a function's results, each at its place, for each item of the columns of arguments.

        The tasks of a place are sent together, which takes the scheduler half the time.
        """
        task = _bound(function)
        with self._losses():
            made = {
                place: iter(self._client.map(task, *zip(*rows, strict=True), workers=[place], pure=False))
                for place, rows in grouped(list(zip(*columns, strict=True)), places).items()
            }
        return [next(made[place]) for place in places]

    def finish(self, keep: list[Any], fetch: list[Any]) -> tuple[list[Any], list[Any]]:
        """Handles of finished tasks, and values."""
        self._wait([*keep, *fetch])
        with self._losses():
            return keep, self._client.gather(fetch)

    def recover(self) -> None:
        """Wait until all blocks of V are somewhere, and say where."""
        self._reach_scheduler()
        self._check_versions(self.workers())
        blocks = self._all_held()
        with self._losses():
            holders = self._client.who_has(blocks)
        self.places = [[min(holders[block.key], default="") for block in row] for row in self.blocks[0]]
        if not all(place for row in self.places for place in row):
            raise WorkersLostError
        self._check_versions({place for row in self.places for place in row})

    def workers(self) -> set[str]:
        """Addresses of the workers that the scheduler knows."""
        with self._losses():
            return set(self._client.nthreads())

    def _scattered(self, place: str, items: list[Any]) -> list[Any]:
        """The same at one place, where a paused worker takes nothing."""
        since, before = time.monotonic(), None
        while True:
            with self._losses(KeyError):  # of a worker that has gone since
                try:
                    handles: list[Any] = self._client.scatter(items, workers=[place], hash=False)
                except TimeoutError:
                    pass
                else:
                    return handles
            if place not in self.workers():
                raise WorkersLostError
            if time.monotonic() - since > _patience():
                since, before = time.monotonic(), self._check_paused([place], before)
                if before.get(place, ("",))[0] != "paused":
                    raise WorkersLostError
            time.sleep(POLL / 10)

    def _all_held(self) -> list[Any]:
        """All blocks, once they are there: a cluster that forgot them makes them anew, from what V was made of."""
        for anew in (not self._complete, True):
            with contextlib.suppress(_CannotBeMadeError):
                if anew:
                    self._hold()
                blocks = [block for grid in self.blocks for row in grid for block in row]
                self._wait(blocks, bound=False)
                return blocks
            self._reach_scheduler()
        msg = (
            "`V` is on a dask cluster that lost blocks of it, and cannot make them again; "
            "give an array that is read from files, or computed, and not scattered"
        )
        raise RuntimeError(msg)

    def _hold(self) -> None:
        from distributed import CancelledError, futures_of

        given = futures_of(self._arrays)
        if any(future.status in ("cancelled", "lost") for future in given):
            raise _CannotBeMadeError
        if any(future.client is not self._client for future in given):
            msg = (
                "`V` is on a dask cluster of another client than the current one; "
                "call inside of `with client.as_current():`, where `client` is its own"
            )
            raise RuntimeError(msg)
        try:
            with self._losses():
                self._held = self._client.persist(list(self._arrays))
        except WorkersLostError as error:
            raise _CannotBeMadeError if isinstance(error.__cause__, CancelledError) else error from None
        self.blocks = []
        for x in self._held:
            futures = {future.key: future for future in futures_of(x)}
            self.blocks.append([[futures[key] for key in row] for row in x.__dask_keys__()])
        self._complete = True

    def _wait(self, futures: list[Any], *, bound: bool = True) -> None:
        """Until all are there, or those are gone that were to make them."""
        bound_to = {place for row in self.places for place in row} if bound else set()
        empty_since, still_since, finished, before = None, time.monotonic(), 0, None
        while not self._all_there(futures, bound=bound):
            workers, now = self.workers(), time.monotonic()
            if bound_to - workers:
                raise WorkersLostError
            empty_since = None if workers else empty_since or now
            if empty_since is not None and now - empty_since > _patience():
                msg = "`V` is on a dask cluster that has no worker left; start workers, and call again"
                raise RuntimeError(msg)
            count = sum(future.status == "finished" for future in futures)
            if count != finished:
                still_since, finished, before = now, count, None
            elif workers and now - still_since > _patience():
                still_since, before = now, self._check_paused(bound_to or workers, before)

    def _all_there(self, futures: list[Any], *, bound: bool) -> bool:
        """Whether all are finished, after some time; the error of a task is raised as it is."""
        from distributed import CancelledError, KilledWorker, wait

        with self._losses():
            try:
                with self._client.as_current():
                    wait(futures, timeout=POLL)
            except TimeoutError:
                return False
            except CancelledError:
                raise _CannotBeMadeError from None
        for future in futures:
            if future.status == "error":
                mistake = future.exception()
                if not isinstance(mistake, KilledWorker):
                    raise mistake
                if bound:
                    raise WorkersLostError
                msg = (
                    "`V` is on a dask cluster whose workers died while they made one block of it, at last "
                    f"{mistake.last_worker.address}; give them more memory, or V smaller chunks"
                )
                raise RuntimeError(msg)
            if future.status == "cancelled":
                raise _CannotBeMadeError
        return all(future.status == "finished" for future in futures)  # some may be lost since, and made again

    def _check_paused(self, workers: Iterable[str], before: dict[str, Any] | None) -> dict[str, Any]:
        """How these workers stand, refused where one is paused and nothing has moved since they were asked before."""
        found: dict[str, Any] = self._asked(_standing, workers)
        paused = sorted(address for address, (status, *_) in found.items() if status == "paused")
        if paused and found == before and not any(executing for _, executing, _ in found.values()):
            msg = (
                f"`V` is on a dask cluster whose worker {paused[0]} is paused at its memory limit, and nothing goes "
                "on; give it more memory, or have more workers"
            )
            raise RuntimeError(msg)
        return found

    def _check_versions(self, workers: set[str]) -> None:
        """Refuse workers that would compute other numbers, and a scheduler that could not read the tasks."""
        if not self._alike:
            self._check_scheduler()
        for address, theirs in self._asked(versions, workers - self._alike).items():
            if not isinstance(theirs, dict):  # it has no nmf_xp, or one that cannot say this
                theirs = _release(theirs, self._asked(importlib.metadata.version, [address], "nmf_xp").get(address))
            _check_alike(f"worker {address}", theirs, versions())
            self._alike.add(address)

    def _check_scheduler(self) -> None:
        with self._losses():
            address = self._client.scheduler.address
            theirs = self._of_scheduler(versions)
            if not isinstance(theirs, dict):
                theirs = _release(theirs, self._of_scheduler(importlib.metadata.version, "nmf_xp"))
        ours = {name: versions()[name] for name in ("release", "source")}  # it computes nothing
        _check_alike(f"scheduler {address}", theirs, ours)

    def _of_scheduler(self, question: Callable[..., Any], *arguments: Any) -> Any:
        """What the scheduler answers, or its error."""
        try:
            return self._client.run_on_scheduler(question, *arguments)
        except OSError:
            raise
        except Exception as error:
            return error

    def _asked(self, question: Callable[..., Any], workers: Iterable[str], *arguments: Any) -> dict[str, Any]:
        """What each of these workers answers; nothing of one that cannot be reached."""
        workers = list(workers)
        with self._losses():
            answers = self._client.run(question, *arguments, workers=workers, on_error="return") if workers else {}
        return {address: answer for address, answer in answers.items() if not isinstance(answer, OSError)}

    def _reach_scheduler(self) -> None:
        """Give the client time to find its scheduler again."""
        patience = time.monotonic() + _patience()
        while self._client.status == "connecting" and time.monotonic() < patience:
            time.sleep(POLL / 10)
        if self._client.status != "running":
            msg = (
                "`V` is on a dask cluster whose scheduler is gone, or whose client was closed; "
                "connect a client to a cluster, and call again"
            )
            raise RuntimeError(msg)

    @contextlib.contextmanager
    def _losses(self, *others: type[Exception]) -> Iterator[None]:
        """What distributed raises where workers are lost, and all that it raises without a connection, as one error."""
        from distributed import CancelledError

        lost: tuple[Any, ...] = (CancelledError, OSError, *others)
        try:
            yield
        except WorkersLostError:
            raise
        except Exception as error:
            if isinstance(error, lost) or self._client.status != "running":
                raise WorkersLostError from error
            raise


def _bound(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function for workers that are as this process; another may have come to the address of one that died."""
    return functools.partial(_where_alike, versions(), function)


def _where_alike(expected: dict[str, str], function: Callable[..., Any], *arguments: Any) -> Any:
    if versions() != expected:
        from distributed import get_worker

        _check_alike(f"worker {get_worker().address}", versions(), expected)
    return function(*arguments)


def _release(mistake: Any, installed: Any) -> dict[str, str]:
    """All that is known of a process that could not say its versions, by its error and by what is installed there."""
    if re.search(r"No module named \\?'nmf_xp\\?'", str(mistake)):
        return {"release": "no nmf_xp"}
    return {"release": f"nmf_xp {installed}" if isinstance(installed, str) else "another nmf_xp"}


def _check_alike(who: str, theirs: dict[str, str], ours: dict[str, str]) -> None:
    """Refuse other versions."""
    differing = unlike(theirs, ours)
    if differing is not None:
        msg = (
            f"`V` is on a dask cluster whose {who} has {differing[0]}, and this process {differing[1]}; "
            "make them alike, and restart it"
        )
        raise RuntimeError(msg)


def _standing(dask_worker: Any) -> tuple[str, int, Any]:
    """Whether a worker is paused, how many tasks it executes, and what it has spilled."""
    spilled = getattr(dask_worker.data, "spilled_total", None)
    return dask_worker.status.name, dask_worker.state.executing_count, spilled


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
