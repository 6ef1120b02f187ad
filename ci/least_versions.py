"""The least releases that pyproject.toml names, as constraints for pip: each ``>=`` becomes ``==``.

``python ci/least_versions.py EXTRA ...`` prints those of the dependencies and of these extras.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

REQUIREMENT = re.compile(r"(?P<name>[\w-]+)(?:\[(?P<extras>[\w,-]+)\])?(?:>=(?P<least>[\d.]+))?")


def project() -> Mapping[str, Any]:
    """What pyproject.toml says of the project."""
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)["project"]


def constraints(project: Mapping[str, Any], extras: Iterable[str]) -> list[str]:
    """The least release of each package that the dependencies and these extras name."""
    return list(dict.fromkeys(_least(line) for line in [*project["dependencies"], *_lines(project, extras)]))


def _lines(project: Mapping[str, Any], extras: Iterable[str]) -> Iterator[str]:
    """What these extras ask for, and what the project's own extras among that ask for."""
    for line in (line for extra in extras for line in project["optional-dependencies"][extra]):
        match = REQUIREMENT.match(line)
        if match is not None and match["name"] == project["name"]:
            yield from _lines(project, match["extras"].split(","))
        else:
            yield line


def _least(line: str) -> str:
    match = REQUIREMENT.fullmatch(line)
    if match is None or match["least"] is None:
        sys.exit(f"pyproject.toml: {line!r} names no least release; write it as NAME>=RELEASE or NAME[EXTRA]>=RELEASE")
    return f"{match['name']}=={match['least']}"


if __name__ == "__main__":
    print(*constraints(project(), sys.argv[1:]), sep="\n")
