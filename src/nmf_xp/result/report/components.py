"""A card for each component: its share of the model, its picture, its columns, and the rows that have most of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nmf_xp.result.display import sparkline
from nmf_xp.result.report import charts, images
from nmf_xp.result.report.markup import called

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nmf_xp.files import HostArray
    from nmf_xp.result.report.parts import Part
    from nmf_xp.result.report.stored import Stored

POINTS = 240  # of a component's profile


def components(stored: Stored, parts: list[Part], *, n_top: int, shape: tuple[int, int] | None) -> str:
    """All cards, with bars of one scale."""
    longest = max(float(part.columns.max()) for part in parts) or 1.0
    axis = in_order(stored.column_names)
    cards = [_card(stored, part, longest, n_top=n_top, shape=shape, axis=axis) for part in parts]
    words = (
        "The largest share of W @ H comes first; the number of a component is its row in H, from 0. "
        "The shares that the columns of V have of one component sum to 100 %, and all bars have one scale."
    )
    return f'<h2>Components</h2><p class="quiet">{words}</p><div class="cards">{"".join(cards)}</div>'


def in_order(names: list[str] | None) -> bool:
    """Whether the columns are places on an axis, such as wavelengths or years: numbers that rise or fall."""
    try:
        steps = np.diff([float(text) for text in names or ()])
    except ValueError:
        return False
    return len(steps) > 0 and bool((steps > 0).all() or (steps < 0).all())


def _card(stored: Stored, part: Part, longest: float, *, n_top: int, shape: tuple[int, int] | None, axis: bool) -> str:
    n, h = len(part.columns), part.columns
    top = [j for j in np.argsort(-h, kind="stable")[:n_top].tolist() if h[j] > 0]
    lines = "".join(
        f"<tr><td>{called(stored.column_names, j, 'column')}</td><td>{charts.bar(h[j] / longest)}</td>"
        f"<td>{h[j]:.1%}</td></tr>"
        for j in top
    )
    picture = ""
    if shape is not None:
        uri = images.grey(h.reshape(shape), float(h.max()))
        picture = f'<img class="part shades" alt="H[{part.number}] as an image" src="{uri}">'
    elif n > n_top:
        label = f"H[{part.number}] over the {n} columns of V, largest in column {int(h.argmax())}"
        heights = profile(h)
        picture = f'<div class="profile">{sparkline(heights, label) if axis else charts.spikes(heights, label)}</div>'
    rows = np.argsort(-stored.W[:, part.number], kind="stable")[: min(5, n_top)]
    most = [called(stored.row_names, i, "row") for i in rows.tolist() if stored.W[i, part.number] > 0]
    listed = ", ".join(most) if stored.row_names is None else f"<ul>{''.join(f'<li>{row}</li>' for row in most)}</ul>"
    return (
        f'<section class="card"><header><h3>{part.name}</h3>'
        f'<span class="quiet small">{part.share:.1%} of the model</span></header>{charts.bar(part.share, "share")}'
        f'{picture}<table class="features"><tbody>{lines}</tbody></table>'
        + (f'<div class="small"><span class="quiet">most of it in</span> {listed}</div>' if most else "")
        + ("" if part.found is None else f'<div class="small quiet">other starts with the same: {part.found}</div>')
        + "</section>"
    )


def profile(h: HostArray) -> Sequence[float]:
    """A component over the columns, as the largest of neighbours where there are many."""
    count = min(len(h), POINTS)
    return np.maximum.reduceat(h, np.arange(count) * len(h) // count).tolist()
