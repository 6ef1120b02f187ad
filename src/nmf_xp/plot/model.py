"""The data, the model, and what lies between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nmf_xp.data import tables
from nmf_xp.plot.style import DIFFERENCE, MAGNITUDE, UNOBSERVED, several_axes
from nmf_xp.result.overview import overview

if TYPE_CHECKING:
    import numpy as np

    from nmf_xp import Result
    from nmf_xp.arrays.typing import Array

CELLS = 400  # along an axis: about as many as a panel has points


def reconstruction(
    V: Any,
    result: Result,
    *,
    weights: Array | None = None,
    exposure: Array | None = None,
    missing: str | None = None,
    absent: str = "zero",
    ax: Any = None,
) -> np.ndarray[Any, Any]:
    """Draw V, the model WH on the same scale, and the residual V - WH.

    Parameters
    ----------
    V : array or table, shape (m, n)
        The data that were factorized, dense or sparse, of any library.
    result : Result
        From `nmf` or `transform` of V.
    weights, exposure, missing, absent : optional
        As they were given to `nmf`; with an exposure V / exposure is drawn. What is not observed is light blue in the
        first and the last picture; the model is drawn everywhere.
    ax : sequence of three matplotlib.axes.Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    numpy.ndarray of matplotlib.axes.Axes, shape (3,)
        V, WH and V - WH. Dark is large; in the residual purple is where the model is too large and orange where it is
        too small. The scales end at the 99th percentile, and an axis of more than 400 rows or columns shows means of
        neighbours.

    Raises
    ------
    ValueError
        V is a stack or does not fit the result, or `ax` does not hold three axes; or the fit had batches, and
        `exposure` does not say by what their effects multiply each row.
    ImportError
        matplotlib is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> from nmf_xp import nmf, plot
    >>> V = np.arange(1.0, 13.0).reshape(4, 3)
    >>> axes = plot.reconstruction(V, nmf(V, 2, random_state=0))  # doctest: +SKIP
    """
    import numpy as np

    if result.batch_labels is not None and exposure is None:
        msg = "`exposure` must be the effects of each row's batch, an array of V's shape, where the fit had batches"
        raise ValueError(msg)
    V, weights, exposure = (tables.array_of(k, x) for k, x in (("V", V), ("weights", weights), ("exposure", exposure)))
    observation: Any = {"weights": weights, "exposure": exposure, "missing": missing, "absent": absent}
    seen = overview(V, result.W, result.H, beta=result.beta, **observation, limit=CELLS)
    panels = several_axes(ax, 3, columns=3, size=(3.4, 3.2))
    positive = seen.data[seen.data > 0]
    high = float(np.percentile(positive, 99)) if positive.size else 1.0
    far = float(np.nanpercentile(np.abs(seen.residual), 99)) or high
    m, n = result.W.shape[0], result.H.shape[1]
    for panel, cells, title, scale in zip(
        panels,
        seen[:3],
        ("V", "WH", "V - WH"),
        ((MAGNITUDE, 0.0, high), (MAGNITUDE, 0.0, high), (DIFFERENCE, -far, far)),
        strict=True,
    ):
        name, low, top = scale
        image = panel.imshow(
            cells, cmap=name, vmin=low, vmax=top, aspect="auto", interpolation="nearest", extent=(0, n, m, 0)
        )
        extend = "both" if low < 0 else "max"
        panel.figure.colorbar(image, ax=panel, shrink=0.8, extend=extend)
        panel.set(title=title, xlabel="column")
        for axis in (panel.xaxis, panel.yaxis):
            axis.get_major_locator().set_params(integer=True)
    for panel in (panels[0], panels[2]):
        panel.set_facecolor(UNOBSERVED)
    panels[0].set_ylabel("row")
    return panels
