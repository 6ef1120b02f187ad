"""The stored entries of a sparse matrix: their places, and the model there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nmf_xp.arrays import threads
from nmf_xp.arrays.kernels.compiling import entry

if TYPE_CHECKING:
    from numpy.typing import NDArray


def sampled_product(
    starts: NDArray[Any], columns: NDArray[Any], left: NDArray[Any], right: NDArray[Any]
) -> NDArray[Any]:
    """A row of `left` times one of `right` for each entry, where the entries stand row by row."""
    left, right = np.ascontiguousarray(left), np.ascontiguousarray(right)
    starts, columns = of_one_dtype(starts, columns)
    result = np.empty(columns.shape, dtype=left.dtype)
    step = max(2**14, -(-columns.shape[0] // 8))

    def work(first: int) -> None:
        row, part = int(np.searchsorted(starts, first, side="right")) - 1, slice(first, first + step)
        _sampled_product(starts, row, first, columns[part], left, right, result[part])

    threads.run(work, list(range(0, columns.shape[0], step)))
    return result


def places(
    starts: NDArray[Any], columns: NDArray[Any], order: NDArray[Any] | None
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Where rows of entries begin, their columns, and their order, empty where it is theirs; of one dtype."""
    starts, columns, order = of_one_dtype(starts, columns, np.empty(0, starts.dtype) if order is None else order)
    return starts, columns, order


def by_columns(
    starts: NDArray[Any], columns: NDArray[Any], values: NDArray[Any], n: int
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Entries that stand row by row, column by column: where columns begin, the rows, the order, and the entries."""
    starts, columns = of_one_dtype(starts, columns)
    ends = np.zeros(n + 1, starts.dtype)
    _count(columns, ends[1:])
    np.cumsum(ends, out=ends)
    rows, order, turned = np.empty_like(columns), np.empty_like(columns), np.empty_like(values)
    _transpose(starts, columns, values, ends[:-1].copy(), rows, order, turned)
    return ends, rows, order, turned


def of_one_dtype(*indices: NDArray[Any]) -> list[NDArray[Any]]:
    """Indices as the kernels take them."""
    return [index.astype(np.result_type(*indices), copy=False) for index in indices]


@entry("i1, n, n, i1, x2, x2, x1")
def _sampled_product(starts: Any, i: Any, first: Any, columns: Any, left: Any, right: Any, result: Any) -> None:
    """Of the entries from `first` on, which stands in row i."""
    r = left.shape[1]
    for p in range(columns.shape[0]):
        while starts[i + 1] <= first + p:
            i += 1
        a, b = left[i], right[columns[p]]
        total = a[0] * b[0]
        for k in range(1, r):
            total += a[k] * b[k]
        result[p] = total


@entry("i1, i1")
def _count(columns: Any, counts: Any) -> None:
    for p in range(columns.shape[0]):
        counts[columns[p]] += 1


@entry("i1, i1, x1, i1, i1, i1, x1")
def _transpose(starts: Any, columns: Any, values: Any, to: Any, rows: Any, order: Any, turned: Any) -> None:
    """`to` is the next place of each column."""
    for i in range(starts.shape[0] - 1):
        for p in range(starts[i], starts[i + 1]):
            j = columns[p]
            q = to[j]
            rows[q], order[q], turned[q] = i, p, values[p]
            to[j] = q + 1
