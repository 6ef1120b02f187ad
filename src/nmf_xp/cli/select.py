"""`nmf-xp select`: how many components, by the evidence in a matrix from a file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nmf_xp
from nmf_xp.cli import options
from nmf_xp.cli.names import check_names
from nmf_xp.cli.terminal import print_json, say
from nmf_xp.files import OUTPUTS, check_output, optional_module, write_atomically
from nmf_xp.selection import RULES

if TYPE_CHECKING:
    from nmf_xp.selection import RankSelection

MODEL = ("beta_loss", "solver", "missing", "absent", "n_restarts", "random_state", "max_iter", "tol")
PICTURES = (".png", ".pdf", ".svg")

_DEFAULTS = options.defaults_of(nmf_xp.select_rank)


def add_parser(commands: Any) -> None:
    """Add the command to those of `nmf-xp`."""
    text = "Factorize a matrix from a file with several numbers of components, compare them, and recommend one."
    command = commands.add_parser("select", help="choose the number of components", description=text)
    command.set_defaults(run=run)
    options.add_file(command)
    ranks = "numbers of components: 2-9, or 2,4,8"
    command.add_argument("--ranks", type=_ranks, required=True, metavar="RANKS", help=ranks)
    rules = f"what decides: {', '.join(RULES)} (default: auto)"
    command.add_argument("--rule", metavar="NAME", help=rules)
    out = "keep the best factors of the recommended number: .npz or .safetensors"
    command.add_argument("--out", type=Path, metavar="FILE", help=out)
    command.add_argument("--plot", type=Path, metavar="FILE", help=f"draw the comparison: {', '.join(PICTURES)}")
    command.add_argument("--force", action="store_true", help="replace what exists")
    command.add_argument("--checkpoint", type=Path, metavar="FILE", help="keep each number's restarts: .npz")
    options.add_model(command, _DEFAULTS, MODEL)
    options.add_place(command)
    options.add_said(command)


def _ranks(text: str) -> list[int]:
    """2-9, 5 or 2,4,8 and what is made of them."""
    found: set[int] = set()
    for part in text.split(","):
        low, dash, high = part.strip().partition("-")
        if not (low.isascii() and low.isdigit() and (not dash or (high.isascii() and high.isdigit()))):
            msg = f"must be like 2-9 or 2,4,8, got {text!r}"
            raise argparse.ArgumentTypeError(msg)
        found.update(range(int(low), int(high or low) + 1))
    return sorted(found)


def run(asked: argparse.Namespace) -> int:
    """Read, compare, write, and say what was found."""
    written = {"--out": asked.out, "--plot": asked.plot, "--checkpoint": asked.checkpoint}
    check_names(written, {"FILE": asked.file})
    for name, suffixes in (("out", OUTPUTS), ("plot", PICTURES)):
        path = getattr(asked, name)
        if path is not None:
            check_output(path, suffixes=suffixes, force=asked.force)
    if asked.plot is not None:
        optional_module("matplotlib", "plot")
    matrix, place = options.read(asked), options.place(asked)
    chosen = options.chosen(asked, (*MODEL, "rule", "checkpoint"))
    with options.errors(matrix.row_names, matrix.column_names):
        progress = options.wants_progress(asked)
        found = nmf_xp.select_rank(place.asarray(matrix.values), asked.ranks, progress=progress, **chosen)
    found = found.named(rows=matrix.row_names, columns=matrix.column_names)
    if asked.out is not None:
        found.best[found.rank].save(asked.out)
    if asked.plot is not None:
        _draw(found, asked.plot, replace=asked.force)
    _summary(found, asked)
    return 0


def _draw(found: RankSelection, path: Path, *, replace: bool) -> None:
    from nmf_xp import plot

    figure = plot.ranks(found).figure
    write_atomically(path, lambda file: figure.savefig(file, format=path.suffix[1:].lower()), replace=replace)


def _summary(found: RankSelection, asked: argparse.Namespace) -> None:
    if asked.quiet:
        return
    if asked.json:
        table = {name: column.tolist() for name, column in found.table.items()}
        print_json({"rank": found.rank, "rule": found.rule, "doubts": list(found.doubts), "table": table})
        return
    say(str(found))
    for path in (asked.out, asked.plot):
        if path is not None:
            say(f"written       {path}")
