"""JAX and torch on a CPU against NumPy: an iteration, a call up to a divergence, and what JAX takes to compile.

    python -m benchmarks.other_libraries [--rounds 3] [--only dense weighted ...]

At rank 20 on 2000 x 1000 where nothing else is said; counts that are drawn from planted components. An iteration is
the difference of runs of 6 and of 1, of which the sides take turns. Given is the least processor time of some rounds,
which other programs disturb least, and for JAX and torch the quotient by NumPy's. With "own operators" nothing is
handed to NumPy.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import time
import warnings
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import scipy.sparse
import torch
from jax.experimental.sparse import BCOO

from benchmarks.scikit_learn import machine
from nmf_xp import nmf, transform
from nmf_xp.run.hosted import natively

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RANK, STEPS, SHAPE = 20, 5, (2000, 1000)
DEFAULTS = {1.0: "newton", 2.0: "cd", 0.0: "mm", 0.5: "mm", 1.5: "mm", 3.0: "mm", -1.0: "mm"}
SOLVERS = {1.0: ("newton", "cd", "mm", "mu"), 2.0: ("cd", "cd-plain", "mm", "mu")}
BATCH = 4  # matrices of a stack
PARTS = ("dense", "weighted", "sparse", "others", "divergence", "compilation")


def of_torch(x: Any) -> Any:
    """A tensor, of compressed rows where `x` is sparse; all else as it is."""
    if scipy.sparse.issparse(x):
        starts, columns = (torch.asarray(part.astype(np.int64)) for part in (x.indptr, x.indices))
        return torch.sparse_csr_tensor(starts, columns, torch.asarray(x.data), size=x.shape, check_invariants=True)
    return torch.asarray(x) if isinstance(x, np.ndarray) else x


def of_jax(x: Any) -> Any:
    """The same of JAX."""
    if scipy.sparse.issparse(x):
        return BCOO.from_scipy_sparse(x)
    return jax.numpy.asarray(x) if isinstance(x, np.ndarray) else x


LIBRARIES: dict[str, Callable[[Any], Any]] = {"NumPy": lambda x: x, "JAX": of_jax, "torch": of_torch}


def counts(shape: tuple[int, ...] = SHAPE) -> Any:
    """Counts of planted components, all of them positive, as beta <= 0 needs them."""
    rng = np.random.default_rng(0)
    *stack, m, n = shape
    W, H = rng.gamma(0.5, 1.0, (*stack, m, RANK)), rng.gamma(0.5, 1.0, (*stack, RANK, n))
    return rng.poisson(W @ H) + 0.5


@contextlib.contextmanager
def without_kernels() -> Iterator[None]:
    """Nothing that is compiled with the wheel."""
    os.environ["NMF_XP_KERNELS"] = "0"
    try:
        yield
    finally:
        del os.environ["NMF_XP_KERNELS"]


def run(call: Callable[..., Any], way: Callable[[], Any], max_iter: int) -> Any:
    """A run to its end."""
    with way():
        found = call(max_iter=max_iter)
    getattr(found.W, "block_until_ready", lambda: None)()
    return found


def iteration(job: Callable[[int], Any]) -> float:
    """Processor time of an iteration."""
    times = []
    for n in (1, STEPS + 1):
        begun = time.process_time()
        job(n)
        times.append(time.process_time() - begun)
    return max(1e-9, (times[1] - times[0]) / STEPS)


def compared(jobs: dict[Any, Callable[[int], Any]], rounds: int) -> dict[Any, float]:
    """The least of each, of rounds in which they take turns after one that compiles."""
    found: dict[Any, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds + 1):
        for name, job in jobs.items():
            found[name].append(iteration(job))
    return {name: min(times[1:]) for name, times in found.items()}


def line(
    name: str, function: Callable[..., Any], arrays: tuple[Any, ...], rounds: int, *, own: bool, **rest: Any
) -> None:
    """Print a row of the first table."""
    jobs: dict[Any, Callable[[int], Any]] = {}
    way: Callable[[], Any] = rest.pop("way", contextlib.nullcontext)
    for library, convert in LIBRARIES.items():
        options = {key: convert(value) for key, value in rest.items()}
        call = functools.partial(function, *map(convert, arrays), tol=0, **options)
        jobs[library, False] = functools.partial(run, call, way)
        if own and library != "NumPy":
            jobs[library, True] = functools.partial(run, call, natively)
    found = compared(jobs, rounds)
    base = found["NumPy", False]
    ratios = [found[key] / base if key in found else None for key in _SIDES]
    cells = [f"{1e3 * base:.2f}", *("" if x is None else f"{x:.2f}" for x in ratios)]
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


_SIDES = (("JAX", False), ("torch", False), ("JAX", True), ("torch", True))


def dense(rounds: int) -> None:
    """Every solver and loss."""
    for dtype in ("float64", "float32"):
        V = counts().astype(dtype)
        for beta, default in DEFAULTS.items():
            for solver in SOLVERS.get(beta, ("mm", "mu")):
                options: dict[str, Any] = {"solver": solver, "beta_loss": beta, "random_state": 0}
                own = dtype == "float64" and solver == default
                line(f"{dtype}, {solver}, beta {beta:g}", nmf, (V, RANK), rounds, own=own, **options)
    for beta, solver in DEFAULTS.items():
        options = {"solver": solver, "beta_loss": beta, "random_state": 0, "way": without_kernels}
        line(f"no kernels, float64, {solver}, beta {beta:g}", nmf, (counts(), RANK), rounds, own=False, **options)


def weighted(rounds: int) -> None:
    """Weights of entries, and entries that are missing."""
    rng = np.random.default_rng(1)
    weights, hidden = rng.random(SHAPE) + 0.5, rng.random(SHAPE) < 0.3
    for dtype in ("float64", "float32"):
        V = counts().astype(dtype)
        for beta, solver in DEFAULTS.items():
            options: dict[str, Any] = {"solver": solver, "beta_loss": beta, "random_state": 0}
            own = dtype == "float64" and beta in (0.5, 1, 2)
            given = weights.astype(dtype)
            line(
                f"weights, {dtype}, {solver}, beta {beta:g}", nmf, (V, RANK), rounds, own=own, weights=given, **options
            )
        for beta in (1.0, 2.0, 0.5):
            options = {"solver": DEFAULTS[beta], "beta_loss": beta, "random_state": 0, "missing": "nan"}
            holes = np.where(hidden, np.nan, V).astype(dtype)
            line(f"missing, {dtype}, {DEFAULTS[beta]}, beta {beta:g}", nmf, (holes, RANK), rounds, own=False, **options)


def sparse(rounds: int) -> None:
    """SciPy's CSR, torch's CSR and JAX's BCOO, 4000 x 3000 with 3 % of the entries stored."""
    rng = np.random.default_rng(2)
    V = scipy.sparse.random(4000, 3000, 0.03, "csr", rng=rng, data_rvs=lambda size: rng.poisson(3.0, size) + 1.0)
    for dtype in ("float64", "float32"):
        for beta in (1.0, 2.0, 0.5):
            for solver in SOLVERS.get(beta, ("mm",)):
                options: dict[str, Any] = {"solver": solver, "beta_loss": beta, "random_state": 0}
                own = dtype == "float64" and solver == DEFAULTS[beta]
                name = f"sparse, {dtype}, {solver}, beta {beta:g}"
                line(name, nmf, (V.astype(dtype), RANK), rounds, own=own, **options)


