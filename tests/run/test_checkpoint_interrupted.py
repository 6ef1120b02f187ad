"""A write that ends at each of its steps, by a full disk or with its process: there is always a whole checkpoint."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nmf_xp import CheckpointError, nmf, select_rank
from nmf_xp.run.checkpoint import storage
from nmf_xp.run.checkpoint.place import folder_of, last
from nmf_xp.run.checkpoint.storage import read, remove
from tests.problems import noisy

V = noisy(20, 12, 3, zeros=True).V
OPTIONS: dict[str, Any] = {"beta_loss": 1, "solver": "mu", "random_state": 0, "tol": 0, "checkpoint_every": 10}
STEPS = [
    (os, "fsync"), (os, "link"), (os, "open"), (Path, "rename"), (Path, "replace"), (Path, "mkdir"), (Path, "unlink"),
    (Path, "rmdir"), (shutil, "rmtree"),
]  # fmt: skip
MOST = 200  # steps of one write


class DeadError(BaseException):
    """The end of a process, after which it does nothing any more."""


class StuckError(OSError):
    """A disk on which, after one error of a write, nothing can be removed."""


class Steps:
    """Steps of a file system, of which the one with this number fails, or it and all that follow."""

    def __init__(self, number: int, error: type[BaseException]) -> None:
        self.number, self.error, self.count, self.on = number, error, 0, True

    def fails(self, *, removes: bool) -> bool:
        if not self.on:
            return False
        self.count += 1
        after = {OSError: False, StuckError: removes, DeadError: True}[self.error]
        return self.count == self.number + 1 or (self.count > self.number and after)

    def patch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        if self.error is StuckError:  # other steps are tried again in other ways
            self.on = False
            monkeypatch.setattr(storage, "save", self.begun(storage.save))
        for place, name in STEPS:
            if self.error is StuckError and name == "link":
                continue
            removes = name in {"unlink", "rmdir", "rmtree"}
            monkeypatch.setattr(place, name, self.wrapped(getattr(place, name), removes=removes))

    def begun(self, step: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            self.on = True
            return step(*arguments, **options)

        return call

    def wrapped(self, step: Any, *, removes: bool) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            if self.fails(removes=removes):
                first = self.count == self.number + 1
                raise self.error(*((errno.ENOSPC, "No space left on device") if first else (errno.EIO, "I/O error")))
            return step(*arguments, **options)

        return call


@pytest.fixture(params=["run.npz", "run.zarr"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param != "run.npz":
        pytest.importorskip(request.param.removeprefix("run."))
    return tmp_path / request.param


def run(path: Path, max_iter: int) -> Any:
    return nmf(V, 3, **OPTIONS, max_iter=max_iter, checkpoint=path)


def whole(path: Path) -> set[int]:
    """Where the checkpoints stand that can be read; what is not whole is called so."""
    stored = last(path)
    positions = set() if stored is None else {stored.header["n_iter"]}
    for inner in folder_of(path).glob("*-*"):
        if not inner.name.startswith("unfinished"):
            with contextlib.suppress(CheckpointError) if inner.name.startswith("old") else contextlib.nullcontext():
                positions.add(read(inner).header["n_iter"])
    return positions


@pytest.mark.parametrize("error", [OSError, StuckError, DeadError])
@pytest.mark.parametrize("before", [0, 10, 20])
def test_a_write_that_ends_at_any_step(path: Path, error: Any, before: int) -> None:
    """The first write of all, the second, and one that replaces a previous checkpoint."""
    expected = nmf(V, 3, **OPTIONS, max_iter=before + 30)
    ended = 0
    for number in range(MOST):
        for place in (path, folder_of(path)):
            remove(place)
        if before:
            run(path, before)
        with pytest.MonkeyPatch.context() as patch:
            steps = Steps(number, error)
            steps.patch(patch)
            try:
                run(path, before + 10)
            except CheckpointError as said:
                assert "No space left on device" in str(said)  # noqa: PT017
                assert ("the last checkpoint is intact" in str(said)) <= path.exists()  # noqa: PT017
            except DeadError:
                pass
            steps.on = False
        ended += steps.count > number
        found = whole(path)
        assert not before or found & {before, before + 10}
        if before == 20:
            assert len(found) > 1
        np.testing.assert_array_equal(run(path, before + 30).W, expected.W)
        assert whole(path) >= {before + 30}
        assert len(list(path.parent.iterdir())) == 2
        assert len(list(folder_of(path).iterdir())) == 2
        if steps.count <= number:
            break
    assert 6 < ended < MOST - 1


def test_a_selection_goes_on_from_a_write_that_ended_at_any_step(tmp_path: Path) -> None:
    pytest.importorskip("scipy")
    path = tmp_path / "ranks.npz"
    options: dict[str, Any] = {"rule": "stability", "n_restarts": 2, "max_iter": 10, "tol": 0, "random_state": 0}
    expected = select_rank(V, [1, 2], **options)
    for number in range(0, 60, 3):
        for place in (path, folder_of(path)):
            remove(place)
        with pytest.MonkeyPatch.context() as patch:
            steps = Steps(number, DeadError)
            steps.patch(patch)
            with contextlib.suppress(DeadError):
                select_rank(V, [1, 2], checkpoint=path, **options)
            steps.on = False
        found = select_rank(V, [1, 2], checkpoint=path, **options)
        np.testing.assert_array_equal(found.best[2].W, expected.best[2].W)
