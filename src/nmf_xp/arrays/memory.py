"""How much memory this process may still take: what the machine has free, and the limits that were set for it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from nmf_xp.arrays import groups

UNKNOWN = 2**30  # where the system does not say
ROOM = 1.25  # memory that a run takes, in sizes of V


def available() -> int:
    """Bytes that this process may still allocate, as far as the system says."""
    return max(0, min(filter(None, (_of_the_machine(), groups.memory(), *_of_the_process())), default=UNKNOWN))


def bytes_of(dtype: Any) -> int:
    """Bytes of a number of V in the dtype in which it is factorized, for a NumPy dtype."""
    return max(4, int(dtype.itemsize)) if dtype.kind == "f" else 8


def _of_the_machine() -> int | None:
    free = _table("/proc/meminfo").get("MemAvailable")
    if free is None and "SC_AVPHYS_PAGES" in getattr(os, "sysconf_names", {}):
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return free


def _of_the_process() -> list[int | None]:
    """What the resource limits leave of the address space and of the memory that can be written to."""
    try:
        import resource
    except ImportError:  # not on Windows
        return []
    used = _table("/proc/self/status")
    left: list[int | None] = []
    for limit, name in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
        bytes_ = resource.getrlimit(limit)[0]
        if bytes_ != resource.RLIM_INFINITY:
            left.append(max(1, bytes_ - used.get(name, 0)))
    return left


def _table(path: str) -> dict[str, int]:
    """The sizes in a table of /proc, in bytes; none where there is no /proc."""
    sizes: dict[str, int] = {}
    with contextlib.suppress(OSError):
        for line in Path(path).read_text(encoding="utf-8").splitlines():
            name, _, rest = line.partition(":")
            if rest.endswith("kB"):
                sizes[name] = int(rest.split()[0]) * 1024
    return sizes
