"""What the control groups of Linux leave to this process: containers and services have a share of the machine.

A limit holds for its group and for all groups within, so those of all groups around this process are asked.
"""

from __future__ import annotations

import contextlib
import functools
import math
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


@functools.cache
def processors() -> int | None:
    """How many processors the time that this process may have is worth, of a part of one too; None without a limit."""
    shares = [quota / period for quota, period in _quotas() if quota > 0 and period > 0]
    return max(1, math.ceil(min(shares))) if shares else None


def memory() -> int | None:
    """Bytes that are left; files that are cached do not count. None without a limit."""
    return min((max(1, limit - used + cached) for limit, used, cached in _memories()), default=None)


def _quotas() -> Iterator[tuple[float, float]]:
    """Of each group with a limit, microseconds of processors in so many microseconds."""
    for group in _around(""):
        with contextlib.suppress(OSError, ValueError):  # "max" is no number
            quota, period = (group / "cpu.max").read_text().split()
            yield float(quota), float(period)
    for group in _around("cpu"):
        with contextlib.suppress(OSError, ValueError):
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
            yield float(quota), float(period)


def _memories() -> Iterator[tuple[int, int, int]]:
    """Of each group with a limit, that, what is used, and what of that are cached files."""
    for group in _around(""):
        with contextlib.suppress(OSError, ValueError, KeyError):
            limit, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
            yield limit, used, _counted(group, "file")
    for group in _around("memory"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            limit, used = (int((group / f"memory.{name}_in_bytes").read_text()) for name in ("limit", "usage"))
            if limit < 2**62:  # which says that there is none
                yield limit, used, _counted(group, "total_cache")


def _counted(group: Path, name: str) -> int:
    return int(dict(line.split() for line in (group / "memory.stat").read_text().splitlines())[name])


def _around(controller: str) -> Iterator[Path]:
    """The folders of this process's group and of those around it: of a controller by itself, or of all in one tree."""
    base = ROOT / controller
    yield base  # a container sees its own group here
    with contextlib.suppress(OSError):
        for line in OWN.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controller in controllers.split(","):
                inner = base / path.strip("/")
                while inner != base and base in inner.parents:
                    yield inner
                    inner = inner.parent
