"""Runs that cNMF 1.7.1 begins are finished here, and the other way round, and the spectra are the same."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nmf_xp.cli import main
from nmf_xp.scverse.cnmf.frames import read_frame
from tests.scverse.cells import counts

pytest.importorskip("cnmf", reason="cnmf, the reference, is not installed")

NAME, RANKS, REPLICATES, GENES, SEED = "run", [3, 5], 8, 150, 14
FILES = [
    "spectra.{}.consensus",
    "usages.{}.consensus",
    "gene_spectra_tpm.{}",
    "gene_spectra_score.{}",
    "starcat_spectra.{}",
]
STAGES = ["prepare", "factorize", "combine", "consensus"]
KINDS = {"sparse": STAGES[:-1], "dense": ["prepare"], "integers": ["prepare"]}
"""After which command the other program goes on."""


def by_cnmf(*jobs: tuple[Path, str, dict[str, Any]]) -> str:
    said = [(str(folder), NAME, stage, options) for folder, stage, options in jobs]
    command = [sys.executable, "-m", "tests.scverse.stages", json.dumps(said)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    return done.stdout


def of_cnmf(folder: Path, stage: str, file: Path, **prepared: Any) -> list[tuple[Path, str, dict[str, Any]]]:
    """What cNMF does in a stage; its consensus is made of one rank after the other."""
    if stage == "prepare":
        options = {"counts_fn": str(file), "components": RANKS, "n_iter": REPLICATES, "seed": SEED}
        return [(folder, stage, options | {"num_highvar_genes": GENES} | prepared)]
    if stage == "consensus":
        return [(folder, stage, {"k": k, "show_clustering": False}) for k in RANKS]
    return [(folder, stage, {})]


def by_us(folder: Path, stage: str, file: Path, *, beta_loss: str = "frobenius", densify: bool = False) -> None:
    words = ["--name", NAME, "--output-dir", str(folder), "--quiet"]
    if stage == "prepare":
        words += ["-c", str(file), "-k", *map(str, RANKS), "-n", str(REPLICATES), "--seed", str(SEED)]
        words += ["--numgenes", str(GENES), "--beta-loss", beta_loss, *(["--densify"] if densify else [])]
    assert main(["cnmf", stage, *words]) == 0


def largest_difference(ours: Path, theirs: Path, what: str, k: int) -> float:
    name = f"cnmf_tmp/{NAME}.{what.format(f'k_{k}.dt_0_5')}.df.npz"
    a, b = (read_frame(folder / NAME / name) for folder in (ours, theirs))
    assert (a.rows, a.columns) == (b.rows, b.columns)
    return float(np.abs(a.values - b.values).max() / np.abs(b.values).max())


class Runs:
    """Folders after each stage of cNMF's and of ours, and finished by the other."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.kind, self.folder, self.file = kind, folder, folder / "counts.h5ad"
        adata = counts(250)
        if kind == "integers":
            adata.X = adata.X.astype(np.int64)
        adata.write_h5ad(self.file)
        given: dict[str, Any] = {"densify": True} if kind == "dense" else {}
        self.theirs, self.ours = folder / "theirs", folder / "ours"
        jobs = []
        for stage in STAGES:
            jobs += of_cnmf(self.theirs, stage, self.file, **given)
            jobs.append((self.theirs, "copy", {"to": str(self.begun("cnmf", stage))}))
            by_us(self.ours, stage, self.file, densify=kind == "dense")
            shutil.copytree(self.ours, self.begun("us", stage))
        for stage in KINDS[kind]:
            for rest in STAGES[STAGES.index(stage) + 1 :]:
                jobs += of_cnmf(self.begun("us", stage), rest, self.file)
        self.said = by_cnmf(*jobs, (self.ours, "load", {"k": RANKS[0]}))
        for stage in KINDS[kind]:
            for rest in STAGES[STAGES.index(stage) + 1 :]:
                by_us(self.begun("cnmf", stage), rest, self.file)

    def begun(self, by: str, stage: str) -> Path:
        return self.folder / f"begun by {by}, {stage}"


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_begun_by_one_program_is_finished_by_the_other(kind: str, tmp_path: Path) -> None:
    """All of it in one test, as making the runs takes longer than looking at them."""
    runs = Runs(tmp_path, kind)
    for by, stage, k, what in itertools.product(["us", "cnmf"], KINDS[kind], RANKS, FILES):
        # scanpy makes float32 of integers, and what is fitted to its shares of a million is as accurate as that.
        tolerance = 1e-4 if kind == "integers" and what != FILES[0] else 1e-6
        found = largest_difference(runs.begun(by, stage), runs.theirs, what, k)
        assert found < tolerance, f"begun by {by}, {stage}: {what} of {k}"
    every_replicate_is_the_same(runs)
    each_file_is_there_and_reads_alike(runs)
    assert json.loads(runs.said.splitlines()[-1]) == [[250, 3], [765, 3], [765, 3], [100, 3]]  # cNMF loads ours


def each_file_is_there_and_reads_alike(runs: Runs) -> None:
    for k, what in itertools.product(RANKS, FILES):
        text = f"{NAME}.{what.format(f'k_{k}.dt_0_5')}.txt"
        ours, theirs = ((folder / NAME / text).read_text().splitlines() for folder in (runs.ours, runs.theirs))
        assert ours[0].split("\t")[1:] == theirs[0].split("\t")[1:]  # pandas gives the corner a name
        assert [line.split("\t")[0] for line in ours[1:]] == [line.split("\t")[0] for line in theirs[1:]]
    names = [sorted(path.name for path in (x / NAME / "cnmf_tmp").iterdir()) for x in (runs.ours, runs.theirs)]
    assert names[0] == names[1]
    genes = [(x / NAME / f"{NAME}.overdispersed_genes.txt").read_text() for x in (runs.ours, runs.theirs)]
    assert genes[0] == genes[1]


def every_replicate_is_the_same(runs: Runs) -> None:
    for k, i in itertools.product(RANKS, range(REPLICATES)):
        name = f"cnmf_tmp/{NAME}.spectra.k_{k}.iter_{i}.df.npz"
        a, b = (read_frame(folder / NAME / name).values for folder in (runs.ours, runs.theirs))
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-9 * b.max())


def test_kullback_leibler_spectra_point_the_same_way(tmp_path: Path) -> None:
    file, ours, theirs = tmp_path / "counts.h5ad", tmp_path / "ours", tmp_path / "theirs"
    counts(200, 300).write_h5ad(file)
    for stage in STAGES:
        by_us(ours, stage, file, beta_loss="kullback-leibler")
    jobs = [
        of_cnmf(theirs, stage, file, **({"beta_loss": "kullback-leibler"} if stage == "prepare" else {}))
        for stage in STAGES
    ]
    by_cnmf(*(job for some in jobs for job in some))
    for k in RANKS:
        name = f"cnmf_tmp/{NAME}.spectra.k_{k}.dt_0_5.consensus.df.npz"
        a, b = (read_frame(folder / NAME / name).values for folder in (ours, theirs))
        cosines = (a / np.linalg.norm(a, axis=1, keepdims=True)) @ (b / np.linalg.norm(b, axis=1, keepdims=True)).T
        assert cosines.max(axis=1).min() > 0.99
        assert sorted(cosines.argmax(axis=1)) == list(range(k))
