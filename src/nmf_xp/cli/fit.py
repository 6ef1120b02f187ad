"""`nmf-xp fit`: a matrix from a file, its factors into another."""

from __future__ import annotations

import argparse
import importlib.util
import inspect
import json
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nmf_xp
from nmf_xp import CheckpointError
from nmf_xp.arrays import libraries
from nmf_xp.cli.environment import environment
from nmf_xp.cli.names import check_names
from nmf_xp.cli.placement import BACKENDS, Place, describe
from nmf_xp.cli.terminal import complain, say
from nmf_xp.data.kinds import Kind, kind_of
from nmf_xp.divergences import BETA_LOSSES
from nmf_xp.files import IMAGES, INPUTS, OUTPUTS, Matrix, check_output, read_factors, read_matrix, write_factors
from nmf_xp.problem.starts import INITS
from nmf_xp.result import display, storing
from nmf_xp.result.overview import overview
from nmf_xp.run.checkpoint import SUFFIXES, position
from nmf_xp.solvers import SOLVERS

if TYPE_CHECKING:
    import numpy as np

    from nmf_xp import Result


CELLS = 100  # of the data in the output, along an axis
_DEFAULTS = {name: parameter.default for name, parameter in inspect.signature(nmf_xp.nmf).parameters.items()}


def add_parser(commands: Any) -> None:
    """Add the command to those of `nmf-xp`."""
    text = "Factorize a non-negative matrix V from a file, V ~ W @ H, and write W and H into another."
    fit = commands.add_parser("fit", help="factorize a matrix from a file", description=text)
    fit.set_defaults(run=run)
    plain = [suffix for suffix in INPUTS if suffix not in IMAGES]
    formats = f"{', '.join(plain)}, or an image, of which the grey values are taken: {', '.join(sorted(IMAGES))}"
    fit.add_argument("file", type=Path, metavar="FILE", help=f"the matrix: {formats}")
    fit.add_argument("-k", "--n-components", type=int, required=True, metavar="K", help="number of components")
    fit.add_argument("--out", type=Path, metavar="FILE", help=".npz or .safetensors (default: NAME.factors.npz, here)")
    fit.add_argument("--force", action="store_true", help="replace the output if it exists")

    file = fit.add_argument_group("the file")
    file.add_argument("--key", metavar="NAME", help="the array to take from a file that holds several")
    yes_or_no = argparse.BooleanOptionalAction
    file.add_argument("--header", action=yes_or_no, help="a table's first line holds column names (default: find out)")
    file.add_argument("--index", action=yes_or_no, help="a table's first column holds row names (default: find out)")

    model = fit.add_argument_group("the factorization")
    for name, reading in _NMF_OPTIONS.items():
        settings = dict(reading)
        if _DEFAULTS[name] is not None:
            settings["help"] += f" (default: {_DEFAULTS[name]})"
        model.add_argument(f"--{name.replace('_', '-')}", **settings)
    model.add_argument("--start", type=Path, metavar="FILE", help="begin with the W and H of an earlier output")
    for name, what in _ARRAYS.items():
        model.add_argument(f"--{name.replace('_', '-')}", type=Path, metavar="FILE", help=what)

    kept = fit.add_argument_group("long runs")
    kept.add_argument("--checkpoint", type=Path, metavar="FILE", help=f"keep the run's position: {', '.join(SUFFIXES)}")
    every = f"iterations between checkpoints (default: {_DEFAULTS['checkpoint_every']})"
    kept.add_argument("--checkpoint-every", type=int, metavar="N", help=every)
    kept.add_argument("--resume", action="store_true", help="go on from the checkpoint if there is one, else begin")

    where = fit.add_argument_group("where it runs")
    where.add_argument("--backend", choices=BACKENDS, default="numpy", help="array library (default: numpy)")
    where.add_argument("--device", metavar="NAME", help="its device, such as cuda:0 (default: the library's)")
    where.add_argument(
        "--dtype",
        choices=["float32", "float64"],
        help="precision (default: float32 for a file of float32 or less, else float64)",
    )
    where.add_argument("--progress", action=yes_or_no, help="a progress bar (default: on a terminal, with tqdm)")


def _name_or_number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


