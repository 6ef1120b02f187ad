"""The dispersion under which counts with the means WH are most likely: one, or one for each row or each column."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from nmf_xp.arrays import libraries, transfer
from nmf_xp.data.blocks import Part
from nmf_xp.problem.overdispersed import AXES

if TYPE_CHECKING:
    from nmf_xp.arrays.typing import Array, Namespace
    from nmf_xp.problem import Factors
    from nmf_xp.problem.overdispersed import Overdispersed

LEAST, MOST = 1e-6, 1e4  # the least one stands for none


def likeliest(counts: Overdispersed, factors: Factors, kind: str, *, unit: float, xp: Namespace) -> Any:
    """The dispersions as a NumPy array, (1, 1), (m, 1) or (1, n), for V and WH in this `unit`.

    Those of the `counts` are their exposures. Newton's method on the logarithms, within brackets of the signs of the
    derivatives that were seen.
    """
    import numpy as np

    W, H = factors
    axis, dtype = AXES[kind], libraries.accumulator_dtype(xp, libraries.device(W))

    def derivatives(t: Any) -> tuple[Any, Any]:
        """Those of the log-likelihood in t = log a, for a = 1 / alpha, the first and the second."""
        a = np.exp(t)
        of_lines = transfer.from_host(a, xp=xp, dtype=W.dtype, device=libraries.device(W))
        data = counts._replace(alpha=(of_lines, *counts.alpha))

        def of_block(block: Overdispersed, W: Array) -> Part:
            a, exposure, weights = (
                xp.astype(x, dtype) if libraries.is_array(x) else x
                for x in (block.alpha[0], block.stored(block.alpha[1:], xp=xp), block.stored(block.weights, xp=xp))
            )
            V, Y = (unit * exposure * xp.astype(x, dtype) for x in (block.values, block.base.predict(W, H, xp=xp)))
            first, second = digammas(V + a, xp=xp)
            alone, bent = digammas(a, xp=xp)
            slope = first - alone + (xp.log(a / (a + Y)) + (Y - V) / (a + Y))
            curvature = second - bent + Y / a / (a + Y) + (V - Y) / (a + Y) ** 2
            sums = [xp.sum(weights / exposure * x, axis=axis, keepdims=True) for x in (slope, curvature)]
            return Part(xp.concat(sums, axis=-1), ()) if kind == "row" else Part(None, tuple(sums))

        found = data.visited(of_block, W, xp=xp)
        slope, curvature = (
            np.split(transfer.to_host(found.rows), 2, axis=-1) if kind == "row" else map(transfer.to_host, found.sums)
        )
        return a * slope, a * slope + a * a * curvature

    m, n = counts.shape
    shape = {"global": (1, 1), "row": (m, 1), "column": (1, n)}[kind]
    low, high = np.full(shape, -math.log(MOST)), np.full(shape, -math.log(LEAST))
    alike = derivatives(high)[0] >= 0  # the counts vary no more than Poisson's
    t = np.zeros(shape)
    for _ in range(60):
        slope, curvature = derivatives(t)
        low, high = np.where(slope > 0, t, low), np.where(slope > 0, high, t)
        with np.errstate(all="ignore"):
            new = t - slope / curvature
            within = (curvature < 0) & (low < new) & (new < high)
        last, t = t, np.where(within, new, 0.5 * (low + high))
        if np.max(np.abs(t - last), where=~alike, initial=0.0) < 1e-6:
            break
    return np.where(alike, LEAST, np.exp(-t))


def digammas(x: Array, *, xp: Namespace) -> tuple[Array, Array]:
    """The first two derivatives of log Gamma at positive numbers: by their recurrence to 8 and beyond, and its series.

    Abramowitz & Stegun (1964), 6.3.5, 6.3.18, 6.4.6 and 6.4.12.
    """
    first: Any = 0.0
    second: Any = 0.0
    for _ in range(8):
        first, second = first - 1.0 / x, second + 1.0 / x / x
        x = x + 1.0
    inverse = 1.0 / x
    square = inverse * inverse
    series = square * (1 / 12 - square * (1 / 120 - square * (1 / 252 - square * (1 / 240 - square / 132))))
    first = first + xp.log(x) - 0.5 * inverse - series
    series = square * (1 / 6 - square * (1 / 30 - square * (1 / 42 - square * (1 / 30 - square * (5 / 66)))))
    return first, second + inverse * (1.0 + 0.5 * inverse + series)
