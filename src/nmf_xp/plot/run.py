"""How a run went: the objective, check by check."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from nmf_xp.plot.style import line, logarithmic, new_axes
from nmf_xp.result.display import falls_far

if TYPE_CHECKING:
    from nmf_xp import Result

RUN, RESTART = "nmf_xp.convergence", "nmf_xp.convergence.restart"  # mark the lines of all calls on the same axes


def convergence(result: Result, *, label: str | None = None, ax: Any = None) -> Any:
    """Draw the objective at each check of a run that was checked.

    Parameters
    ----------
    result : Result
        From `nmf` or `transform`, with a history. Its restarts, if there are any, are drawn thin behind it.
    label : str, optional
        A name for the run. Draw several runs on one `ax` to compare them: each gets its own hue, stroke and marker,
        and those with a label stand in a legend.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        The vertical axis is logarithmic where an objective fell by a factor of ten or more. Zero, which a perfect fit
        reaches, has a place at its end.

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
    ax = new_axes(ax)
    before = sum(1 for drawn in ax.lines if drawn.get_gid() == RUN)
    for other in () if result.restarts is None else result.restarts.history:
        ax.plot(range(len(other)), other, gid=RESTART, color="0.6", linewidth=0.6, zorder=1)
    ax.plot(range(len(history)), history, label=label, gid=RUN, zorder=3, **line(before))
    drawn = {gid: [one.get_ydata() for one in ax.lines if one.get_gid() == gid] for gid in (RUN, RESTART)}
    if any(falls_far(run) for run in drawn[RUN]):
        logarithmic(ax, itertools.chain(*drawn[RUN], *drawn[RESTART]))
    ax.xaxis.get_major_locator().set_params(integer=True)
    title = "" if before else f"{result.n_iter} iterations, beta {result.beta:g}"
    ax.set(xlabel="check (0 is the start)", ylabel="objective", title=title)
    if label is not None:
        ax.legend(frameon=False)
    return ax
