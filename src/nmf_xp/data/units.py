"""The units in which a problem is solved: powers of two, which change no digit.

V, W, H and the weights are 2^k times what the solvers see, each with a k of its own, so that the powers of V stay away
from overflow, the factors from their floor and sums of weights from both. A factor common to V or to the weights then
changes nothing but the scale of the answer. All k are 0 in the usual range, where no digit depends on them.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.arrays import transfer

if TYPE_CHECKING:
    from nmf_xp.arrays.typing import Array, Namespace
    from nmf_xp.data.seam import Data

USUAL = (
    1 / 16
)  # of the dtype's exponents, for weights and factors; for V, which is a product of two factors, twice that


class Units(NamedTuple):
    """The exponents k of W, H and the weights; V's is the sum of the first two."""

    w: int = 0
    h: int = 0
    weights: int = 0

    @property
    def v(self) -> int:
        """The exponent of V."""
        return self.w + self.h

    def factor(self, which: str) -> int:
        """The exponent of W or H."""
        return self.w if which == "W" else self.h

    def divergence(self, beta: float) -> float:
        """The exponent of the divergence."""
        return self.v * beta + self.weights

    def penalty(self, which: str, degree: int, beta: float) -> float:
        """The exponent of the weight of a penalty that is a sum of W or H to the power of `degree`."""
        return self.divergence(beta) - degree * self.factor(which)

    def suited(self, largest_w: float | None, largest_h: float, dtype: Any, *, zero: bool, xp: Namespace) -> Units:
        """The same for V, with W and H of one size; where W is not known, H is as large as its share of V's exponent.

        They are left as they are where they are nearly so. A V that is `zero` has no exponent, and takes that of WH.
        """
        largest_w = largest_w or None  # of zeros only, it is to be found
        if not all(x is None or 0 < x < math.inf for x in (largest_h, largest_w)):
            return self
        h = _exponent(largest_h)
        if zero and largest_w is not None and abs(h + _exponent(largest_w)) > _range(dtype, xp=xp) * USUAL:
            return self._replace(w=_exponent(largest_w), h=h)
        h = h if largest_w is None else (self.v + h - _exponent(largest_w)) // 2
        usual = abs(h - self.h) <= _range(dtype, xp=xp) * USUAL
        return self if usual else self._replace(w=self.v - h, h=h)


def units_of(largest: float, heaviest: float, dtype: Any, *, beta: float, floor: float, xp: Namespace) -> Units:
    """The units for data with this largest entry and this largest weight.

    The largest entry is kept within 2^(E/8) of one (E: the dtype's largest exponent; less for large |beta|), what is
    beyond is brought to one. Where the floor of the factors could be seen, which is for beta < 0, it is always brought
    to the upper end, so that the floor is as low as it can be. The heaviest weight is kept within 2^(E/16) of one.
    """
    weights = 0 if abs(_exponent(heaviest)) <= _range(dtype, xp=xp) * USUAL else _exponent(heaviest) - 1
    if largest == 0:
        return Units(weights=weights)
    top = _top(dtype, beta=beta, xp=xp)
    seen = _is_seen(floor, dtype, beta=beta, xp=xp)
    if not seen and abs(_exponent(largest)) <= top:
        return Units(weights=weights)
    half = math.ceil((_exponent(largest) - (top if seen else 2)) / 2)
    return Units(half, half, weights)


def lie_apart(data: Data, units: Units, *, beta: float, xp: Namespace) -> bool:
    """Whether a member of a stack, or its weights, are beyond what these units of all of them leave as it is."""
    values, dtype = data.values, data.values.dtype
    if values.ndim < 3 or values.shape[0] == 1:
        return False
    usual = int(_range(dtype, xp=xp) * USUAL)
    parts = [(values, units.v, _top(dtype, beta=beta, xp=xp))]
    if data.weighted:
        parts.append((getattr(data, "weights", values), 0, usual))
    for x, exponent, most in parts:
        largest = transfer.to_host(xp.max(x, axis=(-2, -1))).tolist()
        if any(y > 0 and _exponent(y) - exponent < -most for y in largest):
            return True
    return False


def floor_of(least: float, largest: float | None, dtype: Any, *, beta: float, xp: Namespace) -> float:
    """The floor of factors of one size, as far from them in all units of V; `least` is that for V of order one.

    `largest` is V's largest entry in the units of the problem, None where V is zero or was not read.
    """
    return least if largest is None else least * math.sqrt(largest / _order(least, dtype, beta=beta, xp=xp))


def floor_of_loadings(
    least: float, largest: float | None, largest_h: float, dtype: Any, *, beta: float, xp: Namespace
) -> float:
    """The floor of W where H is given, so that W is of the size of V / H. Its square does not underflow."""
    if largest is None or not 0 < largest_h < math.inf:
        return least
    order = _order(least, dtype, beta=beta, xp=xp)
    if order > 2.0:
        return least * largest / order
    most = 2.0 ** int(_range(dtype, xp=xp) * 2 * USUAL)
    return least * max(1.0 / most, min(most, largest / largest_h / order))


def _order(least: float, dtype: Any, *, beta: float, xp: Namespace) -> float:
    """The largest entry of V for which the floor is `least`: where it could be seen, the end to which V is brought."""
    return 2.0 ** _top(dtype, beta=beta, xp=xp) if _is_seen(least, dtype, beta=beta, xp=xp) else 2.0


def _is_seen(floor: float, dtype: Any, *, beta: float, xp: Namespace) -> bool:
    """Whether a floor is more than rounding beside factors of the largest data that are left as they are."""
    return floor * 2.0 ** (_top(dtype, beta=beta, xp=xp) / 2) > float(xp.finfo(dtype).eps) * 2.0**-8


def _top(dtype: Any, *, beta: float, xp: Namespace) -> int:
    """The largest exponent of data that are left as they are."""
    return int(_range(dtype, xp=xp) * 2 * USUAL / max(1.0, abs(beta)))


def times_power(x: Array, exponent: float) -> Array:
    """x * 2^exponent, in two steps, as a power of two can be beyond the range in which x and the product are."""
    if exponent == 0:
        return x
    half = exponent // 2
    return x * power(half) * power(exponent - half)


def in_weight_units(weights: Array, exponent: int, *, xp: Namespace) -> Array:
    """weights / 2^exponent, of which those above 0 stay there."""
    if exponent == 0:
        return weights
    least = float(xp.finfo(weights.dtype).smallest_normal)
    scaled = times_power(weights, -exponent)
    return xp.where(weights > 0, xp.where(scaled > least, scaled, least), 0.0)


def number_times_power(x: float, exponent: float) -> float:
    """x * 2^exponent, infinite beyond the range of float64."""
    whole = math.floor(exponent)
    try:
        return math.ldexp(x * 2.0 ** (exponent - whole), whole)
    except OverflowError:
        return math.inf


def power(exponent: float) -> float:
    """2^exponent, within the range of float64."""
    return 2.0 ** max(-1074.0, min(1023.0, exponent))


def _exponent(x: float) -> int:
    """The k with 2^(k-1) <= x < 2^k."""
    return math.frexp(x)[1]


@functools.lru_cache(maxsize=64)
def _range(dtype: Any, *, xp: Namespace) -> int:
    """The largest exponent of a dtype."""
    return _exponent(float(xp.finfo(dtype).max))
