"""What is asked of every file that is read, and the one sentence that says what is wrong with it."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nmf_xp.arrays import memory

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

GZ = ".gz"
FOLDER = "folder"  # in the place of a suffix: one that holds one matrix in several files
FOLDERS = (FOLDER, ".zarr")
ADVICE = {
    ".xls": "save it as .xlsx",
    ".ods": "save it as .xlsx or .csv",
    ".tab": "did you mean .tsv?",
    ".dat": "did you mean .txt?",
    ".table": "did you mean .txt?",
    ".rds": "save it from R as .csv or .mtx",
    ".rdata": "save it from R as .csv or .mtx",
    ".pkl": "a pickle can run any code; save plain numbers, such as .npy",
    ".pickle": "a pickle can run any code; save plain numbers, such as .npy",
    ".zip": "unpack it first",
    ".bz2": "unpack it first",
    ".xz": "unpack it first",
    ".zst": "unpack it first",
    ".mp3": "save it as .wav",
    ".flac": "save it as .wav",
    ".arrow": "did you mean .feather?",
}
"""What to do with a file of a kind that is not read, where no other suffix is like its own."""
LONGEST = 400  # characters of what a library says
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


def in_line(name: str) -> str:
    """A name as it can be printed within a line, which it does not end."""
    return printable(name).replace("\n", "\\n")


def listed(names: Iterable[str]) -> str:
    """Names one after the other, of many the first ones."""
    names = list(names)
    more = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" and {more} more" if more > 0 else "")


def suffix_of(path: Path) -> str:
    """How a file's name ends, in lower case; of what gzip has compressed with the suffix before, as in `.csv.gz`."""
    last = path.suffix.lower()
    return Path(path.stem).suffix.lower() + last if last == GZ else last


def stem_of(path: Path) -> str:
    """What stands before the suffix of a file, or of a folder that is only pointed to, as by a dot."""
    path = path.resolve() if path.name in ("", "..") else path
    return path.name[: len(path.name) - len(suffix_of(path))]


def _unknown(path: Path, suffix: str, suffixes: Sequence[str]) -> FileError:
    """That nobody knows a suffix, which one is nearest, and all that are known."""
    suffixes = [one for one in suffixes if one != FOLDER]
    near = difflib.get_close_matches(suffix, suffixes, 1)
    what = ADVICE.get(suffix) or (f"did you mean {near[0]}?" if near else "")
    if suffix.endswith(GZ) and suffix.removesuffix(GZ) in suffixes:
        what = "unpack it first, as `gunzip` does"
    known = f"the suffix {suffix!r} is none of {', '.join(suffixes)}"
    return FileError(f"{path}: {known}{f'; {what}' if what else ''}")


@contextlib.contextmanager
def opened(path: Path, suffixes: Sequence[str], suffix: str | None = None) -> Iterator[str]:
    """The suffix of a file that is to be read; what its reader raises becomes one sentence.

    It is that of the path, unless a link with another `suffix` leads to it.
    """
    suffix = (suffix_of(path) if suffix is None else suffix).lower()
    if suffix not in suffixes:
        raise _unknown(path, suffix, suffixes)
    try:
        if path.is_dir() and suffix not in FOLDERS:
            msg = f"{path}: is a directory, not a file"
            raise FileError(msg)
        if path.exists() and not path.is_dir() and not path.is_file():
            msg = f"{path}: is a device, a pipe or a socket, not a file; save what it gives as a file"
            raise FileError(msg)
        if path.is_file() and path.stat().st_size == 0:
            msg = f"{path}: the file is empty"
            raise FileError(msg)
        with warnings.catch_warnings():
            # Of what is not read, such as EXIF, of the text of headers, of sizes beyond all numbers. Other damage is an
            # error.
            warnings.simplefilter("ignore", UserWarning)
            warnings.simplefilter("ignore", RuntimeWarning)
            warnings.simplefilter("ignore", SyntaxWarning)
            warnings.filterwarnings("ignore", "invalid escape sequence", DeprecationWarning)
            yield suffix
    except (FileError, ImportError):
        raise
    except FileNotFoundError as error:
        msg = (
            f"{path}: leads to {path.readlink()}, which is not there" if path.is_symlink() else f"{path}: no such file"
        )
        raise FileError(msg) from error
    except Exception as error:  # readers raise whatever their format leads them to
        msg = f"{path}: cannot be read: {reason_of(error)}"
        raise FileError(msg) from error


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
