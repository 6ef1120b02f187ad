"""What stands at a checkpoint's path or beside it and is not this run's, and runs that want the path of another."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from nmf_xp import CheckpointError, nmf, select_rank
from nmf_xp.run.checkpoint.place import Place, folder_of, last
from nmf_xp.run.checkpoint.storage import remove
from tests.problems import noisy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

V = noisy(20, 12, 3, zeros=True).V
OPTIONS: dict[str, Any] = {"beta_loss": 1, "solver": "mu", "random_state": 0, "tol": 0, "checkpoint_every": 10}
FORMATS = ["run.npz", "run.safetensors", "run.zarr"]
IN_USE = r": is in use by another run; wait until that has ended, or name another file$"
POSIX = pytest.mark.skipif(os.name != "posix", reason="links, modes and owners are POSIX's")


@pytest.fixture(params=FORMATS)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param != "run.npz":
        pytest.importorskip(request.param.removeprefix("run."))
    return tmp_path / request.param


def run(path: Any, max_iter: int = 40, **options: Any) -> Any:
    return nmf(V, 3, **{**OPTIONS, "max_iter": max_iter, "checkpoint": path, **options})


def ranks(path: Any) -> Any:
    pytest.importorskip("scipy")
    options: dict[str, Any] = {"rule": "stability", "n_restarts": 2, "max_iter": 10, "tol": 0, "random_state": 0}
    return select_rank(V, [1, 2, 3], checkpoint=path, **options)


def content(path: Path) -> Any:
    """All that stands at a path, links too."""
    if path.is_symlink():
        return path.readlink()
    if path.is_dir():
        return {inner.name: content(inner) for inner in path.iterdir()}
    return (path.read_bytes(), path.stat().st_mtime_ns)


def position(path: Path) -> Any:
    stored = last(path)
    assert stored is not None
    return stored.header["n_iter"]


def previous(path: Path) -> Path:
    (found,) = folder_of(path).glob("previous-*")
    return found


def a_file(path: Path) -> None:
    path.write_bytes(b"the user's")


def a_folder(path: Path) -> None:
    path.mkdir()
    (path / "notes.txt").write_text("the user's")


def an_empty_folder(path: Path) -> None:
    path.mkdir()


def a_link(path: Path) -> None:
    elsewhere = path.with_name("elsewhere.txt")
    elsewhere.write_text("the user's")
    path.symlink_to(elsewhere)


def a_link_to_nothing(path: Path) -> None:
    path.symlink_to(path.with_name("nothing"))


def another_run(path: Path) -> None:
    other = path.with_name(f"other{path.suffix}")
    run(other, random_state=7)
    other.rename(path)


USERS: list[Callable[[Path], None]] = [a_file, a_folder, an_empty_folder, another_run]
if os.name == "posix":
    USERS += [a_link, a_link_to_nothing]


@pytest.mark.parametrize("make", USERS)
@pytest.mark.parametrize("start", [run, ranks])
def test_names_like_those_that_an_earlier_version_used_stay(
    path: Path, make: Callable[[Path], None], start: Callable[[Path], Any]
) -> None:
    names = [f"run.{word}{path.suffix}" for word in ("previous", "next")]
    for name in names:
        make(path.with_name(name))
    before = {name: content(path.with_name(name)) for name in names}
    start(path)
    start(path)
    assert {name: content(path.with_name(name)) for name in names} == before
    assert last(path) is not None


@pytest.mark.parametrize("make", USERS)
@pytest.mark.parametrize("word", ["previous", "next", "unfinished", "old"])
def test_what_is_in_place_of_our_own_stays_too(path: Path, make: Callable[[Path], None], word: str) -> None:
    """Even in the folder that is ours: what has the name is read before the name is given away."""
    run(path, 30)
    own = previous(path)
    place = own.with_name(own.name.replace("previous", word))
    remove(place)
    make(place)
    if word in ("unfinished", "old") and place.is_dir() == (path.suffix == ".zarr") and not place.is_symlink():
        return  # what is torn cannot be told from it
    before = content(place)
    with contextlib.suppress(CheckpointError):
        run(path, 60)
    assert content(place) == before
    assert position(path) in (30, 60)
    if word == "previous":
        with pytest.raises(CheckpointError, match=r"previous-.*: is no checkpoint of this run, and stays; rename it"):
            run(path, 60)
        place.rename(path.with_name("kept"))
        assert run(path, 60).n_iter == 60


def a_folder_with_a_lock(path: Path) -> None:
    path.mkdir()
    (path / "lock").write_text("")


@pytest.mark.parametrize("make", [a_folder_with_a_lock, *(make for make in USERS if make is not another_run)])
def test_the_folder_is_only_taken_where_it_carries_the_mark(path: Path, make: Callable[[Path], None]) -> None:
    folder = folder_of(path)
    make(folder)
    before = content(folder)
    if make is an_empty_folder:  # as a process leaves it that is killed at once: it is written into and stays
        before = folder.stat().st_ino
        assert run(path, 5).n_iter == 5
        assert (folder.stat().st_ino, list(folder.iterdir())) == (before, [])
        assert run(path).n_iter == 40
        assert folder.stat().st_ino == before
        return
    with pytest.raises(CheckpointError, match=rf"needs the name {folder.name} beside it; rename what has it"):
        run(path)
    assert content(folder) == before
    assert not path.exists()


@pytest.mark.parametrize("make", USERS)
@pytest.mark.parametrize("start", [run, ranks])
def test_what_is_no_checkpoint_of_this_run_stays_at_its_path(
    path: Path, make: Callable[[Path], None], start: Callable[[Path], Any]
) -> None:
    make(path)
    before = content(path)
    if make is a_link_to_nothing:
        start(path)
        assert path.with_name("nothing").exists()
    else:
        with pytest.raises(CheckpointError):
            start(path)
    assert content(path) == before
    assert not folder_of(path).exists()


def test_what_comes_to_the_path_during_a_run_stays(path: Path) -> None:
    def callback(progress: Any) -> None:
        if progress.iteration == 30:
            remove(path)
            a_file(path)

    with pytest.raises(CheckpointError, match=rf"{path.name}: is no checkpoint of this run, and stays"):
        run(path, callback=callback)
    assert content(path)[0] == b"the user's"


def test_a_run_that_begins_anew_leaves_what_another_run_kept(path: Path) -> None:
    run(path, random_state=7)
    other = previous(path)
    before = content(other)
    remove(path)
    run(path)
    assert content(other) == before
    assert len(list(folder_of(path).glob("previous-*"))) == 2


def as_before(path: Path) -> None:
    """The names that nmf_xp had before there was a folder."""
    run(path, 30)
    previous(path).rename(path.with_name(f"run.previous{path.suffix}"))
    remove(folder_of(path))


def test_checkpoints_of_an_earlier_version_are_found(path: Path) -> None:
    expected = nmf(V, 3, **OPTIONS, max_iter=60)
    as_before(path)
    np.testing.assert_array_equal(run(path, 60).W, expected.W)
    assert position(path.with_name(f"run.previous{path.suffix}")) == 20
    for name in (path, folder_of(path), path.with_name(f"run.previous{path.suffix}")):
        remove(name)
    as_before(path)
    path.rename(path.with_name(f"run.next{path.suffix}"))  # as a process left it that was killed
    seen: list[int] = []
    found = run(path, 60, callback=lambda progress: seen.append(progress.iteration))
    assert seen == [40, 50, 60]
    np.testing.assert_array_equal(found.W, expected.W)
    assert not path.with_name(f"run.next{path.suffix}").exists()


def test_the_way_out_names_what_an_earlier_version_kept(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    as_before(path)
    path.write_bytes(path.read_bytes()[:-20])
    way_out = r"is whole, at iteration 20: rename run.previous.npz to run.npz to go on from there$"
    with pytest.raises(CheckpointError, match=way_out):
        run(path)
    path.with_name("run.previous.npz").replace(path)
    np.testing.assert_array_equal(run(path).W, nmf(V, 3, **OPTIONS, max_iter=40).W)


@POSIX
def test_a_link_stays_a_link_and_leads_to_the_checkpoint(path: Path) -> None:
    place = path.parent / "elsewhere"
    place.mkdir()
    path.symlink_to(Path("elsewhere") / path.name)
    run(path, 20)
    run(path, 40)
    assert path.readlink() == Path("elsewhere") / path.name
    assert position(place / path.name) == 40
    assert sorted(p.name for p in path.parent.iterdir()) == sorted(["elsewhere", path.name])
    np.testing.assert_array_equal(run(place / path.name, 60).W, nmf(V, 3, **OPTIONS, max_iter=60).W)


@POSIX
def test_the_way_out_behind_a_link_says_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    path, target = tmp_path / "run.npz", tmp_path / "elsewhere" / "real.npz"
    path.symlink_to(target)
    run(path, 30)
    target.write_bytes(target.read_bytes()[:-20])
    with pytest.raises(CheckpointError, match=f"rename {previous(target)} to {target} to go on from there$"):
        run(path)
    previous(target).replace(target)
    np.testing.assert_array_equal(run(path).W, nmf(V, 3, **OPTIONS, max_iter=40).W)


def test_a_number_of_numpy_is_that_number(tmp_path: Path) -> None:
    pytest.importorskip("scipy")
    options: dict[str, Any] = {"rule": "stability", "n_restarts": 2, "random_state": 0}
    options["checkpoint"] = tmp_path / "ranks.npz"
    numbers: dict[str, Any] = {"max_iter": np.int64(10), "tol": np.float64(1e-3)}
    first = select_rank(V, [1, 2], **numbers, **options)
    again = select_rank(V, [1, 2], max_iter=10, tol=1e-3, **options)
    np.testing.assert_array_equal(first.best[2].W, again.best[2].W)


def test_what_no_file_can_hold_is_refused_though_the_path_is_in_use(tmp_path: Path) -> None:
    """As several processes that share V come at once, of which each must say the same."""
    jax = pytest.importorskip("jax")
    with Place(tmp_path / "run.npz"), pytest.raises(ValueError, match="must be left out in a compiled function"):
        jax.jit(lambda V: nmf(V, 3, checkpoint=tmp_path / "run.npz"))(V)


@POSIX
@pytest.mark.parametrize("start", [run, ranks])
def test_a_link_may_lead_to_a_name_with_another_suffix(path: Path, start: Callable[[Path], Any]) -> None:
    """As those of annexes do, where files are called by a hash."""
    path.symlink_to("5f3a.data")
    first, again = start(path), start(path)
    assert path.readlink() == Path("5f3a.data")
    assert sorted(p.name for p in path.parent.iterdir()) == ["5f3a.data", "5f3a.data.nmf-xp", path.name]
    factors = [found.W if start is run else found.best[2].W for found in (first, again)]
    np.testing.assert_array_equal(*factors)
    with Place(path), pytest.raises(CheckpointError, match=IN_USE):
        start(path)


@POSIX
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444])
def test_mode_and_owner_stay(path: Path, mode: int) -> None:
    run(path, 20)
    modes = {p: mode for p in (path.rglob("*") if path.is_dir() else [path]) if p.is_file()}
    for each in modes:
        each.chmod(mode)
    if path.is_dir():
        path.chmod(0o750)
        modes[path] = 0o750
    owner = (os.getuid(), os.getgid())
    if os.geteuid() == 0:
        owner = (12345, 23456)
        for each in (*modes, path):
            os.chown(each, *owner)
    run(path, 40)
    for each, expected in modes.items():
        assert each.stat().st_mode & 0o7777 == expected
        assert (each.stat().st_uid, each.stat().st_gid) == owner
    assert position(path) == 40


@POSIX
def test_what_belongs_to_another_user_is_refused_before_the_run() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can be two users")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        run(folder / "run.npz", 20)
        before = content(folder / "run.npz")
        remove(folder_of(folder / "run.npz"))
        os.seteuid(65534)
        try:
            with pytest.raises(
                CheckpointError, match="it belongs to another user or group, which only they may replace"
            ):
                run(folder / "run.npz", 10**9)
        finally:
            os.seteuid(0)
        assert content(folder / "run.npz") == before


@POSIX
def test_a_link_in_a_circle_a_pipe_and_names_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "circle.npz").symlink_to("circle.npz")
    os.mkfifo(tmp_path / "pipe.npz")
    reasons = {
        "circle.npz": "cannot be written: its links go in a circle",
        "pipe.npz": "is a device, a pipe or a socket, not a checkpoint",
        f"{'x' * 252}.npz": "cannot be written: File name too long",
        "zero\0byte.npz": "cannot be written: .*embedded null",
        "pipe.npz/run.npz": "cannot be written: Not a directory",
    }
    for name, reason in reasons.items():
        with pytest.raises(CheckpointError, match=reason):
            run(tmp_path / name)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["circle.npz", "pipe.npz"]


NAMES = ["прогон й", "走る🏃", "é" * 120, "a b\nc", "[x]*?", "-run", "a::b", "next-", "run.previous"]


@pytest.mark.parametrize("stem", [*NAMES, "W" * 243, "語" * 81, "🏃" * 60])
def test_any_name_that_the_system_takes(path: Path, stem: str) -> None:
    place = path.with_name(f"{stem}{path.suffix}")
    if len(os.fsencode(place.name)) > 255:
        place = path.with_name(f"{stem[:-5]}{path.suffix}")
    expected = nmf(V, 3, **OPTIONS, max_iter=60)
    run(place, 30)
    np.testing.assert_array_equal(run(place, 60).W, expected.W)
    assert (position(place), position(previous(place))) == (60, 50)
    assert len(list(path.parent.iterdir())) == 2


def test_long_names_that_begin_alike_have_folders_of_their_own(tmp_path: Path) -> None:
    folders = {folder_of(tmp_path / f"{'W' * 240}{end}.npz") for end in "abc"}
    assert len(folders) == 3
    assert all(len(folder.name) < 240 for folder in folders)


@pytest.mark.parametrize("name", ["folder.npz", "folder.safetensors", "folder.zarr"])
def test_a_path_that_is_a_folder(tmp_path: Path, name: str) -> None:
    if name != "folder.npz":
        pytest.importorskip(name.removeprefix("folder."))
    a_folder(tmp_path / name)
    before = content(tmp_path / name)
    reason = "is damaged, or no checkpoint" if name.endswith("zarr") else "is a directory, not a checkpoint"
    for start in (run, ranks):
        with pytest.raises(CheckpointError, match=reason):
            start(tmp_path / name)
    assert content(tmp_path) == {name: before}
    with pytest.raises(ValueError, match="`checkpoint` must have one of the suffixes"):
        run(tmp_path)


def test_a_second_run_in_the_same_process_is_refused(path: Path) -> None:
    """Also by another name of the same place, also that of another kind, also in a callback of the first."""
    refused = 0

    def callback(progress: Any) -> None:
        nonlocal refused
        if progress.iteration in (10, 30):  # before there is a checkpoint, and after
            for start in (run, ranks):
                for name in (path, path.parent / ".." / path.parent.name / path.name):
                    with pytest.raises(CheckpointError, match=IN_USE):
                        start(name)
                    refused += 1

    expected = nmf(V, 3, **OPTIONS, max_iter=40)
    np.testing.assert_array_equal(run(path, callback=callback, checkpoint_every=20).W, expected.W)
    assert refused == 8
    run(path, 50)


CHILD = """
import sys, numpy as np, nmf_xp
def callback(progress):
    if progress.iteration == 30:
        print("running", flush=True)
        sys.stdin.readline()