def others(rounds: int) -> None:
    """The same H, a callback at every second iteration, stacks, and several starts."""
    V, H = counts(), np.random.default_rng(3).random((RANK, SHAPE[1])) + 0.1
    for beta in (1.0, 2.0, 0.5):
        options: dict[str, Any] = {"solver": DEFAULTS[beta], "beta_loss": beta}
        name = f"{DEFAULTS[beta]}, beta {beta:g}"
        line(f"`transform`, {name}", transform, (V, H), rounds, own=False, **options)
        options["random_state"] = 0
        seen = {"callback": lambda _: None, "check_every": 2}
        line(f"callback, {name}", nmf, (V, RANK), rounds, own=False, **options, **seen)
        for shape in ((100, 96, 200), (BATCH, 1000, 500)):
            line(f"{' x '.join(map(str, shape))}, {name}", nmf, (counts(shape), RANK), rounds, own=True, **options)
        line(f"4 starts, 500 x 300, {name}", nmf, (V[:500, :300], RANK), rounds, own=True, n_restarts=4, **options)


def to_divergence(rounds: int) -> None:
    """Whole calls, up to the divergence of `mu` after 100 iterations."""
    print("\n| loss | NumPy, iterations | NumPy, ms | JAX | torch |\n|---|---|---|---|---|")
    V = counts()
    for beta, solver in DEFAULTS.items():
        options: dict[str, Any] = {"beta_loss": beta, "random_state": 0}
        target = float(nmf(V, RANK, solver="mu", max_iter=100, tol=0, **options).divergence)
        jobs: dict[str, Callable[[], Any]] = {}
        needed = {}
        for library, convert in LIBRARIES.items():
            call = functools.partial(nmf, convert(V), RANK, solver=solver, tol=0, **options)
            watched = call(max_iter=300, check_every=1, callback=functools.partial(_is_there, target))
            needed[library] = watched.n_iter
            jobs[library] = functools.partial(run, call, contextlib.nullcontext, watched.n_iter)
        times: dict[str, list[float]] = {library: [] for library in jobs}
        for _ in range(rounds + 1):
            for library, job in jobs.items():
                begun = time.process_time()
                job()
                times[library].append(time.process_time() - begun)
        least = {library: min(found[1:]) for library, found in times.items()}
        base = least["NumPy"]
        cells = [f"{least[x] / base:.2f} ({needed[x]} iterations)" for x in ("JAX", "torch")]
        print(f"| {solver}, beta {beta:g} | {needed['NumPy']} | {1e3 * base:.0f} | {' | '.join(cells)} |", flush=True)


