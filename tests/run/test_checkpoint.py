"""Runs that are killed, stopped and taken up again, and checkpoints that must not be."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import nmf_xp
from nmf_xp import CheckpointError, Status
from nmf_xp.arrays import transfer
from nmf_xp.cli import main
from nmf_xp.run.checkpoint import storage
from nmf_xp.run.checkpoint.place import folder_of, last
from nmf_xp.testing import Backend, Target
from tests.problems import noisy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FORMATS = ["run.npz", "run.safetensors", "run.zarr"]
V = noisy(30, 20, 3, zeros=True).V
OPTIONS: dict[str, Any] = {"beta_loss": 1, "solver": "mu", "random_state": 0, "tol": 0, "max_iter": 40}


@pytest.fixture(params=FORMATS)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param != "run.npz":
        pytest.importorskip(request.param.removeprefix("run."))
    return tmp_path / request.param


def assert_same(found: nmf_xp.Result, expected: nmf_xp.Result) -> None:
    """Equal to the last bit, in all that a result holds."""
    for name in ("W", "H", "divergence", "objective", "kkt_residual", "n_iter"):
        x, y = (transfer.to_host(getattr(result, name)) for result in (found, expected))
        np.testing.assert_array_equal(x, y, err_msg=name)
    assert found.history == expected.history
    assert found.status == expected.status


class KilledError(Exception):
    """What ends a run as if its process had ended."""


def killed_at(n_iter: int, make: Callable[..., nmf_xp.Result], *arguments: Any, **options: Any) -> list[int]:
    """Run until a callback raises; returns the checks that it saw."""
    seen: list[int] = []

    def callback(progress: nmf_xp.Progress) -> None:
        seen.append(progress.iteration)
        if progress.iteration >= n_iter:
            raise KilledError

    with pytest.raises(KilledError):
        make(*arguments, **options, callback=callback)
    return seen


KINDS: dict[str, dict[str, Any]] = {
    "mu": {"beta_loss": 1, "solver": "mu"},
    "mm": {"beta_loss": 1.5, "solver": "mm"},
    "newton": {"beta_loss": 1, "solver": "newton"},
    "cd": {"beta_loss": 2, "solver": "cd"},
    "cd-plain": {"beta_loss": 2, "solver": "cd-plain"},
    "online": {"beta_loss": 1, "solver": ("online", {"batch_size": 8})},
    "nndsvd": {"beta_loss": 2, "solver": "cd", "init": "nndsvda"},
    "penalty": {"beta_loss": 1, "solver": "mm", "alpha_W": 0.01, "l1_ratio": 0.5, "upper_h": 0.8},
    "restarts": {"beta_loss": 1, "solver": "mu", "n_restarts": 4, "keep_restarts": True, "normalize": "W"},
}


EVERYWHERE = [("mu", 0), ("newton", 0), ("newton", 2e-3), ("mm", 2e-3), ("restarts", 2e-3)]
OTHER_LIBRARIES = (Backend.STRICT_DEVICE, Backend.JAX, Backend.TORCH)


@pytest.mark.parametrize(
    ("target", "kind", "tol"),
    [
        *((Backend.NUMPY, kind, tol) for kind in KINDS for tol in (0, 2e-3)),
        *((backend, kind, tol) for backend in OTHER_LIBRARIES for kind, tol in EVERYWHERE),
    ],
    indirect=["target"],
)
def test_a_run_in_parts_equals_one_in_one_piece(target: Target, kind: str, tol: float, tmp_path: Path) -> None:
    """Interrupted twice, between two checks too; with a float32 V in Fortran's memory order, where there is one."""
    options = {"random_state": 0, "tol": tol, "check_every": 4, "max_iter": 40, **KINDS[kind]}
    X = target.asarray(np.asfortranarray(V), "float32")
    expected = nmf_xp.nmf(X, 3, **options)
    path = tmp_path / "run.npz"
    for n in (9, 13):
        nmf_xp.nmf(X, 3, **{**options, "max_iter": n}, checkpoint=path, checkpoint_every=1)
    found = nmf_xp.nmf(X, 3, **options, checkpoint=path, checkpoint_every=1)
    assert_same(found, expected)
    if found.restarts is not None:
        assert expected.restarts is not None
        assert_same(found.restarts, expected.restarts)
    assert type(found.W) is type(expected.W)


