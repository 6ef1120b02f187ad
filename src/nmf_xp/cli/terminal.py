"""What the commands say to the user."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import json
import math
import os
import sys
import warnings
from typing import TYPE_CHECKING, Any

from nmf_xp.files import printable

if TYPE_CHECKING:
    from collections.abc import Iterator


STANDARD = 2  # the largest number of a standard stream


class OutputError(Exception):
    """Standard output cannot be written."""


def say(line: str = "") -> None:
    """Print a line of what was asked for."""
    try:
        _print(line, sys.stdout)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise output_error(error) from error


def output_error(error: OSError) -> OutputError:
    """What is wrong with standard output, in one sentence."""
    return OutputError(f"standard output cannot be written: {error.strerror or error}")


def print_json(said: dict[str, Any]) -> None:
    """Print what was asked for as one line of JSON, in which what is not finite is null."""
    finite = {k: None if isinstance(x, float) and not math.isfinite(x) else x for k, x in said.items()}
    say(json.dumps(finite))


def complain(line: str) -> None:
    """Print a line on standard error, if anybody can read it."""
    with contextlib.suppress(OSError):
        _print(line, sys.stderr)


def _print(line: str, stream: Any) -> None:
    if stream is not None:  # as of a process that was begun without
        print(shown(line, stream), file=stream, flush=True)


def shown(text: str, stream: Any) -> str:
    """The text that a terminal can be trusted with, with an escape for each character that the stream does not know."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return printable(text).encode(encoding, "backslashreplace").decode(encoding)


def open_streams() -> None:
    """Give the numbers of standard streams that are closed to nothing, so that no file that is opened gets them."""
    while None in (sys.__stdin__, sys.__stdout__, sys.__stderr__):
        descriptor = os.open(os.devnull, os.O_RDWR)
        if descriptor > STANDARD:
            os.close(descriptor)
            return


def put_away(stream: Any) -> None:
    """What the stream still holds goes nowhere, and Python does not try to write it at its end."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class Parser(argparse.ArgumentParser):
    """A parser whose messages repeat what was typed only as a terminal can be trusted with it."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """The options; of one that is unknown, which is nearest."""
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            command = next((x for x in self._commands() if x.get_default("run") is getattr(found, "run", None)), self)
            near = difflib.get_close_matches(unknown[0].partition("=")[0], command._option_string_actions, 1)
            command.error(f"{unknown[0]}: no such option{f'; did you mean {near[0]}?' if near else ''}")
        return found

    def _commands(self) -> Iterator[Parser]:
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                for command in action.choices.values():
                    yield command
                    yield from command._commands()

    def _print_message(self, message: str, file: Any = None) -> None:
        file = file or sys.stderr
        if message and file is not None:
            try:
                file.write(shown(message, file))
                file.flush()
            except OSError:
                put_away(file)


@contextlib.contextmanager
def plain_warnings() -> Iterator[None]:
    """Show warnings as one line each, without the line of code that they come from."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        complain(f"nmf-xp: warning: {' '.join(str(message).split())}")

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
