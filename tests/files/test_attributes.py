"""Extended attributes and access control lists of a file that is replaced."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from nmf_xp import nmf
from nmf_xp.files import FileError, write_factors
from nmf_xp.files.replacing import keep_rights

if TYPE_CHECKING:
    from pathlib import Path

ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
FACTORS = {"W": np.ones((2, 1)), "H": np.ones((1, 2))}
V = np.random.default_rng(0).random((12, 9))


def _list(group: int) -> bytes:
    """An access control list: all for the owner, what is given for the group, reading for user 12345, no others."""
    nobody = 2**32 - 1
    entries = [(1, 7, nobody), (2, 4, 12345), (4, group, nobody), (16, 7, nobody), (32, 0, nobody)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def _set(path: Path, name: str, value: bytes) -> None:
    if not hasattr(os, "setxattr"):
        pytest.skip("the system has no extended attributes as Linux has them")
    try:
        os.setxattr(path, name, value)
    except OSError as error:
        pytest.skip(f"the file system does not keep {name}: {error.strerror}")


def _attributes(path: Path) -> dict[str, bytes]:
    return {name: os.getxattr(path, name) for name in os.listxattr(path) if not name.startswith("security.")}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "factors.npz"
    write_factors(path, FACTORS, {})
    return path


def test_attributes_of_the_user_stay(path: Path) -> None:
    _set(path, "user.origin", b"survey 7")
    write_factors(path, {**FACTORS, "W": np.zeros((2, 1))}, {})
    assert _attributes(path) == {"user.origin": b"survey 7"}
    assert np.load(path)["W"].sum() == 0


def test_an_access_control_list_stays_with_the_mode_that_it_has(path: Path) -> None:
    _set(path, ACCESS, _list(group=4))
    mode, before = path.stat().st_mode, _attributes(path)
    write_factors(path, FACTORS, {})
    assert (path.stat().st_mode, _attributes(path)) == (mode, before)
    assert before[ACCESS] == _list(group=4)


def test_a_list_that_the_folder_gives_is_taken_away_where_there_was_none(path: Path) -> None:
    _set(path.parent, DEFAULT, _list(group=7))
    mode = path.stat().st_mode
    (path.parent / "new").touch()
    assert ACCESS in _attributes(path.parent / "new")
    write_factors(path, FACTORS, {})
    assert (path.stat().st_mode, _attributes(path)) == (mode, {})


@pytest.mark.parametrize("name", ["run.npz", "run.zarr"])
def test_a_checkpoint_keeps_them_too(tmp_path: Path, name: str) -> None:
    if name == "run.zarr":
        pytest.importorskip("zarr", reason="zarr is not installed")
    path, options = tmp_path / name, {"random_state": 0, "tol": 0, "checkpoint_every": 5}
    nmf(V, 2, max_iter=5, checkpoint=path, **options)  # type: ignore[arg-type]
    _set(path, "user.origin", b"survey 7")
    nmf(V, 2, max_iter=10, checkpoint=path, **options)  # type: ignore[arg-type]
    assert _attributes(path) == {"user.origin": b"survey 7"}


def test_without_room_for_attributes_the_file_is_written(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _set(path, "user.origin", b"survey 7")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "setxattr", full)
    write_factors(path, FACTORS, {})
    assert _attributes(path) == {}


def test_a_list_that_cannot_be_kept_is_an_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Since without it the group has what it allows at most."""
    _set(path, ACCESS, _list(group=4))
    before = path.read_bytes()

    def refuse(*_: Any) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "setxattr", refuse)
    with pytest.raises(FileError, match=r"factors.npz: cannot be written: Operation not supported"):
        write_factors(path, FACTORS, {})
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["factors.npz"]


def test_a_system_without_attributes_is_no_harm(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "listxattr", raising=False)
    (tmp_path / "other").touch()
    keep_rights(path, tmp_path / "other")
    assert (tmp_path / "other").stat().st_mode == path.stat().st_mode
