"""`consensus`: the spectra that many factorizations agree on, the usages of them, and both in units of people."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import nmf_xp
from nmf_xp.arrays.checks import check_non_negative
from nmf_xp.files import FileError, optional_module
from nmf_xp.scverse.cnmf.counts import PER_MILLION, mean_and_variance, with_unit_variance
from nmf_xp.scverse.cnmf.factorizing import MERGED
from nmf_xp.scverse.cnmf.frames import Frame
from nmf_xp.scverse.cnmf.preparing import DEVIATION
from nmf_xp.sklearn import non_negative_factorization

if TYPE_CHECKING:
    import numpy as np

    from nmf_xp.scverse.cnmf.counts import Counts
    from nmf_xp.scverse.cnmf.folder import Folder

    Matrix = np.ndarray[Any, Any]

FAR = 2.0  # from any spectrum of length 1: more than non-negative ones can be
TOL = 1e-6  # of the usages, a convex problem, where it is not scikit-learn's coordinate descent


def consensus(
    folder: Folder, k: int, *, local_density_threshold: float = 0.5, local_neighborhood_size: float = 0.3
) -> Frame:
    """Write consensus spectra and usages of a rank, as cNMF does; returns the spectra, a row each."""
    import numpy as np

    threshold = check_non_negative("local_density_threshold", local_density_threshold)
    merged = folder.frame(MERGED, k=k)
    counts, tpm, options, genes = (
        folder.counts("norm_counts.h5ad"),
        folder.counts("tpm.h5ad"),
        folder.options,
        folder.genes,
    )
    stats = folder.frame("tpm_stats.df.npz", columns=(DEVIATION,))
    _check_alike(folder, merged, counts, tpm, stats, genes)
    lengths = np.sqrt((merged.values**2).sum(axis=1, keepdims=True))
    unit = merged.values / np.where(lengths > 0, lengths, 1.0)
    density = local_density(unit, neighbours=int(local_neighborhood_size * len(unit) / k))
    density = np.where(lengths[:, 0] > 0, density, FAR)  # a spectrum that is zero is like none
    folder.write(
        "local_density_cache.k_{k}.merged.df.npz", Frame(density[:, None], merged.rows, ["local_density"]), k=k
    )
    median = medians(unit[density < threshold], k)
    usages = refitted(counts.values, median, options)
    shares = _shares(usages)
    order = np.argsort(-shares.sum(axis=0), kind="stable")
    median, usages, shares = median[order], usages[:, order], shares[:, order]

    per_gene = refitted(tpm.values.T, shares.T.astype(tpm.values.dtype), options).T
    score = scores(usages, tpm.values)
    deviation = dict(zip(stats.rows, stats.column(DEVIATION).tolist(), strict=True))
    chosen = with_unit_variance(tpm, genes, sparsely=tpm.sparse).values.astype(tpm.values.dtype)
    places = [tpm.genes.index(gene) for gene in genes]
    by_deviation = per_gene[:, places] / np.asarray([deviation[gene] for gene in genes])
    usages = refitted(chosen, by_deviation.astype(chosen.dtype), options)
    reference = per_gene / per_gene.sum(axis=1, keepdims=True) * PER_MILLION
    reference = reference[:, places] / np.asarray([deviation[gene] for gene in genes])

    numbers = list(range(1, k + 1))
    found = Frame(median, numbers, counts.genes)
    end = f"k_{k}.dt_{str(threshold).replace('.', '_')}"
    for what, frame in (
        (f"spectra.{end}.consensus", found),
        (f"usages.{end}.consensus", Frame(usages, counts.cells, numbers)),
        (f"gene_spectra_tpm.{end}", Frame(per_gene, numbers, tpm.genes)),
        (f"gene_spectra_score.{end}", Frame(score, numbers, tpm.genes)),
        (f"starcat_spectra.{end}", Frame(reference, [f"GEP{i}" for i in numbers], genes)),
    ):
        folder.write(f"{what}.df.npz", frame, text=f"{what}.txt")
    return found


def _check_alike(folder: Folder, merged: Frame, counts: Counts, tpm: Counts, stats: Frame, genes: list[str]) -> None:
    """Refuse files that are of different runs."""
    import numpy as np

    for what, names, others in (
        ("spectra", merged.columns, counts.genes),
        ("overdispersed_genes.txt", genes, counts.genes),
        ("tpm.h5ad", tpm.cells, counts.cells),
        ("tpm_stats.df.npz", stats.rows, tpm.genes),
    ):
        if names != others:
            msg = (
                f"{folder.place / folder.name}: {what} and norm_counts.h5ad are not of the same run; begin with prepare"
            )
            raise FileError(msg)
    if not (merged.values >= 0).all() or not (merged.values < np.inf).all():
        msg = f"{folder.place / folder.name}: its merged spectra must be non-negative and finite; combine them again"
        raise FileError(msg)


def local_density(unit: Matrix, *, neighbours: int) -> Matrix:
    """Mean distance of each spectrum to those next to it; large for one that few factorizations found."""
    import numpy as np

    if neighbours < 1:
        msg = "`local_neighborhood_size` times the number of factorizations must be at least 1; make more of them"
        raise ValueError(msg)
    distances = optional_module("sklearn.metrics.pairwise", "sklearn").euclidean_distances(unit)
    last = min(neighbours, len(unit) - 1)
    return np.partition(distances, last, axis=1)[:, : last + 1].sum(axis=1) / neighbours


def medians(unit: Matrix, k: int) -> Matrix:
    """The median of each of k groups by k-means, with sum 1."""
    import numpy as np

    if len(unit) < k:
        msg = f"`local_density_threshold` must keep at least {k} spectra, got one that keeps {len(unit)}; raise it"
        raise ValueError(msg)
    labels = optional_module("sklearn.cluster", "sklearn").KMeans(k, n_init=10, random_state=1).fit(unit).labels_
    found = np.stack([np.median(unit[labels == group], axis=0) for group in range(k)])
    sums = found.sum(axis=1, keepdims=True)
    if not (sums > 0).all():
        msg = f"a group of spectra has nothing in common: the factorizations do not agree on {k} components"
        raise ValueError(msg)
    return found / sums


def refitted(X: Any, H: Matrix, options: dict[str, Any]) -> Matrix:
    """W for given H: scikit-learn's for coordinate descent, the minimum for the other losses."""
    if options["solver"] == "cd":
        return non_negative_factorization(X, n_components=len(H), H=H, update_H=False, **options)[0]
    taken = {name: options[name] for name in ("beta_loss", "alpha_W", "l1_ratio", "max_iter")}
    with warnings.catch_warnings():  # genes of no component have a median of 0
        warnings.filterwarnings("ignore", message="no component is positive in column")
        return nmf_xp.transform(X, H, tol=TOL, **taken).W


def _shares(usages: Matrix) -> Matrix:
    """Usages that sum to 1 in each cell; a cell without any has none."""
    import numpy as np

    sums = usages.sum(axis=1, keepdims=True)
    return np.divide(usages, sums, out=np.zeros_like(usages), where=sums > 0)


def scores(usages: Matrix, tpm: Any) -> Matrix:
    """The least squares coefficients of each gene, in standard deviations from its mean, on the usages."""
    import numpy as np

    mean, variance = mean_and_variance(tpm)
    deviation = np.sqrt(np.maximum(variance, 1e-12))
    products = np.asarray((tpm.T @ usages).T, dtype=float)
    right = (products - np.outer(usages.sum(axis=0), mean)) / deviation
    return np.linalg.lstsq(usages.T @ usages, right, rcond=None)[0]
