"""W as a heat map: a strip for each component, in which every row of V has its place, sorted by what leads in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nmf_xp.result.report import images

if TYPE_CHECKING:
    from nmf_xp.files import HostArray
    from nmf_xp.result.report.parts import Part

CELLS = 400  # places of a strip


def loadings(parts: list[Part]) -> str:
    """The strips, beside each how many rows its component leads in."""
    shares = np.stack([part.rows for part in parts])  # (r, m)
    leads, order = sorted_rows(shares)
    strips = cells(shares[:, order])
    count = np.bincount(leads[leads >= 0], minlength=len(parts))
    m = shares.shape[1]
    high = float(strips.max()) or 1.0
    lines = "".join(
        f'<tr><th scope="row">{part.name}</th><td><img class="strip shades" alt="H[{part.number}] in the rows of V" '
        f'src="{images.grey(strip[None, :], high)}"></td><td>{led}</td></tr>'
        for part, strip, led in zip(parts, strips, count.tolist(), strict=True)
    )
    heads = ["component", f"the {m} rows of V, sorted", "leads in"]
    head = "".join(f'<th scope="col">{text}</th>' for text in heads)
    means = "" if strips.shape[1] == m else f" A place is the mean of some of the {m} rows."
    words = (
        "What each row of V is made of: W, with each row in shares of its own sum. A row has the same place in every "
        f"strip. First come the rows in which the first component leads, from its largest share to its least.{means}"
    )
    scale = f'<div class="rows quiet small">{images.scale("0 %", "grey", f"{100 * high:.0f} % of a row")}</div>'
    table = f'<table class="loadings"><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>'
    return f'<h2>Rows</h2><p class="quiet">{words}</p>{table}{scale}'


def sorted_rows(shares: HostArray) -> tuple[HostArray, HostArray]:
    """The component that leads in each row, -1 where the model is zero, and the rows' order; `shares` is (r, m)."""
    largest = shares.max(axis=0)
    leads = np.where(largest > 0, shares.argmax(axis=0), -1)
    last = np.where(leads < 0, len(shares), leads)
    return leads, np.lexsort((-largest, last))


def cells(shares: HostArray) -> HostArray:
    """The means of neighbouring columns, so that there are no more than there is room for."""
    m = shares.shape[1]
    starts = np.arange(min(m, CELLS)) * m // min(m, CELLS)
    return np.add.reduceat(shares, starts, axis=1) / np.diff([*starts, m])
