"""The order of work on a GPU, where a thread makes arrays that another one uses.

CuPy launches on the thread's current device and stream, torch on the device of the arrays and the thread's stream. A
thread that begins has the first device and the null stream, whatever the one that started it had chosen.
"""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from nmf_xp.arrays import libraries

if TYPE_CHECKING:
    from collections.abc import Callable


T = TypeVar("T")


class Made(NamedTuple):
    """What a thread has made, and the point on its stream at which that is done."""

    item: Any
    done: Any


class Lane:
    """How a thread makes arrays while the calling thread uses earlier ones; on a CPU there is no order to keep.

    On a GPU it is a stream of its own, so that copies run beside the computation. The calling thread's stream waits for
    each item where it is taken, and the memory of an item is used again when that stream has come to the item's end.
    """

    def free(self) -> list[tuple[Any, Any]]:
        """Items that were given back, and when their memory is free; for the calling thread."""
        return []

    def make(self, function: Callable[[], T], free: list[tuple[Any, Any]]) -> Made:
        """Call the function; for the thread that makes."""
        return Made(function(), None)

    def take(self, made: Made) -> Any:
        """What was made; for the calling thread."""
        return made.item

    def give_back(self, item: Any) -> None:
        """All that uses the item has been launched; for the calling thread."""

    def close(self) -> None:
        """Nothing more is made; for the calling thread."""


class StreamLane(Lane):
    """The same on a GPU, in the terms in which CuPy and torch agree."""

    def __init__(self, ours: Any, theirs: Any, aside: Callable[[], Any], record: Callable[[Any], Any]) -> None:
        """Streams of the calling thread and of the other, what makes the latter current, and what marks a point."""
        self._ours, self._theirs, self._aside, self._record = ours, theirs, aside, record
        self._used: list[tuple[Any, Any]] = []
        theirs.wait_event(record(ours))  # of what is there already

    def free(self) -> list[tuple[Any, Any]]:
        """Not items that are given back later: what is made next need not wait for the one in use."""
        free, self._used = self._used, []
        return free

    def make(self, function: Callable[[], T], free: list[tuple[Any, Any]]) -> Made:
        """Call the function on the other stream, which first waits for what used the items that are free."""
        with self._aside():
            while free:
                self._theirs.wait_event(free.pop()[0])
            return Made(function(), self._record(self._theirs))

    def take(self, made: Made) -> Any:
        """What was made, which the calling thread's stream waits for, not the thread."""
        self._ours.wait_event(made.done)
        return made.item

    def give_back(self, item: Any) -> None:
        """Keep the item until the other stream waits for what is launched by now."""
        self._used.append((self._record(self._ours), item))

    def close(self) -> None:
        """Let the other stream wait for all of it, so that a later use of it finds the memory free."""
        self._theirs.wait_event(self._record(self._ours))
        self._used.clear()


def lane(like: Any) -> Lane:
    """A lane for arrays where this one is; made by the thread that will use them."""
    if libraries.is_cupy(like):
        cuda: Any = sys.modules["cupy"].cuda
        device = like.device
        with device:
            theirs = _second_stream("cupy", device.id, lambda: cuda.Stream(non_blocking=True))

        @contextlib.contextmanager
        def aside() -> Any:
            with device, theirs:
                yield

        return StreamLane(cuda.get_current_stream(device.id), theirs, aside, lambda stream: stream.record())
    if libraries.is_torch(like) and like.device.type == "cuda":
        cuda = sys.modules["torch"].cuda
        theirs = _second_stream("torch", like.device.index, lambda: cuda.Stream(like.device))
        ours = cuda.current_stream(like.device)
        return StreamLane(ours, theirs, lambda: cuda.stream(theirs), lambda stream: stream.record_event())
    return Lane()


_streams: dict[tuple[str, int], Any] = {}


def _second_stream(library: str, device: int, make: Callable[[], Any]) -> Any:
    """One a device: a library keeps the memory of every stream that it has seen."""
    if (library, device) not in _streams:
        _streams[library, device] = make()
    return _streams[library, device]
