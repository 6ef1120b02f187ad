"""Texts of a file as HTML: each is escaped here, and nowhere else."""

from __future__ import annotations

import html


def name(text: str) -> str:
    """A text from the file, escaped, whose direction of writing stays its own affair."""
    return f"<bdi>{html.escape(text)}</bdi>"


def pairs(said: dict[str, str]) -> str:
    """Names and values as a table, escaped."""
    lines = (f'<tr><th scope="row">{html.escape(key)}</th><td>{name(value)}</td></tr>' for key, value in said.items())
    return f'<table class="pairs"><tbody>{"".join(lines)}</tbody></table>'


def called(names: list[str] | None, i: int, kind: str) -> str:
    """The name of a row or column, or its number."""
    return f"{kind} {i}" if names is None else name(names[i])
