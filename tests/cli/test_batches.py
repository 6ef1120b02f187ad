"""Batches on the command line: labels from files, effects into files, and back."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nmf_xp
from nmf_xp.cli import main
from nmf_xp.files import read_observed
from tests.cli.test_commands import GENES, KL, table, write

rng = np.random.default_rng(0)
LABELS = ["new" if i % 3 == 0 else "old" for i in range(60)]
EFFECTS = np.where(np.asarray(LABELS)[:, None] == "new", np.repeat([1.0, 5.0, 0.4], 4), 1.0)
V = rng.poisson(rng.gamma(0.5, 20.0, (60, 3)) @ rng.gamma(0.5, 1.0, (3, 12)) * EFFECTS).astype(float)
FIT = ["fit", "counts.csv", "-k", "3", *KL]
TIGHT = ["--tol", "1e-9", "--max-iter", "3000"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write("counts.csv", V, GENES)
    Path("labels.txt").write_text("\n".join(LABELS) + "\n", encoding="utf-8")
    return tmp_path


def fitted(**options: Any) -> Any:
    return nmf_xp.nmf(V, 3, beta_loss=1, random_state=0, batch=LABELS, **options)


def test_effects_are_those_of_nmf_and_are_written_with_names(here: Path) -> None:
    assert main([*FIT, "--batch", "labels.txt", "--batch-prior", "3", "--out", "found"]) == 0
    expected = fitted(batch_prior=3.0)
    assert sorted(x.name for x in (here / "found").iterdir()) == ["H.csv", "W.csv", "batch_effects.csv", "factors.npz"]
    rows, columns, effects = table("found/batch_effects.csv")
    assert (rows, columns) == (["new", "old"], GENES)
    np.testing.assert_array_equal(effects, np.stack(list(expected.batch_effects.values())))
    kept = nmf_xp.load("found/factors.npz")
    assert kept.batch_labels == ("new", "old")
    assert kept.batch_effects is not None
    np.testing.assert_array_equal(kept.batch_effects["new"], expected.batch_effects["new"])
    with np.load("found/factors.npz", allow_pickle=False) as stored:
        np.testing.assert_allclose(stored["batch_shares"], [1 / 3, 2 / 3])
        model = (
            expected.W
            @ expected.H
            * np.where(
                np.asarray(LABELS)[:, None] == "new", expected.batch_effects["new"], expected.batch_effects["old"]
            )
        )
        np.testing.assert_allclose(stored["model_cells"], model, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(stored["residual_cells"], V - model, rtol=1e-4, atol=1e-4)
        assert "reference" not in stored  # effects explain a part of V, which is no part of WH


def test_effects_of_an_earlier_fit_do_not_stay_beside_other_factors(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*FIT, "--batch", "labels.txt", "--out", "found"]) == 0
    before = Path("found/W.csv").read_bytes()
    assert main([*FIT, "--batch", "labels.txt", "--out", "found"]) == 2
    for words in ([], ["--force"]):
        assert main([*FIT, "--out", "found", *words]) == 2
    assert "batch_effects.csv: is of a fit with batches, unlike this one" in capsys.readouterr().err
    assert Path("found/W.csv").read_bytes() == before
    assert main([*FIT, "--batch", "labels.txt", "--out", "found", "--force", "-k", "2"]) == 0
    assert table("found/W.csv")[2].shape == (60, 2)


def test_labels_come_by_name_or_in_the_order_of_the_rows(here: Path) -> None:
    pairs = [(f"cell{i}", label) for i, label in enumerate(LABELS)]
    for path, separator in (("named.csv", ","), ("named.tsv", "\t"), ("named.txt", "\t")):
        with Path(path).open("w", newline="") as file:
            lines = csv.writer(file, delimiter=separator)
            lines.writerows([("id", "machine"), *pairs[::-1], ("cell99", "other")])
        assert main([*FIT, "--batch", path, "--out", f"{path}.npz", "--quiet"]) == 0
        np.testing.assert_array_equal(nmf_xp.load(f"{path}.npz").W, fitted().W)
    Path("spoken.txt").write_text("\n".join("old, or so" if x == "old" else x for x in LABELS), encoding="utf-8")
    assert main([*FIT, "--batch", "spoken.txt", "--out", "a.npz", "--quiet"]) == 0
    assert nmf_xp.load("a.npz").batch_labels == ("new", "old, or so")


def test_a_column_of_obs(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    anndata = pytest.importorskip("anndata", reason="anndata is not installed")
    pytest.importorskip("h5py", reason="h5py is not installed")
    import pandas as pd

    adata = anndata.AnnData(V)
    adata.obs["machine"] = pd.Categorical(LABELS)
    adata.obs["text"] = LABELS
    adata.obs["number"] = [2 if x == "new" else 10 for x in LABELS]
    adata.obs["flag"] = [x == "new" for x in LABELS]
    adata.obs["gaps"] = pd.Categorical([None, *LABELS[1:]])
    adata.obs["holes"] = [np.nan, *[1.0] * 59]
    adata.write_h5ad("cells.h5ad")
    found = {"machine": ("new", "old"), "text": ("new", "old"), "number": ("10", "2"), "flag": ("False", "True")}
    for column, labels in found.items():
        words = ["fit", "cells.h5ad", "-k", "3", *KL, "--batch", column, "--out", f"{column}.npz", "--quiet"]
        assert main(words) == 0
        kept = nmf_xp.load(f"{column}.npz")
        assert kept.batch_labels == labels
        np.testing.assert_allclose(kept.W @ kept.H, fitted().W @ fitted().H, rtol=1e-2, atol=1e-2)
    for column, said in (("gaps", "no value for row 0"), ("holes", "no value for row 0"), ("lane", "holds no 'lane'")):
        assert main(["fit", "cells.h5ad", "-k", "3", *KL, "--batch", column]) == 2
        assert said in capsys.readouterr().err
    words = ["fit", "cells.h5ad", "-k", "3", *KL, "--batch", "labels.txt", "--out", "file.npz", "--quiet"]
    assert main(words) == 0
    np.testing.assert_array_equal(nmf_xp.load("file.npz").W, nmf_xp.load("text.npz").W)
    import h5py

    shutil.copy("cells.h5ad", "bad.h5ad")
    with h5py.File("bad.h5ad", "a") as file:
        del file["obs/text"]
        file["obs/text"] = h5py.ExternalLink("cells.h5ad", "obs/text")
        file["obs/machine/codes"][:] = 7
        file["obs/table"] = np.ones((60, 2))
        file["obs/short"] = np.ones(3)
    for column, said in (
        ("text", "a link to another file"),
        ("machine", "no value for row 0"),
        ("table", "along one axis"),
        ("short", "3 labels for 60 rows"),
    ):
        assert main(["fit", "bad.h5ad", "-k", "3", *KL, "--batch", column]) == 2
        assert said in capsys.readouterr().err
    shutil.copy("cells.h5ad", "records.h5ad")
    with h5py.File("records.h5ad", "a") as file:
        del file["obs"]
        file["obs"] = np.zeros(60, dtype=[("machine", "i4")])
    with pytest.raises(nmf_xp.FileError, match="stored as records"):
        read_observed(Path("records.h5ad"), "machine")


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_new_rows_take_the_effects_that_are_known(here: Path, capsys: pytest.CaptureFixture[str], suffix: str) -> None:
    if suffix == "safetensors":
        pytest.importorskip("safetensors", reason="safetensors is not installed")
    assert main([*FIT, "--batch", "labels.txt", "--out", f"f.{suffix}", "--quiet"]) == 0
    known = nmf_xp.load(f"f.{suffix}")
    lanes = ["old" if i < 30 else "third" for i in range(60)]
    Path("lanes.txt").write_text("\n".join(lanes), encoding="utf-8")
    write("new.csv", V[:, ::-1], GENES[::-1])  # columns in another order
    words = ["transform", "new.csv", f"f.{suffix}", *TIGHT]
    assert main([*words, "--batch", "lanes.txt", "--out", "w.npz"]) == 0
    found = nmf_xp.load("w.npz")
    expected = nmf_xp.transform(
        V, known.H, beta_loss=1, batch=lanes, batch_effects=known.batch_effects, tol=1e-9, max_iter=3000
    )
    np.testing.assert_allclose(found.W, expected.W, rtol=1e-6, atol=1e-6)
    assert found.batch_labels == ("old", "third")
    assert found.batch_effects is not None
    assert known.batch_effects is not None
    np.testing.assert_allclose(found.batch_effects["old"], known.batch_effects["old"])
    capsys.readouterr()
    assert main([*words, "--batch", "labels.txt", "--out", "w.csv"]) == 0
    np.testing.assert_allclose(table("w.csv")[2], known.W, rtol=0.1, atol=0.02 * known.W.max())
    assert capsys.readouterr().err == ""
    assert main([*words, "--out", "without.csv"]) == 0
    assert f"the effects of batches in f.{suffix} are left out; say --batch" in capsys.readouterr().err


@pytest.mark.parametrize("backend", ["jax", "torch", "array_api_strict"])
def test_backends_agree(here: Path, backend: str) -> None:
    pytest.importorskip(backend, reason=f"{backend} is not installed")
    words = ["--batch", "labels.txt", "--out", "a.npz", "--backend", backend, "--quiet", "--n-restarts", "2", *TIGHT]
    assert main([*FIT, *words]) == 0
    found, expected = nmf_xp.load("a.npz"), fitted(n_restarts=2, tol=1e-9, max_iter=3000)
    np.testing.assert_allclose(found.divergence, expected.divergence, rtol=1e-5)
    assert found.batch_effects is not None
    np.testing.assert_allclose(found.batch_effects["new"], expected.batch_effects["new"], rtol=1e-2)
    assert main(["transform", "counts.csv", "a.npz", "--batch", "labels.txt", "--backend", backend, "--quiet"]) == 0


BAD = {
    "short.txt": ("old\nnew\n", "short.txt: holds 2 labels for 60 rows"),
    "heading.txt": ("machine\n" + "\n".join(LABELS), "61 labels for 60 rows; leave out the heading"),
    "gap.csv": ("\n".join(["NA", *LABELS[1:]]), "has no label for row 0, counted from 0; name those"),
    "blank.txt": ("\n".join([*LABELS[:5], "", *LABELS[5:]]), "line 6 is empty"),
    "wide.csv": ("a,b,c\n" * 60, "in each line one label, or a row's name and its label"),
    "ragged.csv": ("a\n" * 59 + "a,b\n", "in each line one label, or a row's name and its label"),
    "few.csv": ("cell1,old\n\x1b[2J,new\n", "has no label for the rows 'cell0', 'cell2'"),
    "twice.csv": ("cell1,old\ncell1,new\n", "has different labels for the row 'cell1'"),
    "nul.txt": ("a\0\n" * 60, "line 1: a label is one line of text"),
    "open.csv": ('"a\nb"\n' * 60, "a label is one line of text"),
    "quotes.csv": ('"a\n' * 61, "see whether its quotes are closed"),
    "empty.txt": ("", "the file is empty"),
    "labels.xlsx": ("a\n" * 60, "the suffix '.xlsx' is none of .txt, .csv, .tsv"),
}


@pytest.mark.parametrize("name", BAD)
def test_labels_that_are_none(here: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    content, said = BAD[name]
    Path(name).write_text(content, encoding="utf-8")
    assert main([*FIT, "--batch", name]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert error.strip().isprintable()
    assert not Path("counts.factors.npz").exists()


def test_options_that_cannot_be(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save("V.npy", V)
    Path("named.csv").write_text("cell0,old\n" * 60, encoding="utf-8")
    for words, said in (
        (["fit", "counts.csv", "-k", "3", "--batch", "labels.txt"], "--batch needs --beta-loss kullback-leibler"),
        ([*FIT, "--batch-prior", "3"], "--batch-prior must come with --batch"),
        ([*FIT, "--batch", "labels.txt", "--batch-prior", "-1"], "--batch-prior must be"),
        ([*FIT, "--batch", "none.txt"], "none.txt: no such file"),
        (["fit", "V.npy", "-k", "3", *KL, "--batch", "named.csv"], "names of rows, which the matrix does not have"),
        ([*FIT, "--batch", "labels.npz", "--out", "labels.npz"], "is given by --out and is also what --batch names"),
    ):
        assert main(words) == 2
        assert said in capsys.readouterr().err


@pytest.mark.filterwarnings("default")
def test_names_of_batches_come_out_harmless(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = ["=1+1" if x == "new" else "\x1b[2J\u202eold" for x in LABELS]
    Path("hostile.txt").write_text("\n".join(hostile), encoding="utf-8")
    assert main([*FIT, "--batch", "hostile.txt", "--out", "found"]) == 0
    assert "\x1b" not in "".join(capsys.readouterr())
    assert table("found/batch_effects.csv")[0] == [r"\x1b[2J\u202eold", "'=1+1"]
    assert set(nmf_xp.load("found/factors.npz").batch_labels or ()) == set(hostile)

    own = np.random.default_rng(0)  # a component that is in the rows of one batch only
    W, H = own.dirichlet(np.full(3, 0.3), size=90), own.gamma(0.3, size=(3, 40))
    W[:60, 2] = 0
    np.save("apart.npy", own.poisson(300 * W @ H))
    np.savez("start.npz", W=W + 1e-30, H=H + 1e-9)
    Path("thirds.txt").write_text("\n".join(np.repeat(["a", "b", "\x1b[2Jc"], 30)), encoding="utf-8")
    words = ["fit", "apart.npy", "-k", "3", *KL, "--start", "start.npz", "--solver", "mu", "--batch", "thirds.txt"]
    assert main(words) == 0
    said = capsys.readouterr().err
    assert r"component 2 in '\x1b[2Jc'" in said
    assert said.strip().isprintable()
