"""The batches: how many rows are in each, and the columns on which it has the largest effects."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nmf_xp.result.report import charts
from nmf_xp.result.report.markup import called, name

if TYPE_CHECKING:
    from nmf_xp.files import HostArray
    from nmf_xp.result.report.stored import Stored

CARDS = 24  # batches whose columns are shown
LEAST = 2.0**-100  # an effect below it stands for none: nothing was counted


def batches(stored: Stored, *, n_top: int) -> str:
    """A table of the batches and a card for each, with bars of one scale; nothing for a model without batches."""
    effects, labels = stored.batch_effects, stored.batch_labels
    if effects is None or labels is None or not labels:
        return ""
    seen = effects > LEAST
    with np.errstate(divide="ignore"):
        steps = np.where(seen, np.log2(effects, dtype=float), 0.0)
    longest = float(np.abs(steps).max()) or 1.0
    cards = "".join(
        _card(stored, label, row, longest, n_top=n_top)
        for label, row in zip(labels[:CARDS], steps[:CARDS], strict=True)
    )
    more = f" The first {CARDS} of {len(labels)} batches are shown." if len(labels) > CARDS else ""
    words = (
        "The model of a row is W @ H times the effects of its batch, a factor for each column. Shown is log2 of it: 1 "
        "is twice as many as in an average row, -1 half as many. All bars have one scale, and grey ones are below 0. "
        "Where counts are few, effects are large by chance."
    )
    table = _table(stored, labels, steps, seen)
    return f'<h2>Batches</h2><p class="quiet">{words}{more}</p>{table}<div class="cards">{cards}</div>'


def _table(stored: Stored, labels: list[str], steps: HostArray, seen: HostArray) -> str:
    """A line for each batch: its share of the rows where that is known, how large its effects are, what it lacks."""
    shares = _shares(stored, len(labels))
    heads = ["batch", *(["share of the rows"] if shares else []), "median of |log2|", "columns without counts"]
    cells = [
        [
            *([f"{shares[i]:.1%}"] if shares else []),
            f"{float(np.median(np.abs(steps[i][seen[i]]))) if seen[i].any() else 0.0:.2f}",
            str(int((~seen[i]).sum())),
        ]
        for i in range(len(labels))
    ]
    head = "".join(f'<th scope="col">{text}</th>' for text in heads)
    lines = "".join(
        f'<tr><th scope="row">{name(label)}</th>{"".join(f"<td>{cell}</td>" for cell in row)}</tr>'
        for label, row in zip(labels, cells, strict=True)
    )
    table = f'<table class="batches"><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>'
    return f'<div class="wide">{table}</div>'


def _card(stored: Stored, label: str, steps: HostArray, longest: float, *, n_top: int) -> str:
    """The columns with the largest effects of a batch."""
    top = [j for j in np.argsort(-np.abs(steps), kind="stable")[:n_top].tolist() if steps[j]]
    lines = "".join(
        f"<tr><td>{called(stored.column_names, j, 'column')}</td>"
        f"<td>{charts.bar(abs(steps[j]) / longest, 'less' if steps[j] < 0 else '')}</td><td>{steps[j]:+.2f}</td></tr>"
        for j in top
    )
    return (
        f'<section class="card"><header><h3>{name(label)}</h3></header>'
        f'<table class="features"><tbody>{lines}</tbody></table></section>'
    )


def _shares(stored: Stored, count: int) -> list[float]:
    """The share of the rows in each batch; empty where it is not known."""
    shares = stored.series("batch_shares")
    return shares if len(shares) == count and all(0 <= share <= 1 for share in shares) else []
