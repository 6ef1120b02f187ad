"""nmf_xp as sides of a comparison: each solver on each backend."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.competitors import Side, as_given, as_torch
from benchmarks.protocol import LOSSES
from nmf_xp import nmf
from nmf_xp.solvers import SOLVERS

if TYPE_CHECKING:
    from collections.abc import Callable

BACKENDS = ("numpy", "jax", "torch")


def solvers() -> list[str]:
    """Every solver, and the one that is taken by default."""
    return ["auto", *SOLVERS]


@functools.cache
def takes(solver: str, loss: str, *, sparse: bool) -> bool:
    """Whether a solver takes this loss and kind of data: asked of itself, on a tiny matrix."""
    V: Any = np.arange(1.0, 13.0).reshape(4, 3)
    if sparse:
        import scipy.sparse

        V = scipy.sparse.csr_array(V)
    try:
        nmf(V, 2, beta_loss=loss, solver=solver, random_state=0, max_iter=1)
    except (TypeError, ValueError):
        return False
    return True


def resolved(solver: str, V: Any, rank: int, loss: str) -> str:
    """The solver that runs under this name on these data."""
    return solver if solver != "auto" else nmf(V, rank, beta_loss=loss, max_iter=1, random_state=0).solver


def as_jax(V: Any, W: Any, H: Any) -> tuple[Any, Any, Any]:
    """JAX arrays of the same dtype."""
    import jax

    update: Any = jax.config.update
    update("jax_enable_x64", True)
    V, W, H = (jax.numpy.asarray(x) for x in (V, W, H))
    return V, W, H


def side(solver: str, backend: str = "numpy") -> Side:
    """One solver on one backend; sparse data on NumPy only."""

    def run(V: Any, W: Any, H: Any, iterations: int, loss: str) -> tuple[Any, Any]:
        result = nmf(V, W.shape[1], beta_loss=loss, solver=solver, init=(W, H), tol=0, max_iter=iterations)
        if backend == "jax":
            result.W.block_until_ready()
            result.H.block_until_ready()
        return result.W, result.H

    prepare: dict[str, Callable[[Any, Any, Any], tuple[Any, Any, Any]]]
    prepare = {"numpy": as_given, "jax": as_jax, "torch": as_torch}
    sparse = backend == "numpy" and any(takes(solver, loss, sparse=True) for loss in LOSSES)
    return Side(
        f"nmf_xp {solver}" + ("" if backend == "numpy" else f", {backend}"),
        backend,
        backend,
        run,
        tuple(loss for loss in LOSSES if takes(solver, loss, sparse=False)),
        prepare[backend],
        most_gathered=float("inf") if sparse else 0.0,
        compiled=backend == "jax",
    )
