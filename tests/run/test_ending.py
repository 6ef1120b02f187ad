"""What is returned: balanced components, exact zeros, zeros that were given, and numbers of these very factors."""

from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING, Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import nmf_xp
from nmf_xp import Status, nmf, transform
from nmf_xp.data import as_data
from nmf_xp.data.constraints import FREE
from nmf_xp.problem import Problem
from nmf_xp.problem.optimality import report
from nmf_xp.run import ending
from nmf_xp.run.held import is_clear
from nmf_xp.solvers import LOSSES, SOLVERS
from nmf_xp.updates import factor_floor
from tests.compiled import eagerly
from tests.corpus.matrices import values
from tests.corpus.runs import Run, call_of
from tests.fuzzing import Case
from tests.invariants import zeros_exact
from tests.reference import Question, Terms

if TYPE_CHECKING:
    from nmf_xp.testing import Target

PAIRS = [(solver, beta) for solver in SOLVERS for beta in LOSSES.get(solver, (0.5, 1.0, 1.5, 2.0, 3.0))]
pairs = pytest.mark.parametrize(("solver", "beta"), PAIRS)


@pairs
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_an_end_without_zeros_is_that_which_the_search_finds(
    solver: str, beta: float, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the last bit; and where there are zeros, they are found. Both without the kernel that looks for itself."""
    monkeypatch.setattr(ending, "_by_kernel", lambda *_, **__: None)
    rng, found = np.random.default_rng(0), []
    dense = (rng.gamma(2.0, 1.0, (20, 3)) @ rng.gamma(2.0, 1.0, (3, 14)) + rng.random((20, 14))).astype(dtype)
    sparse = counts().astype(dtype)

    def ends() -> list[Any]:
        settings: Any = {"beta_loss": beta, "solver": solver, "random_state": 0, "max_iter": 30}
        results = [nmf(V, rank, **settings) for V, rank in ((dense, 1), (dense, 3), (sparse, 3))]
        results += [transform(dense, results[0].H, beta_loss=beta)]
        return [(x.W, x.H, x.divergence, x.objective, x.kkt_residual, x.status) for x in results]

    def looked(*args: Any, **options: Any) -> bool:
        found.append(is_clear(*args, **options))
        return found[-1]

    monkeypatch.setattr(ending, "is_clear", looked)
    quick = ends()
    monkeypatch.setattr(ending, "is_clear", lambda *_, **__: False)
    assert found[0], "of rank 1 no entry is zero"
    for one, other in zip(quick, ends(), strict=True):
        for x, y in zip(one, other, strict=True):
            np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_kernel_returns_what_the_functions_do(seed: int, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of counts, exact products and data with more components than they have, alone, as restarts and for W alone."""
    rng = np.random.default_rng(seed)
    m, n = (int(x) for x in rng.integers(3, 30, 2))
    rank = int(rng.integers(1, min(m, n) + 2))
    kinds = (
        rng.poisson(1.0, (m, n)),
        rng.random((m, rank)) @ rng.random((rank, n)),
        np.maximum(rng.random((m, n)) - 0.6, 0),
    )
    H = rng.random((rank, n)).astype(dtype)
    used: list[bool] = []

    def by_kernel(*args: Any, **options: Any) -> Any:
        found = ours(*args, **options)
        used.append(found is not None)
        return found

    def ends(V: Any, beta: float) -> list[Any]:
        settings: Any = {"beta_loss": beta, "random_state": seed}
        runs = [nmf(V, rank, solver=solver, max_iter=k, **settings) for solver in ("mu", "cd") for k in (7, 100)]
        return [*runs, nmf(V, rank, n_restarts=3, solver="mu", **settings), transform(V, H, beta_loss=beta)]

    ours = ending._by_kernel
    for V, beta in itertools.product([x.astype(dtype) for x in kinds if x.any()], (1.0, 2.0)):
        monkeypatch.setattr(ending, "_by_kernel", by_kernel)
        found = ends(V, beta)
        monkeypatch.setattr(ending, "_by_kernel", lambda *_, **__: None)
        noise = 1e4 * float(np.finfo(dtype).eps)
        for one, other in zip(found, ends(V, beta), strict=True):
            for x, y in zip((one.W, one.H), (other.W, other.H), strict=True):
                np.testing.assert_array_equal(x == 0, y == 0)
                np.testing.assert_allclose(x, y, rtol=noise)
            assert one.status is other.status
            size = 1e-12 * float(np.sum(V.astype(float) ** beta))
            np.testing.assert_allclose(one.divergence, other.divergence, rtol=noise, atol=size)
            np.testing.assert_allclose(one.kkt_residual, other.kkt_residual, rtol=1e-2, atol=10 * noise)
    assert used
    assert all(used)


def counts(m: int = 20, n: int = 14, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    return rng.poisson(rng.gamma(0.4, 2, (m, 4)) @ rng.gamma(0.4, 2, (4, n))).astype(float)


def imbalance(result: Any) -> float:
    """How many decades the norms of the two sides of a component are apart, at most; 0 for one that is zero."""
    left, right = np.linalg.norm(result.W, axis=0), np.linalg.norm(result.H, axis=1)
    assert np.all((left > 0) == (right > 0))
    return float(np.abs(np.log10(left[left > 0] / right[left > 0])).max(initial=0.0))


def assert_numbers_are_its_own(V: Any, result: Any, beta: float, rtol: float) -> None:
    V, W, H = (np.asarray(x, dtype=float) for x in (V, result.W, result.H))
    expected = Question(V, beta, np.ones_like(V)).divergence(W, H)
    assert result.divergence == pytest.approx(expected, rel=rtol, abs=rtol**2 * float((V[V > 0] ** beta).sum()))


@pairs
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_components_are_balanced_whatever_the_scale_of_the_start(solver: str, beta: float, dtype: str) -> None:
    V, rng = counts().astype(dtype), np.random.default_rng(0)
    W, H = rng.random((20, 3)).astype(dtype) + 0.1, rng.random((3, 14)).astype(dtype) + 0.1
    scale = np.asarray([1e4, 1.0, 1e-3], dtype=dtype)
    for init in ("random", (W * scale, H / scale[:, None])):
        result = nmf(V, 3, solver=solver, beta_loss=beta, init=init, random_state=0, max_iter=60)
        assert imbalance(result) < np.log10(2) + 1e-6
        assert_numbers_are_its_own(V, result, beta, 1e-4 if dtype == "float32" else 1e-9)


def test_a_component_that_died_on_real_data_neither_explodes_nor_drifts() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    V = datasets.load_breast_cancer().data
    seen: list[float] = []
    result = nmf(V, 5, random_state=0, check_every=1, max_iter=40, callback=lambda x: seen.append(imbalance(x)))
    assert max(seen) < 3
    assert max(result.W.max(), result.H.max()) < 1e4


@pairs
def test_what_nothing_asks_for_is_zero(solver: str, beta: float) -> None:
    """Rows and columns of zeros, and without an observed entry, from a start that is large there."""
    V, weights = counts(), np.ones((20, 14))
    V[4], V[:, 7] = 0, 0
    weights[9], weights[:, 2] = 0, 0
    rng = np.random.default_rng(0)
    init = rng.random((20, 3)) + 1, rng.random((3, 14)) + 1
    result = nmf(V, 3, solver=solver, beta_loss=beta, init=init, weights=weights, max_iter=30)
    assert np.all(result.W[[4, 9]] == 0)
    assert np.all(result.H[:, [7, 2]] == 0)
    assert np.isfinite(result.objective)


@pairs
def test_entries_whose_minimum_is_zero_are_zero(solver: str, beta: float) -> None:
    """In `transform`, where components do not overlap: a row on one of them has no part of the others."""
    if solver == "online":
        pytest.skip("it learns H, so it is none of transform's")
    H = np.kron(np.eye(3), np.ones((1, 4))) + 0.0
    V = np.kron(np.eye(3), np.ones((2, 4))) * np.random.default_rng(0).gamma(9, 1, (6, 12))
    W = transform(V, H + 1e-3 * H[::-1], solver=solver, beta_loss=beta, max_iter=2000, tol=1e-12).W
    off = np.kron(np.eye(3), np.ones((2, 1))) == 0
    assert np.all(W[~off] > 0)
    if beta >= 1:
        assert np.all(W[off][W[off] < 1e-9] == 0)
        assert np.mean(W[off] == 0) >= 0.3


@eagerly
@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_zeros_and_balance_on_every_backend(target: Target, beta: float) -> None:
    V = counts()
    V[4] = 0
    expected = nmf(V, 3, beta_loss=beta, solver="mu", random_state=0, max_iter=500, tol=1e-9)
    result = nmf(target.asarray(V), 3, beta_loss=beta, solver="mu", random_state=0, max_iter=500, tol=1e-9)
    W, H = target.to_numpy(result.W), target.to_numpy(result.H)
    assert np.array_equal(W[4], np.zeros(3))
    np.testing.assert_allclose(W @ H, expected.W @ expected.H, rtol=1e-6, atol=1e-9)
    assert np.mean(H == 0) == pytest.approx(np.mean(expected.H == 0), abs=0.05)


@pytest.mark.parametrize("solver", ["cd", "cd-plain", "mu", "mm"])
def test_a_component_that_is_zero_has_no_loadings(solver: str) -> None:
    rng = np.random.default_rng(0)
    H = rng.gamma(1, 1, (4, 20))
    H[2] = 0
    V = rng.gamma(1, 1, (15, 4)) @ H + rng.gamma(1, 0.1, (15, 20))
    result = transform(V, H, solver=solver, max_iter=3000, tol=1e-10)
    without = transform(V, H[[0, 1, 3]], solver=solver, max_iter=3000, tol=1e-10)
    assert np.all(result.W[:, 2] == 0)
    assert result.divergence == pytest.approx(without.divergence, rel=1e-6)
    assert_numbers_are_its_own(V, result, 2, 1e-9)


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 1.5])
@pytest.mark.parametrize("kind", ["dense", "weighted", "blocks"])
def test_columns_that_nothing_explains_are_named_and_the_others_are_fitted(beta: float, kind: str) -> None:
    rng = np.random.default_rng(0)
    H, V = rng.gamma(1, 1, (3, 12)), counts(20, 12) + 1.0
    H[:, [2, 5]] = 0
    others = np.delete(np.arange(12), [2, 5])
    weights: dict[str, Any] = {"weights": np.ones((1, 12))} if kind == "weighted" else {}
    data: Any = nmf_xp.RowBlocks([V[:7], V[7:]]) if kind == "blocks" else V
    options: dict[str, Any] = {"beta_loss": beta, "solver": "mu", "max_iter": 300}
    alone = transform(V[:, others], H[:, others], **options)
    if beta > 1:
        result = transform(data, H, **options, **weights)
        assert_numbers_are_its_own(V, result, beta, 1e-9)
    else:
        with pytest.warns(UserWarning, match=r"^no component is positive in column 2, 5 of V, "):
            result = transform(data, H, **options, **weights)
        assert result.divergence == float("inf")
    np.testing.assert_allclose(result.W @ H[:, others], alone.W @ H[:, others], rtol=0.05)


