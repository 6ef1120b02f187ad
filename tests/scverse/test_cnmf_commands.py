"""`nmf-xp cnmf` without cNMF: workers, what is missing or damaged, and counts that are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nmf_xp import FileError
from nmf_xp.cli import main
from nmf_xp.scverse import cnmf
from nmf_xp.scverse.cnmf.frames import Frame, read_frame, write_frame

for library in ("h5py", "sklearn", "scipy"):
    pytest.importorskip(library, reason=f"{library} is not installed")

RNG = np.random.default_rng(0)
COUNTS = RNG.poisson(RNG.gamma(0.5, 2.0, (40, 3)) @ RNG.gamma(0.3, 2.0, (3, 60)) + 0.2).astype(float)
CELLS, GENES = [f"cell{i}" for i in range(40)], [f"gene{j}" for j in range(60)]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_frame(Path("counts.df.npz"), Frame(COUNTS, CELLS, GENES))
    return tmp_path


def run(stage: str, *words: str) -> int:
    return main(["cnmf", stage, "--name", "a", *words])


def prepare(*words: str, counts: str = "counts.df.npz") -> int:
    return run("prepare", "-c", counts, "-k", "3", "-n", "6", "--seed", "1", "--numgenes", "30", *words)


def spectra(name: str = "k_3.dt_0_5.consensus") -> Any:
    return read_frame(Path(f"a/cnmf_tmp/a.spectra.{name}.df.npz")).values


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    said = capsys.readouterr().err
    assert said.startswith("nmf-xp: error: ")
    assert said.count("\n") == 1
    assert "\x1b" not in said
    return said


def test_workers_share_the_work_and_an_interrupted_run_goes_on(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare() == run("factorize") == run("combine") == run("consensus") == 0
    said = capsys.readouterr().out.splitlines()
    assert said[:3] == [
        "40 cells, 30 genes, 6 factorizations to be made",
        "6 factorizations made",
        "3 components: 6 factorizations combined",
    ]
    alone = spectra()
    for path in Path("a/cnmf_tmp").glob("*iter*"):
        path.unlink()
    assert run("factorize", "--total-workers", "2", "--worker-index", "1") == 0
    assert sorted(path.name for path in Path("a/cnmf_tmp").glob("*iter*")) == [
        f"a.spectra.k_3.iter_{i}.df.npz" for i in (1, 3, 5)
    ]
    assert run("combine") == 2
    assert "iter_0" in error_of(capsys)
    assert run("combine", "--skip-missing-files") == 0
    assert "3 components: 3 factorizations combined" in capsys.readouterr().out
    before = {path: path.stat().st_mtime_ns for path in Path("a/cnmf_tmp").glob("*iter*")}
    assert run("factorize", "--skip-completed-runs") == run("combine") == run("consensus", "-k", "3") == 0
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())
    np.testing.assert_allclose(spectra(), alone, rtol=0, atol=1e-10)


@pytest.mark.filterwarnings("ignore:6 of 6 factorizations")
def test_one_seed_gives_the_same_files(here: Path) -> None:
    assert prepare() == run("factorize") == 0
    first = spectra("k_3.iter_4")
    assert prepare() == run("factorize", "--quiet") == 0
    np.testing.assert_array_equal(spectra("k_3.iter_4"), first)


@pytest.mark.filterwarnings("default")
def test_what_is_there_already_is_said(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare() == run("factorize") == prepare() == 0
    assert "6 of 6 factorizations of this name are there already" in capsys.readouterr().err
    assert read_frame(Path("a/cnmf_tmp/a.nmf_params.df.npz")).column("completed").tolist() == [1] * 6


def test_text_and_h5ad_are_the_same_counts(here: Path) -> None:
    lines = ["\t".join(["", *GENES]), *("\t".join([c, *map(str, row)]) for c, row in zip(CELLS, COUNTS, strict=True))]
    Path("counts.txt").write_text("\n".join(lines))
    genes = []
    for file in ("counts.df.npz", "counts.txt"):
        assert prepare(counts=file) == 0
        genes.append(
            (Path("a/a.overdispersed_genes.txt").read_text(), cnmf.Folder(Path(), "a").counts("norm_counts.h5ad"))
        )
    assert genes[0][0] == genes[1][0]
    np.testing.assert_array_equal(genes[0][1].values.toarray(), genes[1][1].values.toarray())
    np.testing.assert_allclose(genes[0][1].values.toarray().std(axis=0, ddof=1), 1.0)


def test_genes_of_a_list_are_taken(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = ["gene5", "gene0", *GENES[20:]]
    Path("genes.txt").write_text("\n".join(listed) + "\n")
    assert prepare("--genes-file", "genes.txt", "--densify") == 0
    assert cnmf.Folder(Path(), "a").counts("norm_counts.h5ad").genes == listed
    Path("genes.txt").write_text("gene5\n\x1b[2J\nother")
    assert prepare("--genes-file", "genes.txt") == 2
    assert "\\x1b[2J, other" in error_of(capsys)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda V: -V, "scaled data are none"),
        (lambda V: V * np.nan, "NaN"),
        (lambda V: V * (np.arange(40) != 3)[:, None], "got 1 without, such as cell3"),
        (lambda V: V[:, :2], "genes are too few"),
    ],
)
def test_what_are_no_counts_is_refused(here: Path, capsys: pytest.CaptureFixture[str], change: Any, said: str) -> None:
    values = change(COUNTS)
    write_frame(Path("counts.df.npz"), Frame(values, CELLS, GENES[: values.shape[1]]))
    assert prepare() == 2
    assert said in error_of(capsys)
    assert not Path("a").exists()


def test_names_that_are_there_twice_are_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_frame(Path("counts.df.npz"), Frame(COUNTS, CELLS, ["gene0", *GENES[:-1]]))
    assert prepare() == 2
    assert "names of genes must be different" in error_of(capsys)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-c", "counts.mtx"), "save it as .h5ad"),
        (("-c", "none.h5ad"), "no such file"),
        (("-k", "0"), "n_components"),
        (("-k", "1000"), "n_components"),
        (("-n", "0"), "--n-iter"),
        (("--numgenes", "0"), "numgenes"),
    ],
)
def test_options_that_cannot_be(
    here: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    assert prepare(*words) == 2
    assert said in error_of(capsys)


@pytest.mark.parametrize("name", ["../b", "", "b/c", ".."])
def test_the_name_is_that_of_a_folder(here: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert main(["cnmf", "factorize", "--name", name]) == 2
    assert "must be the name of a folder" in error_of(capsys)


@pytest.mark.parametrize(("stage", "missing", "by"), [
    ("factorize", "nmf_params.df.npz", "prepare"),
    ("factorize", "norm_counts.h5ad", "prepare"),
    ("factorize", "nmf_idvrun_params.yaml", "prepare"),
    ("combine", "spectra.k_3.iter_2.df.npz", "factorize"),
    ("consensus", "spectra.k_3.merged.df.npz", "combine"),
    ("consensus", "tpm.h5ad", "prepare"),
    ("consensus", "tpm_stats.df.npz", "prepare"),
])  # fmt: skip
@pytest.mark.parametrize("harm", ["missing", "cut off", "hostile"])
def test_missing_and_damaged_files_are_named(
    here: Path, capsys: pytest.CaptureFixture[str], stage: str, missing: str, by: str, harm: str
) -> None:
    assert prepare("--quiet") == run("factorize", "--quiet") == run("combine", "--quiet") == 0
    path = Path(f"a/cnmf_tmp/a.{missing}")
    whole = path.read_bytes()
    path.unlink()
    if harm == "cut off":
        path.write_bytes(whole[: len(whole) // 2])
    if harm == "hostile":
        path.write_bytes(b"\x1b[2J!!python/object/apply:os.system ['touch ran']\n")
    assert run(stage) == 2
    said = error_of(capsys)
    assert str(path) in said
    assert harm != "missing" or by in said
    assert not Path("ran").exists()


@pytest.mark.filterwarnings("ignore:6 of 6 factorizations")
def test_files_of_two_runs_are_told_apart(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare("--quiet") == run("factorize", "--quiet") == run("combine", "--quiet") == 0
    assert prepare("--quiet", "--numgenes", "20") == 0
    capsys.readouterr()
    assert run("consensus") == 2
    assert "not of the same run" in error_of(capsys)
    assert run("combine", "-k", "7") == 2
    assert "must be among those that were prepared, 3, got 7" in error_of(capsys)
    assert run("factorize", "--worker-index", "2") == 2
    assert "--worker-index" in error_of(capsys)


def test_thresholds_that_keep_too_little(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare("--quiet") == run("factorize", "--quiet") == run("combine", "--quiet") == 0
    assert run("consensus", "--local-density-threshold", "0") == 2
    assert "must keep at least 3 spectra" in error_of(capsys)
    assert run("consensus", "--local-neighborhood-size", "0.01") == 2
    assert "must be at least 1" in error_of(capsys)
    assert run("consensus", "--local-density-threshold", "2") == 0
    assert spectra("k_3.dt_2_0.consensus").shape == (3, 30)


@pytest.mark.parametrize("loss", ["kullback-leibler", "itakura-saito"])
def test_other_losses(here: Path, loss: str) -> None:
    if loss == "itakura-saito":
        write_frame(Path("counts.df.npz"), Frame(COUNTS + 1.0, CELLS, GENES))
    assert prepare("--quiet", "--beta-loss", loss) == run("factorize", "--quiet") == run("combine", "--quiet") == 0
    assert run("consensus", "--local-density-threshold", "2") == 0
    np.testing.assert_allclose(spectra("k_3.dt_2_0.consensus").sum(axis=1), 1.0)


def test_the_last_fit_of_the_genes_is_the_minimum(here: Path) -> None:
    """For Kullback-Leibler, where scikit-learn's update of a transposed sparse matrix goes astray."""
    from nmf_xp import transform

    assert prepare("--quiet", "--beta-loss", "kullback-leibler") == run("factorize", "--quiet") == 0
    assert run("combine", "--quiet") == run("consensus", "--local-density-threshold", "2") == 0
    tpm = cnmf.Folder(Path(), "a").counts("tpm.h5ad").values
    found = read_frame(Path("a/cnmf_tmp/a.gene_spectra_tpm.k_3.dt_2_0.df.npz")).values
    usages = transform(cnmf.Folder(Path(), "a").counts("norm_counts.h5ad").values, spectra("k_3.dt_2_0.consensus"),
                       beta_loss=1, tol=1e-9, max_iter=1000).W  # fmt: skip
    shares = usages / usages.sum(axis=1, keepdims=True)
    model = shares @ found
    slope = shares.sum(axis=0)[:, None] - shares.T @ (tpm.toarray() / np.maximum(model, 1e-300))
    assert np.abs(np.where(found > 1e-3, slope, np.minimum(slope, 0))).max() < 1e-2


