"""Random counts under the negative binomial loss: it never rises, for no solver, backend, dispersion or kind of data.

    python -m tests.overdispersed_rises --count 2000

Each problem has a size, a rank, a level of its counts, a dispersion (one, or one for each row or column), and by chance
an exposure, weights with missing entries, a penalty, float32, or H fixed; every one goes to every solver, on the
backends in turn. A rise is one beyond the rounding of the loss.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse

from nmf_xp import NegativeBinomial, nmf, transform
from nmf_xp.testing import Backend, Target

SOLVERS = ("mu", "mm", "newton", "cd")
BACKENDS = (Backend.NUMPY, Backend.TORCH, Backend.STRICT)
ON_JAX = 50
"""Of so many problems one is JAX's, which compiles each anew."""


class Made(NamedTuple):
    """A problem."""

    V: Any
    rank: int
    loss: NegativeBinomial
    options: dict[str, Any]
    sparse: bool
    fixed_h: bool


def made(seed: int) -> Made:
    """The problem of this number."""
    rng = np.random.default_rng(seed)
    m, n, r = (int(rng.integers(low, high)) for low, high in ((3, 40), (3, 30), (1, 5)))
    level = 10.0 ** rng.uniform(-1, 6)
    alpha: Any = 10.0 ** rng.uniform(-4, 1, size=((1, 1), (m, 1), (1, n))[rng.integers(3)])
    means = level * rng.gamma(0.5, size=(m, r)) @ rng.gamma(0.5, size=(r, n))
    V = rng.poisson(means * rng.gamma(1 / alpha, alpha, size=(m, n))).astype(float)
    V[rng.integers(m), rng.integers(n)] += 1.0  # never zeros alone
    options: dict[str, Any] = {}
    sparse, lines = bool(rng.random() < 0.3), ((m, 1), (1, n))[rng.integers(2)]
    if rng.random() < 0.3:
        options["exposure"] = rng.lognormal(0, 2, size=lines if sparse else (m, n))
    if rng.random() < 0.3:
        options["weights"] = rng.gamma(1.0, size=lines) if sparse else (rng.random((m, n)) < 0.7).astype(float)
        options["weights"].flat[0] = 1.0
    if rng.random() < 0.2:
        options |= {"alpha_W": 0.1, "l1_ratio": float(rng.integers(2))}
    if rng.random() < 0.3:
        V = V.astype(np.float32)
        options |= {name: x.astype(np.float32) for name, x in options.items() if name in ("exposure", "weights")}
    loss = NegativeBinomial(float(alpha[0, 0]) if alpha.size == 1 else alpha)
    return Made(V, r, loss, options, sparse, bool(rng.random() < 0.2))


def rise(problem: Made, solver: str, target: Target) -> float:
    """The largest rise from one check to the next, in roundings of the loss."""
    V, numpy = problem.V, target.xp.__name__.endswith("numpy") and not target.is_jax
    options: dict[str, Any] = {"solver": solver, "check_every": 1, "tol": 1e-15, "max_iter": 12}
    for name, x in problem.options.items():
        options[name] = target.asarray(x) if isinstance(x, np.ndarray) else x
    given = scipy.sparse.csr_array(V) if problem.sparse and numpy else target.asarray(V)
    if problem.fixed_h:
        H = np.random.default_rng(1).gamma(0.5, size=(problem.rank, V.shape[1])).astype(V.dtype)
        found = transform(given, target.asarray(H), beta_loss=problem.loss, **options)
    else:
        found = nmf(given, problem.rank, beta_loss=problem.loss, random_state=0, **options)
    history = np.asarray(found.history, dtype=float)
    assert np.isfinite(history).all()
    W = target.to_numpy(found.W)
    assert np.isfinite(W).all()
    return float(np.max(np.diff(history), initial=0.0) / (np.finfo(W.dtype).eps * max(float(V.sum()), history[0])))


def main() -> None:
    """Count the rises."""
    asked = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    asked.add_argument("--count", type=int, default=2000)
    asked.add_argument("--first", type=int, default=0)
    options = asked.parse_args()
    targets, jax = [backend.target() for backend in BACKENDS], Backend.JAX.target()
    largest, rises = 0.0, 0
    for seed in range(options.first, options.first + options.count):
        problem = made(seed)
        for i, solver in enumerate(SOLVERS):
            target = jax if seed % ON_JAX == 0 else targets[(seed + i) % len(targets)]
            found = rise(problem, solver, target)
            largest = max(largest, found)
            if found > 8:
                rises += 1
                sys.stdout.write(f"{seed} {solver} {target.name}: {found:.3g}\n")
    tried = f"{options.count} problems x {len(SOLVERS)} solvers"
    sys.stdout.write(f"{rises} rises in {tried}; the largest is {largest:.2g} roundings\n")


if __name__ == "__main__":
    main()
