"""Devices, streams and memory as far as the order of what runs on them: nothing here computes.

Each thread has a current device, and on each device a current stream: device 0 and the null stream where it has chosen
nothing. Whatever is launched runs on the current stream of the current device, after what the thread has waited for,
what the stream has been told to wait for, and what was launched there before. That order is kept as one clock a stream,
and what could read memory before it is written, or write where something may still read, raises
`RaceError`: on a GPU the numbers would be wrong now and then.
"""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass, field
from typing import Any, NamedTuple

COUNT = 2
"""Devices. Neither can reach the other's memory."""

CAPACITY = 2**34
"""Bytes of each, of which the memory pool may have less."""

Key = tuple[int, int]  # a device and a stream on it
Clock = dict[Key, int]  # of each stream, how much has been done

lock = threading.RLock()


class RaceError(AssertionError):
    """Something would run beside what it has to run after."""


class CUDARuntimeError(RuntimeError):
    """As CuPy raises it, with the status in words."""


class Transfer(NamedTuple):
    """A copy of an array to a device."""

    key: Key  # the stream in which it is
    nbytes: int
    after: Clock  # what it waits for


@dataclass
class Counts:
    """What happened since `reset`."""

    waits: int = 0  # reads of a value, for which the host waits
    to_device: int = 0  # copies of an array, each staged in pinned memory
    to_host: int = 0
    launches: int = 0
    transfers: list[Transfer] = field(default_factory=list)

    def reset(self) -> None:
        """Count from zero."""
        self.__init__()  # type: ignore[misc]


counts = Counts()
failing: dict[int, str] = {}
"""What the driver says of a device that has failed, to whatever is asked of it."""


class _Current(threading.local):
    """What a thread has chosen, and what it knows to be done."""

    def __init__(self) -> None:
        self.device = 0
        self.before: list[int] = []  # `with Device` within `with Device`
        self.streams: dict[int, list[Stream]] = {}
        self.entered: list[int] = []  # the devices of `with stream`
        self.known: Clock = {}


current = _Current()
clocks: dict[Key, Clock] = {}
left: dict[Key, list[Clock]] = {}  # of freed memory, who on other streams may still be using it
used: dict[int, int] = {}
limits: dict[int, int] = {}
blocking: set[Key] = set()  # streams that wait for the null stream, and it for them


def merge(clock: Clock, other: Clock) -> None:
    """What is done by either."""
    for key, tick in other.items():
        clock[key] = max(clock.get(key, 0), tick)


def check_device(number: int) -> None:
    """Refuse a device that is not there, or not any more."""
    if not 0 <= number < COUNT:
        msg = "cudaErrorInvalidDevice: invalid device ordinal"
        raise CUDARuntimeError(msg)
    if number in failing:
        raise CUDARuntimeError(failing[number])


def launch() -> Key:
    """The stream on which something is launched now, with its clock one later."""
    check_device(current.device)
    stream = get_current_stream()
    key = stream.key
    with lock:
        counts.launches += 1
        clock = clocks.setdefault(key, {})
        merge(clock, current.known)
        null = (key[0], 0)
        others = [other for other in blocking if other[0] == key[0]] if key == null else [null] * (key in blocking)
        for other in others:
            merge(clock, clocks.get(other, {}))
        clock[key] = clock.get(key, 0) + 1
    return key


def read_host(key: Key) -> None:
    """The host waits until a stream is done."""
    counts.waits += 1
    with lock:
        merge(current.known, clocks.get(key, {}))


class OutOfMemoryError(MemoryError):
    """As CuPy words it."""


class Memory:
    """A piece of a device's memory, from the pool of the stream on which it is allocated."""

    def __init__(self, nbytes: int) -> None:
        self.size = 0  # until it is had
        self.written: Clock = {}
        self.read: Clock = {}
        check_device(current.device)
        self.device = current.device
        self.owner = get_current_stream().key
        with lock:
            total, limit = used.get(self.device, 0), limits.get(self.device, CAPACITY)
            if total + nbytes > limit:
                about = f"(allocated so far: {total:,} bytes, limit set to: {limit:,} bytes)"
                msg = f"Out of memory allocating {nbytes:,} bytes {about}."
                raise OutOfMemoryError(msg)
            self.size = nbytes
            used[self.device] = total + nbytes
            for clock in left.pop(self.owner, []):
                _check(clock, clocks.setdefault(self.owner, {}), "memory is used again while another stream reads it")

    def reads(self, key: Key) -> None:
        """Something on a stream reads this."""
        with lock:
            _check(self.written, clocks[key], "memory is read before it is written on another stream")
            self.read[key] = clocks[key][key]

    def writes(self, key: Key) -> None:
        """Something on a stream writes this."""
        with lock:
            _check(self.written, clocks[key], "memory is written by two streams at once")
            _check(self.read, clocks[key], "memory is written while another stream reads it")
            self.written = {key: clocks[key][key]}

    def __del__(self) -> None:
        if not self.size:
            return
        with lock:
            used[self.device] -= self.size
            users = {key: tick for key, tick in (self.read | self.written).items() if key != self.owner}
            if users:
                left.setdefault(self.owner, []).append(users)


