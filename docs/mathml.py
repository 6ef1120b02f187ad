"""Formulas as MathML, which browsers draw by themselves: no script, and nothing from a network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

if TYPE_CHECKING:
    from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the renderer to Sphinx."""
    app.add_html_math_renderer("mathml", (within, None), (displayed, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def within(writer: Any, node: nodes.math) -> None:
    """A formula within a line."""
    writer.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def displayed(writer: Any, node: nodes.math_block) -> None:
    """A formula on lines of its own."""
    writer.body.append(f'<div class="displayed-formula">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode
