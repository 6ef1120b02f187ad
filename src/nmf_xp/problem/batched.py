r"""Data whose rows come in batches: V is modelled by B[g_i, j] (WH)_ij, with a table B of batches and columns.

The best table for given factors is exact (`effects`), so B is no more than a function of W and H. The loss is that at
the best table. With the table of the present factors the divergence lies above it and meets it there, so whatever
lowers the one lowers the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from nmf_xp.data.blocks import Blockwise, Part
from nmf_xp.data.seam import Wrapping
from nmf_xp.data.tabled import model_sums, tabled
from nmf_xp.divergences import data_divergence

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nmf_xp.arrays.typing import Array, Namespace
    from nmf_xp.data import Data
    from nmf_xp.data.blocks import Dress
    from nmf_xp.problem.effects import Effects


class Fields(NamedTuple):
    """What data with batches are made of."""

    base: Any
    codes: Array  # g (..., m, 1): the batch of each row of V
    effects: Effects


class Batched(Fields, Wrapping):
    """`base`, and what says the best table for given factors."""

    turned: ClassVar[bool] = False

    @property
    def T(self) -> Batched:
        """The transposed problem."""
        return BatchedTransposed(self.base.T, self.codes, self.effects)

    @property
    def has_absent(self) -> bool:
        """Whether there are zeros that are not stored."""
        return bool(self.base.has_absent)

    @property
    def weighted(self) -> bool:
        """Whether the entries have weights."""
        return bool(self.base.weighted)

    def member(self, i: int) -> Batched:
        """One member of a stack."""
        codes = self.codes[i, ...] if self.codes.ndim > 2 else self.codes
        return type(self)(self.base.member(i), codes, self.effects.part(i))

    def select(self, indices: Array, *, xp: Namespace) -> Batched:
        """Some members of a stack."""
        codes = xp.take(self.codes, indices, axis=0) if self.codes.ndim > 2 else self.codes
        return type(self)(self.base.select(indices, xp=xp), codes, self.effects.select(indices, xp=xp))

    def sums(self, W: Array, H: Array, *, xp: Namespace) -> Array:
        """The sums of WH over the rows of each batch: (..., G, n)."""
        return model_sums(self.base, self.codes[..., 0], W, H, self.effects.batches, turned=self.turned, xp=xp)

    def table(self, W: Array, H: Array, *, xp: Namespace) -> Array:
        """The best B for these factors: (..., G, n)."""
        return self.effects.best(self.sums(W, H, xp=xp), xp=xp)

    def settled(self, W: Array, H: Array, *, xp: Namespace) -> Array:
        """H with the scale of its columns that is agreed upon, or the best one; the loss does not rise."""
        return H * self.effects.scale(self.sums(W, H, xp=xp), xp=xp)

    def renewed(self, W: Array, H: Array, _: Any, *, whole: bool = False, beta: float, xp: Namespace) -> Data:
        """The data with the best table for these factors."""
        data: Data = tabled(self.base, self.codes[..., 0], self.table(W, H, xp=xp), turned=self.turned)
        return data

    def divergence(self, W: Array, H: Array, _: Any, *, beta: float, xp: Namespace) -> Array:
        """The divergence at the best table: (...,)."""
        return data_divergence(self.renewed(W, H, None, beta=beta, xp=xp), W, H, beta=beta, xp=xp)

    def penalty(self, W: Array, H: Array, *, xp: Namespace) -> Array | float:
        """What the prior adds to the objective: (...,)."""
        if not self.effects.scale_matters:
            return 0.0
        return self.effects.penalty(self.table(W, H, xp=xp), xp=xp)


class BatchedTransposed(Batched):
    """The transposed problem: the table stays as it is."""

    turned: ClassVar[bool] = True

    @property
    def T(self) -> Batched:
        """The problem as it was."""
        return Batched(self.base.T, self.codes, self.effects)


class BatchedBlocks(Batched):
    """Data with batches that come block by block."""

    def sweep(self, *args: Any, **options: Any) -> Part:
        """The function over the blocks as they are."""
        part: Part = self.base.sweep(*args, **options)
        return part

    def in_order(self) -> Iterator[tuple[int, Data]]:
        """One block after the other, each with its first row."""
        blocks: Iterator[tuple[int, Data]] = self.base.in_order()
        return blocks

    def dressed(self, dress: Dress) -> Blockwise:
        """The same blocks as other data."""
        blocks: Blockwise = self.base.dressed(dress)
        return blocks


Blockwise.register(BatchedBlocks)
