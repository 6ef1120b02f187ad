"""V that is read block by block: the same answers as in memory, one read an iteration, and little memory."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from nmf_xp import RowBlocks, consensus_factors, nmf, select_rank, transform
from nmf_xp.arrays import libraries, memory, threads
from nmf_xp.data import sources
from nmf_xp.data.blocks import Part
from nmf_xp.data.constraints import FREE
from nmf_xp.data.kinds import Kind, kind_of
from nmf_xp.data.streamed import Streamed
from nmf_xp.testing import Backend
from tests.problems import noisy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nmf_xp import Result

OPTIONS: dict[str, Any] = {"random_state": 0, "max_iter": 12, "tol": 1e-6}


def memmap(V: Any, folder: Path) -> Any:
    np.save(folder / "V.npy", V)
    return RowBlocks(np.load(folder / "V.npy", mmap_mode="r"))


def npy(V: Any, folder: Path) -> Any:
    np.save(folder / "V.npy", V)
    return RowBlocks(sources.Rows(sources.NpyFile(folder / "V.npy")))


def hdf5(V: Any, folder: Path) -> Any:
    h5py = pytest.importorskip("h5py")
    return h5py.File(folder / "V.h5", "w").create_dataset("V", data=V, chunks=(16, V.shape[1]))


def zarr(V: Any, folder: Path) -> Any:
    stored = pytest.importorskip("zarr").create_array(folder / "V.zarr", shape=V.shape, chunks=(16, 30), dtype=V.dtype)
    stored[:] = V
    return stored


def blocks(V: Any, folder: Path) -> Any:
    return RowBlocks([V[:37], V[37:40], V[40:]])


def function(V: Any, folder: Path) -> Any:
    return RowBlocks(lambda: (V[i : i + 20] for i in range(0, V.shape[0], 20)))


def compressed_rows(V: Any, folder: Path) -> Any:
    h5py, csr = pytest.importorskip("h5py"), pytest.importorskip("scipy.sparse").csr_array(V)
    group = h5py.File(folder / "V.h5", "w").create_group("V")
    for name in ("data", "indices", "indptr"):
        group[name] = getattr(csr, name)
    group.attrs["shape"] = V.shape
    return group


def anndata(V: Any, folder: Path) -> Any:
    library, sparse = pytest.importorskip("anndata"), pytest.importorskip("scipy.sparse")
    library.AnnData(sparse.csr_matrix(V)).write_h5ad(folder / "V.h5ad")
    return library.read_h5ad(folder / "V.h5ad", backed="r")


def sparse_blocks(V: Any, folder: Path) -> Any:
    sparse = pytest.importorskip("scipy.sparse")
    return RowBlocks([sparse.csr_array(V[:60]), sparse.coo_array(V[60:])])


DENSE = [memmap, npy, hdf5, zarr, blocks, function]
SPARSE = [compressed_rows, anndata, sparse_blocks]


def assert_same(result: Result, expected: Result) -> None:
    """The same run but for the order in which sums are rounded, which the steps of `mm` magnify."""
    for x, y in ((result.W, expected.W), (result.H, expected.H), (result.history, expected.history)):
        np.testing.assert_allclose(np.asarray(x), np.asarray(y), rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(result.divergence, expected.divergence, rtol=1e-10)
    np.testing.assert_allclose(result.kkt_residual, expected.kkt_residual, rtol=1e-8)
    assert (result.n_iter, result.status, result.solver) == (expected.n_iter, expected.status, expected.solver)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 16 rows where the source leaves a choice."""
    monkeypatch.setattr(sources, "block_starts", lambda m, *_: [*range(0, m, 16), m])


@pytest.mark.parametrize("solver", ["mm", "mu"])
@pytest.mark.parametrize("make", DENSE)
def test_every_source_gives_what_memory_gives(make: Callable[[Any, Path], Any], solver: str, tmp_path: Path) -> None:
    V = noisy(150, 30, 3).V
    source = make(V, tmp_path)
    for beta in (1.0, 2.0, 0.5):
        options = {"beta_loss": beta, "solver": solver, **OPTIONS}
        assert_same(nmf(source, 3, **options), nmf(V, 3, **options))


