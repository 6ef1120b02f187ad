"""What the commands say to the user."""

from __future__ import annotations

import contextlib
import sys
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


def say(line: str = "") -> None:
    """Print a line of what was asked for."""
    print(line, flush=True)  # noqa: T201


def complain(line: str) -> None:
    """Print a line on standard error."""
    print(line, file=sys.stderr, flush=True)  # noqa: T201


@contextlib.contextmanager
def plain_warnings() -> Iterator[None]:
    """Show warnings as one line each, without the line of code that they come from."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        complain(f"nmf-xp: warning: {' '.join(str(message).split())}")

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
