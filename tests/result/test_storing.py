"""A result into a file, out of it, and onto a page."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import nmf_xp
from nmf_xp import FileError, Robust, load, nmf
from nmf_xp.cli import main
from tests.problems import noisy

if TYPE_CHECKING:
    from nmf_xp.testing import Target

pandas: Any = pytest.importorskip("pandas")

FEW: dict[str, Any] = {"random_state": 0, "max_iter": 40}
V = noisy(12, 6, 3).V + 0.0
TABLE = pandas.DataFrame(V, [f"sample {i}" for i in range(12)], list("abcdef"))
SUFFIXES = [".npz", ".safetensors"]
NUMBERS = ("divergence", "objective", "kkt_residual", "n_iter", "status", "history", "solver", "beta", "explained")


@pytest.fixture(params=SUFFIXES)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == ".safetensors":
        pytest.importorskip("safetensors")
    return tmp_path / f"result{request.param}"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_saved_is_loaded(path: Path, dtype: str) -> None:
    result = nmf(TABLE.astype(dtype), 3, alpha_W=0.01, **FEW).named(components=["x", "y", "z"])
    result.save(path)
    found = load(path)
    for name in "WH":
        assert getattr(found, name).dtype == dtype
        np.testing.assert_array_equal(getattr(found, name), getattr(result, name))
    for name in (*NUMBERS, "row_names", "column_names", "component_names"):
        assert getattr(found, name) == getattr(result, name), name
    assert str(found) == str(result)
    found.save(path.with_stem("again"))
    assert load(path.with_stem("again")).explained == result.explained


def test_arrays_of_every_library_are_saved(target: Target, tmp_path: Path) -> None:
    result = nmf(target.asarray(V), 3, n_restarts=2, keep_restarts=True, **FEW)
    result.save(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as stored:
        assert stored["restart_cosines"].shape == (1, 3)
        assert np.all((stored["restart_cosines"] > 0) & (stored["restart_cosines"] <= 1))
    np.testing.assert_array_equal(load(tmp_path / "a.npz").H, target.to_numpy(result.H))


def test_a_robust_loss_and_restarts(path: Path) -> None:
    result = nmf(V, 2, beta_loss=Robust("kullback-leibler", "cauchy", 0.3), n_restarts=3, **FEW)
    result.save(path)
    found = load(path)
    assert found.robust == result.robust
    assert found.restarts is None
    with pytest.raises(ValueError, match="`explained`"):
        _ = found.explained


def test_without_checks_and_without_names(path: Path) -> None:
    nmf(V, 2, tol=0, **FEW).save(path)
    found = load(path)
    assert found.history == ()
    assert (found.row_names, found.column_names, found.component_names) == (None, None, None)


def test_what_the_command_wrote_is_loaded_and_the_other_way_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    TABLE.to_csv("V.csv")
    assert main(["fit", "V.csv", "-k", "3", "--beta-loss", "1", "--random-state", "0", "--out", "f.npz"]) == 0
    found, expected = load("f.npz"), nmf(TABLE, 3, beta_loss=1, random_state=0)
    np.testing.assert_allclose(found.W, expected.W, rtol=1e-6)
    assert found.column_names == tuple(TABLE.columns)
    assert found.explained == pytest.approx(expected.explained)
    expected.save("mine.npz")
    assert main(["report", "mine.npz"]) == 0
    assert "sample 3" in Path("mine.report.html").read_text(encoding="utf-8")
    assert "ConvergenceWarning" not in capsys.readouterr().err


def test_the_page_has_names_and_numbers(tmp_path: Path) -> None:
    result = nmf(TABLE.rename(columns={"a": "<b>&"}), 3, **FEW).named(components=["energy", "<i>", "money"])
    result.report(tmp_path / "page.html", title="A title", n_top=3)
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    for name in ("A title", "energy", "&lt;i&gt;", "&lt;b&gt;&amp;", "sample "):
        assert name in text
    assert "<b>&" not in text
    assert f"{result.explained:.2%} of the divergence of V from the means of its columns" in text
    nmf(V, 2, **FEW).report(tmp_path / "parts.htm", shape=(2, 3))
    assert (tmp_path / "parts.htm").read_text(encoding="utf-8").count('<img class="part shades" alt="H[') == 2


def test_what_cannot_be_written_says_why(tmp_path: Path) -> None:
    result = nmf(V, 2, **FEW)
    with pytest.raises(ValueError, match=re.escape("`path` must end with .npz or .safetensors, got 'a.csv'")):
        result.save(tmp_path / "a.csv")
    with pytest.raises(ValueError, match=re.escape("`path` must end with .html, got 'a.txt'")):
        result.report(tmp_path / "a.txt")
    stack = nmf(np.stack([V, V]), 2, **FEW)
    with pytest.raises(TypeError, match="one member of a stack"):
        stack.save(tmp_path / "a.npz")
    with pytest.raises(TypeError, match="one member of a stack"):
        stack.report(tmp_path / "a.html")
    with pytest.raises((FileError, OSError)):
        result.save(tmp_path / "nowhere" / "a.npz")
    assert list(tmp_path.iterdir()) == []


def test_what_holds_no_result_is_an_error(tmp_path: Path) -> None:
    np.savez(tmp_path / "others.npz", A=V)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "others.npz").read_bytes()[:-20])
    nmf(V, 2, **FEW).save(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as stored:
        whole = dict(stored)
    np.savez(tmp_path / "names.npz", **{**whole, "component_names": np.asarray(["x"])})
    np.savez(tmp_path / "loss.npz", **{**whole, "robust": np.asarray('{"phi": "none"}')})
    np.savez(tmp_path / "text.npz", **{**whole, "beta": np.asarray("two"), "status": np.asarray("FINE")})
    for name, reason in (
        ("others.npz", "holds no W"),
        ("cut.npz", "cannot be read"),
        ("missing.npz", "no such file"),
        ("names.npz", "1 component names for 2"),
        ("loss.npz", "its loss is none"),
        ("a.csv", "suffix"),
    ):
        with pytest.raises(FileError, match=reason):
            load(tmp_path / name)
    found = load(tmp_path / "text.npz")
    assert math.isnan(found.beta)


def test_loading_runs_nothing(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", W=np.asarray([[{}]], dtype=object), H=V, version="1")
    with pytest.raises(FileError):
        load(tmp_path / "a.npz")


def test_names_reach_the_version_that_wrote_them(tmp_path: Path) -> None:
    nmf(TABLE, 2, **FEW).save(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as stored:
        assert str(stored["version"]) == nmf_xp.__version__
        assert stored["row_names"].tolist() == list(TABLE.index)
