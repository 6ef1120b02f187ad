"""Calls from many threads at the same time: each gives the same bits as alone, and leaves the process as it was.

    python -m tests.concurrent_calls --count 10000 --threads 16

Every solver, dense, sparse, weighted, in blocks and in stacks, of two dtypes, `transform`, torch and JAX; half of the
calls with kernels, half without. Compared are all bits of the factors, the history and the divergence.
"""

from __future__ import annotations

import _thread
import argparse
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse
import threadpoolctl

from nmf_xp import RowBlocks, nmf, transform
from nmf_xp.arrays import transfer
from nmf_xp.testing import Backend
from tests.interrupts import blas_threads, left_behind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SOLVERS = (("mu", 1.0), ("mm", 1.0), ("mu", 0.5), ("mm", 0.0), ("cd", 2.0), ("cd-plain", 2.0), ("newton", 1.0))
SHAPES = ((30, 20), (120, 37), (400, 90))
BLAS = 2
"""Threads that BLAS has: with one there is nothing to hold."""


def calls() -> Iterator[Callable[[], Any]]:
    """The different calls."""
    rng = np.random.default_rng(0)
    for solver, beta in SOLVERS:
        options: dict[str, Any] = {"beta_loss": beta, "solver": solver, "random_state": 3, "max_iter": 25, "tol": 1e-9}
        for i, (m, n) in enumerate(SHAPES):
            V = rng.gamma(1.0, 1.0, (m, n)) + 1e-3
            H, W = rng.random((6, n)), rng.random((m, n)) < 0.8
            yield _call(nmf, V, 6, **options)
            yield _call(nmf, V.astype("f4"), 6, **options)
            yield _call(nmf, V, 5, n_restarts=3, **options)
            given = {name: value for name, value in options.items() if name != "random_state"}
            yield _call(transform, V, H, **given)
            if solver != "cd-plain":
                yield _call(nmf, V, 6, weights=W, **options)
            if beta > 0 and solver != "cd-plain":
                sparse = scipy.sparse.csr_array(np.where(W, 0, V))
                yield _call(nmf, sparse, 6, **options)
            if solver in ("mu", "mm"):
                yield _call(nmf, RowBlocks(np.array_split(V, 3)), 4, **options)
            if i == 0:
                for backend in (Backend.TORCH, Backend.JAX):
                    if backend.missing() is None and solver in ("mu", "mm"):
                        yield _call(nmf, backend.target().asarray(V.astype("f4")), 6, **options)


def _call(function: Callable[..., Any], *arguments: Any, **options: Any) -> Callable[[], Any]:
    return lambda: function(*arguments, **options)


def bits(result: Any) -> bytes:
    """All that came back, as bytes."""
    said = result.W, result.H, result.divergence, result.kkt_residual
    numbers = [np.asarray(transfer.to_host(x) if hasattr(x, "shape") else x) for x in said]
    return b"".join(x.tobytes() for x in numbers) + repr((result.history, result.n_iter)).encode()


def run(count: int, threads: int) -> int:
    """Make so many calls, and print what was wrong with them; how many findings there are."""
    findings = 0
    with threadpoolctl.threadpool_limits(BLAS, user_api="blas"):
        for kernels in ("1", "0"):
            os.environ["NMF_XP_KERNELS"] = kernels
            different = list(calls())
            expected = [bits(call()) for call in different]
            order = np.random.default_rng(1).integers(0, len(different), count // 2).tolist()
            before, errors, there = blas_threads(), np.geterr(), _thread._count()
            begun = time.perf_counter()
            with ThreadPoolExecutor(threads) as pool:
                same = list(pool.map(_compare(different, expected), order))
            seconds = time.perf_counter() - begun
            left = left_behind(before, errors, there)
            wrong = sorted({i for i, equal in zip(order, same, strict=True) if not equal})
            findings += same.count(False) + (left is not None)
            what = f"{count // 2} calls of {len(different)} kinds from {threads} threads in {seconds:.0f} s"
            found = f"{same.count(False)} with other bits{f' (of the kinds {wrong})' if wrong else ''}"
            print(
                f"{'with' if kernels == '1' else 'without'} kernels: {what}, {found}, {left or 'nothing'} left",
                flush=True,
            )
    return findings


def _compare(different: list[Callable[[], Any]], expected: list[bytes]) -> Callable[[int], bool]:
    return lambda i: bits(different[i]()) == expected[i]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=16)
    options = parser.parse_args()
    return 1 if run(options.count, options.threads) else 0


if __name__ == "__main__":
    sys.exit(main())
