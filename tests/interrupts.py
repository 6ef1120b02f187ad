"""Ctrl-C at random moments: it is answered soon, and leaves the state of the process as it was.

    python -m tests.interrupts --count 10000 [--only KIND]

Each kind of run is begun again and again, and interrupted after a random time. Counted are answers that took longer
than a second, and what was left behind: BLAS with other threads, NumPy with other error handling, threads that go on.
"""

from __future__ import annotations

import _thread
import argparse
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse

from nmf_xp import RowBlocks, nmf, select_rank, transform
from nmf_xp.arrays import blas

if TYPE_CHECKING:
    from collections.abc import Callable

LATEST = 1.0
"""Seconds after which an answer is late."""


def kinds(iterations: int = 10**7) -> dict[str, Callable[[], Any]]:
    """A call of each kind, by its name, of so many iterations: far more than there are until it is interrupted."""
    rng = np.random.default_rng(0)
    V, large, stack = rng.random((60, 40)), rng.random((1500, 400)), rng.random((24, 20, 15))
    blocks = RowBlocks([large[i : i + 100] for i in range(0, 1500, 100)])
    H = rng.random((5, 40))
    thin = scipy.sparse.csr_array(np.where(rng.random((400, 300)) < 0.1, 1.0, 0.0))
    endless: dict[str, Any] = {"random_state": 0, "max_iter": iterations}

    return {
        "small calls": lambda: nmf(V, 5, random_state=0, max_iter=20),
        "cd": lambda: nmf(large, 10, tol=0, **endless),
        "newton": lambda: nmf(large, 10, beta_loss=1, solver="newton", tol=0, **endless),
        "a stack without checks": lambda: nmf(stack, 3, beta_loss=1, solver="mu", tol=0, **endless),
        "restarts": lambda: nmf(V, 4, n_restarts=24, solver="cd", tol=0, **endless),
        "sparse": lambda: nmf(thin, 5, beta_loss=1, tol=0, **endless),
        "blocks": lambda: nmf(blocks, 5, beta_loss=1, tol=0, **endless),
        "singular vectors": lambda: nmf(large, 50, init="nndsvda", max_iter=2),
        "transform": lambda: transform(V, H, beta_loss=1, max_iter=iterations, tol=0),
        "ranks": lambda: select_rank(V, range(2, 9), n_restarts=20, random_state=0),
    }


def interrupted(call: Callable[[], Any], after: float) -> float:
    """How many seconds the call took to answer an interrupt."""
    sent = 0.0

    answered = threading.Event()

    def interrupt() -> None:
        nonlocal sent
        time.sleep(after)
        sent = time.perf_counter()
        while True:  # until one is noticed: Python drops those that arrive in the end of an object
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            if answered.wait(2.0):
                return

    timer = threading.Thread(target=interrupt)
    try:
        timer.start()
        while True:
            call()
    except KeyboardInterrupt:
        seconds = time.perf_counter() - sent
        answered.set()
        timer.join()
        return seconds


def blas_threads() -> list[int]:
    controller = blas._controller()
    return [] if controller is None else [library.num_threads for library in controller.lib_controllers]


def left_behind(before: list[int], errors: Any, count: int) -> str | None:
    """What is not as it was."""
    if blas_threads() != before:
        return f"BLAS has {blas_threads()} threads and had {before}"
    if (np.geterr(), np.geterrcall()) != errors:
        return f"NumPy's error handling is {np.geterr()}, {np.geterrcall()}"
    until = time.monotonic() + 2
    while _thread._count() > count and time.monotonic() < until:
        time.sleep(0.002)
    if _thread._count() > count:
        return f"{_thread._count() - count} threads go on"
    return None


def run(count: int, only: str = "") -> tuple[int, int]:
    """Interrupt each kind so many times, and print what was wrong; how many answers were late, and states left."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background is begun without one
    rng, all_late, all_left = np.random.default_rng(1), 0, 0
    for call in kinds(2).values():  # what is compiled first
        call()
    before, errors, threads = blas_threads(), (np.geterr(), np.geterrcall()), _thread._count()
    for name, call in kinds().items():
        if only not in name:
            continue
        times, found = [], []
        for _ in range(count):
            times.append(interrupted(call, float(rng.uniform(0.0, 0.03))))
            what = left_behind(before, errors, threads)
            if what is not None:
                found.append(what)
        late = sum(t > LATEST for t in times)
        all_late, all_left = all_late + late, all_left + len(found)
        print(
            f"{name}: {count} interrupts, the slowest answer {max(times):.3f} s, {late} late, {len(found)} states left",
            flush=True,
        )
        for what in found[:3]:
            print(f"    {what}", flush=True)
    return all_late, all_left


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    return 1 if any(run(options.count, options.only)) else 0


if __name__ == "__main__":
    sys.exit(main())
