"""Entries at which the model is zero whatever the factors become, taken out of a problem.

Every component is zero there: in a column of a given H, or by entries that are fixed at 0. Such entries say nothing of
the others, and V / WH has no value at them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nmf_xp.arrays import libraries, transfer
from nmf_xp.data import Weighted
from nmf_xp.data.blocks import Blockwise, Part, sweep
from nmf_xp.data.grid import Grid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nmf_xp.arrays.typing import Array, Namespace
    from nmf_xp.data.blocks import Dress
    from nmf_xp.data.constraints import Constraints
    from nmf_xp.data.seam import Data


def supports(W: Array | None, H: Array, *, least: float, xp: Namespace) -> tuple[Array, Array] | None:
    """Where the factors are above `least`, as ones and zeros; None where together they reach every entry.

    W is None where it can be positive everywhere. Then the supports are those of a single component, the best.
    """
    of_H = xp.astype(H > least, H.dtype)
    if W is None:
        of_H = xp.max(of_H, axis=-2, keepdims=True)
        of_W = xp.ones((1, 1), dtype=H.dtype, device=libraries.device(H))
    else:
        of_W = xp.astype(W > least, H.dtype)
    return None if transfer.scalar(xp.min(of_W @ of_H)) > 0 else (of_W, of_H)


def without_unreachable(data: Data, of_W: Array, of_H: Array, *, beta: float, xp: Namespace) -> Data:
    """The data with 0, or for beta <= 0 without an observation, where the `supports` do not reach."""
    same = of_W.shape[-2:] == (1, 1)  # for all rows, by the best component
    if isinstance(data, Blockwise) and same:
        blocks: Any = Reached(data, of_W, of_H, beta=beta)
        return blocks
    if isinstance(data, Blockwise | Grid):
        msg = (
            f"`H` must have a positive entry in every column where V is not in memory, got none in column "
            f"{missed_columns(of_W, of_H, xp=xp)}; leave such columns out of `V` and `H`"
        )
        raise ValueError(msg)
    if same:
        of_W = xp.broadcast_to(of_W, (data.shape[-2], 1))
    reached = data.predict(of_W, of_H, xp=xp) > 0
    if beta > 0:
        return data.with_values(xp.where(reached, data.values, 0.0))
    base, weights = (data.base, data.weights) if isinstance(data, Weighted) else (data, xp.ones_like(data.values))
    return Weighted(base.with_values(xp.where(reached, data.values, 1.0)), xp.where(reached, weights, 0.0))


def missed_columns(of_W: Array, of_H: Array, *, xp: Namespace) -> str:
    """The columns with an entry that is not reached, ten of them at most, in words."""
    missed = transfer.to_host(xp.min(of_W @ of_H, axis=-2) == 0).nonzero()[-1]
    return ", ".join(str(j) for j in missed[:10]) + (" and others" if len(missed) > 10 else "")


class Reached(Blockwise):
    """Data that come block by block, each without the columns that no component reaches."""

    def __init__(self, data: Blockwise, of_W: Array, of_H: Array, *, beta: float) -> None:
        self.data, self.of_W, self.of_H, self.beta = data, of_W, of_H, beta
        self.shape, self.has_absent = data.shape, data.has_absent
        self.weighted = data.weighted or beta <= 0

    @property
    def values(self) -> Array:
        """No entry."""
        return self.data.values

    def sweep(
        self,
        function: Callable[[Data, Array, Constraints], Part],
        W: Array,
        constraints: Constraints,
        *,
        xp: Namespace,
    ) -> Part:
        """The function over the blocks."""

        def of_block(block: Data, W: Array, constraints: Constraints) -> Part:
            reached = without_unreachable(block, self.of_W, self.of_H, beta=self.beta, xp=xp)
            return sweep(function, reached, W, constraints, xp=xp)

        return self.data.sweep(of_block, W, constraints, xp=xp)

    def in_order(self) -> Iterator[tuple[int, Data]]:
        """One block after the other, each with its first row."""
        xp = libraries.array_namespace(self.values)
        for first, block in self.data.in_order():
            yield first, without_unreachable(block, self.of_W, self.of_H, beta=self.beta, xp=xp)

    def dressed(self, dress: Dress) -> Reached:
        """The same blocks as other data."""
        return Reached(self.data.dressed(dress), self.of_W, self.of_H, beta=self.beta)