@pytest.mark.parametrize("make", [*DENSE, *SPARSE])
def test_online_takes_every_source_batch_by_batch(make: Callable[[Any, Path], Any], tmp_path: Path) -> None:
    """As in memory where the blocks consist of batches; of two blocks of three rows less, as long as they are."""
    V = noisy(150, 30, 3).V * (np.random.default_rng(0).random((150, 30)) < 0.4)
    options: dict[str, Any] = {"beta_loss": 1.0, **OPTIONS}
    expected = nmf(V, 3, solver=("online", {"batch_size": 4}), **options)
    result = nmf(make(V, tmp_path), 3, solver=("online", {"batch_size": 4}), **options)
    if make in (blocks,):  # of 37 and 3 rows
        assert expected.divergence * 0.99 < result.divergence < expected.divergence * 1.01
    else:
        np.testing.assert_allclose(result.H, expected.H, rtol=1e-7)
        np.testing.assert_allclose(result.history, expected.history, rtol=1e-8)


@pytest.mark.parametrize("make", SPARSE)
def test_sparse_rows_give_what_memory_gives(make: Callable[[Any, Path], Any], tmp_path: Path) -> None:
    V = noisy(150, 30, 3).V * (np.random.default_rng(0).random((150, 30)) < 0.2)
    source, csr = make(V, tmp_path), pytest.importorskip("scipy.sparse").csr_array(V)
    for beta in (1.0, 2.0):
        options = {"beta_loss": beta, "solver": "mu", **OPTIONS}
        assert_same(nmf(source, 3, **options), nmf(csr, 3, **options))


RNG = np.random.default_rng(1)
WEIGHTS = RNG.random((150, 30)) * (RNG.random((150, 30)) < 0.8)


@pytest.mark.parametrize("solver", ["mm", "mu"])
@pytest.mark.parametrize(
    "options",
    [
        {"alpha_W": 0.01, "alpha_H": 0.02, "l1_ratio": 0.5},
        {"upper_w": 0.8, "upper_h": RNG.random((3, 30)) + 0.5},
        {"init": (RNG.random((150, 3)), RNG.random((3, 30))), "fixed_w": RNG.random((150, 3)) < 0.1},
        {"weights": WEIGHTS},
        {"weights": WEIGHTS[:1]},
        {"weights": WEIGHTS[:, :1]},
        {"missing": "nan"},
        {"normalize": "H"},
        {"init": "nndsvda"},
        {"tol": 0.0},
    ],
    ids=lambda options: "-".join(options),
)
def test_every_option_does_what_it_does_in_memory(options: dict[str, Any], solver: str) -> None:
    V = noisy(150, 30, 3).V
    if "missing" in options:
        V[WEIGHTS == 0] = np.nan
    options = {"beta_loss": 1.0, "solver": solver, **OPTIONS, **options}
    assert_same(nmf(RowBlocks(V), 3, **options), nmf(V, 3, **options))


@pytest.mark.parametrize("shape", [(150, 30), (1, 30), (150, 1)])
def test_weights_come_from_a_file_too(shape: tuple[int, int], tmp_path: Path) -> None:
    V, weights = noisy(150, 30, 3).V, WEIGHTS[: shape[0], : shape[1]]
    options = {"beta_loss": 1.0, "solver": "mm", **OPTIONS}
    result = nmf(RowBlocks(V), 3, weights=memmap(weights, tmp_path), **options)
    assert_same(result, nmf(V, 3, weights=weights, **options))


@pytest.mark.parametrize("dtype", ["float16", "float32", "int16", "bool"])
def test_every_dtype_is_factorized_in_that_of_an_array(dtype: str) -> None:
    V = noisy(150, 30, 3).V.astype(dtype)
    result, expected = (nmf(x, 3, solver="mu", random_state=0, max_iter=5) for x in (RowBlocks(V), V))
    assert result.W.dtype == expected.W.dtype
    np.testing.assert_allclose(result.W, expected.W, rtol=1e-4)
    narrow = nmf(RowBlocks(V, dtype="float32"), 3, solver="mu", random_state=0, max_iter=5)
    assert narrow.W.dtype == np.float32


@pytest.mark.parametrize("scale", [1e-250, 1e250])
def test_extreme_data_are_scaled_as_in_memory(scale: float) -> None:
    V = noisy(150, 30, 3).V * scale
    options = {"beta_loss": 1.0, "solver": "mm", **OPTIONS}
    assert_same(nmf(RowBlocks(V), 3, **options), nmf(V, 3, **options))


