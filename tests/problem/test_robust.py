"""Losses that a few wrong entries do not rule, on every solver and backend."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import scipy.sparse
from scipy.optimize import least_squares
from sklearn.datasets import load_digits, load_wine

from nmf_xp import L1, Decorrelate, Lower, Robust, RowBlocks, beta_divergence, nmf, transform
from tests.compiled import eagerly
from tests.problems import BETAS, noisy

if TYPE_CHECKING:
    from pathlib import Path

    from nmf_xp.testing import Target

SOLVERS = [("mu", beta) for beta in BETAS] + [("mm", 1), ("mm", 0.5), ("newton", 1)]
SOLVERS += [("cd", 1), ("cd", 2), ("cd-plain", 2)]
PHIS = ["huber", "cauchy", "welsch"]


def phi(name: str, d: Any, s: float) -> Any:
    """The formulas of the documentation, written out."""
    if name == "huber":
        return np.where(d <= s, d, 2 * np.sqrt(s * d) - s)
    return s * np.log(1 + d / s) if name == "cauchy" else s * (1 - np.exp(-d / s))


def loss(V: Any, W: Any, H: Any, beta: float, name: str, s: float) -> float:
    """Entry by entry, by the public divergence of a single number."""
    Y = W @ H
    total = 0.0
    for v, y in zip(V.ravel(), Y.ravel(), strict=True):
        d = float(beta_divergence(np.asarray([[v]]), np.asarray([[y]]), np.ones((1, 1)), beta_loss=beta))
        total += float(phi(name, d, s))
    return total


def spoiled(V: Any) -> Any:
    """With one entry in twenty far too large."""
    rng = np.random.default_rng(3)
    return np.where(rng.random(V.shape) < 0.05, V + 10 * V.max(), V)


@eagerly
@pytest.mark.parametrize("name", PHIS)
@pytest.mark.parametrize(("solver", "beta"), SOLVERS)
def test_the_loss_never_rises(target: Target, solver: str, beta: float, name: str) -> None:
    V, W, H = noisy(9, 7, 3)
    start = target.asarray(W), target.asarray(H)
    robust = Robust(beta, name, scale=0.05)
    options: dict[str, Any] = {"beta_loss": robust, "solver": solver, "check_every": 1, "tol": 1e-13, "max_iter": 30}
    result = nmf(target.asarray(spoiled(V)), 3, init=start, **options)
    assert np.max(np.diff(result.history), initial=0.0) <= 1e-12 * result.history[0]
    W, H = (np.asarray(target.to_numpy(x), dtype=np.float64) for x in (result.W, result.H))
    assert float(result.divergence) == pytest.approx(loss(spoiled(V), W, H, beta, name, 0.05), rel=1e-6)
    assert result.robust == robust
    assert result.history[-1] < 0.95 * result.history[0]


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("name", PHIS)
def test_at_an_infinite_scale_all_weights_are_one(beta: float, name: str) -> None:
    V, W, H = noisy(9, 7, 3)
    options: dict[str, Any] = {"init": (W, H), "solver": "mu", "max_iter": 25}
    plain = nmf(V, 3, beta_loss=beta, **options)
    found = nmf(V, 3, beta_loss=Robust(beta, name, scale=float("inf")), **options)
    np.testing.assert_allclose(found.W, plain.W, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(found.history, plain.history, rtol=1e-9)


@pytest.mark.parametrize("name", ["huber", "cauchy"])
@pytest.mark.parametrize("solver", ["mu", "cd", "cd-plain"])
def test_scipys_robust_least_squares_finds_the_same(name: str, solver: str) -> None:
    """The wine data's rows on known components, with wrong entries: what SciPy calls f_scale is sqrt(2 s)."""
    X = spoiled(load_wine().data[:8] / load_wine().data.max(axis=0))
    H = nmf(load_wine().data / load_wine().data.max(axis=0), 3, random_state=0).H
    found = transform(X, H, beta_loss=Robust(2, name, scale=0.02), solver=solver, tol=1e-14, max_iter=5000)
    best = 0.0
    for x in X:
        settings: dict[str, Any] = {"bounds": (0, np.inf), "loss": name, "f_scale": 0.2, "xtol": 1e-15, "ftol": 1e-15}
        starts = (found.W.mean(axis=0) + 0.1, np.full(3, 0.3))
        best += min(least_squares(lambda w, x=x: w @ H - x, start, gtol=1e-15, **settings).cost for start in starts)
    assert found.divergence <= best * (1 + 1e-6)


