"""What is asked of a factor besides the fit: each term, on every solver that takes it, and one made for a test."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
import scipy.sparse
from scipy.optimize import lsq_linear, minimize
from sklearn.datasets import load_wine

from nmf_xp import L1, L2, Decorrelate, Fixed, Lower, RowBlocks, Upper, beta_divergence, nmf, transform
from nmf_xp.problem.terms import Penalty
from tests.compiled import eagerly
from tests.problems import BETAS, noisy

if TYPE_CHECKING:
    from nmf_xp.testing import Target

SOLVERS = [("mu", beta) for beta in BETAS] + [("mm", 1), ("mm", 0.5), ("newton", 1)]
SOLVERS += [("cd", 1), ("cd", 2), ("cd-plain", 2), ("online", 1)]
COUPLED = [("mu", beta) for beta in BETAS] + [("mm", 1), ("mm", 0.5), ("cd", 2), ("cd-plain", 2)]


def overlap(W: Any) -> float:
    """The sum of the products of different columns of W, pair by pair."""
    W = np.asarray(W, dtype=np.float64)
    return sum(float(W[:, k] @ W[:, j]) for k in range(W.shape[1]) for j in range(k))


def never_rises(result: Any) -> bool:
    return bool(np.max(np.diff(result.history), initial=0.0) <= 1e-13 * abs(result.history[0]))


@pytest.mark.parametrize(("solver", "beta"), SOLVERS)
def test_short_forms_are_terms(solver: str, beta: float) -> None:
    """To the last bit."""
    V, W, H = noisy(9, 7, 3)
    options: dict[str, Any] = {"init": (W, H), "solver": solver, "beta_loss": beta, "max_iter": 20}
    fixed = np.zeros(W.shape, dtype=bool)
    fixed[0, :] = True
    short = nmf(
        V,
        3,
        alpha_W=0.25,
        alpha_H=0.5,
        l1_ratio=0.5,
        fixed_w=fixed,
        upper_w=np.full((1, 3), 2.0),
        upper_h=3.0,
        **options,
    )
    w = [L1(0.125), L2(0.125), Fixed(fixed), Upper(2.0)]
    long = nmf(V, 3, w=w, h=(L1(0.25), Upper(3.0), L2(0.25)), **options)
    for name in ("W", "H", "history"):
        np.testing.assert_array_equal(getattr(short, name), getattr(long, name))
    found = transform(V, H, w=[Upper(2.0), L1(0.1)], beta_loss=beta).W
    np.testing.assert_array_equal(found, transform(V, H, upper_w=2.0, alpha_W=0.1, l1_ratio=1, beta_loss=beta).W)


def test_terms_of_one_kind_add_up_or_all_hold() -> None:
    V, W, H = noisy(9, 7, 3)
    options: dict[str, Any] = {"init": (W, H), "solver": "mu", "max_iter": 10}
    once = nmf(V, 3, w=[L1(0.5), Upper(0.5), Lower(0.25)], **options)
    twice = nmf(V, 3, w=[L1(0.25), Upper(4.0), Upper(0.5), Lower(0.25), Lower(0.1), L1(0.25)], **options)
    np.testing.assert_array_equal(once.W, twice.W)
    np.testing.assert_array_equal(once.H, twice.H)


@eagerly
@pytest.mark.parametrize(("solver", "beta"), SOLVERS)
def test_lower_bounds_hold_and_the_rest_still_falls(target: Target, solver: str, beta: float) -> None:
    V, W, H = (target.asarray(x) for x in noisy(9, 7, 3))
    w = [Lower(0.2), L1(0.01)] if solver != "online" else [Lower(0.2)]
    h = [Lower(target.asarray(np.full((3, 1), 0.1))), Upper(2.0)]
    options: dict[str, Any] = {"solver": solver, "beta_loss": beta, "check_every": 1, "tol": 1e-12}
    result = nmf(V, 3, init=(W, H), w=w, h=h, max_iter=40, **options)
    lowest, highest = (float(target.to_numpy(x).min()) for x in (result.W, result.H)), target.to_numpy(result.H).max()
    assert min(lowest) >= 0.1 * (1 - 1e-6)
    assert float(target.to_numpy(result.W).min()) == pytest.approx(0.2, rel=1e-6), "no bound is met: the test is none"
    assert highest <= 2.0 * (1 + 1e-6)
    assert solver == "online" or never_rises(result)


@pytest.mark.parametrize("solver", ["auto", "cd", "cd-plain", "mu"])
@pytest.mark.parametrize("weighted", [False, True])
def test_lower_bounds_give_scipys_optimum(solver: str, weighted: bool) -> None:
    """The wine data's rows on known components, which is convex: bounded least squares, row by row."""
    X = load_wine().data[:20] / load_wine().data.max(axis=0)
    H = nmf(X, 4, random_state=0).H
    weights = np.random.default_rng(0).uniform(0.1, 3.0, size=X.shape) if weighted else np.ones(X.shape)
    options: dict[str, Any] = {"weights": weights} if weighted else {}
    result = transform(X, H, w=[Lower(0.05), Upper(0.6)], solver=solver, tol=1e-14, max_iter=20_000, **options)
    best = 0.0
    for x, u in zip(X, np.sqrt(weights), strict=True):
        best += lsq_linear((H * u).T, x * u, (0.05, 0.6), tol=1e-14).cost
    assert result.divergence == pytest.approx(best, rel=1e-6)
    assert ((result.W >= 0.05) & (result.W <= 0.6)).all()
    assert (result.W == 0.05).any()
    assert result.kkt_residual < 1e-3


