"""Threads for NumPy: every item once, errors to the caller, BLAS as it was."""

from __future__ import annotations

import _thread
import os
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from array_api_compat import numpy as xp

from nmf_xp import nmf
from nmf_xp.arrays import blas, threads
from nmf_xp.data import Dense
from nmf_xp.data.blocks import matmul, transposed_matmul
from tests.scripts import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

threadpoolctl = pytest.importorskip("threadpoolctl")


def blas_threads() -> set[int]:
    """Of the libraries that were loaded when a run first asked for them."""
    return {library.num_threads for library in blas._controller().lib_controllers}


@pytest.fixture
def crew() -> Iterator[threads.Crew]:
    crew = threads.Crew(3)
    yield crew
    crew.dismiss()


def test_a_crew_returns_results_in_order_and_shares_the_work(crew: threads.Crew) -> None:
    seen = set()

    def work(i: int) -> int:
        seen.add(threading.get_ident())
        time.sleep(0.002)
        return i * i

    for count in (1, 2, 50):
        assert crew.run(work, list(range(count))) == [i * i for i in range(count)]
    assert len(seen) == 4


@pytest.mark.parametrize("bad", [0, 9, 19])
def test_an_error_reaches_the_caller_and_the_crew_goes_on(crew: threads.Crew, bad: int) -> None:
    def work(i: int) -> int:
        time.sleep(0.001)
        if i == bad:
            msg = f"item {i}"
            raise ArithmeticError(msg)
        return i

    with pytest.raises(ArithmeticError, match=f"item {bad}"):
        crew.run(work, list(range(20)))
    assert crew.run(str, [1, 2, 3]) == ["1", "2", "3"]


