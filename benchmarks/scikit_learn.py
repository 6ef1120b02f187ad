"""The estimators beside scikit-learn's: whether they agree, and what they cost.

    python -m benchmarks.scikit_learn equal    # the factors after 200 iterations from the same start
    python -m benchmarks.scikit_learn converged # the divergences where ours has converged, from the same start
    python -m benchmarks.scikit_learn cost     # time and divergence of a fit as users call it

Each prints a table in Markdown; those in docs/benchmarks/ are copies.
"""

from __future__ import annotations

import argparse
import functools
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse
from sklearn import decomposition

import nmf_xp.sklearn
from benchmarks import results, tables
from benchmarks.datasets import REAL, Dataset
from benchmarks.protocol import LOSSES, divergence, interleaved, start
from nmf_xp import nmf

if TYPE_CHECKING:
    from collections.abc import Iterator

RANK = 10
CONVERGED = 1e-6
SOLVERS = (("cd", 2.0), ("mu", 2.0), ("mu", 1.5), ("mu", 1.0), ("mu", 0.0))
NAMES = {2.0: "Frobenius", 1.0: "Kullback-Leibler"}


def difference(x: Any, y: Any) -> float:
    """Largest difference of two factors, relative to the largest entry."""
    return float(np.max(np.abs(x - y)) / np.max(np.abs(y)))


def fit(cls: Any, X: Any, **options: Any) -> tuple[Any, Any]:
    """A fitted estimator and its W."""
    model = cls(n_components=RANK, init="random", random_state=0, **options)
    return model, model.fit_transform(X)


def equal(names: list[str], iterations: int) -> Iterator[str]:
    """How far the factors of both are apart; for Itakura-Saito half a unit is added to all entries."""
    yield "| data | stored | solver | beta | W | H | divergence, relative |"
    yield "|---|---|---|---|---|---|---|"
    for name in names:
        V = _dense(REAL[name])
        for kind in ("dense", "CSR"):
            for solver, beta in SOLVERS:
                X = V + 0.5 if beta == 0 else V
                X = scipy.sparse.csr_array(X) if kind == "CSR" else X
                options = {"solver": solver, "beta_loss": beta, "tol": 0, "max_iter": iterations}
                theirs, W_theirs = fit(decomposition.NMF, X, **options)
                ours, W = fit(nmf_xp.sklearn.NMF, X, **options)
                apart = difference(W, W_theirs), difference(ours.components_, theirs.components_)
                change = (ours.reconstruction_err_ / theirs.reconstruction_err_) ** 2 - 1
                yield (
                    f"| {name} | {kind} | {solver} | {beta:g} | {apart[0]:.0e} | {apart[1]:.0e} "
                    f"| {0.0 if abs(change) < 1e-12 else change:+.0e} |"
                )


def converged(names: list[str], most: int) -> Iterator[str]:
    """The divergences after as many iterations as ours needs to a KKT residual below 1e-6, at most `most`."""
    yield "| data | solver | beta | iterations | KKT residual | divergence, relative |"
    yield "|---|---|---|---|---|---|"
    for name in names:
        V = _dense(REAL[name])
        for solver, beta in (("cd", 2.0), ("mu", 2.0), ("mu", 1.0)):
            W, H = start(V, RANK, seed=0)
            ours: dict[str, Any] = {"beta_loss": beta, "solver": "cd-plain" if solver == "cd" else solver, "tol": 0}
            end, iterations = nmf(V, RANK, init=(W, H), max_iter=1, **ours), 1
            while end.kkt_residual >= CONVERGED and iterations < most:  # neither solver remembers anything
                more = min(iterations, most - iterations)
                end, iterations = nmf(V, RANK, init=(end.W, end.H), max_iter=more, **ours), iterations + more
            W, H, _ = decomposition.non_negative_factorization(
                V, W, H, n_components=RANK, init="custom", solver=solver, beta_loss=beta, tol=0, max_iter=iterations
            )
            change = end.divergence / divergence(V, W, H, LOSSES[int(beta == 2)]) - 1
            yield (
                f"| {name} | {solver} | {beta:g} | {iterations} | {end.kkt_residual:.0e} "
                f"| {0.0 if abs(change) < 1e-12 else change:+.0e} |"
            )


def cost(names: list[str], rounds: int) -> Iterator[str]:
    """Seconds (medians, interleaved) and divergences of fits with default settings but for solver and loss."""
    yield "| data | loss | estimator | iterations | seconds | divergence |"
    yield "|---|---|---|---|---|---|"
    for name in names:
        data = REAL[name]
        X = data.load()
        for beta, loss in NAMES.items():
            solver = "cd" if beta == 2 else "mu"
            sides: dict[str, tuple[Any, dict[str, Any]]] = {
                f"scikit-learn, {solver}": (decomposition.NMF, {"solver": solver}),
                f"nmf_xp, {solver}": (nmf_xp.sklearn.NMF, {"solver": solver}),
                "nmf_xp, auto": (nmf_xp.sklearn.NMF, {"solver": "auto"}),
                "scikit-learn, mini-batches": (decomposition.MiniBatchNMF, {"batch_size": 100}),
                "nmf_xp, mini-batches": (nmf_xp.sklearn.MiniBatchNMF, {"batch_size": 100}),
            }
            jobs = {
                side: functools.partial(fit, cls, X, beta_loss=beta, **options)
                for side, (cls, options) in sides.items()
            }
            for job in jobs.values():
                job()  # kernels are compiled, files are read
            for side, timing in interleaved(jobs, rounds=rounds).items():
                model, _ = timing.output
                divergence = model.reconstruction_err_**2 / 2
                yield f"| {name} | {loss} | {side} | {model.n_iter_} | {timing.median:.2f} | {divergence:.6g} |"


def machine() -> str:
    """Date, machine and versions."""
    return tables.machine([results.describe(results.load())])


def _dense(data: Dataset) -> Any:
    V = data.load()
    return V.toarray() if data.sparse else V


def main() -> None:
    """Print one of the tables."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("table", choices=["equal", "converged", "cost"])
    p.add_argument("--data", nargs="+", choices=list(REAL), default=["digits", "faces", "reuters"])
    p.add_argument("--iterations", type=int, help="default: 200 for `equal`, at most 100000 for `converged`")
    p.add_argument("--rounds", type=int, default=3, help="for `cost`")
    args = p.parse_args()
    warnings.simplefilter("ignore")
    lines = {
        "equal": lambda: equal(args.data, args.iterations or 200),
        "converged": lambda: converged(args.data, args.iterations or 100_000),
        "cost": lambda: cost(args.data, args.rounds),
    }
    for line in lines[args.table]():
        print(line, flush=True)
    print(f"\n{machine()}")


if __name__ == "__main__":
    main()
