"""Components as pictures: images in a grid, or the rows of one."""

from __future__ import annotations

from typing import Any

from nmf_xp.plot.style import MAGNITUDE, drawn, ink, new_axes, plain, relative

LABELS = 40  # columns whose names have room below a picture
GAP = 0.15  # between two images, as a share of their height and width


def components(H: Any, shape: tuple[int, int] | None = None, *, columns: int = 5, ax: Any = None) -> Any:
    """Draw the components, the rows of H, dark for large: as images in a grid, or as the rows of one picture.

    Parameters
    ----------
    H : Result, or array or table of shape (r, n)
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
        The components have their names, or are numbered from 0, as the rows of H. As rows, up to 40 columns of V have
        their names below them.

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
    given = drawn(H)
    host = given.host
    if shape is not None and (len(shape) != 2 or shape[0] * shape[1] != host.shape[1]):
        msg = f"`shape` must be (height, width) with the product {host.shape[1]}, the columns of `H`, got {shape}"
        raise ValueError(msg)
    if columns < 1:
        msg = f"`columns` must be at least 1, got {columns}"
        raise ValueError(msg)
    scaled = relative(host)
    ax = new_axes(ax)
    if shape is None:
        ax.imshow(scaled, cmap=MAGNITUDE, vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        ax.set(xlabel="column of V", ylabel="component")
        if given.components is not None:
            ax.set_yticks(range(len(host)), list(map(plain, given.components)))
        else:
            ax.yaxis.get_major_locator().set_params(integer=True)
        if given.columns is not None and len(given.columns) <= LABELS:
            ax.set_xticks(range(host.shape[1]), list(map(plain, given.columns)), rotation=90, fontsize="small")
        return ax
    height, width = shape
    for k, image in enumerate(scaled):
        i, j = divmod(k, columns)
        left, top = j * width * (1 + GAP), i * height * (1 + 2 * GAP)  # with room for a number above
        extent = (left, left + width, top + height, top)
        ax.imshow(image.reshape(shape), cmap=MAGNITUDE, vmin=0, vmax=1, extent=extent, interpolation="nearest")
        ax.plot(
            [left, left + width, left + width, left, left],
            [top, top, top + height, top + height, top],
            color="0.6",
            linewidth=0.8,
        )
        ax.text(left, top - height * GAP / 3, plain(given.called[k]), fontsize="small", color=ink())
    rows = -(-len(scaled) // columns)
    wide = min(columns, len(scaled)) * width * (1 + GAP)
    ax.set(xlim=(-width * GAP, wide), ylim=(rows * height * (1 + 2 * GAP), -2 * height * GAP))
    ax.set_axis_off()
    return ax
