"""`prepare`: counts become the matrix that is factorized, and each factorization gets its seed."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from nmf_xp.arrays.checks import check_integer, check_option
from nmf_xp.files import opened
from nmf_xp.problem.checks import check_n_components
from nmf_xp.scverse.cnmf.counts import (
    check_cells,
    highly_variable,
    mean_and_variance,
    per_million,
    read_counts,
    with_unit_variance,
)
from nmf_xp.scverse.cnmf.folder import INITS, LOSSES
from nmf_xp.scverse.cnmf.frames import Frame

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from nmf_xp.scverse.cnmf.counts import Counts
    from nmf_xp.scverse.cnmf.folder import Folder

RUNS = ["n_components", "iter", "nmf_seed", "completed"]
MEAN, DEVIATION = "__mean", "__std"


def prepare(
    folder: Folder,
    counts: Path,
    components: Iterable[int],
    *,
    n_iter: int = 100,
    seed: int | None = None,
    numgenes: int = 2000,
    genes_file: Path | None = None,
    tpm: Path | None = None,
    beta_loss: str = "frobenius",
    init: str = "random",
    max_nmf_iter: int = 1000,
    densify: bool = False,
) -> Counts:
    """Read counts, choose genes, scale each to unit variance, and write what the other commands need."""
    import numpy as np

    check_option("beta_loss", beta_loss, LOSSES)
    check_option("init", init, INITS)
    n_iter = check_integer("n_iter", n_iter, minimum=1)
    max_nmf_iter = check_integer("max_nmf_iter", max_nmf_iter, minimum=1)
    numgenes = check_integer("numgenes", numgenes, minimum=1)
    given = read_counts(counts, densify=densify)
    shares = per_million(given) if tpm is None else read_counts(tpm, densify=densify)
    if shares.cells != given.cells or shares.genes != given.genes:
        msg = f"{tpm}: must have the cells and genes of {counts}, in their order"
        raise ValueError(msg)
    genes = _listed(genes_file) if genes_file is not None else highly_variable(shares, numgenes)
    scaled = with_unit_variance(given, genes, sparsely=shares.sparse)
    check_cells(scaled)
    ranks = sorted({check_n_components(k, scaled.values.shape) for k in components})
    seeds = np.random.RandomState(seed).randint(1, 2**31 - 1, size=len(ranks) * n_iter)
    runs = [(k, i) for k in ranks for i in range(n_iter)]
    folder.make()
    done = [folder.inner("spectra.k_{k}.iter_{i}.df.npz", k=k, i=i).exists() for k, i in runs]
    if any(done):
        msg = f"{sum(done)} of {len(runs)} factorizations of this name are there already, perhaps of other counts"
        warnings.warn(f"{msg}; they are made again unless --skip-completed-runs is said", UserWarning, stacklevel=2)
    table = np.asarray([(k, i, s, d) for (k, i), s, d in zip(runs, seeds.tolist(), done, strict=True)])
    mean, variance = mean_and_variance(shares.values)
    folder.write_counts("tpm.h5ad", shares)
    stats = Frame(np.stack([mean, np.sqrt(variance)], axis=1), shares.genes, [MEAN, DEVIATION])
    folder.write("tpm_stats.df.npz", stats)
    folder.write_genes(genes)
    folder.write_counts("norm_counts.h5ad", scaled)
    folder.write("nmf_params.df.npz", Frame(table, list(range(len(table))), RUNS))
    folder.write_options(_options(beta_loss, init, max_nmf_iter))
    return scaled


def _listed(path: Path) -> list[str]:
    """The genes of a file, one a line."""
    with opened(path, (path.suffix.lower(),)):
        return path.read_text(encoding="utf-8").rstrip().split("\n")


def _options(beta_loss: str, init: str, max_iter: int) -> dict[str, Any]:
    """What cNMF tells scikit-learn."""
    return {
        "alpha_H": 0.0,
        "alpha_W": 0.0,
        "beta_loss": beta_loss,
        "init": init,
        "l1_ratio": 0.0,
        "max_iter": max_iter,
        "solver": "cd" if beta_loss == "frobenius" else "mu",
        "tol": 1e-4,
    }
