"""One pass over V, row block by row block, with no temporary of V's size.

The rows of W need only their own rows of V, and what H needs of them is a sum over the rows. So a whole iteration
reads V once. In memory the blocks are those that fit the cache, shared among threads; elsewhere they are what the data
brings, one after the other.
"""

from __future__ import annotations

import abc
import itertools
import math
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from nmf_xp.arrays import libraries, operators, threads
from nmf_xp.data.constraints import FREE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nmf_xp.arrays.typing import Array, Namespace
    from nmf_xp.data.constraints import Constraints
    from nmf_xp.data.seam import Data

Dress: TypeAlias = "Callable[[int, Data], Data]"


class Part(NamedTuple):
    """What a block contributes: its rows of a result, and terms of sums over all rows."""

    rows: Any  # an array with a row for each of W's, or None where there is no such result
    sums: tuple[Array, ...]


class Blockwise(abc.ABC):
    """V that is nowhere whole, and can only be visited block by block.

    It is passed where a `Data` is, to what does no more with V than to `sweep` over it.
    """

    shape: tuple[int, int]
    has_absent: bool
    weighted: bool

    @property
    @abc.abstractmethod
    def values(self) -> Array:
        """No entry, shape (0, n), of the namespace, device and dtype in which the blocks are factorized."""

    @abc.abstractmethod
    def sweep(
        self,
        function: Callable[[Data, Array, Constraints], Part],
        W: Array,
        constraints: Constraints,
        *,
        xp: Namespace,
    ) -> Part:
        """The function over the blocks, as `sweep` has it."""

    @abc.abstractmethod
    def in_order(self) -> Iterator[tuple[int, Data]]:
        """One block after the other, each with its first row; done with before the next one is asked for."""

    @abc.abstractmethod
    def dressed(self, dress: Dress) -> Blockwise:
        """The same blocks, each as other data that are made of it and of the number of its first row."""


def in_order(data: Data) -> Iterator[tuple[int, Data]]:
    """The blocks in which V comes, each with its first row: in memory all of it."""
    return data.in_order() if isinstance(data, Blockwise) else iter([(0, data)])


def sweep(
    function: Callable[[Data, Array, Constraints], Part],
    data: Data,
    W: Array,
    constraints: Constraints,
    *,
    products_only: bool = False,
    xp: Namespace,
) -> Part:
    """`function` over the row blocks of data, W and the constraints on W: rows concatenated, sums added up.

    Where the function takes nothing from V but its products, and BLAS makes them, each thread has one block. BLAS's own
    threads do as well on an idle machine; where others work too they wait for each other, for ten times as long.

    Which blocks a thread gets, and so the order of the sums, depends on the number of threads but not on their timing.
    """
    if isinstance(data, Blockwise):
        return data.sweep(function, W, constraints, xp=xp)
    if products_only and W.ndim == 2 and data.products_by_blas:
        starts = threads.bounds(data.shape[0], products=math.prod(data.shape) * W.shape[-1])
    else:
        starts = data.block_starts(W.shape[-1])
    if len(starts) < 3 or W.ndim > 2:
        return function(data, W, constraints)

    def work(share: list[tuple[int, int]]) -> tuple[list[Any], list[Array]]:
        rows: list[Any] = []
        totals: list[Array] = []
        for start, stop in share:
            part = function(data.rows(start, stop), W[start:stop, :], constraints.rows(start, stop))
            rows.append(part.rows)
            for total, term in zip(totals, part.sums, strict=False):
                total += term  # lint: made here
            totals = totals or [xp.asarray(term, device="cpu") for term in part.sums]
        return rows, totals

    shares = threads.run(work, threads.shares(list(itertools.pairwise(starts))))
    rows = [block for share, _ in shares for block in share]
    totals = zip(*(totals for _, totals in shares), strict=True)
    return Part(None if rows[0] is None else xp.concat(rows), tuple(sum(terms[1:], terms[0]) for terms in totals))


def matmul(data: Data, Xt: Array, *, xp: Namespace) -> Array:
    """V X, (m, k), for the transpose of X, (k, n)."""
    if not isinstance(data, Blockwise):
        if Xt.ndim > 2 or not data.products_by_blas:
            return data.contract(data.values, Xt, xp=xp)

        def part(start: int, stop: int) -> Array:
            block = data.rows(start, stop)
            return block.contract(block.values, Xt, xp=xp)

        parts = threads.over_rows(data.shape[0], part, products=math.prod(data.shape) * Xt.shape[0])
        return parts[0] if len(parts) == 1 else xp.concat(parts)

    def rows(block: Data, *_: Any) -> Part:
        return Part(block.contract(block.values, Xt, xp=xp), ())

    nothing = xp.zeros((data.shape[0], 0), dtype=Xt.dtype, device=libraries.device(Xt))
    return sweep(rows, data, nothing, FREE, xp=xp).rows


def transposed_matmul(data: Data, Xt: Array, *, xp: Namespace) -> Array:
    """V^T X, (n, k), for the transpose of X, (k, m)."""
    if not isinstance(data, Blockwise):
        return matmul(data.T, Xt, xp=xp)

    def sums(block: Data, X: Array, _: Constraints) -> Part:
        return Part(None, (block.T.contract(block.values, operators.transposed(X), xp=xp),))

    return sweep(sums, data, operators.transposed(Xt), FREE, xp=xp).sums[0]
