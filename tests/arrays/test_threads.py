"""Threads for NumPy: every item once, errors to the caller, BLAS as it was."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from nmf_xp.arrays import threads

if TYPE_CHECKING:
    from collections.abc import Iterator

threadpoolctl = pytest.importorskip("threadpoolctl")


def blas_threads() -> set[int]:
    """Of the libraries that were loaded when a run first asked for them."""
    return {library.num_threads for library in threads._controller().lib_controllers}


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


def test_what_runs_in_threads_does_not_divide_itself_again() -> None:
    with threadpoolctl.threadpool_limits(2, user_api="blas"), threads.held_blas():
        assert threads.count() == 2
        assert threads.run(lambda _: threads.count(), [0, 1, 2, 3]) == [1, 1, 1, 1]


def test_blas_is_held_freed_and_given_back() -> None:
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        with threads.held_blas():
            assert blas_threads() == {1}
            with threads.free_blas():
                assert blas_threads() == {2}
            assert blas_threads() == {1}
        assert blas_threads() == {2}
        with threads.free_blas():  # on its own it changes nothing
            assert blas_threads() == {2}


def test_threads_end_with_the_block() -> None:
    before = threading.active_count()
    with threadpoolctl.threadpool_limits(2, user_api="blas"), threads.held_blas():
        threads.run(str, [1, 2, 3])
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before
