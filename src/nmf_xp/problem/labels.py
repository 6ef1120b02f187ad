"""Labels of V's rows, as people have them: lists, arrays of any library, columns of tables."""

from __future__ import annotations

from typing import Any

from nmf_xp.arrays import libraries, transfer

SEVERAL = "; of several labels a row make one, `list(zip(donor, day))`"


def labels_of(batch: Any, m: int, stack: tuple[int, ...] = ()) -> tuple[list[Any], bool]:
    """The labels of the rows, as hashable values on the host, and whether each member of a stack has its own.

    Then they come one member after the other.
    """
    found = _on_host(batch)
    shape = found.shape if hasattr(found, "shape") else _shape(found)
    if not stack and len(shape) == 2 and (shape[0] == m) != (shape[1] == m):
        found, shape = _combined(found, across=shape[1] == m), (m,)
    apart = bool(stack) and shape == (*stack, m)
    if shape != (m,) and not apart:
        what = f"or for each of every member, {(*stack, m)}, " if stack else ""
        several = SEVERAL if m in shape else ""
        msg = f"`batch` must have one label for each of the {m} rows of V, {what}got shape {shape}{several}"
        raise ValueError(msg)
    labels = _flat(found, len(stack) if apart else 0)
    missing = [i for i, x in enumerate(labels) if _is_missing(x)]
    if missing:
        where = f"row {missing[0] % m}" + (f" of member {missing[0] // m}" if apart else "")
        msg = f"`batch` must have a label for each row, got none for {where}; name those that are unknown"
        raise ValueError(msg)
    return labels, apart


def _combined(found: Any, *, across: bool) -> list[Any]:
    """One label for the several of each row, a tuple; they lie `across`, one vector after the other, or row by row."""
    vectors = [_flat(_on_host(part), 0) for part in found]
    rows = zip(*vectors, strict=True) if across else map(tuple, vectors)
    return [row[0] if len(row) == 1 else row for row in rows]


def _on_host(batch: Any) -> Any:
    """Labels as a list, a tuple or a NumPy array."""
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
    if isinstance(found, np.ndarray) and found.dtype.kind in "mM":  # as integers they would be no dates
        found = found.astype(f"{'datetime' if found.dtype.kind == 'M' else 'timedelta'}64[us]")
    return found


def _shape(labels: Any) -> tuple[int, ...]:
    """The lengths of nested lists, arrays and columns; all else is a label, a tuple in a list too."""
    inner = {_shape(x) if _holds_labels(x) else () for x in labels}
    return (len(labels), *(inner.pop() if len(inner) == 1 else ()))


def _holds_labels(x: Any) -> bool:
    column = hasattr(x, "__len__") and hasattr(x, "to_numpy")
    return isinstance(x, list) or column or (libraries.is_array(x) and x.ndim > 0)


def _flat(labels: Any, depth: int) -> list[Any]:
    """The labels of all members, one after the other."""
    if depth:
        return [x for part in labels for x in _flat(_on_host(part), depth - 1)]
    found = labels.tolist() if hasattr(labels, "tolist") else labels
    values = [x.item() if hasattr(x, "item") else x for x in found]
    return [x.decode(errors="replace") if isinstance(x, bytes) else x for x in values]


def _is_missing(label: Any) -> bool:
    """Whether a label is none, or a part of it: NaN and what tables and masked arrays have in its place."""
    if isinstance(label, tuple):
        return any(map(_is_missing, label))
    if label is None or type(label).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(label, float) and label != label
