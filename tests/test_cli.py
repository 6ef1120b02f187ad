"""The command line as a user meets it: what it prints, writes and returns."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nmf_xp
from nmf_xp.cli import main

V = np.random.default_rng(0).poisson(4.0, (20, 8)).astype(float)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a matrix, which is also the current one."""
    monkeypatch.chdir(tmp_path)
    np.save("V.npy", V)
    return tmp_path


def load(path: str) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as stored:
        return dict(stored)


def test_fit_equals_nmf_and_says_what_it_did(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "V.npy", "-k", "3", "--beta-loss", "kullback-leibler", "--random-state", "1"]) == 0
    found, expected = load("V.factors.npz"), nmf_xp.nmf(V, 3, beta_loss=1, random_state=1)
    np.testing.assert_array_equal(found["W"], expected.W)
    np.testing.assert_array_equal(found["H"], expected.H)
    np.testing.assert_array_equal(found["history"], expected.history)
    assert str(found["status"]) == expected.status.name
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["matrix"] == "20 x 8"
    assert lines["divergence"] == f"{expected.divergence:.6g}"
    assert lines["written"] == "V.factors.npz"
    assert sorted(p.name for p in here.iterdir()) == ["V.factors.npz", "V.npy"]


def test_every_option_of_nmf_arrives(here: Path) -> None:
    options = {
        "beta_loss": 1.5, "solver": "mu", "init": "random", "alpha_W": 0.01, "alpha_H": "same", "l1_ratio": 0.5,
        "upper_w": 9.0, "upper_h": 8.0, "n_restarts": 2, "random_state": 3, "max_iter": 15, "tol": 1e-6,
        "check_every": 4,
    }  # fmt: skip
    words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    assert main(["fit", "V.npy", "-k", "2", "--out", "out.npz", *words]) == 0
    np.testing.assert_array_equal(load("out.npz")["W"], nmf_xp.nmf(V, 2, **options).W)  # type: ignore[arg-type]


def test_names_of_a_table_are_kept_and_empty_cells_can_be_missing(here: Path) -> None:
    Path("t.csv").write_text("id,x,y,z\na,1,2,3\nb,4,,6\nc,7,8,9\n", encoding="utf-8")
    assert main(["fit", "t.csv", "-k", "1", "--missing", "nan", "--normalize", "H"]) == 0
    found = load("t.factors.npz")
    assert found["row_names"].tolist() == ["a", "b", "c"]
    assert found["column_names"].tolist() == ["x", "y", "z"]
    np.testing.assert_allclose(found["H"].sum(axis=1), 1)


def test_starting_from_the_output_of_an_earlier_run(here: Path) -> None:
    assert main(["fit", "V.npy", "-k", "3", "--random-state", "0", "--max-iter", "10", "--tol", "0"]) == 0
    again = ["fit", "V.npy", "-k", "3", "--start", "V.factors.npz", "--max-iter", "10", "--tol", "0", "--out", "b.npz"]
    assert main(again) == 0
    expected = nmf_xp.nmf(V, 3, random_state=0, max_iter=20, tol=0)
    np.testing.assert_allclose(load("b.npz")["W"], expected.W, rtol=1e-12)


