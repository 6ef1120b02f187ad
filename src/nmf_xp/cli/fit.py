"""`nmf-xp fit`: a matrix from a file, its factors into another."""

from __future__ import annotations

import json
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nmf_xp
from nmf_xp import CheckpointError
from nmf_xp.arrays import libraries
from nmf_xp.cli import batches, options
from nmf_xp.cli.environment import environment
from nmf_xp.cli.names import check_names
from nmf_xp.cli.placement import describe
from nmf_xp.cli.terminal import complain, say
from nmf_xp.data.kinds import Kind, kind_of
from nmf_xp.files import (
    EFFECTS,
    FOLDER,
    OUTPUTS,
    check_folder,
    check_output,
    factors_at,
    is_folder,
    read_factors,
    read_matrix,
    stem_of,
    write_factors,
    write_table,
)
from nmf_xp.result import storing
from nmf_xp.result.frames import table_of
from nmf_xp.result.overview import overview
from nmf_xp.run.checkpoint import SUFFIXES, position

if TYPE_CHECKING:
    import argparse

    import numpy as np

    from nmf_xp import Result
    from nmf_xp.cli.placement import Place


CELLS = 100  # of the data in the output, along an axis
_DEFAULTS = options.defaults_of(nmf_xp.nmf)


def add_parser(commands: Any) -> None:
    """Add the command to those of `nmf-xp`."""
    text = "Factorize a non-negative matrix V from a file, V ~ W @ H, and write W and H into another."
    fit = commands.add_parser("fit", help="factorize a matrix from a file", description=text)
    fit.set_defaults(run=run)
    options.add_file(fit)
    fit.add_argument("-k", "--n-components", type=int, required=True, metavar="K", help="number of components")
    out = ".npz or .safetensors, or a folder, which also gets tables (default: NAME.factors.npz, here)"
    fit.add_argument("--out", type=Path, metavar="FILE", help=out)
    fit.add_argument("--force", action="store_true", help="replace the output if it exists")

    model = options.add_model(fit, _DEFAULTS, options.MODEL)
    model.add_argument("--start", type=Path, metavar="FILE", help="begin with the W and H of an earlier output")
    for name, what in _ARRAYS.items():
        model.add_argument(f"--{name.replace('_', '-')}", type=Path, metavar="FILE", help=what)
    model.add_argument("--batch", metavar="FILE", help=batches.HELP)
    prior = "counts in each batch and column that draw its effects towards 1 (default: 0)"
    model.add_argument("--batch-prior", type=float, metavar="C", help=prior)

    kept = fit.add_argument_group("long runs")
    kept.add_argument("--checkpoint", type=Path, metavar="FILE", help=f"keep the run's position: {', '.join(SUFFIXES)}")
    every = f"iterations between checkpoints (default: {_DEFAULTS['checkpoint_every']})"
    kept.add_argument("--checkpoint-every", type=int, metavar="N", help=every)
    kept.add_argument("--resume", action="store_true", help="go on from the checkpoint if there is one, else begin")

    options.add_place(fit)
    options.add_said(fit)


_ARRAYS = {
    "weights": "weights of the entries, a matrix of V's shape, one row or one column; 0 means unobserved",
    "exposure": "a positive factor of each entry, a matrix of V's shape, one row or one column: V ~ exposure * WH",
    "fixed_w": "a matrix that is not 0 where W keeps the value that it has in --start",
    "fixed_h": "likewise for H",
}


def run(asked: argparse.Namespace) -> int:
    """Read, factorize, write, and say what happened."""
    out = asked.out or Path(f"{stem_of(asked.file)}.factors.npz")
    asked.start = None if asked.start is None else factors_at(asked.start)
    folder = out if is_folder(out) else None
    if folder is not None:
        check_folder(folder, force=asked.force, batches=asked.batch is not None)
    names = FOLDER if asked.batch is None else (*FOLDER, EFFECTS)
    written = {"--out": out} if folder is None else {f"--out {name}": folder / name for name in names}
    if folder is not None or out.suffix.lower() in OUTPUTS:
        check_names({**written, "--checkpoint": asked.checkpoint}, _read(asked))
    if folder is None:
        check_output(out, force=asked.force)
    _check_start(asked)
    kept = _checkpoint(asked)
    matrix, place = options.read(asked), options.place(asked)
    V = place.asarray(matrix.values)
    like = getattr(V, "like", V)  # what says where V is, if it comes in row blocks
    chosen = options.chosen(asked, (*options.MODEL, "batch_prior")) | batches.labels_of(asked, matrix)
    dtype = libraries.dtype_name(like.dtype)
    if asked.start is not None:
        chosen["init"] = tuple(place.asarray(x, dtype) for x in read_factors(asked.start))
    for name in _ARRAYS:
        path = getattr(asked, name)
        if path is not None:
            chosen[name] = place.asarray(read_matrix(path).values, "bool" if name.startswith("fixed") else dtype)
    begin = time.perf_counter()
    warnings.simplefilter("ignore", nmf_xp.ConvergenceWarning)  # the summary says how it ended
    try:
        with options.errors(matrix.row_names, matrix.column_names):
            progress, several = options.wants_progress(asked), (asked.n_restarts or 1) > 1
            result = nmf_xp.nmf(V, asked.n_components, progress=progress, keep_restarts=several, **chosen, **kept)
    except KeyboardInterrupt as interrupt:
        if asked.checkpoint is None or not asked.checkpoint.exists():
            raise
        msg = f"interrupted; say --resume to go on from {asked.checkpoint}"
        raise KeyboardInterrupt(msg) from interrupt
    seconds = time.perf_counter() - begin
    where = describe(like, place)
    about: dict[str, Any] = {"ran_on": where, "seconds": seconds, "check_every": _given(asked)["check_every"]}
    result = result.named(rows=matrix.row_names, columns=matrix.column_names)
    if "batch" in chosen:
        about["batch_shares"] = batches.shares_of(result, chosen["batch"])
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        out = folder / FOLDER[0]
        for which, path in zip("WH", (folder / FOLDER[1], folder / FOLDER[2]), strict=True):
            write_table(path, *table_of(result, which), replace=asked.force)
        if "batch" in chosen:
            batches.write_effects(folder, result, replace=asked.force)
    _write(out, result, asked, about | _overview(V, result, chosen, place))
    options.summary(asked, result, where, folder or out, seconds)
    return 0


