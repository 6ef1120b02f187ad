"""Headers that nmf_xp did not write, under a checksum that fits: each is one sentence, and the file stays."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from nmf_xp import CheckpointError, nmf, select_rank
from nmf_xp.cli import main
from nmf_xp.run.checkpoint import storage
from nmf_xp.run.checkpoint.place import last
from tests.problems import noisy

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

V = noisy(20, 12, 3, zeros=True).V
OPTIONS: dict[str, Any] = {"beta_loss": 1, "solver": "mu", "random_state": 0, "tol": 0, "max_iter": 20}
WRONG: list[Any] = [None, -1, 2.5, True, 2**70, "x", [], ["x"], [-1], [0, 0], [None], {}, {"x": 1}, [[]], [["x"]]]


def forge(path: Path, change: Callable[[dict[str, Any]], Any], source: Path) -> None:
    """A checkpoint whose header is changed, and whose checksum is right."""
    stored = storage.read(source)
    header = json.loads(json.dumps(stored.header))
    change(header)
    storage.remove(path)
    storage.save(path, storage.Stored(header, stored.arrays), private=False)


def runs(path: Path, **options: Any) -> Any:
    return nmf(V, 3, checkpoint=path, **{**OPTIONS, **options})


def stacks(path: Path) -> Any:
    return nmf(V, 3, checkpoint=path, **OPTIONS, n_restarts=3)


def ranks(path: Path) -> Any:
    pytest.importorskip("scipy")
    options: dict[str, Any] = {"rule": "stability", "n_restarts": 2, "max_iter": 10, "tol": 0, "random_state": 0}
    return select_rank(V, [1, 2], checkpoint=path, **options)


def refused(make: Callable[[Path], Any], path: Path) -> str:
    """What the error says; nothing else may be raised, and an answer is that of an unchanged file."""
    before = path.read_bytes()
    try:
        make(path)
    except CheckpointError as error:
        said = str(error)
    else:
        return ""
    assert path.read_bytes() == before
    assert said.startswith(f"{path}: ")
    assert "\n" not in said
    return said


@pytest.mark.parametrize("make", [runs, stacks, ranks])
def test_every_entry_may_be_missing_or_wrong(make: Callable[[Path], Any], tmp_path: Path) -> None:
    source, path = tmp_path / "source.npz", tmp_path / "forged.npz"
    make(source)
    stored = last(source)
    assert stored is not None
    for name in [name for name in stored.header if name != "format"]:
        forge(path, lambda header, name=name: header.pop(name), source)  # type: ignore[misc]
        assert "is no checkpoint that nmf_xp wrote: its header has no" in refused(make, path), name
        for value in WRONG:
            forge(path, lambda header, name=name, value=value: header.update({name: value}), source)  # type: ignore[misc]
            said = refused(make, path)
            assert said or isinstance(value, type(stored.header[name])) or value == {}, (name, value)


@pytest.mark.parametrize("make", [runs, stacks, ranks])
def test_every_entry_within_an_entry_may_be_wrong(make: Callable[[Path], Any], tmp_path: Path) -> None:
    source, path = tmp_path / "source.npz", tmp_path / "forged.npz"
    make(source)
    stored = last(source)
    assert stored is not None
    outer = [name for name, value in stored.header.items() if isinstance(value, dict | list) and value]
    for name in outer:
        for value in WRONG:

            def change(header: dict[str, Any], name: str = name, value: Any = value) -> None:
                inner = header[name]
                key = next(iter(inner)) if isinstance(inner, dict) else 0
                inner[key] = value

            forge(path, change, source)
            refused(make, path)


def test_every_entry_of_a_kept_rank_may_be_missing_or_wrong(tmp_path: Path) -> None:
    source, path = tmp_path / "source.npz", tmp_path / "forged.npz"
    ranks(source)
    stored = last(source)
    assert stored is not None
    for name in stored.header["ranks"]["1"]:
        forge(path, lambda header, name=name: header["ranks"]["1"].pop(name), source)  # type: ignore[misc]
        assert "is no checkpoint that nmf_xp wrote" in refused(ranks, path), name
        values: list[Any] = [None, "x", [None], {}, -1]
        for value in values:
            forge(path, lambda h, name=name, value=value: h["ranks"]["1"].update({name: value}), source)  # type: ignore[misc]
            refused(ranks, path)
    for rank in ("0", "3", "x", "-1", "\u0663", "1e3", ""):
        forge(path, lambda header, rank=rank: header["ranks"].update({rank: header["ranks"]["1"]}), source)  # type: ignore[misc]
        assert "is no checkpoint that nmf_xp wrote" in refused(ranks, path), rank


@pytest.mark.parametrize("step", [0, 1, -1, 2**40, 2**62, 2**80])
def test_steps_in_memory_that_cannot_be_change_no_number(step: int, tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    expected = runs(path)
    forge(path, lambda header: header["strides"].update({"state.W": [step, step]}), path)
    if not refused(runs, path):
        np.testing.assert_allclose(runs(path).W, expected.W, rtol=1e-12)


@pytest.mark.parametrize("header", [[], 3, None, "x", {}, {"format": 1}])
def test_a_header_that_is_something_else(header: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "V.npy", V)
    path = tmp_path / "run.npz"
    for text in (json.dumps(header), "{", "[" * 100_000, '{"format": ' + "9" * 5000 + "}", "\ud800"):
        arrays = {"state.W": V}
        np.savez(path, **arrays, header=text, checksum=_checksum(text, arrays))  # type: ignore[arg-type]
        for make in (runs, ranks):
            assert re.search("no checkpoint|in a format", refused(make, path))
        assert main(["fit", str(tmp_path / "V.npy"), "-k", "3", "--checkpoint", str(path)]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def _checksum(text: str, arrays: dict[str, Any]) -> str:
    try:
        return storage._checksum(text, arrays)
    except UnicodeEncodeError:
        return ""


def test_arrays_that_fit_no_rank(tmp_path: Path) -> None:
    path = tmp_path / "ranks.npz"
    ranks(path)
    stored = storage.read(path)
    for name in ("1.W", "1.H", "1.consensus", "1.loss"):
        for array in (np.zeros((2, 2, 2)), np.zeros(()), np.asarray(["x"])):
            storage.remove(path)
            storage.save(path, storage.Stored(stored.header, {**stored.arrays, name: array}), private=False)
            assert "is no checkpoint that nmf_xp wrote: rank 1 does not fit V" in refused(ranks, path)


def test_a_run_is_no_selection_and_a_selection_no_run(tmp_path: Path) -> None:
    for one, other in ((runs, ranks), (ranks, runs)):
        path, source = tmp_path / f"{one.__name__}.npz", tmp_path / f"{other.__name__}.npz"
        for make, place in ((one, path), (other, source)):
            storage.remove(place)
            make(place)
        mine, theirs = storage.read(path), storage.read(source)
        named = {name: mine.header[name] for name in ("options", "contents")}
        storage.remove(path)
        storage.save(path, storage.Stored({**theirs.header, **named}, theirs.arrays), private=False)
        assert "is no checkpoint that nmf_xp wrote: it is that of a" in refused(one, path)