def test_new_rows_are_transformed() -> None:
    V, _, H = noisy(150, 30, 3)
    for beta in (1.0, 2.0):
        options: dict[str, Any] = {"beta_loss": beta, "solver": "mm"}
        assert_same(transform(RowBlocks(V), H, **options), transform(V, H, **options))


def test_auto_takes_the_solver_that_reads_rows_only_and_says_so() -> None:
    V = noisy(150, 30, 3).V
    for beta in (0.5, 1.0, 2.0):
        assert nmf(RowBlocks(V), 3, beta_loss=beta, max_iter=1).solver == "mm"


@pytest.mark.parametrize("backend", [Backend.STRICT_DEVICE, Backend.TORCH, Backend.JAX])
def test_blocks_are_moved_to_where_like_is(backend: Backend) -> None:
    if backend.missing() is not None:
        pytest.skip(f"{backend.value}: {backend.missing()}")
    target = backend.target()
    V = noisy(150, 30, 3).V
    sparse = pytest.importorskip("scipy.sparse").csr_array(V * (V > 1.5))
    with target.active():
        like = target.asarray(np.zeros(1))
        for data in (V, sparse):
            if data is sparse and backend is not Backend.TORCH:
                continue  # one has no sparse products, and the other would compile them for each block
            source = RowBlocks([data[:60], data[60:]], like=like)
            for solver in ("mm", "mu"):
                options = {"beta_loss": 1.0, "solver": solver, **OPTIONS}
                result, expected = nmf(source, 3, **options), nmf(data, 3, **options)
                assert type(result.W) is type(like)
                assert getattr(result.W, "device", None) == getattr(like, "device", None)
                for x, y in ((result.W, expected.W), (result.H, expected.H)):
                    np.testing.assert_allclose(target.to_numpy(x), y, rtol=1e-7)
            again = transform(source, result.H, beta_loss=1.0)
            assert again.divergence <= result.divergence * (1 + 1e-4)


@pytest.mark.parametrize(("tol", "passes"), [(0.0, 12 + 3), (1e-30, 12 + 3 + 1)])
def test_an_iteration_reads_v_once(tol: float, passes: int) -> None:
    V = noisy(150, 30, 3).V
    begun: list[int] = []

    def source() -> Iterator[Any]:
        begun.append(1)
        return iter([V[:70], V[70:]])

    nmf(RowBlocks(source), 3, beta_loss=1.0, solver="mu", max_iter=12, check_every=3, tol=tol, random_state=0)
    assert len(begun) == passes  # to check V, to scale the start, for the report, and a step that came too late


def test_the_next_block_is_read_while_this_one_is_in_use() -> None:
    V = noisy(150, 30, 3).V
    read: list[threading.Event] = []

    def source() -> Iterator[Any]:
        for event, start in zip(read, range(0, 150, 50), strict=False):
            event.set()
            yield V[start : start + 50]

    read[:] = [threading.Event() for _ in range(3)]
    data = Streamed(RowBlocks(source), None, beta=1.0, missing=None, absent="zero")
    read[:] = [threading.Event() for _ in range(3)]
    seen: list[bool] = []

    def use(block: Any, W: Any, constraints: Any) -> Part:
        following = len(seen) + 1
        seen.append(following == 3 or read[following].wait(timeout=10))
        return Part(W, ())

    assert threads.count() == 1
    data.sweep(use, np.zeros((150, 1)), FREE, xp=libraries.array_namespace(V))
    assert seen == [True] * 3


def test_the_result_is_the_same_in_every_run() -> None:
    V = noisy(150, 30, 3).V
    first, second = (nmf(RowBlocks(V), 3, beta_loss=1.0, random_state=0) for _ in range(2))
    np.testing.assert_array_equal(first.W, second.W)
    assert first.history == second.history


def test_a_bad_entry_is_placed() -> None:
    V = noisy(16 * 40, 30, 3).V
    for value, what in ((np.nan, "finite, got NaN"), (-1.0, "non-negative, got -1")):
        V[16 * 37 + 4, 2] = value
        with pytest.raises(
            ValueError, match=rf"^`V` must be {what}.* index \({16 * 37 + 4}, 2\).*in block 37, .* row {16 * 37} of V"
        ):
            nmf(RowBlocks(V), 3)