def test_zeros_that_are_fixed_are_used_as_they_are() -> None:
    rng = np.random.default_rng(0)
    V, W, H = counts(), rng.random((20, 3)), rng.random((3, 14))
    fixed = np.zeros((3, 14), dtype=bool)
    fixed[0], H[0, 3:] = True, 0
    for beta in (1.0, 2.0):
        result = nmf(V, 3, init=(W, H), fixed_h=fixed, beta_loss=beta, max_iter=200)
        np.testing.assert_array_equal(result.H[0], H[0])
        assert_numbers_are_its_own(V, result, beta, 1e-9)


@pytest.mark.parametrize("which", ["W", "H"])
def test_normalize_leaves_a_dead_component_zero(which: str) -> None:
    V = np.outer(np.arange(1.0, 17), np.arange(1.0, 10))
    result = nmf(V, 3, init="nndsvd", solver="cd-plain", normalize=which)
    assert np.all(np.isfinite(result.W))
    assert np.all(np.isfinite(result.H))
    np.testing.assert_allclose(result.W @ result.H, V, rtol=1e-3)


@hypothesis.given(st.integers(0, 10**6), st.sampled_from(PAIRS))
@hypothesis.settings(max_examples=60, deadline=None, derandomize=True)
def test_what_is_polished_is_no_worse(seed: int, pair: tuple[str, float]) -> None:
    """The objective after the last iteration is not exceeded by that of what comes back."""
    V = counts(12, 9, seed)
    hypothesis.assume(V.any(axis=0).any())
    solver, beta = pair
    result = nmf(V, 3, solver=solver, beta_loss=beta, random_state=seed, max_iter=30, tol=1e-12)
    assert result.objective <= result.history[-1] * (1 + 1e-9) + 1e-12 * V.sum()
    assert_numbers_are_its_own(V, result, beta, 1e-8)


