"""The scale of a component, which wanders between its two factors, brought back to the middle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nmf_xp.arrays import operators
from nmf_xp.problem import Factors

if TYPE_CHECKING:
    from nmf_xp.arrays.typing import Array, Namespace
    from nmf_xp.problem import Problem


def balanced(factors: Factors, problem: Problem, *, fixed_h: bool, xp: Namespace) -> Factors:
    """The same product with balanced components, where nothing but the product matters."""
    scale = None if fixed_h else component_scale(*factors, problem, xp=xp)
    return factors if scale is None else Factors(factors.W * scale, factors.H / operators.transposed(scale))


def component_scale(W: Array, H: Array, problem: Problem, *, xp: Namespace) -> Array | None:
    """The powers of two (..., 1, r) by which columns of W are to be multiplied and rows of H divided.

    None where penalties or bounds decide the scale. A component with fixed entries keeps its own.
    """
    if not is_free(problem):
        return None
    sizes = xp.max(W, axis=-2, keepdims=True), operators.transposed(xp.max(H, axis=-1, keepdims=True))
    alive = xp.minimum(*sizes) > 0
    left, right = (xp.where(alive, size, 1.0) for size in sizes)
    ratio = xp.log2(right) - xp.log2(left)
    squares = _squares(operators.transposed(H), right, alive, xp=xp) / _squares(W, left, alive, xp=xp)
    scale = xp.where(alive, 2.0 ** xp.round(0.5 * ratio + 0.25 * xp.log2(squares)), 1.0)
    for constraints, axis in ((problem.w, -2), (problem.h, -1)):
        if constraints.fixed is not None:
            scale = xp.where(xp.any(constraints.fixed, axis=axis)[..., None, :], 1.0, scale)
    return scale


def is_free(problem: Problem) -> bool:
    """Whether nothing but its product decides the scale of a component without fixed entries."""
    return not any(c.l1 is not None or c.l2 is not None or c.upper is not None for c in (problem.w, problem.h))


def _squares(W: Array, largest: Array, alive: Array, *, xp: Namespace) -> Array:
    """The sum of the squares of each column, relative to its largest entry; 1 for one that is zero."""
    return xp.where(alive, xp.sum((W / largest) ** 2, axis=-2, keepdims=True), 1.0)