options = dict(beta_loss=1, solver="mu", random_state=0, tol=0, checkpoint_every=10, callback=callback)
nmf_xp.nmf(np.load("V.npy"), 3, max_iter=40, checkpoint=sys.argv[1], **options)
"""


@contextlib.contextmanager
def another_process(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process in the middle of a run with this checkpoint."""
    np.save(path.with_name("V.npy"), V)
    words = [sys.executable, "-c", CHILD, path.name]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, **pipes, cwd=path.parent) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_second_process_is_refused_and_the_first_goes_on(path: Path) -> None:
    with another_process(path) as process:
        before = content(path), content(folder_of(path))
        with pytest.raises(CheckpointError, match=rf"{path.name}{IN_USE}"):
            run(path)
        assert (content(path), content(folder_of(path))) == before
        process.communicate("go on\n", timeout=60)
        assert process.returncode == 0
    assert position(path) == 40
    np.testing.assert_array_equal(run(path, 60).W, nmf(V, 3, **OPTIONS, max_iter=60).W)


def test_a_process_that_is_killed_holds_nothing(path: Path) -> None:
    with another_process(path) as process:
        process.kill()
        process.wait()
        np.testing.assert_array_equal(run(path, 60).W, nmf(V, 3, **OPTIONS, max_iter=60).W)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_child_does_not_hold_what_its_parent_held(tmp_path: Path) -> None:
    """As a worker of a pool does that outlives a parent which was killed."""
    code = (
        "import os, sys, time; from nmf_xp.run.checkpoint.place import Place\n"
        "with Place('run.npz'):\n"
        "    if os.fork() == 0: sys.stdout.close(); sys.stdin.readline(); os._exit(0)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, cwd=tmp_path) as process:
        assert process.wait(timeout=60) == -9
        assert run(tmp_path / "run.npz").n_iter == 40  # while the child waits for a line


def test_a_run_that_fails_lets_go_of_its_path(path: Path) -> None:
    def callback(_: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        run(path, callback=callback)
    assert run(path).n_iter == 40
    assert caught.value is not None
    with pytest.raises(CheckpointError, match="is the checkpoint of another run") as refused:
        run(path, random_state=1)
    assert run(path, 50).n_iter == 50
    assert refused.value is not None


def _begin_and_interrupt(path: Path) -> None:
    with Place(path):
        raise KeyboardInterrupt


@pytest.mark.parametrize("function", ["mkdir", "rmdir", "unlink"])
@pytest.mark.parametrize("done", [False, True])
def test_an_interrupt_while_the_folder_is_made_or_removed_leaves_nothing(
    path: Path, function: str, done: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Just before and just after; with the one that ended the run it is the second."""
    original, left = getattr(Path, function), [1]

    def interrupted(self: Path, *args: Any, **options: Any) -> Any:
        ours = bool("nmf-xp" in str(self.relative_to(path.parent)) and left)
        if ours and left.pop() and not done:
            raise KeyboardInterrupt
        found = original(self, *args, **options)
        if ours and done:
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(Path, function, interrupted)
    with pytest.raises(KeyboardInterrupt):
        _begin_and_interrupt(path)
    assert not left
    assert list(path.parent.iterdir()) == []
    monkeypatch.undo()
    assert run(path).n_iter == 40


def test_where_there_are_no_locks_a_run_goes_on_without(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: int) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("nmf_xp.run.checkpoint.lock._lock", none)
    run(path, 20)
    assert run(path, 40).n_iter == 40


def test_where_there_are_no_hard_links_names_are_given_by_renaming(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: Any) -> None:
        raise OSError(38, "Function not implemented")

    if path.suffix == ".zarr":
        pytest.skip("zarr makes hard links itself")
    monkeypatch.setattr(os, "link", none)
    run(path, 20)
    np.testing.assert_array_equal(run(path, 60).W, nmf(V, 3, **OPTIONS, max_iter=60).W)
    assert (position(path), position(previous(path))) == (60, 50)


def test_nothing_is_left_of_a_run_that_was_refused(path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be written: No such file"), Place(path.parent / "no" / path.name):
        pass
    with pytest.raises(ValueError, match="non-negative"):
        nmf(-V, 3, checkpoint=path)
    assert not list(path.parent.iterdir())