@pytest.mark.parametrize("kind", ["mu", "newton", "cd", "mm"])
@pytest.mark.parametrize("data", ["large", "sparse", "weighted", "stack"])
def test_threads_and_kernels_take_up_a_run_to_the_last_bit(kind: str, data: str, tmp_path: Path) -> None:
    """NumPy's blocks and threads, sums by blocks included, and the kernels where numba is installed."""
    rng = np.random.default_rng(0)
    X: Any = rng.gamma(1.0, 1.0, (5, 60, 40) if data == "stack" else (500, 300))
    options = {"random_state": 0, "tol": 1e-5, "check_every": 3, "max_iter": 20, **KINDS[kind]}
    if data == "sparse":
        X = pytest.importorskip("scipy.sparse").csr_array(X * (X > 2))
    if data == "weighted":
        options["weights"] = (rng.random(X.shape) < 0.9).astype(float)
    expected = nmf_xp.nmf(X, 5, **options)
    path = tmp_path / "run.npz"
    for n in (6, 10):
        killed_at(n, nmf_xp.nmf, X, 5, **options, checkpoint=path, checkpoint_every=1)
    assert_same(nmf_xp.nmf(X, 5, **options, checkpoint=path), expected)


def test_members_that_have_ended_stay_as_they_were(tmp_path: Path) -> None:
    """On NumPy they leave the stack at once, on JAX when half of them have ended."""
    stack = np.stack([noisy(12, 9, 3, seed=i).V for i in range(6)])
    options: dict[str, Any] = {**OPTIONS, "tol": 3e-3, "check_every": 2, "max_iter": 200}
    arrays: list[Any] = [stack]
    with contextlib.suppress(ImportError):
        import jax.numpy as jnp

        arrays += [jnp.asarray(np.repeat(stack[:2], 2, axis=0) + 0.0), jnp.asarray(np.tile(stack, (1, 40, 40)))]
    for i, X in enumerate(arrays):
        expected = nmf_xp.nmf(X, 3, **options)
        ends = sorted(set(expected.n_iter.tolist()))
        assert len(ends) > 1
        for n in ends[:-1]:
            killed_at(n + 2, nmf_xp.nmf, X, 3, **options, checkpoint=tmp_path / f"{i}.npz", checkpoint_every=1)
        assert_same(nmf_xp.nmf(X, 3, **options, checkpoint=tmp_path / f"{i}.npz"), expected)


def test_transform_goes_on_too(tmp_path: Path) -> None:
    H = nmf_xp.nmf(V, 3, **OPTIONS).H
    options: dict[str, Any] = {"beta_loss": 1, "tol": 1e-9, "max_iter": 30}
    expected = nmf_xp.transform(V, H, **options)
    path = tmp_path / "run.npz"
    killed_at(20, nmf_xp.transform, V, H, **options, checkpoint=path, checkpoint_every=10)
    assert position(path) == 10
    with pytest.raises(CheckpointError, match=r"another run: init is not what it was; name another file"):
        nmf_xp.transform(V, 2 * H, **options, checkpoint=path)
    with pytest.raises(CheckpointError, match=r"function was transform and is nmf"):
        nmf_xp.nmf(V, 3, **options, checkpoint=path)
    assert_same(nmf_xp.transform(V, H, **options, checkpoint=path), expected)


def previous(path: Path) -> Path:
    """Where the checkpoint before the last one is."""
    (found,) = folder_of(path).glob("previous-*")
    return found


def position(path: Path) -> int:
    stored = last(path)
    assert stored is not None
    return int(stored.header["n_iter"])


def test_callbacks_go_on_and_the_last_two_are_kept(path: Path) -> None:
    options = {**OPTIONS, "checkpoint": path, "checkpoint_every": 20, "max_iter": 90}
    assert killed_at(70, nmf_xp.nmf, V, 3, **options) == [10, 20, 30, 40, 50, 60, 70]
    assert (position(path), position(previous(path))) == (60, 40)
    seen: list[tuple[int, float]] = []
    result = nmf_xp.nmf(V, 3, **options, callback=lambda p: seen.append((p.iteration, p.divergence)))
    assert [n for n, _ in seen] == [70, 80, 90]
    assert tuple(x for _, x in seen) == result.history[-3:]
    assert_same(result, nmf_xp.nmf(V, 3, **{**OPTIONS, "max_iter": 90}, callback=lambda _: None))
    assert (position(path), position(previous(path))) == (90, 80)
    assert sorted(p.name for p in path.parent.iterdir()) == [path.name, f"{path.name}.nmf-xp"]
    assert sorted(p.name for p in folder_of(path).iterdir()) == ["lock", previous(path).name]


