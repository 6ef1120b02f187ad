"""What a visitor sees first: true pictures, badges and figures, and pages that need no network and cut nothing."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.scripts import ROOT, load

if TYPE_CHECKING:
    from pathlib import Path

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_badges_say_what_pyproject_says() -> None:
    made = load("ci/badges.py").badges()
    assert {path.name for path in (ROOT / "docs/badges").iterdir()} == set(made)
    for name, picture in made.items():
        assert (ROOT / "docs/badges" / name).read_text(encoding="utf-8") == picture, "python ci/badges.py"
        assert f"(docs/badges/{name})" in README
        words = re.search(r'aria-label="(.+?)"', picture)
        assert words is not None
    assert "BSD-3-Clause" in made["licence.svg"]
    assert "3.11 | 3.12 | 3.13" in made["python.svg"]


def test_the_readme_loads_no_picture_from_elsewhere() -> None:
    assert not re.findall(r"!\[[^]]*\]\(https?:", README)


def row(page: str, table: str, side: str) -> list[str]:
    """The cells of a side in a table of measurements, which begins with that text."""
    text = (ROOT / "docs/benchmarks" / page).read_text(encoding="utf-8")
    after = text[text.index(table) :]
    (line,) = [line for line in after.splitlines() if re.search(rf"\| {re.escape(side)} +\|", line)][:1]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_figures_of_the_readme_are_those_of_the_benchmarks() -> None:
    dense = row("time-to.md", "**Kullback-Leibler, dense", "nmf_xp auto (= newton)")
    sparse = row("time-to.md", "**Kullback-Leibler, csr", "nmf_xp auto (= newton)")
    for cells, worst in ((dense, "1.29"), (sparse, "34.4")):
        *_, mean, said, failed = cells
        none, _, cases = failed.partition(" of ")
        assert none == "0"
        assert f"**{mean} times**" in README
        assert said.startswith(f"{worst}:")
        assert f"{worst} in the worst of [{cases} cases]" in README
    ours, theirs = (row("memory.md", "| data", side) for side in ("nmf_xp auto", "scikit-learn mu"))
    assert f"**{ours[2]}**" in README
    assert f"scikit-learn takes {theirs[2]}" in README
    assert ours[0] == theirs[0] == "4000 x 4000, rank 20"


def test_the_gallery_shows_every_picture_and_leads_to_its_code() -> None:
    pages = load("ci/pages.py")
    text = pages.GALLERY.read_text(encoding="utf-8")
    wanted = "from pathlib import Path; import pages; pages.GALLERY.write_text(pages.gallery())"
    assert text == pages.gallery(), f"cd ci && python -c '{wanted}'"
    shown = set(re.findall(r"\(([\w/-]+\.png)\)\]", text))
    assert shown == {f"figures/{path.name}" for path in pages.FIGURES.iterdir()} | set(pages.EXAMPLES)
    for example in pages.EXAMPLES.values():
        assert (ROOT / "examples" / example).exists()


@pytest.mark.filterwarnings("ignore:::lda")  # leaves its files open
def test_the_first_picture_is_what_the_example_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for library in ("lda", "scipy", "sklearn"):
        pytest.importorskip(library, reason=f"{library} is not installed")
    plt = pytest.importorskip("matplotlib.pyplot", reason="matplotlib is not installed")
    monkeypatch.setenv("MPLBACKEND", "agg")
    load("examples/first_picture.py").main(str(tmp_path / "drawn.png"))
    paths = (ROOT / "docs/first-picture.png", tmp_path / "drawn.png")
    shown, drawn = (plt.imread(path)[..., :3].mean(axis=2) for path in paths)
    assert drawn.shape == shown.shape
    alike = np.corrcoef(drawn.ravel(), shown.ravel())[0, 1]
    assert alike > 0.9, "python examples/first_picture.py docs/first-picture.png"


def test_what_a_page_loads_or_cuts_is_found(tmp_path: Path) -> None:
    look = load("ci/look.py")
    head = "<!DOCTYPE html><meta name=viewport content='width=device-width'>"
    (tmp_path / "good.html").write_text(
        f"{head}<article><pre style='white-space:pre-wrap'>{'x ' * 400}</pre></article>"
    )
    (tmp_path / "bad.html").write_text(
        f"{head}<script src='https://example.org/x.js'></script><article><pre style='overflow:auto'>{'x ' * 400}</pre>"
        "<p style='width:2000px'>wide</p><img src='lacking.png'></article>"
    )
    (found,) = look.loads(tmp_path)
    assert found.startswith("bad.html loads something from elsewhere")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no Chromium to look at pages")
    seen = look.cut(tmp_path, chromium)
    assert all(line.startswith("bad.html at ") for line in seen)
    for width in look.WIDTHS:
        for what in ("a line of code is cut: x x", "wider than the page: wide", "no picture: "):
            assert any(line.startswith(f"bad.html at {width}: {what}") for line in seen), (width, what, seen)