def _check(before: Clock, now: Clock, message: str) -> None:
    for key, tick in before.items():
        if now.get(key, 0) < tick:
            msg = f"{message} (stream {key[1]} of device {key[0]})"
            raise RaceError(msg)


class Device:
    """Compared by its number, and without a hash."""

    def __init__(self, device: Any = None) -> None:
        self.id = current.device if device is None else int(device)

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and self.id == other.id

    def __int__(self) -> int:
        return self.id

    def __repr__(self) -> str:
        return f"<CUDA Device {self.id}>"

    def __enter__(self) -> Device:
        current.before.append(current.device)
        check_device(self.id)
        current.device = self.id
        return self

    def __exit__(self, *_: object) -> None:
        current.device = current.before.pop()

    def use(self) -> Device:
        """Make it the thread's."""
        check_device(self.id)
        current.device = self.id
        return self

    def synchronize(self) -> None:
        """Wait for all of its streams."""
        check_device(self.id)
        counts.waits += 1
        with lock:
            for key in [key for key in clocks if key[0] == self.id]:
                merge(current.known, clocks[key])

    @property
    def mem_info(self) -> tuple[int, int]:
        """Bytes that are free, and all of them."""
        check_device(self.id)
        limit = limits.get(self.id, CAPACITY)
        return limit - used.get(self.id, 0), limit


class Event:
    """A point on a stream."""

    def __init__(self, block: bool = False, disable_timing: bool = False, interprocess: bool = False) -> None:
        self.clock: Clock = {}
        self.key: Key = (current.device, 0)

    def record(self, stream: Stream | None = None) -> None:
        """The point where a stream, or the current one, is now."""
        self.key = (stream or get_current_stream()).key
        with lock:
            self.clock = dict(clocks.get(self.key, {}))

    def synchronize(self) -> None:
        """Wait for it."""
        counts.waits += 1
        with lock:
            merge(current.known, self.clock)


class Stream:
    """A queue of a device: whatever is in it runs in order, beside what is in others."""

    null: Stream
    _numbers = itertools.count(1)

    def __init__(self, null: bool = False, non_blocking: bool = False, ptds: bool = False) -> None:
        self.ptr = 0 if null else next(self._numbers)
        self.device_id = -1 if null else Device().id
        if not null and not non_blocking:
            blocking.add(self.key)

    @property
    def key(self) -> Key:
        """Where its clock is; the null stream is one of the current device."""
        return (current.device if self.device_id == -1 else self.device_id), self.ptr

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and self.ptr == other.ptr

    def __hash__(self) -> int:
        return self.ptr

    def _chosen(self) -> list[Stream]:
        if self.device_id not in (-1, current.device):
            about = f"({self.device_id}) does not match with the current device ({current.device})"
            msg = f"The device that the stream is created on {about}"
            raise RuntimeError(msg)
        return current.streams.setdefault(current.device, [Stream.null])

    def __enter__(self) -> Stream:
        self._chosen().append(self)
        current.entered.append(current.device)
        return self

    def __exit__(self, *_: object) -> None:
        current.streams[current.entered.pop()].pop()

    def use(self) -> Stream:
        """Make it the thread's on its device."""
        self._chosen()[-1] = self
        return self

    def record(self, event: Event | None = None) -> Event:
        """An event where the stream is now."""
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        """What comes later runs after the event."""
        with lock:
            merge(clocks.setdefault(self.key, {}), event.clock)

    def synchronize(self) -> None:
        """Wait for all that is in it."""
        read_host(self.key)


Stream.null = Stream(null=True)


def get_current_stream(device_id: int = -1) -> Stream:
    """The thread's stream on a device, or on the current one."""
    return current.streams.get(current.device if device_id == -1 else device_id, [Stream.null])[-1]


freed: list[int] = []


class MemoryPool:
    """The pool of the current device, as far as its limits."""

    def set_limit(self, size: int | None = None, fraction: float | None = None) -> None:
        """At most so many bytes; none of them 0."""
        assert fraction is None
        limits[current.device] = size or CAPACITY

    def get_limit(self) -> int:
        """At most so many bytes."""
        return limits.get(current.device, CAPACITY)

    def used_bytes(self) -> int:
        """What is in use."""
        return used.get(current.device, 0)

    def total_bytes(self) -> int:
        """What is in use: freed memory goes back at once."""
        return self.used_bytes()

    def free_all_blocks(self, stream: Stream | None = None) -> None:
        """Those of the current device; nothing is kept here."""
        freed.append(current.device)


def restore() -> None:
    """Count from zero, with every device there, all of its memory, and nothing chosen by the calling thread."""
    counts.reset()
    freed.clear()
    failing.clear()
    limits.clear()
    left.clear()
    current.__init__()  # type: ignore[misc]
