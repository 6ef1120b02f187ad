"""A cluster that loses its connection or forgets V, and workers at their memory limit."""

from __future__ import annotations

import contextlib
import gc
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from nmf_xp import nmf
from nmf_xp.data.cluster import OnCluster
from tests.clusters import HERE, LONG, cluster, until
from tests.problems import noisy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from nmf_xp import Result

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")
distributed = pytest.importorskip("distributed")

V = noisy(90, 24, 3).V
OPTIONS: dict[str, Any] = {"beta_loss": 1.0, "random_state": 0, "max_iter": 22, "tol": 1e-30, "check_every": 5}


@pytest.fixture(autouse=True)
def _dask_as_it_was() -> Iterator[None]:
    """Early releases of distributed leave themselves as the scheduler, where a client is lost."""
    before = dask.config.get("scheduler", None)
    yield
    dask.config.set(scheduler=before)


def at_iteration(n: int, act: Callable[[], Any]) -> Callable[[Any], None]:
    """A callback that acts once."""

    def callback(progress: Any) -> None:
        if progress.iteration == n:
            act()

    return callback


@pytest.mark.parametrize("how", ["closed", "closed in another thread"])
def test_a_client_that_is_closed_is_one_error_and_the_run_goes_on_from_its_checkpoint(how: str, tmp_path: Path) -> None:
    """To the same last bit, where the blocks are where they were."""
    path = tmp_path / "run.npz"
    D = da.from_array(V, chunks=(30, 24))
    options = {**OPTIONS, "checkpoint": path, "checkpoint_every": 5}
    with cluster(1, **HERE) as (here, client):

        def close() -> None:
            thread = threading.Thread(target=client.close)
            thread.start()
            if how == "closed":
                thread.join()

        rule = "^`V` is on a dask cluster whose scheduler is gone, or whose client was closed; connect a client"
        # In another thread it may be too late for this run; in one of so many iterations it is not.
        with pytest.raises(RuntimeError, match=rule) as caught:
            nmf(D, 3, **{**options, "max_iter": 3000}, callback=at_iteration(10, close))
        assert caught.value.__context__ is None
        with distributed.Client(here):
            found = nmf(D, 3, **{**options, "max_iter": 3000}, callback=lambda progress: progress.iteration >= 40)
            expected = nmf(D, 3, **{**OPTIONS, "max_iter": 3000}, callback=lambda progress: progress.iteration >= 40)
            np.testing.assert_array_equal(np.asarray(found.W), np.asarray(expected.W))
            np.testing.assert_array_equal(found.H, expected.H)
            assert found.history == expected.history


def forget(client: Any) -> None:
    """What a client does whose connection broke: it finds the scheduler again, which has dropped all of its tasks."""
    client.loop.add_callback(client.scheduler_comm.comm.abort)
    until(lambda: client.status == "connecting" or not client.futures)


@pytest.mark.parametrize(
    "lose", [forget, lambda client: client.restart(timeout=LONG)], ids=["connection lost", "cluster restarted"]
)
def test_a_cluster_that_forgot_v_is_given_it_again(lose: Callable[[Any], Any]) -> None:
    D, expected = da.from_array(V, chunks=(30, 24)), nmf(V, 3, solver="mu", **OPTIONS)
    with cluster(1) as (_, client):
        result: Result = nmf(D, 3, callback=at_iteration(10, lambda: lose(client)), **OPTIONS)
        assert result.n_iter == expected.n_iter
        np.testing.assert_allclose(result.W.compute(), expected.W, rtol=1e-12)
        np.testing.assert_allclose(result.H, expected.H, rtol=1e-12)


@pytest.mark.parametrize("of", ["persisted", "scattered"])
def test_what_only_the_cluster_knew_is_missed_in_one_sentence(of: str) -> None:
    with cluster(1, **HERE) as (_, client):
        if of == "persisted":
            D = client.persist(da.from_array(V, chunks=(30, 24)))
        else:
            D = da.from_delayed(client.scatter(V), shape=V.shape, dtype=V.dtype)
        with pytest.raises(RuntimeError, match=r"^`V` is on a dask cluster that lost blocks of it, and cannot make"):
            nmf(D, 3, callback=at_iteration(10, lambda: forget(client)), **OPTIONS)


def test_v_of_another_client_is_refused_with_advice_that_works() -> None:
    with cluster(1, **HERE) as (_, its_own):
        D = its_own.persist(da.from_array(V, chunks=(30, 24)))
        with cluster(1, **HERE):
            with pytest.raises(RuntimeError, match=r"another client .* `with client.as_current\(\):`"):
                nmf(D, 3, **OPTIONS)
            with its_own.as_current():
                result = nmf(D, 3, **OPTIONS)
            np.testing.assert_allclose(result.H, nmf(V, 3, solver="mu", **OPTIONS).H, rtol=1e-12)