@pytest.mark.parametrize("name", PHIS)
@pytest.mark.parametrize("beta", [1, 2])
def test_wrong_entries_of_real_data_do_not_rule_the_fit(beta: float, name: str) -> None:
    V = load_digits().data[:200] + 0.5
    bad = np.random.default_rng(0).random(V.shape) < 0.02
    options: dict[str, Any] = {"random_state": 0, "max_iter": 400}
    clean = nmf(V, 8, beta_loss=beta, **options)
    plain = nmf(np.where(bad, 500.0, V), 8, beta_loss=beta, **options)
    robust: Any = nmf(np.where(bad, 500.0, V), 8, beta_loss=Robust(beta, name), **options)

    def error(result: Any) -> float:
        return float(np.linalg.norm((V - result.W @ result.H)[~bad]))

    assert error(plain) > 1.5 * error(clean)
    # Huber's loss goes on growing, and entries a hundred times too large still pull.
    assert error(robust) < (0.9 * error(plain) if name == "huber" else 1.15 * error(clean))
    assert 0 < robust.robust.scale < np.inf
    assert name in str(robust)


def test_with_weights_missing_entries_and_terms() -> None:
    V, W, H = noisy(9, 7, 3)
    V[0, 0] = np.nan
    weights = np.random.default_rng(0).uniform(0.0, 2.0, size=V.shape)
    options: dict[str, Any] = {"init": (W, H), "missing": "nan", "weights": weights, "check_every": 1, "tol": 1e-12}
    options |= {"w": [Lower(0.1), L1(0.01)], "h": [L1(0.01)]}
    result = nmf(V, 3, beta_loss=Robust(1, "cauchy", 0.1), solver="mm", max_iter=30, **options)
    assert np.max(np.diff(result.history)) <= 1e-12 * result.history[0]
    assert result.W.min() >= 0.1
    seen = np.where(np.isnan(V), 0.0, weights)
    d = [
        [float(beta_divergence(np.asarray([[v]]), np.asarray([[y]]), np.ones((1, 1)), beta_loss=1)) for v, y in pair]
        for pair in (zip(*rows, strict=True) for rows in zip(np.nan_to_num(V), result.W @ result.H, strict=True))
    ]
    assert result.divergence == pytest.approx(float((seen * phi("cauchy", np.asarray(d), 0.1)).sum()), rel=1e-9)


@pytest.mark.parametrize("kind", ["rows", "columns", "entries", "stack"])
@pytest.mark.parametrize("name", PHIS)
@pytest.mark.parametrize(("solver", "beta"), SOLVERS)
def test_with_an_exposure(solver: str, beta: float, name: str, kind: str) -> None:
    V, W, H = noisy(9, 7, 3)
    shape = {"rows": (9, 1), "columns": (1, 7), "entries": (9, 7), "stack": (2, 9, 7)}[kind]
    U = np.random.default_rng(5).lognormal(0.0, 1.0, shape)
    V, s = spoiled(V) * U, 0.05
    options: dict[str, Any] = {"check_every": 1, "tol": 1e-13, "max_iter": 30, "init": (W, H)}
    result = nmf(V, 3, beta_loss=Robust(beta, name, s), solver=solver, exposure=U, **options)
    history = np.asarray(result.history)
    assert np.max(np.diff(history), initial=0.0) <= 1e-12 * history.max()
    members = zip(V, U, result.W, result.H, result.divergence, strict=True) if kind == "stack" else None
    for v, u, w, h, divergence in members or [(V, U, result.W, result.H, result.divergence)]:
        found = 0.0
        for x, y in zip(v.ravel(), (u * (w @ h)).ravel(), strict=True):
            d = float(beta_divergence(np.asarray([[x]]), np.asarray([[y]]), np.ones((1, 1)), beta_loss=beta))
            found += float(phi(name, d, s))
        assert divergence == pytest.approx(found, rel=1e-8)


@pytest.mark.parametrize("beta", [0, 1, 2])
def test_with_an_exposure_the_scale_is_that_of_v(beta: float) -> None:
    """An exposure that is the same everywhere is V in other units, and one of beta 0 leaves each divergence."""
    V, _, _ = noisy(9, 7, 3)
    V = spoiled(V)
    options: dict[str, Any] = {"solver": "mu", "random_state": 0, "max_iter": 30}
    plain: Any = nmf(V, 3, beta_loss=Robust(beta), **options)
    exposed: Any = nmf(V, 3, beta_loss=Robust(beta), exposure=np.full((9, 1), 8.0), **options)
    assert exposed.robust.scale == pytest.approx(plain.robust.scale, rel=1e-9)
    assert exposed.divergence == pytest.approx(plain.divergence, rel=1e-9)
    np.testing.assert_allclose(8 * exposed.W @ exposed.H, plain.W @ plain.H, rtol=1e-7)


