"""cNMF's tables: `.df.npz`, which is the data, the index and the columns of a pandas frame, and text with tabs."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.files import FileError, opened, write_atomically
from nmf_xp.files.objects import read_objects

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np

    HostArray = np.ndarray[Any, Any]

PARTS = {"data", "index", "columns"}


class Frame(NamedTuple):
    """Numbers with the names of their rows and columns."""

    values: HostArray
    rows: list[Any]
    columns: list[Any]

    def column(self, name: str) -> HostArray:
        """The numbers under a name."""
        return self.values[:, self.columns.index(name)]


def read_frame(path: Path, *, columns: Sequence[str] = ()) -> Frame:
    """The table in a `.df.npz` file, which must have these columns. Nothing in it is run."""
    import numpy as np

    with opened(path, (".npz",)):
        found = read_objects(path)
        if set(found) != PARTS:
            msg = f"{path}: must hold a table, the arrays data, index and columns, got {', '.join(sorted(found))}"
            raise FileError(msg)
        values, index, names = found["data"], found["index"], found["columns"]
        if values.dtype.kind == "O":
            values = np.asarray(values.tolist(), dtype=float).reshape(values.shape)
        if values.dtype.kind not in "biuf" or values.shape != (*index.shape, *names.shape) or values.ndim != 2:
            msg = f"{path}: must hold a table of numbers with names, got {values.dtype} of shape {values.shape}"
            raise FileError(msg)
    frame = Frame(values, index.tolist(), names.tolist())
    lacking = [name for name in columns if name not in frame.columns]
    if lacking:
        msg = f"{path}: lacks the column {lacking[0]!r}"
        raise FileError(msg)
    return frame


def write_frame(path: Path, frame: Frame) -> None:
    """The same as a file that pandas users read; its names are text and no objects."""
    import numpy as np

    parts: dict[str, Any] = {
        "data": frame.values,
        "index": np.asarray(frame.rows),
        "columns": np.asarray(frame.columns),
    }
    write_atomically(path, lambda file: np.savez_compressed(file, **parts))


def write_text(path: Path, frame: Frame) -> None:
    """The same as text with tabs, each number with all its digits."""

    def write(file: Any) -> None:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        table = csv.writer(text, delimiter="\t", lineterminator="\n")
        table.writerow(["", *frame.columns])
        table.writerows([name, *row] for name, row in zip(frame.rows, frame.values.tolist(), strict=True))
        text.detach()

    write_atomically(path, write)