@pytest.mark.parametrize("ends", ["well", "with an error", "without a scheduler"])
def test_nothing_is_left_on_the_cluster_but_w(ends: str) -> None:
    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}), cluster(2, **HERE) as (here, client):

        def end() -> None:
            if ends == "with an error":
                msg = "the user's"
                raise KeyError(msg)
            if ends == "without a scheduler":
                client.sync(here.scheduler.close)

        with contextlib.suppress(KeyError, RuntimeError):
            kept = nmf(da.from_array(V, chunks=(30, 24)), 3, callback=at_iteration(10, end), **OPTIONS)
            assert ends == "well"
            gc.collect()
            until(lambda: len(client.futures) == 3)
            assert set(client.futures) == {future.key for future in distributed.futures_of(kept.W)}
            del kept
        gc.collect()
        until(lambda: not client.futures)


def test_each_iteration_is_forgotten_at_once() -> None:
    """And not when Python happens to look for circles."""
    counts: list[int] = []
    with cluster(1, **HERE) as (_, client):

        def count(progress: Any) -> None:
            until(lambda: not counts or len(client.futures) <= counts[0])
            counts.append(len(client.futures))

        gc.collect()
        gc.disable()
        try:
            nmf(da.from_array(V, chunks=(30, 24)), 3, callback=count, **{**OPTIONS, "check_every": 1})
        finally:
            gc.enable()
    assert len(counts) == 22


def test_a_worker_that_is_killed_at_its_memory_limit_is_one_error_with_its_name() -> None:
    def load(block_info: Any = None) -> Any:
        grown = []
        for _ in range(150):
            grown.append(np.ones(10**6))
            time.sleep(0.01)
        msg = "the worker was not killed"
        raise AssertionError(msg)

    D = da.map_blocks(load, chunks=((30,), (24,)), dtype=V.dtype, meta=np.empty((0, 0)))
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        cluster(1, memory_limit="400MB") as (_, client),
    ):
        (address,) = client.nthreads()
        rule = rf"^`V` is on a dask cluster whose workers died .*, at last {address}; give them more memory"
        with pytest.raises(RuntimeError, match=rule):
            nmf(D, 3, **OPTIONS)


@pytest.mark.parametrize("when", ["from the beginning", "in the middle"])
def test_a_worker_that_stays_paused_at_its_memory_limit_is_one_error_with_its_name(when: str) -> None:
    """Its limit is far below what this process takes already."""
    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}), cluster(1, **HERE) as (here, client):
        held = here.workers[0]

        def fill() -> None:
            held.memory_manager.memory_limit = 1000
            held.memory_manager.memory_pause_fraction = 0.5
            held.memory_manager.memory_spill_fraction = False
            until(lambda: held.status.name == "paused")

        if when == "from the beginning":
            fill()
        (address,) = client.nthreads()
        rule = rf"^`V` is on a dask cluster whose worker {address} is paused at its memory limit, .* more memory"
        with pytest.raises(RuntimeError, match=rule):
            nmf(da.from_array(V, chunks=(30, 24)), 3, callback=at_iteration(10, fill), **OPTIONS)


@pytest.mark.parametrize("others", [0, 1])
def test_a_worker_that_was_paused_for_a_while_costs_time_only(others: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes on as soon as it was asked how it stands."""
    expected, asked = nmf(V, 3, solver="mu", **OPTIONS), []
    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}), cluster(1 + others, **HERE) as (here, _):
        manager = here.workers[0].memory_manager
        fraction = manager.memory_pause_fraction

        def fill() -> None:
            manager.memory_pause_fraction = 1e-9
            until(lambda: here.workers[0].status.name == "paused")

        def relieved(self: OnCluster, *arguments: Any) -> Any:
            asked.append(check(self, *arguments))
            manager.memory_pause_fraction = fraction
            until(lambda: here.workers[0].status.name == "running")
            return asked[-1]

        check = OnCluster._check_paused
        monkeypatch.setattr(OnCluster, "_check_paused", relieved)
        result = nmf(da.from_array(V, chunks=(30, 24)), 3, callback=at_iteration(10, fill), **OPTIONS)
    assert asked
    np.testing.assert_allclose(result.H, expected.H, rtol=1e-12)


def test_memory_that_a_task_lacks_is_one_error_with_what_fits() -> None:
    D = da.map_blocks(lambda: np.empty((2**36, 2**20)), chunks=((30,), (24,)), dtype=V.dtype, meta=np.empty((0, 0)))
    with (
        cluster(1, **HERE),
        pytest.raises(MemoryError, match=r"memory of the workers, .* smaller chunks of V") as caught,
    ):
        nmf(D, 3, **OPTIONS)
    assert caught.value.__context__ is None