def test_of_a_sparse_matrix_whose_absent_entries_are_unobserved() -> None:
    V, W, H = noisy(9, 7, 3)
    seen: Any = np.random.default_rng(1).random(V.shape) < 0.8
    U = np.random.default_rng(5).lognormal(0.0, 1.0, V.shape)
    options: dict[str, Any] = {"init": (W, H), "solver": "mu", "max_iter": 20, "exposure": U}
    options["beta_loss"] = Robust(1, "cauchy", 0.1)
    held = scipy.sparse.csr_array(np.where(seen, V, 0.0))
    found = nmf(held, 3, absent="missing", **options)
    dense = nmf(V, 3, weights=seen.astype(float), **options)
    np.testing.assert_allclose(found.W @ found.H, dense.W @ dense.H, rtol=1e-9)
    assert found.divergence == pytest.approx(dense.divergence, rel=1e-9)


@pytest.mark.parametrize("unit", [1e-20, 1e20])
def test_in_other_units_the_answer_is_the_same(unit: float) -> None:
    V, _, _ = noisy(9, 7, 3)
    options: dict[str, Any] = {"solver": "mu", "random_state": 0, "max_iter": 30}
    for scale in (None, 0.05):
        plain: Any = nmf(V, 3, beta_loss=Robust(2, "huber", scale), **options)
        far = Robust(2, "huber", scale if scale is None else scale * unit**2)
        moved: Any = nmf(V * unit, 3, beta_loss=far, **options)
        np.testing.assert_allclose(moved.W @ moved.H / unit, plain.W @ plain.H, rtol=1e-8)
        assert moved.robust.scale == pytest.approx(plain.robust.scale * unit**2, rel=1e-6)


def test_restarts_stacks_and_checkpoints(tmp_path: Path) -> None:
    V, _, _ = noisy(9, 7, 3)
    robust = Robust(2, "cauchy", 0.1)
    best: Any = nmf(V, 3, beta_loss=robust, n_restarts=3, random_state=0, max_iter=20)
    assert best.divergence == best.restarts.divergence.min()
    stacked = nmf(np.stack([V, 2 * V]), 3, beta_loss=robust, random_state=0, max_iter=20)
    assert stacked.W.shape == (2, 9, 3)
    options: dict[str, Any] = {"beta_loss": robust, "solver": "mu", "random_state": 0, "tol": 1e-13}
    whole = nmf(V, 3, max_iter=40, **options)
    nmf(V, 3, max_iter=20, checkpoint=tmp_path / "run.npz", **options)
    np.testing.assert_array_equal(nmf(V, 3, max_iter=40, checkpoint=tmp_path / "run.npz", **options).W, whole.W)
    with pytest.raises(Exception, match="another run"):
        nmf(V, 3, max_iter=40, checkpoint=tmp_path / "run.npz", **options | {"beta_loss": Robust(2, "cauchy", 0.2)})


def test_a_row_of_doubt_is_still_observed() -> None:
    """Where a weight would underflow, its row is not taken for one without an observed entry."""
    V = np.zeros((4, 6))
    V[:3] = np.random.default_rng(0).random((3, 6)) + 0.5
    V[3, 0] = 1e3
    result = nmf(V, 2, beta_loss=Robust(1, "welsch", 1e-3), random_state=0)
    assert result.objective == pytest.approx(loss(V, result.W, result.H, 1, "welsch", 1e-3), rel=1e-9)
    exact = 100 * np.random.default_rng(0).random((30, 3)) @ np.random.default_rng(1).random((3, 20))
    found = nmf(exact, 3, beta_loss=Robust(2, "welsch", 1e-2), random_state=0)
    assert (found.W > 0).any(axis=1).all()
    assert (found.H > 0).any(axis=0).all()


def test_restarts_begin_with_the_single_run() -> None:
    V, _, _ = noisy(9, 7, 3)
    options: dict[str, Any] = {"beta_loss": Robust(2), "random_state": 0, "max_iter": 10}
    single: Any = nmf(V, 3, **options)
    several: Any = nmf(V, 3, n_restarts=3, **options)
    assert several.robust == single.robust
    assert several.restarts.divergence[0] == pytest.approx(single.divergence, rel=1e-9)


def test_scales_beyond_the_numbers_are_refused() -> None:
    V, _, _ = noisy(9, 7, 3)
    with pytest.raises(ValueError, match=r"`Robust\.scale` must be at least"):
        nmf(V.astype(np.float32), 3, beta_loss=Robust(2, "cauchy", 1e-60))
    for unit in (1e-170, 1e160):
        with pytest.raises(ValueError, match="`V` must be of other units for `Robust`"):
            nmf(V * unit, 3, beta_loss=Robust(2))
    with pytest.raises(ValueError, match="a float can hold"):
        Robust(2, "huber", 10**400)


