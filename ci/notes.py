"""The notes of a release: its section of CHANGELOG.md, once everything that names a version names this one.

python ci/notes.py VERSION
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLACES = {
    "src/nmf_xp/__init__.py": r'^__version__ = "(.+)"$',
    "CITATION.cff": r"^version: (.+)$",
}


def versions(root: Path = ROOT) -> dict[str, str]:
    """The version that each file says."""
    found = {}
    for name, pattern in PLACES.items():
        match = re.search(pattern, (root / name).read_text(encoding="utf-8"), flags=re.MULTILINE)
        found[name] = match[1] if match else "none"
    return found


def notes(version: str, root: Path = ROOT) -> str:
    """The section of that version, without its heading; an error says what does not agree."""
    others = [f"{name} says {said}" for name, said in versions(root).items() if said != version]
    if others:
        sys.exit(f"notes.py: the release is {version}, but {' and '.join(others)}")
    text = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    match = re.search(
        rf"^## {re.escape(version)}(?:[ ,][^\n]*)?\n(.*?)(?=^## |\Z)", text, flags=re.DOTALL | re.MULTILINE
    )
    if match is None or not match[1].strip():
        sys.exit(f"notes.py: CHANGELOG.md has no section `## {version}`; rename `## Unreleased`")
    return match[1].strip() + "\n"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python ci/notes.py VERSION")
    print(notes(sys.argv[1]), end="")
