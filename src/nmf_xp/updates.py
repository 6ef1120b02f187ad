r"""The multiplicative updates of Lee & Seung, for every beta-divergence.

Fevotte & Idier (2011), eq. 4.1 (W) with the exponent gamma of their Theorems 1-3, which makes the update a
majorisation-minimisation step, so that the divergence cannot rise:

    W <- W * [ (V * Y^(beta-2)) H^T / (Y^(beta-1) H^T) ]^gamma,     Y = WH,

    gamma = 1/(2 - beta) for beta < 1,  1 for 1 <= beta <= 2,  1/(beta - 1) for beta > 2.

For beta 1 and gamma 1 this is Lee & Seung (2001), eq. 5; for beta 2, eq. 4. The update of H is the update of W
on the transposed problem V^T = H^T W^T. Y is computed from the very factors that an update uses, so it is never stale.

The results are floored (Takahashi & Hibi 2014): an exact zero could never leave zero. As the majoriser is convex in
each entry, stopping at the floor, or at a user's bound, cannot raise it either.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

from nmf_xp.arrays import kernels, mesh, operators, precision
from nmf_xp.data import as_data, with_weights
from nmf_xp.data.checks import check_problem
from nmf_xp.data.constraints import FREE
from nmf_xp.data.quotient import contract_quotient
from nmf_xp.divergences import ROOTS, check_beta

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from nmf_xp.arrays.typing import Array, Namespace
    from nmf_xp.data import Data
    from nmf_xp.data.constraints import Constraints


def update_w(
    V: Array,
    W: Array,
    H: Array,
    /,
    *,
    beta_loss: float | str = "frobenius",
    weights: Array | None = None,
    absent: str = "zero",
) -> Array:
    r"""One multiplicative update of W with H fixed; the divergence does not rise.

    Parameters
    ----------
    V : array, shape (..., m, n)
        Non-negative data. Integers, booleans and 16-bit floats are taken in the dtype in which `nmf` factorizes them.
    W : array, shape (..., m, r)
        Left factor, of V's namespace and device, and of the dtype in which V is factorized.
    H : array, shape (..., r, n)
        Right factor, likewise.
    beta_loss : float or {"frobenius", "kullback-leibler", "itakura-saito"}, default "frobenius"
        The beta of the divergence; the names stand for 2, 1 and 0.
    weights : array, optional
        Non-negative weights of the entries, of V's shape or broadcasting to it; an entry of weight 0 is unobserved, and
        what stands there in V is not read. Real or boolean, of V's namespace and device.
    absent : {"zero", "missing"}, default "zero"
        What the entries are that a sparse V does not store: zeros, or unobserved.

    Returns
    -------
    array, shape (..., m, r)
        The new W, a new array. Its entries, like those of the W and H that are used, are at least
        `factor_floor`: for beta >= 0 far below the rounding error of data of order one, 1e-13 in float32 and 6e-132 in
        float64, but in float32 5e-7 for beta -1.

    Raises
    ------
    TypeError
        V, W or H is not an array or not real, V has more than 64 bits an entry, or their namespaces, dtypes or devices
        differ.
    ValueError
        Their shapes do not fit, or `beta_loss` is not one of the names nor a finite number.

    Notes
    -----
    Values are not checked, so the function can be traced and compiled. Lee & Seung (2001), eq. 4 and 5;
    Fevotte & Idier (2011), eq. 4.1.

    Examples
    --------
    >>> import numpy as np
    >>> from nmf_xp import beta_divergence, update_h, update_w
    >>> V = np.asarray([[1.0, 2.0], [3.0, 4.0]])
    >>> W, H = np.ones((2, 1)), np.full((1, 2), 2.5)
    >>> W = update_w(V, W, H, beta_loss="kullback-leibler")
    >>> H = update_h(V, W, H, beta_loss="kullback-leibler")
    >>> (W @ H).round(3).tolist()
    [[1.2, 1.8], [2.8, 4.2]]
    """
    return _checked(multiplicative_w, V, W, H, beta_loss, weights, absent)


def update_h(
    V: Array,
    W: Array,
    H: Array,
    /,
    *,
    beta_loss: float | str = "frobenius",
    weights: Array | None = None,
    absent: str = "zero",
) -> Array:
    """One multiplicative update of H with W fixed: `update_w` on the transposed problem.

    Parameters, errors and notes are those of `update_w`. Returns the new H, shape (..., r, n).
    """
    return _checked(multiplicative_h, V, W, H, beta_loss, weights, absent)


@precision.in_full_precision
def _checked(
    rule: Callable[..., Array],
    V: Array,
    W: Array,
    H: Array,
    beta_loss: float | str,
    weights: Array | None,
    absent: str,
) -> Array:
    """A rule on arrays of a user, whose shapes and dtypes are checked and whose factors are floored."""
    beta = check_beta(beta_loss)
    data, xp = check_problem(as_data(V), W, H, weights)
    floor = factor_floor(W.dtype, beta=beta, xp=xp)
    W, H, weights = mesh.laid_out(data.values, W, H, weights)
    W, H = (operators.at_least(x, floor, xp=xp) for x in (W, H))
    data = with_weights(data, weights, absent=absent, beta=beta, xp=xp)
    new = rule(data, W, H, FREE, beta=beta, floor=floor, xp=xp)
    return mesh.give_back(new, mesh.layout(V))


def multiplicative_w(
    data: Data, W: Array, H: Array, constraints: Constraints, *, beta: float, floor: float, xp: Namespace
) -> Array:
    """The update of W over any kind of data, for factors that respect the floor and the constraints on W."""
    return mm_step(W, slopes(data, W, H, beta=beta, xp=xp), constraints, beta=beta, floor=floor, xp=xp)


def mm_step(
    W: Array, parts: tuple[Array, ...], constraints: Constraints, *, beta: float, floor: float, xp: Namespace
) -> Array:
    """The minimum, within floor and constraints, of the majoriser at W that belongs to the two `slopes`."""
    numerator, denominator = parts
    numerator = constraints.add_pull(numerator, W, xp=xp)
    tiny = float(xp.finfo(W.dtype).smallest_normal)
    if constraints.curved and beta < 2:
        slope = denominator if constraints.l1 is None else denominator + constraints.l1
        new = W * ridge_minimum(numerator, slope, constraints.push(W, xp=xp), beta=beta, xp=xp)
    else:
        ratio = numerator / operators.at_least(constraints.add_push(denominator, W, xp=xp), tiny, xp=xp)
        gamma = mm_exponent(beta)
        new = W * (ratio if gamma == 1 else power_of_ratio(ratio, gamma, xp=xp))
    if is_steep(beta):
        new = xp.where(xp.isfinite(new), new, W)
    return constraints.enforce(operators.at_least(new, floor, xp=xp), W, xp=xp)


def is_steep(beta: float) -> bool:
    """Whether powers of a model can be beyond the numbers whatever its floor is: an entry that would be then stays."""
    return not 0 <= beta <= 2


def power_of_ratio(ratio: Array, gamma: float, *, xp: Namespace) -> Array:
    """ratio^gamma. Where a derivative may be asked for, it is 0 at zero, where for gamma < 1 there is none."""
    if gamma > 1 or operators.runs_one_by_one(ratio, ratio):
        return ratio**gamma
    positive = ratio > 0
    return xp.where(positive, xp.where(positive, ratio, 1.0) ** gamma, 0.0)


def multiplicative_h(
    data: Data, W: Array, H: Array, constraints: Constraints, *, beta: float, floor: float, xp: Namespace
) -> Array:
    """The update of H: that of W on the transposed problem."""
    Wt, Ht = operators.transposed(W), operators.transposed(H)
    turned = constraints.transposed(xp=xp)
    return operators.transposed(multiplicative_w(data.T, Ht, Wt, turned, beta=beta, floor=floor, xp=xp))


def ridge_minimum(p: Array, d: Array, s: Any, *, beta: float, xp: Namespace) -> Array:
    """The minimum over x > 0 of a majoriser with a quadratic penalty, for beta < 2.

    It is where the derivative is zero:

        p = d x^g + s x^(g + c),    g = 2 - beta, c = 1 for beta < 1,    g = 1, c = 2 - beta for beta >= 1.

    For beta 1 that is a quadratic. Else, in log x, log p - log(d x^g + s x^(g + c)) falls, is concave and its
    curvature is at most 1/4, so Newton's steps from the right stay there. The lesser root without one of the two terms
    is at most log(2) to the right, and four steps from there end within rounding. A step is

        x <- [p x^(c t) / (d + s x^c)]^(1 / (g + c t)),    t = s x^c / (d + s x^c).
    """
    tiny = float(xp.finfo(p.dtype).smallest_normal)
    if beta == 1:
        return 2.0 * p / operators.at_least(d + xp.sqrt(d * d + 4.0 * s * p), tiny, xp=xp)
    g, c = (2.0 - beta, 1.0) if beta < 1 else (1.0, 2.0 - beta)
    d = operators.at_least(d, tiny, xp=xp)
    x = xp.minimum((p / d) ** (1.0 / g), (p / operators.at_least(s, tiny, xp=xp)) ** (1.0 / (g + c)))
    for _ in range(4):
        penalty = s * (x if c == 1 else x**c)
        total = d + penalty
        share = c * (penalty / total)
        x = (p * x**share / total) ** (1.0 / (g + share))
    return x


def slopes(
    data: Data, W: Array, H: Array, Y: Array | None = None, *, beta: float, xp: Namespace
) -> tuple[Array, Array]:
    """The two positive parts of the gradient in W: dD/dW = denominator - numerator.

    numerator = (V * Y^(beta-2)) H^T, denominator = Y^(beta-1) H^T, shapes (..., m, r) or broadcasting to it, for
    Y = WH at the stored entries, which is made where it is needed and not given.
    """
    V = data.values
    if beta == 2:
        return data.contract(V, H, xp=xp), data.model_slope(W, H, None, beta=beta, xp=xp)
    if beta == 1:
        return contract_quotient(data, W, H), data.model_slope(W, H, None, beta=beta, xp=xp)
    Y = data.predict(W, H, xp=xp) if Y is None else Y
    quotient, power = power_parts(V, Y, beta=beta, xp=xp)
    return data.contract(quotient, H, xp=xp), data.model_slope(W, H, power, beta=beta, xp=xp)


def power_parts(V: Array, Y: Array, *, beta: float, xp: Namespace) -> tuple[Array, Array]:
    """V * Y^(beta-2) and Y^(beta-1).

    For beta < 1 the former can overflow where all of a model is at the floor. It is bounded there: the numerator of an
    update is then less than it might be and still more than its denominator, so the step is shorter and goes the same
    way.
    """
    most = float(xp.finfo(Y.dtype).max) * 2.0**-32 if beta < 1 else math.inf
    kernel = kernels.find("power_parts", V, Y) if beta in ROOTS and V.shape == Y.shape else None
    if kernel is not None:
        found: tuple[Array, Array] = kernel(V, Y, beta=beta, most=most)
        return found
    power = operators.power(Y, beta - 1.0, xp=xp)
    quotient = V / Y * power
    return quotient if beta >= 1 else operators.at_most(quotient, most, xp=xp), power


def mm_exponent(beta: float) -> float:
    """The exponent gamma that makes the multiplicative update monotone (Fevotte & Idier 2011, sec. 4.1).

    An L1 penalty only adds to the denominator, and so does a quadratic one for beta >= 2, whose majoriser has no
    lesser power; below 2 see `ridge_minimum`.
    """
    if beta > 2:
        return 1.0 / (beta - 1.0)
    return 1.0 / (2.0 - beta) if beta < 1 else 1.0


@functools.lru_cache(maxsize=64)
def factor_floor(dtype: Any, *, beta: float, xp: Namespace) -> float:
    """The least value of a factor's entry: a power of two by which no term of an update can overflow.

    With E the dtype's largest exponent, W, H >= f and V <= 2^(E/8), the largest terms are V / Y <= 2^(E/8) f^-2 and
    Y^(beta-1) <= f^(2 beta - 2), and nearly 2^24 of them are summed. For beta >= 0, f is 1e-13 in float32 and
    6e-132 in float64. `power_parts` bounds V Y^(beta-2) by itself.
    """
    largest_exponent = math.log2(float(xp.finfo(dtype).max))
    return 2.0 ** -int((0.875 * largest_exponent - 24.0) / (2.0 * max(1.0, 1.0 - beta)))