def test_a_file_that_changes_during_the_run_is_found_out(tmp_path: Path) -> None:
    V = noisy(150, 30, 3).V
    mapped = npy(V, tmp_path)

    def overwrite(progress: Any) -> None:
        changed = np.load(tmp_path / "V.npy", mmap_mode="r+")
        changed[40:60] *= 2
        changed.flush()

    with pytest.raises(ValueError, match=r"^`V` must be the same in every pass, got other entries in block 2"):
        nmf(mapped, 3, callback=overwrite)
    (tmp_path / "V.npy").write_bytes((tmp_path / "V.npy").read_bytes()[:-1000])
    with pytest.raises(ValueError, match=r"^`V` must be the same in every pass, got the end of .*V.npy before its row"):
        nmf(mapped, 3)


def test_an_error_of_the_source_stops_the_run() -> None:
    V = noisy(150, 30, 3).V
    taken: list[int] = []

    def source() -> Iterator[Any]:
        for start in range(0, 150, 10):
            taken.append(start)
            if len(taken) == 20:
                msg = "the tape is torn"
                raise OSError(msg)
            yield V[start : start + 10]

    with pytest.raises(OSError, match="the tape is torn"):
        nmf(RowBlocks(source), 3)
    assert len(taken) == 20


def test_a_matrix_in_memory_is_streamed_only_on_request(tmp_path: Path) -> None:
    memmap(noisy(150, 30, 3).V, tmp_path)
    V = np.load(tmp_path / "V.npy", mmap_mode="r")
    assert all(kind_of(x) is Kind.STREAMED for x in (V, V[10:20], V[:, ::2], RowBlocks(np.asarray(V))))
    assert all(kind_of(x) is Kind.WHOLE for x in (np.asarray(V), V.copy(), V + 1.0, V[0]))


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
@pytest.mark.parametrize("dtype", ["float64", "float32", "int16", "bool"])
def test_a_memory_map_that_fits_is_an_array(mode: Any, dtype: str, tmp_path: Path) -> None:
    np.save(tmp_path / "V.npy", noisy(40, 30, 3).V.astype(dtype) + np.eye(40, 30, dtype=dtype))
    mapped = np.load(tmp_path / "V.npy", mmap_mode=mode)
    V, H = np.array(mapped), nmf(np.array(mapped), 3, random_state=0).H
    calls: list[Callable[[Any], Any]] = [
        lambda V: nmf(V, 3, **OPTIONS),
        lambda V: nmf(V, 3, beta_loss=1, n_restarts=3, **OPTIONS),
        lambda V: nmf(V, 3, init="nndsvda", beta_loss=1, solver="newton", **OPTIONS),
        lambda V: nmf(V[3:, ::2], 3, solver="cd-plain", **OPTIONS),
        lambda V: nmf(np.ones((40, 30)), 3, weights=V, **OPTIONS),
        lambda V: transform(V, H),
        lambda V: select_rank(V, [1, 2], n_restarts=2, n_folds=2, random_state=0).best[2],
        lambda V: consensus_factors(V, 2, n_restarts=4, max_distance=2, random_state=0).result,
    ]
    before = (tmp_path / "V.npy").read_bytes()
    for call in calls:
        found, expected = call(mapped), call(V)
        assert found.solver == expected.solver
        assert type(found.W) is type(found.H) is np.ndarray
        np.testing.assert_array_equal(found.W, expected.W)
        np.testing.assert_array_equal(found.H, expected.H)
    assert (tmp_path / "V.npy").read_bytes() == before


def test_a_stack_in_a_memory_map_is_an_array(tmp_path: Path) -> None:
    V = np.stack([noisy(12, 9, 3).V, noisy(12, 9, 2).V])
    np.save(tmp_path / "V.npy", V)
    found = nmf(np.load(tmp_path / "V.npy", mmap_mode="r"), 3, **OPTIONS)
    np.testing.assert_array_equal(found.W, nmf(V, 3, **OPTIONS).W)


