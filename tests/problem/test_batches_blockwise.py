"""Batch effects where V is nowhere whole: row blocks and dask arrays give what memory gives."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import scipy.sparse

import nmf_xp
from nmf_xp import CheckpointError, ConfoundingWarning, RowBlocks
from nmf_xp.data.streamed import Streamed
from tests.compiled import eagerly
from tests.problem.test_batches import KL, planted, table_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from nmf_xp.testing import Target

nmf: Any = nmf_xp.nmf
transform: Any = nmf_xp.transform

M, N = 200, 30
V, LABELS, *_ = planted(M, N)
RNG = np.random.default_rng(1)
BESIDE: dict[str, dict[str, Any]] = {
    "nothing": {},
    "weights": {"weights": RNG.integers(0, 3, (M, N)).astype(float)},
    "weights of rows": {"weights": RNG.integers(0, 3, (M, 1)).astype(float)},
    "exposure of columns": {"exposure": RNG.lognormal(size=(1, N))},
    "exposure": {"weights": RNG.integers(0, 3, (M, N)).astype(float), "exposure": RNG.lognormal(size=(M, N))},
}
OPTIONS: dict[str, Any] = {"batch": LABELS, "check_every": 1, "tol": 1e-13, "max_iter": 12, **KL}


def blocks(x: Any) -> RowBlocks:
    """Of one, of few and of many rows; not each has rows of each batch."""
    return RowBlocks([x[:30], x[30:31], x[31:140], x[140:]])


def assert_same(result: Any, expected: Any, rtol: float = 1e-9) -> None:
    for x, y in ((result.W, expected.W), (result.H, expected.H), (result.history, expected.history)):
        np.testing.assert_allclose(np.asarray(x), np.asarray(y), rtol=rtol, atol=1e-12)
    np.testing.assert_allclose(table_of(result), table_of(expected), rtol=rtol, atol=1e-12)
    assert result.objective == pytest.approx(expected.objective, rel=1e-8)
    assert result.divergence == pytest.approx(expected.divergence, rel=1e-8)
    assert result.kkt_residual == pytest.approx(expected.kkt_residual, rel=1e-5)
    assert result.status is expected.status


@pytest.mark.parametrize("prior", [0.0, 3.0])
@pytest.mark.parametrize("beside", BESIDE)
@pytest.mark.parametrize("solver", ["mu", "mm"])
def test_row_blocks_give_what_memory_gives(solver: str, beside: str, prior: float) -> None:
    options: dict[str, Any] = {"solver": solver, "batch_prior": prior, **OPTIONS, **BESIDE[beside]}
    expected = nmf(V, 3, **options)
    assert np.max(np.diff(expected.history)) <= 1e-12 * expected.history[0]
    rtol = 1e-5 if prior else 1e-9  # where the best scale of a column is flat, it is known by its root
    assert_same(nmf(blocks(V), 3, **options), expected, rtol)
    assert_same(nmf(blocks(scipy.sparse.csr_array(V)), 3, **options), expected, rtol)


@eagerly
def test_row_blocks_of_every_library(target: Target) -> None:
    parts = [target.asarray(x) for x in (V[:30], V[30:31], V[31:140], V[140:])]
    result = nmf(RowBlocks(parts), 3, solver="mm", **OPTIONS)
    expected = nmf(V, 3, solver="mm", **OPTIONS)
    assert type(result.W) is type(parts[0])
    np.testing.assert_allclose(target.to_numpy(result.W), expected.W, rtol=1e-6, atol=1e-9)
    found = np.stack([target.to_numpy(x) for x in result.batch_effects.values()])
    np.testing.assert_allclose(found, table_of(expected), rtol=1e-6, atol=1e-9)


def test_missing_entries_and_the_automatic_solver() -> None:
    seen = np.random.default_rng(4).random(V.shape) < 0.7
    holes = np.where(seen, V, np.nan)
    expected = nmf(holes, 3, missing="nan", solver="mm", **OPTIONS)
    streamed = nmf(blocks(holes), 3, missing="nan", **OPTIONS)
    assert streamed.solver == "mm"
    assert_same(streamed, expected)


@pytest.mark.parametrize(("beside", "reads"), [("nothing", 1), ("weights", 2)])
def test_an_iteration_reads_v_once_and_with_weights_twice(
    beside: str, reads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    count: list[int] = []
    whole = Streamed._pass

    def counted(self: Streamed) -> Any:
        count.append(1)
        return whole(self)

    monkeypatch.setattr(Streamed, "_pass", counted)
    found = []
    for max_iter in (10, 30):
        count.clear()
        nmf(blocks(V), 3, solver="mu", **{**OPTIONS, **BESIDE[beside], "tol": 0.0, "max_iter": max_iter})
        found.append(len(count))
    assert found[1] - found[0] == 20 * reads


def test_transform_of_blocks_keeps_known_effects_and_finds_others() -> None:
    fitted = nmf(V[:150], 3, batch=LABELS[:150], **KL)
    new = np.where(LABELS == "z", "other", LABELS)
    options: dict[str, Any] = {"batch": new, "max_iter": 300, "tol": 1e-12, "solver": "mu"}
    expected = transform(V, fitted, **options)
    assert_same(transform(blocks(V), fitted, **options), expected)
    dask = importlib.import_module("dask.array")
    assert_same(transform(dask.from_array(V, chunks=(60, 11)), fitted, **options), expected)
    lacking = fitted.H.copy()
    lacking[:, 4] = 0  # no component reaches this column
    expected = transform(V, lacking, beta_loss=1.0, **options)
    streamed = transform(blocks(V), lacking, beta_loss=1.0, **options)
    np.testing.assert_allclose(streamed.W, expected.W, rtol=1e-9, atol=1e-12)


def test_checkpoints_of_blocks(tmp_path: Path) -> None:
    dask = importlib.import_module("dask.array")
    kinds: list[Callable[[], Any]] = [lambda: blocks(V), lambda: dask.from_array(V, chunks=(60, 11))]
    for i, data in enumerate(kinds):
        path = tmp_path / f"{i}.npz"
        options: dict[str, Any] = {"batch": LABELS, "tol": 0, "solver": "mu", **KL}
        kept: dict[str, Any] = {"checkpoint": path, "checkpoint_every": 10}
        nmf(data(), 3, max_iter=20, **kept, **options)
        resumed, whole = nmf(data(), 3, max_iter=40, **kept, **options), nmf(data(), 3, max_iter=40, **options)
        np.testing.assert_array_equal(np.asarray(resumed.W), np.asarray(whole.W))
        np.testing.assert_array_equal(table_of(resumed), table_of(whole))
        with pytest.raises(CheckpointError, match="in the batches"):
            nmf(data(), 3, max_iter=60, **kept, **{**options, "batch": LABELS[::-1]})


@pytest.mark.parametrize("prior", [0.0, 3.0])
@pytest.mark.parametrize("beside", BESIDE)
@pytest.mark.parametrize("chunks", [(60, 30), (70, 11), (200, 30)])
def test_dask_arrays_give_what_memory_gives(chunks: tuple[int, int], beside: str, prior: float) -> None:
    dask = importlib.import_module("dask.array")
    options: dict[str, Any] = {"solver": "mu", "batch_prior": prior, **OPTIONS, **BESIDE[beside]}
    expected = nmf(V, 3, **options)
    rtol = 1e-5 if prior else 1e-9
    assert_same(nmf(dask.from_array(V, chunks=chunks), 3, **options), expected, rtol)
    sparse = dask.from_array(V, chunks=chunks).map_blocks(scipy.sparse.csr_array)
    assert_same(nmf(sparse, 3, **options), expected, rtol)


def test_on_a_cluster_whose_workers_are_killed() -> None:
    dask, distributed = importlib.import_module("dask.array"), importlib.import_module("distributed")
    options: dict[str, Any] = {**OPTIONS, "solver": "mu", "max_iter": 30, "check_every": 5}
    expected = nmf(V, 3, **options)
    weighted = nmf(V, 3, **options, **BESIDE["weights"])
    quiet: dict[str, Any] = {"dashboard_address": ":0", "silence_logs": 50}
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, **quiet) as cluster,
        distributed.Client(cluster) as client,
    ):
        D = dask.from_array(V, chunks=(60, 11))
        assert_same(nmf(D, 3, **options, **BESIDE["weights"]), weighted)
        killed: list[int] = []

        def kill(progress: Any) -> None:
            if progress.iteration == 15 and not killed:
                killed.append(next(iter(client.run(os.getpid).values())))
                os.kill(killed[0], signal.SIGKILL)

        assert_same(nmf(D, 3, callback=kill, **options), expected)
    assert killed


PROGRAM = """
import resource, sys
import numpy as np
from nmf_xp import RowBlocks, nmf
V = np.load(sys.argv[1], mmap_mode="r")
batch = np.arange(V.shape[0]) % 5 if sys.argv[2] == "yes" else None
nmf(RowBlocks(V), 4, beta_loss=1.0, random_state=0, solver="mu", max_iter=3, tol=0, batch=batch)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_is_that_of_a_table(tmp_path: Path) -> None:
    np.save(tmp_path / "V.npy", np.random.default_rng(0).poisson(2.0, (40000, 500)).astype(np.float32))

    def peak(batch: str) -> float:
        arguments = [sys.executable, "-c", PROGRAM, str(tmp_path / "V.npy"), batch]
        return min(int(subprocess.run(arguments, capture_output=True, check=True).stdout) for _ in range(2)) / 1024

    with_batches, without = peak("yes"), peak("no")
    assert with_batches - without < 25  # MB; V has 80, and each thread a block with its factors


