"""scikit-learn's starts: the same random numbers and the same singular vectors, so the same factors.

Where X is no array of NumPy or SciPy, or has weights, the singular vectors are those of `nmf_xp.problem.starts`: X
stays on its device, and entries without weight stay unread.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils import check_random_state, extmath

from nmf_xp.arrays import libraries, transfer
from nmf_xp.data import as_data, in_units, largest_observed, with_weights
from nmf_xp.data.exposed import with_exposure
from nmf_xp.data.units import Units, times_power, units_of
from nmf_xp.problem.starts import constant_start, nndsvd_factors, nndsvd_start, normal_start, proportional_start
from nmf_xp.sklearn.inputs import NOTHING, Observation

# What scikit-learn's own estimator calls: the arguments are not checked once more.
_svd: Any = getattr(extmath, "_randomized_svd", extmath.randomized_svd)
ORDERS = 1024  # iterations after which the orders of `shuffle=True` repeat
SMALL, LARGE = -24, 16  # binary orders of V within which scikit-learn's start is followed: beyond, it is no start


def start(
    X: Any,
    r: int,
    *,
    init: str | None,
    random_state: Any,
    beta: float,
    observation: Observation = NOTHING,
    n_restarts: int = 1,
) -> tuple[Any, Any]:
    """W and H to begin with; stacks of them for several restarts."""
    data = as_data(X)
    xp = libraries.array_namespace(data.values)
    if any(x is not None for x in observation):
        data, weights = with_exposure(data, *observation, beta=beta, xp=xp)
        data = with_weights(data, weights, absent="zero", beta=beta, xp=xp)
    m, n = data.shape
    if init not in (None, "random") and r > min(m, n):
        msg = f"init = '{init}' can only be used when n_components <= min(n_samples, n_features)"
        raise ValueError(msg)
    largest = largest_observed(data, transfer.scalar(xp.max(data.values)), beta=beta, xp=xp)
    units = units_of(largest, 1.0, data.values.dtype, beta=2.0, floor=0.0, xp=xp)
    data = in_units(data, units.v, beta=beta, xp=xp)
    theirs = units if SMALL < units.v < LARGE else Units()
    if init is None:
        init = "nndsvda" if r <= min(m, n) and n_restarts == 1 else "random"
    if init == "random":
        members = n_restarts if n_restarts > 1 else None
        W, H = normal_start(data, r, rng=check_random_state(random_state), members=members, xp=xp)
    elif n_restarts > 1:
        msg = f"n_restarts = {n_restarts} needs random starts, got init = '{init}'"
        raise ValueError(msg)
    elif libraries.is_foreign(X) or any(x is not None for x in observation):
        rng = check_random_state(random_state)
        W, H = nndsvd_start(data, r, fill=init, as_scikit_learn=theirs, rng=rng, xp=xp)
    else:
        svd = _svd(times_power(X, -units.v), r, random_state=random_state)
        rng = check_random_state(random_state) if init == "nndsvdar" else None  # a seed takes as long as an iteration
        W, H = nndsvd_factors(data, *svd, fill=init, as_scikit_learn=theirs, rng=rng, xp=xp)
    return times_power(W, units.w), times_power(H, units.h)


def loadings_start(X: Any, H: Any, solver: str) -> Any:
    """W to begin with for given H: scikit-learn's for its two solvers, for the others that of `transform`."""
    data = as_data(X)
    xp = libraries.array_namespace(data.values)
    shape, dtype, device = (data.shape[0], H.shape[0]), data.values.dtype, libraries.device(H)
    if solver == "cd":
        return xp.zeros(shape, dtype=dtype, device=device)
    if solver == "mu":
        return constant_start(data, H.shape[0], xp=xp)
    return proportional_start(data, H, xp=xp)


class DrawnOrders:
    """The orders of the components for `shuffle=True`, drawn as scikit-learn draws them."""

    def __init__(self, r: int, random_state: Any) -> None:
        self._r, self._rng = r, check_random_state(random_state)
        self._shared = self._rng is random_state or random_state is None or random_state is np.random
        self._before: Any = None

    def draw(self, count: int) -> Any:
        """Those of as many half-iterations as are to come next, (count, r)."""
        self._before = self._rng.get_state() if self._shared else None
        return np.asarray([self._rng.permutation(self._r) for _ in range(count)], dtype=np.int32)

    def leave(self, count: int) -> None:
        """Leave the user's generator as if only so many of the last orders had been drawn."""
        if self._shared:
            self._rng.set_state(self._before)
            self.draw(count)
