"""The other libraries, and the loop that one would write by hand: W and H from (V, W, H, iterations, loss).

Every side starts from the given W and H and runs exactly so many iterations. What a library computes besides, and
cannot be told not to, is part of its time.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from benchmarks.protocol import LOSSES

if TYPE_CHECKING:
    from collections.abc import Callable

KL, FROBENIUS = LOSSES
GATHERED = 1e8  # most numbers that may be gathered from the factors at once: a gigabyte or so


def as_given(V: Any, W: Any, H: Any) -> tuple[Any, Any, Any]:
    """NumPy and SciPy arrays as they are."""
    return V, W, H


class Side(NamedTuple):
    """One algorithm of one library."""

    name: str
    package: str  # as pip knows it
    module: str  # as Python knows it
    run: Callable[[Any, Any, Any, int, str], tuple[Any, Any]]
    losses: tuple[str, ...] = LOSSES
    prepare: Callable[[Any, Any, Any], tuple[Any, Any, Any]] = as_given  # not timed
    dense: bool = True
    most_gathered: float = 0.0  # most stored entries times rank of sparse data; 0: no sparse data
    compiled: bool = False  # whether the first run with so many iterations compiles

    @property
    def installed(self) -> bool:
        """Whether its package is there."""
        return importlib.util.find_spec(self.module) is not None

    def takes(self, V: Any, rank: int, loss: str) -> bool:
        """Whether it can run on these data."""
        fits = self.dense if isinstance(V, np.ndarray) else V.nnz * rank <= self.most_gathered
        return loss in self.losses and fits

    def start(self, V: Any, W: Any, H: Any, iterations: int, loss: str) -> Callable[[], tuple[Any, Any]]:
        """The job that is timed: all conversions are done."""
        arguments = self.prepare(V, W, H)
        return lambda: self.run(*arguments, iterations, loss)


def plain(V: Any, W: Any, H: Any, iterations: int, loss: str) -> tuple[Any, Any]:
    """Lee & Seung's multiplicative updates in NumPy, W first, each with the model of the factors that it meets."""
    tiny = np.finfo(V.dtype).tiny  # 0 / 0 where a row, a column or a component has died
    if loss == FROBENIUS:
        for _ in range(iterations):
            W = W * (V @ H.T) / np.maximum(W @ (H @ H.T), tiny)
            H = H * (W.T @ V) / np.maximum((W.T @ W) @ H, tiny)
        return W, H
    quotient = _dense_quotient if isinstance(V, np.ndarray) else _sparse_quotient(V)
    for _ in range(iterations):
        W = W * (quotient(V, W, H, tiny) @ H.T) / np.maximum(H.sum(axis=1), tiny)
        H = H * (W.T @ quotient(V, W, H, tiny)) / np.maximum(W.sum(axis=0)[:, None], tiny)
    return W, H


def _dense_quotient(V: Any, W: Any, H: Any, tiny: Any) -> Any:
    return V / np.maximum(W @ H, tiny)


def _sparse_quotient(V: Any) -> Callable[[Any, Any, Any, Any], Any]:
    rows, columns = V.nonzero()

    def quotient(V: Any, W: Any, H: Any, tiny: Any) -> Any:
        Q = V.copy()
        Q.data = V.data / np.maximum(np.einsum("ij,ij->i", W[rows], H.T[columns]), tiny)
        return Q

    return quotient


def sklearn(solver: str) -> Callable[[Any, Any, Any, int, str], tuple[Any, Any]]:
    """scikit-learn's function; it writes into the start, hence the copies."""

    def run(V: Any, W: Any, H: Any, iterations: int, loss: str) -> tuple[Any, Any]:
        from sklearn.decomposition import non_negative_factorization

        options = {"solver": solver, "beta_loss": loss, "init": "custom", "tol": 0.0, "max_iter": iterations}
        found = non_negative_factorization(V, W.copy(), H.copy(), n_components=W.shape[1], **options)
        return found[0], found[1]

    return run


def torchnmf(V: Any, W: Any, H: Any, iterations: int, loss: str) -> tuple[Any, Any]:
    """torchnmf: V ~ H W^T in its names, so that our H is updated first. It evaluates the loss every 10 iterations."""
    from torchnmf.nmf import NMF

    model = NMF(W=H.T, H=W).to(V)
    model.W.data.copy_(H.T)  # its constructor rounds to float32
    model.H.data.copy_(W)
    model.fit(V, beta=1 if loss == KL else 2, tol=-float("inf"), max_iter=iterations)
    return model.H.detach(), model.W.detach().T