def test_a_run_that_has_ended_returns_at_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {**OPTIONS, "tol": 1e-3, "max_iter": 1000}
    expected = nmf_xp.nmf(V, 3, **options, checkpoint=path)
    assert expected.n_iter < 1000

    def step(*_: Any, **__: Any) -> None:
        pytest.fail("an iteration ran")

    monkeypatch.setattr("nmf_xp.solvers.mu.MultiplicativeUpdate.steps", step)
    assert_same(nmf_xp.nmf(V, 3, **options, checkpoint=path), expected)
    assert_same(nmf_xp.nmf(V, 3, **{**options, "max_iter": 2000}, checkpoint=path), expected)


def test_a_longer_run_is_the_same_run(path: Path) -> None:
    """Past an end between two checks, to a smaller tolerance, and from no tolerance to one."""
    options = {**OPTIONS, "checkpoint": path}
    for shorter in ({"max_iter": 25, "tol": 1e-12}, {"max_iter": 47, "tol": 1e-2}, {"max_iter": 200, "tol": 1e-3}):
        nmf_xp.nmf(V, 3, **{**options, **shorter})
    longer = {**OPTIONS, "max_iter": 400, "tol": 1e-5}
    assert_same(nmf_xp.nmf(V, 3, **{**longer, "checkpoint": path}), nmf_xp.nmf(V, 3, **longer))
    other = path.with_name(f"other{path.suffix}")
    unchecked = nmf_xp.nmf(V, 3, **{**OPTIONS, "max_iter": 15}, checkpoint=other)
    assert unchecked.history == ()
    found = nmf_xp.nmf(V, 3, **{**OPTIONS, "max_iter": 40, "tol": 1e-12}, checkpoint=other)
    expected = nmf_xp.nmf(V, 3, **{**OPTIONS, "max_iter": 40, "tol": 1e-12})
    np.testing.assert_array_equal(found.W, expected.W)
    assert found.history == expected.history[:1] + expected.history[2:]  # the check that there was none of


def test_a_run_that_a_callback_stopped_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    stopped = nmf_xp.nmf(V, 3, **OPTIONS, checkpoint=path, callback=lambda p: p.iteration == 20)
    assert (stopped.n_iter, stopped.status) == (20, Status.STOPPED)
    found = nmf_xp.nmf(V, 3, **OPTIONS, checkpoint=path, callback=lambda _: None)
    assert_same(found, nmf_xp.nmf(V, 3, **OPTIONS, callback=lambda _: None))


def test_a_random_state_is_part_of_the_run(tmp_path: Path) -> None:
    """None is any; a generator counts as it was before the start was drawn."""
    options = {**OPTIONS, "random_state": None}
    first = nmf_xp.nmf(V, 3, **options, checkpoint=tmp_path / "any.npz")
    assert_same(nmf_xp.nmf(V, 3, **options, checkpoint=tmp_path / "any.npz"), first)
    for name, make in (("generator", np.random.default_rng), ("old", np.random.RandomState)):
        path = tmp_path / f"{name}.npz"
        rng = make(1)
        result = nmf_xp.nmf(V, 3, **{**OPTIONS, "random_state": rng}, checkpoint=path)
        assert_same(nmf_xp.nmf(V, 3, **{**OPTIONS, "random_state": make(1)}, checkpoint=path), result)
        with pytest.raises(CheckpointError, match=r"random_state was .* and is .*; name another file"):
            nmf_xp.nmf(V, 3, **{**OPTIONS, "random_state": rng}, checkpoint=path)


