"""Sparse counts of real sizes: how long it takes to the divergence that scikit-learn has after some iterations.

    pip install poismf               # optional: Poisson factorization in C, for sparse data only
    python -m benchmarks.sparse_counts [words cells genes]

Counts are drawn from planted components, one word or molecule after the other. scikit-learn runs its multiplicative
updates for the number of iterations that the case names. Then this library and poismf run as long as they need for its
Kullback-Leibler divergence, from starts of their own. Times are those of the processor, with one thread each, since a
machine that does something else spoils all others. The number of iterations grows by a quarter until it is enough.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import importlib.util
import time
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy.sparse
import threadpoolctl
from sklearn.decomposition import NMF

from benchmarks.scikit_learn import machine
from nmf_xp import beta_divergence, nmf

if TYPE_CHECKING:
    from collections.abc import Callable


class Case(NamedTuple):
    """A matrix and a rank."""

    rows: int
    columns: int
    rank: int
    counts: int  # some of which meet in one entry
    iterations: int  # of scikit-learn


CASES = {
    "words": Case(7750, 2000, 10, 2_400_000, 100),
    "cells": Case(5000, 10000, 64, 12_000_000, 15),
    "genes": Case(5000, 40000, 20, 50_000_000, 10),
}


def drawn(case: Case) -> Any:
    """The counts, in compressed rows."""
    rng = np.random.default_rng(0)
    W, H = rng.gamma(0.3, size=(case.rows, case.rank)), rng.gamma(0.3, size=(case.rank, case.columns))
    share = W.sum(axis=0) * H.sum(axis=1)
    each = rng.multinomial(case.counts, share / share.sum())
    i = np.concatenate([rng.choice(case.rows, size=k, p=w / w.sum()) for w, k in zip(W.T, each, strict=True)])
    j = np.concatenate([rng.choice(case.columns, size=k, p=h / h.sum()) for h, k in zip(H, each, strict=True)])
    V = scipy.sparse.coo_array((np.ones(case.counts), (i, j)), shape=(case.rows, case.columns)).tocsr()
    V.sum_duplicates()
    return V


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """The time of the processor, and what came out."""
    begin = time.process_time()
    found = work()
    return time.process_time() - begin, found


def reached(V: Any, goal: float, run: Callable[[int], Any], first: int, most: float) -> str:
    """The time of the first number of iterations that reaches the goal."""
    count, spent = first, 0.0
    while True:
        spent, (W, H) = seconds(functools.partial(run, count))
        value = float(beta_divergence(V, np.ascontiguousarray(W), np.ascontiguousarray(H), beta_loss=1))
        if value <= goal:
            return f"{spent:.3g}"
        if spent > most:
            return f"> {spent:.3g} ({value / goal - 1:.2%} above)"
        count += max(1, count // 4)


def ours(iterations: int, V: Any, case: Case, solver: str) -> Any:
    """The factors after so many iterations."""
    fit = nmf(V, case.rank, beta_loss=1, solver=solver, max_iter=iterations, tol=0, random_state=0)
    return fit.W, fit.H


def theirs(iterations: int, V: Any, case: Case, method: str) -> Any:
    """Those of poismf, nearly without its penalty."""
    poismf = importlib.import_module("poismf")
    options: dict[str, Any] = {"l1_reg": 0.0, "l2_reg": 1e-9, "random_state": 1, "nthreads": 1, "reindex": False}
    fit = poismf.PoisMF(k=case.rank, method=method, niter=iterations, **options).fit(scipy.sparse.coo_matrix(V))
    return fit.A.astype(float), fit.B.astype(float).T


def row(name: str) -> str:
    """The row of the table of a case."""
    case = CASES[name]
    V = drawn(case)
    model = NMF(case.rank, init="random", solver="mu", beta_loss=1, max_iter=case.iterations, tol=0, random_state=0)
    spent, W = seconds(lambda: model.fit_transform(V))
    goal = float(beta_divergence(V, W, model.components_, beta_loss=1))
    cells = [f"{spent:.3g} ({case.iterations})"]
    runs = [functools.partial(ours, V=V, case=case, solver=solver) for solver in ("newton", "cd", "mu")]
    if importlib.util.find_spec("poismf"):
        runs += [functools.partial(theirs, V=V, case=case, method=method) for method in ("tncg", "cg")]
    cells += [reached(V, goal, run, 2, spent) for run in runs]
    return f"| {name}: {case.rows} x {case.columns}, {V.nnz} entries, rank {case.rank} | {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    asked = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    asked.add_argument("cases", nargs="*", default=list(CASES), choices=[*CASES, []])
    warnings.simplefilter("ignore")
    others = ["poismf tncg", "poismf cg"] if importlib.util.find_spec("poismf") else []
    names = ["counts", "scikit-learn (iterations)", "newton", "cd", "mu", *others]
    cases = asked.parse_args().cases
    print(f"| {' | '.join(names)} |\n|{'---|' * len(names)}")
    with threadpoolctl.threadpool_limits(1):
        for name in cases:
            print(row(name), flush=True)
    print(f"\n{machine()}")


if __name__ == "__main__":
    main()
