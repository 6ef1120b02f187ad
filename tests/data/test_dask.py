"""V as a dask array: the answers of memory, V where it is, and what lost workers held made again."""

from __future__ import annotations

import logging
import os
import re
import signal
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from nmf_xp import nmf, transform
from nmf_xp.data import grid
from tests.problems import noisy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nmf_xp import Result

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")
distributed = pytest.importorskip("distributed")

V = noisy(90, 24, 3).V
GRIDS = [(20, 24), (30, 10), (90, 24)]
QUIET: dict[str, Any] = {"dashboard_address": ":0", "silence_logs": logging.CRITICAL}
OPTIONS: dict[str, Any] = {"random_state": 0, "max_iter": 12, "tol": 1e-9, "check_every": 5}


def assert_same(result: Result, expected: Result) -> None:
    """The same run but for the order in which sums are rounded."""
    for x, y in ((result.W, expected.W), (result.H, expected.H), (result.history, expected.history)):
        np.testing.assert_allclose(np.asarray(x), np.asarray(y), rtol=1e-10)
    for name in ("divergence", "objective", "kkt_residual"):
        np.testing.assert_allclose(getattr(result, name), getattr(expected, name), rtol=1e-8)
    assert (result.n_iter, result.status, result.solver) == (expected.n_iter, expected.status, "mu")


@pytest.mark.parametrize("chunks", GRIDS)
@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0, 3.0])
def test_every_grid_gives_what_memory_gives(chunks: tuple[int, int], beta: float) -> None:
    D = da.from_array(V, chunks=chunks)
    result = nmf(D, 3, beta_loss=beta, **OPTIONS)
    assert result.W.chunks == (D.chunks[0], (3,))
    assert type(result.H) is np.ndarray
    assert_same(result, nmf(V, 3, beta_loss=beta, solver="mu", **OPTIONS))


