"""What is asked of a factor besides the fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.arrays import operators

if TYPE_CHECKING:
    from nmf_xp.arrays.typing import Array, Namespace


class Constraints(NamedTuple):
    """Constraints on one factor; None where there is none.

    The penalty is l1 * sum(W) + l2/2 * sum(W^2). Entries where `fixed` is true keep their value; no other one
    exceeds `upper`.
    """

    l1: Any = None  # a float; for `mu` also an array (1, r), a weight for each component
    l2: float | None = None
    fixed: Array | None = None
    upper: Array | None = None

    @property
    def free(self) -> bool:
        """Whether there is no constraint."""
        return all(constraint is None for constraint in self)

    @property
    def bounded(self) -> bool:
        """Whether entries are fixed or have upper bounds."""
        return self.fixed is not None or self.upper is not None

    @property
    def penalised(self) -> bool:
        """Whether there is a penalty, which then decides the scale of a component."""
        return self.l1 is not None or self.l2 is not None

    @property
    def penalties(self) -> tuple[float, float]:
        """The weights of the L1 and the L2 penalty, which may be traced; 0 where there is none."""
        return 0.0 if self.l1 is None else self.l1, 0.0 if self.l2 is None else self.l2

    def transposed(self, *, xp: Namespace) -> Constraints:
        """The same constraints on the transposed factor."""
        if not self.bounded:
            return self
        fixed = None if self.fixed is None else operators.transposed(self.fixed)
        upper = None if self.upper is None else operators.transposed(self.upper)
        return self._replace(fixed=fixed, upper=upper)

    def rows(self, start: int, stop: int) -> Constraints:
        """The constraints on a block of rows of the factor."""
        if not self.bounded:
            return self
        fixed = None if self.fixed is None else self.fixed[start:stop, :]
        upper = None if self.upper is None else self.upper[start:stop, :]
        return self._replace(fixed=fixed, upper=upper)

    def column(self, k: Any) -> Constraints:
        """The constraints on one column of the factor."""
        fixed = None if self.fixed is None else operators.column(self.fixed, k)
        upper = None if self.upper is None else operators.column(self.upper, k)
        return self._replace(fixed=fixed, upper=upper)

    def columns(self, order: Array, *, xp: Namespace) -> Constraints:
        """The constraints on the factor with its columns in another order."""
        fixed = None if self.fixed is None else xp.take(self.fixed, order, axis=-1)
        upper = None if self.upper is None else xp.take(self.upper, order, axis=-1)
        return self._replace(fixed=fixed, upper=upper)

    def penalty(self, W: Array, *, dtype: Any, xp: Namespace) -> Array | float:
        """The penalty on a factor, (...,)."""
        penalty: Array | float = 0.0
        if self.l1 is not None:
            penalty = self.l1 * xp.sum(W, axis=(-2, -1), dtype=dtype)
        if self.l2 is not None:
            penalty = penalty + 0.5 * self.l2 * xp.sum(W * W, axis=(-2, -1), dtype=dtype)
        return penalty

    def add_slope(self, slope: Array, W: Array) -> Array:
        """The slope in each entry, with that of the penalty."""
        if self.l1 is not None:
            slope = slope + self.l1
        return slope if self.l2 is None else slope + self.l2 * W

    def enforce(self, new: Array, old: Array, *, xp: Namespace) -> Array:
        """The factor with its bound and its fixed entries."""
        if self.upper is not None:
            new = xp.minimum(new, self.upper)
        return new if self.fixed is None else xp.where(self.fixed, old, new)


FREE = Constraints()
