"""The dispersion under which counts with the means WH are most likely: one, or one for each row or each column."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from nmf_xp.arrays import libraries, transfer
from nmf_xp.data import as_data
from nmf_xp.data.blocks import Part
from nmf_xp.data.sparse import Sparse
from nmf_xp.problem.overdispersed import AXES

if TYPE_CHECKING:
    from nmf_xp.arrays.typing import Array, Namespace
    from nmf_xp.problem import Factors
    from nmf_xp.problem.overdispersed import Overdispersed

LEAST, MOST = 1e-6, 1e4  # the least one stands for none
POINTS = 13  # of a grid of logarithms between them
CLOSE = 1e-5  # of a logarithm


def likeliest(
    counts: Overdispersed, factors: Factors, kind: str, *, unit: float, last: Any = None, xp: Namespace
) -> Any:
    """The dispersions as a NumPy array, (1, 1), (m, 1) or (1, n), for V and WH in this `unit`.

    Those of the `counts` are their exposures. The likelihood may have several maxima: the highest one on a grid, and
    from there Newton's method on the logarithms, within brackets of the signs of the derivatives that were seen; or
    from the `last` ones.
    """
    import numpy as np

    if libraries.accumulator_dtype(xp, libraries.device(factors.W)) != xp.float64:
        counts, factors, xp = _on_host(counts, factors)

    def derivatives(t: Any) -> tuple[Any, Any]:
        """Those of the log-likelihood in t = log a, for a = 1 / alpha, the first and the second."""
        return _derivatives(counts, factors, kind, t, unit=unit, xp=xp)

    m, n = counts.shape
    shape = {"global": (1, 1), "row": (m, 1), "column": (1, n)}[kind]
    grid = np.linspace(-math.log(MOST), -math.log(LEAST), POINTS)
    low, high = np.full(shape, grid[0]), np.full(shape, grid[-1])
    if last is None:
        alike, t = _highest(grid, np.stack([derivatives(np.full(shape, point))[0] for point in grid]))
    else:
        alike, t = np.logical_and(last <= LEAST, derivatives(high)[0] >= 0), -np.log(last)
    for _ in range(60):
        slope, curvature = derivatives(t)
        low, high = np.where(slope > 0, t, low), np.where(slope > 0, high, t)
        with np.errstate(all="ignore"):
            new = t - slope / curvature
            within = (curvature < 0) & (low < new) & (new < high)
        before, t = t, np.where(within, new, 0.5 * (low + high))
        if np.max(np.abs(t - before), where=~alike, initial=0.0) < CLOSE:
            break
    return np.where(np.logical_or(alike, t > grid[-1] - 1e-3), LEAST, np.exp(-t))


def _highest(grid: Any, slopes: Any) -> tuple[Any, Any]:
    """Where the counts vary no more than Poisson's, and else the best place to begin: of each line, from its slopes.

    `slopes` (points, ...) are those of the log-likelihood, which rises from one point to the next by about their mean.
    """
    import numpy as np

    rises = 0.5 * (slopes[1:] + slopes[:-1]) * np.diff(grid).reshape(-1, 1, 1)
    heights = np.concatenate([np.zeros_like(slopes[:1]), np.cumsum(rises, axis=0)])
    best = heights.argmax(axis=0)
    alike = np.logical_and(best == len(grid) - 1, slopes[-1] >= 0)
    return alike, grid[np.minimum(best, len(grid) - 1)]


def _derivatives(
    counts: Overdispersed, factors: Factors, kind: str, t: Any, *, unit: float, xp: Namespace
) -> tuple[Any, Any]:
    """The first two derivatives of the log-likelihood in t = log a, NumPy arrays of the shape of t."""
    import numpy as np

    W, H = factors
    axis, dtype, a = AXES[kind], libraries.accumulator_dtype(xp, libraries.device(W)), np.exp(t)
    of_lines = transfer.from_host(a, xp=xp, dtype=dtype, device=libraries.device(W))
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


def _on_host(counts: Overdispersed, factors: Factors) -> tuple[Overdispersed, Factors, Namespace]:
    """The same on NumPy, in float64: for a device without that, whose sums would lose what is looked for."""
    import numpy as np

    def host(x: Any) -> Any:
        if isinstance(x, tuple):
            return type(x)(*map(host, x)) if hasattr(x, "_fields") else tuple(map(host, x))
        found = transfer.to_host(x)
        return found.astype(np.float64) if found.dtype.kind == "f" else found

    base: Any = counts.base
    if isinstance(base, Sparse):
        from scipy.sparse import csr_array

        base = as_data(csr_array((host(base.values), (host(base.i), host(base.j))), shape=base.shape))
    else:
        base = type(base)(host(base.values))
    W, H = (host(x) for x in factors)
    data = counts._replace(base=base, alpha=host(counts.alpha), weights=host(counts.weights))
    return data, type(factors)(W, H), libraries.array_namespace(W)


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
