"""The scale of a component, which wanders between its two factors, brought back to the middle."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from nmf_xp.arrays import kernels, operators
from nmf_xp.problem import Factors

if TYPE_CHECKING:
    from collections.abc import Callable

    from nmf_xp.arrays.typing import Array, Namespace
    from nmf_xp.data.constraints import Constraints
    from nmf_xp.problem import Problem


HALVINGS = 12
"""By which the exponent of a scale is found to less than one half, of all that a number can have."""


def balanced(factors: Factors, problem: Problem, *, fixed_h: bool, xp: Namespace) -> Factors:
    """The same product with balanced components, where nothing but the product matters."""
    scale = None if fixed_h else component_scale(*factors, problem, xp=xp)
    return factors if scale is None else Factors(factors.W * scale, factors.H / operators.transposed(scale))


def component_scale(W: Array, H: Array, problem: Problem, *, xp: Namespace) -> Array | None:
    """The powers of two (..., 1, r) by which columns of W are to be multiplied and rows of H divided; None for none.

    They leave the product as it is and raise no objective. Without penalties they balance the two; with penalties on
    both factors these decide, with one on a single factor, or that couples components, the scale stays. A component
    keeps its scale where an entry above zero is fixed, and its bounds.
    """
    w, h = problem.w, problem.h
    kernel = kernels.find("component_scales", W, H) if w.free and h.free and W.ndim == H.ndim else None
    if kernel is not None:
        found: Array | None = kernel(W, H)
        return found
    if w.penalised != h.penalised or w.others or h.others:
        return None
    Ht, turned = operators.transposed(H), h.transposed(xp=xp)
    sizes = xp.max(W, axis=-2, keepdims=True), xp.max(Ht, axis=-2, keepdims=True)
    alive = xp.minimum(*sizes) > 0
    left, right = (xp.where(alive, size, 1.0) for size in sizes)
    if w.penalised:
        exponent: Any = _least_penalised(w, h, W / left, Ht / right, left, right, xp=xp)
    else:
        ratio = xp.log2(right) - xp.log2(left)
        squares = _squares(Ht, right, alive, xp=xp) / _squares(W, left, alive, xp=xp)
        exponent = xp.round(0.5 * ratio + 0.25 * xp.log2(squares))
    if w.upper is not None:
        exponent = xp.minimum(exponent, _room(W, w.upper, xp=xp))
    if h.upper is not None:
        exponent = xp.maximum(exponent, -_room(Ht, turned.upper, xp=xp))
    if w.lower is not None:
        exponent = xp.maximum(exponent, -_room(w.lower, W, xp=xp))
    if h.lower is not None:
        exponent = xp.minimum(exponent, _room(turned.lower, Ht, xp=xp))
    scale = xp.where(alive, 2.0**exponent, 1.0)
    for constraints, x in ((w, W), (turned, Ht)):
        if constraints.fixed is not None:
            kept = xp.logical_and(constraints.fixed, x > 0)
            scale = xp.where(xp.any(kept, axis=-2, keepdims=True), 1.0, scale)
    return scale


def _least_penalised(
    w: Constraints, h: Constraints, W: Array, Ht: Array, left: Array, right: Array, *, xp: Namespace
) -> Array:
    """The exponent, rounded towards 0, of the scale s at which both penalties together are least.

    They are p s + q s^2 / 2 + P / s + Q / (2 s^2), convex in log s, so every scale on the way there lowers them. The
    root of the derivative is found by halving intervals. W and H come in units of the largest entries of their columns.
    """
    push, pull = _slope(w, W, xp=xp), _slope(h, Ht, xp=xp)
    reach = math.floor(0.95 * math.log2(float(xp.finfo(W.dtype).max)))
    low: Any = 0.0 * left - reach
    high: Any = 0.0 * left + reach
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        falls = push(left * 2.0**middle) < pull(right * 2.0**-middle)
        low, high = xp.where(falls, middle, low), xp.where(falls, high, middle)
    return xp.trunc(0.5 * (low + high))


def _slope(terms: Constraints, W: Array, *, xp: Namespace) -> Callable[[Any], Any]:
    """The penalty's derivative in the logarithm of the size of each column, whose entries relative to it are in W."""
    sums, squares = xp.sum(W, axis=-2, keepdims=True), _square(W, xp=xp)

    def slope(size: Any) -> Any:
        linear = 0.0 if terms.l1 is None else terms.l1 * sums * size
        return linear if terms.l2 is None else linear + terms.l2 * squares * size * size

    return slope


def _square(x: Array, *, xp: Namespace) -> Array:
    return xp.sum(x * x, axis=-2, keepdims=True)


def _room(least: Any, most: Any, *, xp: Namespace) -> Array:
    """The largest exponent, 0 or more, by which each column of what is `least` may grow and be at most the other."""
    largest = float(xp.finfo(least.dtype).max)
    ratio = xp.where(least > 0, most / xp.where(least > 0, least, 1.0), largest)
    ratio = operators.at_most(xp.min(ratio, axis=-2, keepdims=True), largest, xp=xp)
    return xp.floor(xp.log2(operators.at_least(ratio, 1.0, xp=xp)))


def is_penalised(problem: Problem) -> bool:
    """Whether the objective depends on the scale of a component."""
    return problem.w.penalised or problem.h.penalised


def _squares(W: Array, largest: Array, alive: Array, *, xp: Namespace) -> Array:
    """The sum of the squares of each column, relative to its largest entry; 1 for one that is zero."""
    return xp.where(alive, _square(W / largest, xp=xp), 1.0)


def largest_entries(W: Array, H: Array, *, xp: Namespace) -> tuple[Array, Array]:
    """The largest entry of each component in W, and in H: (..., 1, r) both."""
    return xp.max(W, axis=-2, keepdims=True), operators.transposed(xp.max(H, axis=-1, keepdims=True))
