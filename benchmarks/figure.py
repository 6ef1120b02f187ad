"""The plot: how many times faster than scikit-learn each side reaches its divergence, a dot for each data set."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from benchmarks.protocol import LOSSES, NOT_INSTALLED
from benchmarks.tables import Row, _distinct, _targets, _title

if TYPE_CHECKING:
    from pathlib import Path

# Okabe & Ito's colours, which readers with any colour vision tell apart; the shapes say the same again.
OURS = [("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "D"), ("#CC79A7", "^"), ("#E69F00", "v"), ("#56B4E9", "P")]
OTHERS = ["o", "s", "D", "^", "v", "P", "X", "*"]


def draw(found: dict[str, Any], path: Path) -> bool:
    """Write the plot, if there is anything to be seen and matplotlib is there."""
    rows = [row for row in found["rows"] if row["view"] == "time-to" and row.get("error") != NOT_INSTALLED]
    targets = _targets(rows)
    panels = [(a, b) for a in LOSSES for b in ("dense", "csr")]
    panels = [(a, b) for a, b in panels if any(row["loss"] == a and row["input"] == b for row in rows)]
    if not targets:
        return False
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    styles = _styles(_distinct(rows, "side"))
    heights = [_distinct([row for row in rows if (row["loss"], row["input"]) == panel], "data") for panel in panels]
    row = max(0.42, 0.055 * len(styles))  # inches: the dots of a data set are one below the other
    size = (11, 1.2 + 0.25 * (len(styles) // 5 + 1) + sum(0.75 + row * len(data) for data in heights))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(
        len(panels), len(targets), squeeze=False, sharex=True, height_ratios=[1 + len(data) for data in heights]
    )
    left = _leftmost(rows)
    for (loss, kind), data, line in zip(panels, heights, grid, strict=True):
        for target, axes in zip(targets, line, strict=True):
            chosen = [row for row in rows if (row["loss"], row["input"]) == (loss, kind)]
            _panel(axes, [row for row in chosen if row["target"] == target], data, styles, left)
            axes.set_title(f"{_title(loss)}, {kind}, to iteration {target}", fontsize=9)
            axes.set_yticks(range(len(data)), data if axes is line[0] else [""] * len(data), fontsize=9)
    figure.supxlabel(
        "times faster than scikit-learn (geometric mean over the seeds); a dot on the dashed line at the left: failed",
        fontsize=9,
    )
    handles = [_dot(grid[0, 0], math.nan, math.nan, style) for style in styles.values()]
    figure.legend(handles, list(styles), loc="outside upper center", ncols=5, fontsize=8, frameon=False)
    figure.savefig(path, dpi=150)
    return True


def _styles(sides: list[str]) -> dict[str, dict[str, Any]]:
    """nmf_xp filled and in colour, the others hollow and grey."""
    ours = [x for x in sides if x.startswith("nmf_xp")]
    others = [x for x in sides if x not in ours]
    styles: dict[str, dict[str, Any]] = {}
    for i, x in enumerate(ours):
        colour, shape = OURS[i % len(OURS)]
        styles[x] = {"marker": shape, "color": colour, "markeredgecolor": "white", "zorder": 4}
    for i, x in enumerate(others):
        shape = OTHERS[i % len(OTHERS)]
        styles[x] = {"marker": shape, "color": "none", "markeredgecolor": "0.45", "zorder": 3}
    return styles


def _leftmost(rows: list[Row]) -> float:
    """Where failures are drawn: left of all that did not fail."""
    return min((row["times_faster"] for row in rows if "error" not in row), default=0.5) / 2


def _panel(axes: Any, rows: list[Row], data: list[str], styles: dict[str, dict[str, Any]], left: float) -> None:
    axes.set_xscale("log")
    axes.axvline(1, color="0.3", linewidth=1)
    axes.axvline(left, color="0.6", linewidth=0.8, linestyle="--")
    spread = 0.7 / max(1, len(styles) - 1)
    for place, name in enumerate(data):
        if place % 2:
            axes.axhspan(place - 0.5, place + 0.5, color="0.95", zorder=0)
        for i, (side, style) in enumerate(styles.items()):
            case = [row for row in rows if row["data"] == name and row["side"] == side]
            y = place - 0.35 + spread * i
            values = [row["times_faster"] for row in case if "error" not in row]
            if values:
                _dot(axes, math.exp(sum(map(math.log, values)) / len(values)), y, style)
            if len(values) < len(case):
                _dot(axes, left, y, style)
    axes.set_ylim(len(data) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    axes.tick_params(axis="x", which="minor", labelbottom=False)
    axes.tick_params(axis="x", labelsize=8)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _dot(axes: Any, x: float, y: float, style: dict[str, Any]) -> Any:
    return axes.plot([x], [y], linestyle="none", markersize=5.5, markeredgewidth=0.9, **style)[0]
