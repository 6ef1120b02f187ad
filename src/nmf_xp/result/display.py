"""How a result shows itself: rows of text for a terminal, HTML for a notebook. Nothing is loaded from anywhere."""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING, Any

from nmf_xp.divergences import BETA_LOSSES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


NAME_OF_LOSS = {beta: name for name, beta in BETA_LOSSES.items()}


def loss_name(beta: float) -> str:
    """The divergence in words."""
    return f"{NAME_OF_LOSS[beta]} (beta {beta:g})" if beta in NAME_OF_LOSS else f"beta {beta:g}"


def name_of(result: Any) -> str:
    """The loss of a result in words."""
    if result.noise is not None:
        return str(result.noise)
    if result.robust is None:
        return loss_name(result.beta)
    what = loss_name(result.beta) if result.robust.of == "entries" else f"the {loss_name(result.beta)} of rows"
    return f"{result.robust.phi} of {what}, scale {result.robust.scale:.4g}"


def rows(result: Any) -> dict[str, str]:
    """What there is to say of a `Result` whose numbers can be read: names and values."""
    *stack, m, r = result.W.shape
    n = result.H.shape[-1]
    said = {
        "matrix": f"{len(result.status)} matrices, each {m} x {n}" if stack else f"{m} x {n}",
        "components": str(r),
        "loss": name_of(result),
        "solver": result.solver,
        "iterations": _range(result.n_iter, "d"),
        "ended": _ended(result),
        "divergence": _range(result.divergence, ".6g"),
        "objective": _range(result.objective, ".6g"),
        "KKT residual": _range(result.kkt_residual, ".2g"),
    }
    if result.batch_labels is not None:
        said["batches"] = str(len(result.batch_labels))
    if said["objective"] == said["divergence"]:  # no penalty
        del said["objective"]
    if result.restarts is not None:
        said["restarts"] = f"the best of {len(result.restarts.status)}"
    return said


def text(said: dict[str, str]) -> str:
    """Names and values as lines."""
    return "\n".join(f"{name:<13} {value}" for name, value in said.items())


def notebook(said: dict[str, str], history: Any = ()) -> str:
    """Names, values and the falling objective as HTML, in whatever colour the notebook writes text."""
    cell = "text-align:left;padding:0.1em 0.8em 0.1em 0"
    lines = "".join(
        f'<tr style="background:none"><th scope="row" style="{cell};font-weight:normal;opacity:0.75">'
        f'{html.escape(name)}</th><td style="{cell}">{html.escape(value)}</td></tr>'
        for name, value in said.items()
    )
    chart = ""
    if len(history) > 1 and isinstance(history[0], float):
        label = f"The objective at {len(history)} checks: from {history[0]:.6g} to {history[-1]:.6g}"
        chart = (
            f'<div style="margin-left:1em">{sparkline(history, label, log=falls_far(history))}'
            '<div style="opacity:0.75">objective</div></div>'
        )
    table = f'<table style="border:none;margin:0;color:inherit"><tbody>{lines}</tbody></table>'
    return f'<div style="display:flex;flex-wrap:wrap;align-items:flex-end">{table}{chart}</div>'


def columns(cells: dict[str, list[str]], words: str) -> str:
    """A table by its columns, and a sentence below it, as HTML."""
    style = "text-align:right;padding:0.1em 0.8em 0.1em 0"
    heads = "".join(f'<th scope="col" style="{style}">{html.escape(name)}</th>' for name in cells)
    lines = "".join(
        '<tr style="background:none">' + "".join(f'<td style="{style}">{html.escape(x)}</td>' for x in row) + "</tr>"
        for row in zip(*cells.values(), strict=True)
    )
    rows = f"<thead><tr>{heads}</tr></thead><tbody>{lines}</tbody>"
    table = f'<table style="border:none;margin:0;color:inherit">{rows}</table>'
    return f"<div>{table}<div>{html.escape(words)}</div></div>"


def falls_far(values: Iterable[float]) -> bool:
    """Whether a logarithmic axis shows it better: down to a tenth of the largest or less, zero included."""
    finite = [y for y in values if math.isfinite(y)]
    return bool(finite) and 0 < max(finite) and min(finite) <= max(finite) / 10


def decades(values: Iterable[float]) -> tuple[int, float]:
    """The power of ten with which a logarithmic axis begins, and how many powers of ten is the place of zero.

    Zero lies a tenth of the axis, and one power at least, below the first power at or under every value above zero.
    """
    positive = [y for y in values if 0 < y < math.inf]
    first = math.floor(math.log10(min(positive)))
    return first, first - max(1.0, (math.log10(max(positive)) - first) / 10)


def exponents(values: Sequence[float]) -> list[float]:
    """Decimal logarithms. Zero, or what rounding leaves below it, has the place that `decades` gives it."""
    zero = decades(values)[1]
    return [zero if y <= 0 else math.log10(y) for y in values]


def sparkline(values: Iterable[float], label: str, *, log: bool = False, size: tuple[int, int] = (180, 56)) -> str:
    """A line without axes as inline SVG, which fills its box from the least value to the largest that is finite."""
    heights = exponents(list(values)) if log else list(values)
    finite = [y for y in heights if math.isfinite(y)]
    width, height = size
    low, span = min(finite, default=0.0), (max(finite, default=0.0) - min(finite, default=0.0)) or 1.0
    step = (width - 4) / max(1, len(heights) - 1)
    points = " ".join(
        f"{2 + step * i:.1f},{2 + (height - 4) * (1 - (y - low) / span):.1f}"
        for i, y in enumerate(heights)
        if math.isfinite(y)
    )
    return (
        f'<svg role="img" aria-label="{html.escape(label)}" width="{width}" '
        f'height="{height}" viewBox="0 0 {width} {height}" preserveAspectRatio="none">'
        f"<title>{html.escape(label)}</title>"
        f'<polyline points="{points}" fill="none" stroke="currentColor" stroke-width="1.5" '
        'vector-effect="non-scaling-stroke"/></svg>'
    )


def _range(values: Any, how: str) -> str:
    """A number, or the least and the largest of a stack."""
    if not getattr(values, "ndim", 0):
        return format(values, how)
    if not values.size:
        return "none"
    low, high = format(values.min().item(), how), format(values.max().item(), how)
    return low if low == high else f"{low} to {high}"


def _ended(result: Any) -> str:
    """The sentence of one run, or how often each status occurs in a stack."""
    status = result.status
    if not isinstance(status, tuple):
        return str(result.message)
    found = {one.name: status.count(one) for one in status}
    return ", ".join(f"{count} {name}" for name, count in found.items())