# What goes to `nmf` as it is given, and how the command line reads it.
_NMF_OPTIONS: dict[str, dict[str, Any]] = {
    "beta_loss": {"type": _name_or_number, "metavar": "LOSS", "help": f"{', '.join(BETA_LOSSES)}, or any number"},
    "solver": {"metavar": "NAME", "help": f"{', '.join(('auto', *SOLVERS))}"},
    "init": {"metavar": "NAME", "help": f"start: {', '.join(INITS)}"},
    "missing": {"choices": ["nan"], "help": "NaN, which empty cells are too, means unobserved"},
    "absent": {"choices": ["zero", "missing"], "help": "what the entries are that a sparse file does not store"},
    "alpha_W": {"type": float, "metavar": "X", "help": "penalty on W"},
    "alpha_H": {"type": _name_or_number, "metavar": "X", "help": "penalty on H"},
    "l1_ratio": {"type": float, "metavar": "X", "help": "share of L1 in the penalties, the rest is L2"},
    "upper_w": {"type": float, "metavar": "X", "help": "upper bound on W"},
    "upper_h": {"type": float, "metavar": "X", "help": "upper bound on H"},
    "normalize": {"choices": ["W", "H"], "help": "the factor whose components are to sum to 1"},
    "n_restarts": {"type": int, "metavar": "N", "help": "random starts, of which the best is kept"},
    "random_state": {"type": int, "metavar": "SEED", "help": "seed of the start"},
    "max_iter": {"type": int, "metavar": "N", "help": "most iterations"},
    "tol": {"type": float, "metavar": "X", "help": "relative decrease between two checks at which it ends"},
    "check_every": {"type": int, "metavar": "N", "help": "iterations between checks"},
}
_ARRAYS = {
    "weights": "weights of the entries, a matrix of V's shape, one row or one column; 0 means unobserved",
    "exposure": "a positive factor of each entry, a matrix of V's shape, one row or one column: V ~ exposure * WH",
    "fixed_w": "a matrix that is not 0 where W keeps the value that it has in --start",
    "fixed_h": "likewise for H",
}


def run(options: argparse.Namespace) -> int:
    """Read, factorize, write, and say what happened."""
    out = options.out or Path(f"{options.file.stem}.factors.npz")
    if out.suffix.lower() in OUTPUTS:
        check_names({"--out": out, "--checkpoint": options.checkpoint}, _read(options))
    check_output(out, force=options.force)
    if options.start is not None and options.init is not None:
        msg = "--start and --init exclude each other; give one of them"
        raise ValueError(msg)
    kept = _checkpoint(options)
    matrix = read_matrix(options.file, key=options.key, header=options.header, index=options.index)
    if matrix.note:
        say(f"{options.file}: {matrix.note}")
    place = Place(options.backend, options.device, options.dtype)
    V = place.asarray(matrix.values)
    like = getattr(V, "like", V)  # what says where V is, if it comes in row blocks
    chosen = {name: getattr(options, name) for name in _NMF_OPTIONS if getattr(options, name) is not None}
    dtype = libraries.dtype_name(like.dtype)
    if options.start is not None:
        chosen["init"] = tuple(place.asarray(x, dtype) for x in read_factors(options.start))
    for name in _ARRAYS:
        path = getattr(options, name)
        if path is not None:
            chosen[name] = place.asarray(read_matrix(path).values, "bool" if name.startswith("fixed") else dtype)
    begin = time.perf_counter()
    warnings.simplefilter("ignore", nmf_xp.ConvergenceWarning)  # the summary says how it ended
    try:
        result = nmf_xp.nmf(V, options.n_components, progress=_wants_progress(options), **chosen, **kept)
    except KeyboardInterrupt as interrupt:
        if options.checkpoint is None or not options.checkpoint.exists():
            raise
        msg = f"interrupted; say --resume to go on from {options.checkpoint}"
        raise KeyboardInterrupt(msg) from interrupt
    except RuntimeError as error:  # as torch and JAX say it
        if "out of memory" not in str(error).lower():
            raise
        msg = f"not enough memory: {error}"
        raise MemoryError(msg) from error
    seconds = time.perf_counter() - begin
    where = describe(like, place)
    about = {"ran_on": where, "seconds": seconds, "check_every": _given(options)["check_every"]}
    _write(out, result, matrix, options, about | _overview(V, result, chosen))
    _summary(result, where, out, seconds)
    return 0


