"""Real cells with planted batches: what a factor for each lane and gene gives back.

    pip install "nmf_xp[scverse]" scanpy scipy   # scanpy ships the cells: 700 of a healthy donor's blood, 765 genes
    python cells_in_lanes.py

The cells are dealt to three lanes, and each lane loses a share of the molecules of each gene, drawn one by one. That
leaves counts, of which a plain fit makes programs of lanes. The programs of all molecules are what should be found:
printed is the cosine of each with the one that is, of square roots of shares, matched one to one.
"""

from __future__ import annotations

import importlib.util
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from nmf_xp import nmf

PROGRAMS, LANES, SIGMA = 6, 3, 0.7
FIT: dict[str, Any] = {"beta_loss": "kullback-leibler", "n_restarts": 5, "random_state": 0, "max_iter": 500}


def cells() -> Any:
    """The counts, cells by genes: the file holds logarithms of shares, and the least count of a cell is 1."""
    import anndata

    scanpy = importlib.util.find_spec("scanpy")
    if scanpy is None or scanpy.origin is None:
        msg = "the cells come with scanpy: pip install scanpy"
        raise ImportError(msg)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the file is of an early version
        adata = anndata.read_h5ad(Path(scanpy.origin).parent / "datasets/10x_pbmc68k_reduced.h5ad")
    shares = np.expm1(adata.raw.X.toarray().astype(float))
    return np.rint(shares / np.where(shares > 0, shares, np.inf).min(axis=1, keepdims=True))


def dealt(V: Any, rng: np.random.Generator) -> tuple[Any, Any]:
    """What the lanes leave of the counts, and the lane of each cell."""
    lanes = rng.integers(LANES, size=len(V))
    kept = rng.lognormal(0.0, SIGMA, size=(LANES, V.shape[1]))
    kept /= kept.max(axis=0)
    return rng.binomial(V.astype(int), kept[lanes]).astype(float), lanes


def cosines(found: Any, expected: Any) -> Any:
    """Of each expected program with one that was found, matched one to one."""
    from scipy.optimize import linear_sum_assignment

    found, expected = (np.sqrt(x / x.sum(axis=1, keepdims=True)) for x in (found, expected))
    similar = expected @ found.T
    return np.sort(similar[linear_sum_assignment(-similar)])


def main() -> None:
    """Print the cosines."""
    V = cells()
    lost, lanes = dealt(V, np.random.default_rng(0))
    programs: Any = nmf(V, PROGRAMS, **FIT).H
    sys.stdout.write(f"{V.shape[0]} cells, {V.shape[1]} genes, {lost.sum() / V.sum():.0%} of the molecules kept\n")
    for name, batch in (("without lanes", None), ("with batch=lanes", lanes)):
        fit: Any = nmf(lost, PROGRAMS, batch=batch, **FIT)
        sys.stdout.write(f"{name:18} {np.round(cosines(fit.H, programs), 3)}\n")


if __name__ == "__main__":
    main()
