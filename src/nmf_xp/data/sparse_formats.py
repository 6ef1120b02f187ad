"""Sparse arrays of each library as `Sparse`: canonical (ordered, without duplicates), and never changed.

Factors are dense arrays of the matching namespace: NumPy for SciPy and pydata, CuPy, torch and JAX for their own.
Explicit zeros stay stored.
"""

from __future__ import annotations

from typing import Any

from nmf_xp.arrays import arrival, libraries, operators
from nmf_xp.data.sparse import Sparse, from_entries
from nmf_xp.data.sparse_places import checked
from nmf_xp.data.sparse_products import View, with_matrix


def from_sparse(V: Any) -> Sparse:
    """The entries of a sparse array of any library; `libraries.sparse_library` has recognised it."""
    match libraries.sparse_library(checked(V)):
        case "scipy" | "cupyx":
            return _from_scipy(V)
        case "torch":
            return _from_torch(V)
        case "jax":
            return _from_jax(V)
        case _:
            return _from_scipy(checked(V.to_scipy_sparse()))


def stores_nothing(V: Any) -> bool:
    """Whether a sparse array has no stored entry: `from_sparse` then makes an explicit zero."""
    if libraries.sparse_library(V) == "torch":
        return bool(V._nnz() == 0)
    return bool(getattr(V, "nnz", getattr(V, "nse", None)) == 0)


def _from_scipy(V: Any) -> Sparse:
    """SciPy and CuPy: compressed rows; the transpose is multiplied as it stands."""
    V = arrival.plain_sparse(V).tocsr()
    if libraries.is_numpy(V.data) and V.nnz < V.data.shape[0]:  # there is room for more entries
        V = V.copy()
        V.prune()
    if not V.has_canonical_format:
        V = V.copy()
        V.sum_duplicates()
    xp = libraries.array_namespace(V.data)
    device = libraries.device(V.data)
    values, starts, columns = map(arrival.plain, (V.data, V.indptr, V.indices))
    if V.nnz == 0:  # one explicit zero spares everything else the case of no entries
        values = xp.zeros(1, dtype=values.dtype, device=device)
        columns = xp.zeros(1, dtype=columns.dtype, device=device)
        starts = operators.at_most(xp.arange(V.shape[0] + 1, dtype=starts.dtype, device=device), 1, xp=xp)
    narrow = xp.int32 if max(*V.shape, V.nnz) < 2**31 else xp.int64
    if libraries.is_numpy(values):  # half of the memory for what is made of them, and of the time to read them
        starts, columns = (x.astype(narrow, copy=False) for x in (starts, columns))
    i = None
    if libraries.is_cupy(values):  # before 14.1 its `repeat` takes no array
        places = xp.arange(columns.shape[0], dtype=starts.dtype, device=device)
        i = xp.astype(xp.searchsorted(starts, places, side="right") - 1, narrow)
    nothing = xp.zeros(V.shape[1] + 1, dtype=starts.dtype, device=device)
    along = with_matrix(View(starts, columns, None), values, V.shape)
    return Sparse(values, i, columns, along, View(nothing, None, None))


def _from_torch(V: Any) -> Sparse:
    V = V.detach().to_sparse_coo().coalesce()
    i, j = V.indices()
    return from_entries(V.values(), i, j, V.shape)


def _from_jax(V: Any) -> Sparse:
    V = V.to_bcoo() if hasattr(V, "to_bcoo") else V
    if V.n_batch or V.n_dense:
        msg = f"`V` must be a BCOO array without batch and dense axes, got n_batch={V.n_batch} and n_dense={V.n_dense}"
        raise TypeError(msg)
    if libraries.on_mesh(V.data):
        msg = f"`V` must lie on one device where it is sparse, got {len(V.data.devices())} devices; make it dense"
        raise ValueError(msg)
    if not (V.unique_indices and V.indices_sorted):
        if libraries.is_traced(V.data):
            rule = "sorted indices without duplicates in a compiled function"
            msg = f"`V` must have {rule}, got indices that promise neither; call `V.sum_duplicates()` before"
            raise ValueError(msg)
        V = V.sum_duplicates()
    values, i, j = V.data, V.indices[:, 0], V.indices[:, 1]
    if libraries.in_host_memory(values):  # what JAX pads with stands behind the last row
        count = int((i < V.shape[0]).sum())
        values, i, j = values[:count], i[:count], j[:count]
    return from_entries(values, i, j, V.shape)
