"""Labels of V's rows, as people have them: lists, arrays of any library, columns of tables."""

from __future__ import annotations

from typing import Any

from nmf_xp.arrays import libraries, transfer


def labels_of(batch: Any, m: int) -> list[Any]:
    """The labels of the rows, as hashable values on the host."""
    import numpy as np

    if libraries.is_array(batch) and not libraries.is_readable(batch):
        msg = "`batch` must be known when the function is compiled, got labels that are traced"
        raise TypeError(msg)
    labels = batch
    if np.ma.is_masked(batch):
        labels = batch.tolist()  # with None for what is masked
    elif libraries.is_array(batch):
        labels = transfer.to_host(batch)
    to_list = getattr(labels, "to_pylist", None) or getattr(labels, "to_numpy", None)
    labels = labels if to_list is None else to_list()
    if isinstance(labels, str) or not hasattr(labels, "__len__"):
        msg = f"`batch` must be the labels of V's rows, got {batch!r}; of a table pass the column"
        raise TypeError(msg)
    found = labels if isinstance(labels, list | tuple | np.ndarray) else np.asarray(labels)
    shape = found.shape if isinstance(found, np.ndarray) else (len(found),)
    if shape != (m,):
        msg = f"`batch` must have one label for each of the {m} rows of V, got shape {shape}"
        raise ValueError(msg)
    if isinstance(found, np.ndarray) and found.dtype.kind in "mM":  # as integers they would be no dates
        found = found.astype(f"{'datetime' if found.dtype.kind == 'M' else 'timedelta'}64[us]")
    found = found.tolist() if isinstance(found, np.ndarray) else found
    values = [x.item() if hasattr(x, "item") else x for x in found]
    values = [x.decode(errors="replace") if isinstance(x, bytes) else x for x in values]
    missing = [i for i, x in enumerate(values) if _is_missing(x)]
    if missing:
        msg = f"`batch` must have a label for each row, got none for row {missing[0]}; name those that are unknown"
        raise ValueError(msg)
    return values


def _is_missing(label: Any) -> bool:
    """Whether a label is none: NaN and what tables and masked arrays have in its place."""
    if label is None or type(label).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(label, float) and label != label
