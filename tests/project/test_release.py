"""A release: one version everywhere, its notes, and the documentation of every version side by side."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import nmf_xp
from tests.scripts import ROOT, load

if TYPE_CHECKING:
    from pathlib import Path

CONF = 'project = "p"\nextensions = []\nhtml_theme = "basic"\n'


def git(folder: Path, *words: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "tag.gpgSign=false", "-c", "commit.gpgSign=false"]
    subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What a release reads, as a repository of its own."""
    root = tmp_path / "checkout"
    for name in ("src/nmf_xp/__init__.py", "CITATION.cff", "CHANGELOG.md", "ci/release.sh", "ci/notes.py"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, root / name)
    git(root, "init", "-q")
    return root


def released(root: Path, version: str) -> subprocess.CompletedProcess[str]:
    git(root, "add", "-A")
    git(root, "commit", "-q", "--allow-empty", "-m", "x")
    words = ["bash", "ci/release.sh", version]
    environment = {"PATH": "/usr/bin:/bin", "PYTHON": sys.executable, "REHEARSAL": "1"}
    return subprocess.run(words, cwd=root, env=environment, capture_output=True, text=True, check=False)


def test_every_file_that_says_the_version_says_the_same() -> None:
    assert set(load("ci/notes.py").versions().values()) == {nmf_xp.__version__}


def test_the_notes_are_the_section_of_the_version(checkout: Path) -> None:
    notes, version = load("ci/notes.py"), nmf_xp.__version__
    (checkout / "CHANGELOG.md").write_text(f"# Changes\n\n## {version}, today\n\n- one\n\n## 0.0.1\n\n- old\n")
    assert notes.notes(version, checkout) == "- one\n"
    with pytest.raises(SystemExit, match=r"src/nmf_xp/__init__.py says .* and CITATION.cff says"):
        notes.notes("9.9", checkout)
    (checkout / "CHANGELOG.md").write_text("# Changes\n\n## Unreleased\n\n- one\n")
    with pytest.raises(SystemExit, match=r"has no section `## .*`; rename `## Unreleased`"):
        notes.notes(version, checkout)


def test_a_release_needs_a_clean_tree_its_notes_and_a_new_tag(checkout: Path) -> None:
    version = nmf_xp.__version__
    assert "has no section" in released(checkout, version).stderr
    (checkout / "CHANGELOG.md").write_text(f"# Changes\n\n## {version}\n\n- one\n")
    done = released(checkout, version)
    assert (done.returncode, done.stdout) == (0, f"rehearsed: v{version} can be released\n")
    assert "but src" in released(checkout, "9.9").stderr
    git(checkout, "tag", f"v{version}")
    assert f"the tag v{version} is there already" in released(checkout, version).stderr
    (checkout / "stray").write_text("x")
    words = ["bash", "ci/release.sh", version]
    done = subprocess.run(words, cwd=checkout, capture_output=True, text=True, check=False)
    assert "not committed" in done.stderr


def test_the_documentation_of_every_version_stands_side_by_side(tmp_path: Path) -> None:
    pytest.importorskip("sphinx", reason="sphinx is not installed")
    root, out, versions = tmp_path / "repository", tmp_path / "site", load("ci/versions.py")
    (root / "docs").mkdir(parents=True)
    (root / "docs" / "conf.py").write_text(CONF)
    git(root, "init", "-q")
    for text in ("v0.9.0", "v0.10.0", "now"):
        (root / "docs" / "index.rst").write_text(f"Page\n====\n\nThis is {text}.\n")
        git(root, "add", "-A")
        git(root, "commit", "-q", "-m", text)
        if text != "now":
            git(root, "tag", text)
    git(root, "tag", "version-of-a-paper")
    versions.main(str(out), root)
    for name, text in (("v0.9.0", "v0.9.0"), ("v0.10.0", "v0.10.0"), ("latest", "now")):
        assert f"This is {text}." in (out / name / "index.html").read_text(encoding="utf-8")
    page = (out / "index.html").read_text(encoding="utf-8")
    places = [page.index(f'href="{name}/index.html"') for name in ("latest", "v0.10.0", "v0.9.0")]
    assert places == sorted(places)  # the newest first, by number
    (out / "v0.9.0" / "index.html").write_text("kept")
    versions.main(str(out), root)
    assert (out / "v0.9.0" / "index.html").read_text() == "kept"