@pytest.mark.parametrize(("solver", "beta"), [("mu", 1), ("mm", 1), ("newton", 1), ("cd", 1), ("mu", 1.5)])
def test_lower_bounds_give_an_independent_optimum(solver: str, beta: float) -> None:
    X = load_wine().data[:6] / load_wine().data.max(axis=0)
    H = nmf(X, 3, random_state=0).H
    result = transform(X, H, w=[Lower(0.1)], solver=solver, beta_loss=beta, tol=1e-14, max_iter=20_000)

    def value(w: Any) -> float:
        return float(beta_divergence(X, w.reshape(6, 3), H, beta_loss=beta))

    start = np.full(18, 0.5)
    best = minimize(
        value, start, method="L-BFGS-B", bounds=[(0.1, None)] * 18, options={"maxfun": 10**5, "ftol": 1e-14}
    )
    assert result.divergence <= best.fun * (1 + 1e-6)
    assert (result.W >= 0.1).all()
    assert result.status.name == "CONVERGED"


@eagerly
@pytest.mark.parametrize(("solver", "beta"), COUPLED)
def test_decorrelated_components_and_the_objective_of_the_documentation(
    target: Target, solver: str, beta: float
) -> None:
    V, W, H = (target.asarray(x) for x in noisy(9, 7, 3))
    options: dict[str, Any] = {"init": (W, H), "solver": solver, "beta_loss": beta, "check_every": 1, "tol": 1e-13}
    w, h = [Decorrelate(0.05), L2(0.01)], [Decorrelate(0.02), L1(0.01)]
    result = nmf(V, 3, w=w, h=h, max_iter=40, **options)
    assert never_rises(result)
    W, H = (np.asarray(target.to_numpy(x), dtype=np.float64) for x in (result.W, result.H))
    on_w, on_h = 0.05 * overlap(W) + 0.005 * (W**2).sum(), 0.02 * overlap(H.T) + 0.01 * H.sum()
    assert float(result.objective) == pytest.approx(float(result.divergence) + 7 * on_w + 9 * on_h, rel=1e-5)
    without = nmf(V, 3, w=w[1:], h=h[1:], max_iter=40, **options)
    other = [np.asarray(target.to_numpy(x), dtype=np.float64) for x in (without.W, without.H)]
    assert overlap(W) + overlap(H.T) < overlap(other[0]) + overlap(other[1].T)


@pytest.mark.parametrize(("solver", "beta"), COUPLED)
def test_decorrelation_ends_where_nothing_falls(solver: str, beta: float) -> None:
    """On real data, with every other term at once; the slope is SciPy's, by differences."""
    X = load_wine().data[:12] / load_wine().data.max(axis=0)
    w = [Decorrelate(0.01), L2(0.02), Lower(0.01)]
    options: dict[str, Any] = {"solver": solver, "beta_loss": beta, "tol": 1e-14, "max_iter": 4000}
    result = nmf(X, 3, w=w, h=[L1(0.01), Upper(3.0)], random_state=0, **options)
    m, n = X.shape

    def value(x: Any) -> float:
        W, H = x[: 3 * m].reshape(m, 3), x[3 * m :].reshape(3, n)
        penalty = n * (0.01 * overlap(W) + 0.01 * (W**2).sum()) + m * 0.01 * H.sum()
        return float(beta_divergence(X, W, H, beta_loss=beta)) + penalty

    here = np.concatenate([result.W.ravel(), result.H.ravel()])
    assert value(here) == pytest.approx(result.objective, rel=1e-9)
    bounds = [(0.01, None)] * (3 * m) + [(1e-9, 3.0)] * (3 * n)
    further = minimize(value, here, method="L-BFGS-B", bounds=bounds, options={"maxiter": 30, "maxfun": 10**5})
    assert further.fun >= result.objective * (1 - 2e-3)


