"""What a call costs whatever the size, and what a stack of small matrices spares of it.

On NumPy against the plain loop; on JAX the second call against a compiled program of the same updates and nothing else.
A stack stands against a loop of calls over its members. Between these calls is no pause: none of them leaves threads
that spin, and a processor that slept takes as long to wake as they do.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from benchmarks.competitors import PLAIN, SKLEARN_MU
from benchmarks.ours import as_jax, side, takes
from benchmarks.protocol import LOSSES, NOT_INSTALLED, interleaved, start
from nmf_xp import nmf

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BARE = "bare compiled program"
SAMPLE = 100  # members that stand for a loop over all
STACKED = ("mu", "newton", "cd", "cd-plain")


class Case(NamedTuple):
    """A matrix, and how it is factorized."""

    m: int
    n: int
    rank: int
    iterations: int

    def __str__(self) -> str:
        return f"{self.m} x {self.n}, rank {self.rank}, {self.iterations} iterations"


CASES = (Case(20, 10, 2, 10), Case(10, 10, 6, 100))


def measure(*, solvers: list[str], repeats: int = 200, members: int = 10000) -> Iterator[dict[str, Any]]:
    """One row a case, side and loss."""
    for case in CASES:
        V = np.random.default_rng(0).poisson(5.0, size=(case.m, case.n)).astype(np.float64)
        W, H = start(V, case.rank, seed=0)
        for loss in LOSSES:
            on_numpy = [PLAIN, SKLEARN_MU, *map(side, solvers)]
            fitting = [x for x in on_numpy if x.installed and x.takes(V, case.rank, loss)]
            jobs = {x.name: x.start(V, W, H, case.iterations, loss) for x in fitting}
            common = {"view": "fixed", "data": str(case), "loss": loss, "backend": "numpy"}
            yield from _rows(jobs, PLAIN.name, common, repeats)
            common["backend"] = "jax"
            if importlib.util.find_spec("jax") is None:
                yield {**common, "side": BARE, "error": NOT_INSTALLED}
                continue
            sides = [x for solver in solvers if (x := side(solver, "jax")).takes(V, case.rank, loss)]
            bare = _bare(*as_jax(V, W, H), loss, case.iterations)
            jobs = {BARE: bare, **{x.name: x.start(V, W, H, case.iterations, loss) for x in sides}}
            yield from _rows(jobs, BARE, common, repeats)
    for solver in (x for x in STACKED if x in solvers):
        for loss in (x for x in LOSSES if takes(solver, x, sparse=False)):
            yield from _stack(CASES[0], solver, loss, members)


def _stack(case: Case, solver: str, loss: str, members: int) -> Iterator[dict[str, Any]]:
    """Seconds a member, of the stack and of a loop over some of its members."""
    V: Any = np.random.default_rng(0).poisson(5.0, size=(members, case.m, case.n)).astype(np.float64)
    options: Any = {"beta_loss": loss, "solver": solver, "random_state": 0, "tol": 0, "max_iter": case.iterations}
    for backend in ("numpy", "jax"):
        if backend == "jax":
            if importlib.util.find_spec("jax") is None:
                continue
            V, *_ = as_jax(V, V[0], V[0])
        alone = [V[i] for i in range(min(SAMPLE, members))]

        def stack(V: Any = V) -> Any:
            return nmf(V, case.rank, **options)

        def loop(alone: list[Any] = alone) -> Any:
            return [nmf(x, case.rank, **options) for x in alone]

        timings = interleaved({"stack": stack, "loop": loop}, rounds=5)
        common = {"view": "fixed", "data": f"{members} of {case}", "loss": loss, "backend": backend}
        seconds = {"stack": timings["stack"].median / members, "loop": timings["loop"].median / len(alone)}
        for name, value in seconds.items():
            ratio, over = value / seconds["stack"], value - seconds["stack"]
            yield {**common, "side": f"{solver}, {name}", "seconds": value, "ratio": ratio, "over": over}


def _rows(
    jobs: dict[str, Callable[[], Any]], base: str, common: dict[str, str], repeats: int
) -> Iterator[dict[str, Any]]:
    interleaved(jobs, rounds=2, pause=0)  # imports and compilation
    timings = interleaved(jobs, rounds=repeats, pause=0)
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


def _bare(V: Any, W: Any, H: Any, loss: str, iterations: int) -> Callable[[], Any]:
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
        return jax.lax.fori_loop(0, iterations, lambda _, factors: iterate(factors, V), (W, H))

    wait: Any = jax.block_until_ready
    return lambda: wait(program(V, W, H))