@pytest.mark.parametrize("beta", [1.0, 1.5, 2.0])
@pytest.mark.parametrize("solver", ["mu", "mm", "auto"])
def test_converged_is_within_a_thousandth_where_the_problem_is_convex(solver: str, beta: float) -> None:
    found = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        V, H = counts(20, 14, seed) + rng.random((20, 14)), rng.gamma(0.5, 1, (4, 14))
        result = transform(V, H, solver=solver, beta_loss=beta, max_iter=5000, tol=10.0 ** -(seed % 4 + 2))
        best = transform(V, H, beta_loss=beta, max_iter=20000, tol=1e-13)
        found.append(result.status)
        if result.status is Status.CONVERGED:
            assert result.objective <= 1.001 * best.objective
    assert Status.CONVERGED in found


def test_a_start_with_zeros_that_cannot_grow_is_not_called_converged() -> None:
    V = counts(30, 20) + 0.5
    for solver in ("mu", "mm"):
        locked = nmf(V, 4, init="nndsvd", solver=solver, beta_loss=1, max_iter=2000)
        free = nmf(V, 4, random_state=0, beta_loss=1, max_iter=2000)
        if locked.objective > 1.02 * free.objective:
            assert locked.status is Status.SLOW


@pytest.mark.parametrize(
    "run",
    [
        Run("women at events", 1.0, "mu", "float64", "given"),
        Run("flights", 1.0, "mu", "float64", "nndsvda"),
        Run("Les Miserables", 1.0, "mu", "float64", "given"),
        Run("relief", 2.0, "mu", "float64", "given"),
        Run("weather", -1.0, "mm", "float64", "given"),
        Run("crimea", -1.0, "mm", "float64", "nndsvdar"),
    ],
    ids=str,
)
def test_a_plateau_that_more_iterations_leave_is_not_called_converged(run: Run) -> None:
    call = call_of(run).changed(options={"max_iter": 1000})
    result = call.run()
    further = call.changed(options={"init": (result.W, result.H), "solver": "auto", "tol": 1e-9}).run()
    assert further.objective < 0.99 * result.objective
    assert result.status is Status.SLOW


