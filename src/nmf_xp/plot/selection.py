"""Which rank and which loss: how they compare, and which columns of V stand together."""

from __future__ import annotations

from typing import Any

from nmf_xp import LossComparison, RankSelection
from nmf_xp.data import naming
from nmf_xp.plot.style import MAGNITUDE, ink, line, logarithmic, new_axes, plain
from nmf_xp.result.display import falls_far

LABELS = 60  # names that have room beside a picture
AGREEMENT = {
    "cophenetic": "cophenetic correlation",
    "dispersion": "dispersion",
    "matched": "matched components",
}


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
    ax = new_axes(ax)
    table = selection.table
    lines = [
        ax.plot(table["rank"], table[name], label=label, **line(i))[0]
        for i, (name, label) in enumerate(AGREEMENT.items())
    ]
    if "loss" in table:
        right = ax.twinx()
        loss = right.errorbar(
            table["rank"], table["loss"], table["loss_error"], **{**line(len(lines)), "color": ink()}, capsize=3
        )
        loss.set_label("held-out loss (right)")
        lines.append(loss)
        right.set_ylabel("mean divergence of a held-out entry")
        if falls_far(table["loss"]):
            logarithmic(right, table["loss"])
    style = "dashed" if selection.weak else "solid"
    ax.axvline(selection.rank, color="0.6", linestyle=style, zorder=0)
    ax.xaxis.get_major_locator().set_params(integer=True)
    weak = ", weak evidence" if selection.weak else ""
    ax.set(xlabel="rank", ylabel="agreement of the restarts", title=f"rank {selection.rank} by {selection.rule}{weak}")
    ax.legend(handles=lines, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, frameon=False)
    return ax


def losses(comparison: LossComparison, *, ax: Any = None) -> Any:
    """Draw how the losses compare: what each loses of the log-probability of an entry, beside the recommended one.

    Parameters
    ----------
    comparison : LossComparison
        From `compare_losses`.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        Bars are two standard errors of the difference long, to either side. The recommended loss is at 0, on a line
        that is dashed where the evidence is weak.

    Raises
    ------
    ImportError
        matplotlib is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> from nmf_xp import compare_losses, plot
    >>> V = np.random.default_rng(0).poisson(5.0, size=(20, 12))
    >>> axes = plot.losses(compare_losses(V, 2, random_state=0))  # doctest: +SKIP
    """
    ax = new_axes(ax)
    names = comparison.table["noise"].tolist()
    chosen = names.index(comparison.noise)
    places = range(len(names) - 1, -1, -1)  # the first on top
    ax.axvline(0.0, color="0.6", linestyle="dashed" if comparison.weak else "solid", zorder=0)
    ax.errorbar(
        comparison.differences[:, chosen],
        list(places),
        xerr=2.0 * comparison.errors[:, chosen],
        fmt="o",
        color=ink(),
        markersize=5,
        capsize=3,
    )
    weak = ", weak evidence" if comparison.weak else ""
    ax.set(xlabel="log-probability of an entry that was not seen, beside the recommended loss")
    ax.set(yticks=list(places), ylim=(-0.5, len(names) - 0.5), title=f"{comparison.noise}{weak}")
    ax.set_yticklabels(list(map(plain, names)))
    return ax


def consensus(matrix: Any, *, labels: Any = None, ax: Any = None) -> Any:
    """Draw a consensus matrix, dark where two columns of V are always in one group, with groups side by side.

    Parameters
    ----------
    matrix : RankSelection, or numpy.ndarray of shape (n, n)
        ``select_rank(...)``, of which the recommended rank is drawn, or its ``consensus[rank]``.
    labels : sequence of str, optional
        A name for each column of V, in V's order; of a selection by default V's names, up to 60.
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

    if isinstance(matrix, RankSelection):
        names = matrix.best[matrix.rank].column_names
        labels = labels or (names if names and len(names) <= LABELS else None)
        matrix = matrix.consensus[matrix.rank]
    matrix = np.asarray(matrix)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        msg = f"`matrix` must be square, got shape {matrix.shape}; draw `selection.consensus[rank]`"
        raise ValueError(msg)
    if labels is not None and len(labels) != len(matrix):
        msg = f"`labels` must hold {len(matrix)} names, one for each column of V, got {len(labels)}"
        raise ValueError(msg)
    ax = new_axes(ax)
    order = leaf_order(matrix)
    image = ax.imshow(matrix[np.ix_(order, order)], cmap=MAGNITUDE, vmin=0, vmax=1, interpolation="nearest")
    ax.figure.colorbar(image, ax=ax, label="share of restarts in one group", shrink=0.8)
    if labels is None:
        ax.set(xticks=[], yticks=[], xlabel="columns of V, by group")
    else:
        ax.set(xticks=[], yticks=range(len(order)))
        ax.set_yticklabels(
            [plain(naming.text(labels[i])) for i in order], fontsize="small" if len(order) <= 20 else "x-small"
        )
    return ax
