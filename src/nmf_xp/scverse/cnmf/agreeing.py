"""`consensus`: the spectra that many factorizations agree on, the usages of them, and both in units of people."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import nmf_xp
from nmf_xp.arrays.checks import check_non_negative
from nmf_xp.files import FileError, optional_module
from nmf_xp.scverse.cnmf.counts import PER_MILLION, mean_and_variance, with_unit_variance
from nmf_xp.scverse.cnmf.factorizing import DENSITY, MERGED
from nmf_xp.scverse.cnmf.frames import Frame
from nmf_xp.scverse.cnmf.preparing import DEVIATION
from nmf_xp.sklearn import non_negative_factorization

if TYPE_CHECKING:
    import numpy as np

    from nmf_xp.scverse.cnmf.counts import Counts
    from nmf_xp.scverse.cnmf.folder import Folder

    Matrix = np.ndarray[Any, Any]

SPECTRA = "spectra.{}.consensus"
FAR = 2.0  # from any spectrum of length 1: more than non-negative ones can be
TOL = 1e-6  # of the usages, a convex problem, where it is not scikit-learn's coordinate descent


class Given(NamedTuple):
    """What other commands wrote."""

    merged: Frame  # the spectra of all factorizations
    counts: Counts  # of the variable genes, with unit variance
    tpm: Counts  # shares of a million, of all genes
    places: list[int]  # of the variable genes among all
    deviation: Matrix  # of their shares
    options: dict[str, Any]


def consensus(
    folder: Folder, k: int, *, local_density_threshold: float = 0.5, local_neighborhood_size: float = 0.3
) -> Frame:
    """Write consensus spectra and usages of a rank, as cNMF does; returns the spectra, a row each."""
    import numpy as np

    threshold = check_non_negative("local_density_threshold", local_density_threshold)
    given = _given(folder, k)
    merged = given.merged
    lengths = np.sqrt((merged.values**2).sum(axis=1, keepdims=True))
    unit = merged.values / np.where(lengths > 0, lengths, 1.0)
    density = local_density(unit, neighbours=int(local_neighborhood_size * len(unit) / k))
    density = np.where(lengths[:, 0] > 0, density, FAR)  # a spectrum that is zero is like none
    folder.write(DENSITY, Frame(density[:, None], merged.rows, ["local_density"]), k=k)
    spectra = medians(unit[density < threshold], k)
    spectra, usages = _by_share(spectra, refitted(given.counts.values, spectra, given.options))
    end = f"k_{k}.dt_{str(threshold).replace('.', '_')}"
    frames = _in_units(given, spectra, usages)
    for what, frame in frames.items():
        name = what.format(end)
        folder.write(f"{name}.df.npz", frame, text=f"{name}.txt")
    return frames[SPECTRA]


def _given(folder: Folder, k: int) -> Given:
    """The files, which must be of one run."""
    import numpy as np

    merged, counts, tpm = folder.frame(MERGED, k=k), folder.counts("norm_counts.h5ad"), folder.counts("tpm.h5ad")
    stats, genes = folder.frame("tpm_stats.df.npz", columns=(DEVIATION,)), folder.genes
    for what, names, others in (
        ("spectra", merged.columns, counts.genes),
        ("overdispersed_genes.txt", genes, counts.genes),
        ("tpm.h5ad", tpm.cells, counts.cells),
        ("tpm_stats.df.npz", stats.rows, tpm.genes),
    ):
        if names != others:
            where = folder.place / folder.name
            msg = f"{where}: {what} and norm_counts.h5ad are not of the same run; begin with prepare"
            raise FileError(msg)
    if not ((merged.values >= 0) & (merged.values < np.inf)).all():
        msg = f"{folder.place / folder.name}: its merged spectra must be non-negative and finite; combine them again"
        raise FileError(msg)
    known = {gene: j for j, gene in enumerate(tpm.genes)}
    lacking = [gene for gene in genes if gene not in known]
    if lacking:
        msg = f"{folder.place / folder.name}: tpm.h5ad lacks the gene {lacking[0]}; begin with prepare"
        raise FileError(msg)
    places = [known[gene] for gene in genes]
    deviation = stats.column(DEVIATION)[places]
    return Given(merged, counts, tpm, places, np.where(deviation > 0, deviation, 1.0), folder.options)


def _by_share(spectra: Matrix, usages: Matrix) -> tuple[Matrix, Matrix]:
    """Those that make up most of the cells first."""
    import numpy as np

    order = np.argsort(-_shares(usages).sum(axis=0), kind="stable")
    return spectra[order], usages[:, order]


def _in_units(given: Given, spectra: Matrix, usages: Matrix) -> dict[str, Frame]:
    """The tables: also the spectra of all genes, in shares of a million and in standard deviations."""
    import numpy as np

    tpm, places, options = given.tpm, given.places, given.options
    genes, dtype = given.counts.genes, tpm.values.dtype
    per_gene = refitted(tpm.values.T, _shares(usages).T.astype(dtype), options).T
    scaled = with_unit_variance(tpm, genes, sparsely=tpm.sparse).values.astype(dtype)
    fitted = refitted(scaled, (per_gene[:, places] / given.deviation).astype(dtype), options)
    sums = per_gene.sum(axis=1, keepdims=True)
    reference = per_gene / np.where(sums > 0, sums, 1.0) * PER_MILLION
    numbers = list(range(1, len(spectra) + 1))
    return {
        SPECTRA: Frame(spectra, numbers, genes),
        "usages.{}.consensus": Frame(fitted, given.counts.cells, numbers),
        "gene_spectra_tpm.{}": Frame(per_gene, numbers, tpm.genes),
        "gene_spectra_score.{}": Frame(scores(usages, tpm.values), numbers, tpm.genes),
        "starcat_spectra.{}": Frame(reference[:, places] / given.deviation, [f"GEP{i}" for i in numbers], genes),
    }


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