def test_inside_jit() -> None:
    jax = pytest.importorskip("jax")
    V, W, H = noisy(9, 7, 3)
    options: dict[str, Any] = {"solver": "mu", "max_iter": 20}

    def fit(V: Any, W: Any, H: Any) -> Any:
        return nmf(V, 3, beta_loss=Robust(1, "welsch", 0.5), init=(W, H), **options).W

    with jax.enable_x64(True):
        found = jax.jit(fit)(*(jax.numpy.asarray(x) for x in (V, W, H)))
    np.testing.assert_allclose(np.asarray(found), fit(V, W, H), rtol=1e-8)


def test_beside_a_term_that_takes_no_weights_auto_takes_another_solver() -> None:
    """The weights of a robust loss are weights: coordinate descent would raise the objective without end."""
    V = load_wine().data / load_wine().data.max(axis=0)
    options: dict[str, Any] = {"w": [L1(0.01)], "h": [Decorrelate(1.0)], "random_state": 0, "check_every": 1}
    for name in PHIS:
        result = nmf(V, 3, beta_loss=Robust(2, name, 1e-3), **options)
        assert result.solver == "mm"
        assert np.max(np.diff(result.history)) <= 1e-12 * result.history[0]
        with pytest.raises(ValueError, match="`solver` must be 'mu' or 'mm' with Decorrelate"):
            nmf(V, 3, beta_loss=Robust(2, name, 1e-3), solver="cd", **options)


@pytest.mark.parametrize("name", PHIS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("scale", [np.inf, 1e30])
def test_beside_a_scale_far_above_all_entries_the_loss_is_the_divergence(scale: float, dtype: str, name: str) -> None:
    V, W, H = (x.astype(dtype) for x in noisy(9, 7, 3))
    V *= np.asarray(1e-6, dtype=dtype)
    found = nmf(V, 3, beta_loss=Robust(2, name, scale), solver="mu", init=(W, H), max_iter=200)
    true = float(beta_divergence(V.astype(float), found.W.astype(float), found.H.astype(float)))
    assert found.divergence == pytest.approx(true, rel=1e-5)


BAD: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
    ("array", {"solver": "online"}, ValueError, "`solver` must be 'mu', 'mm', 'cd' or 'cd-plain'"),
    ("array", {"solver": ("cd-plain", {"violation_tol": 1e-4})}, ValueError, "the options ['violation_tol']"),
    ("array", {"solver": "newton"}, ValueError, "needs a `beta_loss` of 1"),
    ("sparse", {}, ValueError, "for a sparse V, whose zeros would need weights"),
    ("blocks", {}, ValueError, "got data that are read block by block"),
    ("stack", {}, ValueError, "`Robust.scale` must be given for a stack"),
    ("exact", {}, ValueError, "`Robust.scale` must be given where it cannot be found"),
]


@pytest.mark.parametrize(("kind", "options", "error", "message"), BAD)
def test_where_a_robust_loss_cannot_be(kind: str, options: dict[str, Any], error: Any, message: str) -> None:
    V, _, _ = noisy(9, 7, 3)
    kinds: dict[str, Any] = {
        "sparse": scipy.sparse.csr_array,
        "blocks": lambda x: RowBlocks([x[:4], x[4:]]),
        "stack": lambda x: x[None],
    }
    kinds["exact"] = lambda x: 0 * x + np.eye(1, 7, dtype=x.dtype) * np.ones((9, 1))
    with pytest.raises(error) as caught:
        nmf(kinds.get(kind, np.asarray)(V), 3, beta_loss=Robust(2), **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("arguments", [("frobenus",), (2, "tukey"), (2, "huber", 0.0), (2, "huber", "wide"), (np.nan,)])
def test_a_loss_is_refused_where_it_is_written(arguments: tuple[Any, ...]) -> None:
    with pytest.raises((TypeError, ValueError), match="must be"):
        Robust(*arguments)


def test_the_class_is_no_loss() -> None:
    with pytest.raises(TypeError, match="got the class Robust"):
        nmf(np.ones((4, 3)), 2, beta_loss=Robust)  # type: ignore[arg-type]


def test_a_loss_is_a_value() -> None:
    assert Robust(1, "huber", 2.0) == Robust(1, "huber", 2.0)
    assert hash(Robust()) == hash(Robust())
    with pytest.raises(dataclasses.FrozenInstanceError):
        Robust().scale = 1.0  # type: ignore[misc]
