"""Charts as inline SVG, drawn in the page's own colours and wide enough to be read on a phone."""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING

from nmf_xp.result.display import decades, exponents

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WIDTH, HEIGHT = 400, 220
LEFT, RIGHT, TOP, BOTTOM = 62, 12, 28, 40  # margins
BAR_HEIGHT = 56


def line_chart(x: Sequence[float], y: Sequence[float], *, x_label: str, y_label: str, log: bool) -> str:
    """A line with a dot at each of its points, on two axes. Zero is at the bottom of a logarithmic one."""
    label = f"{y_label} from {y[0]:.6g} to {y[-1]:.6g} over {len(y)} points"
    if log:
        zero = decades(y)[1]
        names = {zero: "0"} if min(y) <= 0 else {}
        names |= {k: _short(10.0**k) if -5 < k < 6 else f"1e{k}" for k in powers_of_ten(y)}
        y = exponents(y)
    else:
        names = {t: _short(t) for t in ticks(min(y), max(y))}
    low, high = min(*y, *names), max(*y, *names)
    place_x = _scale(min(x), max(x), LEFT, WIDTH - RIGHT)
    place_y = _scale(low, high, HEIGHT - BOTTOM, TOP)
    points = [(place_x(a), place_y(b)) for a, b in zip(x, y, strict=True)]
    parts = [
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{place_y(t):.1f}" y2="{place_y(t):.1f}"/>'
        f'<text x="{LEFT - 6}" y="{place_y(t) + 4:.1f}" text-anchor="end">{text}</text>'
        for t, text in names.items()
    ]
    parts += [
        f'<text x="{place_x(t):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{_short(t)}</text>'
        for t in ticks(min(x), max(x), whole=True)
        if min(x) <= t <= max(x)
    ]
    parts.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{html.escape(x_label)}</text>'
    )
    parts.append(f'<text x="4" y="13">{html.escape(y_label)}</text>')
    joined = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
    parts.append(f'<polyline class="line" points="{joined}"/>')
    if len(points) <= 60:
        parts += [f'<circle class="dot" cx="{a:.1f}" cy="{b:.1f}" r="2.5"/>' for a, b in points]
    return _svg("".join(parts), label, HEIGHT)


def dot_strip(values: Sequence[float], *, label: str) -> str:
    """Values as dots along one axis; the least is filled."""
    low, high = min(values), max(values)
    place = _scale(low, high, LEFT / 2, WIDTH - LEFT / 2)
    dots = [
        f'<circle class="{"dot" if i == 0 else "ring"}" cx="{place(v):.1f}" cy="20" r="5"/>'
        for i, v in reversed(list(enumerate(sorted(values))))
    ]
    texts = [f'<text x="{place(v):.1f}" y="48" text-anchor="middle">{v:.6g}</text>' for v in sorted({low, high})]
    axis = f'<line class="grid" x1="{LEFT / 2}" x2="{WIDTH - LEFT / 2}" y1="20" y2="20"/>'
    return _svg(axis + "".join(dots + texts), label, 56)


def bar(share: float, kind: str = "") -> str:
    """A bar of that share of its box, beside a number that says it."""
    width = f"{100 * min(1.0, max(0.0, share)):.1f}%"
    return f'<svg class="bar {kind}" aria-hidden="true"><rect width="{width}" height="100%"/></svg>'


def spikes(heights: Sequence[float], label: str) -> str:
    """A bar for each of many numbers, side by side: for what has no order, through which no line may lead."""
    high = max(heights) or 1.0
    steps = "".join(
        f"M{i + 0.5:g} {BAR_HEIGHT}V{BAR_HEIGHT * (1 - y / high):.1f}" for i, y in enumerate(heights) if y > 0
    )
    return (
        f'<svg class="spikes" role="img" aria-label="{html.escape(label)}" viewBox="0 0 {len(heights)} {BAR_HEIGHT}" '
        f'preserveAspectRatio="none"><title>{html.escape(label)}</title>'
        f'<path d="{steps}" fill="none" stroke="currentColor" stroke-width="0.8"/></svg>'
    )


def ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    """A few round numbers that span the range."""
    if not high > low:
        return [low]
    third = high / 3 - low / 3  # their difference may be beyond the numbers
    step = 10.0 ** math.floor(math.log10(third) if third > 0 else -323)
    step *= next((f for f in (1, 2, 5) if third / (f * step) <= 5 / 3), 10)
    step = max(1.0, round(step)) if whole else step
    first, last = math.floor(low / step), math.ceil(high / step)
    return [t for t in (k * step for k in range(first, last + 1)) if math.isfinite(t)]


def powers_of_ten(values: Sequence[float]) -> list[int]:
    """The exponents of powers of ten, every so many, that span the values above zero."""
    first, last = decades(values)[0], math.ceil(math.log10(max(values)))
    every = max(1, -(-(last - first) // 5))
    return list(range(first, last + every, every))


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """From numbers to places on the page."""
    if not high > low:
        return lambda _: (start + end) / 2
    half = high / 2 - low / 2  # their difference may be beyond the numbers
    if half == 0:  # of the two least numbers
        return lambda v: start if v <= low else end
    return lambda v: start + (v / 2 - low / 2) / half * (end - start)


def _short(value: float) -> str:
    return f"{value:.6g}".replace("e+0", "e").replace("e+", "e").replace("e-0", "e-")


def _svg(inside: str, label: str, height: int) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{html.escape(label)}">'
        f"<title>{html.escape(label)}</title>{inside}</svg>"
    )