def _is_there(target: float, seen: Any) -> bool:
    return bool(seen.divergence <= target)


def compilation(rounds: int) -> None:
    """What JAX takes to compile `nmf` in a user's function, and how long the first call of its own takes."""
    print("\n| in `jax.jit`, 100 iterations | traced, s | compiled, s of processors | compiled, s |\n|---|---|---|---|")
    V = jax.numpy.asarray(counts())
    for solver, beta in (("newton", 1.0), ("mm", 1.0), ("mu", 1.0), ("cd", 2.0), ("mm", 0.5)):
        found = []
        for _ in range(rounds + 1):
            options: dict[str, Any] = {"solver": solver, "beta_loss": beta, "random_state": 0, "tol": 0}
            jitted = jax.jit(lambda V, options=options: nmf(V, RANK, max_iter=100, **options).W)
            begun = time.process_time()
            lowered = jitted.lower(V)
            between, wall = time.process_time(), time.perf_counter()
            lowered.compile()
            found.append((between - begun, time.process_time() - between, time.perf_counter() - wall))
        cells = (f"{min(column):.2f}" for column in zip(*found[1:], strict=True))
        print(f"| {solver}, beta {beta:g} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="what to measure (default: all)")
    asked = parser.parse_args()
    config: Any = jax.config
    config.update("jax_enable_x64", True)
    warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
    print(f"load {os.getloadavg()[0]:.1f}\n")
    tables = {"dense": dense, "weighted": weighted, "sparse": sparse, "others": others}
    if set(asked.only) & set(tables):
        columns = ("case", "NumPy, ms", "JAX", "torch", "JAX, own operators", "torch, own operators")
        print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for part, table in (tables | {"divergence": to_divergence, "compilation": compilation}).items():
        if part in asked.only:
            table(asked.rounds)
    print(f"\nload {os.getloadavg()[0]:.1f}\n\n{machine()}")


if __name__ == "__main__":
    main()
