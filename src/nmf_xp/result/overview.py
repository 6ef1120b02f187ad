"""V beside WH in as many cells as a picture has room for, and how much of V's divergence the model explains.

A cell is the mean over some neighbouring rows and columns, or a single entry of a small matrix. Cells are contractions
of V with matrices of zeros and ones, so V may be of any kind, and a sparse one stays sparse.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.arrays import libraries, precision, transfer
from nmf_xp.data.units import power
from nmf_xp.divergences import data_divergence
from nmf_xp.problem.posing import pose

if TYPE_CHECKING:
    import numpy as np

    from nmf_xp.arrays.typing import Array, Namespace
    from nmf_xp.data import Data

    Cells = np.ndarray[Any, Any]

BATCH = 2**22  # numbers of V in rows that are taken together


class Overview(NamedTuple):
    """Means over cells, on the host, and a divergence to compare with.

    Attributes
    ----------
    data : numpy.ndarray, shape (rows, columns)
        V, over what is observed; NaN where nothing is.
    model : numpy.ndarray, shape (rows, columns)
        WH, over every entry.
    residual : numpy.ndarray, shape (rows, columns)
        V - WH, over what is observed.
    reference : float
        The divergence of V from its mean, which no constant can lower (Banerjee et al. 2005, prop. 1).
    """

    data: Cells
    model: Cells
    residual: Cells
    reference: float


@precision.on_data
def overview(
    V: Any,
    W: Array,
    H: Array,
    *,
    beta: float,
    weights: Array | None = None,
    exposure: Array | None = None,
    missing: str | None = None,
    absent: str = "zero",
    limit: int,
) -> Overview:
    """The cells of one matrix, at most `limit` along an axis; V and what is said of it as for `nmf`.

    With an exposure they are those of V / exposure.

    Raises
    ------
    TypeError, ValueError
        As `nmf` for its data; the factors do not fit V; V is a stack.
    """
    import numpy as np

    posed = pose(V, beta=beta, weights=weights, missing=missing, absent=absent, exposure=exposure)
    if posed.stack:
        msg = f"`V` must be one matrix, got a stack of shape {(*posed.stack, *posed.shape)}; take one of its members"
        raise ValueError(msg)
    (m, n), r, xp, data = posed.shape, W.shape[-1], posed.xp, posed.problem.data
    W, H = posed.factor("W", W, "W", r), posed.factor("H", H, "H", r)
    rows, columns = _starts(m, limit), _starts(n, limit)
    of_column = np.searchsorted(columns, np.arange(n), side="right") - 1
    onto = (np.arange(len(columns))[:, None] == of_column).astype(float)
    onto = transfer.from_host(onto, xp=xp, dtype=W.dtype, device=libraries.device(W))
    ones = [xp.ones(shape, dtype=W.dtype, device=libraries.device(W)) for shape in ((m, 1), (1, n))]
    seen, weight, fitted = (
        np.concatenate(parts)
        for parts in zip(*_sums(data, (W, H), (ones[0], ones[1]), onto, [*rows.tolist(), m], xp=xp), strict=True)
    )
    observed = weight > 0
    means = [np.where(observed, x / np.where(observed, weight, 1), np.nan) for x in (seen, seen - fitted)]
    left = np.add.reduceat(transfer.to_host(W), rows, axis=0, dtype=float) / np.diff([*rows, m])[:, None]
    right = np.add.reduceat(transfer.to_host(H), columns, axis=1, dtype=float) / np.diff([*columns, n])
    mean = max(float(seen.sum() / weight.sum()), posed.floor)
    reference = data_divergence(data, ones[0] * mean, ones[1], beta=beta, xp=xp)
    unit = power(posed.units.v)
    divergence = float(posed.restore_divergence(transfer.scalar(reference)))
    return Overview(means[0] * unit, left @ right * unit, means[1] * unit, divergence)


def _starts(length: int, limit: int) -> Cells:
    """The first index of each cell along an axis."""
    import numpy as np

    count = min(length, limit)
    return np.arange(count) * length // count


def _sums(
    data: Data, model: tuple[Array, Array], ones: tuple[Array, Array], onto: Array, edges: list[int], *, xp: Namespace
) -> Any:
    """Sums over cells of V, of its weights and of WH, some rows of cells at a time."""
    import numpy as np

    m, n = data.shape
    cells = max(1, (len(edges) - 1) * BATCH // (m * n))  # rows of cells in a batch
    for first in range(0, len(edges) - 1, cells):
        bounds = edges[first : first + cells + 1]
        start, stop = bounds[0], bounds[-1]
        block = data if (start, stop) == (0, m) else data.rows(start, stop)
        found = (
            block.contract(block.values, onto, xp=xp),
            _domain_sums(block, ones[0][start:stop, :], ones[1], onto, xp=xp),
            _domain_sums(block, model[0][start:stop, :], model[1], onto, xp=xp),
        )
        inside = np.asarray(bounds[:-1]) - start
        yield tuple(np.add.reduceat(transfer.to_host(x), inside, axis=0, dtype=float) for x in found)


def _domain_sums(block: Data, W: Array, H: Array, onto: Array, *, xp: Namespace) -> Array:
    """WH, with the weights of the domain, times the transpose of `onto`.

    The seam has it as the model's slope for beta 2, (WH) H^T, of the same model with more components, which W lacks.
    """
    none = xp.zeros((W.shape[0], onto.shape[0]), dtype=W.dtype, device=libraries.device(W))
    widened = xp.concat([W, none], axis=1), xp.concat([H, onto], axis=0)
    return block.model_slope(*widened, None, beta=2, xp=xp)[:, W.shape[1] :]