def _read(options: argparse.Namespace) -> dict[str, Path | None]:
    """What a run reads and nothing else may replace; with --force an earlier output may be its own start."""
    read = {"FILE": options.file, **{f"--{name.replace('_', '-')}": getattr(options, name) for name in _ARRAYS}}
    return read if options.force else {**read, "--start": options.start}


def _checkpoint(options: argparse.Namespace) -> dict[str, Any]:
    """The options of a checkpoint, of which it is said what becomes of it."""
    path, every = options.checkpoint, options.checkpoint_every
    if path is None:
        if every is not None or options.resume:
            msg = "--checkpoint-every and --resume need a --checkpoint FILE"
            raise ValueError(msg)
        return {}
    kept = {"checkpoint": path, **({} if every is None else {"checkpoint_every": every})}
    try:
        n_iter = position(path)
    except CheckpointError as error:
        if options.resume:  # only the run itself knows which is the one before it, and says so
            return kept
        msg = f"{error}; name another file"
        raise CheckpointError(msg) from error
    if n_iter is None:
        if options.resume:
            say(f"{path}: no checkpoint yet, the run begins")
        return kept
    if not options.resume:
        msg = f"{path}: exists already, a run at iteration {n_iter}; say --resume to go on, or remove it to begin anew"
        raise CheckpointError(msg)
    say(f"{path}: goes on from iteration {n_iter}")
    return kept


def _wants_progress(options: argparse.Namespace) -> bool:
    """Whether to show a progress bar: as asked for, or on a terminal."""
    if sys.stderr is None:
        return False
    if options.progress is not None:
        return bool(options.progress)
    return sys.stderr.isatty() and importlib.util.find_spec("tqdm") is not None


def _write(out: Path, result: Result, matrix: Matrix, options: argparse.Namespace, about: dict[str, Any]) -> None:
    import numpy as np

    result = result.named(rows=matrix.row_names, columns=matrix.column_names)
    about_arrays = {name: np.asarray(value) for name, value in about.items() if not isinstance(value, str)}
    arrays = {**storing.arrays_of(result), **about_arrays}
    settings = {
        **storing.texts_of(result),
        "random_state": str(options.random_state),
        "options": json.dumps(_given(options)),
        "input": options.file.name,
        "environment": json.dumps(environment()),
        **{name: value for name, value in about.items() if isinstance(value, str)},
    }
    write_factors(out, arrays, settings, replace=options.force)


def _given(options: argparse.Namespace) -> dict[str, Any]:
    """The options of the factorization that are not in the result, as given or by default."""
    values = {name: getattr(options, name) for name in _NMF_OPTIONS if name not in ("beta_loss", "random_state")}
    values = {name: _DEFAULTS[name] if value is None else value for name, value in values.items()}
    files = {name: getattr(options, name) for name in ("start", *_ARRAYS)}
    named = {name: path.name for name, path in files.items() if path is not None}
    return {name: value for name, value in (values | named).items() if value is not None}


def _overview(V: Any, result: Result, chosen: dict[str, Any]) -> dict[str, Any]:
    """What a report draws of V: its means over cells, those of the model, and a divergence to compare with.

    Nothing of data that are read block by block.
    """
    if kind_of(V) is not Kind.WHOLE:
        return {}
    said = {name: chosen[name] for name in ("weights", "exposure", "missing", "absent") if name in chosen}
    try:
        seen = overview(V, result.W, result.H, beta=result.beta, limit=CELLS, **said)
    except (MemoryError, RuntimeError) as error:  # the latter of torch and JAX; the factors are not lost for a picture
        complain(f"nmf-xp: warning: V is left out of the output: {' '.join(str(error).split()) or 'out of memory'}")
        return {}
    cells = {"data_cells": seen.data, "model_cells": seen.model, "residual_cells": seen.residual}
    return {**{name: _narrow(array) for name, array in cells.items()}, "reference": seen.reference}


def _narrow(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The numbers in float32, which is enough for a picture, where they are within its range."""
    import numpy as np

    largest = np.nanmax(np.abs(x), initial=0.0)
    info = np.finfo(np.float32)
    return x.astype(np.float32) if largest == 0 or 1e3 * info.tiny < largest < info.max else x


def _summary(result: Result, where: str, out: Path, seconds: float) -> None:
    said = display.rows(result)
    said["iterations"] += f" in {seconds:.2f} s"
    say(display.text({**said, "ran on": where, "written": str(out)}))