WEIGHTS, START = np.ones(V.shape), (np.ones((30, 3)), np.ones((3, 20)))
OTHERS: dict[str, dict[str, Any]] = {
    "n_components was 3 and is 4": {"n_components": 4},
    "beta_loss was 1.0 and is 1.5": {"beta_loss": 1.5},
    "solver was mu and is mm": {"solver": "mm"},
    "solver was mu and is online batch_size=8": {"solver": ("online", {"batch_size": 8})},
    "init was random and is nndsvda": {"init": "nndsvda"},
    "init was random and is given": {"init": START},
    "random_state was 0 and is 1": {"random_state": 1},
    "check_every was 10 and is 5": {"check_every": 5},
    "the number of members was None and is 2": {"n_restarts": 2},
    "weights is not what it was": {"weights": 2 * WEIGHTS},
    "the penalties, fixed entries or bounds of W is not what it was": {"alpha_W": 0.1, "alpha_H": 0.0},
    "the penalties, fixed entries or bounds of H is not what it was": {"upper_h": 2.0},
    "stands at iteration 40, beyond max_iter=39; raise max_iter": {"max_iter": 39},
}


@pytest.mark.parametrize("reason", OTHERS)
def test_the_checkpoint_of_another_problem_is_refused(reason: str, tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    options = {**OPTIONS, "n_components": 3, "checkpoint": path}
    nmf_xp.nmf(V, **options)
    before = path.read_bytes()
    with pytest.raises(CheckpointError) as caught:
        nmf_xp.nmf(V, **{**options, **OTHERS[reason]})
    assert reason in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    assert path.read_bytes() == before


@pytest.mark.parametrize("data", ["dense", "float32", "another shape", "sparse", "stack", "torch"])
def test_the_checkpoint_of_another_matrix_is_refused(data: str, tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    X, reason = V, "V is not what it was"
    Y: Any = V.copy()
    Y[17, 11] = np.nextafter(Y[17, 11], 9)  # one entry, by one bit
    match data:
        case "float32":
            Y, reason = V.astype("float32"), "the dtype was float64 and is float32"
        case "another shape":
            Y, reason = V[:-1], r"the shape of V was \[30, 20\] and is \[29, 20\]"
        case "sparse":
            csr = pytest.importorskip("scipy.sparse").csr_array
            X, Y = csr(X), csr(Y)
        case "stack":
            X, Y = np.stack([V, V]), np.stack([V, Y])
        case "torch":
            Y, reason = pytest.importorskip("torch").asarray(V), "the array library was numpy and is torch"
    nmf_xp.nmf(X, 3, **OPTIONS, checkpoint=path)
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match=reason):
        nmf_xp.nmf(Y, 3, **OPTIONS, checkpoint=path)
    assert path.read_bytes() == before


def test_the_same_matrix_in_another_memory_order_is_the_same(tmp_path: Path) -> None:
    result = nmf_xp.nmf(V, 3, **OPTIONS, checkpoint=tmp_path / "run.npz")
    again = nmf_xp.nmf(np.asfortranarray(V), 3, **OPTIONS, checkpoint=tmp_path / "run.npz")
    np.testing.assert_array_equal(again.W, result.W)


@pytest.fixture
def two(path: Path) -> Path:
    """A checkpoint at iteration 40, and the one before it at 20."""
    killed_at(50, nmf_xp.nmf, V, 3, **{**OPTIONS, "max_iter": 60}, checkpoint=path, checkpoint_every=20)
    return path


def files_of(path: Path) -> list[Path]:
    return [p for p in sorted(path.rglob("*")) if p.is_file()] if path.is_dir() else [path]


def read(path: Path) -> tuple[storage.Stored | None, str]:
    """The checkpoint, or why it is refused."""
    try:
        return last(path), ""
    except CheckpointError as error:
        return None, str(error)


def test_no_damage_is_read_as_a_checkpoint(two: Path) -> None:
    """A byte changed or the end cut off: refused with a way out, or a byte that means nothing and changes nothing."""
    whole, refused = last(two), 0
    assert whole is not None
    options: dict[str, Any] = {**OPTIONS, "max_iter": 60, "checkpoint": two}
    way_out = f"rename {previous(two).relative_to(two.parent)} to {two.name}"
    way_out = f"remove run.zarr, then {way_out}" if two.is_dir() else f"{way_out} to go on from there"
    rng = np.random.default_rng(0)
    for file in files_of(two):
        content = file.read_bytes()
        damaged = [content[:n] for n in {0, 1, len(content) - 1, *rng.integers(0, len(content), 25).tolist()}]
        for i in rng.integers(0, len(content), 75 if two.is_file() else 12).tolist():
            changed = bytearray(content)
            changed[i] ^= 1 << int(rng.integers(8))
            damaged.append(bytes(changed))
        for bad in damaged:
            file.write_bytes(bad)
            found, message = read(two)
            if found is None:
                refused += 1
                assert message.startswith(f"{two}: is ")
                if refused % 20 == 1:
                    with pytest.raises(CheckpointError) as caught:
                        nmf_xp.nmf(V, 3, **options)
                    assert str(caught.value) == f"{message}; the one before it is whole, at iteration 20: {way_out}"
            else:
                assert found.header == whole.header
                for name, array in whole.arrays.items():
                    np.testing.assert_array_equal(found.arrays[name], array)
        file.write_bytes(content)
    assert refused > 80
    assert position(two) == 40


def test_the_way_out_of_a_damaged_checkpoint_leads_to_the_same_result(two: Path) -> None:
    options = {**OPTIONS, "max_iter": 60}
    content = files_of(two)[-1].read_bytes()
    files_of(two)[-1].write_bytes(content[:-20])
    with pytest.raises(CheckpointError, match="rename"):
        nmf_xp.nmf(V, 3, **options, checkpoint=two)
    if two.is_dir():
        shutil.rmtree(two)
    previous(two).replace(two)
    assert_same(nmf_xp.nmf(V, 3, **options, checkpoint=two), nmf_xp.nmf(V, 3, **options))


def test_what_is_no_checkpoint_is_neither_read_nor_replaced(tmp_path: Path) -> None:
    pickled = np.asarray([print], dtype=object)
    np.savez(tmp_path / "factors.npz", W=V)
    np.savez(tmp_path / "pickles.npz", header=pickled, checksum=pickled, allow_pickle=True)
    np.save(tmp_path / "matrix.npy", V)
    (tmp_path / "matrix.npy").rename(tmp_path / "matrix.npz")
    (tmp_path / "folder.npz").mkdir()
    reasons = {
        "factors.npz": "is no checkpoint; no whole one is left: remove it, or name another file",
        "pickles.npz": r"is damaged, or no checkpoint \(cannot be read: it holds pickled Python objects",
        "matrix.npz": "is damaged, or no checkpoint",
        "folder.npz": "is a directory, not a checkpoint",
    }
    for name, reason in reasons.items():
        before = (tmp_path / name).read_bytes() if name != "folder.npz" else b""
        with pytest.raises(CheckpointError, match=reason):
            nmf_xp.nmf(V, 3, **OPTIONS, checkpoint=tmp_path / name)
        assert name == "folder.npz" or (tmp_path / name).read_bytes() == before


def test_a_checkpoint_of_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.npz"
    nmf_xp.nmf(V, 3, **OPTIONS, checkpoint=path)
    stored = last(path)
    assert stored is not None
    del stored.arrays["state.H"]
    path.unlink()
    storage.save(path, stored, private=False)
    with pytest.raises(CheckpointError, match=r"was written by nmf_xp .*, whose solver kept another state"):
        nmf_xp.nmf(V, 3, **OPTIONS, checkpoint=path)
    monkeypatch.setattr(storage, "FORMAT", 2)
    with pytest.raises(CheckpointError, match="in a format that this version does not read"):
        nmf_xp.nmf(V, 3, **OPTIONS, checkpoint=path)


def test_a_process_that_died_between_two_renamings_left_a_whole_one(two: Path) -> None:
    before, options = previous(two), {**OPTIONS, "max_iter": 60}
    waiting, unfinished = (before.with_name(before.name.replace("previous", name)) for name in ("next", "unfinished"))
    two.rename(waiting)
    assert position(two) == 40
    assert_same(nmf_xp.nmf(V, 3, **options, checkpoint=two), nmf_xp.nmf(V, 3, **options))
    assert (position(two), position(previous(two))) == (60, 40)
    two.rename(unfinished)
    files_of(unfinished)[-1].write_bytes(b"torn")
    assert last(two) is None
    nmf_xp.nmf(V, 3, **OPTIONS, checkpoint=two)
    assert position(two) == 40
    assert sorted(p.name for p in folder_of(two).iterdir()) == ["lock", before.name]


@contextlib.contextmanager
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def fsync(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        yield


def test_a_full_disk_leaves_the_last_checkpoint(two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {file: file.read_bytes() for file in two.parent.rglob("*") if file.is_file()}
    options = {**OPTIONS, "max_iter": 60}
    message = "cannot be written: No space left on device; the last checkpoint is intact"
    with full_disk(monkeypatch), pytest.raises(CheckpointError, match=message):
        nmf_xp.nmf(V, 3, **options, checkpoint=two, checkpoint_every=10)
    assert {file: file.read_bytes() for file in two.parent.rglob("*") if file.is_file()} == before
    assert_same(nmf_xp.nmf(V, 3, **options, checkpoint=two), nmf_xp.nmf(V, 3, **options))
    fresh = two.with_name(f"fresh{two.suffix}")
    with full_disk(monkeypatch), pytest.raises(CheckpointError, match=r"No space left on device$"):
        nmf_xp.nmf(V, 3, **options, checkpoint=fresh)


CHILD = """
import itertools, sys, numpy as np, nmf_xp
V, calls = np.load("V.npy"), itertools.count()
def callback(_):
    if next(calls) == 0:
        print("running", flush=True)
options = dict(beta_loss=1, solver="newton", random_state=0, tol=0, check_every=1, callback=callback)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of a file as Linux does")
def test_a_file_that_cannot_grow_leaves_the_last_checkpoint(path: Path) -> None:
    """By a limit of the system, as a full disk would: what is written ends within the file."""
    np.save(path.with_name("V.npy"), V)
    code = CHILD + (
        "import resource\n"
        "options |= dict(max_iter=20, checkpoint=sys.argv[1])\n"
        "nmf_xp.nmf(V, 3, **options)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: nmf_xp.nmf(V, 3, **options | dict(max_iter=30))\n"
        "except nmf_xp.CheckpointError as error: print(error)\n"
    )
    words = [sys.executable, "-c", code, path.name]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=path.parent)
    assert done.stdout.splitlines()[-1] == (
        f"{path.name}: cannot be written: File too large; the last checkpoint is intact"
    )
    assert position(path) == 20
    assert sorted(p.name for p in path.parent.iterdir()) == sorted(["V.npy", path.name])


@pytest.mark.skipif(os.name != "posix", reason="the permissions are POSIX's")
def test_a_directory_that_cannot_be_written_is_found_out_before_the_run() -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own is closed to other users
        folder = Path(name)
        path = folder / "run.npz"
        nmf_xp.nmf(V, 3, **OPTIONS, checkpoint=path)
        before = path.read_bytes()
        folder.chmod(0o555)
        root = os.geteuid() == 0
        try:
            if root:  # for whom there are no permissions
                os.seteuid(65534)
            for each in (path, folder / "new.npz"):
                with pytest.raises(CheckpointError, match=f"{each.name}: cannot be written: Permission denied"):
                    nmf_xp.nmf(V, 3, **{**OPTIONS, "max_iter": 10**9}, checkpoint=each)
        finally:
            if root:
                os.seteuid(0)
            folder.chmod(0o755)
        assert path.read_bytes() == before
    with pytest.raises(CheckpointError, match="cannot be written: No such file or directory"):
        nmf_xp.nmf(V, 3, **OPTIONS, checkpoint=folder / "run.npz")


@pytest.mark.skipif(os.name != "posix", reason="signals to a process are POSIX's")
def test_kill_9_at_20_random_moments(tmp_path: Path) -> None:
    """At each the checkpoint is whole and stands at a position of the uninterrupted run; the last run ends as that."""
    path = tmp_path / "run.npz"
    np.save(tmp_path / "V.npy", V)
    code = CHILD + "nmf_xp.nmf(V, 3, **options, max_iter=10**7, checkpoint='run.npz', checkpoint_every=1)\n"
    rng = np.random.default_rng()
    positions: list[tuple[int, Any]] = []
    for _ in range(20):
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=tmp_path) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"running\n"
            time.sleep(rng.uniform(0, 0.4))
            assert process.poll() is None
            process.kill()
        stored = last(path)
        if stored is not None:
            positions.append((stored.header["n_iter"], stored.arrays["state.W"]))
    reached = [n for n, _ in positions]
    assert reached == sorted(reached)
    assert len(set(reached)) > 5
    options: dict[str, Any] = {
        "beta_loss": 1, "solver": "newton", "random_state": 0, "tol": 0, "check_every": 1,
        "max_iter": reached[-1] + 20,
    }  # fmt: skip
    factors: dict[int, Any] = {}
    expected = nmf_xp.nmf(V, 3, **options, callback=lambda p: factors.update({p.iteration: p.W}))
    for n, W in positions:
        np.testing.assert_array_equal(W, factors[n])
    assert_same(nmf_xp.nmf(V, 3, **options, checkpoint=path, callback=lambda _: None), expected)
    assert {p.name for p in tmp_path.iterdir()} == {"V.npy", "run.npz", "run.npz.nmf-xp"}
    assert [p.name for p in sorted(folder_of(path).iterdir())] == ["lock", previous(path).name]


@pytest.mark.skipif(os.name != "posix", reason="signals to a process are POSIX's")
def test_ctrl_c_on_the_command_line_writes_a_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("V.npy", V)
    fit = ["fit", "V.npy", "-k", "3", "--beta-loss", "1", "--random-state", "0", "--tol", "0"]
    kept = [*fit, "--checkpoint", "run.npz", "--checkpoint-every", "100000000"]
    code = (
        "import signal, sys; from nmf_xp.cli import main\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    words = [sys.executable, "-c", code, *kept, "--resume", "--max-iter", "1000000000"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "run.npz: no checkpoint yet, the run begins\n"
        time.sleep(2)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "interrupted; say --resume to go on from run.npz"
    n = position(tmp_path / "run.npz")
    assert n > 0
    assert main([*kept, "--max-iter", str(n + 10)]) == 2
    refusal = f"run.npz: exists already, a run at iteration {n}; say --resume to go on, or remove it to begin anew"
    assert capsys.readouterr().err == f"nmf-xp: error: {refusal}\n"
    assert main([*kept, "--max-iter", str(n + 10), "--resume"]) == 0
    assert capsys.readouterr().out.startswith(f"run.npz: goes on from iteration {n}\n")
    assert main([*fit, "--max-iter", str(n + 10), "--out", "whole.npz"]) == 0
    with np.load("V.factors.npz") as found, np.load("whole.npz") as expected:
        np.testing.assert_array_equal(found["W"], expected["W"])
        np.testing.assert_array_equal(found["H"], expected["H"])


@pytest.mark.parametrize("tol", [0, 1e-9])
def test_an_interrupt_writes_the_position_of_the_last_check(
    path: Path, tol: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it comes: here in the 33rd step, of those that Python makes one by one."""
    from nmf_xp.solvers.mu import MultiplicativeUpdate

    monkeypatch.setenv("NMF_XP_KERNELS", "0")
    count = 0
    step = MultiplicativeUpdate.step

    def interrupted(*arguments: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        if count == 33:
            raise KeyboardInterrupt
        return step(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MultiplicativeUpdate, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            nmf_xp.nmf(V, 3, **{**OPTIONS, "tol": tol}, checkpoint=path)
    assert position(path) == 30
    options = {**OPTIONS, "tol": tol}
    assert_same(nmf_xp.nmf(V, 3, **options, checkpoint=path), nmf_xp.nmf(V, 3, **options))


def test_a_compiled_function_keeps_no_checkpoint(tmp_path: Path) -> None:
    jax = pytest.importorskip("jax")
    path = tmp_path / "run.npz"
    with pytest.raises(ValueError, match=r"`checkpoint` must be left out in a compiled function, .*, got .*run.npz"):
        jax.jit(lambda V: nmf_xp.nmf(V, 3, **OPTIONS, checkpoint=path))(V)
    if Backend.TORCH_META.missing() is None:
        with pytest.raises(ValueError, match="`checkpoint` must be left out in a compiled function"):
            nmf_xp.nmf(Backend.TORCH_META.target().asarray(V), 3, **OPTIONS, checkpoint=path)
    assert not list(tmp_path.iterdir())


def test_the_header_can_be_read_by_people(tmp_path: Path) -> None:
    nmf_xp.nmf(V, 3, **{**OPTIONS, "tol": 1e-9}, checkpoint=tmp_path / "run.npz")
    with np.load(tmp_path / "run.npz", allow_pickle=False) as stored:
        header = json.loads(str(stored["header"]))
        assert stored["state.W"].shape == (30, 3)
    assert (header["nmf_xp"], header["n_iter"], len(header["history"][0])) == (nmf_xp.__version__, 40, 5)
    assert header["options"]["random_state"] == 0
