"""`nmf-xp transform`: how much of the components of an earlier output is in each row of another matrix."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nmf_xp
from nmf_xp.arrays import libraries
from nmf_xp.cli import batches, options
from nmf_xp.cli.names import check_names
from nmf_xp.cli.placement import describe
from nmf_xp.cli.terminal import complain, say
from nmf_xp.data.naming import text
from nmf_xp.files import OUTPUTS, FileError, check_output, factors_at, stem_of, write_table
from nmf_xp.result.frames import table_of

if TYPE_CHECKING:
    import argparse

    from nmf_xp import Result
    from nmf_xp.files import Matrix

MODEL = ("beta_loss", "solver", "missing", "absent", "max_iter", "tol", "check_every")

_DEFAULTS = options.defaults_of(nmf_xp.transform)


def add_parser(commands: Any) -> None:
    """Add the command to those of `nmf-xp`."""
    about = (
        "Find W for the rows of a matrix, with H from what `nmf-xp fit` wrote. Columns are taken by their names, "
        "where both files have them."
    )
    command = commands.add_parser("transform", help="the loadings of new rows on known components", description=about)
    command.set_defaults(run=run)
    options.add_file(command)
    command.add_argument("factors", type=Path, metavar="FACTORS", help=f"with H: {', '.join(OUTPUTS)}, or a folder")
    out = "the loadings: .csv, .npz or .safetensors (default: NAME.loadings.csv, here)"
    command.add_argument("--out", type=Path, metavar="FILE", help=out)
    command.add_argument("--force", action="store_true", help="replace the output if it exists")
    model = options.add_model(command, _DEFAULTS, MODEL)
    model.add_argument("--batch", metavar="FILE", help=f"{batches.HELP}; those that FACTORS knows keep their effects")
    options.add_place(command)
    options.add_said(command)


def run(asked: argparse.Namespace) -> int:
    """Read, transform, write, and say what happened."""
    out = asked.out or Path(f"{stem_of(asked.file)}.loadings.csv")
    factors = factors_at(asked.factors)
    check_names({"--out": out}, {"FILE": asked.file, "FACTORS": factors, "--batch": batches.path_of(asked)})
    check_output(out, suffixes=(".csv", *OUTPUTS), force=asked.force)
    known = nmf_xp.load(factors)
    matrix, place = options.read(asked), options.place(asked)
    values = _columns_of(known, matrix, asked)
    V = place.asarray(values)
    like = getattr(V, "like", V)
    chosen = options.chosen(asked, MODEL) | batches.labels_of(asked, matrix)
    H = place.asarray(known.H, libraries.dtype_name(like.dtype))
    if "beta_loss" not in chosen:
        chosen["beta_loss"] = known.loss
    if "batch" in chosen:
        chosen["batch_effects"] = known.batch_effects
    elif known.batch_effects is not None:
        complain(f"nmf-xp: warning: the effects of batches in {asked.factors} are left out; say --batch to use them")
    names: Any = {"columns": known.column_names or matrix.column_names, "components": known.component_names}
    begin = time.perf_counter()
    warnings.simplefilter("ignore", nmf_xp.ConvergenceWarning)  # the summary says how it ended
    with options.errors(matrix.row_names, names["columns"]):
        result = nmf_xp.transform(V, H, progress=options.wants_progress(asked), **chosen)
    seconds = time.perf_counter() - begin
    result = result.named(rows=matrix.row_names, **names)
    if out.suffix.lower() == ".csv":
        write_table(out, *table_of(result, "W"), replace=asked.force)
    else:
        check_output(out, force=asked.force)
        result.save(out)
    options.summary(asked, result, describe(like, place), out, seconds)
    return 0


def _columns_of(known: Result, matrix: Matrix, asked: argparse.Namespace) -> Any:
    """The columns of V that H has, in its order, where both have names."""
    if known.column_names is None or matrix.column_names is None:
        return matrix.values
    there, wanted = list(map(text, matrix.column_names)), list(map(text, known.column_names))
    if there == wanted:
        return matrix.values
    lacking = [name for name in wanted if name not in set(there)]
    if lacking or len(set(there)) < len(there) or isinstance(matrix.values, nmf_xp.RowBlocks):
        what = f"lacks {', '.join(map(repr, lacking[:5]))}" if lacking else "has its columns in another order"
        msg = f"{asked.file}: {what}{' and others' if len(lacking) > 5 else ''}; it must have those of {asked.factors}"
        raise FileError(msg)
    left = len(there) - len(wanted)
    if not (asked.quiet or asked.json):
        besides = f", without {left} that it does not have" if left else ""
        say(f"{asked.file}: columns are taken by the names of {asked.factors}{besides}")
    order = [there.index(name) for name in wanted]
    values: Any = matrix.values
    return (values.tocsc() if hasattr(values, "tocsc") else values)[:, order]
