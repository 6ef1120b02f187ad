"""What a user sees of the package itself: its names, its version, its documentation."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path
from typing import TYPE_CHECKING

import nmf_xp

if TYPE_CHECKING:
    import pytest

ROOT = Path(__file__).parents[1]


def test_version_is_that_of_the_installed_package() -> None:
    assert nmf_xp.__version__ == importlib.metadata.version("nmf_xp")


def test_all_public_names_exist_and_are_documented() -> None:
    assert sorted(nmf_xp.__all__) == nmf_xp.__all__
    for name in nmf_xp.__all__:
        assert getattr(nmf_xp, name).__doc__, name


def test_links_between_the_documents_lead_somewhere() -> None:
    for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("docs/recipes/*.md")):
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_the_code_of_the_documentation_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = (
        "index",
        "data-kinds",
        "larger-than-memory",
        "choosing-the-rank",
        "checkpoints",
        "conformance",
        "coming-from-scikit-learn",
        "many-devices",
        "seeing-the-result",
    )
    pages = ("README.md", *(f"docs/{name}.md" for name in names))
    for page in pages:
        blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
        assert blocks
        exec("\n".join(blocks), {})
