"""Where the entries of a sparse array stand, looked at before anything reads by it.

Compiled code does not ask whether an index is in range: one that is not ends the process, or reads what is not V's. So
every sparse array from outside is looked at once, in a few passes over its indices. What lies on a GPU is not, since to
look is to wait for it; its own library, or our kernels, keep such an index in range.
"""

from __future__ import annotations

from typing import Any

from nmf_xp.arrays import libraries


def checked(V: Any) -> Any:
    """The sparse array itself, whose places are all within its shape; ValueError where one is not."""
    library = libraries.sparse_library(V)
    if library == "scipy":
        _check_scipy(V)
    elif library == "torch" and libraries.is_readable(V) and not libraries.on_gpu(V):
        _check_torch(V)
    elif library == "jax" and not libraries.is_traced(V.data) and not libraries.on_gpu(V):
        _check_jax(V)
    return V


def _check_scipy(V: Any) -> None:
    m, n = V.shape
    match V.format:
        case "csr" | "csc":
            _check_compressed(V.indptr, V.indices, V.data, V.shape, by_columns=V.format == "csc")
        case "bsr":
            if V.data.ndim != 3 or 0 in V.data.shape[1:] or m % V.data.shape[1] or n % V.data.shape[2]:
                _refuse(f"blocks that divide its shape {(m, n)}", f"blocks of shape {V.data.shape[1:]}")
            height, width = V.data.shape[1:]
            _check_compressed(V.indptr, V.indices, V.data, (m // height, n // width), by_columns=False)
        case "coo":
            i, j = V.coords
            _check_pairs(i, j, V.data, V.shape)
        case "dia":
            _check_integers("offsets", V.offsets)
            if V.data.ndim != 2 or V.offsets.shape != V.data.shape[:1]:
                _refuse("one offset for each diagonal", f"{V.offsets.shape} offsets for data of shape {V.data.shape}")
            _check_range("diagonal", V.offsets, -m, n + 1)
        case "lil":
            rows, data = ([len(row) for row in lists] for lists in (V.rows, V.data))
            if len(rows) != m or rows != data:
                _refuse("as many entries as columns in each row", "rows of other lengths")
            for row in V.rows:
                if row and not 0 <= min(row) <= max(row) < n:
                    _refuse(f"columns from 0 to {n - 1}", min(row) if min(row) < 0 else max(row))


def _check_torch(V: Any) -> None:
    layout = str(V.layout).removeprefix("torch.sparse_")
    if layout == "coo":
        if V.sparse_dim() == 2:
            i, j = V._indices()
            _check_pairs(i, j, V._values(), V.shape)
        return
    by_columns = layout in ("csc", "bsc")
    starts = V.ccol_indices() if by_columns else V.crow_indices()
    others = V.row_indices() if by_columns else V.col_indices()
    shape = tuple(V.shape)
    if layout in ("bsr", "bsc"):
        shape = tuple(length // block for length, block in zip(shape, V.values().shape[1:3], strict=True))
    _check_compressed(starts, others, V.values(), shape, by_columns=by_columns)


def _check_jax(V: Any) -> None:
    """JAX pads with places beyond the shape, which nothing is stored at: they are left out."""
    import numpy as np

    data, indices = np.asarray(V.data), np.asarray(V.indices)
    m, n = V.shape
    if hasattr(V, "indptr"):
        check_starts(np.asarray(V.indptr), m, len(data))
        _check_range("column", indices[data != 0], 0, n)
        return
    stored = indices[data != 0]
    _check_range("row", stored[:, 0], 0, m)
    _check_range("column", stored[:, 1], 0, n)


def _check_compressed(starts: Any, others: Any, data: Any, shape: tuple[int, ...], *, by_columns: bool) -> None:
    """Refuse compressed rows or columns that do not fit together, or do not fit in the shape."""
    m, n = shape
    if others.ndim != 1 or others.shape[0] != data.shape[0]:
        _refuse("an index for each stored entry", f"indices of shape {tuple(others.shape)} for {data.shape[0]} entries")
    check_starts(starts, n if by_columns else m, data.shape[0])
    _check_integers("indices", others)
    _check_range("row" if by_columns else "column", others, 0, m if by_columns else n)


def check_starts(starts: Any, lines: int, stored: int) -> None:
    """Refuse places where lines begin that are not as many as these, or do not rise from 0 to what is stored."""
    _check_integers("indptr", starts)
    if tuple(starts.shape) != (lines + 1,):
        _refuse(f"an `indptr` of {lines + 1} numbers", f"shape {tuple(starts.shape)}")
    first, last = int(starts[0]), int(starts[-1])
    if first != 0 or last > stored or bool((starts[1:] < starts[:-1]).any()):
        what = "one that falls" if first == 0 and last <= stored else f"{first} to {last}"
        _refuse(f"an `indptr` that rises from 0 to at most its {stored} entries", what)


def _check_pairs(i: Any, j: Any, data: Any, shape: tuple[int, ...]) -> None:
    for name, index, length in (("row", i, shape[0]), ("column", j, shape[1])):
        _check_integers("indices", index)
        if tuple(index.shape) != (data.shape[0],):
            _refuse(f"a {name} for each stored entry", f"{tuple(index.shape)} for {data.shape[0]} entries")
        _check_range(name, index, 0, length)


def _check_integers(name: str, index: Any) -> None:
    dtype = libraries.dtype_name(index.dtype)
    if index.ndim != 1 or not dtype.startswith(("int", "uint")):
        _refuse(f"integers along one axis as `{name}`", f"{dtype} of shape {tuple(index.shape)}")


def _check_range(name: str, index: Any, low: int, high: int) -> None:
    """Refuse an index that is not from `low` to below `high`."""
    if not index.shape[0]:
        return
    least, most = int(index.min()), int(index.max())
    if least < low or most >= high:
        bad = least if least < low else most
        _refuse(f"each {name} from {low} to {high - 1}", f"{bad} at stored entry {index.tolist().index(bad)}")


def _refuse(rule: str, got: Any) -> None:
    msg = f"`V` must have {rule} where it is sparse, got {got}"
    raise ValueError(msg)
