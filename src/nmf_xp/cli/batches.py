"""Batches of V's rows on the command line: their labels from a file, and what is written of their effects."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from nmf_xp.arrays import memory, transfer
from nmf_xp.files import EFFECTS, LABELS, FileError, read_labels, read_observed, write_table
from nmf_xp.result.frames import table_of

if TYPE_CHECKING:
    import argparse

    from nmf_xp import Result
    from nmf_xp.files import HostArray, Matrix

WIDE = 4  # times W in each batch, of the memory that is free
HELP = f"the batch of each row: {', '.join(LABELS)} with a label a line, or a column of obs of an .h5ad FILE"


def path_of(asked: argparse.Namespace) -> Path | None:
    """The file of labels, if one is named."""
    return None if asked.batch is None or _is_column(asked) else Path(asked.batch)


def labels_of(asked: argparse.Namespace, matrix: Matrix) -> dict[str, Any]:
    """The labels of the rows as an option of `nmf` and `transform`; nothing where there are none."""
    if asked.batch is None:
        return {}
    count = matrix.values.shape[0]
    if not _is_column(asked):
        return {"batch": read_labels(Path(asked.batch), count, matrix.row_names)}
    labels = read_observed(asked.file, asked.batch)
    if len(labels) != count:
        msg = f"{asked.file}: is damaged: obs/{asked.batch} holds {len(labels)} labels for {count} rows"
        raise FileError(msg)
    return {"batch": labels}


def _is_column(asked: argparse.Namespace) -> bool:
    return asked.file.suffix.lower() == ".h5ad" and Path(asked.batch).suffix.lower() not in LABELS


def write_effects(folder: Path, result: Result, *, replace: bool) -> None:
    """The effects of batches as a table, with the names of the batches and columns."""
    _, columns, _ = table_of(result, "H")
    write_table(
        folder / EFFECTS, list(map(str, result.batch_labels or ())), columns, effects_of(result), replace=replace
    )


def effects_of(result: Result) -> HostArray:
    """The effects (G, n) on the host."""
    import numpy as np

    return np.stack([transfer.to_host(x) for x in (result.batch_effects or {}).values()])


def shares_of(result: Result, labels: list[str]) -> HostArray:
    """The share of the rows that each batch has."""
    import numpy as np

    return np.bincount(_codes(result, labels)) / len(labels)


def with_effects(result: Result, labels: list[str]) -> tuple[HostArray, HostArray]:
    """Factors whose product is the whole model, with a column for each component in each batch.

    In a row of W all but those of its batch are 0; the rows of H are multiplied by the effects of the batch.
    """
    import numpy as np

    W, H, table = transfer.to_host(result.W), transfer.to_host(result.H), effects_of(result)
    if WIDE * table.shape[0] * W.nbytes > memory.available():
        msg = f"WH in {table.shape[0]} batches does not fit in memory"
        raise MemoryError(msg)
    wide = np.zeros((W.shape[0], table.shape[0], W.shape[1]), dtype=W.dtype)
    wide[np.arange(W.shape[0]), _codes(result, labels)] = W
    return wide.reshape(W.shape[0], -1), (table[:, None, :] * H).reshape(-1, H.shape[1])


def _codes(result: Result, labels: list[str]) -> HostArray:
    import numpy as np

    number = {label: i for i, label in enumerate(result.batch_labels or ())}
    return np.asarray([number[label] for label in labels])
