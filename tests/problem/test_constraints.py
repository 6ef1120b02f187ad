"""Penalties, fixed entries, bounds and normalisation, on every backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from nmf_xp import nmf, transform
from nmf_xp.arrays import libraries
from nmf_xp.testing import oracle
from tests.compiled import eagerly
from tests.problems import BETAS, noisy

if TYPE_CHECKING:
    from nmf_xp.testing import Target

PENALTIES = [
    {"alpha_W": 0.05, "l1_ratio": 1.0},
    {"alpha_W": 0.05, "alpha_H": 0.02, "l1_ratio": 0.0},
    {"alpha_W": 0.0, "alpha_H": 0.05, "l1_ratio": 0.5},
]


def objective(V: Any, result: Any, alpha_W: float, l1_ratio: float, alpha_H: Any = "same") -> float:
    """Written out: D + n alpha_W [l1_ratio sum(W) + (1 - l1_ratio)/2 sum(W^2)] and likewise for H."""
    alpha_H = alpha_W if alpha_H == "same" else alpha_H
    m, n = V.shape
    W, H = np.asarray(result.W), np.asarray(result.H)
    on_w = l1_ratio * W.sum() + (1 - l1_ratio) / 2 * (W**2).sum()
    on_h = l1_ratio * H.sum() + (1 - l1_ratio) / 2 * (H**2).sum()
    return float(result.divergence + n * alpha_W * on_w + m * alpha_H * on_h)


@eagerly
@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("penalty", PENALTIES, ids=["l1", "l2", "both"])
def test_the_penalised_objective_never_rises(target: Target, beta: float, penalty: dict[str, float]) -> None:
    V, W, H = (target.asarray(x) for x in noisy(7, 5, 3, zeros=beta > 0))
    options: dict[str, Any] = {
        "solver": "mu",
        "beta_loss": beta,
        "check_every": 1,
        "tol": 1e-14,
        "max_iter": 40,
        **penalty,
    }
    history = nmf(V, 3, init=(W, H), **options).history
    assert np.max(np.diff(history)) <= 1e-13 * history[0]


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("penalty", PENALTIES, ids=["l1", "l2", "both"])
def test_the_objective_is_the_one_of_the_documentation(beta: float, penalty: dict[str, Any]) -> None:
    V, W, H = noisy(7, 5, 3, zeros=beta > 0)
    result = nmf(V, 3, init=(W, H), solver="mu", beta_loss=beta, **penalty)
    assert result.objective == pytest.approx(objective(V, result, **penalty), rel=1e-10)
    assert result.history[-1] == pytest.approx(result.objective, rel=1e-10)


def test_the_kl_step_with_both_penalties_is_the_minimum_of_its_majoriser() -> None:
    V, W, H = noisy(1, 6, 1, zeros=True)
    alpha, l1_ratio, n = 0.05, 0.4, 6
    found = float(
        np.asarray(
            transform(V, H, init=W, solver="mu", beta_loss=1, alpha_W=alpha, l1_ratio=l1_ratio, max_iter=1, tol=0).W
        )[0, 0]
    )
    numerator = float(np.sum(W[0, 0] * (V / (W @ H)) * H))
    w = np.linspace(0.2 * found, 5 * found, 400_001)
    slope = H.sum() + n * alpha * l1_ratio
    majoriser = -numerator * np.log(w) + slope * w + n * alpha * (1 - l1_ratio) / 2 * w**2
    assert found == pytest.approx(w[np.argmin(majoriser)], rel=1e-4)


@pytest.mark.parametrize("beta", [-1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("alpha", [1e-6, 0.05, 100.0])
def test_the_step_with_an_l2_penalty_is_the_minimum_of_its_majoriser(beta: float, alpha: float) -> None:
    """With x = w / W, N the numerator and D the denominator with the L1 penalty, the majoriser's slope in x is zero:

    beta < 1: D - N x^(beta-2), else D x^(beta-1) - N x^(beta-2) up to beta 2, else D x^(beta-1) - N, each + l2 W x,
    which for beta > 2 has the power of D.
    """
    V, W, H = noisy(7, 5, 3)
    l1_ratio, n = 0.4, 5
    options: dict[str, Any] = {"beta_loss": beta, "alpha_W": alpha, "l1_ratio": l1_ratio, "max_iter": 1, "tol": 0}
    x = transform(V, H, init=W, solver="mu", **options).W / W
    Y = W @ H
    N, D = (V * Y ** (beta - 2)) @ H.T, Y ** (beta - 1) @ H.T + n * alpha * l1_ratio
    falling = N * x ** min(beta - 2, 0)
    penalty = n * alpha * (1 - l1_ratio) * W * (x if beta <= 2 else x ** (beta - 1))
    np.testing.assert_allclose(D * x ** max(beta - 1, 0) + penalty, falling, rtol=1e-11)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("solver", ["mu", "mm"])
@pytest.mark.parametrize("l1_ratio", [0.0, 1.0])
def test_a_tiny_penalty_changes_nothing(beta: float, solver: str, l1_ratio: float) -> None:
    V, W, H = noisy(9, 7, 3, zeros=beta > 0)
    options: dict[str, Any] = {"solver": solver, "beta_loss": beta, "l1_ratio": l1_ratio, "max_iter": 6, "tol": 0}
    without, tiny = (nmf(V, 3, init=(W, H), alpha_W=alpha, **options) for alpha in (0.0, 1e-12))
    np.testing.assert_allclose(tiny.W @ tiny.H, without.W @ without.H, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("beta", [1, 1.5, 2])
@pytest.mark.parametrize("alpha", [0.0, 0.01])
def test_scikit_learn_agrees_without_penalties_and_with_l1(beta: float, alpha: float) -> None:
    decomposition = pytest.importorskip("sklearn.decomposition", reason="scikit-learn is not installed")
    V, W, H = noisy(20, 12, 3)
    V = V + 0.1  # away from zero, where scikit-learn floors WH at 1e-7
    theirs = decomposition.non_negative_factorization(
        V, W=W.copy(), H=H.copy(), n_components=3, init="custom", solver="mu", beta_loss=beta, tol=0, max_iter=50,
        alpha_W=alpha, l1_ratio=1.0,
    )  # fmt: skip
    solver = "mu", {"polish": False}
    ours = nmf(V, 3, init=(W, H), solver=solver, beta_loss=beta, tol=0, max_iter=50, alpha_W=alpha, l1_ratio=1.0)
    np.testing.assert_allclose(ours.W, theirs[0], rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(ours.H, theirs[1], rtol=1e-8, atol=1e-10)


@eagerly
@pytest.mark.parametrize("beta", BETAS)
def test_fixed_entries_keep_their_value_and_the_rest_still_falls(target: Target, beta: float) -> None:
    V, W, H = noisy(7, 5, 3, zeros=beta > 0)
    rng = np.random.default_rng(1)
    fixed_w, fixed_h = np.asarray(rng.random(W.shape) < 0.3), np.zeros((3, 1), dtype=bool)
    fixed_h[0] = True  # a known component
    if beta > 0:
        W[fixed_w] *= rng.random(int(fixed_w.sum())) < 0.5  # some are fixed at zero
    given = [target.asarray(x) for x in (V, W, H)]
    masks: dict[str, Any] = {"fixed_w": target.asarray(fixed_w), "fixed_h": target.asarray(fixed_h)}
    result = nmf(
        given[0],
        3,
        init=(given[1], given[2]),
        solver="mu",
        beta_loss=beta,
        check_every=1,
        tol=1e-14,
        max_iter=60,
        **masks,
    )
    np.testing.assert_array_equal(target.to_numpy(result.W)[fixed_w], W[fixed_w])
    np.testing.assert_array_equal(target.to_numpy(result.H)[0], H[0])
    assert np.max(np.diff(result.history)) <= 1e-13 * result.history[0]
    assert result.history[-1] < 0.95 * result.history[0]


@eagerly
@pytest.mark.parametrize("beta", [0, 0.5, 1.5])
@pytest.mark.parametrize("solver", ["mu", "mm"])
def test_entries_fixed_at_zero_make_no_other_entry_nan(target: Target, solver: str, beta: float) -> None:
    """The power of 0 / 0 that a joint majoriser would take of them is infinite for beta < 1."""
    V, W, H = noisy(9, 7, 3)
    fixed = np.zeros(W.shape, dtype=bool)
    fixed[:4, 0] = True
    W[fixed] = 0.0
    X, *start = (target.asarray(x) for x in (V, W, H))
    options: dict[str, Any] = {"init": start, "beta_loss": beta}
    options["fixed_w"] = target.xp.asarray(fixed, device=libraries.device(X))
    result = nmf(X, 3, solver=solver, max_iter=200, check_every=1, tol=1e-9, **options)
    found, other = (target.to_numpy(x) for x in (result.W, result.H))
    assert np.isfinite(found).all()
    assert np.isfinite(other).all()
    assert (found[fixed] == 0).all()
    assert np.max(np.diff(result.history)) <= 1e-13 * result.history[0]
    assert result.history[-1] < 0.7 * result.history[0]


@eagerly
@pytest.mark.parametrize("beta", BETAS)
def test_upper_bounds_hold_and_the_rest_still_falls(target: Target, beta: float) -> None:
    V, _, _ = noisy(7, 5, 3, zeros=beta > 0)
    upper_h = np.full((1, 5), 0.9)
    result = nmf(
        target.asarray(V), 3, random_state=0, beta_loss=beta, upper_w=1.1, upper_h=target.asarray(upper_h),
        check_every=1, tol=1e-14, max_iter=60,
    )  # fmt: skip
    assert target.to_numpy(result.W).max() <= 1.1
    assert target.to_numpy(result.H).max() <= 0.9
    assert np.max(np.diff(result.history)) <= 1e-13 * result.history[0]


@pytest.mark.parametrize("beta", [1, 2])
def test_the_kkt_residual_vanishes_under_every_constraint(beta: float) -> None:
    V, W, H = noisy(7, 5, 2)
    options: dict[str, Any] = {"solver": "mu", "beta_loss": beta, "tol": 1e-16, "max_iter": 20_000, "init": (W, H)}
    constraints: list[dict[str, Any]] = [
        {"alpha_W": 0.05, "l1_ratio": 0.5},
        {"fixed_h": np.asarray([[True], [False]])},
        {"upper_w": 0.8, "upper_h": 0.8},
    ]
    for constraint in constraints:
        assert nmf(V, 2, **options, **constraint).kkt_residual < 1e-4


@eagerly
@pytest.mark.parametrize(
    ("solver", "beta"), [("mu", 1), ("mm", 0.5), ("newton", 1), ("cd", 2), ("cd-plain", 2), ("online", 1)]
)
def test_bounds_below_the_floor_are_kept(target: Target, solver: str, beta: float) -> None:
    """A bound of 0 gives 0, and one that no solver can divide by is no less a bound."""
    V = target.asarray(noisy(9, 7, 3).V)
    upper = np.full((9, 3), 10.0)
    upper[:, 0], upper[2, 1] = 1e-200, 0.0
    result = nmf(V, 3, solver=solver, beta_loss=beta, upper_w=target.asarray(upper), max_iter=20, random_state=0)
    W = target.to_numpy(result.W)
    assert np.all(W <= upper)
    assert W[2, 1] == 0
    assert W[0, 1] > 0
    expected = oracle.divergence(target.to_numpy(V), W, target.to_numpy(result.H), beta)
    np.testing.assert_allclose(float(result.divergence), expected, rtol=1e-9)


@eagerly
@pytest.mark.parametrize("which", ["W", "H"])
def test_normalisation_leaves_the_product(target: Target, which: str) -> None:
    V = target.asarray(noisy(7, 5, 3).V)
    plain, normal = (nmf(V, 3, random_state=0, solver="mu", beta_loss=1, normalize=x) for x in (None, which))
    product = target.to_numpy(plain.W) @ target.to_numpy(plain.H)
    np.testing.assert_allclose(target.to_numpy(normal.W) @ target.to_numpy(normal.H), product, rtol=1e-12)
    sums = target.to_numpy(normal.W).sum(axis=0) if which == "W" else target.to_numpy(normal.H).sum(axis=1)
    np.testing.assert_allclose(sums, 1, rtol=1e-12)


@pytest.mark.parametrize("beta", [1, 2])
def test_penalties_follow_the_units_of_extreme_data(beta: float) -> None:
    V, W, H = noisy(7, 5, 3)
    scale = 2.0**600
    root = 2.0**300
    plain = nmf(V, 3, init=(W, H), solver="mu", beta_loss=beta, alpha_W=0.05, l1_ratio=1.0, tol=0, max_iter=30)
    alpha = 0.05 * scale / root if beta == 1 else 0.05 * scale * root
    scaled = nmf(
        V * scale,
        3,
        init=(W * root, H * root),
        solver="mu",
        beta_loss=beta,
        alpha_W=alpha,
        l1_ratio=1.0,
        tol=0,
        max_iter=30,
    )
    np.testing.assert_allclose(scaled.W / root, plain.W, rtol=1e-10)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"alpha_W": -1}, ValueError, "`alpha_W` must be a finite non-negative number, got -1"),
        ({"alpha_H": "other"}, ValueError, "`alpha_H` must be one of"),
        ({"alpha_W": 1, "l1_ratio": 1.5}, ValueError, "`l1_ratio` must be from 0 to 1, got 1.5"),
        (
            {"fixed_w": np.ones((7, 3), dtype=bool)},
            ValueError,
            "`fixed_w`, `fixed_h` and `Fixed` need the values to keep",
        ),
        (
            {"init": "pair", "fixed_w": np.ones((7, 3))},
            TypeError,
            "`fixed_w` must be a boolean array, got dtype float64",
        ),
        ({"init": "pair", "fixed_h": np.ones((2, 5), dtype=bool)}, ValueError, r"`fixed_h` must have shape \(3, 5\)"),
        ({"upper_w": -1.0}, ValueError, "`upper_w` must be a finite non-negative number, got -1"),
        ({"upper_h": np.ones((2, 5))}, ValueError, r"`upper_h` must have shape \(3, 5\)"),
        ({"normalize": "V"}, ValueError, "`normalize` must be one of"),
        ({"normalize": "W", "upper_w": 1.0}, ValueError, "`normalize` must be None with fixed entries or bounds"),
        ({"normalize": "H", "alpha_H": 0.1, "alpha_W": 0}, ValueError, "`normalize` must be None with penalties"),
    ],
)
def test_bad_constraints(options: dict[str, Any], error: type[Exception], message: str) -> None:
    V, W, H = noisy(7, 5, 3)
    if options.get("init") == "pair":
        options = {**options, "init": (W, H)}
    with pytest.raises(error, match="^" + message):
        nmf(V, 3, **options)


def test_negative_fixed_factors_are_refused() -> None:
    V, W, H = noisy(7, 5, 3)
    with pytest.raises(ValueError, match=r"^`init\[0\]` must be non-negative, got -1"):
        nmf(V, 3, init=(np.where(W > 0, -1.0, W), H), fixed_w=W > 0)
    with pytest.raises(ValueError, match=r"^`fixed_w` needs the values to keep: give `init=W`"):
        transform(V, H, fixed_w=W > 0)


@pytest.mark.parametrize("which", ["upper_w", "upper_h"])
@pytest.mark.parametrize("solver", ["auto", "mu", "mm"])
@pytest.mark.parametrize("beta", BETAS)
def test_an_upper_bound_of_zero_is_met_by_a_run_that_ends_well(which: str, solver: str, beta: float) -> None:
    V = noisy(9, 7, 3).V
    bound: dict[str, Any] = {which: 0}
    result = nmf(V, 3, solver=solver, beta_loss=beta, random_state=0, **bound)
    assert max(result.W.max(), result.H.max()) == 0
    assert result.kkt_residual == 0
    assert result.status.name == "CONVERGED"
    assert result.divergence == (pytest.approx(float(np.sum(V**2)) / 2) if beta == 2 else np.inf) or beta > 1


@pytest.mark.parametrize("solver", ["auto", "mu", "mm"])
@pytest.mark.parametrize("beta", BETAS)
def test_a_component_that_an_upper_bound_forbids_is_as_if_it_were_not_there(solver: str, beta: float) -> None:
    """A floor in its stead would be answered by a row of H that is as much too large."""
    rng = np.random.default_rng(0)
    V, (W, H) = noisy(9, 7, 3).V, (rng.random((9, 3)), rng.random((3, 7)))
    options: dict[str, Any] = {"solver": solver, "beta_loss": beta, "max_iter": 60, "tol": 0, "check_every": 1}
    upper = np.asarray([[1e6, 0.0, 1e6]])
    seen: list[float] = []

    def look(progress: Any) -> None:
        seen.append(float(progress.H.max()))

    result = nmf(V, 3, init=(W, H), upper_w=upper, callback=look, **options)
    kept = nmf(V, 2, init=(W[:, [0, 2]], H[[0, 2]]), upper_w=1e6, **options)
    assert max(seen) < 1e3
    assert result.W[:, 1].max() == result.H[1].max() == 0
    np.testing.assert_allclose(result.W[:, [0, 2]] @ result.H[[0, 2]], kept.W @ kept.H, rtol=1e-5, atol=1e-8)
    assert result.divergence == pytest.approx(result.history[-1])
