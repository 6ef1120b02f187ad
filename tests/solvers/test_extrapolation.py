"""Extrapolated iterations are accepted by changes of the objective, without a look at V; Newton's line search."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
import pytest

from nmf_xp import nmf
from nmf_xp.arrays import kernels
from nmf_xp.arrays.libraries import array_namespace
from nmf_xp.arrays.precision import own_errors
from nmf_xp.arrays.transfer import to_host
from nmf_xp.data import as_data
from nmf_xp.data.constraints import FREE, Constraints
from nmf_xp.divergences import data_divergence
from nmf_xp.problem import Problem
from nmf_xp.solvers import SOLVERS
from nmf_xp.solvers.newton import Newton
from nmf_xp.updates import factor_floor
from tests.compiled import eagerly
from tests.problems import noisy
from tests.solvers.test_solvers import made_sparse

if TYPE_CHECKING:
    from collections.abc import Callable

    from nmf_xp.testing import Target

M, N, R = 40, 25, 4
FIXED = np.random.default_rng(3).random((M, R)) < 0.1
CONSTRAINTS: dict[str, Callable[[Target], tuple[Constraints, Constraints]]] = {
    "dense": lambda _: (FREE, FREE),
    "sparse": lambda _: (FREE, FREE),
    "stack": lambda _: (FREE, FREE),
    "penalised": lambda _: (Constraints(l1=0.3, l2=0.2), Constraints(l1=0.1, l2=0.4)),
    "bounded": lambda target: (Constraints(upper=target.asarray(np.full((M, R), 0.9))), FREE),
    "fixed": lambda target: (Constraints(fixed=target.asarray(FIXED)), FREE),
}


def objective(V: Any, W: Any, H: Any, problem: Problem) -> Any:
    """Of NumPy arrays, in float64, from the residual."""
    total = 0.5 * np.sum((V - W @ H) ** 2, axis=(-2, -1))
    for factor, constraints in ((W, problem.w), (H, problem.h)):
        l1, l2 = constraints.penalties
        total = total + l1 * factor.sum(axis=(-2, -1)) + 0.5 * l2 * (factor**2).sum(axis=(-2, -1))
    return total


@eagerly
@pytest.mark.parametrize("kind", CONSTRAINTS)
def test_what_is_known_of_the_objective(
    target: Target, kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is that of the accepted factors beyond that of the extrapolated H; with kernels and without."""
    monkeypatch.setattr(kernels, "LEAST", 0)
    if "readonly" in request.node.name:
        monkeypatch.setenv("NMF_XP_KERNELS", "0")
    V, W, H = noisy(M, N, R, zeros=True)
    given = target.asarray(V)
    if kind == "sparse":
        given = made_sparse(target, given)
    if kind == "stack":
        V, W, H = (np.stack([x, 2 * x]) for x in (V, W, H))
        given = target.asarray(V)
    solver = SOLVERS["cd"](beta=2.0, floor=1e-9)
    problem = solver.prepare(Problem(as_data(given), *CONSTRAINTS[kind](target)), xp=target.xp)
    state = solver.init(problem, target.asarray(W), target.asarray(H), xp=target.xp)
    step = functools.partial(solver.step, problem=problem, xp=target.xp)
    step = pytest.importorskip("jax").jit(step) if target.is_jax else step
    size = 0.5 * np.sum(V**2, axis=(-2, -1))
    before, dropped, ahead = np.inf, 0, 0
    for _ in range(40):
        state = step(state)
        W, H, H_ahead = (to_host(x) for x in (state.W, state.H, state.H_ahead))
        now = objective(V, W, H, problem)
        found = to_host(state.objective)
        assert np.all(np.abs(found - (now - objective(V, W, H_ahead, problem))) < 1e-13 * size)
        assert np.all(now <= before + 1e-13 * size)
        pause = to_host(state.pause)
        assert np.all(found[pause == 1] == 0)
        before, dropped, ahead = now, dropped + int(pause.sum()), ahead + int(np.sum(found != 0))
    assert dropped > 0
    assert ahead > 20


@eagerly
@pytest.mark.parametrize("seed", range(2))
def test_float32_comes_as_far_as_float64(target: Target, seed: int) -> None:
    """Far from an exact fit too: by a difference of sums of V's size it ended 1e-5 of the objective higher."""
    V, W, H = noisy(120, 60, 5, seed=seed)
    rng = np.random.default_rng(seed)
    model = rng.gamma(1, 1, (120, 5)) @ rng.gamma(1, 1, (5, 60))
    V = np.clip(model * (1 + 0.2 * rng.normal(size=model.shape)), 0, None).astype("float32")
    ends = []
    for dtype in ("float32", "float64"):
        arrays = [target.asarray(x.astype(dtype)) for x in (V, W, H)]
        result = nmf(arrays[0], 5, init=(arrays[1], arrays[2]), solver="cd", tol=0, max_iter=300)
        ends.append(0.5 * np.sum((V.astype(float) - to_host(result.W).astype(float) @ to_host(result.H)) ** 2))
    assert ends[0] <= ends[1] * (1 + 1e-8)


@eagerly
@pytest.mark.parametrize("size", [1e-4, 1.0, 6e4])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("wanted", ["1", "0"], ids=["kernels", "without"])
def test_the_line_search_of_newton_from_the_floor(wanted: str, target: Target, dtype: str, size: float) -> None:
    """Most of the model is at the least that there is, beside which a step is huge, or falls back to it."""
    rng = np.random.default_rng(0)
    V = size * rng.poisson(1.0, (M, N))
    floor = factor_floor(np.dtype(dtype), beta=1.0, xp=array_namespace(V))
    W, H = (np.where(rng.random(s) < 0.7, floor, rng.random(s) + 0.1) for s in ((M, R), (R, N)))
    given, W_given, H_given = (target.asarray(x.astype(dtype)) for x in (V, W, H))
    data = as_data(given)
    solver = Newton(beta=1.0, floor=floor)
    with mock.patch.object(kernels, "LEAST", 0), mock.patch.dict("os.environ", NMF_XP_KERNELS=wanted), own_errors():
        before = data_divergence(data, W_given, H_given, beta=1.0, xp=target.xp)
        half = solver.half(data, W_given, H_given, FREE, measured=True, xp=target.xp)
    assert np.all(np.isfinite(to_host(half.new)))
    assert half.divergence is not None
    assert 0 <= float(half.divergence) < float(before)