@pytest.mark.parametrize(("solver", "beta"), [pair for pair in PAIRS if pair[1] >= 1])
@pytest.mark.parametrize("penalty", [0.0, 0.1])
def test_a_column_of_zeros_has_loadings_of_zero(solver: str, beta: float, penalty: float) -> None:
    """Pixels that are black in all digits."""
    V = np.array(values("digits"))
    result = nmf(V, 10, solver=solver, beta_loss=beta, alpha_H=penalty, l1_ratio=1.0, random_state=0, max_iter=100)
    black = ~V.any(axis=0)
    assert black.any()
    assert np.all(result.H[:, black] == 0)
    assert not np.any((result.H > 0) & (result.H < 1e-100))


def test_another_solver_is_asked_for_each_member_of_a_stack() -> None:
    call = call_of(Run("flights", 1.0, "mu", "float64", "given"))
    ended = call.changed(options={"solver": "newton", "max_iter": 5000, "tol": 1e-9}).run()
    starts = [np.stack(pair) for pair in zip(call.options["init"], (ended.W, ended.H), strict=True)]
    alone = [call.changed(options={"init": tuple(x[i] for x in starts), "max_iter": 3000}).run() for i in range(2)]
    together = call.changed(options={"init": tuple(starts), "max_iter": 3000, "keep_restarts": True}).run()
    assert together.restarts is not None
    assert together.restarts.status == tuple(result.status for result in alone) == (Status.SLOW, Status.CONVERGED)