def _check_start(asked: argparse.Namespace) -> None:
    """Refuse what a start excludes, and what needs one."""
    if asked.start is None:
        if asked.fixed_w is not None or asked.fixed_h is not None:
            msg = "--fixed-w and --fixed-h need a --start FILE, whose values they keep"
            raise ValueError(msg)
        return
    if asked.init is not None or (asked.n_restarts or 1) > 1:
        msg = f"--start and --{'init' if asked.init is not None else 'n-restarts'} exclude each other; give one of them"
        raise ValueError(msg)


def _read(asked: argparse.Namespace) -> dict[str, Path | None]:
    """What a run reads and nothing else may replace; with --force an earlier output may be its own start."""
    read = {"FILE": asked.file, **{f"--{name.replace('_', '-')}": getattr(asked, name) for name in _ARRAYS}}
    read["--batch"] = batches.path_of(asked)
    return read if asked.force else {**read, "--start": asked.start}


def _checkpoint(asked: argparse.Namespace) -> dict[str, Any]:
    """The options of a checkpoint, of which it is said what becomes of it."""
    path, every = asked.checkpoint, asked.checkpoint_every
    if path is None:
        if every is not None or asked.resume:
            msg = "--checkpoint-every and --resume need a --checkpoint FILE"
            raise ValueError(msg)
        return {}
    kept = {"checkpoint": path, **({} if every is None else {"checkpoint_every": every})}
    try:
        n_iter = position(path)
    except CheckpointError as error:
        if asked.resume:  # only the run itself knows which is the one before it, and says so
            return kept
        msg = f"{error}; name another file"
        raise CheckpointError(msg) from error
    if n_iter is None:
        if asked.resume:
            say(f"{path}: no checkpoint yet, the run begins")
        return kept
    if not asked.resume:
        msg = f"{path}: exists already, a run at iteration {n_iter}; say --resume to go on, or remove it to begin anew"
        raise CheckpointError(msg)
    say(f"{path}: goes on from iteration {n_iter}")
    return kept


def _write(out: Path, result: Result, asked: argparse.Namespace, about: dict[str, Any]) -> None:
    import numpy as np

    about_arrays = {name: np.asarray(value) for name, value in about.items() if not isinstance(value, str)}
    arrays = {**storing.arrays_of(result), **about_arrays}
    settings = {
        **storing.texts_of(result),
        "random_state": str(asked.random_state),
        "options": json.dumps(_given(asked)),
        "input": asked.file.name,
        "environment": json.dumps(environment()),
        **{name: value for name, value in about.items() if isinstance(value, str)},
    }
    write_factors(out, arrays, settings, replace=asked.force)


def _given(asked: argparse.Namespace) -> dict[str, Any]:
    """The options of the factorization that are not in the result, as given or by default."""
    values = {name: getattr(asked, name) for name in options.MODEL if name not in ("beta_loss", "random_state")}
    values = {name: _DEFAULTS[name] if value is None else value for name, value in values.items()}
    files = {name: getattr(asked, name) for name in ("start", *_ARRAYS)}
    named = {name: path.name for name, path in files.items() if path is not None}
    if asked.batch is not None:
        named |= {"batch": Path(asked.batch).name, "batch_prior": asked.batch_prior or 0.0}
    return {name: value for name, value in (values | named).items() if value is not None}


def _overview(V: Any, result: Result, chosen: dict[str, Any], place: Place) -> dict[str, Any]:
    """What a report draws of V: its means over cells, those of the model, and a divergence to compare with.

    Nothing of data that are read block by block. Effects of batches are a part of the model, and explain a part of V
    that WH does not: with them nothing is compared.
    """
    if kind_of(V) is not Kind.WHOLE:
        return {}
    said = {name: chosen[name] for name in ("weights", "exposure", "missing", "absent") if name in chosen}
    factors: Any = (result.W, result.H)
    try:
        if "batch" in chosen:
            dtype = libraries.dtype_name(result.W.dtype)
            factors = [place.asarray(x, dtype) for x in batches.with_effects(result, chosen["batch"])]
        seen = overview(V, *factors, beta=result.beta, limit=CELLS, **said)
    except (MemoryError, RuntimeError) as error:  # the latter of torch and JAX; the factors are not lost for a picture
        complain(f"nmf-xp: warning: V is left out of the output: {' '.join(str(error).split()) or 'out of memory'}")
        return {}
    cells = {"data_cells": seen.data, "model_cells": seen.model, "residual_cells": seen.residual}
    drawn: dict[str, Any] = {name: _narrow(array) for name, array in cells.items()}
    return drawn if "batch" in chosen else {**drawn, "reference": seen.reference}


def _narrow(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The numbers in float32, which is enough for a picture, where they are within its range."""
    import numpy as np

    largest = np.nanmax(np.abs(x), initial=0.0)
    info = np.finfo(np.float32)
    return x.astype(np.float32) if largest == 0 or 1e3 * info.tiny < largest < info.max else x
