"""Components as lines over the columns of V, and as the columns that weigh most in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nmf_xp.arrays import transfer
from nmf_xp.plot.style import HUES, drawn, ink, new_axes, plain, relative, several_axes

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

HEIGHT = 0.85  # of a spectrum, where one follows the other in steps of 1


def spectra(H: Any, x: Any = None, *, names: Sequence[str] | None = None, ax: Any = None) -> Any:
    """Draw the components, the rows of H, as lines one above the other, the first at the top.

    Parameters
    ----------
    H : Result, or array or table of shape (r, n)
        Components; each is drawn relative to its own largest entry.
    x : array, shape (n,), optional
        Where the columns of V stand on the horizontal axis, such as wavelengths; by default their names where these are
        numbers, else their places.
    names : sequence of str, optional
        A name for each component; by default those of the result.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        Every line carries its name on the vertical axis, so none needs to be told by its colour.

    Raises
    ------
    ValueError
        H is no matrix, or there is not one position for each column or not one name for each component.
    ImportError
        matplotlib is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> from nmf_xp import plot
    >>> axes = plot.spectra(np.eye(3, 50), np.linspace(400, 700, 50))  # doctest: +SKIP
    """
    import numpy as np

    given = drawn(H)
    host = given.host
    r, n = host.shape
    known = given.positions if x is None else transfer.to_host(x)
    positions = np.arange(n) if known is None else known
    if positions.shape != (n,):
        msg = f"`x` must have shape ({n},), one position for each column of `H`, got {positions.shape}"
        raise ValueError(msg)
    _check_names("names", names, r, "component")
    ax = new_axes(ax)
    for k, row in enumerate(relative(host)):
        base, color = r - 1 - k, HUES[k % len(HUES)]
        ax.fill_between(positions, base, base + HEIGHT * row, color=color, alpha=0.25, linewidth=0)
        ax.plot(positions, base + HEIGHT * row, color=color, linewidth=1.2)
    ax.set_yticks(range(r - 1, -1, -1), [plain(str(name)) for name in names or given.called])
    ax.set(xlabel="column of V" if known is None else "", ylim=(-0.1, r), xlim=(positions.min(), positions.max()))
    ax.tick_params(axis="y", length=0)
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    return ax


def top_features(
    H: Any, names: Sequence[str] | None = None, *, n_top: int = 10, columns: int = 4, ax: Any = None
) -> np.ndarray[Any, Any]:
    """Draw the columns of V that weigh most in each component, such as the words of a topic.

    Parameters
    ----------
    H : Result, or array or table of shape (r, n)
        Components.
    names : sequence of str, optional
        A name for each column of V; by default those of the result, or their numbers.
    n_top : int, default 10
        How many columns, at most n.
    columns : int, default 4
        Components side by side in a new figure.
    ax : sequence of matplotlib.axes.Axes, optional
        Where to draw, one for each component; by default a new figure.

    Returns
    -------
    numpy.ndarray of matplotlib.axes.Axes, shape (r,)
        Bars, the longest at the top. Their lengths are the entries of H.

    Raises
    ------
    ValueError
        H is no matrix, there is not one name for each column or not one of `ax` for each component, or `n_top` or
        `columns` is less than 1.
    ImportError
        matplotlib is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> from nmf_xp import plot
    >>> axes = plot.top_features(np.eye(2, 3), ["oil", "wheat", "bank"], n_top=2)  # doctest: +SKIP
    """
    import numpy as np

    given = drawn(H)
    host, names = given.host, given.columns if names is None else names
    r, n = host.shape
    _check_names("names", names, n, "column of `H`")
    for name, value in (("n_top", n_top), ("columns", columns)):
        if value < 1:
            msg = f"`{name}` must be at least 1, got {value}"
            raise ValueError(msg)
    n_top = min(n_top, n)
    grid = several_axes(ax, r, columns=columns, size=(2.4, 0.6 + 0.21 * n_top))
    for k, (row, panel) in enumerate(zip(host, grid, strict=True)):
        top = np.argsort(-row, kind="stable")[:n_top]
        panel.barh(range(n_top), row[top], color=HUES[0], height=0.7)
        labels = [plain(str(j) if names is None else str(names[j])) for j in top]
        panel.set_yticks(range(n_top), labels, fontsize="small")
        panel.set_title(plain(given.called[k]), fontsize="medium", loc="left", color=ink())
        panel.set(ylim=(n_top - 0.4, -0.6), xlim=(0, None))
        panel.tick_params(axis="y", length=0)
        panel.tick_params(axis="x", labelsize="x-small")
        panel.locator_params(axis="x", nbins=3)
        for side in ("top", "right"):
            panel.spines[side].set_visible(False)
    return grid


def _check_names(argument: str, names: Sequence[str] | None, count: int, each: str) -> None:
    if names is not None and len(names) != count:
        msg = f"`{argument}` must hold {count}, one for each {each}, got {len(names)}"
        raise ValueError(msg)
