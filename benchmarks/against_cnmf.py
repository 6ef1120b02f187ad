"""`nmf_xp.scverse.cnmf` against cNMF 1.7.1: 700 blood cells, 765 genes, 10 components, 100 replicates.

    python benchmarks/against_cnmf.py [--losses frobenius kullback-leibler] [--repetitions 3] [--parts 10]

The counts are recovered from what scanpy ships, log(1 + c / s) with three digits: the least count of a cell is 1. Both
sides run in one process, in which everything is imported, with cNMF's defaults. They alternate: between the parts of
cNMF's replicates come whole runs of this library, of which the median counts. Wall time, and the processor time of the
same, as an unquiet machine leaves fewer cores to the side that uses them.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import os
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from nmf_xp.scverse import cnmf
from nmf_xp.scverse.cnmf.frames import read_frame

if TYPE_CHECKING:
    from collections.abc import Callable

K, REPLICATES, SEED, NAME = 10, 100, 14, "cells"


class Seconds(NamedTuple):
    """What a call took."""

    wall: float
    processor: float


def clocked(call: Callable[[], Any]) -> Seconds:
    """The time of a call that may print and warn."""
    wall, processor = time.perf_counter(), time.process_time()
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        call()
    return Seconds(time.perf_counter() - wall, time.process_time() - processor)


def blood_cells(file: Path) -> None:
    """Write the counts."""
    import anndata
    import scanpy
    import scipy.sparse

    raw = scanpy.datasets.pbmc68k_reduced().raw
    values = np.expm1(raw.X.toarray().astype(float))
    values = np.rint(values / np.where(values > 0, values, np.inf).min(axis=1, keepdims=True))
    adata = anndata.AnnData(scipy.sparse.csr_matrix(values))
    adata.obs_names, adata.var_names = raw.obs_names, raw.var_names
    adata.write_h5ad(file)


def total(parts: list[Seconds]) -> Seconds:
    """Of several calls."""
    return Seconds(sum(x.wall for x in parts), sum(x.processor for x in parts))


def compared(file: Path, folder: Path, loss: str, *, repetitions: int, parts: int) -> tuple[Seconds, Seconds, Any]:
    """Seconds of cNMF and of this library for all four commands, and the cosines of their spectra."""
    from cnmf import cNMF

    theirs, ours = cNMF(output_dir=str(folder / "theirs"), name=NAME), cnmf.Folder(folder / "ours", NAME)
    (folder / "ours").mkdir(parents=True)
    options: dict[str, Any] = {"n_iter": REPLICATES, "seed": SEED, "beta_loss": loss}
    first = clocked(lambda: theirs.prepare(str(file), components=[K], **options))
    second = clocked(lambda: cnmf.prepare(ours, file, [K], **options))
    cnmf.factorize(ours, total_workers=20)  # the kernels are loaded
    done, whole = [], []
    for part in range(parts):
        if part * repetitions % parts < repetitions:
            whole.append(clocked(lambda: cnmf.factorize(ours)))
        done.append(clocked(functools.partial(theirs.factorize, worker_i=part, total_workers=parts)))
        print(f"{loss}, part {part + 1}: cNMF {done[-1]}, this library {whole[-1]}", flush=True)
    third = Seconds(*(statistics.median(x) for x in zip(*whole, strict=True)))
    ends = [clocked(theirs.combine), clocked(lambda: cnmf.combine(ours))]
    lasts = [clocked(lambda: theirs.consensus(K, show_clustering=False)), clocked(lambda: cnmf.consensus(ours, K))]
    spectra = [read_frame(folder / side / NAME / f"cnmf_tmp/{NAME}.spectra.k_{K}.dt_0_5.consensus.df.npz").values
               for side in ("theirs", "ours")]  # fmt: skip
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in spectra]
    cosines = (unit[0] @ unit[1].T).max(axis=1)
    return total([first, *done, ends[0], lasts[0]]), total([second, third, ends[1], lasts[1]]), cosines


def kernel() -> str:
    """The kernel of NumPy's BLAS, and its threads."""
    import threadpoolctl

    found = [x for x in threadpoolctl.threadpool_info() if x["user_api"] == "blas"]
    return ", ".join(sorted({f"{x['internal_api']} {x['version']} {x.get('architecture', '')}" for x in found}))


def main() -> None:
    """Compare, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--losses", nargs="+", default=["frobenius", "kullback-leibler"])
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--parts", type=int, default=10)
    asked = parser.parse_args()
    lines = [
        "| loss | cNMF 1.7.1 | here | ratio of wall times | of processor times | least cosine |",
        "|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "counts.h5ad"
        clocked(lambda: blood_cells(file))
        for loss in asked.losses:
            theirs, ours, cosines = compared(
                file, Path(name) / loss, loss, repetitions=asked.repetitions, parts=asked.parts
            )
            ratios = [ours[i] / theirs[i] for i in (0, 1)]
            seconds = f"{theirs.wall:.1f} s | {ours.wall:.1f} s"
            lines.append(f"| {loss} | {seconds} | {ratios[0]:.3f} | {ratios[1]:.3f} | {cosines.min():.6f} |")
    print("\n".join(lines))
    print(f"\n{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {kernel()}; {time.strftime('%Y-%m-%d')}")


if __name__ == "__main__":
    main()
