"""What is asked of every file that is read, and the one sentence that says what is wrong with it."""

from __future__ import annotations

import contextlib
import importlib
import warnings
from typing import TYPE_CHECKING, Any

from nmf_xp.arrays import memory

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

LONGEST = 400  # characters of what a library says
PIECE = 2**20  # bytes that are looked at together
LISTED = 20  # names in a message, before the rest is counted


class FileError(Exception):
    """A file that cannot be read or written, in one sentence that names it, and that a terminal can be trusted with."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


def printable(text: str) -> str:
    """The text with an escape for each character that a terminal may obey: ESC, what turns the line around, and such.

    Names come from files, and a file may be anybody's.
    """
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def listed(names: Iterable[str]) -> str:
    """Names one after the other, of many the first ones."""
    names = list(names)
    more = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" and {more} more" if more > 0 else "")


@contextlib.contextmanager
def opened(path: Path, suffixes: Sequence[str], suffix: str | None = None) -> Iterator[str]:
    """The suffix of a file that is to be read; what its reader raises becomes one sentence.

    It is that of the path, unless a link with another `suffix` leads to it.
    """
    suffix = (suffix or path.suffix).lower()
    if suffix not in suffixes:
        msg = f"{path}: the suffix {suffix!r} is none of {', '.join(suffixes)}"
        raise FileError(msg)
    try:
        if path.is_dir() and suffix != ".zarr":
            msg = f"{path}: is a directory, not a file"
            raise FileError(msg)
        if path.exists() and not path.is_dir() and not path.is_file():
            msg = f"{path}: is a device, a pipe or a socket, not a file; save what it gives as a file"
            raise FileError(msg)
        if path.is_file() and path.stat().st_size == 0:
            msg = f"{path}: the file is empty"
            raise FileError(msg)
        with warnings.catch_warnings():
            # Of what is not read, such as EXIF, and of the text of headers; other damage is an error.
            warnings.simplefilter("ignore", UserWarning)
            warnings.simplefilter("ignore", SyntaxWarning)
            warnings.filterwarnings("ignore", "invalid escape sequence", DeprecationWarning)
            yield suffix
    except (FileError, ImportError):
        raise
    except FileNotFoundError as error:
        msg = f"{path}: no such file"
        raise FileError(msg) from error
    except Exception as error:  # readers raise whatever their format leads them to
        msg = f"{path}: cannot be read: {reason_of(error)}"
        raise FileError(msg) from error


def pieces(path: Path, begin: int = 0) -> Iterator[bytes]:
    """What a file holds from there on, a piece at a time."""
    with path.open("rb") as file:
        file.seek(begin)
        while piece := file.read(PIECE):
            yield piece


def reason_of(error: Exception) -> str:
    """What an exception says, on one line, which is cut where it holds half of the file."""
    reason = " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
    reason = reason if len(reason) <= LONGEST else f"{reason[:LONGEST]} ..."
    if isinstance(error, ValueError) and "pickle" in reason.lower():
        return "it holds pickled Python objects, which could run any code; save plain numbers instead"
    return reason


def optional_module(name: str, extra: str) -> Any:
    """A module from an optional package."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = {"PIL": "pillow"}.get(name.partition(".")[0], name.partition(".")[0])
        msg = f'this needs {package}: pip install "nmf_xp[{extra}]"'
        raise ImportError(msg) from error


def check_fits(path: Path, what: str, bytes_: float) -> None:
    """Refuse what a file declares to be larger than the memory that is free, before anything is made for it."""
    free = memory.available()
    if bytes_ > free:
        msg = f"{path}: {what} takes {bytes_ / 1e9:.3g} GB, and {free / 1e9:.3g} GB of memory are free"
        raise FileError(msg)
