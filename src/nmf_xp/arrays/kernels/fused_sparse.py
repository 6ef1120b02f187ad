"""The products of a sparse V on a GPU: a row of entries at a time, with nothing stored that is larger than a factor.

The rows of a factor that the entries meet are gathered into registers: Triton's loads take any addresses, and those of
one row are contiguous. A row is one program, which makes the sums the same in every run; where one row has many more
entries than the others, all wait for it.
"""

from __future__ import annotations

from typing import Any

import jax
from jax import numpy as jnp
from jax.experimental import pallas
from jax.experimental.pallas import triton

from nmf_xp.arrays.kernels import gpu

ENTRIES = 32  # that are gathered at a time
PART = 16  # components of a sampled product that are multiplied at a time


def sparse_quotient(twin: Any, data: Any, W: Any, H: Any) -> Any:
    """(V / WH) H^T over the stored entries."""
    return gpu.run(_sparse_quotient, twin, data, W, H, factor=W)


def _sparse_quotient(data: Any, W: Any, H: Any) -> Any:
    return quotient(data.values, data.along, W, jnp.matrix_transpose(H))


def quotient(values: Any, view: Any, W: Any, Ht: Any, *, interpret: bool = False) -> Any:
    """(V / WH) H^T over the entries as `view` orders them row by row, for W (m, r) and the transpose of H (n, r)."""
    starts, columns, order = view[:3]
    m, r = W.shape
    order = () if order is None else (order,)
    call = pallas.pallas_call(
        _quotient_kernel,
        out_shape=gpu.array((m, r), W.dtype),
        grid=(m,),
        compiler_params=triton.CompilerParams(num_warps=1 if r <= 32 else 4, num_stages=1),
        interpret=interpret,
    )
    return call(starts, columns, values, W, Ht, *order)


def _quotient_kernel(starts: Any, columns: Any, values: Any, W: Any, Ht: Any, *rest: Any) -> None:
    *order, out = rest
    r = W.shape[1]
    i = pallas.program_id(0)
    k = jnp.arange(pallas.next_power_of_2(r), dtype=jnp.int32)
    w = triton.load(W.at[i, k], mask=k < r, other=0.0)
    first, last = starts[i], starts[i + 1]

    def add(step: Any, total: Any) -> Any:
        at = first + step * ENTRIES + jnp.arange(ENTRIES, dtype=starts.dtype)
        stored = at < last
        inside = stored[:, None] & (k < r)[None, :]
        v_at = triton.load(order[0].at[at], mask=stored, other=0) if order else at
        v = triton.load(values.at[v_at], mask=stored, other=0.0)
        j = inside_of(Ht.shape[0], triton.load(columns.at[at], mask=stored, other=0))
        h = triton.load(Ht.at[j[:, None], k[None, :]], mask=inside, other=0.0)
        y = jnp.sum(w[None, :] * h, axis=1)
        q = jnp.where(stored, v / y, 0.0)
        return total + jnp.sum(q[:, None] * h, axis=0)

    steps = (last - first + (ENTRIES - 1)) // ENTRIES
    zeros = jnp.zeros(k.shape, dtype=W.dtype)
    triton.store(out.at[i, k], jax.lax.fori_loop(jnp.zeros_like(steps), steps, add, zeros), mask=k < r)


def inside_of(length: int, index: Any) -> Any:
    """The index, or the end beside which it lies: as JAX reads, where Triton would read what is not the array's."""
    return jnp.minimum(jnp.maximum(index, 0), length - 1)


def gathered_product(twin: Any, i: Any, j: Any, left: Any, right: Any) -> Any:
    """Row i of `left` times row j of `right`, for each entry (i, j)."""
    return gpu.run(product, twin, i, j, left, right, factor=left)


def product(i: Any, j: Any, left: Any, right: Any, *, interpret: bool = False) -> Any:
    """The same, by the kernel."""
    call = pallas.pallas_call(
        _product_kernel,
        out_shape=gpu.array(i.shape, left.dtype),
        grid=(-(-i.shape[0] // ENTRIES),),
        compiler_params=triton.CompilerParams(num_warps=1, num_stages=1),
        interpret=interpret,
    )
    return call(i, j, left, right)


def _product_kernel(i: Any, j: Any, left: Any, right: Any, out: Any) -> None:
    r = left.shape[1]
    at = pallas.program_id(0) * ENTRIES + jnp.arange(ENTRIES, dtype=jnp.int32)
    stored = at < out.shape[0]
    rows, columns = (
        inside_of(x.shape[0], triton.load(index.at[at], mask=stored, other=0))[:, None]
        for x, index in ((left, i), (right, j))
    )
    total = jnp.zeros((ENTRIES,), dtype=left.dtype)
    for start in range(0, r, PART):
        k = (start + jnp.arange(PART, dtype=jnp.int32))[None, :]
        inside = stored[:, None] & (k < r)
        a = triton.load(left.at[rows, k], mask=inside, other=0.0)
        b = triton.load(right.at[columns, k], mask=inside, other=0.0)
        total += jnp.sum(a * b, axis=1)
    triton.store(out.at[at], total, mask=stored)
