"""Files of other kinds on the command line: how they are said to be written, and what becomes of the names in them."""

from __future__ import annotations

import csv
import gzip
import re
from pathlib import Path

import numpy as np
import pytest

from nmf_xp.cli import main
from nmf_xp.files import read_matrix
from tests.files.kinds import KINDS, Given

for needed in ("scipy", "threadpoolctl", "h5py", "zarr", "pyarrow"):
    pytest.importorskip(needed, reason="files of several kinds are read")

V = np.random.default_rng(0).poisson(4.0, (6, 4)).astype(float)
EVIL = ["<script>alert(1)</script>", "\x1b[2J\x1b]0;x\x07", "two\nlines", "\u202etxt.exe", "=HYPERLINK(1)", " =1+1"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_separators_and_decimals_can_be_said(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("t.csv").write_text("id:x:y\na:1,5:2\nb:3:4\nc:5:6\n")
    assert main(["fit", "t.csv", "-k", "1"]) == 2
    assert main(["fit", "t.csv", "-k", "1", "--sep", ":", "--decimal", ","]) == 0
    said = capsys.readouterr().out
    assert "t.csv: a table with column names and row names, separated by ':', with decimal commas\n" in said
    with np.load("t.factors.npz") as found:
        assert found["row_names"].tolist() == ["a", "b", "c"]
    assert main(["fit", "t.csv", "-k", "1", "--sep", "::", "--force"]) == 2
    assert "`sep` must be one character" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "factors"),
    [
        ("V.csv.gz", "V.factors.npz"),
        ("V.mtx.gz", "V.factors.npz"),
        ("hg19", "hg19.factors.npz"),
        ("V.zarr", "V.factors.npz"),
        ("V.parquet", "V.factors.npz"),
    ],
)
def test_the_output_has_the_name_of_the_input_without_its_suffixes(here: Path, name: str, factors: str) -> None:
    kind = next(kind for kind in KINDS if kind.name == name)
    kind.write(here / name, Given(V, [f"r{i}" for i in range(6)], [f"c{j}" for j in range(4)]))
    assert main(["fit", name, "-k", "2", "--quiet"]) == 0
    assert Path(factors).is_file()


@pytest.mark.parametrize("name", ["V.h5ad", "three.zarr", "V.loom", "V.parquet", "V.feather", "tenx.h5"])
def test_hostile_names_come_out_harmless(here: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pandas", reason="pandas is not installed")
    kind = next(kind for kind in KINDS if kind.name == name)
    kind.write(here / name, Given(V, EVIL, EVIL[:4]))
    matrix = read_matrix(here / name)
    assert (matrix.row_names, matrix.column_names) == (EVIL, EVIL[:4])
    assert main(["fit", name, "-k", "2", "--out", "out"]) == 0
    assert main(["report", "out/factors.npz"]) == 0
    said = "".join(capsys.readouterr())
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", said)
    for path in ("out/W.csv", "out/H.csv"):
        text = Path(path).read_text(encoding="utf-8")
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)
        rows = list(csv.reader(text.splitlines()))
        assert len({len(row) for row in rows}) == 1
        assert not any(cell.strip()[:1] in ("=", "+", "@") for row in rows for cell in row)
    page = next(Path().glob("*.html")).read_text(encoding="utf-8")
    assert "alert(1)</script>" not in page
    assert "<script>alert" not in page
    assert "\x1b" not in page
    assert sorted(path.name for path in Path("out").iterdir()) == ["H.csv", "W.csv", "factors.npz"]


def test_a_file_whose_name_is_hostile_is_read_and_said_harmlessly(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path("\x1b[2J\u202e<script>.csv.gz")
    path.write_bytes(gzip.compress(b"a,b\n1,2\n3,4\n"))
    assert main(["fit", str(path), "-k", "1"]) == 0
    said = "".join(capsys.readouterr())
    assert "\\x1b[2J\\u202e<script>.factors.npz" in said
    assert not re.search(r"[\x1b\u202e]", said)
