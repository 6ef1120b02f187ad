"""Checkpoints of runs on V in blocks: files, iterables and dask arrays go on too; an error leaves the last one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from nmf_xp import CheckpointError, RowBlocks, nmf
from nmf_xp.data import sources
from nmf_xp.data.cluster import WorkersLostError
from nmf_xp.data.grid import GridRows
from nmf_xp.solvers.grid import GridUpdate
from tests.data.test_out_of_core import anndata, compressed_rows, function, hdf5, memmap, npy, zarr
from tests.problems import noisy

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from nmf_xp import Result

    Make = Callable[[Any, Path], Any]

V = noisy(150, 30, 3, zeros=True).V
OPTIONS: dict[str, Any] = {"beta_loss": 1, "random_state": 0, "tol": 1e-12, "check_every": 4, "max_iter": 22}


def dask_rows(V: Any, folder: Path) -> Any:
    return pytest.importorskip("dask.array").from_array(V, chunks=(40, 30))


def dask_grid(V: Any, folder: Path) -> Any:
    return pytest.importorskip("dask.array").from_array(V, chunks=(70, 12))


def dask_sparse(V: Any, folder: Path) -> Any:
    sparse = pytest.importorskip("scipy.sparse")
    return dask_rows(V, folder).map_blocks(sparse.csr_array, dtype=V.dtype)


def mapped_weights(V: Any, folder: Path) -> Any:
    return memmap(np.where(V > 2, 2.0, 1.0), folder)


SOURCES: list[Make] = [memmap, npy, hdf5, zarr, function, compressed_rows, anndata, dask_rows, dask_grid, dask_sparse]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 16 rows where the source leaves a choice."""
    monkeypatch.setattr(sources, "block_starts", lambda m, *_: [*range(0, m, 16), m])


def assert_same(found: Result, expected: Result) -> None:
    """Equal to the last bit."""
    for name in ("W", "H", "divergence", "objective", "kkt_residual", "n_iter"):
        x, y = (np.asarray(getattr(result, name)) for result in (found, expected))
        np.testing.assert_array_equal(x, y, err_msg=name)
    assert (found.history, found.status) == (expected.history, expected.status)


def made(make: Make, V: Any, folder: Path) -> Any:
    folder.mkdir(exist_ok=True)
    return make(V, folder)


