"""What is known to fail, and where: the one list, read strictly.

A check is the name of a test function, or of a check of `nmf_xp.testing`. An entry that passes is an error, and so is
one that names nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from nmf_xp.testing import Backend


class KnownFailure(NamedTuple):
    """Why a check fails on a backend, and where that is discussed."""

    reason: str
    link: str


KNOWN_FAILURES: dict[tuple[Backend, str], KnownFailure] = {}
