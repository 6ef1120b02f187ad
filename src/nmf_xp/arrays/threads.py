"""How NumPy runs fast: worker threads, with BLAS held to one thread each, and memory that is used again.

Without threadpoolctl, or where the user allows BLAS one thread, everything runs in the calling thread.
"""

from __future__ import annotations

import collections
import contextlib
import contextvars
import functools
import itertools
import os
import queue
import threading
from typing import TYPE_CHECKING, Any, TypeVar

from nmf_xp.arrays import libraries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")
R = TypeVar("R")


class Crew:
    """Threads that help the calling one.

    A `ThreadPoolExecutor` does the same in five times as many microseconds, which an iteration on a small matrix
    notices: its futures wake both sides through several locks.
    """

    def __init__(self, helpers: int) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._helpers = helpers
        self._started = False

    def _serve(self) -> None:
        _allow_overflow()
        while (call := self._calls.get()) is not None:
            call()

    @property
    def count(self) -> int:
        """How many threads there are, with the calling one."""
        return self._helpers + 1

    def run(self, function: Callable[[T], R], items: list[T]) -> list[R]:
        """`function` of every item; the calling thread waits for what others have begun, not for those still asleep."""
        waiting = collections.deque(enumerate(items))
        ends: queue.SimpleQueue[tuple[int, Any, BaseException | None]] = queue.SimpleQueue()
        results: dict[int, Any] = {}

        def taken() -> Iterator[tuple[int, T]]:
            while True:
                try:
                    yield waiting.popleft()
                except IndexError:  # another thread was faster
                    return

        def help_out() -> None:
            for i, item in taken():
                try:
                    ends.put((i, function(item), None))
                except BaseException as error:  # it goes to the calling thread
                    ends.put((i, None, error))

        if not self._started:  # a tiny problem never gets here
            self._started = True
            for _ in range(self._helpers):
                threading.Thread(target=self._serve, daemon=True).start()
        for _ in range(min(self._helpers, len(items) - 1)):
            self._calls.put(help_out)
        begun_elsewhere = len(items)
        try:
            for i, item in taken():
                begun_elsewhere -= 1
                results[i] = function(item)
        finally:
            begun_elsewhere -= len(list(taken()))  # what is left after an error is dropped
            ended = [ends.get() for _ in range(begun_elsewhere)]
        for i, result, error in ended:
            if error is not None:
                raise error
            results[i] = result
        return [results[i] for i in range(len(items))]

    def dismiss(self) -> None:
        """Let the threads end."""
        for _ in range(self._helpers):
            self._calls.put(None)


_crew: contextvars.ContextVar[Crew | None] = contextvars.ContextVar("_crew", default=None)


@contextlib.contextmanager
def held_blas() -> Iterator[None]:
    """Within it `run` has as many threads as BLAS had, and BLAS has one."""
    _keep_freed_memory()
    controller = _controller()
    count = _blas_threads(controller)
    if count == 1 or _crew.get() is not None:
        yield
        return
    crew = Crew(count - 1)
    with controller.limit(limits=1, user_api="blas"):
        token = _crew.set(crew)
        try:
            yield
        finally:
            _crew.reset(token)
            crew.dismiss()


@contextlib.contextmanager
def free_blas() -> Iterator[None]:
    """Within `held_blas`, a while in which BLAS has its threads."""
    crew = _crew.get()
    if crew is None:
        yield
        return
    loaded = _controller().lib_controllers
    for library in loaded:
        library.set_num_threads(crew.count)
    try:
        yield
    finally:
        for library in loaded:
            library.set_num_threads(1)


def held_for(x: Any) -> contextlib.AbstractContextManager[None]:
    """`held_blas` where `x` is NumPy's."""
    return held_blas() if libraries.is_numpy(x) else contextlib.nullcontext()


def count() -> int:
    """How many threads `run` has; one within what it runs."""
    crew = _crew.get()
    return 1 if crew is None else crew.count


def shares(items: list[T]) -> list[list[T]]:
    """The items in as many runs of neighbours as there are threads."""
    parts = min(count(), len(items))
    bounds = [i * len(items) // parts for i in range(parts + 1)]
    return [items[a:b] for a, b in itertools.pairwise(bounds)]


def run(function: Callable[[T], R], items: list[T]) -> list[R]:
    """`function` of every item, in the calling thread and the others where there are several."""
    crew = _crew.get()
    if crew is None or len(items) == 1:
        return list(map(function, items))
    token = _crew.set(None)
    try:
        return crew.run(function, items)
    finally:
        _crew.reset(token)


def over_rows(m: int, work: Callable[[int, int], R], starts: Any = None) -> list[R]:
    """`work(start, stop)` on ranges of m rows, of about as many entries each; those of row i begin at `starts[i]`.

    What comes back is in the order of the rows, whichever thread made it.
    """
    threads = count()
    parts = min(m, threads if starts is None or threads == 1 else 4 * threads)  # sparse rows differ
    bounds = [m * i // parts for i in range(parts + 1)]
    if starts is not None:
        import numpy as np

        targets = np.linspace(0, starts[-1], parts + 1)[1:-1]
        bounds[1:-1] = np.searchsorted(starts, targets).clip(0, m).tolist()
    ranges = [(a, b) for a, b in itertools.pairwise(bounds) if a < b]
    return run(lambda rows: work(*rows), ranges)


def _allow_overflow() -> None:
    import numpy as np

    np.seterr(over="ignore")


@functools.cache
def _keep_freed_memory() -> None:
    """Let glibc keep the temporaries of an iteration for the next one.

    It returns freed memory above a threshold to the system, and reading it in again costs more than the arithmetic. The
    threshold follows the largest array that was freed: this one, which is never touched and so costs nothing.
    """
    import numpy as np

    np.empty(30 * 2**20, dtype=np.uint8)


@functools.cache
def _controller() -> Any:
    try:
        import threadpoolctl
    except ImportError:
        return None
    return threadpoolctl.ThreadpoolController().select(user_api="blas")


def _blas_threads(controller: Any) -> int:
    """How many threads BLAS may use now: the user's own limit, within the processors of this process."""
    loaded = [] if controller is None else controller.lib_controllers
    count = max((library.num_threads for library in loaded), default=1)
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(count, processors)