def test_a_folder_that_cannot_be_made(here: Path) -> None:
    Path("file").write_text("")
    with pytest.raises(FileError, match="cannot be made"):
        cnmf.Folder(Path("file"), "a").make()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("tol: abc", "tol must be a number, got 'abc'"),
        ("tol:", "tol must be a number, got None"),
        ("solver: newton", "solver must be one of cd, mu, got 'newton'"),
        ("beta_loss: 1.5", "beta_loss must be one of"),
        ("W: !!python/object/apply:os.system ['touch ran']", 'got "W: !!python/object'),
    ],
)
def test_options_in_a_file_are_plain(here: Path, capsys: pytest.CaptureFixture[str], line: str, said: str) -> None:
    assert prepare("--quiet") == 0
    path = Path("a/cnmf_tmp/a.nmf_idvrun_params.yaml")
    name = line.partition(":")[0]
    kept = [other for other in path.read_text().splitlines() if not other.startswith(f"{name}:")]
    path.write_text("\n".join([*kept, line]))
    assert run("factorize") == 2
    assert said in error_of(capsys)
    assert not Path("ran").exists()


@pytest.mark.parametrize("column", [0, 1, 2])
@pytest.mark.parametrize("value", [-1.0, 0.5, np.nan, 1e30])
def test_runs_that_cannot_be(here: Path, capsys: pytest.CaptureFixture[str], column: int, value: float) -> None:
    assert prepare("--quiet") == 0
    path = Path("a/cnmf_tmp/a.nmf_params.df.npz")
    table = read_frame(path)
    values = table.values.astype(float)
    values[2, column] = value
    write_frame(path, table._replace(values=values))
    assert run("factorize") == 2
    assert "as integers" in error_of(capsys)


