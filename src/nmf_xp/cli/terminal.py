"""What the commands say to the user."""

from __future__ import annotations

import argparse
import contextlib
import sys
import warnings
from typing import TYPE_CHECKING, Any

from nmf_xp.files import printable

if TYPE_CHECKING:
    from collections.abc import Iterator


def say(line: str = "") -> None:
    """Print a line of what was asked for."""
    print(printable(line), flush=True)  # noqa: T201


def complain(line: str) -> None:
    """Print a line on standard error."""
    print(printable(line), file=sys.stderr, flush=True)  # noqa: T201


class Parser(argparse.ArgumentParser):
    """A parser whose messages repeat what was typed only as a terminal can be trusted with it."""

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
