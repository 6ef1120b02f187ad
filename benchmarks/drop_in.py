"""What changing one import costs or brings: scikit-learn's estimators beside ours, with scikit-learn's own parameters.

    OPENBLAS_NUM_THREADS=1 python -m benchmarks.drop_in --data digits faces --rounds 5

One row for each data set and way to call: milliseconds of the processor (medians, both sides in turn in one process),
how many times as fast ours is, and whether the two agree. The processor's time is what a shared machine does not
spoil, and is the time on the wall where BLAS has one thread. Kernels are compiled before. The iterations are the same
but where a stop test of `mu` falls otherwise; see "What differs" in docs/coming-from-scikit-learn.md.
"""

from __future__ import annotations

import argparse
import functools
import math
import statistics
import time
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy.sparse
from sklearn import decomposition

import nmf_xp.sklearn
from benchmarks.datasets import REAL, poisson
from benchmarks.scikit_learn import machine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SIDES: tuple[Any, Any] = (decomposition, nmf_xp.sklearn)
BETAS = (2.0, 1.5, 1.0, 0.5, 0.0)
BUDGET = 1.0  # seconds of a row, after which it is not run again


class Case(NamedTuple):
    """A matrix, its rank, and the iterations that are as many as one waits for."""

    load: Callable[[], Any]
    rank: int
    max_iter: int = 200


def _dense(name: str) -> Any:
    V = REAL[name].load()
    return V if isinstance(V, np.ndarray) else V.toarray()


DATA = {
    "digits": Case(functools.partial(_dense, "digits"), 10),
    "faces": Case(functools.partial(_dense, "faces"), 25),
    "reuters, dense": Case(functools.partial(_dense, "reuters"), 20),
    "reuters, CSR": Case(REAL["reuters"].load, 20),
    "leukemia": Case(functools.partial(_dense, "leukemia"), 3),
    "96 x 200": Case(functools.partial(poisson, 96, 200, 8), 8),
    "20 x 10": Case(functools.partial(poisson, 20, 10, 2, mean=5.0), 2, 10),
    "4000 x 4000": Case(functools.partial(poisson, 4000, 4000, 16), 20, 4),
}

PENALTIES = {"alpha_W": 1e-4, "alpha_H": 1e-4, "l1_ratio": 0.5}
FITS: dict[str, tuple[str, dict[str, Any]]] = {
    "cd": ("NMF", {}),
    "cd, shuffled": ("NMF", {"shuffle": True}),
    "cd, penalties": ("NMF", PENALTIES),
    **{f"mu, beta {beta:g}": ("NMF", {"solver": "mu", "beta_loss": beta}) for beta in BETAS},
    **{f"mini-batches, beta {beta:g}": ("MiniBatchNMF", {"beta_loss": beta}) for beta in (2.0, 1.0)},
}
WAYS = {
    **{name: (name, False) for name in FITS},
    **{f"transform after {name}": (name, True) for name in FITS if "," not in name or "mu" in name or "mini" in name},
}


def measured(sides: dict[int, Callable[[], Any]], rounds: int) -> list[tuple[float, Any]]:
    """The processor's seconds of each side, the median of several rounds in turn, and what it returned."""
    outputs = [job() for job in sides.values()]  # kernels are compiled
    seconds: list[list[float]] = [[] for _ in sides]
    for _ in range(rounds):
        for i, job in sides.items():
            begin = time.process_time()
            outputs[i] = job()
            seconds[i].append(time.process_time() - begin)
        if sum(map(sum, seconds)) > BUDGET:
            break
    return [(statistics.median(x), output) for x, output in zip(seconds, outputs, strict=True)]


def jobs(X: Any, case: Case, fit: str, *, transforms: bool) -> dict[int, Callable[[], Any]]:
    """A call of each side; what is transformed has been fitted by scikit-learn."""
    name, options = FITS[fit]
    models = [getattr(side, name)(case.rank, random_state=0, max_iter=case.max_iter, **options) for side in SIDES]
    if not transforms:
        return {i: functools.partial(_fit, model, X) for i, model in enumerate(models)}
    for model in models:
        model.fit(X)
    models[1].components_ = models[0].components_
    return {i: functools.partial(_transform, model, X) for i, model in enumerate(models)}


def _fit(model: Any, X: Any) -> tuple[int, float]:
    model.fit_transform(X)
    return model.n_iter_, model.reconstruction_err_


def _transform(model: Any, X: Any) -> tuple[int, float]:
    W = model.transform(X)
    difference = nmf_xp.beta_divergence(X, W, model.components_, beta_loss=model.beta_loss)
    return 0, math.sqrt(2 * float(difference))


def table(names: list[str], ways: list[str], rounds: int) -> Iterator[str]:
    """The rows, and the geometric mean of their ratios."""
    yield "| data | call | iterations | scikit-learn, ms | nmf_xp, ms | times as fast | error, relative |"
    yield "|---|---|---|---|---|---|---|"
    ratios = []
    for name in names:
        case = DATA[name]
        V = case.load()
        for way in ways:
            fit, transforms = WAYS[way]
            X = V + 0.5 if FITS[fit][1].get("beta_loss", 2.0) <= 0 and not scipy.sparse.issparse(V) else V
            if scipy.sparse.issparse(X) and FITS[fit][1].get("beta_loss", 2.0) <= 0:
                continue  # an absent entry is a zero, which the loss refuses
            sides = jobs(X, case, fit, transforms=transforms)
            (theirs, one), (ours, other) = measured(sides, rounds)
            ratios.append(theirs / ours)
            counts = "" if transforms else f"{one[0]} / {other[0]}"
            apart = other[1] / one[1] - 1
            yield (
                f"| {name} | {way} | {counts} | {1e3 * theirs:.3g} | {1e3 * ours:.3g} "
                f"| {ratios[-1]:.2f} | {0.0 if abs(apart) < 1e-10 else apart:+.0e} |"
            )
    yield f"\nGeometric mean {statistics.geometric_mean(ratios):.2f}, least {min(ratios):.2f}, of {len(ratios)} rows."


def main() -> None:
    """Print the table."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", nargs="+", choices=list(DATA), default=list(DATA))
    p.add_argument("--calls", nargs="+", choices=list(WAYS), default=list(WAYS))
    p.add_argument("--rounds", type=int, default=5)
    args = p.parse_args()
    warnings.simplefilter("ignore")
    for line in table(args.data, args.calls, args.rounds):
        print(line, flush=True)
    print(f"\n{machine()}")


if __name__ == "__main__":
    main()
