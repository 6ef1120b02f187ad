"""The command line: `nmf-xp fit`, `transform`, `select`, `cnmf`, `report`, `demo` and `conformance`.

Every mistake that a user can make ends in one line and exit status 2; an interrupt in 130, with nothing written but
a checkpoint; a standard output that cannot be written in 1, whatever was done before.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

import nmf_xp
from nmf_xp.arrays.faults import DeviceError
from nmf_xp.cli import cnmf, demo, fit, report, select, transform
from nmf_xp.cli.terminal import OutputError, Parser, complain, open_streams, output_error, plain_warnings, put_away
from nmf_xp.cli.wording import in_options
from nmf_xp.files import FileError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    open_streams()
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        with plain_warnings():
            return int(options.run(options))
    except KeyboardInterrupt as interrupt:
        complain(f"\n{str(interrupt) or 'interrupted; nothing was written'}")
        return 130
    except BrokenPipeError:  # who read the output, such as `head`, has left
        put_away(sys.stdout)
        return 141
    except OutputError as error:
        put_away(sys.stdout)
        complain(f"nmf-xp: error: {error}")
        return 1
    except (FileError, DeviceError, ImportError, MemoryError) as error:
        return _mistake(str(error) or "out of memory")
    except (TypeError, ValueError) as error:
        return _mistake(in_options(str(error), parser.flags(options), getattr(options, "file", None)))


def _mistake(said: str) -> int:
    complain(f"nmf-xp: error: {' '.join(said.split())}")
    return 2


def _parser() -> Parser:
    parser = Parser(prog="nmf-xp", description="Non-negative matrix factorization on any array type.")
    parser.add_argument("--version", action="version", version=f"nmf-xp {nmf_xp.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in (fit, transform, select, cnmf, report, demo):
        command.add_parser(commands)
    _add_conformance(commands)
    return parser


def _add_conformance(commands: Any) -> None:
    text = "Run all conformance checks on every installed backend and device, and print a table."
    command = commands.add_parser("conformance", help="prove the backends that are installed", description=text)
    command.set_defaults(run=_conformance)
    command.add_argument("--backend", action="append", metavar="NAME", help="only this one; may be given several times")
    command.add_argument("--json", metavar="FILE", help="write the report as JSON as well")
    command.add_argument("--force", action="store_true", help="replace that file if it exists")


def _conformance(options: argparse.Namespace) -> int:
    command = importlib.import_module("nmf_xp.testing.command")
    try:
        return int(command.run(options))
    except BrokenPipeError:
        raise
    except OSError as error:  # it prints for itself
        raise output_error(error) from error
