"""The command line as a user meets it: what it prints, writes and returns."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import warnings
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


def test_weights_fixed_entries_and_bounds_from_files(here: Path) -> None:
    rng = np.random.default_rng(1)
    weights, W, H = rng.integers(0, 2, V.shape), rng.random((20, 3)), rng.random((3, 8))
    np.savetxt("weights.csv", weights, delimiter=",")
    np.savez("start.npz", W=W, H=H)
    np.save("fixed.npy", np.eye(3, 8))
    words = ["--weights", "weights.csv", "--start", "start.npz", "--fixed-h", "fixed.npy", "--max-iter", "20"]
    assert main(["fit", "V.npy", "-k", "3", *words]) == 0
    fixed = np.eye(3, 8, dtype=bool)
    expected = nmf_xp.nmf(V, 3, weights=weights.astype(float), init=(W, H), fixed_h=fixed, max_iter=20)
    np.testing.assert_array_equal(load("V.factors.npz")["W"], expected.W)
    np.testing.assert_array_equal(load("V.factors.npz")["H"][fixed], H[fixed])


def test_names_of_a_table_are_kept_and_empty_cells_can_be_missing(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("t.csv").write_text("id,x,y,z\na,1,2,3\nb,4,,6\nc,7,8,9\n", encoding="utf-8")
    assert main(["fit", "t.csv", "-k", "1", "--missing", "nan", "--normalize", "H"]) == 0
    found = load("t.factors.npz")
    assert found["row_names"].tolist() == ["a", "b", "c"]
    assert found["column_names"].tolist() == ["x", "y", "z"]
    np.testing.assert_allclose(found["H"].sum(axis=1), 1)
    assert capsys.readouterr().out.startswith("t.csv: a table with column names and row names\n")


def test_an_image_is_said_to_be_read_as_greyscale(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = pytest.importorskip("PIL.Image", reason="pillow is not installed")
    image.fromarray(np.random.default_rng(0).integers(0, 255, (9, 7, 3)).astype(np.uint8)).save("photo.png")
    assert main(["fit", "photo.png", "-k", "2"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("photo.png: an image of mode RGB, read as greyscale\n")
    assert "matrix        9 x 7\n" in out


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_starting_from_the_output_of_an_earlier_run(here: Path, suffix: str) -> None:
    if suffix == "safetensors":
        pytest.importorskip("safetensors", reason="safetensors is not installed")
    short = ["fit", "V.npy", "-k", "3", "--solver", "mu", "--max-iter", "10", "--tol", "0"]
    assert main([*short, "--random-state", "0", "--out", f"a.{suffix}"]) == 0
    again = [*short, "--start", f"a.{suffix}", "--out", "b.npz"]
    assert main(again) == 0
    expected = nmf_xp.nmf(V, 3, solver="mu", random_state=0, max_iter=20, tol=0)
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


@pytest.mark.parametrize("dtype", [">f8", "uint16", "int64", "bool", "float16", "float32"])
@pytest.mark.parametrize("backend", ["numpy", "jax", "torch", "array_api_strict"])
def test_the_precision_depends_on_the_file_and_not_on_the_backend(
    here: Path, backend: str, dtype: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip(backend, reason=f"{backend} is not installed")
    np.save("V.npy", V.astype(dtype))
    assert main(["fit", "V.npy", "-k", "2", "--backend", backend, "--max-iter", "5"]) == 0
    expected = "float32" if dtype in ("float16", "float32") else "float64"
    assert load("V.factors.npz")["H"].dtype == expected
    (ran_on,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("ran on"))
    assert re.fullmatch(rf"ran on +{backend} on .+, {expected}", ran_on)


@pytest.mark.parametrize("backend", ["numpy", "jax", "torch", "array_api_strict"])
def test_sparse_files_stay_sparse_where_the_backend_can(
    here: Path, backend: str, capsys: pytest.CaptureFixture[str]
) -> None:
    sparse = pytest.importorskip("scipy.sparse", reason="scipy is not installed")
    pytest.importorskip(backend, reason=f"{backend} is not installed")
    sparse.save_npz("S.npz", sparse.csr_array(V.astype(np.float32)))
    words = ["--random-state", "0", "--backend", backend, "--dtype", "float64"]
    assert main(["fit", "S.npz", "-k", "3", *words]) == 0
    captured = capsys.readouterr()
    dense = backend == "array_api_strict"
    assert (f"{backend} (sparse) on " in captured.out) is not dense
    assert captured.out.startswith("array_api_strict has no sparse arrays: the file is made dense") is dense
    assert captured.err == ""
    np.testing.assert_allclose(load("S.factors.npz")["W"], nmf_xp.nmf(V, 3, random_state=0).W, rtol=1e-8)


def test_jax_computes_in_float64_though_nobody_enabled_it(here: Path) -> None:
    pytest.importorskip("jax", reason="jax is not installed")
    words = ["-m", "nmf_xp", "fit", "V.npy", "-k", "3", "--backend", "jax", "--device", "cpu:0", "--random-state", "0"]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=True)
    assert re.search(r"ran on +jax on .*cpu.*, float64", done.stdout, re.IGNORECASE)  # as JAX calls it
    assert "warning" not in done.stderr
    np.testing.assert_allclose(load("V.factors.npz")["W"], nmf_xp.nmf(V, 3, random_state=0).W, rtol=1e-8)


def test_warnings_are_one_line(here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    plain = nmf_xp.nmf

    def warning(*arguments: Any, **options: Any) -> Any:
        warnings.simplefilter("default")
        warnings.warn("two\nlines", UserWarning, stacklevel=1)
        return plain(*arguments, **options)

    monkeypatch.setattr(nmf_xp, "nmf", warning)
    assert main(["fit", "V.npy", "-k", "2"]) == 0
    assert capsys.readouterr().err == "nmf-xp: warning: two lines\n"


def test_too_little_memory_is_a_mistake_like_any_other(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(error: Exception) -> Any:
        def nmf(*_: Any, **__: Any) -> None:
            raise error

        return nmf

    for error, line in (
        (RuntimeError("CUDA\nOut of memory. Tried to allocate 9 GiB"), "not enough memory: CUDA Out of memory. Tried"),
        (MemoryError(), "out of memory\n"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(nmf_xp, "nmf", failing(error))
            assert main(["fit", "V.npy", "-k", "2"]) == 2
        assert capsys.readouterr().err.startswith(f"nmf-xp: error: {line}")
    with monkeypatch.context() as patch:  # what is no mistake of the user is not hidden
        patch.setattr(nmf_xp, "nmf", failing(RuntimeError("a bug")))
        with pytest.raises(RuntimeError, match="a bug"):
            main(["fit", "V.npy", "-k", "2"])
    assert [p.name for p in here.iterdir()] == ["V.npy"]


def test_restarts_and_penalties_show_in_the_table(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "V.npy", "-k", "2", "--n-restarts", "3", "--alpha-W", "0.1", "--beta-loss", "1.5"]) == 0
    lines = dict(re.split("  +", line) for line in capsys.readouterr().out.splitlines() if "  " in line)
    assert lines["restarts"] == "the best of 3"
    assert lines["loss"] == "beta 1.5"
    assert float(lines["objective"]) > float(lines["divergence"])


def test_a_progress_bar_on_request(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tqdm", reason="tqdm is not installed")
    assert main(["fit", "V.npy", "-k", "2", "--progress", "--max-iter", "20", "--tol", "1e-12"]) == 0
    assert "20/20" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["missing.npy", "-k", "2"], "missing.npy: no such file"),
        (["V.npy", "-k", "0"], "--n-components must be an integer from 1 to m + n = 28, got 0"),
        (["V.npy", "-k", "2", "--beta-loss", "euclid"], "--beta-loss must be one of"),
        (["V.npy", "-k", "2", "--solver", "magic"], "--solver must be one of"),
        (["V.npy", "-k", "2", "--out", "no/such/folder.npz"], "no/such/folder.npz: cannot be written"),
        (["V.npy", "-k", "2", "--out", "V.npy"], "V.npy: the suffix '.npy' is none of .npz, .safetensors"),
        (["V.npy", "-k", "2", "--start", "V.npy", "--init", "random"], "--start and --init exclude each other"),
        (["V.npy", "-k", "2", "--backend", "torch", "--device", "nowhere"], "--backend torch --device nowhere: "),
        (["V.npy", "-k", "2", "--backend", "jax", "--device", "nowhere"], "--backend jax --device nowhere: "),
        (["V.npy", "-k", "2", "--backend", "jax", "--device", "cpu:99"], "--backend jax --device cpu:99: there are on"),
        (["V.npy", "-k", "2", "--device", "gpu"], "--backend numpy --device gpu: "),
        (["V.npy", "-k", "2", "--backend", "array_api_strict", "--device", "x"], "--backend array_api_strict --dev"),
        (["V.npy", "-k", "2", "--start", "V.npy"], "V.npy: the suffix '.npy' is none of .npz, .safetensors"),
        (["V.npy", "-k", "2", "--weights", "missing.npy"], "missing.npy: no such file"),
        (["V.npy", "-k", "2", "--weights", "negative.npy"], "--weights must have shape (20, 8) or broadcast to it"),
        (["V.npy", "-k", "2", "--fixed-w", "negative.npy"], "--fixed-w and --fixed-h need a --start FILE"),
        (["V.npy", "-k", "2", "--start", "V.npz", "--n-restarts", "2"], "--start and --n-restarts exclude each other"),
        (["nan.csv", "-k", "2"], "nan.csv: must be finite, got NaN at index (1, 0), row 's1', column 'a'; if NaN"),
        (["nan.npy", "-k", "2"], "nan.npy: must be finite, got NaN at index (0, 1); if NaN means"),
        (["V.npy", "-k", "2", "--max-iter", "0"], "--max-iter must be an integer of at least 1, got 0"),
        (["V.npy", "-k", "2", "--batch", "labels.txt"], "--batch needs --beta-loss kullback-leibler or 'neg"),
        (["stack.npy", "-k", "2"], "stack.npy: must hold a matrix, which has 2 axes, got shape (2, 2, 2)"),
        (["complex.npy", "-k", "2", "--dtype", "float32"], "complex.npy: must hold real numbers, got dtype complex"),
        (["negative.npy", "-k", "2"], "negative.npy: must be non-negative, got -1 as its least"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    here: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for library in {"torch", "jax", "array_api_strict"} & set(words):
        pytest.importorskip(library, reason=f"{library} is not installed")
    np.save("stack.npy", np.ones((2, 2, 2)))
    np.save("complex.npy", np.ones((2, 2), complex))
    np.save("negative.npy", -np.ones((3, 3)))
    np.save("nan.npy", [[1.0, np.nan], [1.0, 1.0]])
    Path("nan.csv").write_text("id,a,b\ns0,1,2\ns1,,4\n")
    Path("labels.txt").write_text("x\ny\n" * 10)
    before = sorted(here.iterdir())
    assert main(["fit", *words]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"nmf-xp: error: {message}")
    assert captured.err.count("\n") == 1
    assert "='" not in captured.err
    assert captured.out in ("", "nan.csv: a table with column names and row names\n")
    assert sorted(here.iterdir()) == before


def test_an_existing_output_is_kept_unless_forced(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("out.npz").write_bytes(b"precious")
    assert main(["fit", "V.npy", "-k", "2", "--out", "out.npz"]) == 2
    assert "exists already; say --force to replace it" in capsys.readouterr().err
    assert Path("out.npz").read_bytes() == b"precious"
    assert main(["fit", "V.npy", "-k", "2", "--out", "out.npz", "--force"]) == 0
    assert load("out.npz")["W"].shape == (20, 2)


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
def test_an_output_that_cannot_be_written_is_found_before_the_run(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refused)
    for words in (["fit", "V.npy", "-k", "2"], ["report", "V.npz"], ["demo"]):
        assert main(words) == 2
        captured = capsys.readouterr()
        assert re.fullmatch(r"nmf-xp: error: \S+: cannot be written: Permission denied\n", captured.err)
        assert captured.out == ""


@pytest.mark.parametrize(
    ("module", "words", "message"),
    [
        ("scipy", ["fit", "V.mtx", "-k", "1"], 'this needs scipy: pip install "nmf_xp[files]"'),
        ("PIL", ["fit", "V.png", "-k", "1"], 'this needs pillow: pip install "nmf_xp[files]"'),
        ("safetensors", ["fit", "V.npy", "-k", "1", "--out", "W.safetensors"], "this needs safetensors: pip install"),
        ("tqdm", ["fit", "V.npy", "-k", "1", "--progress"], "`progress=True` needs tqdm: pip install"),
        ("torch", ["fit", "V.npy", "-k", "1", "--backend", "torch"], "--backend torch: "),
        ("sklearn", ["demo"], "the demo needs sklearn"),
        ("matplotlib", ["demo"], "the demo needs matplotlib"),
    ],
)
def test_a_package_that_is_not_installed_is_named(
    here: Path, module: str, words: list[str], message: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if words == ["demo"] and module != "sklearn":
        pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    Path("V.mtx").write_text("no matter what\n", encoding="utf-8")
    Path("V.png").write_text("no matter what\n", encoding="utf-8")
    for name in [name for name in sys.modules if name == module or name.startswith(f"{module}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    assert main(words) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"nmf-xp: error: {message}")
    assert sorted(p.name for p in here.iterdir()) == ["V.mtx", "V.npy", "V.png"]


def test_a_reader_that_leaves_is_no_error(here: Path) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    words = [sys.executable, "-m", "nmf_xp", "demo"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=60) == 141


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
    assert len(divergences) > 3
    assert divergences == sorted(divergences, reverse=True)
    assert (here / "parts.png").read_bytes().startswith(b"\x89PNG")
    assert "lowered it by less than 0.1%" in out
    assert sorted(p.name for p in here.iterdir()) == ["V.npy", "parts.png"]
    assert main(["demo", "--out", "parts.pdf"]) == 2
    assert "parts.pdf: the suffix '.pdf' is none of .png" in capsys.readouterr().err


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


def test_an_exposure_from_a_file(here: Path) -> None:
    exposure = np.random.default_rng(1).uniform(0.2, 2, (1, 8))
    np.savetxt("exposure.csv", exposure, delimiter=",")
    words = ["--beta-loss", "kullback-leibler", "--random-state", "0", "--exposure", "exposure.csv"]
    assert main(["fit", "V.npy", "-k", "3", *words]) == 0
    expected = nmf_xp.nmf(V, 3, beta_loss=1, random_state=0, exposure=exposure)
    np.testing.assert_allclose(load("V.factors.npz")["H"], expected.H, rtol=1e-9)