def test_a_slow_run_says_so_with_numbers() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    V = datasets.load_iris().data
    result = nmf(V, 4, init="nndsvd", solver="mu", max_iter=2000)
    assert result.status is Status.SLOW
    assert "lower tol" in result.message
    assert any(character.isdigit() for character in result.message)
    done = nmf(V, 4, random_state=0, max_iter=5000, tol=1e-7)
    assert done.status is Status.CONVERGED
    assert "%" in done.message or "of itself" in done.message


@pytest.mark.parametrize("status", [Status.CONVERGED, Status.SLOW, Status.MAX_ITER])
def test_an_objective_that_rose_is_not_said_to_fall(status: Status) -> None:
    result = nmf(np.ones((3, 2)), 1, random_state=0)
    rose = dataclasses.replace(result, _status=status.value, _history=(1.0, 1e-31, 1.38e-31))
    assert "the objective rose 28 % between the last two checks" in rose.message
    assert ("which is rounding" in rose.message) == (status is not Status.MAX_ITER)
    fell = dataclasses.replace(rose, _history=(1.0, 1.38e-31, 1e-31))
    assert "the objective fell 38 %" in fell.message
    online = dataclasses.replace(rose, solver="online")
    assert "rounding" not in online.message


TABLES = {"load_breast_cancer": 2.0, "load_wine": 2.0, "load_iris": 1.0}


def table(name: str) -> Any:
    V = getattr(pytest.importorskip("sklearn.datasets"), name)().data
    return V[:200] - min(0.0, V.min())


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("missing", [0.1, 0.5])
@pytest.mark.parametrize("seed", range(3))
def test_where_entries_are_missing_factors_stay_in_range(name: str, missing: float, seed: int) -> None:
    """Where a row and a column meet unseen, a component may fit both at once, the better the larger it is there."""
    V = table(name)
    observed = np.random.default_rng(seed).random(V.shape) >= missing
    for beta in (1.0, 2.0):
        result = nmf(V, 3, beta_loss=beta, weights=observed, random_state=seed)
        assert (result.W @ result.H).max() <= 1e6 * V.max()
        assert imbalance(result) < np.log10(2) + 1e-6


@pytest.mark.parametrize("solver", ["cd", "cd-plain", "mu", "mm"])
def test_terms_that_decide_nothing_leave_components_balanced(solver: str) -> None:
    """A bound that is never met, and penalties next to nothing: they cost no component either."""
    V = table("load_breast_cancer")
    plain = nmf(V, 3, solver=solver, random_state=0)
    terms: list[dict[str, Any]] = [
        {"upper_w": 1e6},
        {"alpha_W": 1e-12, "l1_ratio": 0.5},
        {"alpha_W": 1e-12, "l1_ratio": 0.0},
        {"alpha_W": 1e-300, "l1_ratio": 1.0},
    ]
    for more in terms:
        result = nmf(V, 3, solver=solver, random_state=0, **more)
        assert imbalance(result) < 1
        assert result.W.any(axis=0).all()
        assert result.divergence < 1.05 * plain.divergence