def test_a_dask_result_is_asked_for_confounding_too() -> None:
    dask = importlib.import_module("dask.array")
    rng = np.random.default_rng(0)
    W, H = rng.dirichlet(np.full(3, 0.3), size=90), rng.gamma(0.3, size=(3, 40))
    labels = np.repeat(["a", "b", "c"], 30)
    W[labels != "c", 2] = 0
    counts = rng.poisson(300 * W @ H).astype(float)
    start = W + 1e-30, H + 1e-9
    for data in (dask.from_array(counts, chunks=(40, 40)), RowBlocks([counts[:35], counts[35:]])):
        with pytest.warns(ConfoundingWarning, match="component 2 in 'c'"):
            nmf(data, 3, init=start, batch=labels, beta_loss=1.0, solver="mu")


def test_what_is_refused_of_blocks() -> None:
    with pytest.raises(ValueError, match="one label for each of the 200 rows"):
        nmf(blocks(V), 3, batch=LABELS[:-1], **KL)
    with pytest.raises(ValueError, match="`solver` must be 'mm' or 'mu' for `batch`"):
        nmf(blocks(V), 3, batch=LABELS, solver="online", **KL)
    with pytest.raises(ValueError, match="in memory only"):
        nmf(blocks(V), 3, batch=LABELS, solver="newton", **KL)
