"""How NumPy runs fast: worker threads, with BLAS held to one thread each, and memory that is used again.

Without threadpoolctl, or where the user allows BLAS one thread, everything runs in the calling thread.
"""

from __future__ import annotations

import _thread
import collections
import contextlib
import contextvars
import functools
import itertools
import queue
import threading
import weakref
from typing import TYPE_CHECKING, Any, TypeVar

from nmf_xp.arrays import blas, libraries, precision

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")
R = TypeVar("R")


class GivenUp(Exception):  # noqa: N818
    """In a helping thread: the caller does not wait for the rest, because it was interrupted or met an error."""


class Call:
    """Items that several threads share."""

    def __init__(self, function: Callable[[Any], Any], items: list[Any]) -> None:
        self.waiting = collections.deque((i, functools.partial(function, item)) for i, item in enumerate(items))
        self.given_up = False
        self.ends: queue.SimpleQueue[tuple[int, Any, BaseException | None]] = queue.SimpleQueue()
        self._taking = threading.Lock()
        self._begun = 0

    def help_out(self) -> None:
        """Take items as long as there are any; for threads that no interrupt reaches."""
        while self._help_with_one():
            pass

    def _help_with_one(self) -> bool:
        with self._taking:
            if not self.waiting:
                return False
            i, work = self.waiting.popleft()
            self._begun += 1  # lint: a Python int
        end: tuple[int, Any, BaseException | None]
        try:
            end = i, work(), None
        except BaseException as error:  # it goes to the calling thread
            end = i, None, error
        del work  # the calling thread may let go of its arrays before this one wakes again
        self.ends.put(end)
        return True

    def begun_elsewhere(self) -> int:
        """How many items other threads have begun; none will begin another, and those asleep hold no array."""
        with self._taking:
            self.waiting.clear()
            return self._begun


_helping = threading.local()


def give_up_if_asked() -> None:
    """In a helping thread, end where nobody waits for the result; between iterations, which may be many."""
    call = getattr(_helping, "call", None)
    if call is not None and call.given_up:
        raise GivenUp


class Crew:
    """Threads that help the calling one.

    A `ThreadPoolExecutor` does the same in five times as many microseconds, which an iteration on a small matrix
    notices: its futures wake both sides through several locks.
    """

    def __init__(self, helpers: int) -> None:
        self._calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._helpers = helpers
        self._started = 0

    @property
    def count(self) -> int:
        """How many threads there are, with the calling one."""
        return self._helpers + 1

    def run(self, function: Callable[[T], R], items: list[T]) -> list[R]:
        """`function` of every item; the calling thread waits for what others have begun, not for those still asleep."""
        call, results = Call(function, items), dict[int, Any]()
        while self._started < self._helpers:  # a tiny problem never gets here
            self._started += 1  # lint: a Python int
            start_helper(functools.partial(_serve, self._calls))
        for _ in range(min(self._helpers, len(items) - 1)):
            self._calls.put(call)
        try:
            while call.waiting:
                try:
                    i, work = call.waiting.popleft()
                except IndexError:  # another thread was faster
                    break
                results[i] = work()
        except BaseException:
            call.given_up = True
            raise
        finally:
            ended = [call.ends.get() for _ in range(call.begun_elsewhere())]
        for i, result, error in ended:
            if error is not None:
                raise error
            results[i] = result
        return [results[i] for i in range(len(items))]

    def dismiss(self) -> None:
        """Let the threads end."""
        while self._started > 0:
            self._calls.put(None)
            self._started -= 1  # lint: a Python int


def _serve(calls: queue.SimpleQueue[Call | None]) -> None:
    """What a helper does; it does not hold on to its crew."""
    while (call := calls.get()) is not None:
        _helping.call = call
        call.help_out()
        _helping.call = call = None


def start_helper(work: Callable[[], None]) -> threading.Event:
    """A thread that works for the calling one, and has no helpers itself; what comes back is set at its end.

    It is none of `threading`: where such a one ends, Python code runs in which an interrupt is lost.
    """
    ended = threading.Event()

    def begin() -> None:
        import numpy as np

        blas.hold_here()
        np.seterr(**precision.QUIET)
        _current.set(_ALONE)
        try:
            work()
        finally:
            ended.set()

    _thread.start_new_thread(begin, ())
    return ended