def nmf_torch(algorithm: str) -> Callable[[Any, Any, Any, int, str], tuple[Any, Any]]:
    """nmf-torch: X ~ H W in its names. It takes no start and no number of iterations, so two methods are replaced."""

    def run(V: Any, W: Any, H: Any, iterations: int, loss: str) -> tuple[Any, Any]:
        from nmf.nmf_models import NMFBatchHALS, NMFBatchMU

        base: Any = NMFBatchMU if algorithm == "mu" else NMFBatchHALS

        class FromStart(base):  # type: ignore[misc]
            def _initialize_H_W(self, eps: float = 0.0) -> None:
                self.H, self.W = W.clone(), H.clone()

            def _is_converged(self, *errors: Any) -> bool:
                return False

        fixed = {"alpha_W": 0.0, "l1_ratio_W": 0.0, "alpha_H": 0.0, "l1_ratio_H": 0.0, "random_state": 0}
        sweeps = {} if algorithm == "mu" else {"hals_max_iter": 1 if algorithm == "hals" else 200}
        beta, rank = (1 if loss == KL else 2), W.shape[1]
        options = {"init": "random", "tol": 0.0, "n_jobs": -1, "device_type": "cpu", "fp_precision": V.dtype}
        model = FromStart(n_components=rank, beta_loss=beta, max_iter=iterations, **options, **fixed, **sweeps)
        with contextlib.redirect_stdout(io.StringIO()):  # it prints a line every 10 iterations
            model.fit(V)
        return model.H, model.W

    return run


def tensorly(algorithm: str) -> Callable[[Any, Any, Any, int, str], tuple[Any, Any]]:
    """tensorly's non-negative CP decomposition of a tensor with two axes, which is NMF. Its HALS makes five sweeps."""

    def run(V: Any, W: Any, H: Any, iterations: int, loss: str) -> tuple[Any, Any]:  # noqa: ARG001
        from tensorly import decomposition

        decompose = decomposition.non_negative_parafac if algorithm == "mu" else decomposition.non_negative_parafac_hals
        given = (np.ones(W.shape[1], dtype=W.dtype), [W, np.ascontiguousarray(H.T)])
        _, factors = decompose(V, W.shape[1], n_iter_max=iterations, init=given, tol=0)
        return factors[0], factors[1].T

    return run


def as_torch(V: Any, W: Any, H: Any) -> tuple[Any, Any, Any]:
    """torch tensors; a sparse V in coordinates, which is what torchnmf takes."""
    import torch

    factors = torch.from_numpy(W), torch.from_numpy(H)
    if isinstance(V, np.ndarray):
        return torch.from_numpy(V), *factors
    coo = V.tocoo()
    indices = torch.from_numpy(np.stack([coo.row, coo.col]).astype(np.int64))
    values = torch.from_numpy(coo.data)
    return torch.sparse_coo_tensor(indices, values, coo.shape, check_invariants=True).coalesce(), *factors


PLAIN = Side("plain NumPy loop", "numpy", "numpy", plain, most_gathered=GATHERED)
SKLEARN_MU = Side("scikit-learn mu", "scikit-learn", "sklearn", sklearn("mu"), most_gathered=float("inf"))
SKLEARN_CD = Side("scikit-learn cd", "scikit-learn", "sklearn", sklearn("cd"), (FROBENIUS,), most_gathered=float("inf"))
OTHERS = [
    SKLEARN_MU,
    SKLEARN_CD,
    PLAIN,
    Side("torchnmf", "torchnmf", "torchnmf", torchnmf, prepare=as_torch, most_gathered=GATHERED),
    Side("nmf-torch mu", "nmf-torch", "nmf", nmf_torch("mu"), prepare=as_torch),
    Side("nmf-torch hals", "nmf-torch", "nmf", nmf_torch("hals"), (FROBENIUS,), as_torch),
    Side("nmf-torch halsvar", "nmf-torch", "nmf", nmf_torch("halsvar"), (FROBENIUS,), as_torch),
    Side("tensorly mu", "tensorly", "tensorly", tensorly("mu"), (FROBENIUS,)),
    Side("tensorly hals", "tensorly", "tensorly", tensorly("hals"), (FROBENIUS,)),
]
REFERENCE = {KL: SKLEARN_MU, FROBENIUS: SKLEARN_CD}  # what each loss is compared with