@pytest.mark.parametrize("value", [np.nan, -1.0, np.inf])
def test_spectra_that_are_none(here: Path, capsys: pytest.CaptureFixture[str], value: float) -> None:
    assert prepare("--quiet") == run("factorize", "--quiet") == run("combine", "--quiet") == 0
    path = Path("a/cnmf_tmp/a.spectra.k_3.merged.df.npz")
    merged = read_frame(path)
    values = merged.values.copy()
    values[0] = 0.0
    write_frame(path, merged._replace(values=values))
    assert run("consensus", "--local-density-threshold", "2") == 0  # a spectrum of zeros is left out
    assert np.isfinite(spectra("k_3.dt_2_0.consensus")).all()
    values[1, 1] = value
    write_frame(path, merged._replace(values=values))
    assert run("consensus") == 2
    assert "must be non-negative and finite" in error_of(capsys)


def test_counts_by_columns_are_read(here: Path) -> None:
    """AnnData may store them so, and cNMF keeps the order."""
    anndata = pytest.importorskip("anndata", reason="anndata is not installed")
    sparse = pytest.importorskip("scipy.sparse")
    adata = anndata.AnnData(sparse.csc_matrix(COUNTS))
    adata.obs_names, adata.var_names = CELLS, GENES
    adata.write_h5ad("columns.h5ad")
    assert prepare("--quiet", counts="columns.h5ad") == run("factorize", "--quiet") == 0
    found = spectra("k_3.iter_0")
    assert prepare("--quiet", "--seed", "1", "--output-dir", "b") == 0
    assert run("factorize", "--quiet", "--output-dir", "b") == 0
    np.testing.assert_allclose(found, read_frame(Path("b/a/cnmf_tmp/a.spectra.k_3.iter_0.df.npz")).values, atol=1e-9)


