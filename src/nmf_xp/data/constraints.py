"""What is asked of a factor besides the fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from nmf_xp.arrays import libraries, operators

if TYPE_CHECKING:
    from collections.abc import Callable

    from nmf_xp.arrays.typing import Array, Namespace


class Quadratic(Protocol):
    """A penalty w Q w / 2 on each row w of a factor, for a symmetric matrix Q (r, r) that couples its components.

    It is a named tuple of numbers and arrays, which a compiled program takes apart. Its slope is `push` - `pull`, two
    positive parts. With P = |Q| and N = (|Q| - Q) / 2, they are w P and 2 w N: for every Q, the curve with the slope
    w P x - 2 w N in the change x of an entry, relative to it, then lies above the penalty.
    """

    def push(self, W: Array, *, xp: Namespace) -> Array:
        """The positive part of the slope, (..., m, r)."""
        ...

    def pull(self, W: Array, *, xp: Namespace) -> Array | None:
        """The negative part of the slope, (..., m, r); None where there is none."""
        ...

    def matrix(self, gram: Array, *, xp: Namespace) -> Array:
        """Q, (r, r), of the dtype and on the device of an array (..., r, r)."""
        ...

    def columns(self, order: Array, *, xp: Namespace) -> Quadratic:
        """The penalty on a factor with its columns in another order."""
        ...


class Constraints(NamedTuple):
    """Constraints on one factor; None where there is none.

    The penalty is l1 * sum(W) + l2/2 * sum(W^2) and what `others` add. Entries where `fixed` is true keep their value;
    no other one exceeds `upper` or is below `lower`.
    """

    l1: Any = None  # a float; for `mu` also an array (1, r), a weight for each component
    l2: float | None = None
    fixed: Array | None = None
    upper: Array | None = None
    lower: Array | None = None
    others: tuple[Quadratic, ...] = ()

    @property
    def free(self) -> bool:
        """Whether there is no constraint."""
        return self is FREE or not (self.bounded or self.penalised)

    @property
    def bounded(self) -> bool:
        """Whether entries are fixed or have bounds."""
        return self.fixed is not None or self.upper is not None or self.lower is not None

    @property
    def penalised(self) -> bool:
        """Whether there is a penalty, which then decides the scale of a component."""
        return self.l1 is not None or self.curved

    @property
    def simple(self) -> bool:
        """Whether there is no more than an L1 and an L2 penalty, each the same for all entries."""
        return self is FREE or not (self.bounded or self.others or libraries.is_array(self.l1))

    @property
    def penalties(self) -> tuple[float, float]:
        """The weights of the L1 and the L2 penalty, which may be traced; 0 where there is none."""
        return 0.0 if self.l1 is None else self.l1, 0.0 if self.l2 is None else self.l2

    def transposed(self, *, xp: Namespace) -> Constraints:
        """The same constraints on the transposed factor."""
        return self._with_entries(operators.transposed)

    def rows(self, start: int, stop: int) -> Constraints:
        """The constraints on a block of rows of the factor."""
        return self._with_entries(lambda x: x[start:stop, :])

    def column(self, k: Any) -> Constraints:
        """The bounds of one column of the factor, and what fixes its entries."""
        return self._with_entries(lambda x: operators.column(x, k))

    def columns(self, order: Array, *, xp: Namespace) -> Constraints:
        """The constraints on the factor with its columns in another order."""
        others = tuple(term.columns(order, xp=xp) for term in self.others)
        return self._with_entries(lambda x: xp.take(x, order, axis=-1))._replace(others=others)

    def _with_entries(self, part: Callable[[Array], Array]) -> Constraints:
        """The same constraints, of a part of what is given for each entry of the factor."""
        if not self.bounded:
            return self
        fixed, upper, lower = (None if x is None else part(x) for x in (self.fixed, self.upper, self.lower))
        return self._replace(fixed=fixed, upper=upper, lower=lower)

    def penalty(self, W: Array, *, axis: int = -1, dtype: Any, xp: Namespace) -> Array | float:
        """The penalty on a factor, (...,), whose components are along the `axis`: -1 for W, and -2 for H."""
        penalty: Array | float = 0.0
        if self.l1 is not None:
            penalty = self.l1 * xp.sum(W, axis=(-2, -1), dtype=dtype)
        if self.l2 is not None:
            penalty = penalty + 0.5 * self.l2 * xp.sum(W * W, axis=(-2, -1), dtype=dtype)
        for term in self.others:
            gram = operators.transposed(W) @ W if axis == -1 else W @ operators.transposed(W)
            penalty = penalty + 0.5 * xp.sum(gram * term.matrix(gram, xp=xp), axis=(-2, -1), dtype=dtype)
        return penalty

    def add_push(self, denominator: Array, W: Array, *, xp: Namespace) -> Array:
        """The positive part of the slope in each entry, with that of the penalty."""
        if self.l1 is not None:
            denominator = denominator + self.l1
        return denominator + self.push(W, xp=xp) if self.curved else denominator

    def add_pull(self, numerator: Array, W: Array, *, xp: Namespace) -> Array:
        """The negative part of the slope in each entry, with that of the penalty."""
        for term in self.others:
            pull = term.pull(W, xp=xp)
            numerator = numerator if pull is None else numerator + pull
        return numerator

    def add_slope(self, slope: Array, W: Array, *, xp: Namespace) -> Array:
        """The slope in each entry, with that of the penalty."""
        slope = self.add_push(slope, W, xp=xp)
        return slope - self.add_pull(0.0 * slope, W, xp=xp) if self.others else slope

    @property
    def curved(self) -> bool:
        """Whether there is a quadratic penalty."""
        return self.l2 is not None or bool(self.others)

    def push(self, W: Array, *, xp: Namespace) -> Any:
        """The positive part of the slope of the quadratic penalties: a positive curvature times W."""
        push: Any = 0.0 if self.l2 is None else self.l2 * W
        for term in self.others:
            push = push + term.push(W, xp=xp)
        return push

    def add_curvature(self, gram: Array, *, xp: Namespace) -> Array:
        """The curvature in a row (..., r, r), with that of the penalty."""
        if self.l2 is not None:
            gram = gram + self.l2 * xp.eye(gram.shape[-1], dtype=gram.dtype, device=libraries.device(gram))
        for term in self.others:
            gram = gram + term.matrix(gram, xp=xp)
        return gram

    def floor(self, floor: float, *, xp: Namespace) -> Any:
        """The least that entries may be, for the floor of the factors: a number, or an array."""
        return floor if self.lower is None else operators.at_least(self.lower, floor, xp=xp)

    def enforce(self, new: Array, old: Array, *, xp: Namespace) -> Array:
        """The factor within its bounds and with its fixed entries."""
        if self.upper is not None:
            new = xp.minimum(new, self.upper)
        if self.lower is not None:
            new = xp.maximum(new, self.lower)
        return new if self.fixed is None else xp.where(self.fixed, old, new)


FREE = Constraints()
