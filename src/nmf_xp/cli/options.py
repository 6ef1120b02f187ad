"""Options that several commands have: of the file, of the factorization, of where it runs, of what is said."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nmf_xp.arrays.checks import wrong_entry
from nmf_xp.cli.placement import BACKENDS, Place
from nmf_xp.cli.terminal import print_json, say
from nmf_xp.divergences import BETA_LOSSES
from nmf_xp.files import IMAGES, INPUTS, Matrix, read_matrix
from nmf_xp.problem.starts import INITS
from nmf_xp.result import display
from nmf_xp.solvers import SOLVERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from nmf_xp import Result

YES_OR_NO = argparse.BooleanOptionalAction


def add_file(command: argparse.ArgumentParser) -> None:
    """The matrix, and how its file is read."""
    plain = [suffix for suffix in INPUTS if suffix not in IMAGES]
    formats = f"{', '.join(plain)}, a folder of 10x, or an image as its grey values: {', '.join(sorted(IMAGES))}"
    command.add_argument("file", type=Path, metavar="FILE", help=f"the matrix: {formats}")
    file = command.add_argument_group("the file")
    file.add_argument("--key", metavar="NAME", help="the array to take from a file that holds several")
    file.add_argument("--header", action=YES_OR_NO, help="a table's first line holds column names (default: find out)")
    file.add_argument("--index", action=YES_OR_NO, help="a table's first column holds row names (default: find out)")
    sep = "what separates a table's cells: a character, tab, or space for any blanks (default: find out)"
    file.add_argument("--sep", metavar="CHARACTER", help=sep)
    decimal = "what stands before a table's decimal places (default: find out)"
    file.add_argument("--decimal", choices=[".", ","], help=decimal)


def read(options: argparse.Namespace) -> Matrix:
    """The matrix, with a word about what its reader made of the file."""
    said = {name: getattr(options, name) for name in ("key", "header", "index", "sep", "decimal")}
    matrix = read_matrix(options.file, **said)
    if matrix.note and not (options.quiet or options.json):
        say(f"{options.file}: {matrix.note}")
    return matrix


def defaults_of(function: Callable[..., Any]) -> dict[str, Any]:
    """The default of each argument of a function of the library."""
    return {name: parameter.default for name, parameter in inspect.signature(function).parameters.items()}


def add_model(command: argparse.ArgumentParser, defaults: dict[str, Any], names: Iterable[str]) -> Any:
    """Options of a function of the library, by their names there; the group to which more may be added."""
    model = command.add_argument_group("the factorization")
    for name in names:
        settings = dict(MODEL[name])
        if defaults[name] is not None:
            settings["help"] += f" (default: {defaults[name]})"
        model.add_argument(f"--{name.replace('_', '-')}", **settings)
    return model


def chosen(options: argparse.Namespace, names: Iterable[str]) -> dict[str, Any]:
    """Those that were given."""
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}


def add_place(command: argparse.ArgumentParser) -> None:
    """Where the command runs, and whether it shows how far it is."""
    where = command.add_argument_group("where it runs")
    where.add_argument("--backend", choices=BACKENDS, default="numpy", help="array library (default: numpy)")
    where.add_argument("--device", metavar="NAME", help="its device, such as cuda:0 (default: the library's)")
    where.add_argument(
        "--dtype",
        choices=["float32", "float64"],
        help="precision (default: float32 for a file of float32 or less, else float64)",
    )
    where.add_argument("--progress", action=YES_OR_NO, help="a progress bar (default: on a terminal, with tqdm)")


def place(options: argparse.Namespace) -> Place:
    """Where the command runs."""
    return Place(options.backend, options.device, options.dtype)


def add_said(command: argparse.ArgumentParser) -> None:
    """How much the command says, and how."""
    said = command.add_mutually_exclusive_group()
    said.add_argument("--quiet", action="store_true", help="say nothing but warnings and errors")
    said.add_argument("--json", action="store_true", help="print what happened as JSON")


def summary(options: argparse.Namespace, result: Result, where: str, out: Path, seconds: float) -> None:
    """What came out: a few lines, JSON, or nothing."""
    if options.quiet:
        return
    if options.json:
        numbers = {name: float(getattr(result, name)) for name in ("divergence", "objective", "kkt_residual")}
        said = {"shape": [result.W.shape[0], result.H.shape[1]], "n_components": result.W.shape[1]}
        ended = {
            "solver": result.solver,
            "beta": result.beta,
            "n_iter": int(result.n_iter),
            "status": result.status.name,
        }
        print_json({**said, **ended, **numbers, "seconds": seconds, "ran_on": where, "written": str(out)})
        return
    lines = display.rows(result)
    lines["iterations"] += f" in {seconds:.2f} s"
    say(display.text({**lines, "ran on": where, "written": str(out)}))


@contextlib.contextmanager
def errors(rows: Sequence[Any] | None, columns: Sequence[Any] | None) -> Iterator[None]:
    """Of an entry that cannot be the names of its row and column; where torch and JAX lack memory, what Python says."""
    try:
        yield
    except ValueError as error:
        entry = wrong_entry(error)
        if entry is None:
            raise
        raise ValueError(entry.named(rows, columns)) from None
    except RuntimeError as error:
        if "out of memory" not in str(error).lower():
            raise
        msg = f"not enough memory: {error}"
        raise MemoryError(msg) from error


def wants_progress(options: argparse.Namespace) -> bool:
    """Whether to show a progress bar: as asked for, or on a terminal."""
    if sys.stderr is None:
        return False
    if options.progress is not None:
        return bool(options.progress)
    return sys.stderr.isatty() and importlib.util.find_spec("tqdm") is not None


def _name_or_number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


# What goes to `nmf` as it is given, and how the command line reads it.
MODEL: dict[str, dict[str, Any]] = {
    "beta_loss": {
        "type": _name_or_number,
        "metavar": "LOSS",
        "help": f"{', '.join(BETA_LOSSES)}, negative-binomial, or any number",
    },
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