def test_shares_of_a_million_may_be_given(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shares = COUNTS / COUNTS.sum(axis=1, keepdims=True) * 1e6
    write_frame(Path("tpm.df.npz"), Frame(shares, CELLS, GENES))
    assert prepare("--quiet", "--tpm", "tpm.df.npz") == 0
    np.testing.assert_allclose(cnmf.Folder(Path(), "a").counts("tpm.h5ad").values.toarray(), shares)
    write_frame(Path("tpm.df.npz"), Frame(shares, CELLS[::-1], GENES))
    assert prepare("--quiet", "--tpm", "tpm.df.npz") == 2
    assert "must have the cells and genes of counts.df.npz" in error_of(capsys)


def test_an_interrupt_keeps_what_is_done_and_says_how_to_go_on(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from nmf_xp.scverse.cnmf import frames

    whole = frames.write_frame
    seen: list[Path] = []

    def interrupted(path: Path, frame: Frame) -> None:
        if len(seen) >= 2:
            raise KeyboardInterrupt
        seen.append(path)
        whole(path, frame)

    assert prepare("--quiet") == 0
    monkeypatch.setattr(frames, "write_frame", interrupted)
    assert run("factorize") == 130
    assert capsys.readouterr().err.strip() == "interrupted; say --skip-completed-runs to go on"
    done = len(list(Path("a/cnmf_tmp").glob("*iter*")))  # threads may each write one more
    assert 2 <= done < 6
    monkeypatch.setattr(frames, "write_frame", whole)
    assert run("factorize", "--skip-completed-runs") == 0
    assert capsys.readouterr().out == f"{6 - done} factorizations made\n"
