"""What the commands say to the user."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import json
import math
import sys
import warnings
from typing import TYPE_CHECKING, Any

from nmf_xp.files import printable

if TYPE_CHECKING:
    from collections.abc import Iterator


def say(line: str = "") -> None:
    """Print a line of what was asked for."""
    print(printable(line), flush=True)  # noqa: T201


def print_json(said: dict[str, Any]) -> None:
    """Print what was asked for as one line of JSON, in which what is not finite is null."""
    finite = {k: None if isinstance(x, float) and not math.isfinite(x) else x for k, x in said.items()}
    print(json.dumps(finite), flush=True)  # noqa: T201


def complain(line: str) -> None:
    """Print a line on standard error."""
    print(printable(line), file=sys.stderr, flush=True)  # noqa: T201


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
                yield from action.choices.values()

    def _print_message(self, message: str, file: Any = None) -> None:
        super()._print_message(printable(message), file)


@contextlib.contextmanager
def plain_warnings() -> Iterator[None]:
    """Show warnings as one line each, without the line of code that they come from."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        complain(f"nmf-xp: warning: {' '.join(str(message).split())}")

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
