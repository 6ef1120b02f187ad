"""The page: its head, its style, and the sections one after the other."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from typing import TYPE_CHECKING

import nmf_xp
from nmf_xp.arrays import precision
from nmf_xp.files import printable
from nmf_xp.result.report import sections
from nmf_xp.result.report.batches import batches
from nmf_xp.result.report.components import components
from nmf_xp.result.report.confounded import components_in_batches
from nmf_xp.result.report.features import SCRIPT, features
from nmf_xp.result.report.loadings import loadings
from nmf_xp.result.report.parts import parts_of

if TYPE_CHECKING:
    from nmf_xp.result.report.stored import Stored


STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --quiet: #57606a; --paper: #ffffff; --card: #f6f8fa;
  --edge: #d8dee4; --accent: #0072b2; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --quiet: #9da7b3; --paper: #0d1117; --card: #161b22; --edge: #30363d; --accent: #56b4e9; }
  .shades { filter: invert(1) hue-rotate(180deg); }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; max-width: 68rem; padding: 1rem; color: var(--ink); background: var(--paper);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0.5rem 0 0.25rem; }
h2 { font-size: 1.2rem; margin: 2.25rem 0 0.75rem; padding-bottom: 0.25rem; border-bottom: 1px solid var(--edge); }
h3 { font-size: 1rem; margin: 0; }
p { margin: 0.5rem 0; max-width: 46rem; }
.quiet, figcaption, th { color: var(--quiet); }
.small, figcaption { font-size: 0.875rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: 0.75rem; margin: 1rem 0; }
.tile, .card { background: var(--card); border: 1px solid var(--edge); border-radius: 0.5rem; padding: 0.75rem; }
.tile b { display: block; font-size: 1.35rem; font-weight: 600; line-height: 1.3; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 18rem), 1fr)); gap: 0.75rem; }
.card { display: flex; flex-direction: column; gap: 0.5rem; min-width: 0; }
.card header { display: flex; justify-content: space-between; gap: 0.5rem; align-items: baseline; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: 0.2rem 0.75rem 0.2rem 0; font-weight: normal; }
table.pairs { max-width: 46rem; }
table.pairs th { width: 11rem; }
table.pairs tr + tr { border-top: 1px solid var(--edge); }
table.features { font-size: 0.875rem; table-layout: fixed; }
table.features td:nth-child(1) { width: 46%; }
table.features td:nth-child(3) { width: 22%; text-align: right; padding-right: 0; font-variant-numeric: tabular-nums; }
svg { display: block; }
.chart { width: 100%; max-width: 30rem; height: auto; font: 12px system-ui, sans-serif; }
.chart text { fill: var(--ink); }
.chart .grid { stroke: var(--edge); }
.chart .line { fill: none; stroke: var(--accent); stroke-width: 2; stroke-linejoin: round; }
.chart .dot { fill: var(--accent); stroke: var(--paper); }
.chart .ring { fill: var(--paper); stroke: var(--accent); stroke-width: 1.5; }
.profile svg { width: 100%; height: 3.5rem; color: var(--accent); }
.bar { width: 100%; height: 0.8rem; margin-top: 0.25rem; }
.bar rect { fill: var(--accent); }
.less rect { fill: var(--quiet); }
table.batches { overflow-wrap: normal; font-size: 0.875rem; font-variant-numeric: tabular-nums; }
table.batches td, table.batches th { padding: 0.2rem 0.6rem; }
.wide + .cards { margin-top: 0.75rem; }
.share { height: 0.3rem; background: var(--edge); }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 15rem), 1fr)); gap: 1rem;
  margin-top: 1.25rem; }
figure { margin: 0 0 1rem; min-width: 0; }
.panels img { display: block; width: 100%; height: 17rem; border: 1px solid var(--edge); }
.scale { display: flex; align-items: center; gap: 0.5rem; }
.rows { max-width: 20rem; }
.scale img { flex: 1; height: 0.7rem; min-width: 3rem; border: 1px solid var(--edge); }
.card ul { margin: 0; padding-left: 1.1rem; }
.curves { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); gap: 0 1.5rem; }
table.loadings th:first-child { width: 7rem; }
table.loadings td:nth-child(n+3), table.loadings th:nth-child(n+3) { width: 4rem; padding-right: 0; text-align: right;
  font-variant-numeric: tabular-nums; }
table.loadings { table-layout: fixed; font-size: 0.875rem; }
table.loadings td, table.loadings th { vertical-align: middle; }
@media (max-width: 36rem) { table.loadings th:first-child { width: 4.5rem; }
  table.loadings td:nth-child(n+3), table.loadings th:nth-child(n+3) { width: 3rem; } }
.strip { display: block; width: 100%; height: 1.25rem; border: 1px solid var(--edge); }
.wide { overflow: auto; max-height: 32rem; border: 1px solid var(--edge); border-radius: 0.5rem; }
table.sortable { font-size: 0.875rem; font-variant-numeric: tabular-nums; }
table.sortable th, table.sortable td { padding: 0.2rem 0.6rem; text-align: right; }
table.sortable td { white-space: nowrap; }
table.sortable tr > :first-child { text-align: left; min-width: 8rem; max-width: 20rem; }
table.sortable tbody tr:nth-child(even) { background: var(--card); }
table.sortable thead th { position: sticky; top: 0; background: var(--paper); white-space: nowrap; }
button { font: inherit; color: inherit; background: none; border: 0; padding: 0; cursor: pointer; }
th[aria-sort=ascending] button::after { content: " \\2191"; }
th[aria-sort=descending] button::after { content: " \\2193"; }
.copy { margin: 0 0 0.5rem; padding: 0.15rem 0.6rem; border: 1px solid var(--edge); border-radius: 0.35rem;
  font-size: 0.875rem; }
.part { display: block; align-self: flex-start; height: 9rem; max-width: 100%; border: 1px solid var(--edge); }
.part, .panels .shades { image-rendering: pixelated; }
footer { margin: 2.5rem 0 1rem; }
@media print { .card, figure, table.pairs { break-inside: avoid; } }
"""

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""What no page may hold, and a terminal that shows it would obey."""


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


# Nothing may be loaded, and nothing may run or style but what is written here, whatever else stands in the page.
POLICY = (
    f"default-src 'none'; img-src data:; style-src {_hash(STYLE)}; script-src {_hash(SCRIPT)}; base-uri 'none'; "
    "form-action 'none'"
)


def page(stored: Stored, *, title: str, n_top: int = 10, shape: tuple[int, int] | None = None) -> str:
    """The whole page, as text.

    `n_top` features and rows are named for each component; with a `shape`, (height, width), the components are images.

    Raises
    ------
    ValueError
        The product of `shape` is not the number of columns, or `n_top` is less than 1.
    """
    n = stored.H.shape[1]
    if shape is not None and shape[0] * shape[1] != n:
        msg = f"the shape {shape[0]}x{shape[1]} has {shape[0] * shape[1]} pixels, and a component has {n} entries"
        raise ValueError(msg)
    if n_top < 1:
        msg = f"at least 1 feature must be named for a component, got {n_top}"
        raise ValueError(msg)
    with precision.own_errors():  # a file may hold any numbers
        parts = parts_of(stored)
        body = (
            sections.summary(stored, title),
            components(stored, parts, n_top=n_top, shape=shape),
            loadings(parts),
            features(stored, parts, n_top=n_top),
            batches(stored, n_top=n_top),
            components_in_batches(stored),
            sections.fit(stored),
            sections.convergence(stored, parts),
            sections.settings(stored),
            sections.environment(stored),
        )
    text = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{html.escape(POLICY)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in body if part)
        + f'\n<footer class="quiet small">Written by nmf_xp {nmf_xp.__version__}.</footer>\n'
        + f"<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )
    text = text.encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair, as a file name may have
    return CONTROL.sub(lambda found: printable(found[0]), text)
