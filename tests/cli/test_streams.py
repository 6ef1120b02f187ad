"""Standard streams that are closed, full or of a narrow encoding, and names of files that are no text."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nmf_xp.files import read_archive

FIT = [sys.executable, "-m", "nmf_xp", "fit"]
MATRIX = "1,2\n3,4\n5,6\n"

pytestmark = pytest.mark.skipif(os.name != "posix", reason="streams are closed as shells do")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "V.csv").write_text(MATRIX)
    return tmp_path


def run(*words: str, shell: str = "", **environment: str) -> Any:
    """A command as a shell begins it, with redirections."""
    line = ["sh", "-c", f'exec "$@" {shell}', "sh", *FIT, *words]
    return subprocess.run(
        line, capture_output=True, text=True, errors="replace", env={**os.environ, **environment}, check=False
    )


@pytest.mark.parametrize("shell", ["2>&-", ">&-", "<&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("more", [[], ["--progress"]])
def test_without_a_standard_stream_it_works(shell: str, more: list[str]) -> None:
    done = run("V.csv", "-k", "1", *more, shell=shell)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert Path("V.factors.npz").exists()
    again = run("V.csv", "-k", "1", shell=shell)
    assert again.returncode == 2  # the factors are there already
    assert "nmf-xp" not in again.stdout  # an error is no output, where it cannot be said


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no full device")
@pytest.mark.parametrize("words", [["V.csv", "-k", "1"], ["V.npy", "-k", "1"]])
def test_a_full_standard_output_is_one_line(words: list[str]) -> None:
    np.save("V.npy", np.ones((3, 2)))
    done = run(*words, shell=">/dev/full")
    assert done.returncode == 1
    assert done.stderr == "nmf-xp: error: standard output cannot be written: No space left on device\n"
    help_ = run("--help", shell=">/dev/full")
    assert "Traceback" not in help_.stderr + help_.stdout
    assert run("missing.npy", "-k", "1", shell="2>/dev/full").returncode == 2


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_a_name_that_cannot_be_printed_is_printed_with_escapes(here: Path, encoding: str) -> None:
    (here / "ü.csv").write_text(MATRIX)
    done = run("ü.csv", "-k", "1", "--out", "漢.npz", PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    assert ("漢" if encoding == "utf-8" else r"\u6f22") in done.stdout
    assert Path("漢.npz").exists()
    refused = run("漢.csv", "-k", "1", PYTHONIOENCODING=encoding)
    assert refused.returncode == 2
    assert refused.stderr.endswith("no such file\n")
    assert run("ü.csv", "-k", "漢", PYTHONIOENCODING=encoding).returncode == 2


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_a_name_that_is_no_text_is_kept_with_escapes(here: Path, suffix: str) -> None:
    if suffix == ".safetensors":
        pytest.importorskip("safetensors", reason="safetensors is not installed")
    name = b"a\x80b.csv".decode("utf-8", "surrogateescape")
    try:
        (here / name).write_text(MATRIX)
    except OSError:
        pytest.skip("the file system has only names that are text")
    done = run(name, "-k", "1", "--out", f"out{suffix}")
    assert done.returncode == 0, done.stderr
    _, texts = read_archive(here / f"out{suffix}")
    assert texts["input"].startswith("a")
    page = subprocess.run([*FIT[:-1], "report", f"out{suffix}"], capture_output=True, text=True, check=False)
    assert page.returncode == 0, page.stderr