def test_auto_takes_a_solver_that_takes_the_terms() -> None:
    V, _, _ = noisy(9, 7, 3)
    w = [Decorrelate(0.1)]
    assert nmf(V, 2, w=w, max_iter=2).solver == "cd"
    assert nmf(V, 2, w=w, beta_loss=1, max_iter=2).solver == "mm"
    assert nmf(V, 2, w=w, weights=np.ones(V.shape), max_iter=2).solver == "mm"
    assert nmf(V, 2, w=[Lower(0.1)], beta_loss=1, max_iter=2).solver == "newton"
    assert nmf(RowBlocks([V[:4], V[4:]]), 2, w=w, max_iter=2).solver == "mm"


@pytest.mark.parametrize("kind", ["sparse", "blocks", "dask"])
def test_terms_on_every_kind_of_data(kind: str) -> None:
    """As on an array in memory."""
    V, W, H = noisy(9, 7, 3)
    options: dict[str, Any] = {"init": (W, H), "solver": "mu", "beta_loss": 1, "max_iter": 20, "tol": 1e-12}
    options |= {
        "w": [Decorrelate(0.1), L2(0.1), Lower(0.05)],
        "h": [Decorrelate(0.05), L1(0.1), Lower(0.02), Upper(2.0)],
    }
    given = {"sparse": scipy.sparse.csr_array, "blocks": lambda x: RowBlocks([x[:4], x[4:]])}
    given["dask"] = lambda x: pytest.importorskip("dask.array").from_array(x, chunks=(4, 5))
    found, expected = nmf(given[kind](V), 3, **options), nmf(V, 3, **options)
    for name in ("W", "H", "history"):
        np.testing.assert_allclose(np.asarray(getattr(found, name)), getattr(expected, name), rtol=1e-10)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_decorrelation_follows_the_units_of_extreme_data(scale: float) -> None:
    V, W, H = noisy(9, 7, 3)
    options: dict[str, Any] = {"solver": "mu", "max_iter": 20, "tol": 0.0}
    root = np.sqrt(scale)
    plain = nmf(V, 3, init=(W, H), w=[Decorrelate(0.05), L2(0.1)], h=[L2(0.1)], **options)
    far = [Decorrelate(0.05 * scale), L2(0.1 * scale)], [L2(0.1 * scale)]
    moved = nmf(V * scale, 3, init=(W * root, H * root), w=far[0], h=far[1], **options)
    np.testing.assert_allclose(moved.W / root, plain.W, rtol=1e-10, atol=1e-12)
    assert moved.objective == pytest.approx(plain.objective * scale**2, rel=1e-10)


def test_a_strength_beyond_all_numbers_is_reported_as_it_is() -> None:
    V, W, H = noisy(9, 7, 3)
    result = nmf(V, 3, init=(W, H), solver="mu", w=[Decorrelate(1e250)], h=[L2(1.0)], max_iter=3)
    assert np.isfinite(result.W).all()
    on_w, on_h = 1e250 * overlap(result.W), 0.5 * (result.H**2).sum()
    assert result.objective == pytest.approx(result.divergence + 7 * on_w + 9 * on_h, rel=1e-9)


@pytest.mark.parametrize("solver", ["mu", "mm", "cd", "cd-plain"])
def test_two_couplings_of_one_factor_add_up(solver: str) -> None:
    V, W, H = noisy(9, 7, 3)
    options: dict[str, Any] = {"init": (W, H), "solver": solver, "check_every": 1, "tol": 1e-13, "max_iter": 40}
    result = nmf(V, 3, w=[L2(0.01)], h=[Decorrelate(0.02), Decorrelate(0.03)], **options)
    assert never_rises(result)
    expected = result.divergence + 7 * 0.005 * (result.W**2).sum() + 9 * 0.05 * overlap(result.H.T)
    assert result.objective == pytest.approx(expected, rel=1e-9)


