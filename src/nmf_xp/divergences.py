r"""The beta-divergence between V and its model WH.

Notation and formulas follow Fevotte & Idier (2011), "Algorithms for nonnegative matrix factorization with the
beta-divergence", Neural Computation 23(9), eq. 2.3-2.6:

    beta = 2   d(v|y) = (v - y)^2 / 2                     half the squared Frobenius norm
    beta = 1   d(v|y) = v log(v/y) - v + y                Kullback-Leibler (Lee & Seung 2001, eq. 3)
    beta = 0   d(v|y) = v/y - log(v/y) - 1                Itakura-Saito
    others     d(v|y) = [v^beta + (beta-1) y^beta - beta v y^(beta-1)] / [beta (beta-1)]

All but the first are computed from y - v, so that a model close to its data keeps its digits.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

from nmf_xp.arrays import faults, kernels, libraries, mesh, operators, precision
from nmf_xp.arrays.checks import is_real
from nmf_xp.data import Dense, Sparse, as_data, tables, with_weights
from nmf_xp.data.blocks import Part, sweep
from nmf_xp.data.checks import check_problem
from nmf_xp.data.constraints import FREE
from nmf_xp.data.exposed import with_exposure

if TYPE_CHECKING:
    from collections.abc import Callable

    from nmf_xp.arrays.typing import Array, Namespace
    from nmf_xp.data import Data
    from nmf_xp.data.constraints import Constraints


AT_HAND = 2**12  # entries of a matrix of which a look takes less time than an array for its model
ROOTS = (0.0, 0.5, 1.5)  # betas whose powers are roots, for which there are kernels
BETA_LOSSES = {"frobenius": 2.0, "kullback-leibler": 1.0, "itakura-saito": 0.0}


OTHER_NAMES = {
    "frobenius": ("fro", "euclidean", "euclid", "l2", "ls", "mse", "squared", "gaussian", "leastsquares", "frob"),
    "kullback-leibler": ("kl", "kldivergence", "kullback", "kullbackleibler", "poisson", "divergence", "idivergence"),
    "itakura-saito": ("is", "isdivergence", "itakura", "itakurasaito", "gamma"),
}
"""What the losses are called elsewhere, in small letters and without signs."""


def _meant(name: str) -> str:
    """The end of a sentence that says which loss is meant; empty where nobody knows."""
    plain = "".join(filter(str.isalnum, name.lower()))
    if plain in ("nb", "negbin", "negbinomial", "negativebinomial"):
        return "; `nmf` and `transform` take 'negative-binomial'"
    found = [ours for ours, others in OTHER_NAMES.items() if plain in (*others, ours)]
    return f"; say {found[0]!r}" if found else ""


def check_beta(beta_loss: float | str) -> float:
    """The beta of a loss given by name or by number."""
    if isinstance(beta_loss, str):
        if beta_loss not in BETA_LOSSES:
            rule = f"`beta_loss` must be one of {sorted(BETA_LOSSES)} or a finite number"
            msg = f"{rule}, got {beta_loss!r}{_meant(beta_loss)}"
            raise ValueError(msg)
        return BETA_LOSSES[beta_loss]
    if not is_real(beta_loss):
        msg = f"`beta_loss` must be one of {sorted(BETA_LOSSES)} or a finite number, got {beta_loss!r}"
        raise TypeError(msg)
    if not math.isfinite(beta_loss):
        msg = f"`beta_loss` must be one of {sorted(BETA_LOSSES)} or a finite number, got {beta_loss!r}"
        raise ValueError(msg)
    return float(beta_loss)


@tables.taken
@faults.explained
@precision.in_full_precision
def beta_divergence(
    V: Array,
    W: Array,
    H: Array,
    /,
    *,
    beta_loss: float | str = "frobenius",
    weights: Array | None = None,
    exposure: Array | None = None,
    absent: str = "zero",
    layer: str | None = None,  # noqa: ARG001 - the door takes it
) -> Array:
    r"""Beta-divergence D(V | WH), summed over the entries of each matrix.

    Parameters
    ----------
    V : array, shape (..., m, n)
        Non-negative data, or a table as for `nmf`. Integers, booleans and 16-bit floats are taken in the dtype in which
        `nmf` factorizes them.
    W : array, shape (..., m, r)
        Left factor, of V's namespace and device, and of the dtype in which V is factorized.
    H : array, shape (..., r, n)
        Right factor, likewise.
    beta_loss : float or {"frobenius", "kullback-leibler", "itakura-saito"}, default "frobenius"
        The beta of the divergence; the names stand for 2, 1 and 0.
    weights : array, optional
        Non-negative weights of the entries, of V's shape or broadcasting to it; an entry of weight 0 is unobserved, and
        what stands there in V is not read. Real or boolean, of V's namespace and device.
    exposure : array, optional
        A known positive factor of each entry, of V's shape or broadcasting to it: the divergence is that of V from
        exposure * WH.
    absent : {"zero", "missing"}, default "zero"
        What the entries are that a sparse V does not store: zeros, or unobserved.
    layer : str, optional
        Of AnnData, the layer to take instead of `X`.

    Returns
    -------
    array, shape (...)
        The divergence, in float64 where the device has it, else float32; a 0-d array for one matrix.
        Where V has zeros it is infinite for beta <= 0, and ordinary for beta > 0 (0 log 0 = 0).

    Raises
    ------
    TypeError
        V, W or H is not an array or not real, V has more than 64 bits an entry, or their namespaces, dtypes or devices
        differ.
    ValueError
        Their shapes do not fit, or `beta_loss` is not one of the names nor a finite number.

    Notes
    -----
    Values are not checked, so the function can be traced and differentiated (`jax.jit`, `jax.grad`, torch).
    Fevotte & Idier (2011), eq. 2.3-2.6; for beta 1, Lee & Seung (2001), eq. 3; for beta 2, half of their eq. 2.

    Examples
    --------
    >>> import numpy as np
    >>> from nmf_xp import beta_divergence
    >>> V = np.asarray([[1.0, 2.0], [3.0, 4.0]])
    >>> W, H = np.ones((2, 1)), np.full((1, 2), 2.5)
    >>> round(float(beta_divergence(V, W, H, beta_loss="frobenius")), 6)
    2.5
    >>> round(float(beta_divergence(V, W, H, beta_loss="kullback-leibler")), 6)
    1.064401
    """
    beta = check_beta(beta_loss)
    data, xp = check_problem(as_data(V), W, H, weights)
    W, H, weights = mesh.laid_out(data.values, W, H, weights)
    data, weights = with_exposure(data, weights, exposure, beta=beta, xp=xp)
    data = with_weights(data, weights, absent=absent, beta=beta, xp=xp)
    return data_divergence(data, W, H, beta=beta, xp=xp)


def data_divergence(data: Data, W: Array, H: Array, *, beta: float, xp: Namespace) -> Array:
    """D(V | WH) over any kind of data."""
    if beta == 1 and type(data) is Dense and (W.ndim > 2 or math.prod(data.shape[-2:]) < AT_HAND):
        kernel = kernels.find("kl_divergence", data.values, W, H)
        if kernel is not None:
            return kernel(data.values, W, H)

    def block_part(block: Data, W: Array, _: Constraints) -> Part:
        return Part(None, (block_divergence(block, W, H, block.predict(W, H, xp=xp), beta=beta, xp=xp),))

    return sweep(block_part, data, W, FREE, xp=xp).sums[0]


def block_divergence(data: Data, W: Array, H: Array, Y: Array, *, beta: float, xp: Namespace) -> Array:
    """D(V | WH) for Y = WH at the stored entries; where rounding makes the sum negative, it is 0."""
    dtype, Y = libraries.accumulator_dtype(xp, libraries.device(W)), data.observed(Y, xp=xp)
    kernel = None if data.weighted or max(data.values.ndim, Y.ndim) > 2 else _kernel(data.values, Y, beta)
    if kernel is not None:
        divergence = xp.asarray(kernel(data.values, Y), dtype=dtype, device=libraries.device(W))
    else:
        entries = beta != 1 or data.values.ndim > Y.ndim or not operators.runs_one_by_one(data.values, Y)
        quick = None if entries else _quick_kullback_leibler(data, Y, dtype=dtype, xp=xp)
        if quick is None:
            quick = data.sum(entry_divergence(data.values, Y, beta=beta, xp=xp), dtype=dtype, xp=xp)
        divergence = quick
    absent = data.absent(W, H, Y, divergence, beta=beta, dtype=dtype, xp=xp)
    divergence = divergence if absent is None else divergence + absent
    return divergence if beta == 2 and absent is None else operators.at_least(divergence, 0.0, xp=xp)


def whole_divergence(
    data: Data, W: Array, H: Array, stored: Array, here: Array | None = None, *, xp: Namespace
) -> Array:
    """The Kullback-Leibler divergence for what the stored entries add, and the sum of WH there if others are zeros."""
    if here is None or not isinstance(data, Sparse) or not data.has_absent:
        return stored
    absent = data.absent_beside(W, H, here, stored, beta=1.0, dtype=stored.dtype, xp=xp)
    return operators.at_least(stored + absent, 0.0, xp=xp)


def _kernel(V: Array, Y: Array, beta: float) -> Callable[[Array, Array], float] | None:
    """What sums the divergences of all entries in one pass, where there is such a kernel."""
    if beta == 1:
        return kernels.find("kl_entries", V, Y)
    kernel = kernels.find("power_divergence", V, Y) if beta in ROOTS else None
    return kernel and functools.partial(kernel, beta=beta)


def entry_divergence(V: Array, Y: Array, *, beta: float, xp: Namespace) -> Array:
    """d(v|y), entry by entry."""
    if beta == 2:
        return 0.5 * (V - Y) ** 2
    if beta == 1:
        return _kullback_leibler(V, Y, xp=xp)
    if beta in (0, *CLOSED) and operators.can_be_seen(Y) and xp.min(Y) > 0:
        quick = _quick_ratios(V, Y, xp=xp) if beta == 0 else _closed(V, Y, beta=beta, xp=xp)
        if quick is not None and operators.seen_to_be_finite(quick):
            return quick
    if beta == 0:
        return _itakura_saito(V, Y, xp=xp)
    return _general(V, Y, beta=beta, xp=xp)


def _kullback_leibler(V: Array, Y: Array, *, xp: Namespace) -> Array:
    """y - v + v log(v/y), with 0 log 0 = 0; infinite where y alone is zero.

    log1p((v - y)/y) is log(v/y) to full relative precision where they are close. Two bounds, beyond which v log(v/y) is
    negligible or the quotient would overflow, spare it the many cases of `_log_ratio`.
    """
    info = xp.finfo(V.dtype)
    least = V * (4.0 / float(info.max)) + float(info.smallest_normal)
    y = xp.maximum(Y, least)
    u = operators.at_least((V - y) / y, float(info.eps) - 1.0, xp=xp)
    return xp.where(xp.logical_and(V > 0, Y == 0), float("inf"), (Y - V) + V * xp.log1p(u))


def _quick_kullback_leibler(data: Data, Y: Array, *, dtype: Any, xp: Namespace) -> Array | None:
    """The sum of v log1p(x/y) - x for x = v - (1 - e) y, in a third of the passes, for what runs one by one.

    It differs from the divergence by e y at most, and by e^2 y^2 / (2 v) where that is less, as what is of first order
    in e cancels; and x/y stays above -1 without a pass that bounds it. Where v and y are zero the first term is NaN,
    and left out; only the second one tells of NaN in V or Y. A quotient v/y beyond the dtype's range makes it infinite;
    NumPy's sums are looked at, and None leaves those to the entries.
    """
    V = data.values
    difference = operators.less_scaled(V, Y, 1.0 - 2.0 * float(xp.finfo(Y.dtype).eps))
    terms, less = operators.times_log1p_less(V, difference, Y)
    divergence = data.sum(terms, dtype=dtype, numbers=True, xp=xp)
    if less is not None:
        divergence = divergence - data.sum(less, dtype=dtype, xp=xp)
    return operators.at_least(divergence, 0.0, xp=xp) if operators.seen_to_be_finite(divergence) else None


def _itakura_saito(V: Array, Y: Array, *, xp: Namespace) -> Array:
    """t + expm1(-t) with t = log(y/v); infinite where v or y is zero."""
    positive, v, y = _where_positive(V, Y, xp=xp)
    t = _log_ratio(v, y, xp=xp)
    return xp.where(positive, t + xp.expm1(-t), float("inf"))


def _quick_ratios(V: Array, Y: Array, *, xp: Namespace) -> Array | None:
    """u - log1p(u) with u = (v - y)/y; None where a v is so far below its y that a quarter of the digits would go."""
    u = (V - Y) / Y
    if not xp.min(u) > float(xp.finfo(Y.dtype).eps) ** 0.25 - 1.0:
        return None
    return u - xp.log1p(u)


def _general(V: Array, Y: Array, *, beta: float, xp: Namespace) -> Array:
    """(y^beta - v^beta) / beta - (v y^(beta-1) - v^beta) / (beta-1), with its limits at zeros.

    The same as the published form, but it stays exact as beta tends to 0 or 1 and as y tends to v.
    """
    positive, v, y = _where_positive(V, Y, xp=xp)
    if beta in CLOSED and operators.runs_one_by_one(v, y):  # where their derivatives, which cancel, are not asked for
        d = _closed(v, y, beta=beta, xp=xp)
    else:
        t, power = _log_ratio(v, y, xp=xp), v**beta
        d = _growth(power, y**beta, t, rate=beta, xp=xp) - _growth(
            power, v * y ** (beta - 1.0), t, rate=beta - 1.0, xp=xp
        )
        d = xp.where(d == d, d, float("inf"))  # a difference of powers beyond the numbers
    if beta <= 0:
        return xp.where(positive, d, float("inf"))
    model_is_zero = operators.power(V, beta, xp=xp) / (beta * (beta - 1.0)) if beta > 1 else float("inf")
    return xp.where(positive, d, xp.where(V == 0, operators.power(Y, beta, xp=xp) / beta, model_is_zero))


CLOSED = (-1.0, 0.5, 1.5, 3.0)
"""The losses for which (y - v)^2 can be taken out of the divergence without powers."""


def _closed(v: Array, y: Array, *, beta: float, xp: Namespace) -> Array:
    """The divergence of positive numbers for one of these losses.

    It is (y - v)^2 / (2 v y^2) for beta -1 and (y - v)^2 (2 y + v) / 6 for beta 3; with a^2 = y and b^2 = v it is
    2 (a - b)^2 / a for beta 1/2 and 2/3 (a - b)^2 (a + 2 b) for beta 3/2.
    """
    if beta == -1:
        ratio = (y - v) / y
        return 0.5 * ratio * (ratio / v)
    if beta == 3:
        return (y - v) ** 2 * ((2.0 * y + v) / 6.0)
    a, b = xp.sqrt(y), xp.sqrt(v)
    square = ((y - v) / (a + b)) ** 2
    return 2.0 * square / a if beta == 0.5 else square * (a + 2.0 * b) * (2.0 / 3.0)


def _growth(start: Array, end: Array, t: Array, *, rate: float, xp: Namespace) -> Array:
    """(end - start) / rate for end = start e^(rate t), without cancellation where they are close."""
    close = xp.abs(rate * t) <= 1.0
    return xp.where(close, start * xp.expm1(rate * xp.where(close, t, 0.0)), end - start) / rate


def _log_ratio(v: Array, y: Array, *, xp: Namespace) -> Array:
    """log(y/v) of positive numbers to full relative precision, for y close to v and for y far from it."""
    rising = y >= v
    low, high = xp.where(rising, v, y), xp.where(rising, y, v)  # minimum would spoil the derivative at y = v
    far = low <= float(xp.finfo(v.dtype).eps) ** 2 * high  # the quotient could overflow
    log = xp.where(far, xp.log(high) - xp.log(low), xp.log1p((high - low) / xp.where(far, 1.0, low)))
    return xp.where(rising, log, -log)


def _where_positive(V: Array, Y: Array, *, xp: Namespace) -> tuple[Array, Array, Array]:
    """Where both are positive, and both with 1 where one of them is not."""
    positive = xp.logical_and(V > 0, Y > 0)
    return positive, xp.where(positive, V, 1.0), xp.where(positive, Y, 1.0)
