"""Files that take the place of others, and what of those stays: links, mode, owner, access control lists, attributes.

Written is a file of a name that nobody has, which takes the name that it is for once it is whole on the disk.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nmf_xp.files.opening import FileError

if TYPE_CHECKING:
    from collections.abc import Callable

USERS, LISTS = "user.", "system.posix_acl_"
"""How the names of extended attributes begin: those of users, and access control lists."""


def target_of(path: Path) -> Path:
    """The place to which a path leads, through all links, whether something stands there or not."""
    try:
        target = path.resolve()
        target.lstat()
    except FileNotFoundError:
        return target
    except (OSError, RuntimeError, ValueError) as error:  # a name too long, links in a circle, a zero byte
        raise cannot_be_written(path, error) from error
    if target.is_symlink():  # as later versions of Python leave a circle
        raise cannot_be_written(path, RuntimeError())
    return target


def is_within(path: Path, other: Path) -> bool:
    """Whether a path leads to what another one leads to, or to something within that folder."""
    target = target_of(path)
    try:
        place = target_of(other)
    except FileError:  # which nothing can be within
        return False
    if target == place or place in target.parents:
        return True
    return target.exists() and place.exists() and target.samefile(place)


def cannot_be_written(path: Path, error: Exception) -> FileError:
    """The error of a file, in one sentence."""
    reason = str(getattr(error, "strerror", None) or error)
    if isinstance(error, RuntimeError):
        reason = "its links go in a circle"
    return FileError(f"{path}: cannot be written: {reason}")


def check_place(path: Path) -> None:
    """Find out whether a file can be made here, or replaced with its owner."""
    target = target_of(path)
    try:
        with tempfile.TemporaryFile(dir=target.parent) as file:
            if target.exists() and os.name == "posix":
                _keep_owner(target.stat(), file.fileno())
    except OSError as error:
        raise cannot_be_written(path, error) from error


def write_atomically(path: Path, write: Callable[[Any], Any], *, replace: bool = True) -> None:
    """Write beside `path`, flush to the disk, and only then take the name of `path`.

    A link stays a link, and the new file has the mode, the owner and the attributes of the old one. Without `replace`
    what has come to be there is left alone, and the error says where the new file is.
    """
    target = target_of(path)
    try:
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=".nmf-xp-", suffix=target.suffix[:12])
        written = Path(name)
        try:
            write_through(descriptor, write)
            if target.exists():
                keep_rights(target, written)
            else:
                written.chmod(0o666 & ~_umask())
            if replace:
                written.replace(target)
            else:
                move(written, target)
        except FileExistsError as error:
            msg = f"{path}: has come to be there in the meantime; what was to be written is in {written}"
            raise FileError(msg) from error
        except BaseException:
            written.unlink(missing_ok=True)
            raise
        sync_folder(target.parent)
    except OSError as error:
        raise cannot_be_written(path, error) from error


def move(path: Path, target: Path) -> None:
    """Give a file another name, where nothing has that name; folders too, as long as no file does."""
    if path.is_dir():
        path.rename(target)
        return
    try:
        os.link(path, target)
    except FileExistsError:
        raise
    except (OSError, AttributeError):  # a file system that has no hard links
        if os.path.lexists(target):
            raise FileExistsError(17, "File exists", str(target)) from None
        path.rename(target)
    else:
        path.unlink()


def keep_rights(old: Path, new: Path) -> None:
    """Give what is to replace an old file or folder its owner, its mode and what else is said of it.

    In folders, for each name that both have.
    """
    if os.name != "posix":
        return
    if new.is_dir():
        for inner in new.iterdir():
            before = old / inner.name
            if before.exists() and not before.is_symlink() and before.is_dir() == inner.is_dir():
                keep_rights(before, inner)
    was = old.stat()
    _keep_owner(was, new)
    _keep_attributes(old, new)
    new.chmod(stat.S_IMODE(was.st_mode))


def _keep_attributes(old: Path, new: Path) -> None:
    """The user's extended attributes, where there is room for them, and the access control list, which must be there.

    One that a folder gives to all new files, and the old file did not have, is taken away.
    """
    if not hasattr(os, "listxattr"):  # Linux has them
        return
    try:
        before, now = os.listxattr(old), os.listxattr(new)
    except OSError:  # a file system without
        return
    for name in before:
        if name.startswith(USERS):
            with contextlib.suppress(OSError):
                os.setxattr(new, name, os.getxattr(old, name))
        elif name.startswith(LISTS):
            os.setxattr(new, name, os.getxattr(old, name))
    for name in now:
        if name.startswith(LISTS) and name not in before:
            os.removexattr(new, name)


def _keep_owner(was: os.stat_result, new: Path | int) -> None:
    now = os.stat(new)  # noqa: PTH116
    if (was.st_uid, was.st_gid) == (now.st_uid, now.st_gid):
        return
    try:
        os.chown(new, was.st_uid, was.st_gid)
    except PermissionError as error:
        reason = "it belongs to another user or group, which only they may replace; name another file"
        raise PermissionError(error.errno, reason) from error


def write_through(file: Path | int, write: Callable[[Any], Any]) -> None:
    """Write a file, by its path or descriptor, through to the disk."""
    with open(file, "wb") as stream:  # noqa: PTH123
        write(stream)
        stream.flush()
        os.fsync(stream.fileno())


def sync_folder(folder: Path) -> None:
    """Make the names in a folder last, where the system lets a folder be flushed."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _umask() -> int:
    """The process's umask, which can be read only by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
