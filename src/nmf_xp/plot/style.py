"""What all pictures share: where to draw, and colours that everybody can tell apart."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.arrays import transfer
from nmf_xp.data import naming, tables
from nmf_xp.result import Result
from nmf_xp.result.display import decades

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np

    from nmf_xp.arrays.typing import Array

# Okabe & Ito (2008), "Color universal design"; their yellow is too light for a line on white.
HUES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")
STROKES = ("solid", "dashed", "dashdot", "dotted", (0, (6, 1, 1, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v")
MAGNITUDE = "gray_r"  # of even steps in lightness, dark for large
DIFFERENCE = "PuOr_r"  # purple below zero, orange above
UNOBSERVED = "#CFE8F7"  # light blue, which neither of the two has


def line(i: int) -> dict[str, Any]:
    """How the i-th line is drawn: hue, stroke and marker together first repeat after 30 lines."""
    return {
        "color": HUES[i % len(HUES)],
        "linestyle": STROKES[i % len(STROKES)],
        "marker": MARKERS[i % len(MARKERS)],
        "markersize": 4,
    }


def ink() -> str:
    """The colour of text in the user's style."""
    return str(_pyplot().rcParams["text.color"])


def new_axes(ax: Any) -> Any:
    """The axes that were given, or those of a new figure."""
    return _pyplot().subplots(layout="constrained")[1] if ax is None else ax


def logarithmic(ax: Any, values: Iterable[float]) -> None:
    """Make the vertical axis logarithmic, with a place for zero where a value is not above it."""
    drawn = list(values)
    if min(drawn) > 0:
        ax.set_yscale("log")
        return
    first, zero = decades(drawn)
    ax.set_yscale("symlog", linthresh=max(10.0**first, sys.float_info.min), linscale=first - zero)


def several_axes(ax: Any, count: int, *, columns: int, size: tuple[float, float]) -> np.ndarray[Any, Any]:
    """As many axes as that, from the user or in a new figure, whose axes have a size in inches."""
    import numpy as np

    if ax is not None:
        given = np.asarray(ax, dtype=object).ravel()
        if given.size != count:
            msg = f"`ax` must hold {count} axes, got {given.size}"
            raise ValueError(msg)
        return given
    rows = -(-count // columns)
    columns = min(columns, count)
    figsize = (columns * size[0], rows * size[1])
    grid = _pyplot().subplots(rows, columns, figsize=figsize, layout="constrained", squeeze=False)[1].ravel()
    for unused in grid[count:]:
        unused.remove()
    return grid[:count]


class Drawn(NamedTuple):
    """Components on the host, (r, n), and the names of V's columns and of the components as text, if they have any."""

    host: np.ndarray[Any, Any]
    columns: tuple[str, ...] | None
    components: tuple[str, ...] | None

    @property
    def called(self) -> tuple[str, ...]:
        """The components by their names, or as rows of H."""
        return self.components or tuple(f"H[{k}]" for k in range(len(self.host)))

    @property
    def positions(self) -> np.ndarray[Any, Any] | None:
        """The names of the columns as numbers, such as wavelengths, where they all are finite ones."""
        import numpy as np

        try:
            found = np.asarray([float(name) for name in self.columns or ()])
        except ValueError:
            return None
        return found if found.size and np.isfinite(found).all() else None


def drawn(H: Any) -> Drawn:
    """The components of a Result, a table or an array."""
    if isinstance(H, Result):
        names = H.column_names, H.component_names
        H = H.H
    else:
        H, found = tables.arrived("H", H)
        names = found.columns, found.rows
    columns, components = (None if x is None else tuple(map(naming.text, x)) for x in names)
    return Drawn(host_components(H), columns, components)


def plain(name: str) -> str:
    """A name as text: without the dollars that matplotlib would read as mathematics, and no longer than a margin."""
    short = name if len(name) <= 24 else name[:23] + "…"
    return short.replace("$", r"\$")


def host_components(H: Array) -> np.ndarray[Any, Any]:
    """H on the host, checked to be one matrix."""
    host = transfer.to_host(H)
    if host.ndim != 2:
        msg = f"`H` must be a matrix (r, n), got shape {host.shape}; draw the members of a stack one by one"
        raise ValueError(msg)
    return host


def relative(host: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Each row in units of its largest entry."""
    import numpy as np

    largest = host.max(axis=1, keepdims=True)
    return host / np.where(largest > 0, largest, 1)


def _pyplot() -> Any:
    try:
        return importlib.import_module("matplotlib.pyplot")
    except ImportError as error:
        msg = 'plots need matplotlib: pip install "nmf_xp[plot]"'
        raise ImportError(msg) from error
