"""Damaged files for every reader: each is read, or refused with the library's own error, and nothing else happens.

    python -m tests.readers --minutes 60 [--kind hdf5] [--seed 1]

Valid files are made, damaged and read, in a process of its own. Findings are: a process that dies or hangs, another
exception, a warning, output, a program that is started, and more memory than there is said to be, or three times the
file. Each is printed with the command that makes it again. `--keep FOLDER` keeps its file.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nmf_xp import RowBlocks, nmf
from nmf_xp.arrays import memory
from nmf_xp.files import FileError, read_factors, read_matrix
from nmf_xp.run.checkpoint import CheckpointError
from tests.files import valid
from tests.files.damage import damaged

if TYPE_CHECKING:
    from collections.abc import Iterator

FREE = 2**26
"""The bytes of memory that are said to be free."""

BASE = 2**26
"""Bytes beside the file and what is free, for libraries that are loaded and for what a decoder needs."""

LIMIT = 30.0
"""Seconds after which a reader hangs."""

SCRIPT = ["-m", "tests.readers"]

STARTS = (
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "pickle.find_class",
    "socket.connect",
)


class Ended(NamedTuple):
    """What became of a case: its number, and "read", "refused" or what was found."""

    number: int
    outcome: str


def write(folder: Path, kind: str, seed: int, number: int) -> tuple[Path, str | None]:
    """The file of a case, and the name of what is to be read in it."""
    rng = np.random.default_rng([seed, sorted(valid.MAKERS).index(kind), number])
    maker = valid.MAKERS[kind]
    sample, other = maker(rng), maker(rng)
    parts = dict(sample.parts)
    within = rng.random() < 0.6
    if within:
        name = str(rng.choice(sorted(parts)))
        parts[name] = damaged(parts[name], rng, next(iter(other.parts.values())))
    content = sample.pack(parts)
    if not within or rng.random() < 0.1:
        name = str(rng.choice(sorted(content)))
        content[name] = damaged(content[name], rng, next(iter(other.pack(other.parts).values())))
    path = folder / f"case{sample.suffix}"
    for name, data in content.items():
        file = path if name == valid.WHOLE else path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return path, sample.key


def use(path: Path, kind: str, key: str | None) -> None:
    """Read a file, and every number in it."""
    if kind == "checkpoint":
        nmf(valid.V, 3, max_iter=15, checkpoint=path, **valid.RUN)
    elif kind == "factors":
        for factor in read_factors(path):
            with np.errstate(all="ignore"):
                factor.sum()
    else:
        values, rows, columns, note = read_matrix(path, key=key)
        len(f"{rows}{columns}{note}")
        if isinstance(values, RowBlocks):
            with contextlib.suppress(
                ValueError, OSError, TypeError
            ):  # what stands in the middle of a file is found late
                values.done(next(values.blocks()))
        else:
            with np.errstate(all="ignore"):
                values.sum()


def examine(path: Path, kind: str, key: str | None, seen: list[str]) -> str:
    """What becomes of a file; `seen` is where the process notes what is done in it."""
    expected: Any = CheckpointError if kind == "checkpoint" else FileError
    size = sum(file.stat().st_size for file in [path, *path.rglob("*")])
    seen.clear()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        before = _peak_from_here()
        try:
            use(path, kind, key)
            outcome = "read"
        except expected as error:
            outcome = "refused"
            if isinstance(error.__cause__, MemoryError):
                return f"asks for more memory than is free: {error}"
            if len(str(error)) > 1000 or not str(error).startswith(str(path)):
                return f"says {str(error)[:1000]}"
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            return f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})"
        more = _peak() - before
    if warned:
        return f"warns: {warned[0].category.__name__}: {warned[0].message}"
    if seen:
        return f"starts {seen[0]}"
    if more > 3 * size + FREE + BASE:
        return f"takes {more / 1e6:.0f} MB for {size} bytes"
    return outcome


def _peak_from_here() -> int:
    """Forget the peak of the process's memory, which is now what it has."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    """The peak of the process's memory, where Linux says it."""
    return memory._table("/proc/self/status").get("VmHWM", 0)


def work(kind: str, seed: int, numbers: range, out: Any, folder: Path) -> None:
    """Examine cases one by one, in a process of its own, and say of each when it begins and how it ends."""
    seen: list[str] = []

    def note(event: str, arguments: Any) -> None:
        if event in STARTS:
            seen.append(f"{event} {arguments}"[:200])

    sys.addaudithook(note)
    memory.available = lambda: FREE
    said = folder / "said"
    errors = os.fdopen(os.dup(2), "w")
    sys.excepthook = lambda *error: traceback.print_exception(*error, file=errors)
    with said.open("ab") as file:  # what libraries write to the terminal
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    for number in numbers:
        case = folder / "case"
        case.mkdir()
        path, key = write(case, kind, seed, number)
        out.write(f"{json.dumps(number)}\n")
        out.flush()
        outcome = examine(path, kind, key, seen)
        if said.stat().st_size:
            text = said.read_text(errors="replace")
            of_libtiff = path.suffix == ".tif" and text.replace("\n", "").isprintable()
            outcome = outcome if of_libtiff or outcome not in ("read", "refused") else f"prints {text[:300]!r}"
            os.truncate(said, 0)
        out.write(f"{json.dumps([number, outcome])}\n")
        out.flush()
        shutil.rmtree(case)


def cases(kind: str, seed: int, first: int, count: int, until: float) -> Iterator[Ended]:
    """Each case of a kind and its end; a process that dies is followed by another one."""
    while first < count and time.monotonic() < until:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, *SCRIPT, "--work", folder, "--kind", kind]
            command += ["--seed", str(seed), "--first", str(first), "--count", str(count - first)]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1])
            begun = None
            try:
                for line in _lines(process):
                    said = json.loads(line)
                    if isinstance(said, int):
                        begun, first = said, said + 1
                        continue
                    begun = None
                    yield Ended(*said)
                    if time.monotonic() > until:
                        return
            finally:
                process.kill()
                process.communicate()
            if begun is None:
                if process.returncode == 0:
                    return
                if process.returncode > 0:
                    msg = f"the process of {kind} ended with {process.returncode} before case {first}"
                    raise RuntimeError(msg)
                begun = first - 1  # the case before has left its memory damaged
            code = process.returncode
            yield Ended(begun, "hangs" if code == -signal.SIGKILL else f"ends the process: {code}")


def _lines(process: subprocess.Popen[bytes]) -> Iterator[bytes]:
    """What a process says, until it ends or is silent for too long."""
    assert process.stdout is not None
    waiting, limit = b"", 10 * LIMIT  # libraries are loaded first
    while True:
        ready, _, _ = select.select([process.stdout], [], [], limit)
        if not ready:
            process.kill()
            return
        limit = LIMIT
        data = os.read(process.stdout.fileno(), 2**16)
        if not data:
            process.wait()
            return
        *lines, waiting = (waiting + data).split(b"\n")
        yield from lines


def run(
    kinds: list[str], seed: int, *, first: int = 0, count: int = 10**9, minutes: float = 1e9, keep: str = ""
) -> int:
    """Examine cases of each kind, and print how many there were and what was found; how many findings there are."""
    findings = 0
    for kind in kinds:
        ends, found = collections.Counter[str](), dict[str, Ended]()
        for number, outcome in cases(kind, seed, first, first + count, time.monotonic() + 60 * minutes / len(kinds)):
            if outcome in ("read", "refused"):
                ends[outcome] += 1
                continue
            ends["found"] += 1
            found.setdefault(outcome[:40], Ended(number, outcome))
            if keep:
                write(Path(keep) / f"{kind} {seed} {number}", kind, seed, number)
        findings += ends["found"]
        print(
            f"{kind}: {ends.total()} cases, {ends['read']} read, {ends['refused']} refused, {ends['found']} findings",
            flush=True,
        )
        for number, outcome in found.values():
            again = f"python -m tests.readers --kind {kind!r} --seed {seed} --first {number} --count 1"
            print(f"    {outcome[:400]}\n        {again}", flush=True)
    return findings


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--kind", choices=sorted(valid.MAKERS), action="append")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=10**9)
    parser.add_argument("--keep", default="")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        out = os.fdopen(os.dup(1), "w")
        numbers = range(options.first, options.first + options.count)
        work(options.kind[0], options.seed, numbers, out, Path(options.work))
        return 0
    asked = {"first": options.first, "count": options.count, "minutes": options.minutes, "keep": options.keep}
    return 1 if run(options.kind or sorted(valid.MAKERS), options.seed, **asked) else 0


if __name__ == "__main__":
    sys.exit(main())
