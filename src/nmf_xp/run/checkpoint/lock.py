"""A lock on an open file that ends with the process which holds it, also by kill -9.

It is the operating system's. Where a file system knows none, as some network ones do, there is no lock.
"""

from __future__ import annotations

import errno
import os
import sys

TAKEN = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK}
_held: set[int] = set()


def locked(descriptor: int) -> bool:
    """Lock an open file, without waiting; False where another process or thread holds it."""
    try:
        _lock(descriptor)
    except OSError as error:
        return error.errno not in TAKEN
    _held.add(descriptor)
    return True


def released(descriptor: int) -> None:
    """Close an open file, which also unlocks it."""
    _held.discard(descriptor)
    os.close(descriptor)


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        os.lseek(descriptor, 2**30, os.SEEK_SET)  # beyond the text, which others may read
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _let_go() -> None:
        """In a forked child, which would hold the lock longer than its parent lives."""
        for descriptor in _held:
            os.close(descriptor)
        _held.clear()

    os.register_at_fork(after_in_child=_let_go)
