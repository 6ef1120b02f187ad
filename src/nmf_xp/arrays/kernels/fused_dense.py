"""(V / WH) H^T for a dense V on a GPU: V is read once, tile by tile, and WH lives in registers and shared memory only.

A program owns some rows of the result and walks along them; where there are too few rows to keep a GPU busy, several
programs share them and their results are added up. Products are exact to the dtype, never in TF32.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
from jax import numpy as jnp
from jax.experimental import pallas
from jax.experimental.pallas import triton

from nmf_xp.arrays.kernels import gpu

ROWS, COLUMNS = 64, 32  # of a tile of V; Triton wants powers of two
PART = 16  # components that are multiplied at a time: the least that Triton's float64 product takes
PROGRAMS = 1024  # at least so many, where V is large enough


def dense_quotient(twin: Any, data: Any, W: Any, H: Any) -> Any:
    """(V / WH) H^T for V = data.values (m, n)."""
    return gpu.run(_dense_quotient, twin, data, W, H, factor=W)


def transposed_quotient(twin: Any, data: Any, W: Any, H: Any) -> Any:
    """The same for the transpose of data.values (n, m), which stays as it is in memory."""
    return gpu.run(_transposed_quotient, twin, data, W, H, factor=W)


def _dense_quotient(data: Any, W: Any, H: Any) -> Any:
    return quotient(data.values, W, H)


def _transposed_quotient(data: Any, W: Any, H: Any) -> Any:
    return quotient(data.values, W, H, transposed=True)


def quotient(V: Any, W: Any, H: Any, *, transposed: bool = False, interpret: bool = False) -> Any:
    """(V / WH) H^T, or with the transpose of V in its place, for W (m, r) and H (r, n)."""
    (m, r), n = W.shape, H.shape[1]
    tiles = -(-n // COLUMNS)
    shares = max(1, min(tiles, PROGRAMS * ROWS // m))
    steps = -(-tiles // shares)
    shares = -(-tiles // steps)
    words = r * W.dtype.itemsize // 4  # of registers for a row of a factor
    sums = pallas.pallas_call(
        functools.partial(_kernel, transposed=transposed, steps=steps),
        out_shape=gpu.array((shares, m, r), W.dtype),
        grid=(-(-m // ROWS), shares),
        compiler_params=triton.CompilerParams(num_warps=4 if words <= 64 else 8, num_stages=2),
        interpret=interpret,
    )(V, W, H)
    return sums[0] if shares == 1 else jnp.sum(sums, axis=0)


def _kernel(V: Any, W: Any, H: Any, out: Any, *, transposed: bool, steps: int) -> None:
    (m, r), n = W.shape, H.shape[1]
    share = pallas.program_id(1)
    i = pallas.program_id(0) * ROWS + jnp.arange(ROWS, dtype=jnp.int32)
    parts = [start + jnp.arange(PART, dtype=jnp.int32) for start in range(0, r, PART)]
    at_w = [(i[:, None], k[None, :]) for k in parts]
    in_w = [(i < m)[:, None] & (k < r)[None, :] for k in parts]
    w = [triton.load(W.at[at], mask=mask, other=0.0) for at, mask in zip(at_w, in_w, strict=True)]

    def add(step: Any, totals: list[Any]) -> list[Any]:
        j = (share * steps + step) * COLUMNS + jnp.arange(COLUMNS, dtype=jnp.int32)
        inside = (i < m)[:, None] & (j < n)[None, :]
        at = (j[None, :], i[:, None]) if transposed else (i[:, None], j[None, :])
        v = triton.load(V.at[at], mask=inside, other=0.0)
        h = [
            triton.load(H.at[k[:, None], j[None, :]], mask=(k < r)[:, None] & (j < n)[None, :], other=0.0)
            for k in parts
        ]
        y = _dot(w[0], h[0])
        for x, z in zip(w[1:], h[1:], strict=True):
            y += _dot(x, z)
        q = jnp.where(inside, v / y, 0.0)
        return [total + _dot(q, z.T) for total, z in zip(totals, h, strict=True)]

    zeros = [jnp.zeros((ROWS, PART), dtype=W.dtype) for _ in parts]
    totals = jax.lax.fori_loop(jnp.int32(0), jnp.int32(steps), add, zeros)
    for total, at, mask in zip(totals, at_w, in_w, strict=True):
        triton.store(out.at[(share, *at)], total, mask=mask)


_dot = functools.partial(jnp.dot, precision=jax.lax.Precision.HIGHEST)
