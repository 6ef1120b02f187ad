"""Fits where other programs have the cores: as many spinning processes as cores, against an idle machine.

    python benchmarks/busy_cores.py [--rounds 9]

Digits (1797 x 64), rank 10, 60 iterations: the default of each loss, and scikit-learn's `cd` and `mu`. Each round runs
every side idle and busy in turn, in this process; medians of wall times. A ratio of 2 is what sharing each core with
one other process comes to.

A second table compares 16 fits at once with the same fits one after the other: from Python threads, in forked
processes (NumPy alone, as JAX and torch cannot be forked), and by joblib's
threads and processes, which are begun before.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import statistics
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import joblib
from sklearn.datasets import load_digits
from sklearn.decomposition import NMF

from nmf_xp import nmf
from nmf_xp.arrays.blas import processors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ITERATIONS, FITS = 60, 16


@contextlib.contextmanager
def spinning(count: int) -> Iterator[None]:
    """So many processes that take all they can get."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        time.sleep(0.5)
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def sides() -> dict[str, Callable[[], Any]]:
    """What is timed."""
    V = load_digits().data
    options: dict[str, Any] = {"random_state": 0, "max_iter": ITERATIONS, "tol": 0}
    found: dict[str, Callable[[], Any]] = {
        "nmf_xp, KL": lambda: nmf(V, 10, beta_loss=1, **options),
        "nmf_xp, Frobenius": lambda: nmf(V, 10, **options),
        "scikit-learn, cd": lambda: NMF(10, init="random", **options).fit(V),
        "scikit-learn, mu, KL": lambda: NMF(10, init="random", solver="mu", beta_loss=1, **options).fit(V),
    }
    try:
        import torch
    except ImportError:
        return found
    T = torch.asarray(V)
    return found | {"nmf_xp, KL, torch": lambda: nmf(T, 10, beta_loss=1, **options)}


def at_once() -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """Fits that run at once, and the same fits one after the other."""
    V = load_digits().data
    arrays = {"NumPy": V}
    with contextlib.suppress(ImportError):
        import torch

        arrays["torch"] = torch.asarray(V)
    found: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {}
    for library, X in arrays.items():

        def loop(X: Any = X) -> None:
            for seed in range(FITS):
                fit(X, seed)

        def threads(X: Any = X) -> None:
            with ThreadPoolExecutor(FITS) as pool:
                list(pool.map(functools.partial(fit, X), range(FITS)))

        def by_joblib(backend: str, X: Any = X) -> None:
            count = FITS if backend == "threading" else processors()
            joblib.Parallel(count, backend=backend)(joblib.delayed(fit)(X, seed) for seed in range(FITS))

        found[f"{library}, 16 threads"] = threads, loop
        found[f"{library}, joblib, threads"] = functools.partial(by_joblib, "threading"), loop
        found[f"{library}, joblib, processes"] = functools.partial(by_joblib, "loky"), loop
        if library == "NumPy":
            found["NumPy, forked"] = functools.partial(forked, X), loop
    return found


def fit(X: Any, seed: int) -> None:
    """One of many fits."""
    nmf(X, 10, beta_loss=1, random_state=seed, max_iter=ITERATIONS, tol=0)


def forked(X: Any) -> None:
    """The fits in as many forked processes as there are cores."""
    children = []
    for part in range(processors()):
        child = os.fork()
        if child == 0:
            for seed in range(part, FITS, processors()):
                fit(X, seed)
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)


def print_at_once(rounds: int) -> None:
    """Print the second table."""
    print("\n| 16 fits | at once, ms | one after the other, ms | ratio |\n|---|---|---|---|")
    for name, pair in at_once().items():
        times: list[list[float]] = [[], []]
        for _ in range(rounds + 1):
            for job, into in zip(pair, times, strict=True):
                begun = time.perf_counter()
                job()
                into.append(time.perf_counter() - begun)
        together, alone = (statistics.median(found[1:]) for found in times)
        print(f"| {name} | {together * 1e3:.0f} | {alone * 1e3:.0f} | {together / alone:.2f} |", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="how often each side runs")
    rounds, jobs = parser.parse_args().rounds, sides()
    warnings.simplefilter("ignore")
    print(f"load {os.getloadavg()[0]:.1f}, {processors()} cores")
    times: dict[tuple[str, bool], list[float]] = {}
    for _ in range(rounds + 1):
        for busy in (False, True):
            with spinning(processors() if busy else 0):
                for name, job in jobs.items():
                    begun = time.perf_counter()
                    job()
                    times.setdefault((name, busy), []).append(time.perf_counter() - begun)
    print("| fit | idle, ms | busy, ms | ratio |\n|---|---|---|---|")
    for name in jobs:
        alone, beside = (statistics.median(times[name, state][1:]) for state in (False, True))
        print(f"| {name} | {alone * 1e3:.0f} | {beside * 1e3:.0f} | {beside / alone:.1f} |")
    print_at_once(rounds)
    print(f"\nload {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
