"""A sparse V on NumPy is held once by rows and once by columns, and no place of an entry twice."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from array_api_compat import numpy as xp

from nmf_xp import nmf
from nmf_xp.arrays.kernels import compiles
from nmf_xp.data import as_data

scipy_sparse = pytest.importorskip("scipy.sparse")


@pytest.mark.parametrize("kernels", ["1", "0"])
def test_places_are_told_by_where_rows_begin(kernels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On NumPy, of blocks and transposes too, with empty rows at either end."""
    monkeypatch.setenv("NMF_XP_KERNELS", kernels)
    stored = np.random.default_rng(0).poisson(0.2, (3000, 40)).astype(float)
    stored[:700], stored[-2:] = 0, 0
    rng = np.random.default_rng(1)
    factors = rng.random((3000, 3)), rng.random((3, 40))
    data: Any = as_data(scipy_sparse.csr_array(stored)).with_both_orders()
    for whole in (data, data.T):
        V, (W, H) = (stored, factors) if whole is data else (stored.T, (factors[1].T, factors[0].T))
        for start, stop in ((0, len(V)), (len(V) // 8, len(V) // 2), (len(V) - 1, len(V))):
            part, there = whole.rows(start, stop), V[start:stop]
            assert part.i.shape == part.j.shape == part.values.shape == (np.count_nonzero(there),)
            np.testing.assert_array_equal(there[part.i, part.j], part.values)
            model = (W[start:stop] @ H)[part.i, part.j]
            np.testing.assert_allclose(part.predict(W[start:stop], H, xp=xp), model)
            np.testing.assert_allclose(part.T.predict(H.T, W[start:stop].T, xp=xp), model)
        np.testing.assert_array_equal(whole.dense(xp=xp), V)
        np.testing.assert_allclose(whole.predict(W, H, xp=xp), (W @ H)[whole.i, whole.j])


@pytest.mark.skipif(not compiles(), reason="without kernels the model of every entry is an array")
@pytest.mark.parametrize("solver", ["newton", "cd"])
def test_memory_is_at_most_twice_that_of_the_entries(solver: str) -> None:
    V = scipy_sparse.random_array((3000, 1500), density=0.25, rng=np.random.default_rng(0), format="csr")
    options: dict[str, Any] = {"solver": solver, "beta_loss": 1, "max_iter": 3, "tol": 0, "random_state": 0}
    nmf(V[:200], 10, **options)  # what is imported and compiled
    tracemalloc.start()
    try:
        nmf(V, 10, **options)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 24 * V.nnz
