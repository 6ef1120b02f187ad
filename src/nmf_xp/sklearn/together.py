"""Many fits of one matrix by scikit-learn's solvers, in threads; those of coordinate descent share products with X.

A product of X with the factors of some fits takes about half of what as many products take, and the iterations of a
small rank consist of little else. Each fit has its own start and its own end, and whoever ends makes room for another.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

from nmf_xp.arrays import kernels, precision, threads
from nmf_xp.divergences import check_beta
from nmf_xp.sklearn.function import non_negative_factorization
from nmf_xp.sklearn.inputs import check_positive
from nmf_xp.sklearn.plain import plain
from nmf_xp.sklearn.starts import start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import numpy as np

    Matrix = np.ndarray[Any, Any]
    Ended = Callable[[int, Matrix], None]

ABREAST = 32  # fits side by side, at most
ROOM = 2**23  # entries of all their factors of one side, at most
DENSE = 0.2  # of X stored, from which on products with all of it are sooner made
LARGE = 2**27  # entries of a dense X, beyond which a sparse one stays what it is
FAR = 2.0**100  # from one: the largest entry of X, beyond which units are needed


class Fit:
    """One fit on its way."""

    def __init__(self, i: int, X: Any, n_components: int, init: str, seed: int) -> None:
        """At its start."""
        self.i = i
        factors: Any = start(X, n_components, init=init, random_state=seed, beta=2.0)
        self.W, self.Ht = factors[0], factors[1].T
        self.first = math.inf
        self.n_iter = 0

    def is_over(self, violation: float, *, max_iter: int, tol: float) -> bool:
        """Whether this iteration was its last one, by scikit-learn's rule."""
        self.first = violation if self.n_iter == 0 else self.first
        self.n_iter += 1
        return violation <= tol * self.first or self.n_iter == max_iter


@precision.in_full_precision
def components_of(X: Any, n_components: int, seeds: Sequence[int], ended: Ended, **options: Any) -> None:
    """H of a fit from each seed, as scikit-learn's `non_negative_factorization` finds it with these options.

    Each is given to `ended` when it is there, by its number, in any order and from any thread.
    """
    import numpy as np

    size = X.shape[0] * X.shape[1]
    if hasattr(X, "nnz") and X.nnz >= DENSE * size and size <= LARGE:
        X = X.toarray()
    kernel = None
    if _is_ordinary(X, **options):
        kernel = kernels.find("cyclic_sweep", np.empty((max(X.shape), n_components)))

    def one_by_one(numbers: list[int]) -> None:
        for i in numbers:
            ended(i, _fit(X, n_components, seeds[i], **options))

    def abreast(numbers: list[int]) -> None:
        fits = (Fit(i, X, n_components, options["init"], seeds[i]) for i in numbers)
        _run(X, n_components, fits, kernel, ended, max_iter=options["max_iter"], tol=options["tol"])

    with threads.held_blas():
        threads.run(one_by_one if kernel is None else abreast, threads.shares(list(range(len(seeds)))))


def _is_ordinary(X: Any, *, solver: str, tol: float, alpha_W: float, alpha_H: float | str, **_: Any) -> bool:
    """Whether it is coordinate descent of numbers that need no units, without penalties."""
    plain_options = solver == "cd" and tol > 0 and alpha_W == 0 and alpha_H in (0, "same")
    return plain_options and str(X.dtype) == "float64" and 1 / FAR < float(X.max()) < FAR


def _fit(X: Any, n_components: int, seed: int, **options: Any) -> Matrix:
    """H of one fit; that of "mu" without the search for the best W at its end."""
    if options["solver"] == "mu":
        beta = check_beta(options["beta_loss"])
        check_positive(X, beta)
        W, H = start(X, n_components, init=options["init"], random_state=seed, beta=beta)
        alphas = options["alpha_W"], options["alpha_H"], options["l1_ratio"]
        schedule: Any = {"max_iter": options["max_iter"], "tol": options["tol"]}
        found = plain(X, W, H, ("mu", {"polish": False}), beta=beta, alphas=alphas, **schedule)
        if found is not None:
            components: Any = found.H
            return components
    return non_negative_factorization(X, n_components=n_components, random_state=seed, **options)[1]


def _run(X: Any, r: int, waiting: Iterator[Fit], kernel: Any, ended: Ended, *, max_iter: int, tol: float) -> None:
    """All fits that wait, some at a time."""
    import numpy as np

    abreast, order = max(1, min(ABREAST, ROOM // (max(X.shape) * r))), np.arange(r, dtype=np.int32)
    running: list[Fit] = []
    while True:
        running += itertools.islice(waiting, abreast - len(running))
        if not running:
            return
        threads.give_up_if_asked()
        products = _products(X, [fit.Ht for fit in running])
        swept = [kernel(fit.W, P, fit.Ht.T @ fit.Ht, order, 0.0, 0.0) for fit, P in zip(running, products, strict=True)]
        for fit, (W, _) in zip(running, swept, strict=True):
            fit.W = W
        left = []
        for fit, P, (_, violation) in zip(running, _products(X.T, [fit.W for fit in running]), swept, strict=True):
            fit.Ht, more = kernel(fit.Ht, P, fit.W.T @ fit.W, order, 0.0, 0.0)
            if fit.is_over(violation + more, max_iter=max_iter, tol=tol):
                ended(fit.i, np.ascontiguousarray(fit.Ht.T))
            else:
                left.append(fit)
        running = left


def _products(X: Any, factors: Iterable[Matrix]) -> list[Matrix]:
    """X with each of them."""
    import numpy as np

    factors = list(factors)
    return np.split(np.asarray(X @ np.concatenate(factors, axis=1)), len(factors), axis=1)