def test_a_helper_that_sleeps_holds_no_array(crew: threads.Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a helper wakes after the others have done everything, and the caller has let go of V."""
    monkeypatch.setattr(threads, "start_helper", str)
    V = np.ones((3, 4))
    whole, rows = weakref.ref(V), list(V)

    def size(row: Any, V: Any = V) -> int:
        return V.size + row.size

    assert crew.run(size, rows) == [16, 16, 16]
    del V, size, rows
    assert whole() is None


def test_little_work_gets_one_thread() -> None:
    with threadpoolctl.threadpool_limits(2, user_api="blas"), threads.held_blas():
        for products, expected in ((0, 1), (2 * threads.SHARE - 1, 1), (2 * threads.SHARE, 2), (9 * threads.SHARE, 2)):
            parts = threads.over_rows(10, lambda start, stop: stop - start, products=products)
            assert parts == [10 // expected] * expected
            assert len(threads.bounds(10, products=products)) == expected + 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(900, 700), (20000, 40), (30, 30000)])
def test_products_with_a_large_matrix_are_made_in_parts(shape: tuple[int, int], dtype: str) -> None:
    rng = np.random.default_rng(0)
    V, W, H = (rng.random(size).astype(dtype) for size in (shape, (shape[0], 9), (9, shape[1])))
    heights: list[int] = []

    def contract(self: Dense, Z: Any, H: Any, *, xp: Any) -> Any:
        heights.append(Z.shape[0])
        assert blas_threads() == {1}
        return original(self, Z, H, xp=xp)

    original = Dense.contract
    with pytest.MonkeyPatch.context() as patch, threadpoolctl.threadpool_limits(2, user_api="blas"):
        patch.setattr(Dense, "contract", contract)
        with threads.held_blas():
            product: Any = matmul(Dense(V), H, xp=xp)
            turned: Any = transposed_matmul(Dense(V), W.T, xp=xp)
    assert heights == [shape[0] // 2] * 2
    np.testing.assert_allclose(product, V @ H.T, rtol=1e-4 if dtype == "float32" else 1e-12)
    np.testing.assert_allclose(turned, V.T @ W, rtol=1e-4 if dtype == "float32" else 1e-12)


def test_what_runs_in_threads_does_not_divide_itself_again() -> None:
    with threadpoolctl.threadpool_limits(2, user_api="blas"), threads.held_blas():
        assert threads.count() == 2
        assert threads.run(lambda _: threads.count(), [0, 1, 2, 3]) == [1, 1, 1, 1]


def test_blas_is_held_and_given_back() -> None:
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        with threads.held_blas():
            assert blas_threads() == {1}
        assert blas_threads() == {2}


def test_threads_end_with_the_block() -> None:
    before = _thread._count()
    with threadpoolctl.threadpool_limits(2, user_api="blas"), threads.held_blas():
        threads.run(str, [1, 2, 3])
    deadline = time.monotonic() + 5
    while _thread._count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert _thread._count() <= before


def test_a_second_caller_has_as_many_threads_and_the_last_gives_back() -> None:
    counts: list[int] = []

    def call() -> None:
        with threads.held_blas():
            counts.append(threads.count())
            together.wait()

    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        together = threading.Barrier(8, timeout=30)
        callers = [threading.Thread(target=call) for _ in range(8)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        assert counts == [2] * 8
        assert blas_threads() == {2}


def test_any_thread_holds_blas_and_gives_it_back() -> None:
    """For threadpoolctl the first thread that changed the number is the only one that may."""
    seen: list[set[int]] = []

    def call() -> None:
        with threads.held_blas():
            seen.append(blas_threads())
            entered.set()
            ended.wait(30)

    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        with threads.held_blas():
            pass
        for _ in range(2):
            entered, ended = threading.Event(), threading.Event()
            other = threading.Thread(target=call)
            other.start()
            entered.wait(30)
            with threads.held_blas():
                pass
            assert blas_threads() == {1}
            ended.set()
            other.join()
            assert blas_threads() == {2}
    assert seen == [{1}, {1}]


def test_other_threads_do_not_free_blas_while_it_is_held() -> None:
    """From threadpoolctl 3.8 on; two threads of BLAS in each of ours would wait for each other."""
    expected = {1} if hasattr(blas._controller().lib_controllers[0], "clear_controlling_thread") else {2}
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        with threads.held_blas():
            other = threading.Thread(target=lambda: threadpoolctl.threadpool_limits(2, user_api="blas"))
            other.start()
            other.join()
            assert blas_threads() == expected
        assert blas_threads() == {2}


def test_each_thread_is_held_where_openmp_counts_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for an OpenBLAS built with OpenMP, which no wheel of NumPy is."""
    changed: set[int] = set()

    class OpenMP:
        threading_layer, num_threads = "openmp", 2

        def set_num_threads(self, count: int) -> None:
            if count == 1:
                changed.add(threading.get_ident())

    monkeypatch.setattr(blas, "_controller", lambda: type("", (), {"lib_controllers": [OpenMP()]}))
    monkeypatch.setattr(blas, "processors", lambda: 2)
    here: set[int] = set()

    def work(_: int) -> None:
        here.add(threading.get_ident())
        time.sleep(0.01)

    with threads.held_blas():
        threads.run(work, list(range(20)))
    assert len(here) == 2
    assert here <= changed


@pytest.mark.parametrize("solver", ["cd", "mu"])
def test_calls_from_many_threads_are_those_of_one(solver: str) -> None:
    rng = np.random.default_rng(0)
    problems = [rng.random((int(m), 37)) for m in rng.integers(30, 200, 24)]

    def fit(V: Any) -> Any:
        return nmf(V, 7, beta_loss=2 if solver == "cd" else 1, solver=solver, random_state=0, max_iter=25).W

    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        alone = [fit(V) for V in problems]
        with ThreadPoolExecutor(16) as pool:
            for W, expected in zip(pool.map(fit, problems * 3), alone * 3, strict=True):
                np.testing.assert_array_equal(W, expected)
        assert blas_threads() == {2}


def test_a_callback_finds_blas_as_it_was_and_may_call_nmf() -> None:
    V, seen = np.random.default_rng(0).random((60, 40)), []

    def callback(_: Any) -> None:
        seen.append(blas_threads())
        with ThreadPoolExecutor(1) as pool:
            pool.submit(nmf, V, 3, random_state=0, max_iter=20).result()
        nmf(V, 3, random_state=0, max_iter=20)

    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        plain = nmf(V, 3, random_state=0, max_iter=40, tol=1e-12)
        observed = nmf(V, 3, random_state=0, max_iter=40, tol=1e-12, callback=callback)
    assert seen == [{2}] * 4
    np.testing.assert_array_equal(plain.W, observed.W)


def test_interrupts_leave_nothing_behind() -> None:
    run = [sys.executable, "-c", "from tests.interrupts import run; late, left = run(8); assert left == 0"]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_process_that_is_forked_while_a_call_runs_can_call_nmf() -> None:
    """The child has none of the helping threads, and BLAS as it was held. JAX and torch cannot be forked so."""
    run = [sys.executable, "-W", "ignore", "-c", FORKED]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["0"] * 5


FORKED = """
import os, threading
import numpy as np
from nmf_xp import nmf
V = np.random.default_rng(0).random((400, 300))
options = dict(beta_loss=1, random_state=0, max_iter=20)
expected = nmf(V, 20, **options).W
ended = threading.Event()

def others():
    while not ended.is_set():
        nmf(V, 20, **options)

running = [threading.Thread(target=others) for _ in range(2)]
for one in running:
    one.start()
codes = []
for _ in range(5):
    child = os.fork()
    if child == 0:
        same = np.array_equal(nmf(V, 20, **options).W, expected)
        os._exit(0 if same else 1)
    codes.append(os.waitpid(child, 0)[1])
ended.set()
for one in running:
    one.join()
print(*codes)
"""


def test_a_run_in_a_thread_may_outlive_the_main_one() -> None:
    code = """
import threading
import numpy as np
from nmf_xp import RowBlocks, nmf
V = np.random.default_rng(0).random((200, 30))
blocks = RowBlocks([V[:100], V[100:]])
def fit():
    print(nmf(blocks, 3, beta_loss=1, random_state=0, max_iter=60, tol=0).n_iter)
threading.Thread(target=fit).start()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "60\n", "")
