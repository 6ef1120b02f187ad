"""`transform`, `select` and a folder as output: tables in, tables out, with names."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nmf_xp
from nmf_xp.cli import main
from nmf_xp.files import FileError

rng = np.random.default_rng(0)
V = rng.poisson(rng.gamma(0.5, 4.0, (60, 3)) @ rng.gamma(0.5, 1.0, (3, 12))).astype(float)
GENES = [f"gene{j}" for j in range(12)]
KL = ["--beta-loss", "kullback-leibler", "--random-state", "0"]


def write(path: str, values: Any, columns: list[str], rows: list[str] | None = None) -> None:
    with Path(path).open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", *columns])
        table.writerows([name, *row] for name, row in zip(rows or map("cell{}".format, range(60)), values, strict=True))


def table(path: str) -> tuple[list[str], list[str], np.ndarray[Any, Any]]:
    """Names of rows and columns, and the values."""
    with Path(path).open(newline="") as file:
        (_, *columns), *lines = csv.reader(file)
    return [line[0] for line in lines], columns, np.asarray([line[1:] for line in lines], dtype=float)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write("counts.csv", V, GENES)
    return tmp_path


def test_csv_to_csv_with_names(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "counts.csv", "-k", "3", "--out", "factors", *KL]) == 0
    assert "written       factors" in capsys.readouterr().out
    assert sorted(x.name for x in (here / "factors").iterdir()) == ["H.csv", "W.csv", "factors.npz"]
    expected = nmf_xp.nmf(V, 3, beta_loss=1, random_state=0)
    rows, columns, W = table("factors/W.csv")
    assert rows == [f"cell{i}" for i in range(60)]
    assert columns == [f"component_{k}" for k in range(3)]
    np.testing.assert_array_equal(W, expected.W)
    rows, columns, H = table("factors/H.csv")
    assert columns == GENES
    np.testing.assert_array_equal(H, expected.H)
    assert main(["fit", "counts.csv", "-k", "3", "--out", "factors", *KL]) == 2
    assert "factors.npz: exists already; say --force" in capsys.readouterr().err
    assert main(["fit", "counts.csv", "-k", "2", "--out", "factors", "--force", "--quiet"]) == 0
    assert table("factors/W.csv")[2].shape == (60, 2)


def test_a_folder_cannot_take_the_place_of_a_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("taken").write_text("mine")
    assert main(["fit", "counts.csv", "-k", "3", "--out", "taken"]) == 2
    assert "taken: is a file, not a folder" in capsys.readouterr().err
    assert Path("taken").read_text() == "mine"
    assert main(["fit", "counts.csv", "-k", "3", "--out", "no/such/place"]) == 2
    assert not (here / "no").exists()


def test_names_that_a_spreadsheet_would_run_are_text(here: Path) -> None:
    write("names.csv", V, ["=1+1", "@x", "+y", "-z", *GENES[4:]], [f"=cell{i}" for i in range(60)])
    assert main(["fit", "names.csv", "-k", "3", "--out", "factors", *KL]) == 0
    assert table("factors/H.csv")[1][:5] == ["'=1+1", "'@x", "'+y", "'-z", "gene4"]
    assert table("factors/W.csv")[0][0] == "'=cell0"
    assert nmf_xp.load("factors/factors.npz").column_names[0] == "=1+1"  # type: ignore[index]


def test_a_folder_that_fit_wrote_is_taken_as_its_factors(here: Path) -> None:
    assert main(["fit", "counts.csv", "-k", "2", "--random-state", "0", "--out", "found"]) == 0
    assert main(["transform", "counts.csv", "found", "--out", "found/new.csv"]) == 0
    assert main(["report", "found"]) == 0
    assert Path("found.report.html").is_file()
    assert main(["fit", "counts.csv", "-k", "2", "--start", "found", "--out", "again.npz"]) == 0
    assert nmf_xp.load("found").n_iter == nmf_xp.load("found/factors.npz").n_iter
    Path("empty").mkdir()
    with pytest.raises(FileError, match="empty: "):
        nmf_xp.load("empty")


def test_transform_takes_columns_by_their_names(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "counts.csv", "-k", "3", "--out", "f.npz", *KL]) == 0
    write("new.csv", np.column_stack([V[:, ::-1], np.full(60, 7)]), [*GENES[::-1], "other"])
    capsys.readouterr()
    assert main(["transform", "new.csv", "f.npz", "--tol", "1e-8", "--max-iter", "2000"]) == 0
    assert "columns are taken by the names of f.npz, without 1 that it does not have" in capsys.readouterr().out
    rows, columns, W = table("new.loadings.csv")
    assert rows[0] == "cell0"
    assert columns == [f"component_{k}" for k in range(3)]
    expected = nmf_xp.transform(V, nmf_xp.load("f.npz").H, beta_loss=1, tol=1e-8, max_iter=2000).W
    np.testing.assert_array_equal(W, expected)
    assert main(["transform", "new.csv", "f.npz", "--out", "w.npz"]) == 0
    assert nmf_xp.load("w.npz").column_names == tuple(GENES)
    write("few.csv", V[:, 2:], GENES[2:])
    assert main(["transform", "few.csv", "f.npz"]) == 2
    assert "few.csv: lacks 'gene0', 'gene1'; it must have those of f.npz" in capsys.readouterr().err
    write("twice.csv", V, [*GENES[::-1][:-1], "gene1"])
    assert main(["transform", "twice.csv", "f.npz"]) == 2
    assert main(["transform", "counts.csv", "counts.csv"]) == 2
    assert main(["transform", "new.csv", "f.npz", "--out", "f.npz", "--force"]) == 2
    assert nmf_xp.load("f.npz").W.shape == (60, 3)


def test_transform_by_the_loss_of_the_fit_or_the_one_that_is_said(here: Path) -> None:
    np.save("v.npy", V)
    assert main(["fit", "v.npy", "-k", "3", "--out", "f.npz", "--beta-loss", "1.5", "--random-state", "0"]) == 0
    assert main(["transform", "v.npy", "f.npz", "--out", "a.npz", "--quiet"]) == 0
    assert nmf_xp.load("a.npz").beta == 1.5
    assert main(["transform", "v.npy", "f.npz", "--out", "b.npz", "--beta-loss", "frobenius", "--quiet"]) == 0
    assert nmf_xp.load("b.npz").beta == 2


def test_json_and_quiet(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "counts.csv", "-k", "3", "--out", "f.npz", "--json", *KL]) == 0
    said = json.loads(capsys.readouterr().out)
    expected = nmf_xp.nmf(V, 3, beta_loss=1, random_state=0)
    assert said["shape"] == [60, 12]
    assert said["divergence"] == pytest.approx(float(expected.divergence))
    assert (said["status"], said["written"]) == (expected.status.name, "f.npz")
    assert main(["fit", "counts.csv", "-k", "3", "--out", "g.npz", "--quiet"]) == 0
    assert capsys.readouterr().out == ""
    with pytest.raises(SystemExit) as ended:
        main(["fit", "counts.csv", "-k", "3", "--quiet", "--json"])
    assert ended.value.code == 2


def test_select_recommends_draws_and_keeps(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    some = ["select", "counts.csv", "--ranks", "2-4", "--n-restarts", "4", *KL]
    assert main([*some, "--plot", "ranks.png", "--out", "best.npz"]) == 0
    found = nmf_xp.select_rank(V, range(2, 5), n_restarts=4, beta_loss=1, random_state=0)
    said = capsys.readouterr().out
    assert f"Recommended: rank {found.rank}" in said
    assert "written       ranks.png" in said
    assert Path("ranks.png").read_bytes().startswith(b"\x89PNG")
    best = nmf_xp.load("best.npz")
    np.testing.assert_array_equal(best.W, found.best[found.rank].W)
    assert best.column_names == tuple(GENES)
    assert main([*some, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["rank"] == found.rank
    assert said["table"]["rank"] == [2, 3, 4]
    assert main([*some, "--out", "best.npz"]) == 2


@pytest.mark.parametrize("text", ["", "x", "2-", "-3", "2-x", "2;3", "²"])
def test_ranks_that_are_none(text: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["select", "counts.csv", f"--ranks={text}"])
    assert ended.value.code == 2
    assert "must be like 2-9 or 2,4,8" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "option", "near"),
    [
        ("fit", "--restarts", "--n-restarts"),
        ("fit", "--losses=kl", "--beta-loss"),
        ("select", "--rankz", "--ranks"),
        ("transform", "--backends", "--backend"),
        ("fit", "--zzz", ""),
        ("fit", "--seed=0", "--random-state"),
        ("fit", "--n-init", "--n-restarts"),
        ("fit", "--rank", "--n-components"),
        ("fit", "--delimiter", "--sep"),
        ("fit", "--output", "--out"),
        ("transform", "--loss", "--beta-loss"),
    ],
)
def test_an_unknown_option_names_the_nearest(
    command: str, option: str, near: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rest = {"fit": ["-k", "2"], "select": ["--ranks", "2"], "transform": ["f.npz"]}[command]
    with pytest.raises(SystemExit) as ended:
        main([command, "counts.csv", *rest, option])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "no such option" in said
    assert (f"did you mean {near}?" in said) is bool(near)


def test_an_unknown_option_is_said_before_what_is_lacking(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        (["fit", "counts.csv", "--rank", "2"], "--rank: no such option; did you mean --n-components?"),
        (["fit", "counts.csv", "counts.csv", "-k", "2"], "counts.csv: is one name too many; put quotes around a name"),
        (["cnmf", "factorize", "--workers", "2"], "--workers: no such option; did you mean --total-workers?"),
    ):
        with pytest.raises(SystemExit):
            main(words)
        assert f"error: {said}" in capsys.readouterr().err


def test_an_error_of_select_speaks_of_its_options(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        (["--ranks", "2-90"], "--ranks must be an integer from 1 to m + n = 72, got 73"),
        (["--ranks", "3"], "--ranks must hold at least two different ranks"),
        (["--ranks", "2-3", "--rule", "elbow"], "--rule must be one of"),
        (["--ranks", "2-3", "--beta-loss", "0"], "use a --beta-loss above 0"),
    ):
        assert main(["select", "counts.csv", *words]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert "`" not in error