def test_one_row_with_a_fixed_entry_and_a_column_that_none_reaches() -> None:
    H = np.asarray([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    w = [Fixed(np.asarray([[True, False]]))]
    result = transform(np.asarray([[1.0, 2.0, 3.0]]), H, init=np.ones((1, 2)), w=w, beta_loss=1)
    assert result.W[0, 0] == 1.0
    assert result.W[0, 1] == pytest.approx(2.0, rel=1e-3)


def test_a_bound_of_torch_that_requires_grad_is_data() -> None:
    torch = pytest.importorskip("torch")
    V, _, _ = noisy(9, 7, 3)
    bound = torch.full((3,), 0.1, dtype=torch.float64, requires_grad=True)
    assert not nmf(torch.asarray(V), 3, w=[Lower(bound)], random_state=0, max_iter=3).W.requires_grad


# A term of one's own: docs/design.md has the recipe.


class Chained(NamedTuple):
    """The penalty w Q w / 2 on each row w, for Q = strength * (D - A), where A says which components are neighbours."""

    strength: Any

    def matrix(self, gram: Any, *, xp: Any) -> Any:
        r = gram.shape[-1]
        neighbours = np.eye(r, k=1) + np.eye(r, k=-1)
        return self.strength * xp.asarray(np.diag(neighbours.sum(axis=0)) - neighbours, dtype=gram.dtype)

    def push(self, W: Any, *, xp: Any) -> Any:
        return W @ xp.abs(self.matrix(W, xp=xp))

    def pull(self, W: Any, *, xp: Any) -> Any:
        Q = self.matrix(W, xp=xp)
        return W @ (xp.abs(Q) - Q)

    def columns(self, order: Any, *, xp: Any) -> Any:
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Alike(Penalty):
    """strength / 2 * sum of |w_k - w_(k+1)|^2: neighbouring columns are alike."""

    degree = 2

    def added(self, constraints: Any, weight: float) -> Any:
        return constraints._replace(others=(*constraints.others, Chained(weight)))


@pytest.mark.parametrize(("solver", "beta"), COUPLED)
@pytest.mark.parametrize("strength", [1e-2, 1e2])
def test_a_term_of_ones_own_has_a_slope_of_either_sign(solver: str, beta: float, strength: float) -> None:
    V, W, H = noisy(9, 7, 4)
    options: dict[str, Any] = {"init": (W, H), "solver": solver, "beta_loss": beta, "check_every": 1, "tol": 1e-13}
    result = nmf(V, 4, w=[Alike(strength), L1(0.01)], h=[L2(0.05)], max_iter=60, **options)
    assert never_rises(result)
    steps = (np.diff(result.W, axis=1) ** 2).sum()
    expected = result.divergence + 7 * (strength / 2 * steps + 0.01 * result.W.sum()) + 9 * 0.025 * (result.H**2).sum()
    assert result.objective == pytest.approx(expected, rel=1e-9)
    if strength > 1:
        assert steps < 1e-2 * (np.diff(W, axis=1) ** 2).sum()


BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"w": [Upper(0.1), Lower(0.2)]}, ValueError, "`Lower` must not be above `Upper`, got both for W"),
    ({"h": [Lower(-1.0)]}, ValueError, "`h=[Lower]` must be"),
    ({"h": [Upper(np.ones((4, 4)))]}, ValueError, "`h=[Upper]`"),
    ({"w": [Decorrelate(0.1)], "solver": "newton", "beta_loss": 1}, ValueError, "`solver` must be 'mu' or 'mm' with"),
    ({"w": [Decorrelate(0.1)], "solver": "online"}, ValueError, "got 'online'"),
    ({"w": [Decorrelate(0.1)], "solver": "cd", "weights": np.ones((9, 7))}, ValueError, "entries with weights"),
    ({"w": [Decorrelate(0.1)], "solver": "cd", "exposure": np.full((9, 1), 2.0)}, ValueError, "entries with weights"),
    ({"w": [dataclasses.make_dataclass("Ridge", [])()]}, TypeError, "`w` must be a list of terms of nmf_xp (L1, L2,"),
    ({"w": [L1]}, TypeError, "got the class L1"),
    ({"h": 0.1}, TypeError, "`h` must be a list of terms"),
    ({"w": [Fixed(np.ones((9, 3), dtype=bool))]}, ValueError, "give `init=(W, H)`"),
    ({"w": [Lower(0.1)], "normalize": "W"}, ValueError, "`normalize` must be None with"),
    ({"w": [Lower(1e300)]}, ValueError, "`Lower` must not be so far above V's entries that products overflow"),
    ({"w": [Upper(10**400)]}, ValueError, "`w=[Upper]` must be a finite non-negative number, got inf"),
    ({"w": [Decorrelate(0.1)], "normalize": "W"}, ValueError, "`normalize` must be None with penalties"),
]


@pytest.mark.parametrize(("options", "error", "message"), BAD)
def test_bad_terms(options: dict[str, Any], error: type[Exception], message: str) -> None:
    V, _, _ = noisy(9, 7, 3)
    with pytest.raises(error) as caught:
        nmf(V, 3, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("strength", [-1.0, float("nan"), "much", None])
def test_a_strength_is_refused_where_it_is_written(strength: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"`L1\.strength` must be"):
        L1(strength)