@pytest.mark.parametrize("l1_ratio", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_penalties_on_both_factors_decide_the_scale_of_a_component(beta: float, l1_ratio: float) -> None:
    """At a minimum neither of them can be lowered by a factor that goes from one side of a component to the other."""
    V, rng = counts(), np.random.default_rng(0)
    start = rng.random((20, 2)) * 1e9, rng.random((2, 14)) / 1e9
    options: dict[str, Any] = {"beta_loss": beta, "alpha_W": 0.02, "l1_ratio": l1_ratio, "max_iter": 3000, "tol": 1e-9}
    result = nmf(V, 2, init=start, **options)
    m, n = V.shape
    for k in range(2):
        sums = n * result.W[:, k].sum(), m * result.H[k].sum()
        squares = n * (result.W[:, k] ** 2).sum(), m * (result.H[k] ** 2).sum()
        slopes = [l1_ratio * x + (1 - l1_ratio) * y for x, y in zip(sums, squares, strict=True)]
        assert slopes[0] == pytest.approx(slopes[1], rel=1e-3)


def test_zeros_that_are_fixed_decide_no_scale() -> None:
    V, rng = table("load_breast_cancer"), np.random.default_rng(0)
    fixed = np.zeros((3, 30), dtype=bool)
    fixed[1, :5] = True
    H, W = rng.random((3, 30)) * 50, rng.random((len(V), 3))
    H[1, :5] = 0
    result = nmf(V, 3, init=(W, H), fixed_h=fixed)
    assert imbalance(result) < np.log10(2) + 1e-6
    assert not result.H[1, :5].any()


@pairs
@pytest.mark.parametrize("init", ["random", "nndsvdar"])
def test_what_nothing_observes_is_zero_whatever_else_is_not(solver: str, beta: float, init: str) -> None:
    weights = np.ones((6, 8))
    weights[0], weights[:, 0] = 0, 0
    for seed in range(4):
        result = nmf(np.eye(6, 8), 3, solver=solver, beta_loss=beta, weights=weights, random_state=seed, init=init)
        assert not result.W[0].any()
        assert not result.H[:, 0].any()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("solver", ["auto", "mu", "mm", "cd-plain"])
def test_loadings_of_which_a_penalty_leaves_nothing_are_zero(solver: str, dtype: str) -> None:
    rng = np.random.default_rng(0)
    V, H = rng.gamma(1, size=(20, 9)).astype(dtype), rng.gamma(1, size=(3, 9)).astype(dtype)
    for alpha in (10, 1e300, 1e307):
        result = transform(V, H, alpha_W=alpha, l1_ratio=1.0, solver=solver)
        assert not result.W.any()
        assert result.status is Status.CONVERGED
        assert result.kkt_residual == 0
    assert transform(V, H, upper_w=0.0, solver=solver).kkt_residual == 0


@pytest.mark.parametrize("solver", ["cd", "mu", "mm"])
def test_an_l1_penalty_leaves_zeros_in_float32_too(solver: str) -> None:
    distance = np.abs(np.subtract.outer(np.arange(20.0), np.arange(20.0)))
    V = (1 / (1 + distance) ** 2).astype("float32")
    W = nmf(V, 2, alpha_W=0.01, l1_ratio=1, random_state=5, solver=solver).W
    assert (W == 0).any()
    assert W[W > 0].min() > 1e-12


@pytest.mark.parametrize(("solver", "beta"), [("cd", 2.0), ("newton", 1.0), ("cd", 1.0), ("cd-plain", 2.0)])
@pytest.mark.parametrize("seed", range(12))
def test_no_objective_rises_where_penalties_move_the_scale(solver: str, beta: float, seed: int) -> None:
    """The scale goes to where the penalties are least, and what a run has accepted is known as it is after that."""
    rng = np.random.default_rng(seed)
    V = rng.gamma(0.5, 1, (15, 11)) * (rng.random((15, 11)) < 0.8)
    apart = 10.0 ** rng.integers(-6, 7)
    options: dict[str, Any] = {"solver": solver, "beta_loss": beta, "check_every": 1, "max_iter": 60, "tol": 1e-12}
    start = rng.random((15, 3)) * apart, rng.random((3, 11)) / apart
    for alpha_W, alpha_H, l1_ratio in ((0.01, 0.01, 1), (0.1, 0.001, 0.5), (1e-3, 1e-1, 0), (0.5, 0.5, 1)):
        result = nmf(V, 3, init=start, alpha_W=alpha_W, alpha_H=alpha_H, l1_ratio=l1_ratio, **options)
        assert all(b <= a * (1 + 1e-12) for a, b in itertools.pairwise(result.history))
        W, H = (
            alpha * (l1_ratio * x.sum() + (1 - l1_ratio) / 2 * (x**2).sum())
            for alpha, x in ((11 * alpha_W, result.W), (15 * alpha_H, result.H))
        )
        assert result.objective == pytest.approx(result.divergence + W + H, rel=1e-9)


@pytest.mark.parametrize("solver", ["mm", "mu"])
@pytest.mark.parametrize("seed", [0, 4])
def test_zeros_beside_entries_of_V_far_below_the_floor(solver: str, seed: int) -> None:
    """Where V is next to nothing a model of 0 is still infinitely far, in any units: other entries become 0."""
    rng = np.random.default_rng(seed)
    V = rng.gamma(0.5, size=(30, 4)) @ rng.gamma(0.5, size=(4, 40)) / 9
    V = np.where(rng.random(V.shape) < 0.05, 5e-17, V).astype("float32")
    options: dict[str, Any] = {"beta_loss": 0, "solver": solver, "random_state": 0, "max_iter": 60, "tol": 0}
    first, second = (nmf(V * np.float32(4.0**k), 5, **options) for k in (0, 7))
    assert np.isfinite(first.divergence)
    assert np.sum(first.W == 0) > 0
    for x, y in ((first.W, second.W), (first.H, second.H)):
        np.testing.assert_array_equal(x * np.float32(2.0**7), y)


def test_a_penalised_factor_at_the_floor_is_no_minimum() -> None:
    """A penalty on H alone: whatever H is, with less of it and more of W the objective is lower."""
    rng = np.random.default_rng(0)
    V = (1e-28 * rng.random((12, 9))).astype("float32")
    result = nmf(V, 2, beta_loss=1, solver="mm", alpha_H=1e4, l1_ratio=1.0, random_state=0, max_iter=400)
    W, H = (np.asarray(x, dtype=float) for x in (result.W, result.H))
    question = Question(V.astype(float), 1.0, np.ones(V.shape), h=Terms(l1=12 * 1e4))
    assert result.kkt_residual == pytest.approx(question.residual(W, H), abs=1e-3)
    assert result.kkt_residual > 0.1
    assert result.status is not Status.CONVERGED


@pytest.mark.parametrize("beta", [1.25, 1.5, 1.75])
def test_a_model_of_zero_pushes_nothing(beta: float) -> None:
    """Where V and the model are zero, the push of a model at the floor would outweigh that of small entries."""
    V, W, H = (np.zeros(shape, dtype="float32") for shape in ((1, 2), (1, 2), (2, 2)))
    V[0, 0] = W[0, 0] = H[0, 0] = 1
    H[1] = 1e-12, 30  # the second column is zero in V and in the model
    floor = factor_floor(V.dtype, beta=beta, xp=np)
    problem = Problem(as_data(V), FREE, FREE)
    seen = report(problem, W, H, beta=beta, floor=floor, fixed_h=False, xp=np)
    question = Question(V.astype(float), beta, np.ones(V.shape))
    (push, pull), _ = question.slopes(W.astype(float), H.astype(float))
    np.testing.assert_allclose(np.asarray(seen.w_slopes), 1 - pull / push, atol=1e-6)


@pytest.mark.parametrize(
    "case",
    [
        # An entry of 2e-52 with a steep slope holds back another one: beside all other zeros it is none.
        Case(m=26, n=18, rank=9, dtype="bool", style="counts", solver="mm", beta=0.5, max_iter=200, tol=0, seed=1155),
        # An entry that was to grow beside zeros of the other factor, until some of them came back.
        Case(m=16, n=12, rank=16, style="mostly zero", solver="mm", beta=3.0, init="zeros", max_iter=400, seed=16),
    ],
)
def test_no_speck_stays_at_the_floor(case: Case) -> None:
    call = case.call()
    [(question, answer)] = call.answers(call.run())
    zeros_exact(question, answer)
    assert (answer.W == 0).sum() > 100
