"""Pictures of a factorization. Each function draws on matplotlib axes and returns them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nmf_xp import _compat

if TYPE_CHECKING:
    from nmf_xp import Result
    from nmf_xp._typing import Array


def convergence(result: Result, *, ax: Any = None) -> Any:
    """Draw the objective at each check of a run that was checked.

    Parameters
    ----------
    result : Result
        From `nmf` or `transform`, with a history.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        The result has no history, because nothing was checked (`tol=0`).
    """
    history = result.history
    if not history or not isinstance(history[0], float):
        msg = "`result` must have the history of one matrix, got none; run with tol > 0 or with a callback"
        raise ValueError(msg)
    ax = _axes(ax)
    ax.plot(history, color="#0072B2", marker="o", markersize=3)
    if min(history) > 0:
        ax.set_yscale("log")
    ax.set(xlabel="check", ylabel="objective")
    return ax


def components(H: Array, shape: tuple[int, int], *, columns: int = 5, ax: Any = None) -> Any:
    """Draw the components, the rows of H, as images in a grid, dark for large.

    Parameters
    ----------
    H : array, shape (r, n)
        Components; each is scaled to its own largest entry.
    shape : (int, int)
        Height and width of an image, whose product is n.
    columns : int, default 5
        Images in a row of the grid.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        The product of `shape` is not n.
    """
    import numpy as np

    images = _compat.to_host(H)
    height, width = shape
    if height * width != images.shape[1]:
        msg = f"`shape` must have the product {images.shape[1]}, the columns of `H`, got {shape}"
        raise ValueError(msg)
    rows = -(-len(images) // columns)
    grid = np.full((rows * (height + 1) - 1, min(columns, len(images)) * (width + 1) - 1), np.nan)
    for k, image in enumerate(images):
        i, j = k // columns * (height + 1), k % columns * (width + 1)
        grid[i : i + height, j : j + width] = image.reshape(shape) / max(image.max(), 1e-300)
    ax = _axes(ax)
    import matplotlib as mpl

    shades = mpl.colormaps["Greys"].with_extremes(bad="#9ecae1")  # the lines between the images
    ax.imshow(grid, cmap=shades, vmin=0, vmax=1, interpolation="nearest")
    ax.set_axis_off()
    return ax


def _axes(ax: Any) -> Any:
    if ax is not None:
        return ax
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        msg = 'plots need matplotlib: pip install "nmf_xp[plot]"'
        raise ImportError(msg) from error
    return plt.subplots(layout="constrained")[1]
