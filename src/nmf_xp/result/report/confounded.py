"""The components in the batches: what the effects change of each, and which cannot be told from an effect."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nmf_xp.problem import confounding
from nmf_xp.result.report.markup import name
from nmf_xp.result.report.parts import parts_of

if TYPE_CHECKING:
    from nmf_xp.result.report.stored import Stored

MOST = 200  # components in the table
WORDS = (
    "A component is changed by 0 % where all effects are 1, and by 100 % where they leave nothing of it in place. Its "
    "largest batch is that which holds most of it. "
)
FOUND = (
    "A batch is marked as the only one of a component that lives nowhere else. Nothing in the data tells whether such "
    "a component is an effect of the batch or a difference of its rows."
)
NONE = "No component lives in one batch only."


def components_in_batches(stored: Stored) -> str:
    """A table with a line for each component; nothing where it is not known what the batches hold."""
    loadings, effects, labels = stored.batch_loadings, stored.batch_effects, stored.batch_labels
    if loadings is None or effects is None or not labels:
        return ""
    factors = tuple(x.astype(float) for x in (loadings, stored.H, effects))
    held, alone, changed = (f(*factors) for f in (confounding.held, confounding.alone, confounding.moved))
    parts = parts_of(stored)
    lines = "".join(
        _line(
            part.name,
            labels[int(held[:, part.number].argmax())],
            float(held[:, part.number].max()),
            float(changed[part.number]),
            alone=bool(alone[:, part.number].any()),
        )
        for part in parts[:MOST]
    )
    more = f" The first {MOST} of {len(parts)} components are shown." if len(parts) > MOST else ""
    heads = ("component", "changed by the effects", "largest batch", "its share")
    head = "".join(f'<th scope="col">{text}</th>' for text in heads)
    words = f"{WORDS}{FOUND if np.any(alone) else NONE}{more}"
    table = f'<table class="batches"><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>'
    return f'<h2>Components in the batches</h2><p class="quiet">{words}</p><div class="wide">{table}</div>'


def _line(part: str, label: str, share: float, changed: float, *, alone: bool) -> str:
    where = f"<b>only</b> {name(label)}" if alone else name(label)
    cells = (f"{changed:.1%}", where, f"{share:.1%}")
    return f'<tr><th scope="row">{part}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
