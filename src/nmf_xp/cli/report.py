"""`nmf-xp report`: factors in a file as a page that a browser opens."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from nmf_xp.cli.names import check_names
from nmf_xp.cli.terminal import say
from nmf_xp.files import OUTPUTS, check_output, factors_at, write_atomically


def add_parser(commands: Any) -> None:
    """Add the command to those of `nmf-xp`."""
    text = (
        "Write one HTML page about a factorization: components, rows, columns, fit, convergence, settings and "
        "environment. It stands alone: nothing is loaded, and no script runs but the one that sorts and copies a table."
    )
    report = commands.add_parser("report", help="show a factorization as a page", description=text)
    report.set_defaults(run=run)
    report.add_argument(
        "file", type=Path, metavar="FILE", help=f"what `nmf-xp fit` wrote: {', '.join(OUTPUTS)}, or a folder"
    )
    report.add_argument("--out", type=Path, metavar="FILE.html", help="the page (default: NAME.report.html, here)")
    report.add_argument("--force", action="store_true", help="replace the page if it exists")
    report.add_argument("--title", metavar="TEXT", help="its title (default: the name of the factorized file)")
    top = "features to name for each component (default: 10)"
    report.add_argument("--top", type=int, default=10, metavar="N", help=top)
    shape = "draw each component as an image of this shape, such as 8x8"
    report.add_argument("--shape", type=_shape, metavar="HEIGHTxWIDTH", help=shape)


def _shape(text: str) -> tuple[int, int]:
    height, _, width = text.lower().partition("x")
    if not (height.isascii() and height.isdigit() and width.isascii() and width.isdigit() and int(height) * int(width)):
        msg = f"must be HEIGHTxWIDTH, such as 8x8, got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return int(height), int(width)


def run(options: argparse.Namespace) -> int:
    """Read, draw, write."""
    name = options.file.stem.removesuffix(".factors")
    out = options.out or Path(f"{name}.report.html")
    factors = factors_at(options.file)
    check_names({"--out": out}, {"FILE": factors})
    check_output(out, suffixes=(".html", ".htm"), force=options.force)
    from nmf_xp.result import report  # NumPy comes with it

    stored = report.read_stored(factors)
    title = options.title or stored.texts.get("input") or options.file.name
    content = report.page(stored, title=title, n_top=options.top, shape=options.shape).encode()
    write_atomically(out, lambda file: file.write(content), replace=options.force)
    say(f"written       {out}")
    return 0
