"""Names on the command line that lead to one file: nothing is written over what the same command reads or keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nmf_xp.files import FileError
from nmf_xp.files.replacing import is_within
from nmf_xp.run.checkpoint import folder_beside

if TYPE_CHECKING:
    from pathlib import Path


def check_names(written: dict[str, Path | None], read: dict[str, Path | None]) -> None:
    """Refuse a file that is to be written and is also something else, whatever links and folders lead to it.

    Both are paths by what gives them; None where nothing does.
    """
    others = {name: path for name, path in read.items() if path is not None}
    checkpoint = written.get("--checkpoint")
    if checkpoint is not None:
        others["--checkpoint"] = checkpoint
        kept = folder_beside(checkpoint)
    for name, path in written.items():
        if path is None:
            continue
        for other, place in others.items():
            same = is_within(path, place) or (other == "--checkpoint" and is_within(path, kept))
            if same and other != name:
                what = f"lies in the folder that {other} names" if place.is_dir() else f"is also what {other} names"
                msg = f"{path}: is given by {name} and {what}; name another file"
                raise FileError(msg)
