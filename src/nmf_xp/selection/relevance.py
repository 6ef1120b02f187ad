"""Automatic relevance determination: more components than are needed, of which a prior empties the superfluous ones.

The l1-ARD of Tan & Fevotte (2013), IEEE TPAMI 35(7), 1592-1605, from their joint density: given lambda_k, entries of
w_k and h_k are exponential with mean lambda_k, lambda_k is inverse-gamma with parameters a and b, and V has dispersion
phi around WH. The mode of the posterior is the minimum of

    D(V | WH) + phi sum_k [(sum(w_k) + sum(h_k) + b) / lambda_k + c log(lambda_k)],     c = m + n + a + 1.

For given lambda this is an L1 penalty of weight phi / lambda_k on each component, for which the multiplicative updates
are monotone; for given factors the best lambda_k is (sum(w_k) + sum(h_k) + b) / c. That of an empty component is
b / c, so the relevance here is lambda_k / (b / c) - 1, and 0 for those that the data do not need.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.arrays import libraries, precision, threads, transfer
from nmf_xp.data.constraints import Constraints
from nmf_xp.divergences import data_divergence
from nmf_xp.problem import Factors, Problem
from nmf_xp.problem.starts import start
from nmf_xp.solvers.mu import MultiplicativeUpdate

if TYPE_CHECKING:
    import numpy as np

    from nmf_xp.arrays.typing import Array, Namespace
    from nmf_xp.data import Data
    from nmf_xp.problem.posing import Posed

    Vector = np.ndarray[Any, Any]

STARTS = 4
MAX_ITER = 1000
TOL = 1e-5  # relative change of any lambda in one iteration
CHECK_EVERY = 10
NONE = 1e-4  # a relevance on its way to 0, ten times the change at which the iteration ends


class _Prior(NamedTuple):
    """The parameters of the model."""

    b: float
    c: float
    dispersion: float

    def relevances(self, state: Factors, *, xp: Namespace) -> Array:
        """lambda_k / (b / c) - 1 of each component."""
        return (xp.sum(state.W, axis=0) + xp.sum(state.H, axis=1)) / self.b

    def objective(self, divergence: float, relevances: Vector) -> float:
        """What is minimised, but for what no factor changes."""
        import numpy as np

        return float(divergence + self.dispersion * self.c * np.log1p(relevances).sum())


@precision.in_full_precision
def relevances(posed: Posed, best: tuple[Array, Array], *, seed: int) -> Vector:
    """The relevances of as many components as `best` has, in falling order.

    `best` is a factorization without a prior, from which the dispersion is estimated. The other parameters are as the
    authors advise: a = log(m + n), and b such that the mean of V is that of its entries.
    """
    import numpy as np

    data, xp = posed.problem.data, posed.xp
    m, n = posed.shape
    r = best[0].shape[-1]
    W, H = posed.factor("W", best[0], "W", r), posed.factor("H", best[1], "H", r)
    a = max(3.0, math.log(m + n))
    mean = transfer.scalar(xp.sum(W, axis=0) @ xp.sum(H, axis=1)) / (m * n)  # of WH, which has no unobserved entries
    prior = _Prior(
        b=math.sqrt((a - 1) * (a - 2) * mean / r),
        c=m + n + a + 1,
        dispersion=_dispersion(data, W, H, beta=posed.beta, xp=xp),
    )
    rng = np.random.default_rng([seed, 3])
    starts = [start(data, r, init="random", random_state=rng, members=None, xp=xp) for _ in range(STARTS)]
    with threads.held_for(data.values):
        found = threads.run(lambda given: _minimise(posed, prior, given), starts)
    ordered = np.sort(min(found, key=lambda end: end[0])[1])[::-1]
    return np.where(ordered > NONE, ordered, 0.0)


def _dispersion(data: Data, W: Array, H: Array, *, beta: float, xp: Namespace) -> float:
    """phi, from the deviance, which is 2 D: its mean over as many entries as there are more than parameters.

    It is the variance for beta = 2, about 1 for Poisson counts and beta = 1, and the squared coefficient of variation
    for beta = 0.
    """
    (m, r), n = W.shape, H.shape[1]
    ones = [xp.ones(shape, dtype=W.dtype, device=libraries.device(W)) for shape in ((m, 1), (1, n))]
    entries = transfer.scalar(data.total(*ones, dtype=libraries.accumulator_dtype(xp, libraries.device(W)), xp=xp))
    free = max(1.0, entries - r * (m + n - r))
    return 2 * transfer.scalar(data_divergence(data, W, H, beta=beta, xp=xp)) / free


def _minimise(posed: Posed, prior: _Prior, given: list[Array]) -> tuple[float, Vector]:
    """The objective that one start ends at, and the relevances there."""
    data, xp = posed.problem.data, posed.xp
    state = Factors(*given)
    solver = MultiplicativeUpdate(posed.beta, posed.floor)
    relevances = prior.relevances(state, xp=xp)
    for i in range(1, MAX_ITER + 1):
        weights = prior.dispersion * prior.c / prior.b / (1 + relevances)  # phi / lambda
        penalty = Constraints(l1=xp.expand_dims(weights, axis=0))
        state = solver.step(state, Problem(data, penalty, penalty), xp=xp)
        before, relevances = relevances, prior.relevances(state, xp=xp)
        if i % CHECK_EVERY == 0 and transfer.scalar(xp.max(xp.abs(relevances - before) / (1 + before))) < TOL:
            break
    divergence = transfer.scalar(data_divergence(data, *state, beta=posed.beta, xp=xp))
    host = transfer.to_host(relevances).astype(float)
    return prior.objective(divergence, host), host
