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
from typing import TYPE_CHECKING, Any, TypeVar

from nmf_xp import _compat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import ThreadPoolExecutor

T = TypeVar("T")
R = TypeVar("R")

_workers: contextvars.ContextVar[ThreadPoolExecutor | None] = contextvars.ContextVar("_workers", default=None)
_count: contextvars.ContextVar[int] = contextvars.ContextVar("_count", default=1)


@contextlib.contextmanager
def held_blas() -> Iterator[None]:
    """Within it `run` has as many threads as BLAS had, and BLAS has one."""
    _keep_freed_memory()
    controller = _controller()
    count = _blas_threads(controller)
    if count == 1 or _workers.get() is not None:
        yield
        return
    from concurrent.futures import ThreadPoolExecutor

    others = ThreadPoolExecutor(count - 1, initializer=_allow_overflow)  # the calling thread works too
    with controller.limit(limits=1, user_api="blas"), others as pool:
        tokens = _workers.set(pool), _count.set(count)
        try:
            yield
        finally:
            _workers.reset(tokens[0])
            _count.reset(tokens[1])


def held_for(x: Any) -> contextlib.AbstractContextManager[None]:
    """`held_blas` where `x` is NumPy's."""
    return held_blas() if _compat.is_numpy(x) else contextlib.nullcontext()


def count() -> int:
    """How many threads `run` has."""
    return _count.get()


def shares(items: list[T]) -> list[list[T]]:
    """The items in as many runs of neighbours as there are threads."""
    count = min(_count.get(), len(items))
    bounds = [i * len(items) // count for i in range(count + 1)]
    return [items[a:b] for a, b in itertools.pairwise(bounds)]


def run(function: Callable[[T], R], items: list[T]) -> list[R]:
    """`function` of every item, in the calling thread and the others where there are several."""
    pool = _workers.get()
    if pool is None or len(items) == 1:
        return list(map(function, items))
    waiting = collections.deque(enumerate(items))
    results: dict[int, R] = {}

    def work() -> None:
        while waiting:
            try:
                i, item = waiting.popleft()
            except IndexError:  # another thread was faster
                return
            results[i] = function(item)

    helpers = [pool.submit(work) for _ in range(min(_count.get(), len(items)) - 1)]
    try:
        work()
    finally:
        waiting.clear()
        for helper in helpers:
            if not helper.cancel():
                helper.result()
    return [results[i] for i in range(len(items))]


def over_rows(m: int, work: Callable[[int, int], None], starts: Any = None) -> None:
    """`work(start, stop)` on ranges of m rows, of about as many entries each; those of row i begin at `starts[i]`."""
    threads = _count.get()
    count = min(m, threads if starts is None or threads == 1 else 4 * threads)  # sparse rows differ
    bounds = [m * i // count for i in range(count + 1)]
    if starts is not None:
        import numpy as np

        targets = np.linspace(0, starts[-1], count + 1)[1:-1]
        bounds[1:-1] = np.searchsorted(starts, targets).clip(0, m).tolist()
    ranges = [(a, b) for a, b in itertools.pairwise(bounds) if a < b]
    run(lambda rows: work(*rows), ranges)


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
    libraries = [] if controller is None else controller.lib_controllers
    count = max((library.num_threads for library in libraries), default=1)
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(count, processors)
