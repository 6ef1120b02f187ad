"""A run on a file against the same run in memory: time, with the file in the page cache.

    python benchmarks/out_of_core.py

The sides take turns in one process; each ratio is the median over the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from nmf_xp import RowBlocks, nmf
from nmf_xp.data.sources import NpyFile


def sources(V: Any, folder: Path) -> dict[str, Any]:
    """V in files of each kind."""
    import h5py
    import zarr

    np.save(folder / "V.npy", V)
    file = h5py.File(folder / "V.h5", "w")
    stored = zarr.create_array(
        folder / "V.zarr", shape=V.shape, chunks=(256, V.shape[1]), dtype=V.dtype, compressors=None
    )
    stored[:] = V
    return {
        "numpy.memmap": RowBlocks(np.load(folder / "V.npy", mmap_mode="r")),
        ".npy, read piece by piece": RowBlocks(NpyFile(folder / "V.npy")),
        "HDF5, contiguous": file.create_dataset("V", data=V),
        "HDF5, chunks of 64 rows": file.create_dataset("chunked", data=V, chunks=(64, V.shape[1])),
        "zarr, uncompressed": stored,
        "row blocks in memory": RowBlocks([V[i : i + 500] for i in range(0, V.shape[0], 500)]),
    }


def seconds(V: Any, rank: int, solver: str, iterations: int) -> float:
    """Time of a run, its first look at V and its report at the end included."""
    begin = time.perf_counter()
    nmf(V, rank, beta_loss="kullback-leibler", solver=solver, random_state=0, max_iter=iterations, tol=0)
    return time.perf_counter() - begin


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=8000)
    parser.add_argument("--columns", type=int, default=4000)
    parser.add_argument("--rank", type=int, default=20)
    parser.add_argument("--solver", default="mu")
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    V = np.random.default_rng(0).gamma(2.0, 1.0, size=(options.rows, options.columns))
    run = options.rank, options.solver, options.iterations
    with tempfile.TemporaryDirectory() as name:
        kinds = sources(V, Path(name))
        times: dict[str, list[float]] = {kind: [] for kind in ("memory", *kinds)}
        seconds(V, *run)
        for _ in range(options.rounds):
            times["memory"].append(seconds(V, *run))
            for kind, source in kinds.items():
                times[kind].append(seconds(source, *run))
    print(f"{V.nbytes / 1e6:.0f} MB, rank {options.rank}, {options.iterations} iterations of {options.solver}")
    for kind, measured in times.items():
        speed = statistics.median(a / b for a, b in zip(times["memory"], measured, strict=True))
        print(f"{kind:<28} {statistics.median(measured):6.2f} s   {100 * speed:4.0f} % of the speed in memory")


if __name__ == "__main__":
    main()
