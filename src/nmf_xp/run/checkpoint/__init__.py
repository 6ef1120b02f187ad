"""Runs that survive: a run's position on the disk, and the way back.

| file | what it knows |
|---|---|
| `identity` | which problem and options make two runs the same |
| `header` | what the header of a checkpoint must hold |
| `storage` | one checkpoint: formats and checksums |
| `place` | where the last two are kept, and that nothing else is touched |
| `lock` | that one run writes there at a time |

What is kept is all that the loop holds: the solver's whole state, with the memory order of its arrays, on which the
last digits of sums depend; the history; and how members of a stack have ended. So a run that goes on takes the same
steps as one that was never interrupted, to the last bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import nmf_xp
from nmf_xp.arrays import libraries, memory, mesh, transfer
from nmf_xp.arrays.checks import check_integer
from nmf_xp.files.replacing import target_of
from nmf_xp.result import Status
from nmf_xp.run.checkpoint import identity
from nmf_xp.run.checkpoint.place import Place, folder_of, last
from nmf_xp.run.checkpoint.storage import SUFFIXES, CheckpointError, Stored, checked_path
from nmf_xp.run.position import End, Position

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    import numpy as np

    from nmf_xp.arrays.typing import Array, Namespace
    from nmf_xp.problem.posing import Posed
    from nmf_xp.run.position import Schedule

    HostArray = np.ndarray[Any, Any]

__all__ = ["SUFFIXES", "Checkpoint", "CheckpointError", "folder_beside", "position"]


def folder_beside(path: Path) -> Path:
    """The folder in which more than the last checkpoint of this path is kept."""
    return folder_of(target_of(path))


def position(path: Path) -> int | None:
    """The iteration at which the checkpoint at a path stands; None where there is none."""
    found = last(checked_path(path))
    return None if found is None else int(found.header.get("n_iter", 0))


class Checkpoint:
    """The checkpoint of one run: what the loop asks of a `Recorder`.

    `place` is entered around all of it, and keeps other runs away. `writing` is entered around the loop: what was not
    due yet is written where that ends, also by Ctrl-C.
    """

    def __init__(self, path: Any, every: Any, random_state: Any = None) -> None:
        """`random_state` is described now, before anything is drawn from it."""
        self.place = Place(path)
        self.path = self.place.path
        self._every = check_integer("checkpoint_every", every, minimum=1)
        self._seed = identity.seed(random_state)
        self._header: dict[str, Any] = {}
        self._schedule: Schedule | None = None
        self._found: Stored | None = None
        self._written = 0
        self._latest: Position | None = None
        self._lengths: list[int] = []  # of the histories at that position

    def check_arrays(self, posed: Posed, start: list[Array]) -> None:
        """Refuse what no file can hold, before the path is touched, which several processes would do at once."""
        arrays = (posed.values, *start)
        if not all(libraries.is_readable(x) for x in arrays):
            msg = f"`checkpoint` must be left out in a compiled function, where nothing can be written, got {self.path}"
            raise ValueError(msg)
        if not all(getattr(x, "is_fully_addressable", True) for x in arrays):
            msg = (
                f"`checkpoint` must be left out where several processes share `V`, got {self.path}; "
                "save W and H in a `callback`, and go on from them with `init=(W, H)`"
            )
            raise ValueError(msg)

    def identify(
        self, posed: Posed, start: list[Array], schedule: Schedule, *, function: str, solver: str, init: str | None
    ) -> None:
        """Say which run this is; a checkpoint of another one, or none that can be read or written, is refused.

        `init` names the start where it was not given.
        """
        seed = None if init is None else self._seed
        named = {"function": function, "solver": solver, "init": init or "given", "random_state": seed}
        self._header = {
            "nmf_xp": nmf_xp.__version__,
            "options": identity.options(posed, start[0], schedule, **named),
            "contents": identity.contents(posed, start if init is None else None),
        }
        self._schedule = schedule
        self._found = self.place.claim(self._header)
        if self._found is not None:
            self._check_found(self._found.header, schedule)

    def _check_found(self, found: dict[str, Any], schedule: Schedule) -> None:
        """Refuse what is no position from which this run can go on."""
        if "n_iter" not in found:
            what = "it is that of a selection"
            raise self._forged(what)
        if found["n_iter"] > schedule.max_iter:
            msg = (
                f"{self.path}: stands at iteration {found['n_iter']}, beyond max_iter={schedule.max_iter}; "
                "raise max_iter, or remove this file to begin anew"
            )
            raise CheckpointError(msg)

    def _forged(self, what: str) -> CheckpointError:
        return CheckpointError(f"{self.path}: is no checkpoint that nmf_xp wrote: {what}; name another file")

    def resume(self, begun: Position, *, xp: Namespace) -> Position:
        """The position in the file that was found, in arrays like those of the run that has just begun."""
        if self._found is None or self._schedule is None:
            return begun
        (header, arrays), self._found = self._found, None
        if len(header["ends"]) != len(begun.ends):
            what = "its header has wrong 'ends'"
            raise self._forged(what)
        n_iter, checked, history = header["n_iter"], header["checked"], header["history"]
        between = n_iter % self._schedule.check_every != 0 and n_iter < self._schedule.max_iter
        if between and checked:  # the last check was that of an end which is none any more
            history = [past if end else past[:-1] for past, end in zip(history, header["ends"], strict=True)]
            checked = False
        self._written = n_iter
        stacked = begun.state.W.ndim > 2

        def restored(prefix: str, *, row: bool) -> Any:
            fields = {}
            for name, like in begun.state._asdict().items():
                key = f"{prefix}.{name}"
                shape, found = like.shape, arrays[key].shape if key in arrays else None
                if stacked:
                    shape = shape[1:] if row else (len(header["rows"]), *shape[1:])
                if found != shape or arrays[key].dtype.name != libraries.dtype_name(like.dtype):
                    version = header["nmf_xp"][:40]
                    msg = f"{self.path}: was written by nmf_xp {version}, whose solver kept another state"
                    raise CheckpointError(msg)
                try:
                    host = _in_memory_as(header["strides"][key], arrays[key])
                except ValueError as error:
                    what = f"its header has no 'strides' that fit {key!r}"
                    raise self._forged(what) from error
                device = mesh.place_like(like, host.ndim)
                fields[name] = transfer.from_host(host, xp=xp, dtype=like.dtype, device=device)
            return type(begun.state)(**fields)

        ends = [
            end and End(tuple(past), end["n_iter"], Status[end["status"]], restored(f"ended.{member}", row=True))
            for member, (end, past) in enumerate(zip(header["ends"], history, strict=True))
        ]
        return Position(n_iter, header["rows"], history, ends, restored("state", row=False), checked)

    def record(self, position: Position) -> None:
        """Hold on to the position, and write it if it is due."""
        self._latest = position._replace(ends=list(position.ends))
        self._lengths = [len(past) for past in position.history]
        if position.n_iter - self._written >= self._every:
            self._write()

    def _write(self) -> None:
        if self._latest is None:
            return
        n_iter, rows, history, ends, state, checked = self._latest
        states = {"state": state} | {f"ended.{i}": end.state for i, end in enumerate(ends) if end is not None}
        arrays = {f"{key}.{name}": transfer.to_host(x) for key, s in states.items() for name, x in s._asdict().items()}
        position = {
            "at": f"at iteration {n_iter}",
            "n_iter": n_iter,
            "checked": checked,
            "rows": rows,
            "ends": [end and {"n_iter": end.n_iter, "status": end.status.name} for end in ends],
            "strides": {name: [step // x.itemsize for step in x.strides] for name, x in arrays.items()},
            "history": [past[:length] for past, length in zip(history, self._lengths, strict=True)],
        }
        self.place.write(Stored({**self._header, **position}, arrays))
        self._written, self._latest = n_iter, None

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, traceback: TracebackType | None) -> None:
        if kind is None or issubclass(kind, KeyboardInterrupt):
            self._write()
        self._latest = None


def _in_memory_as(strides: list[int], values: HostArray) -> HostArray:
    """The values with these steps, in entries, from one to the next along each axis."""
    import numpy as np

    if values.size == 0 or any(step < 0 for step in strides):
        return values
    length = 1 + sum((n - 1) * step for n, step in zip(values.shape, strides, strict=True))
    if length * values.itemsize > memory.available():
        msg = "the steps lead out of the memory"
        raise ValueError(msg)
    space = np.zeros(length, dtype=values.dtype)
    laid_out = np.lib.stride_tricks.as_strided(space, values.shape, [step * values.itemsize for step in strides])
    laid_out[...] = values
    return laid_out if np.array_equal(laid_out, values, equal_nan=True) else values
