"""What the entries of the factors with which an iteration ended hold of the model, and whether any may become 0."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from nmf_xp.arrays import operators
from nmf_xp.updates import factor_floor

if TYPE_CHECKING:
    from typing import Any

    from nmf_xp.arrays.typing import Array, Namespace
    from nmf_xp.problem import Factors, Problem
    from nmf_xp.problem.optimality import Report

NEGLIGIBLE = 1e-12
"""An entry that holds no more of the model in its row or column may become 0; in float32 it is ten times eps."""
AT_FLOOR = 2.0**8
"""How many floors an entry that is at the floor may be."""
SHOWS = 1e-6
"""What a violation of the residual is at least, to be seen."""


class Held(NamedTuple):
    """What the entries of a factor hold."""

    share: Array  # of the model in the row of W, or the column of H; 0 for one at the floor that holds little
    speck: Array  # whether that is no more than rounding, whatever the slope
    small: Array  # whether that is next to nothing beside V, and zero is allowed
    at_floor: Array


def is_clear(
    factors: Factors,
    balanced: Factors,
    shares: tuple[Array, Array],
    seen: Report,
    problem: Problem,
    *,
    beta: float,
    floor: float,
    xp: Namespace,
) -> bool:
    """Whether each entry holds enough and is asked for, so that none may become 0; bounds are not looked into.

    Nor does the floor show in the `balanced` factors. Most small matrices end so, which is found in a fraction of the
    time that the search for zeros takes.
    """
    if problem.w.bounded or problem.h.bounded:
        return False
    if not all(xp.min(x) * SHOWS >= floor for x in balanced):
        return False
    negligible = negligible_share(float(xp.finfo(factors.W.dtype).eps))
    least = max(AT_FLOOR * floor, next_to_nothing(factors.W.dtype, beta=beta, floor=floor, xp=xp))
    return all(
        xp.max(slope) < 1.0 and xp.min(x) > least and xp.min(share) > negligible
        for x, share, slope in zip(factors, shares, (seen.w_slopes, seen.h_slopes), strict=True)
        if slope.shape[-1] > 0  # there are none of an H that is given
    )


def negligible_share(eps: float) -> float:
    """The share of an entry that may become 0, at most."""
    return max(NEGLIGIBLE, 10.0 * eps)


def next_to_nothing(dtype: Any, *, beta: float, floor: float, xp: Namespace) -> float:
    """The largest entry that is next to nothing beside V, where zero is allowed, which is for beta > 1."""
    unit = floor / factor_floor(dtype, beta=beta, xp=xp)  # of a factor for V's largest entry
    return float(xp.finfo(dtype).eps) ** 0.75 * unit if beta > 1 else 0.0


def shares_of(factors: Factors, *, xp: Namespace) -> tuple[Array, Array]:
    """What each entry of both factors holds of the model in the row of W, or the column of H."""
    sums = xp.sum(factors.H, axis=-1)[..., None, :], xp.sum(factors.W, axis=-2)[..., :, None]
    found = []
    for x, weight, axis in zip(factors, sums, (-1, -2), strict=True):
        product = x * weight
        tiny = float(xp.finfo(x.dtype).smallest_normal)
        found.append(product / operators.at_least(xp.sum(product, axis=axis, keepdims=True), tiny, xp=xp))
    return found[0], found[1]


def held_by(
    factors: Factors, shares: tuple[Array, Array], *, beta: float, floor: float, xp: Namespace
) -> tuple[Held, Held]:
    """What the entries of both factors hold; for beta > 1, which allows a zero model, those at the floor nothing."""
    eps = float(xp.finfo(factors.W.dtype).eps)
    least = next_to_nothing(factors.W.dtype, beta=beta, floor=floor, xp=xp)
    found = []
    for x, share in zip(factors, shares, strict=True):
        at_floor = x <= AT_FLOOR * floor
        speck = xp.logical_or(xp.logical_and(at_floor, share <= eps), share <= eps * eps)
        found.append(Held(xp.where(at_floor, 0.0, share), speck, x <= least, at_floor))
    return found[0], found[1]
