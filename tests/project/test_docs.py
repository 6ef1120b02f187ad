"""The documentation does what it says: the code of every page runs, and draws the pictures that the page shows.

No sentence is long, because many readers are no native speakers.
"""

from __future__ import annotations

import itertools
import os
import re
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import nmf_xp
from tests.scripts import ROOT, load

if TYPE_CHECKING:
    from pathlib import Path

ci_pages = load("ci/pages.py")
PAGES = {page.relative_to(ROOT).as_posix(): page for page in ci_pages.pages()}
DOCUMENTS = {page.relative_to(ROOT).as_posix(): page for page in ci_pages.documents()}
TASKS = "docs/how-to/tasks.md"
LONGEST = 30  # words of a sentence
# What they do when they are loaded or called is not ours to mend.
OTHERS = ("ignore:::(nimfa|torchnmf|torch|tensorly|lda)", "ignore:the matrix subclass:PendingDeprecationWarning")


def grey(path: Path) -> Any:
    """A picture as grey values."""
    plt = pytest.importorskip("matplotlib.pyplot", reason="matplotlib is not installed")
    return plt.imread(path)[..., :3].mean(axis=2)


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.filterwarnings(*OTHERS)
def test_the_code_of_a_page_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = PAGES[name]
    absent = ci_pages.absent_packages(page)
    if absent and not os.environ.get("CI"):
        pytest.skip(f"this page needs {', '.join(absent)}")
    assert not absent, f"in CI every page is run, and {name} needs {', '.join(absent)}"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    with warnings.catch_warnings():
        if name == TASKS:  # nothing warns there, of what was not reached either
            warnings.simplefilter("error", nmf_xp.ConvergenceWarning)
        ci_pages.run(page)
    for picture in ci_pages.pictures(page):
        drawn, shown = grey(tmp_path / picture), grey(ci_pages.FIGURES / picture)
        assert drawn.shape == shown.shape
        # Fonts and the last digits of a factorization differ between machines; another picture correlates less.
        assert np.corrcoef(drawn.ravel(), shown.ravel())[0, 1] > 0.9, f"draw it anew: python ci/pages.py {name}"


def test_the_pages_with_code_are_found() -> None:
    assert {"README.md", "docs/index.md", "docs/data-kinds.md"} <= set(PAGES)
    assert not [name for name in PAGES if "_build" in name]


def test_every_committed_picture_is_shown_and_small() -> None:
    shown = {name for page in PAGES.values() for name in ci_pages.pictures(page)}
    files = {path.name: path.stat().st_size for path in ci_pages.FIGURES.iterdir()}
    assert set(files) == shown
    assert max(files.values()) < 150_000


def test_a_failure_names_the_page_and_its_line(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Title\n\n```python\nx = 1\n```\n\n```python\nassert x == 2\n```\n", encoding="utf-8")
    with pytest.raises(AssertionError) as error:
        ci_pages.run(page)
    assert str(error.traceback[-1].path).endswith("page.md")
    assert error.traceback[-1].lineno == 7  # counted from 0


def test_a_failing_command_is_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text("```sh\npip install nothing\nnmf-xp fit no-such-file.csv -k 2\n```\n", encoding="utf-8")
    with pytest.raises(RuntimeError, match=r"line 2: nmf-xp fit no-such-file.csv -k 2 returned 2"):
        ci_pages.run(page)
    assert "no-such-file.csv" in capsys.readouterr().err


def test_there_are_twenty_tasks_of_at_most_five_lines_each() -> None:
    blocks = ci_pages.blocks(PAGES[TASKS])
    text = PAGES[TASKS].read_text(encoding="utf-8")
    headings = [
        (int(m[1]), text.count("\n", 0, m.start()) + 1) for m in re.finditer(r"^## (\d+)\. ", text, re.MULTILINE)
    ]
    assert [number for number, _ in headings] == list(range(1, 21))
    for (number, line), (_, end) in itertools.pairwise([*headings, (21, text.count("\n") + 1)]):
        code = "".join(block.text for block in blocks if line < block.line < end)
        assert 1 <= len(list(filter(str.strip, code.splitlines()))) <= 5, f"task {number}"
        assert "[More](" in "\n".join(text.splitlines()[line:end])


def test_what_is_printed_is_compared(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    code = "```python\nprint('a 1.00 in 3 s')\nprint('b')\n```\n"
    for shown, fits in (
        ("a 1.01  in 9 s\nb", True),
        ("...\nb", True),
        ("...", True),
        ("a 2.00 in 3 s\nb", False),
        ("a 1.00 in 3 s", False),
        ("a 1.00 in 3 s\nb\nc", False),
        ("c 1.00 in 3 s\nb", False),
        ("b\n...", False),
    ):
        page.write_text(f"{code}\nThis is it:\n\n```output\n{shown}\n```\n", encoding="utf-8")
        if fits:
            ci_pages.run(page)
        else:
            with pytest.raises(AssertionError, match="line 9: what is printed is"):
                ci_pages.run(page)


def test_the_output_of_every_command_of_the_command_line_is_shown() -> None:
    blocks = ci_pages.blocks(PAGES["docs/command-line.md"])
    commands = [i for i, block in enumerate(blocks) if block.commands]
    assert len(commands) >= 8
    for i in commands:
        assert blocks[i + 1].language == "output", f"line {blocks[i].line}: what does it print?"


def test_absent_packages_are_named(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nimport no_such_package.part\nimport json\n```\n", encoding="utf-8")
    assert ci_pages.absent_packages(page) == ["no_such_package"]


def test_links_between_the_documents_lead_somewhere() -> None:
    built = ROOT / "docs" / "_build"
    for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")):
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert built in page.parents or (page.parent / link).exists(), f"{page.name} links to {link}"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_no_sentence_is_longer_than_30_words(name: str) -> None:
    found = ci_pages.sentences(DOCUMENTS[name].read_text(encoding="utf-8"))
    too_long = [sentence for sentence in found if len(sentence.split()) > LONGEST]
    assert not too_long, f"make each of these two sentences or a list: {too_long}"


def test_all_documents_are_read() -> None:
    assert {"README.md", "docs/design.md", "docs/how-to/gpu.md"} <= set(DOCUMENTS)
    assert not [name for name in DOCUMENTS if "_build" in name or name.startswith("docs/benchmarks/")]


def test_sentences_are_found_in_prose_only() -> None:
    long = " ".join(["word"] * 40)
    others = f"# {long}\n\n```python\n# {long}.\n```\n\n<!-- {long} -->\n| {long} |\n\n$$\n{long}\n$$\n"
    assert not list(ci_pages.sentences(others))
    text = f"{others}\nOne ends here. Why `{long}`?\nAnd ${long}$ is\ntwo lines:\n\n- {long}\n  and more\n- the next\n"
    assert list(ci_pages.sentences(text)) == [
        "One ends here.",
        "Why X?",
        "And X is two lines:",
        f"{long} and more",
        "the next",
    ]


@pytest.mark.parametrize(("ci", "outcome"), [("true", AssertionError), ("", pytest.skip.Exception)])
def test_a_page_without_its_packages_fails_in_ci_only(
    ci: str, outcome: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nimport no_such_package\n```\n", encoding="utf-8")
    monkeypatch.setitem(PAGES, "page.md", page)
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome, match="no_such_package"):
        test_the_code_of_a_page_runs("page.md", tmp_path, monkeypatch)
