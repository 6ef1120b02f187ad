r"""The table B of batches and columns, as far as it depends on sums over the batches only.

For Poisson counts, the Kullback-Leibler loss, the best table for given factors is exact. With the pseudo-counts c of a
gamma prior around 1 it is

    B[g, j] = (c + sum of V over the rows of g) / (c + sum of WH over these rows).

Only B[g, j] h_kj is known, not how it is shared: the geometric mean of each column of B over the rows of V is made 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NamedTuple

from nmf_xp.arrays import libraries, operators

if TYPE_CHECKING:
    from nmf_xp.arrays.typing import Array, Namespace

STEPS = 8  # of Newton's method, from where it ended in the iteration before


class Fields(NamedTuple):
    """What V says of the effects of batches."""

    counts: Array  # v (..., G, n): the sums of V over the rows of each batch, weighted as its entries are
    shares: Array  # (..., G, n): of the rows; 0 where V says nothing of an effect
    prior: Array  # (): c
    known: Array  # (..., G, n): effects that are given, 1 where V says nothing of one, and 0 where it is to be found


class Effects(Fields):
    """The best table for sums of a model over the rows of each batch, y (..., G, n)."""

    __slots__ = ()
    scale_matters: ClassVar[bool] = False
    """Whether the scale of H's columns is a part of the loss."""

    @property
    def batches(self) -> int:
        """The number of batches."""
        return self.counts.shape[-2]

    def part(self, i: int) -> Effects:
        """Those of one member of a stack."""
        return type(self)(*(x[i, ...] if x.ndim > 2 else x for x in self))

    def select(self, indices: Array, *, xp: Namespace) -> Effects:
        """Those of some members of a stack."""
        return type(self)(*(xp.take(x, indices, axis=0) if x.ndim > 2 else x for x in self))

    def best(self, model: Array, *, xp: Namespace) -> Array:
        """The table: (..., G, n)."""
        tiny = float(xp.finfo(model.dtype).smallest_normal)
        found = (self.counts + self.prior) / operators.at_least(model + self.prior, tiny, xp=xp)
        return xp.where(self.known > 0, self.known, found)

    def gauge(self, table: Array, *, xp: Namespace) -> Array:
        """The geometric mean over V's rows of each column of a table, where it is not 0: (..., 1, n)."""
        positive = table > 0
        logs = xp.where(positive, xp.log(xp.where(positive, table, 1.0)), 0.0)
        weights = xp.where(positive, self.shares, 0.0)
        total = xp.sum(weights, axis=-2, keepdims=True)
        return xp.exp(xp.sum(weights * logs, axis=-2, keepdims=True) / xp.where(total > 0, total, 1.0))

    def scaled(self, table: Array, scale: Array, *, xp: Namespace) -> Array:
        """The table times numbers for its columns, but for what is known."""
        return xp.where(self.known > 0, table, table * scale)

    def scale(self, model: Array, *, xp: Namespace) -> Array:
        """By what the columns of H are multiplied to have the scale that is agreed upon: (..., 1, n)."""
        return self.gauge(self.best(model, xp=xp), xp=xp)

    def penalty(self, table: Array, *, xp: Namespace) -> Array:
        """What the prior adds to the objective, c (b - 1 - log b) for each entry: (...,)."""
        dtype = libraries.accumulator_dtype(xp, libraries.device(table))
        free = xp.where(xp.logical_and(self.known == 0, table > 0), table, 1.0)
        return xp.sum(self.prior * (free - 1.0 - xp.log(free)), axis=(-2, -1), dtype=dtype)


class Shrunk(Effects):
    """The same with a prior, for which the scale of H's columns matters: it is the best one.

    For the factor e^t of a column the loss is, but for a number, the sum over the batches of

        (v + c) log(e^t y + c) - t v,

    for the counts v and the model y of a batch. It is convex in t.
    """

    __slots__ = ()
    scale_matters: ClassVar[bool] = True

    def scale(self, model: Array, *, xp: Namespace) -> Array:
        """The best scale of H's columns."""
        tiny = float(xp.finfo(model.dtype).smallest_normal)
        free = xp.where(self.known > 0, 0.0, xp.ones_like(self.known))
        counts = xp.sum(free * self.counts, axis=-2, keepdims=True)
        weight = free * (self.counts + self.prior)

        def loss(t: Array) -> Array:
            logs = xp.log(operators.at_least(xp.exp(t) * model + self.prior, tiny, xp=xp))
            return xp.sum(weight * logs, axis=-2, keepdims=True) - t * counts

        t = xp.zeros_like(model[..., :1, :])
        for _ in range(STEPS):
            share = 1.0 - self.prior / (xp.exp(t) * model + self.prior)
            slope = xp.sum(weight * share, axis=-2, keepdims=True) - counts
            bend = xp.sum(weight * share * (1.0 - share), axis=-2, keepdims=True)
            step = -slope / operators.at_least(bend, tiny, xp=xp)
            t = t + operators.at_most(operators.at_least(step, -1.0, xp=xp), 1.0, xp=xp)
        better = xp.logical_and(counts > 0, loss(t) <= loss(xp.zeros_like(t)))
        return xp.exp(xp.where(better, t, 0.0))
