"""Pictures of a factorization. Each function draws on matplotlib axes and returns them.

Size is shown by lightness, in shades of grey, and lines are told apart by more than their hue.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nmf_xp import _compat

if TYPE_CHECKING:
    from nmf_xp import RankSelection, Result
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


def ranks(selection: RankSelection, *, ax: Any = None) -> Any:
    """Draw how the ranks compare: the agreement of the restarts, and what was held out where that was predicted.

    Parameters
    ----------
    selection : RankSelection
        From `select_rank`.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default a new figure. The loss on held-out entries gets an axis of its own on the right, in
        ``ax.figure``.

    Returns
    -------
    matplotlib.axes.Axes
        A vertical line stands at the recommended rank, dashed where the evidence is weak.

    Raises
    ------
    ImportError
        matplotlib is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> from nmf_xp import plot, select_rank
    >>> V = np.random.default_rng(0).random((12, 8))
    >>> selection = select_rank(V, range(1, 4), n_restarts=3, random_state=0)
    >>> axes = plot.ranks(selection)  # doctest: +SKIP
    """
    ax = _axes(ax)
    table = selection.table
    lines = [
        ax.plot(table["rank"], table[name], color=color, marker=marker, label=label)[0]
        for name, label, color, marker in (
            ("cophenetic", "cophenetic correlation", "#0072B2", "o"),
            ("dispersion", "dispersion", "#E69F00", "s"),
            ("matched", "matched components", "#009E73", "^"),
        )
    ]
    if "loss" in table:
        right = ax.twinx()
        loss = right.errorbar(
            table["rank"], table["loss"], table["loss_error"], color="black", marker="D", linestyle=":", capsize=3
        )
        loss.set_label("held-out loss (right)")
        lines.append(loss)
        right.set_ylabel("mean divergence of a held-out entry")
        if table["loss"].max() > 10 * table["loss"].min() > 0:
            right.set_yscale("log")
    style = "dashed" if selection.weak else "solid"
    ax.axvline(selection.rank, color="0.6", linestyle=style, zorder=0)
    ax.xaxis.get_major_locator().set_params(integer=True)
    weak = ", weak evidence" if selection.weak else ""
    ax.set(xlabel="rank", ylabel="agreement of the restarts", title=f"rank {selection.rank} by {selection.rule}{weak}")
    ax.legend(handles=lines, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, frameon=False)
    return ax


def consensus(matrix: Any, *, labels: Any = None, ax: Any = None) -> Any:
    """Draw a consensus matrix, dark where two columns of V are always in one group, with groups side by side.

    Parameters
    ----------
    matrix : numpy.ndarray, shape (n, n)
        ``select_rank(...).consensus[rank]``.
    labels : sequence of str, optional
        A name for each column of V, in V's order.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        The columns stand in the order of their tree by average linkage.

    Raises
    ------
    ValueError
        `matrix` is not square, or there is not one label for each column.
    ImportError
        matplotlib or scipy is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> from nmf_xp import plot
    >>> axes = plot.consensus(np.eye(4))  # doctest: +SKIP
    """
    import numpy as np

    from nmf_xp.selection.consensus import leaf_order

    matrix = np.asarray(matrix)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        msg = f"`matrix` must be square, got shape {matrix.shape}; draw `selection.consensus[rank]`"
        raise ValueError(msg)
    if labels is not None and len(labels) != len(matrix):
        msg = f"`labels` must hold {len(matrix)} names, one for each column of V, got {len(labels)}"
        raise ValueError(msg)
    ax = _axes(ax)
    order = leaf_order(matrix)
    image = ax.imshow(matrix[np.ix_(order, order)], cmap="Greys", vmin=0, vmax=1, interpolation="nearest")
    ax.figure.colorbar(image, ax=ax, label="share of restarts in one group", shrink=0.8)
    if labels is None:
        ax.set(xticks=[], yticks=[], xlabel="columns of V, by group")
    else:
        ax.set(xticks=[], yticks=range(len(order)))
        ax.set_yticklabels([str(labels[i]) for i in order], fontsize="small" if len(order) <= 20 else "x-small")
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
