"""Row blocks that fit the cache: one pass over V with no temporary of V's size.

The rows of W need only their own rows of V, and what H needs of them is a sum over the rows. So a whole iteration
reads V once, block by block, and the blocks can be shared among threads.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp import _threads

if TYPE_CHECKING:
    from collections.abc import Callable

    from nmf_xp._typing import Array, Namespace
    from nmf_xp.data import Data
    from nmf_xp.problem import Constraints


class Part(NamedTuple):
    """What a block contributes: its rows of a result, and terms of sums over all rows."""

    rows: Any  # an array with a row for each of W's, or None where there is no such result
    sums: tuple[Array, ...]


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

    Where the function takes nothing from V but its products, and BLAS makes them, there is one block.

    Which blocks a thread gets, and so the order of the sums, depends on the number of threads but not on their timing.
    """
    if products_only and W.ndim == 2 and data.products_by_blas:
        with _threads.free_blas():
            return function(data, W, constraints)
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

    shares = _threads.run(work, _threads.shares(list(itertools.pairwise(starts))))
    rows = [block for share, _ in shares for block in share]
    totals = zip(*(totals for _, totals in shares), strict=True)
    return Part(None if rows[0] is None else xp.concat(rows), tuple(sum(terms[1:], terms[0]) for terms in totals))