@pytest.mark.parametrize("backend", ["numpy", "jax", "torch", "array_api_strict"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_backends_agree(here: Path, backend: str, dtype: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip(backend, reason=f"{backend} is not installed")
    words = ["--backend", backend, "--dtype", dtype, "--random-state", "0", "--beta-loss", "1"]
    assert main(["fit", "V.npy", "-k", "3", *words]) == 0
    assert dtype in capsys.readouterr().out
    expected = nmf_xp.nmf(V.astype(dtype), 3, beta_loss=1, random_state=0)
    assert load("V.factors.npz")["W"].dtype == dtype
    np.testing.assert_allclose(load("V.factors.npz")["divergence"], expected.divergence, rtol=1e-4)


def test_sparse_files_stay_sparse_on_numpy(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sparse = pytest.importorskip("scipy.sparse", reason="scipy is not installed")
    sparse.save_npz("S.npz", sparse.csr_array(V))
    assert main(["fit", "S.npz", "-k", "3", "--random-state", "0"]) == 0
    assert "numpy (sparse), float64" in capsys.readouterr().out
    np.testing.assert_allclose(load("S.factors.npz")["W"], nmf_xp.nmf(V, 3, random_state=0).W, rtol=1e-8)


def test_a_progress_bar_on_request(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tqdm", reason="tqdm is not installed")
    assert main(["fit", "V.npy", "-k", "2", "--progress", "--max-iter", "20", "--tol", "1e-12"]) == 0
    assert "20/20" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["missing.npy", "-k", "2"], "missing.npy: no such file"),
        (["V.npy", "-k", "0"], "`n_components` must be an integer from 1 to m + n = 28, got 0"),
        (["V.npy", "-k", "2", "--beta-loss", "euclid"], "`beta_loss` must be one of"),
        (["V.npy", "-k", "2", "--solver", "magic"], "`solver` must be one of"),
        (["V.npy", "-k", "2", "--out", "no/such/folder.npz"], "no/such/folder.npz: cannot be written"),
        (["V.npy", "-k", "2", "--out", "V.npy"], "V.npy: the suffix '.npy' is none of .npz, .safetensors"),
        (["V.npy", "-k", "2", "--start", "V.npy", "--init", "random"], "--start and --init exclude each other"),
        (["V.npy", "-k", "2", "--backend", "torch", "--device", "nowhere"], "--backend torch --device nowhere: "),
        (["negative.npy", "-k", "2"], "`V` must be non-negative, got -1 as its least entry"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    here: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if "torch" in words:
        pytest.importorskip("torch", reason="torch is not installed")
    np.save("negative.npy", -np.ones((3, 3)))
    before = sorted(here.iterdir())
    assert main(["fit", *words]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"nmf-xp: error: {message}")
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert sorted(here.iterdir()) == before


def test_an_existing_output_is_kept_unless_forced(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("out.npz").write_bytes(b"precious")
    assert main(["fit", "V.npy", "-k", "2", "--out", "out.npz"]) == 2
    assert "exists already; say --force to replace it" in capsys.readouterr().err
    assert Path("out.npz").read_bytes() == b"precious"
    assert main(["fit", "V.npy", "-k", "2", "--out", "out.npz", "--force"]) == 0
    assert load("out.npz")["W"].shape == (20, 2)


def test_an_interrupt_writes_nothing(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(nmf_xp, "nmf", interrupted)
    assert main(["fit", "V.npy", "-k", "2"]) == 130
    assert "interrupted; nothing was written" in capsys.readouterr().err
    assert [p.name for p in here.iterdir()] == ["V.npy"]


def test_the_demo_prints_a_falling_divergence_and_draws_the_parts(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    assert main(["demo", "--out", "parts.png"]) == 0
    out = capsys.readouterr().out
    divergences = [float(line.split()[-1]) for line in out.splitlines() if line.startswith("  iteration")]
    assert len(divergences) > 10
    assert divergences == sorted(divergences, reverse=True)
    assert (here / "parts.png").read_bytes().startswith(b"\x89PNG")


def test_help_and_version_load_no_array_library() -> None:
    code = (
        "import sys; from nmf_xp.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print({'numpy', 'jax', 'torch', 'scipy', 'matplotlib'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "set()"
    assert "demo" in out
    version = subprocess.run([sys.executable, "-m", "nmf_xp", "--version"], capture_output=True, text=True, check=True)
    assert version.stdout == f"nmf-xp {nmf_xp.__version__}\n"


@pytest.mark.skipif(os.name != "posix", reason="signals to a process are POSIX's")
def test_a_real_interrupt_ends_the_process_with_130(here: Path) -> None:
    code = (
        "import os, signal, sys, nmf_xp; from nmf_xp.cli import main\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "plain = nmf_xp.nmf\n"
        "def slow(V, r, **options):\n"
        "    print('running', flush=True)\n"
        "    return plain(V, r, **{**options, 'max_iter': 10**8, 'tol': 1e-300, 'callback': lambda p: None})\n"
        "nmf_xp.nmf = slow\n"
        "sys.exit(main(['fit', 'V.npy', '-k', '2']))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; nothing was written" in err
    assert sorted(p.name for p in here.iterdir()) == ["V.npy"]
