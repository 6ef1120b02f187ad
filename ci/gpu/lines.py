"""The file of results: one JSON object a line, each written and flushed as soon as it is known."""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

NAME = "results.jsonl"


def write(out: Path, stage: str, **found: Any) -> None:
    """Add a line. One write appends it, so that processes side by side do not mix theirs."""
    text = json.dumps({"stage": stage, **{name: rounded(value) for name, value in found.items()}}, default=str) + "\n"
    file = os.open(out / NAME, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, text.encode())
    finally:
        os.close(file)


def rounded(value: Any) -> Any:
    """A float to four digits, also inside of a dict or a list: more is noise."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {name: rounded(part) for name, part in value.items()}
    return [rounded(part) for part in value] if isinstance(value, list | tuple) else value


def read(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """The lines of some files, in their order; a line in which a process was ended is left out."""
    rows = []
    for path in paths:
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
            with contextlib.suppress(ValueError):
                row = json.loads(line)
                if isinstance(row, dict) and "stage" in row:
                    rows.append(row)
    return rows
