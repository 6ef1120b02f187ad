"""What a call costs whatever the size: 20 x 10, rank 2, 10 iterations.

On NumPy against the plain loop; on JAX the second call against a compiled program of the same updates and nothing else.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.competitors import PLAIN, SKLEARN_MU
from benchmarks.ours import as_jax, side
from benchmarks.protocol import LOSSES, NOT_INSTALLED, interleaved, start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ITERATIONS = 10
BARE = "bare compiled program"


def measure(*, solvers: list[str], repeats: int = 50) -> Iterator[dict[str, Any]]:
    """One row a side and loss."""
    V = np.random.default_rng(0).poisson(5.0, size=(20, 10)).astype(np.float64)
    W, H = start(V, 2, seed=0)
    for loss in LOSSES:
        on_numpy = [PLAIN, SKLEARN_MU, *map(side, solvers)]
        jobs = {x.name: x.start(V, W, H, ITERATIONS, loss) for x in on_numpy if x.installed and x.takes(V, 2, loss)}
        yield from _rows(jobs, PLAIN.name, {"view": "fixed", "loss": loss, "backend": "numpy"}, repeats)
        common = {"view": "fixed", "loss": loss, "backend": "jax"}
        if importlib.util.find_spec("jax") is None:
            yield {**common, "side": BARE, "error": NOT_INSTALLED}
            continue
        sides = [x for solver in solvers if (x := side(solver, "jax")).takes(V, 2, loss)]
        jobs = {BARE: _bare(*as_jax(V, W, H), loss), **{x.name: x.start(V, W, H, ITERATIONS, loss) for x in sides}}
        yield from _rows(jobs, BARE, common, repeats)


def _rows(
    jobs: dict[str, Callable[[], Any]], base: str, common: dict[str, str], repeats: int
) -> Iterator[dict[str, Any]]:
    interleaved(jobs, rounds=2)  # imports and compilation
    timings = interleaved(jobs, rounds=repeats)
    for name, timing in timings.items():
        if timing.error:
            yield {**common, "side": name, "error": timing.error}
            continue
        yield {
            **common,
            "side": name,
            "seconds": timing.median,
            "ratio": timing.median / timings[base].median,
            "over": timing.median - timings[base].median,
        }


def _bare(V: Any, W: Any, H: Any, loss: str) -> Callable[[], Any]:
    """Lee & Seung's updates as one compiled function."""
    import jax
    from jax import numpy as jnp

    def kullback_leibler(factors: tuple[Any, Any], V: Any) -> tuple[Any, Any]:
        W, H = factors
        W = W * ((V / (W @ H)) @ H.T) / jnp.sum(H, axis=1)
        return W, H * (W.T @ (V / (W @ H))) / jnp.sum(W, axis=0)[:, None]

    def frobenius(factors: tuple[Any, Any], V: Any) -> tuple[Any, Any]:
        W, H = factors
        W = W * (V @ H.T) / (W @ (H @ H.T))
        return W, H * (W.T @ V) / ((W.T @ W) @ H)

    iterate = kullback_leibler if loss == LOSSES[0] else frobenius

    @jax.jit
    def program(V: Any, W: Any, H: Any) -> tuple[Any, Any]:
        return jax.lax.fori_loop(0, ITERATIONS, lambda _, factors: iterate(factors, V), (W, H))

    wait: Any = jax.block_until_ready
    return lambda: wait(program(V, W, H))
