"""Errors of the library in the words of the command line: its options and its file, in the place of arguments."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

GIVEN = re.compile(r"`?\b(\w+)='([\w.-]+)'`?")  # missing='nan'
ARGUMENT = re.compile(r"`(\w+)`")
START = {"`init[0]`": "W of --start", "`init[1]`": "H of --start"}
ALSO = {"n_components": "ranks"}  # what sets an argument where no option has its name


def in_options(message: str, flags: Mapping[str, str], file: object = None) -> str:
    """The message with `flags` by the arguments of the library that they set, and the file in the place of V."""
    for argument, words in START.items():
        message = message.replace(argument, words)
    message = GIVEN.sub(lambda found: f"{flags[found[1]]} {found[2]}" if found[1] in flags else found[0], message)
    message = ARGUMENT.sub(lambda found: flags.get(found[1]) or flags.get(ALSO.get(found[1], ""), found[0]), message)
    return message if file is None else message.replace("`V` must", f"{file}: must", 1)
