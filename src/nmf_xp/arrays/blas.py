"""How many threads BLAS has: one owner in the process, since the number is one for all its threads.

Who computes with threads of its own holds BLAS to one. Several may hold it at a time, and each knows how many threads
the user allows, which it gets back when the last of them lets go. So the same call makes the same products to the last
bit, whatever runs beside it.

Ctrl-C may arrive between any two lines, also within a change. So what ends a hold may be done twice.
"""

from __future__ import annotations

import functools
import itertools
import os
import threading
from typing import Any, Final

from nmf_xp.arrays import groups

WITH_AVX_512: Final = {"SkylakeX", "Cooperlake", "SapphireRapids"}
"""What OpenBLAS calls its kernels for such processors."""


class Holders:
    """All holds of the process, by their numbers."""

    def __init__(self) -> None:
        self.changing = threading.RLock()  # a hold may end by garbage collection within a change
        self.allowed: list[tuple[Any, int]] = []  # BLAS libraries, and the threads that the user allows each
        self.holding: dict[int, int] = {}  # the thread of each hold

    def let_go(self, number: int) -> None:
        """End a hold."""
        with self.changing:
            self.holding.pop(number, None)
            if not self.holding and self.allowed:
                self.limit(None)
                self.allowed = []

    def limit(self, count: int | None) -> None:
        """Give BLAS so many threads; None for what the user allows."""
        for library, most in self.allowed:
            # threadpoolctl lets one Python thread change it. That is ours as long as somebody holds it: two threads of
            # BLAS in each of two of ours would wait for each other.
            take_over = getattr(library, "clear_controlling_thread", lambda **_: None)
            take_over(force=True)
            library.set_num_threads(most if count is None else min(count, most))
            if count is None:
                take_over(force=True)

    def after_fork(self) -> None:
        """Forget the holds of threads that the new process does not have."""
        here = threading.get_ident()
        self.changing = threading.RLock()
        gone = [number for number, thread in self.holding.items() if thread != here]
        for number in gone:
            self.let_go(number)


_holders = Holders()
_numbers = itertools.count()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _holders.after_fork())


class Hold:
    """One caller's hold on BLAS; `count` is how many threads it may have in BLAS's place."""

    def __init__(self) -> None:
        self._number = next(_numbers)
        self.count = 1

    def take(self) -> None:
        """Hold BLAS to one thread, where it has more."""
        controller = _controller()
        if controller is None:
            return
        with _holders.changing:
            if not _holders.allowed:
                counts = [(library, library.num_threads) for library in controller.lib_controllers]
                _holders.allowed = [(library, most) for library, most in counts if most]  # some builds do not tell
            most = max((most for _, most in _holders.allowed), default=1)
            if most > 1:
                self.count = min(most, processors())
                _holders.holding[self._number] = threading.get_ident()
                _holders.limit(1)
            elif not _holders.holding:
                _holders.allowed = []

    def let_go(self) -> None:
        """Give BLAS back; once more is no harm."""
        _holders.let_go(self._number)


def hold_here() -> None:
    """Hold BLAS to one thread in a new thread of a holder: with OpenMP each has a number of its own."""
    for library, _ in list(_holders.allowed):
        if getattr(library, "threading_layer", None) == "openmp":
            library.set_num_threads(1)


def processors() -> int:
    """How many processors this process may use: those that it may run on, or less where its time on them is limited."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(there, groups.processors() or there)


@functools.cache
def _controller() -> Any:
    try:
        import threadpoolctl
    except ImportError:
        return None
    return threadpoolctl.ThreadpoolController().select(user_api="blas")


@functools.cache
def turns_doubles() -> bool:
    """Whether a product with few rows takes less time than its transpose, in float64: so it is with AVX-512."""
    controller = _controller()
    libraries = [] if controller is None else controller.lib_controllers
    return any(getattr(library, "architecture", None) in WITH_AVX_512 for library in libraries)
