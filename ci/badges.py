"""The badges of the README, as pictures that are made of pyproject.toml: they are true without a network.

    python ci/badges.py

writes them to docs/badges; the tests compare.
"""

from __future__ import annotations

import html
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "badges"
WIDTH = 6.6  # of a character


def badges() -> dict[str, str]:
    """The pictures, by the names of their files."""
    said = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project = said["project"]
    pythons = [c.rpartition(" ")[2] for c in project["classifiers"] if re.search(r"Python :: 3\.\d+$", c)]
    needs = [re.split(r"[>=<\[ ]", line)[0] for line in project["dependencies"]]
    texts = {
        "python": ("python", " | ".join(pythons)),
        "licence": ("licence", project["license"]),
        "needs": ("needs only", ", ".join(needs)),
        "types": ("types", "mypy --strict" if said["tool"]["mypy"]["strict"] else "mypy"),
    }
    return {f"{name}.svg": badge(*text) for name, text in texts.items()}


def badge(left: str, right: str) -> str:
    """Two texts side by side, the first on grey and the second on blue."""
    first, second = (round(WIDTH * len(text)) + 14 for text in (left, right))
    width = first + second
    texts = "".join(
        f'<text x="{x:g}" y="14" textLength="{w - 14}">{html.escape(text)}</text>'
        for x, w, text in ((first / 2, first, left), (first + second / 2, second, right))
    )
    style = 'fill="#fff" text-anchor="middle" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11"'
    said = html.escape(f"{left}: {right}")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="20" role="img" '
        f'aria-label="{said}"><clipPath id="r"><rect width="{width}" height="20" rx="3"/></clipPath>'
        f'<g clip-path="url(#r)"><rect width="{first}" height="20" fill="#555"/>'
        f'<rect x="{first}" width="{second}" height="20" fill="#0072b2"/></g>'
        f"<g {style}>{texts}</g></svg>\n"
    )


def main() -> None:
    """Write them."""
    FOLDER.mkdir(exist_ok=True)
    for name, picture in badges().items():
        (FOLDER / name).write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    main()