@pytest.mark.parametrize("make", SOURCES)
def test_a_run_in_parts_equals_one_in_one_piece_and_another_v_is_refused(make: Make, tmp_path: Path) -> None:
    """Interrupted between two checks; another V differs in one entry of its last row."""
    source, path = made(make, V, tmp_path / "V"), tmp_path / "run.npz"
    expected = nmf(source, 3, **OPTIONS)
    for n in (9, 13):
        nmf(source, 3, **{**OPTIONS, "max_iter": n}, checkpoint=path, checkpoint_every=1)
    assert_same(nmf(source, 3, **OPTIONS, checkpoint=path), expected)
    other = V.copy()
    other[-1, np.argmax(V[-1])] += 1e-3
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match="of another run: V is not what it was"):
        nmf(made(make, other, tmp_path / "other"), 3, **OPTIONS, checkpoint=path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("make", [memmap, dask_rows])
def test_other_weights_are_refused(make: Make, tmp_path: Path) -> None:
    source, path = made(make, V, tmp_path / "V"), tmp_path / "run.npz"
    options = {**OPTIONS, "checkpoint": path}
    weights = made(mapped_weights if make is memmap else make, V + 1, tmp_path / "weights")
    nmf(source, 3, weights=weights, **options)
    assert nmf(source, 3, weights=weights, **options).n_iter == OPTIONS["max_iter"]
    numbers = np.where(V + 1 > 2, 2.0, 1.0) if make is memmap else np.asarray(weights)
    for other in ({}, {"weights": 2 * numbers}, {"missing": "nan"}):
        with pytest.raises(CheckpointError, match="of another run: weights is not what it was"):
            nmf(source, 3, **other, **options)


def test_where_blocks_end_does_not_matter_for_a_file_but_chunks_do_for_dask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How a file is read follows from the memory; it may be another one when the run goes on."""
    source, path = memmap(V, tmp_path), tmp_path / "run.npz"
    nmf(source, 3, **{**OPTIONS, "max_iter": 9}, checkpoint=path)
    monkeypatch.setattr(sources, "block_starts", lambda m, *_: [0, 50, m])
    found, expected = nmf(source, 3, **OPTIONS, checkpoint=path), nmf(source, 3, **OPTIONS)
    np.testing.assert_allclose(found.divergence, expected.divergence, rtol=1e-12)
    chunked, path = dask_rows(V, tmp_path), tmp_path / "dask.npz"
    nmf(chunked, 3, **{**OPTIONS, "max_iter": 9}, checkpoint=path)
    with pytest.raises(CheckpointError, match="V is not what it was"):
        nmf(chunked.rechunk((50, 30)), 3, **OPTIONS, checkpoint=path)


def test_a_source_that_changes_or_ends_early_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    expected = nmf(RowBlocks([V[:70], V[70:]]), 3, **OPTIONS)
    for bad, message in (([V[:70], 2 * V[70:]], "other entries in block 1"), ([V[:70]], "its end after block 0 of 2")):
        path = tmp_path / f"{len(bad)}.npz"
        held = [[V[:70], V[70:]]]

        def spoil(progress: Any, held: list[Any] = held, bad: list[Any] = bad) -> None:
            held[:] = [bad] if progress.iteration == 12 else held

        with pytest.raises(ValueError, match=message):
            nmf(RowBlocks(lambda held=held: held[0]), 3, **OPTIONS, checkpoint=path, checkpoint_every=4, callback=spoil)
        with np.load(path) as stored:
            assert '"n_iter": 12' in str(stored["header"])
        assert_same(nmf(RowBlocks([V[:70], V[70:]]), 3, **OPTIONS, checkpoint=path), expected)


def test_a_lost_cluster_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    distributed, dask = pytest.importorskip("distributed"), pytest.importorskip("dask")
    D, path = dask.array.from_array(V, chunks=(50, 30)), tmp_path / "run.npz"
    quiet: dict[str, Any] = {"dashboard_address": ":0", "silence_logs": 50}
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "2s"}),
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=False, **quiet) as cluster,
        distributed.Client(cluster) as client,
    ):

        def lose(progress: Any) -> None:
            if progress.iteration == 12:
                client.sync(cluster.scheduler.close)

        with pytest.raises(RuntimeError, match="whose scheduler is gone"):
            nmf(D, 3, **OPTIONS, checkpoint=path, checkpoint_every=4, callback=lose)
    found, expected = nmf(D, 3, **OPTIONS, checkpoint=path), nmf(D, 3, **OPTIONS)
    np.testing.assert_allclose(np.asarray(found.W), np.asarray(expected.W), rtol=1e-12)
    np.testing.assert_allclose(found.history, expected.history, rtol=1e-12)


@pytest.mark.parametrize("checkpointed", [True, False])
def test_lost_workers_cost_the_iterations_since_the_last_checkpoint(
    checkpointed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or ten, where there is none or an older one; they are lost in iteration 15 or 19."""
    D, made_again = dask_rows(V, tmp_path), []
    step, monkeypatched = GridUpdate._step, monkeypatch.setattr
    monkeypatched("nmf_xp.data.tasks.InProcess.loses", True)

    def failing(self: Any, state: Any, problem: Any, *, keeping: bool = True, **options: Any) -> Any:
        if not keeping:
            made_again.append(state.iteration)
        elif state.iteration in lost:
            lost.remove(state.iteration)
            raise WorkersLostError
        return step(self, state, problem, keeping=keeping, **options)

    lost: list[int] = []
    expected = nmf(D, 3, **OPTIONS)
    lost = [15, 19]
    monkeypatched(GridUpdate, "_step", failing)
    recorded: dict[str, Any] = {"checkpoint": tmp_path / "run.npz", "checkpoint_every": 4} if checkpointed else {}
    assert_same(nmf(D, 3, **OPTIONS, **recorded), expected)
    assert not lost
    assert made_again == ([12, 13, 14, 16, 17, 18] if checkpointed else [*range(10, 15), *range(10, 19)])


def test_workers_that_are_lost_before_a_callback_sees_w_cost_time_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    D, seen = dask_rows(V, tmp_path), []
    unpack, lost = GridRows.unpack, [1, 1]
    expected = nmf(D, 3, **OPTIONS, callback=lambda progress: seen.append(np.asarray(progress.W)))

    def failing(self: Any) -> Any:
        if len(seen) > 5 and lost:
            lost.pop()
            self.handles[:] = [None] * len(self.handles)
            raise WorkersLostError
        return unpack(self)

    monkeypatch.setattr(GridRows, "unpack", failing)
    assert_same(nmf(D, 3, **OPTIONS, callback=lambda progress: seen.append(np.asarray(progress.W))), expected)
    assert not lost
    np.testing.assert_array_equal(seen[: len(seen) // 2], seen[len(seen) // 2 :])
