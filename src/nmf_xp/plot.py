"""Pictures of a factorization. Each function draws on matplotlib axes and returns them.

Size is shown by lightness, in shades of grey, and lines are told apart by more than their hue.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nmf_xp import _compat

if TYPE_CHECKING:
    from nmf_xp import Result
    from nmf_xp._typing import Array

GAP = 0.15  # between two images, as a share of their height and width


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
        The vertical axis is logarithmic where the objective fell by a factor of ten or more.

    Raises
    ------
    ValueError
        The result has no history, because nothing was checked (`tol=0`), or it is that of a stack.
    ImportError
        matplotlib is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> from nmf_xp import nmf, plot
    >>> result = nmf(np.arange(1.0, 13.0).reshape(4, 3), 2, random_state=0)
    >>> axes = plot.convergence(result)  # doctest: +SKIP
    """
    history = result.history
    if not history or not isinstance(history[0], float):
        what = "none; run with tol > 0 or with a callback" if not history else "a stack; draw one of its members"
        msg = f"`result` must have the history of one matrix, got {what}"
        raise ValueError(msg)
    ax = _axes(ax)
    ax.plot(range(len(history)), history, color="#0072B2", marker="o", markersize=3)
    if 0 < 10 * min(history) <= max(history):
        ax.set_yscale("log")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set(
        xlabel="check (0 is the start)", ylabel="objective", title=f"{result.n_iter} iterations, beta {result.beta:g}"
    )
    return ax


def components(H: Array, shape: tuple[int, int] | None = None, *, columns: int = 5, ax: Any = None) -> Any:
    """Draw the components, the rows of H, dark for large: as images in a grid, or as the rows of one picture.

    Parameters
    ----------
    H : array, shape (r, n)
        Components; each is drawn relative to its own largest entry.
    shape : (int, int), optional
        Height and width of an image, whose product is n. By default the components are no images, and each is drawn as
        a row.
    columns : int, default 5
        Images in a row of the grid.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        The components are numbered from 0, as the rows of H.

    Raises
    ------
    ValueError
        H is no matrix, the product of `shape` is not n, or `columns` is less than 1.
    ImportError
        matplotlib is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> from nmf_xp import plot
    >>> axes = plot.components(np.eye(6), shape=(2, 3))  # doctest: +SKIP
    """
    import numpy as np

    host = _compat.to_host(H)
    if host.ndim != 2:
        msg = f"`H` must be a matrix (r, n), got shape {host.shape}; draw the members of a stack one by one"
        raise ValueError(msg)
    if shape is not None and (len(shape) != 2 or shape[0] * shape[1] != host.shape[1]):
        msg = f"`shape` must be (height, width) with the product {host.shape[1]}, the columns of `H`, got {shape}"
        raise ValueError(msg)
    if columns < 1:
        msg = f"`columns` must be at least 1, got {columns}"
        raise ValueError(msg)
    largest = host.max(axis=1, keepdims=True)
    scaled = host / np.where(largest > 0, largest, 1)
    ax = _axes(ax)
    if shape is None:
        ax.imshow(scaled, cmap="Greys", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        ax.yaxis.get_major_locator().set_params(integer=True)
        ax.set(xlabel="column of V", ylabel="component")
        return ax
    height, width = shape
    for k, image in enumerate(scaled):
        i, j = divmod(k, columns)
        left, top = j * width * (1 + GAP), i * height * (1 + 2 * GAP)  # with room for a number above
        extent = (left, left + width, top + height, top)
        ax.imshow(image.reshape(shape), cmap="Greys", vmin=0, vmax=1, extent=extent, interpolation="nearest")
        ax.plot(
            [left, left + width, left + width, left, left],
            [top, top, top + height, top + height, top],
            color="0.6",
            linewidth=0.8,
        )
        ax.text(left, top - height * GAP / 3, f"H[{k}]", fontsize="small", color="0.3")
    rows = -(-len(scaled) // columns)
    wide = min(columns, len(scaled)) * width * (1 + GAP)
    ax.set(xlim=(-width * GAP, wide), ylim=(rows * height * (1 + 2 * GAP), -2 * height * GAP))
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
