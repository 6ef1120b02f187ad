"""What a developer adds: a kind of data and a solver, the smallest ones; docs/design.md has the recipes.

A term of one's own is in test_terms.py, a backend in stand_in/.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import array_api_compat.numpy
import numpy as np
import pytest
from sklearn.datasets import load_digits

from nmf_xp import L1, nmf, transform
from nmf_xp.data import Dense, Weighted
from nmf_xp.data.seam import Data, Derived
from nmf_xp.problem import Factors, Problem
from nmf_xp.problem.optimality import report
from nmf_xp.solvers import LOSSES, SOLVERS, Solver
from nmf_xp.updates import factor_floor, multiplicative_h, multiplicative_w
from tests.compiled import eagerly
from tests.problems import BETAS, noisy

if TYPE_CHECKING:
    from nmf_xp.testing import Target

xp: Any = array_api_compat.numpy


class Fields(NamedTuple):
    codes: Any  # (m, n), small integers
    book: Any  # what each of them stands for


class Coded(Fields, Derived):
    """V by its few different numbers: an eighth of the memory, as digits' 17 levels have it."""

    @property
    def values(self) -> Any:
        return self.book[self.codes]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.codes.shape

    @property
    def T(self) -> Any:
        return CodedTransposed(self.codes, self.book)

    def predict(self, W: Any, H: Any, *, xp: Any) -> Any:
        return W @ H

    def contract(self, Z: Any, H: Any, *, xp: Any) -> Any:
        return Z @ H.T


class CodedTransposed(Coded):
    """The transposed problem, on the same entries in the same order."""

    @property
    def shape(self) -> tuple[int, ...]:
        return self.codes.shape[::-1]

    @property
    def T(self) -> Any:
        return Coded(self.codes, self.book)

    def predict(self, W: Any, H: Any, *, xp: Any) -> Any:
        return (W @ H).T

    def contract(self, Z: Any, H: Any, *, xp: Any) -> Any:
        return (H @ Z).T


CASES = [(solver, beta) for solver in SOLVERS for beta in BETAS if beta in LOSSES.get(solver, (beta,))]


@pytest.mark.parametrize(("solver", "beta"), [(s, b) for s, b in CASES if s != "online"])
def test_the_rest_follows_from_five(solver: str, beta: float) -> None:
    """Every solver takes the same steps as on the matrix itself, and the report is the same."""
    codes = load_digits().data[:60].astype(np.uint8)
    coded: Any = Coded(codes, np.arange(17.0) + 0.5)
    rng = np.random.default_rng(0)
    W, H = rng.uniform(0.5, 1.5, (60, 4)), rng.uniform(0.5, 1.5, (4, 64))
    floor = factor_floor(W.dtype, beta=beta, xp=xp)
    made = SOLVERS[solver](beta=beta, floor=floor)
    found = []
    for data in (coded, Dense(coded.values)):
        problem = made.prepare(Problem(data), xp=xp)
        state = made.init(problem, W, H, xp=xp)
        for _ in range(5):
            state = made.step(state, problem, xp=xp)
        factors = made.factors(state, problem, xp=xp)
        seen = report(Problem(data), *factors, beta=beta, floor=made.floor, fixed_h=False, xp=xp)
        found.append((*factors, seen.divergence, seen.gap, seen.w_slopes))
    for x, y in zip(*found, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-8 * float(np.max(np.abs(y))))


def test_it_has_all_of_the_seam_and_takes_weights() -> None:
    names = {name for name in dir(Data) if not name.startswith("_")}
    assert names - set(dir(Coded)) <= {"rows"}, "rows are for data that are read in blocks"
    coded: Any = Coded(np.asarray([[0, 1], [2, 1]]), np.asarray([1.0, 2.0, 4.0]))
    weights = np.asarray([[1.0, 0.0], [2.0, 1.0]])
    W, H = np.ones((2, 1)), np.ones((1, 2))
    for one, other in (
        (coded, Dense(coded.values)),
        (Weighted(coded, weights), Weighted(Dense(coded.values), weights)),
    ):
        for beta in BETAS:
            powers = (data.predict(W, H, xp=xp) ** (beta - 1.0) for data in (one, other))
            slopes = [x.model_slope(W, H, p, beta=beta, xp=xp) for x, p in zip((one, other), powers, strict=True)]
            np.testing.assert_allclose(*(np.zeros((2, 1)) + np.asarray(slope) for slope in slopes))
        x, y = (data.total(W, H, dtype=np.float64, xp=xp) for data in (one, other))
        assert x == y
    for data in (coded, coded.T):
        np.testing.assert_array_equal(np.asarray(data.spread(2 * W, xp=xp)), np.full((2, 2), 2.0))


class Twice(Solver):
    """Two multiplicative updates of W, and then two of H."""

    def init(self, problem: Problem, W: Any, H: Any, *, xp: Any) -> Factors:
        return Factors(W, H)

    def step(self, state: Factors, problem: Problem, *, xp: Any) -> Factors:
        (W, H), settings = state, {"beta": self.beta, "floor": self.floor, "xp": xp}
        for _ in range(2):
            W = multiplicative_w(problem.data, W, H, problem.w, **settings)
        for _ in range(0 if self.fixed_h else 2):
            H = multiplicative_h(problem.data, W, H, problem.h, **settings)
        return Factors(W, H)


@eagerly
@pytest.mark.parametrize("beta", [0.5, 1, 2])
def test_a_solver_of_ones_own(target: Target, beta: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is used by its name, with terms, weights and checkpoints, and its answers are looked at like any other's."""
    monkeypatch.setitem(SOLVERS, "twice", Twice)
    V, W, H = (target.asarray(x) for x in noisy(9, 7, 3))
    options: dict[str, Any] = {"beta_loss": beta, "init": (W, H), "check_every": 1, "tol": 1e-12, "w": [L1(0.01)]}
    result = nmf(V, 3, solver="twice", max_iter=30, **options)
    assert result.solver == "twice"
    assert np.max(np.diff(result.history)) <= 1e-13 * result.history[0]
    assert result.history[-1] < nmf(V, 3, solver="mu", max_iter=30, **options).history[-1]
    loadings = transform(V, result.H, solver="twice", beta_loss=beta, max_iter=30)
    assert loadings.W.shape == (9, 3)
