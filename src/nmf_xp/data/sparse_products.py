"""The two products of sparse factorization, for each library that has sparse arrays.

The standard has no sparse array, so what multiplies one is each library's own: compressed rows in SciPy, CuPy and
torch, sums over segments in JAX.
"""

from __future__ import annotations

import copy
import importlib
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.arrays import kernels, libraries, operators

if TYPE_CHECKING:
    from nmf_xp.arrays.typing import Array, Namespace

CHUNK = 2**17  # numbers gathered at a time, which fit the cache


class View(NamedTuple):
    """The entries as compressed rows (or columns).

    Where `others` is None this order is not stored, and the library multiplies by the transpose of the other one.
    """

    starts: Array  # first entry of each row, and the end
    others: Array | None  # index of each entry along the other axis
    order: Array | None  # which stored entry stands where; None for the order in which they are stored
    values: Array | None = None  # V's entries in this order, where they are kept twice
    made: tuple[Any, Any] | None = None  # CuPy's matrix of these places, and its transpose


def indices(view: View) -> Array:
    """The row of each entry that stands row by row, on NumPy."""
    import numpy as np

    starts: Any = view.starts
    return np.repeat(np.arange(starts.shape[0] - 1, dtype=starts.dtype), np.diff(starts))


def sampled_product(i: Array, j: Array, left: Array, right: Array, *, xp: Namespace) -> Array:
    """Row i of `left` times row j of `right`, for each entry (i, j)."""
    if libraries.is_jax(left):
        kernel, twin = kernels.find("gathered_product", i, j, left, right), sampled_product_jax
        return twin(i, j, left, right) if kernel is None else kernel(twin, i, j, left, right)
    step = max(1, CHUNK // left.shape[1])
    parts = [
        xp.sum(xp.take(left, i[k : k + step], axis=0) * xp.take(right, j[k : k + step], axis=0), axis=-1)
        for k in range(0, max(1, i.shape[0]), step)
    ]
    return parts[0] if len(parts) == 1 else xp.concat(parts)


def product(along: View, across: View, Z: Array, B: Array, *, xp: Namespace) -> Array:
    """The sparse matrix with the entries Z, as `along` orders them, times the dense B."""
    if along.order is not None:
        Z = xp.take(Z, along.order)
    if libraries.is_jax(Z):
        assert along.others is not None
        return _product_jax(along.starts, along.others, Z, B)
    shape = (along.starts.shape[0] - 1, across.starts.shape[0] - 1)
    if libraries.is_torch(Z):
        torch = importlib.import_module("torch")
        with warnings.catch_warnings():  # torch calls its compressed rows a beta feature, once a process
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
            warnings.filterwarnings("ignore", message="Sparse invariant checks are implicitly disabled")  # torch 2.11
            return torch.sparse_csr_tensor(along.starts, along.others, Z, size=shape, check_invariants=False) @ B
    made = along.made[0] if along.made else across.made[1] if across.made and along.others is None else None
    if made is not None:
        made = copy.copy(made)
        made.data = Z
        return made @ B
    sparse = importlib.import_module("scipy.sparse" if libraries.is_numpy(Z) else "cupyx.scipy.sparse")
    if along.others is not None:
        return sparse.csr_matrix((Z, along.others, along.starts), shape=shape) @ B
    return sparse.csr_matrix((Z, across.others, across.starts), shape=shape[::-1]).T @ B


def with_matrix(view: View, values: Array, shape: tuple[int, ...]) -> View:
    """The view with CuPy's matrix of its places, of which only the entries are exchanged later.

    To make one anew is to wait for the device: CuPy looks whether the places fit, are in order and differ.
    """
    if not libraries.is_cupy(values):
        return view
    sparse = importlib.import_module("cupyx.scipy.sparse")
    xp = libraries.array_namespace(values)
    narrow = xp.int32 if max(*shape, values.shape[0]) < 2**31 else xp.int64
    places = (xp.astype(x, narrow, copy=False) for x in (view.others, view.starts))
    wide = values if xp.isdtype(values.dtype, "real floating") else xp.astype(values, xp.float64)
    matrix = sparse.csr_matrix((wide, *places), shape=shape)
    made = matrix, matrix.T
    try:
        for one in made:
            one.sum_duplicates()  # there are none, which is looked at once and kept
            one.data = wide
    except AttributeError:  # of a release in which they cannot be exchanged
        return view
    return view._replace(made=made)


def _chunks_jax(step: int, *arrays: Array) -> tuple[Any, ...]:
    """Arrays cut into chunks of equal length, padded with zeros."""
    jnp = importlib.import_module("jax.numpy")
    length = arrays[0].shape[0]
    padding = -length % min(step, length)
    return tuple(jnp.reshape(jnp.pad(x, (0, padding)), (-1, min(step, length))) for x in arrays)


def sampled_product_jax(i: Array, j: Array, left: Array, right: Array) -> Array:
    """The sampled product, a chunk of entries at a time."""
    jax = importlib.import_module("jax")
    chunks = _chunks_jax(max(1, CHUNK // left.shape[1]), i, j)
    products = jax.lax.map(lambda ij: jax.numpy.sum(left[ij[0], :] * right[ij[1], :], axis=-1), chunks)
    return jax.numpy.ravel(products)[: i.shape[0]]


def _product_jax(starts: Array, others: Array, Z: Array, B: Array) -> Array:
    """Sums over segments, a chunk of entries at a time; padded entries are zeros."""
    jax = importlib.import_module("jax")
    jnp = jax.numpy
    m = starts.shape[0] - 1
    i = jnp.repeat(jnp.arange(m), jnp.diff(starts), total_repeat_length=Z.shape[0])
    chunks = _chunks_jax(max(1, CHUNK // B.shape[1]), i, others, Z)

    def add(result: Any, chunk: Any) -> tuple[Any, None]:
        i, j, z = chunk
        return result.at[i, :].add(z[:, None] * B[j, :]), None

    return jax.lax.scan(add, jnp.zeros((m, B.shape[1]), dtype=Z.dtype), chunks)[0]


def absent_powers(i: Array, j: Array, W: Array, H: Array, *, beta: float, dtype: Any, xp: Namespace) -> Array:
    """The sum of (WH)^beta over the entries of each row that are not among the (i, j): (m,), some rows at a time.

    It visits the whole matrix, in blocks of about as many entries as are stored.
    """
    (m, _), n = W.shape, H.shape[-1]
    height = min(m, max(1, max(CHUNK, i.shape[0]) // n))
    if libraries.is_jax(W):
        return _absent_powers_jax(i, j, W, H, height, beta=beta, dtype=dtype)
    sums = []
    for start in range(0, m, height):
        Y: Any = W[start : start + height, :] @ H
        here = xp.nonzero(xp.logical_and(i >= start, i < start + height))[0]
        Y[xp.take(i, here) - start, xp.take(j, here)] = 0  # lint: made here
        sums.append(xp.sum(operators.power(Y, beta, xp=xp), axis=-1, dtype=dtype))
    return xp.concat(sums)


def _absent_powers_jax(i: Array, j: Array, W: Array, H: Array, height: int, *, beta: float, dtype: Any) -> Array:
    jax = importlib.import_module("jax")
    jnp = jax.numpy

    def of_block(block: Any) -> Any:
        start = block * height
        rows = jnp.take(W, start + jnp.arange(height), axis=0, mode="fill", fill_value=0)
        here = jnp.logical_and(i >= start, i < start + height)
        Y = (rows @ H).at[jnp.where(here, i - start, height), j].set(0, mode="drop")
        return jnp.sum(operators.power(Y, beta, xp=jnp), axis=-1, dtype=dtype)

    return jnp.ravel(jax.lax.map(of_block, jnp.arange(-(-W.shape[0] // height))))[: W.shape[0]]
