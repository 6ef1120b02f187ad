"""Blood cells with counts, from the file that scanpy ships."""

from __future__ import annotations

import functools
import importlib
from typing import Any

import pytest

from tests.data.test_tables import cells as logarithms


@functools.cache
def _counts() -> Any:
    np, sparse, anndata = (importlib.import_module(name) for name in ("numpy", "scipy.sparse", "anndata"))
    raw = logarithms().raw
    values = np.expm1(raw.X.toarray().astype(float))
    values = np.rint(values / np.where(values > 0, values, np.inf).min(axis=1, keepdims=True))  # the least count is 1
    adata = anndata.AnnData(sparse.csr_matrix(values))
    adata.obs_names, adata.var_names = raw.obs_names, raw.var_names
    adata.obs["size"] = values.sum(axis=1)
    adata.var["variable"] = values.var(axis=0) > 1.5 * values.mean(axis=0)
    return adata


def counts(cells: int = 700, genes: int = 765) -> Any:
    """AnnData with counts of the first cells and genes."""
    pytest.importorskip("anndata", reason="anndata is not installed")
    pytest.importorskip("scanpy", reason="scanpy, which brings the cells, is not installed")
    return _counts()[:cells, :genes].copy()