@pytest.mark.parametrize("dtype", ["float64", "uint8"])
def test_a_memory_map_is_read_by_blocks_where_memory_asks_for_it(
    dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Integers take as much as what is made of them."""
    np.save(tmp_path / "V.npy", (10 * noisy(40, 30, 3).V).astype(dtype))
    V = np.load(tmp_path / "V.npy", mmap_mode="r")
    needed = int(memory.ROOM * 40 * 30 * 8)
    asked: list[int] = []

    def available() -> int:
        asked.append(needed)
        return needed - (len(asked) > 1)  # less at every later look, which must change nothing

    monkeypatch.setattr(memory, "available", available)
    assert nmf(V, 3, **OPTIONS).solver == "cd"
    assert nmf(V, 3, **OPTIONS).solver == "mm"
    with pytest.raises(ValueError, match="`n_restarts` must be 1 for data that are read block by block"):
        nmf(V, 3, n_restarts=2)
    with pytest.raises(ValueError, match="read block by block"):
        nmf(V, 3, solver="cd")
    monkeypatch.setattr(memory, "available", lambda: 10 * needed)
    assert nmf(RowBlocks(V), 3, **OPTIONS).solver == "mm"  # the user does


def test_memory_maps_that_joblib_makes_are_arrays_for_the_estimators(tmp_path: Path) -> None:
    """joblib maps what a worker process gets, also the parts of a sparse matrix."""
    joblib = pytest.importorskip("joblib", reason="joblib is not installed")
    sparse = pytest.importorskip("scipy.sparse", reason="scipy is not installed")
    from nmf_xp.sklearn import NMF, MiniBatchNMF

    X = noisy(40, 30, 3).V
    for made in (X, sparse.csr_array(X), sparse.csc_array(X)):
        joblib.dump(made, tmp_path / "X")
        mapped = joblib.load(tmp_path / "X", mmap_mode="r")
        assert isinstance(getattr(mapped, "data", None) if made is not X else mapped, np.memmap)
        options: dict[str, Any] = {"random_state": 0, "max_iter": 3000, "tol": 1e-3}
        models = NMF(3, **options), NMF(3, solver="mu", beta_loss=1, **options), MiniBatchNMF(3, **options)
        for model in models:
            expected = model.fit_transform(made)
            np.testing.assert_array_equal(model.fit_transform(mapped), expected)
            assert type(model.components_) is np.ndarray
        found = nmf(mapped, 3, beta_loss=1, **OPTIONS)
        np.testing.assert_array_equal(found.W, nmf(made, 3, beta_loss=1, **OPTIONS).W)


LIMITED = """
import resource, sys, time
import numpy as np
from nmf_xp import nmf, RowBlocks
from nmf_xp.arrays import memory

# What is loaded at the first call, and the buffers that BLAS keeps for each thread, are no memory of the run.
nmf(RowBlocks(np.ones((8000, 500))), 4)
kind, path, allowed = sys.argv[1], sys.argv[2], int(sys.argv[3])
if kind == "hdf5":
    import h5py
    V = h5py.File(path, "r")["V"]
else:
    V = np.load(path, mmap_mode="r")

def used(name):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))

before = 0
while before != used("VmData"):  # threads of that call may still be giving back their stacks
    before = used("VmData")
    time.sleep(0.2)
resource.setrlimit(resource.RLIMIT_DATA, (before + allowed, -1))
assert memory.available() <= allowed
try:
    np.array(V)
except MemoryError:
    print("V does not fit")
open("/proc/self/clear_refs", "w").write("5")  # the peak begins here
resident = used("RssAnon")
result = nmf(V, 4, random_state=0, max_iter=2)
print(result.solver, result.n_iter, result.divergence < result.history[0])
if kind == "hdf5":  # what is mapped counts as resident too, and is given back when it is needed
    print("peak", used("VmHWM") - resident - used("RssFile"))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="limits and peaks are Linux's")
@pytest.mark.parametrize("kind", ["memmap", "hdf5"])
def test_v_of_eight_times_the_allowed_memory_is_factorized(kind: str, tmp_path: Path) -> None:
    allowed = 32 * 2**20
    m, n = 8 * allowed // 8 // 2048, 2048
    rows = np.random.default_rng(0).gamma(2.0, 1.0, size=(m // 64, n))
    if kind == "hdf5":
        stored: Any = pytest.importorskip("h5py").File(tmp_path / "V", "w").create_dataset("V", (m, n), "f8")
    else:
        stored = np.lib.format.open_memmap(tmp_path / "V", mode="w+", shape=(m, n), dtype="f8")
    for i in range(64):
        stored[i * len(rows) : (i + 1) * len(rows)] = rows * (1 + i % 3)
    assert stored.nbytes == 8 * allowed
    _ = stored.file.close() if kind == "hdf5" else stored.flush()
    command = [sys.executable, "-c", LIMITED, kind, str(tmp_path / "V"), str(allowed)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"NMF_XP_KERNELS": "0"})
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:2] == ["V does not fit", "mm 2 True"]
    assert all(int(line.split()[1]) < allowed for line in lines[2:])
