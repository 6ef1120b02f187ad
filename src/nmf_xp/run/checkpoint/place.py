"""Where the checkpoints of a run stand: whole or not there, always the last two, and nothing that is another's.

The last one has the user's name. Beside it is a folder of that name with `.nmf-xp` behind it, which holds the rest:

| name | what it is |
|---|---|
| `lock` | the mark of the folder, and locked while a run writes here |
| `previous-MARK` | the checkpoint before the last one |
| `next-MARK` | for a moment: a new one, whole, which is about to get the user's name |
| `unfinished-MARK`, `old-MARK` | for a moment: one that is being written, or removed |

MARK is a hash of the run. So a file is torn only while it is called `unfinished`; where the process dies between two
renamings, the user's name is free and `next` is whole, and is taken.

What is not of this run is never replaced or removed: before a name is given to something else, what has it is read.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.files import FileError
from nmf_xp.files.replacing import cannot_be_written, check_place, keep_rights, move, sync_folder, target_of
from nmf_xp.run.checkpoint import header as headers
from nmf_xp.run.checkpoint import identity, lock, storage
from nmf_xp.run.checkpoint.storage import CheckpointError, Stored

if TYPE_CHECKING:
    from types import TracebackType

LONGEST = 180  # bytes of the user's name that the folder's name begins with
TEXT = b"This folder is written by nmf_xp, for the checkpoint beside it.\n"
FOUND = b"nmf_xp writes into this folder, which it found empty, for the checkpoint beside it.\n"
TRIES = 100  # to get hold of a folder that others make and remove at the same moment
PAUSE = 0.02  # seconds, in which another run removes a folder from which it took the mark


class Seen(NamedTuple):
    """What a file or folder is known by while nobody touches it."""

    device: int
    number: int
    changed: int


def folder_of(target: Path) -> Path:
    """The folder beside a checkpoint."""
    name = target.name
    encoded = os.fsencode(name)
    if len(encoded) > LONGEST:
        cut = encoded[:LONGEST].decode("utf-8", "ignore")
        name = f"{cut}-{hashlib.blake2b(encoded, digest_size=8).hexdigest()}"
    return target.with_name(f"{name}.nmf-xp")


def last(path: Path) -> Stored | None:
    """The checkpoint at a path, None where there is none; nothing is changed, and one that is damaged is refused."""
    target = _target(path)
    if target.exists():
        return _named(path, target)
    for waiting in sorted(folder_of(target).glob(f"next-*{path.suffix}")):
        with contextlib.suppress(CheckpointError):
            return storage.read(waiting)
    return None


class Place:
    """The path of a run's checkpoints, which only one run has at a time: within a `with` statement."""

    def __init__(self, path: Any) -> None:
        """Nothing is looked at yet."""
        self.path = storage.checked_path(path)
        self._target = Path()
        self._folder = Path()
        self._lock: int | None = None
        self._found = False  # whether the folder was there without a mark, and stays
        self._mark = ""
        self._seen: dict[Path, Seen] = {}

    def __enter__(self) -> Place:
        self._target = _target(self.path)
        self._folder = folder_of(self._target)
        if not self._target.name:
            msg = f"{self.path}: is a directory, not a checkpoint"
            raise CheckpointError(msg)
        try:
            check_place(self.path)
            self._lock = self._locked()
        except CheckpointError:
            raise
        except FileError as error:
            raise CheckpointError(str(error)) from error
        except OSError as error:
            raise CheckpointError(str(cannot_be_written(self.path, error))) from error
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, traceback: TracebackType | None) -> None:
        if self._lock is None:
            return
        self._leave(self._lock)
        self._lock = None

    def _leave(self, descriptor: int) -> None:
        """Unlock the folder, and remove it where it holds nothing else."""
        try:
            try:
                self._remove_folder()
            except KeyboardInterrupt:
                self._remove_folder()
                raise
        finally:
            lock.released(descriptor)

    def _remove_folder(self) -> None:
        with contextlib.suppress(OSError):
            names = [inner.name for inner in self._folder.iterdir()]
            if names in ([], ["lock"]):
                (self._folder / "lock").unlink(missing_ok=True)
                if not self._found:
                    self._folder.rmdir()

    def claim(self, header: dict[str, Any]) -> Stored | None:
        """The checkpoint of the run with this header, None where there is none; one of another run is refused."""
        self._mark = headers.mark(header)
        try:
            self._tidy()
        except OSError as error:
            raise CheckpointError(str(cannot_be_written(self.path, error))) from error
        for name in ("previous", "next"):
            self._check_own(self._name(name))
        if not self._target.exists():
            return None
        try:
            stored = _named(self.path, self._target)
        except CheckpointError as error:
            msg = f"{error}; {self._way_out()}"
            raise CheckpointError(msg) from error
        identity.refuse_another(self.path, stored.header, header)
        self._seen[self._target] = _seen(self._target)  # lint: a dict
        return stored

    def write(self, stored: Stored) -> None:
        """Write a checkpoint; what was the last one becomes the previous one."""
        unfinished, waiting, before, old = map(self._name, ("unfinished", "next", "previous", "old"))
        target = self._target
        try:
            self._tidy()
            for name in (target, before, waiting):
                self._check_own(name)
            there = os.path.lexists(target)
            try:
                storage.save(unfinished, stored, private=there)
                if there:
                    keep_rights(target, unfinished)
                move(unfinished, waiting)
                sync_folder(self._folder)
                new = _seen(waiting)
                if there and target.is_dir() and before.exists():
                    before.rename(old)
                if there:
                    target.replace(before)
                    self._seen[before] = self._seen.pop(target)  # lint: a dict
                move(waiting, target)
                self._seen[target] = new  # lint: a dict
                sync_folder(target.parent)
                sync_folder(self._folder)
                storage.remove(old)
            except BaseException:
                with contextlib.suppress(OSError):  # the first error is the one to tell
                    self._put_back()
                    storage.remove(unfinished)
                    if os.path.lexists(target) and self._is_own(waiting):
                        storage.remove(waiting)
                raise
        except OSError as error:
            intact = "; the last checkpoint is intact" if target.exists() else ""
            msg = f"{cannot_be_written(self.path, error)}{intact}"
            raise CheckpointError(msg) from error

    def _name(self, name: str) -> Path:
        return self._folder / f"{name}-{self._mark}{self.path.suffix}"

    def _locked(self) -> int | None:
        """Get hold of the folder, and make it where there is none."""
        file = self._folder / "lock"
        flags = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        for _ in range(TRIES):
            if not os.path.lexists(self._folder):
                _make(self._folder)
            mark = _mark_in(self._folder)
            if mark == b"":
                _make_lock(file, FOUND)
            elif mark is None:
                name = self._folder.name
                msg = f"{self.path}: needs the name {name} beside it; rename what has it, or name another file"
                raise CheckpointError(msg)
            try:
                descriptor = os.open(file, flags)
            except FileNotFoundError:  # another run has just ended and removed the folder
                continue
            if not lock.locked(descriptor):
                os.close(descriptor)
                msg = f"{self.path}: is in use by another run; wait until that has ended, or name another file"
                raise CheckpointError(msg)
            found = os.fstat(descriptor)
            if file.exists() and os.path.samestat(found, file.lstat()):
                self._found = os.read(descriptor, len(FOUND)) == FOUND
                return descriptor
            lock.released(descriptor)
        msg = f"{self.path}: is in use by other runs; wait until they have ended, or name another file"
        raise CheckpointError(msg)

    def _put_back(self) -> None:
        """The previous checkpoint has its name again, where it was to be removed and nothing came in its place."""
        before, old = self._name("previous"), self._name("old")
        if not os.path.lexists(before) and self._is_own(old):
            move(old, before)

    def _tidy(self) -> None:
        """Finish what a killed process left: what was about to get the user's name gets it, or is out of date."""
        self._put_back()
        for torn in map(self._name, ("unfinished", "old")):
            if torn.is_symlink() or torn.is_dir() != (self.path.suffix.lower() == ".zarr"):
                self._check_own(torn)
            storage.remove(torn)
        waiting = self._name("next")
        if os.path.lexists(self._target):
            if self._is_own(waiting):
                storage.remove(waiting)
            return
        for each in (waiting, _older(self._target, "next")):
            if self._is_own(each):
                move(each, self._target)
                return

    def _is_own(self, path: Path) -> bool:
        """Whether a checkpoint of this run stands at a path; read unless it is as it was when it was read last."""
        if not os.path.lexists(path) or path.is_symlink():  # the former knows no name that is too long
            return False
        if self._seen.get(path) == _seen(path):
            return True
        try:
            found = storage.read(path, self.path.suffix)
        except CheckpointError:
            return False
        if headers.mark(found.header) != self._mark:
            return False
        self._seen[path] = _seen(path)  # lint: a dict
        return True

    def _check_own(self, path: Path) -> None:
        """Refuse to write where something else has the name."""
        if os.path.lexists(path) and not self._is_own(path):
            where = self.path if path == self._target else path
            msg = f"{where}: is no checkpoint of this run, and stays; rename it to go on"
            raise CheckpointError(msg)

    def _way_out(self) -> str:
        """What can be done about a checkpoint that cannot be read."""
        for before in (self._name("previous"), _older(self._target, "previous")):
            if not self._is_own(before):
                continue
            at = str(storage.read(before, self.path.suffix).header["at"])
            found, name = before.relative_to(self._target.parent), self._target.name
            if self.path.is_symlink():
                found, name = before, str(self._target)
            way = f"rename {found} to {name}"
            way = f"remove {name}, then {way}" if self._target.is_dir() else f"{way} to go on from there"
            return f"the one before it is whole, {at}: {way}"
        return "no whole one is left: remove it, or name another file, to begin anew"


