"""The documentation of every release and of the present state, side by side: OUT/v0.1.0, OUT/latest, and a first page.

    python ci/versions.py OUT

builds each tag `v*` from its own sources, unless its folder is there, and the working tree as `latest`.
"""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
LATEST = "latest"
PAGE = """<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>nmf_xp, all versions</title>
<style>:root {{ color-scheme: light dark }} body {{ font: 1rem/1.6 system-ui, sans-serif; margin: 2rem auto;
max-width: 40rem; padding: 0 1rem }}</style>
<h1>nmf_xp, all versions</h1>
<ul>
{items}
</ul>
</html>
"""


def tags(root: Path = ROOT) -> list[str]:
    """The releases, the newest first."""
    said = subprocess.run(["git", "tag", "--list", "v*"], cwd=root, capture_output=True, text=True, check=True)
    known = [tag for tag in said.stdout.split() if re.fullmatch(r"v\d+(\.\d+)*", tag)]
    return sorted(known, key=lambda tag: tuple(map(int, tag[1:].split("."))), reverse=True)


def build(sources: Path, out: Path) -> None:
    """Build the pages of these sources."""
    command = [sys.executable, "-m", "sphinx", "-q", "-b", "html", "docs", str(out)]
    environment = os.environ | {"PYTHONPATH": str(sources / "src")}
    subprocess.run(command, cwd=sources, env=environment, check=True)


def first_page(names: list[str]) -> str:
    """A list that leads to each version."""
    items = "\n".join(f'<li><a href="{html.escape(name)}/index.html">{html.escape(name)}</a></li>' for name in names)
    return PAGE.format(items=items)


def main(folder: str, root: Path = ROOT) -> None:
    """Build what is not there, and the first page."""
    out = Path(folder).resolve()
    out.mkdir(parents=True, exist_ok=True)
    build(root, out / LATEST)
    released = tags(root)
    for tag in released:
        if (out / tag / "index.html").exists():
            continue
        with tempfile.TemporaryDirectory() as place:
            tree = Path(place, "tree")
            subprocess.run(["git", "worktree", "add", "-q", "--detach", str(tree), tag], cwd=root, check=True)
            try:
                build(tree, out / tag)
            finally:
                subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=root, check=True)
    (out / "index.html").write_text(first_page([LATEST, *released]), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
