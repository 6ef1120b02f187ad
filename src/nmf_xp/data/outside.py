"""What leads out of a file: HDF5 and zarr can say that their numbers stand in any other file, a device or a pipe.

Who reads a stranger's file would read that too, wait for it without end, or get zeros where it is missing. So it is
refused before anything of it is opened. Whoever opens a file by themselves decides by themselves.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import ModuleType

LINKS = 32  # that lead one to the other
ADVICE = "copy its numbers into the file itself"


class Within:
    """A group of an HDF5 file, in which each name is looked up without opening another file."""

    def __init__(self, h5py: ModuleType, group: Any) -> None:
        """Nothing is looked at yet."""
        self._h5py, self._group = h5py, group
        self.attrs = group.attrs

    def keys(self) -> list[str]:
        """The names in the group."""
        return list(self._group.keys())

    def __contains__(self, name: str) -> bool:
        return self._found(name) is not None

    def __getitem__(self, name: str) -> Any:
        found = self._found(name)
        if found is None:
            msg = f"it holds no {name!r}"
            raise ValueError(msg)
        if isinstance(found, self._h5py.Group):
            return Within(self._h5py, found)
        if isinstance(found, self._h5py.Dataset) and (found.external or found.is_virtual):
            msg = f"the numbers of {name!r} stand in other files, which are not read; {ADVICE}"
            raise ValueError(msg)
        return found

    def _found(self, name: str) -> Any:
        """What has this name, through all links; None where there is nothing."""
        at, parts, left = self._group, _parts(name), LINKS
        if name.startswith("/"):
            at = at.file["/"]
        while parts:
            part = parts.pop(0)
            link = at.get(part, getlink=True) if isinstance(at, self._h5py.Group) else None
            if link is None:
                return None
            if isinstance(link, self._h5py.ExternalLink):
                msg = f"{name!r} is a link to another file, {link.filename}, which is not read; {ADVICE}"
                raise ValueError(msg)
            if isinstance(link, self._h5py.SoftLink):
                left = left - 1
                if left == 0:
                    return None
                at = at.file["/"] if link.path.startswith("/") else at
                parts = _parts(link.path) + parts
                continue
            at = at[part]
        return at


def _parts(name: str) -> list[str]:
    return [part for part in name.split("/") if part not in ("", ".")]


def check_folder(folder: Path) -> None:
    """Refuse a zarr store in a folder in which something is no file, or leads out of the folder."""
    if not folder.is_dir():
        return
    root = folder.resolve()
    for place, folders, files in os.walk(root):
        for name in (*folders, *files):
            inner = Path(place, name)
            mode = inner.lstat().st_mode
            if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
                continue
            said = inner.relative_to(root)
            target = inner.resolve()
            if not stat.S_ISLNK(mode) or (target.exists() and not target.is_file() and not target.is_dir()):
                msg = f"it holds a device, a pipe or a socket, {said}; copy its numbers into the folder"
                raise ValueError(msg)
            if root not in (target, *target.parents):
                msg = f"it holds a link to another place, {said}; copy its numbers into the folder"
                raise ValueError(msg)