def _target(path: Path) -> Path:
    try:
        return target_of(path)
    except FileError as error:
        raise CheckpointError(str(error)) from error


def _named(path: Path, target: Path) -> Stored:
    """What stands at the end of the user's path, by which errors call it."""
    try:
        return storage.read(target, path.suffix)
    except CheckpointError as error:
        raise CheckpointError(str(error).replace(str(target), str(path), 1)) from error


def _older(target: Path, name: str) -> Path:
    """Where what is in the folder was before there was one."""
    return target.with_name(f"{target.stem}.{name}{target.suffix}")


def _seen(path: Path) -> Seen:
    """A folder is known by the file with its checksum."""
    found = path.lstat()
    changed = found.st_mtime_ns
    if stat.S_ISDIR(found.st_mode):
        inner = path / "zarr.json"
        changed = inner.lstat().st_mtime_ns if inner.exists() else 0
    return Seen(found.st_dev, found.st_ino, changed)


def _make(folder: Path) -> None:
    """A folder with the mark, where another run was not faster."""
    try:
        folder.mkdir()
    except FileExistsError:
        return
    except BaseException:
        with contextlib.suppress(OSError):
            folder.rmdir()
        raise
    try:
        _make_lock(folder / "lock", TEXT)
    except BaseException:
        with contextlib.suppress(OSError):
            (folder / "lock").unlink(missing_ok=True)
            folder.rmdir()
        raise


def _make_lock(file: Path, text: bytes) -> None:
    """The mark of a folder that has none; another run may be faster."""
    with contextlib.suppress(FileExistsError, FileNotFoundError), file.open("xb") as stream:
        stream.write(text)


def _mark_in(folder: Path) -> bytes | None:
    """The mark of a folder, nothing where it is empty; None where it is another's.

    An empty one may be the user's, or what a killed process left. It is written into and stays.
    """
    file = folder / "lock"
    for tries in range(TRIES):
        if folder.is_symlink() or not folder.is_dir():
            return None if os.path.lexists(folder) else TEXT  # one that has just been removed
        try:
            if any(folder.iterdir()):
                known = not file.is_symlink() and file.is_file() and file.stat().st_size in map(len, (TEXT, FOUND))
                found = file.read_bytes() if known else None
                return found if found in (TEXT, FOUND) else None
        except FileNotFoundError:  # another run has just ended and removed it
            continue
        if tries:
            return b""
        time.sleep(PAUSE)  # it may be about to be removed
    return None
