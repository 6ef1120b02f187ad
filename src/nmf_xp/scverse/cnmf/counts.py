"""Counts of genes in cells, as cNMF takes them: read from its kinds of files, and made comparable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.data.sources import RowBlocks
from nmf_xp.files import FileError, opened, optional_module, read_matrix
from nmf_xp.files.delimited import read_delimited
from nmf_xp.files.matrix import Asked
from nmf_xp.scverse.cnmf.frames import read_frame

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    HostArray = np.ndarray[Any, Any]

LISTED = 4  # names in a message
PER_MILLION = 1e6
BRIGHTEST = 20  # genes with the largest means, from which cNMF takes the noise of large counts


class Counts(NamedTuple):
    """Cells by genes: a NumPy array, or SciPy's compressed rows."""

    values: Any
    cells: list[str]
    genes: list[str]

    @property
    def sparse(self) -> bool:
        """Whether zeros are left out."""
        return hasattr(self.values, "indptr")


def read_counts(path: Path, *, densify: bool = False) -> Counts:
    """Counts from .h5ad, .df.npz, or text with tabs, a first line of genes and a first column of cells.

    From text and .df.npz they are sparse unless `densify` is asked for.
    """
    import numpy as np

    sparse = optional_module("scipy.sparse", "files")
    if path.suffix.lower() == ".h5ad":
        values, cells, genes, _ = read_matrix(path)
        if isinstance(values, RowBlocks):
            msg = f"{path}: does not fit in memory"
            raise FileError(msg)
        if cells is None or genes is None:
            msg = f"{path}: must have names of cells and genes"
            raise FileError(msg)
    elif path.suffix.lower() == ".npz":
        values, cells, genes = read_frame(path)
        cells, genes = list(map(str, cells)), list(map(str, genes))
    elif path.suffix.lower() in (".mtx", ".gz"):
        msg = f"{path}: save it as .h5ad, which has the names too: `scanpy.read_10x_mtx(folder).write('counts.h5ad')`"
        raise FileError(msg)
    else:
        with opened(path, (path.suffix.lower(),)):
            values, cells, genes, _ = read_delimited(path, ".tsv", Asked(header=True, index=True, sep="\t"))
        assert cells is not None
        assert genes is not None
    if hasattr(values, "format"):
        values = sparse.csr_matrix(values)
        values = values.toarray() if densify else values
    elif not densify and path.suffix.lower() != ".h5ad":
        values = sparse.csr_matrix(values)
    counts = Counts(values, cells, genes)
    numbers = values.data if counts.sparse else values
    if numbers.size and not (np.isfinite(numbers).all() and numbers.min() >= 0):
        msg = f"{path}: must hold counts, got negative entries or NaN; scaled data are none"
        raise FileError(msg)
    for what, names in (("cells", cells), ("genes", genes)):
        if len(set(names)) < len(names) or any("\n" in name for name in names):
            msg = (
                f"{path}: names of {what} must be different and on one line each; see AnnData's `var_names_make_unique`"
            )
            raise FileError(msg)
    return counts


def per_million(counts: Counts) -> Counts:
    """Each cell's counts as shares of a million of them; integers become float32, as in scanpy."""
    import numpy as np

    values = counts.values
    values = values.astype(np.float32) if values.dtype.kind in "biu" else values.copy()
    sizes = np.asarray(values.sum(axis=1, dtype=np.float64)).ravel()
    sizes = (np.where(sizes > 0, sizes, PER_MILLION) / PER_MILLION).astype(values.dtype)
    if counts.sparse:
        values.data = values.data / np.repeat(sizes, np.diff(values.indptr))
    else:
        values = values / sizes[:, None]
    return counts._replace(values=values)


def mean_and_variance(values: Any) -> tuple[HostArray, HostArray]:
    """Of each column; the variance is the mean of squares."""
    import numpy as np

    if hasattr(values, "indptr"):
        scaler = optional_module("sklearn.preprocessing", "sklearn").StandardScaler(with_mean=False).fit(values)
        return scaler.mean_, scaler.var_
    return np.asarray(values.mean(axis=0), dtype=float), np.asarray(values.var(axis=0), dtype=float)


def highly_variable(tpm: Counts, count: int) -> list[str]:
    """So many genes whose variance is furthest above that of noise, a quadratic of the mean (Kotliar et al. 2019)."""
    import numpy as np

    mean, variance = mean_and_variance(tpm.values)
    with np.errstate(invalid="ignore", divide="ignore"):
        fano = variance / mean
    seen = fano[mean > 0]
    low, high = np.quantile(mean, [0.1, 0.9])
    least, most = np.quantile(seen, [0.1, 0.9]) if seen.size else (0.0, 0.0)
    usual = (fano > least) & (fano < most) & (mean > low) & (mean < high)
    if not usual.any():
        msg = f"{len(mean)} genes are too few, or too much alike, to find variable ones; name them with `genes_file`"
        raise ValueError(msg)
    brightest = _falling(mean)[:BRIGHTEST]
    brightest = brightest[mean[brightest] > 0]
    a = np.min(np.sqrt(variance[brightest]) / mean[brightest])
    ratio = fano / (a**2 * mean + np.sqrt(np.median(fano[usual])) ** 2)
    chosen = set(_falling(ratio)[:count].tolist())
    return [gene for j, gene in enumerate(tpm.genes) if j in chosen]


def _falling(values: HostArray) -> HostArray:
    """The places of the largest first and NaN last; equal ones in pandas' order, which decides who is left out."""
    import numpy as np

    there = np.flatnonzero(~np.isnan(values))[::-1]
    order = there[np.argsort(values[there], kind="quicksort")][::-1]
    return np.concatenate([order, np.flatnonzero(np.isnan(values))])


def with_unit_variance(counts: Counts, genes: list[str], *, sparsely: bool) -> Counts:
    """These genes in float64, each divided by its standard deviation; a sparse one that does not vary is left.

    `sparsely` is scanpy's way, which cNMF takes where the shares of a million are sparse.
    """
    import numpy as np

    places = {gene: j for j, gene in enumerate(counts.genes)}
    lacking = [gene for gene in genes if gene not in places]
    if lacking:
        more = f" and {len(lacking) - LISTED} more" if len(lacking) > LISTED else ""
        msg = f"the counts must have all genes of the list, got none of {', '.join(lacking[:LISTED])}{more}"
        raise ValueError(msg)
    values = counts.values[:, [places[gene] for gene in genes]].astype(np.float64)
    m = values.shape[0]
    if not sparsely:
        dense = values.toarray() if hasattr(values, "toarray") else values
        deviation = dense.std(axis=0, ddof=1)
    else:
        deviation = np.sqrt(mean_and_variance(values)[1] * (m / max(m - 1, 1)))
        deviation[deviation == 0] = 1
    constant = [gene for gene, x in zip(genes, deviation, strict=True) if not x > 0]
    if constant:
        msg = f"genes must vary between cells, got {', '.join(constant[:LISTED])} with one count in all of them"
        raise ValueError(msg)
    if hasattr(values, "indptr"):
        values.sort_indices()
        values.data = values.data / deviation[values.indices]
    else:
        values = values / deviation
    return Counts(values, counts.cells, genes)


def check_cells(counts: Counts) -> None:
    """Refuse cells without any counts of the genes."""
    import numpy as np

    empty = np.flatnonzero(np.asarray(counts.values.sum(axis=1)).ravel() == 0)
    if empty.size:
        names = ", ".join(counts.cells[i] for i in empty[:LISTED])
        msg = f"cells must have counts of the genes, got {empty.size} without, such as {names}; leave them out"
        raise ValueError(msg)