class Team:
    """A hold on BLAS, and the crew that works in the place of its threads."""

    def __init__(self) -> None:
        self.hold = blas.Hold()
        self.crew: Crew | None = None

    def begin(self) -> None:
        """Hold BLAS."""
        self.hold.take()
        if self.hold.count > 1:
            self.crew = Crew(self.hold.count - 1)

    def end(self) -> None:
        """Let go."""
        self.hold.let_go()
        if self.crew is not None:
            self.crew.dismiss()


class _Alone:
    """In the place of a team, for what is itself one of several items."""

    crew = None


_ALONE = weakref.ref(_Alone)  # a class lives on
# Who works for the call. It is known by a weak reference: where an interrupt kept it from being put away, it is none.
_current: contextvars.ContextVar[Callable[[], Any] | None] = contextvars.ContextVar("_current", default=None)


def _team() -> Any:
    reference = _current.get()
    return None if reference is None else reference()


def _helped() -> Any:
    """The same where it has a crew."""
    team = _team()
    return None if team is None or team.crew is None else team


@contextlib.contextmanager
def held_blas() -> Iterator[None]:
    """Within it `run` has as many threads as BLAS had, and BLAS has one."""
    _keep_freed_memory()
    if _team() is not None:
        yield
        return
    team = Team()
    try:
        team.begin()
        token = _current.set(weakref.ref(team))
        try:
            yield
        finally:
            _current.reset(token)
    finally:
        try:
            team.end()
        finally:  # once more, where an interrupt arrived within it
            team.end()


@contextlib.contextmanager
def let_go() -> Iterator[None]:
    """Within `held_blas`, a while in which the user's own code runs, and finds BLAS as it was."""
    team = _team()
    if team is None or team is _Alone:
        yield
        return
    token = _current.set(None)
    try:
        team.hold.let_go()
        yield
    finally:
        _current.reset(token)
        team.hold.take()


def held_for(x: Any) -> contextlib.AbstractContextManager[None]:
    """`held_blas` where `x` is NumPy's."""
    return held_blas() if libraries.is_numpy(x) else contextlib.nullcontext()


def count() -> int:
    """How many threads `run` has; one within what it runs."""
    team = _helped()
    return 1 if team is None else team.crew.count


def shares(items: list[T]) -> list[list[T]]:
    """The items in as many runs of neighbours as there are threads."""
    parts = min(count(), len(items))
    bounds = [i * len(items) // parts for i in range(parts + 1)]
    return [items[a:b] for a, b in itertools.pairwise(bounds)]


def run(function: Callable[[T], R], items: list[T]) -> list[R]:
    """`function` of every item, in the calling thread and the others where there are several."""
    team = _helped()
    if team is None or len(items) == 1:
        return list(map(function, items))
    token = _current.set(_ALONE)
    try:
        return team.crew.run(function, items)
    finally:
        _current.reset(token)


SHARE = 2**20
"""Products of two numbers, at least, for a thread: fewer are made sooner than it wakes, above all on a busy machine."""


def bounds(m: int, *, products: int) -> list[int]:
    """Where ranges of m rows begin and end, one for each thread for which there is work."""
    parts = max(1, min(m, count(), products // SHARE))
    return [m * i // parts for i in range(parts + 1)]


def over_rows(m: int, work: Callable[[int, int], R], starts: Any = None, *, products: int) -> list[R]:
    """`work(start, stop)` on ranges of m rows, of about as many entries each; those of row i begin at `starts[i]`.

    There are as many threads as there is work for: `products` says how many products of two numbers all of it takes.
    What comes back is in the order of the rows, whichever thread made it.
    """
    if products < 2 * SHARE:
        return [work(0, m)] if m else []
    limits = bounds(m, products=products)
    if starts is not None and len(limits) > 2:
        import numpy as np

        parts = min(m, 4 * (len(limits) - 1))  # sparse rows differ
        targets = np.linspace(0, starts[-1], parts + 1)[1:-1]
        limits = [0, *np.searchsorted(starts, targets).clip(0, m).tolist(), m]
    ranges = [(a, b) for a, b in itertools.pairwise(limits) if a < b]
    return run(lambda rows: work(*rows), ranges)


@functools.cache
def _keep_freed_memory() -> None:
    """Let glibc keep the temporaries of an iteration for the next one.

    It returns freed memory above a threshold to the system, and reading it in again costs more than the arithmetic. The
    threshold follows the largest array that was freed: this one, which is never touched and so costs nothing.
    """
    import numpy as np

    np.empty(30 * 2**20, dtype=np.uint8)
