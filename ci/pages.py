"""The code and the sentences on the pages of the documentation, as the tests read them, and the pictures of the code.

    python ci/pages.py [PAGE ...]

runs the pages that show pictures, or the given ones, and writes their pictures to docs/figures. The page of all
pictures, docs/gallery.md, follows from the pages. A page is run as a reader would: its Python blocks, and the `nmf-xp`
commands of its shell blocks, in their order, in one empty folder. A block of output is what was printed since the one
before it, but for times and the last digits of numbers. A line `...` in it stands for any lines.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import io
import math
import os
import re
import shlex
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
FIGURES = ROOT / "docs" / "figures"
FIRST = ROOT / "docs" / "index.md"
GALLERY = ROOT / "docs" / "gallery.md"
GALLERY_HEAD = """# Gallery

What comes out, and the code that made it. Each picture is made by the page to which it leads, from data that a package
brings along, and the tests make it again.
"""
EXAMPLES = {
    "first-picture.png": "first_picture.py",
    "leukemia.png": "leukemia.py",
}  # what makes pictures beside the pages
SHOWN = re.compile(r"!\[([^]]*)\]\([./]*(?:figures/|docs/)?([\w-]+\.png)\)")
FENCE = re.compile(r"^```(python|sh|output)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
TIME = re.compile(r"in [\d.]+ s\b|\"seconds\": [-\d.e]+")
CLOSE, NOTHING = 0.1, 1e-6  # how far numbers that are printed may be apart, relative, and what is as good as 0
# What is no part of a sentence, and what is one word of it, in the order in which they are looked for.
NO_PROSE = re.compile(r"```.*?```|<!--.*?-->|\$\$.*?\$\$|^#.*?$|^\|[^\n]*\|$", flags=re.DOTALL | re.MULTILINE)
ONE_WORD = re.compile(r"`[^`]*`|\$[^$]*\$")
# Between paragraphs, and before the items of a list; between sentences.
PARAGRAPH = re.compile(r"\n\s*\n|^\s*(?:[-*]|\d+\.)\s+", flags=re.MULTILINE)
SENTENCE = re.compile(r"(?<=[.!?])\s+")


class Block(NamedTuple):
    """A piece of code on a page."""

    line: int  # of the page, on which it begins
    language: str  # python, sh or output
    text: str

    @property
    def commands(self) -> list[list[str]]:
        """The calls of nmf-xp in a shell block, without the program's name."""
        lines = self.text.splitlines() if self.language == "sh" else []
        return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("nmf-xp ")]


def pages() -> list[Path]:
    """The pages that have code to run."""
    return [page for page in documents() if any(b.language == "python" or b.commands for b in blocks(page))]


def documents() -> list[Path]:
    """The README and the pages of the documentation, without the tables that programs write and what Sphinx builds."""
    left_out = {ROOT / "docs" / "benchmarks", ROOT / "docs" / "_build"}
    return [ROOT / "README.md", *(p for p in sorted(ROOT.glob("docs/**/*.md")) if left_out.isdisjoint(p.parents))]


def blocks(page: Path) -> list[Block]:
    """The blocks of code of a page."""
    text = page.read_text(encoding="utf-8")
    return [Block(text.count("\n", 0, m.start(2)) + 1, m[1], m[2]) for m in FENCE.finditer(text)]


def sentences(text: str) -> Iterator[str]:
    """The sentences of a page's text, without code blocks, tables, headings and displayed formulas.

    A formula or a piece of code within a sentence is one word. A full stop in an abbreviation ends a sentence too.
    """
    prose = ONE_WORD.sub("X", NO_PROSE.sub("", text))
    for paragraph in PARAGRAPH.split(prose):
        yield from filter(None, SENTENCE.split(" ".join(paragraph.split())))


def pictures(page: Path) -> list[str]:
    """The names of the pictures of docs/figures that a page shows."""
    return re.findall(r"!\[[^]]*\]\([./]*figures/([^)]+)\)", page.read_text(encoding="utf-8"))


def gallery() -> str:
    """The page of all pictures that pages and examples make, in the order of the pages, each once."""
    parts, seen = [GALLERY_HEAD], {GALLERY}
    for page in sorted(documents()[1:], key=lambda page: page != FIRST):
        text = page.read_text(encoding="utf-8")
        heading, path = text.partition("\n")[0].removeprefix("# "), page.relative_to(GALLERY.parent).as_posix()
        for words, name in SHOWN.findall(text) if page not in seen else ():
            place = GALLERY.parent / name if name in EXAMPLES else FIGURES / name
            if place in seen:
                continue
            seen.add(place)
            made = f" `python examples/{EXAMPLES[name]}`" if name in EXAMPLES else ""
            title = f"## {heading}\n\n" if page not in seen else ""
            seen.add(page)
            parts.append(
                f"{title}[![{words}]({place.relative_to(GALLERY.parent).as_posix()})]({path})\n\n{words}.{made}\n"
            )
    return "\n".join(parts)


def absent_packages(page: Path) -> list[str]:
    """What a page imports at its outer level, and is not installed."""
    found = set()
    for block in blocks(page):
        for node in ast.parse(block.text).body if block.language == "python" else ():
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.split(".")[0])
    return sorted(name for name in found if importlib.util.find_spec(name) is None)


def run(page: Path) -> None:
    """Run a page in the current folder; an error names the line of the page."""
    from nmf_xp.cli import main

    namespace: dict[str, Any] = {"__name__": page.stem}
    printed = io.StringIO()
    for block in blocks(page):
        with contextlib.redirect_stdout(printed):
            if block.language == "python":
                exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), namespace)
            for command in block.commands:
                status = main(command)
                if status != 0:
                    msg = f"{page}, line {block.line}: nmf-xp {shlex.join(command)} returned {status}"
                    raise RuntimeError(msg)
        if block.language == "output":
            if not alike(block.text.splitlines(), printed.getvalue().splitlines()):
                msg = f"{page}, line {block.line}: what is printed is\n{printed.getvalue()}"
                raise AssertionError(msg)
            printed = io.StringIO()


def alike(shown: list[str], printed: list[str]) -> bool:
    """Whether lines are the same but for spaces, times and the last digits of numbers."""
    if not shown:
        return not printed
    if shown[0] == "...":
        return any(alike(shown[1:], printed[i:]) for i in range(len(printed) + 1))
    return bool(printed) and _same(shown[0], printed[0]) and alike(shown[1:], printed[1:])


def _same(shown: str, printed: str) -> bool:
    one, other = (" ".join(TIME.sub("TIME", line).split()) for line in (shown, printed))
    numbers = zip(NUMBER.findall(one), NUMBER.findall(other), strict=False)
    close = all(math.isclose(float(x), float(y), rel_tol=CLOSE, abs_tol=NOTHING) for x, y in numbers)
    return close and NUMBER.sub("0", one) == NUMBER.sub("0", other)


@contextlib.contextmanager
def empty_folder() -> Iterator[Path]:
    """A new folder, which is the current one meanwhile."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield Path(folder)
        finally:
            os.chdir(before)


def main(*names: str) -> None:
    """Draw the pictures anew."""
    os.environ.setdefault("MPLBACKEND", "agg")
    for page in [Path(name).resolve() for name in names] or pages():
        shown = pictures(page)
        if not shown:
            continue
        with empty_folder() as folder:
            run(page)
            for name in shown:
                shutil.copyfile(folder / name, FIGURES / name)
                print(f"docs/figures/{name}: {(FIGURES / name).stat().st_size // 1000} kB")
    GALLERY.write_text(gallery(), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
