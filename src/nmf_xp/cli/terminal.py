"""What the commands say to the user."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import itertools
import json
import math
import os
import re
import sys
import warnings
from typing import TYPE_CHECKING, Any

from nmf_xp.arrays import keywords
from nmf_xp.files import printable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator


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


OTHER_WORDS = {"delimiter": "sep", "separator": "sep", "output": "out", "o": "out", "components": "n_components"}
"""What other programs call options of ours, beside what other libraries call our arguments."""


def _no_such_option(word: str, known: Collection[str]) -> str:
    """That there is no such option, and which one is meant or nearest."""
    option = word.partition("=")[0]
    name = option.lstrip("-").replace("-", "_")
    meant = (OTHER_WORDS | keywords.OTHER_WORDS).get(name, "").replace("_", "-")
    near = [f"--{meant}"] if f"--{meant}" in known else difflib.get_close_matches(option, known, 1)
    return f"{option}: no such option{f'; did you mean {near[0]}?' if near else ''}"


class Parser(argparse.ArgumentParser):
    """A parser whose messages repeat what was typed only as a terminal can be trusted with it."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """The options; of one that is unknown, which is meant, before anything is said of what is lacking."""
        words = sys.argv[1:] if args is None else list(args)
        command = self._command_of(words)
        for word in itertools.takewhile(lambda word: word != "--", words):
            if re.match("--[a-zA-Z]", word) and not command._get_option_tuples(word) and not command._has(word):
                command.error(_no_such_option(word, command._option_string_actions))
        found, unknown = self.parse_known_args(words, namespace)
        if unknown and unknown[0].startswith("-"):
            command.error(_no_such_option(unknown[0], command._option_string_actions))
        if unknown:
            command.error(f"{unknown[0]}: is one name too many; put quotes around a name with blanks")
        return found

    def flags(self, options: argparse.Namespace) -> dict[str, str]:
        """The options of the command that was chosen, by the names of what they set."""
        command = next((x for x in self._commands() if x.get_default("run") is getattr(options, "run", None)), self)
        return {x.dest: max(x.option_strings, key=len) for x in command._actions if x.option_strings}

    def _has(self, word: str) -> bool:
        return word.partition("=")[0] in self._option_string_actions

    def _command_of(self, words: list[str]) -> Parser:
        """The innermost command that the words name, which argparse would ask."""
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                for i, word in enumerate(words):
                    if word in action.choices:
                        found: Parser = action.choices[word]._command_of(words[i + 1 :])
                        return found
        return self

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
