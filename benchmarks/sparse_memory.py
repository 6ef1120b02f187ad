"""Peak memory and time of a sparse Kullback-Leibler fit: 20000 x 10000, 1e6 nonzeros, rank 50.

    python benchmarks/sparse_memory.py

The extra memory is what the fit allocates at its peak, beyond V itself: some bytes for each entry, and some copies of
the factors, which are nearly as large as V here.
"""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import scipy.sparse

from nmf_xp import nmf


def main(m: int = 20_000, n: int = 10_000, nnz: int = 1_000_000, rank: int = 50, iterations: int = 10) -> None:
    """Print the peak and what it is measured against."""
    rng = np.random.default_rng(0)
    entries = rng.poisson(3.0, nnz) + 1.0
    V = scipy.sparse.csr_array((entries, (rng.integers(0, m, nnz), rng.integers(0, n, nnz))), shape=(m, n))
    V.sum_duplicates()
    V_bytes = V.data.nbytes + V.indices.nbytes + V.indptr.nbytes
    factor_bytes = (m + n) * rank * 8
    options = {"beta_loss": "kullback-leibler", "random_state": 0, "max_iter": iterations}
    tracemalloc.start()
    nmf(V, rank, **options)  # type: ignore[arg-type]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    begin = time.perf_counter()
    nmf(V, rank, tol=0, **options)  # type: ignore[arg-type]
    seconds = time.perf_counter() - begin
    print(f"V {V_bytes / 1e6:.1f} MB, factors {factor_bytes / 1e6:.1f} MB, extra at the peak {peak / 1e6:.1f} MB")
    print(f"extra over V: {peak / V_bytes:.2f}; over V + factors: {peak / (V_bytes + factor_bytes):.2f}")
    print(f"{seconds / iterations * 1e3:.0f} ms an iteration, start and report included")


if __name__ == "__main__":
    main()