@pytest.mark.parametrize(("chunks", "visits"), [((20, 24), 5), ((30, 10), 2 * 9)])
def test_a_block_has_one_task_a_half_step(
    chunks: tuple[int, int], visits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And in a grid of one column one for both halves."""
    made: list[int] = []

    def counted(*arguments: Any) -> Any:
        made.append(1)
        return visit(*arguments)

    visit = grid._visit
    monkeypatch.setattr(grid, "_visit", counted)
    counts = []
    for n in (2, 12):
        made.clear()
        nmf(da.from_array(V, chunks=chunks), 3, beta_loss=1.0, random_state=0, max_iter=n, tol=0)
        counts.append(len(made))
    assert counts[1] - counts[0] == 10 * visits


RNG = np.random.default_rng(1)
WEIGHTS: Any = RNG.random(V.shape) * (RNG.random(V.shape) < 0.8)


@pytest.mark.parametrize("chunks", GRIDS[:2])
@pytest.mark.parametrize(
    "options",
    [
        {"alpha_W": 0.01, "alpha_H": 0.02, "l1_ratio": 0.5},
        {"upper_w": 0.8, "upper_h": RNG.random((3, 24)) + 0.5},
        {"init": (RNG.random((90, 3)), RNG.random((3, 24))), "fixed_h": RNG.random((3, 24)) < 0.2},
        {"weights": WEIGHTS},
        {"weights": WEIGHTS[:1]},
        {"missing": "nan"},
        {"normalize": "W"},
        {"normalize": "H"},
        {"tol": 0.0},
    ],
    ids=lambda options: "-".join(options),
)
def test_every_option_does_what_it_does_in_memory(chunks: tuple[int, int], options: dict[str, Any]) -> None:
    data = np.where(WEIGHTS == 0, np.nan, V) if "missing" in options else V
    options = {"beta_loss": 1.0, **OPTIONS} | options
    expected = nmf(data, 3, solver="mu", **options)
    assert_same(nmf(da.from_array(data, chunks=chunks), 3, **options), expected)
    if "weights" in options:
        options["weights"] = da.from_array(options["weights"])
        assert_same(nmf(da.from_array(data, chunks=chunks), 3, **options), expected)


@pytest.mark.parametrize("chunks", GRIDS[:2])
def test_sparse_blocks_integers_and_extreme_data(chunks: tuple[int, int]) -> None:
    sparse = pytest.importorskip("scipy.sparse")
    options = {"beta_loss": 1.0, **OPTIONS}
    counts = np.floor(V)
    D = da.from_array(counts, chunks=chunks)
    expected = nmf(counts, 3, solver="mu", **options)
    assert_same(nmf(D.map_blocks(sparse.csr_array, dtype=D.dtype), 3, **options), expected)
    assert_same(nmf(D.astype("int32"), 3, **options), expected)
    huge = nmf(1e250 * D, 3, **options)
    np.testing.assert_allclose(huge.divergence, 1e250 * expected.divergence)
    assert nmf(D.astype("float32"), 3, **options).W.dtype == np.float32


@pytest.mark.parametrize("chunks", GRIDS[:2])
def test_new_rows_are_transformed(chunks: tuple[int, int]) -> None:
    H = noisy(90, 24, 3).H
    D = da.from_array(V, chunks=chunks)
    for options in ({}, {"weights": WEIGHTS}, {"alpha_W": 0.01}):
        result = transform(D, H, beta_loss=1.0, **options)
        assert_same(result, transform(V, H, beta_loss=1.0, solver="mu", **options))


def test_a_callback_sees_w_and_its_start_may_be_a_dask_array() -> None:
    D = da.from_array(V, chunks=(20, 24))
    seen: list[Any] = []
    first = nmf(D, 3, callback=lambda progress: seen.append(progress) or progress.iteration == 10, **OPTIONS)  # type: ignore[func-returns-value]
    assert [progress.iteration for progress in seen] == [5, 10]
    np.testing.assert_array_equal(seen[-1].W.compute(), first.W.compute())
    again = nmf(D, 3, init=(first.W, first.H), **OPTIONS)
    assert_same(again, nmf(V, 3, solver="mu", init=(first.W.compute(), first.H), **OPTIONS))


def test_what_does_not_fit_is_made_again_in_every_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def load(block_info: Any = None) -> Any:
        (a, b), _ = block_info[None]["array-location"]
        made.append(a)
        return V[a:b]

    D = da.map_blocks(load, chunks=((30, 30, 30), (24,)), dtype=V.dtype, meta=np.empty((0, 0)))
    monkeypatch.setattr("nmf_xp.arrays.memory.available", lambda: V.nbytes)
    streamed = nmf(D, 3, **OPTIONS | {"tol": 0.0})
    assert len(made) == 3 * (12 + 3)  # to check V, to scale the start, and for the report
    made.clear()
    monkeypatch.setattr("nmf_xp.arrays.memory.available", lambda: 100 * V.nbytes)
    assert_same(nmf(D, 3, **OPTIONS | {"tol": 0.0}), streamed)
    assert len(made) == 3


@pytest.mark.parametrize("chunks", [((0, 30, 0, 50, 10), (24,)), ((1, 87, 2), (0, 5, 19, 0))])
def test_uneven_and_empty_chunks(chunks: Any) -> None:
    """Empty ones are left out of W."""

    def load(block_info: Any = None) -> Any:
        (a, b), (c, d) = block_info[None]["array-location"]
        return V[a:b, c:d]

    D = da.map_blocks(load, chunks=chunks, dtype=V.dtype, meta=np.empty((0, 0)))
    assert D.chunks == chunks
    for options in ({}, {"weights": WEIGHTS}):
        result = nmf(D, 3, beta_loss=1.0, **options, **OPTIONS)
        assert_same(result, nmf(V, 3, beta_loss=1.0, solver="mu", **options, **OPTIONS))
        assert result.W.chunks == (tuple(length for length in chunks[0] if length), (3,))


def test_the_advice_for_unknown_chunks_works_where_a_filter_leaves_nothing_of_a_chunk() -> None:
    rows = np.arange(90) >= 40
    D = da.from_array(V, chunks=(20, 24))[da.from_array(rows, chunks=20)]
    with pytest.raises(ValueError, match=re.escape("call its `compute_chunk_sizes()` before")):
        nmf(D, 3, **OPTIONS)
    D.compute_chunk_sizes()
    assert D.chunks[0] == (0, 0, 20, 20, 10)
    assert_same(nmf(D, 3, **OPTIONS), nmf(V[rows], 3, solver="mu", **OPTIONS))


@pytest.mark.parametrize("hidden", [np.nan, -1.0, 1e300])
@pytest.mark.parametrize("all_blocks", [False, True])
def test_the_advice_for_masked_blocks_works_whatever_the_mask_hides(hidden: float, all_blocks: bool) -> None:
    observed = WEIGHTS > 0
    x = da.from_array(np.where(observed, V, hidden), chunks=(20, 24))
    unobserved = da.from_array(~observed, chunks=(20, 24))
    D = da.ma.masked_array(x, unobserved)
    if not all_blocks:
        observed[:40] = True
        D = da.concatenate([da.from_array(V[:40], chunks=(20, 24)), D[40:]])
    with pytest.raises(ValueError, match="got a masked array") as caught:
        nmf(D, 3, **OPTIONS)
    entries, weights = re.findall(r"`(?:weights=)?([^`]*dask[^`]*)`", str(caught.value))
    names = {"dask": dask, "V": D}
    expected = nmf(np.where(observed, V, 0), 3, solver="mu", weights=observed, **OPTIONS)
    assert_same(nmf(eval(entries, names), 3, weights=eval(weights, names), **OPTIONS), expected)


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """Three workers, each a process."""
    with (
        distributed.LocalCluster(n_workers=3, threads_per_worker=1, **QUIET) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def moved(client: Any) -> int:
    """Bytes that the workers have fetched from each other."""
    totals = client.run(lambda dask_worker: sum(entry["total"] for entry in dask_worker.transfer_incoming_log))
    return sum(totals.values())


@pytest.mark.parametrize("chunks", [(500, 200), (750, 100)])
def test_on_a_cluster_v_stays_and_little_moves(client: Any, chunks: tuple[int, int]) -> None:
    tall = noisy(6000, 200, 4).V
    D = client.persist(da.from_array(tall, chunks=chunks))
    distributed.wait(D)
    before = {future.key: client.who_has([future])[future.key] for future in distributed.futures_of(D)}
    start = moved(client)
    result = nmf(D, 4, beta_loss=1.0, random_state=0, max_iter=20, tol=0)
    expected = nmf(tall, 4, beta_loss=1.0, solver="mu", random_state=0, max_iter=20, tol=0)
    between_workers = moved(client) - start
    assert {future.key: client.who_has([future])[future.key] for future in distributed.futures_of(D)} == before
    factors = result.W.nbytes + result.H.nbytes
    to_and_from = 2 * 3 * result.H.nbytes + 2 * result.W.nbytes / 10  # H and its sums, and W every ten iterations
    assert between_workers / 20 + to_and_from <= 3 * factors
    assert between_workers == 0 or chunks[1] < 200
    np.testing.assert_allclose(result.H, expected.H, rtol=1e-10)
    np.testing.assert_allclose(result.W.compute(), expected.W, rtol=1e-10)


def test_the_same_on_a_cluster(client: Any) -> None:
    sparse = pytest.importorskip("scipy.sparse")
    options = OPTIONS | {"max_iter": 3}
    D = da.from_array(np.floor(V), chunks=(30, 10))
    expected = nmf(np.floor(V), 3, beta_loss=1.0, solver="mu", weights=WEIGHTS, **options)
    assert_same(nmf(D, 3, beta_loss=1.0, weights=WEIGHTS, **options), expected)
    expected = nmf(np.floor(V), 3, beta_loss=1.0, solver="mu", **options)
    result = nmf(D.map_blocks(sparse.csr_array, dtype=D.dtype), 3, beta_loss=1.0, **options)
    assert_same(result, expected)
    new = transform(D, result.H, beta_loss=1.0, max_iter=3)
    assert_same(new, transform(np.floor(V), result.H, beta_loss=1.0, solver="mu", max_iter=3))


def test_an_error_of_the_loader_is_the_users(client: Any) -> None:
    def load() -> Any:
        msg = "the disk is on fire"
        raise OSError(msg)

    D = da.map_blocks(load, chunks=((30, 30), (24,)), dtype=V.dtype, meta=np.empty((0, 0)))
    with pytest.raises(OSError, match="the disk is on fire"):
        nmf(D, 3)


@pytest.mark.parametrize("columns", [(40,), (25, 15)])
def test_two_of_three_workers_are_killed(columns: tuple[int, ...], tmp_path: Path) -> None:
    data = noisy(240, 40, 3).V
    np.save(tmp_path / "V.npy", data)
    path = str(tmp_path / "V.npy")

    def load(block_info: Any = None) -> Any:
        (a, b), (c, d) = block_info[None]["array-location"]
        return np.load(path)[a:b, c:d]

    D = da.map_blocks(load, chunks=((40,) * 6, columns), dtype=data.dtype, meta=np.empty((0, 0)))
    options: dict[str, Any] = {"beta_loss": 1.0, "random_state": 0, "max_iter": 22, "tol": 1e-30, "check_every": 1}
    expected = nmf(data, 3, solver="mu", **options)
    killed: list[int] = []
    with (
        distributed.LocalCluster(n_workers=3, threads_per_worker=1, **QUIET) as cluster,
        distributed.Client(cluster) as client,
    ):

        def kill(progress: Any) -> None:
            if progress.iteration == 17:
                killed.extend(list(client.run(os.getpid).values())[:2])
                for worker in killed:
                    os.kill(worker, signal.SIGKILL)

        result = nmf(D, 3, callback=kill, **options)
        W = result.W.compute()
    assert len(set(killed)) == 2
    assert (result.n_iter, result.status) == (expected.n_iter, expected.status)
    np.testing.assert_allclose(W, expected.W, rtol=1e-12)
    np.testing.assert_allclose(result.H, expected.H, rtol=1e-12)
    np.testing.assert_allclose(result.history, expected.history, rtol=1e-12)


@pytest.mark.parametrize("what", ["workers", "scheduler"])
def test_a_lost_cluster_is_one_clear_error(what: str) -> None:
    D = da.from_array(V, chunks=(30, 24))
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "2s"}),
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=False, **QUIET) as cluster,
        distributed.Client(cluster, set_as_default=True) as client,
    ):

        def lose(progress: Any) -> None:
            if what == "workers":
                cluster.scale(0)
                client.sync(cluster._correct_state)
            else:
                client.sync(cluster.scheduler.close)

        message = "that has no worker left; start" if what == "workers" else "whose scheduler is gone, or"
        with pytest.raises(RuntimeError, match=rf"^`V` is on a dask cluster {message}"):
            nmf(D, 3, beta_loss=1.0, max_iter=40, check_every=5, callback=lose)


def test_blocks_that_cannot_be_made_again_are_missed_in_one_sentence() -> None:
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, **QUIET) as cluster,
        distributed.Client(cluster) as client,
    ):
        blocks = client.scatter([V[:45], V[45:]], hash=False)
        D = da.concatenate([da.from_delayed(block, shape=(45, 24), dtype=V.dtype) for block in blocks])

        def kill(progress: Any) -> None:
            if progress.iteration == 10:
                os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)

        with pytest.raises(RuntimeError, match=r"^`V` is on a dask cluster that lost blocks of it"):
            nmf(D, 3, beta_loss=1.0, max_iter=40, check_every=5, tol=1e-30, callback=kill)
