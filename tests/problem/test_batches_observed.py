"""Batch effects beside weights, exposures and missing entries: the exact table, on every kind of data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import scipy.sparse
from scipy.optimize import minimize

import nmf_xp
from nmf_xp import beta_divergence
from tests.compiled import eagerly
from tests.problem.test_batches import KL, SOLVERS, planted, table_of

if TYPE_CHECKING:
    from nmf_xp.testing import Target

nmf: Any = nmf_xp.nmf
transform: Any = nmf_xp.transform

M, N = 24, 14
RNG = np.random.default_rng(5)
KINDS: dict[str, dict[str, Any]] = {
    "weights": {"weights": RNG.integers(0, 3, (M, N)).astype(float)},
    "weights of rows": {"weights": RNG.random((M, 1)) + 0.1},
    "weights of columns": {"weights": RNG.random((1, N)) + 0.1},
    "exposure": {"exposure": RNG.lognormal(size=(M, N))},
    "exposure of rows": {"exposure": RNG.lognormal(size=(M, 1))},
    "exposure of columns": {"exposure": RNG.lognormal(size=(1, N))},
    "both": {"weights": RNG.integers(0, 3, (M, N)).astype(float), "exposure": RNG.lognormal(size=(M, N))},
}


def loss(V: Any, W: Any, H: Any, labels: Any, prior: float = 0.0, weights: Any = 1.0, exposure: Any = 1.0) -> float:
    """The divergence at the best table, and the prior, by their definitions."""
    total, U, Y = 0.0, np.broadcast_to(weights, V.shape), exposure * (W @ H)
    for label in np.unique(labels):
        rows = labels == label
        v, y, u = V[rows], Y[rows], U[rows]
        observed = (u * y).sum(axis=0) + prior
        b = np.where(observed > 0, ((u * v).sum(axis=0) + prior) / np.where(observed > 0, observed, 1), 1.0)
        y = np.maximum(b * y, 1e-300)
        total += float((u * (y - v + np.where(v > 0, v * np.log(np.where(v > 0, v, 1) / y), 0))).sum())
        total += float((prior * (b - 1 - np.log(b))).sum()) if prior else 0.0
    return total


def rows_of(result: Any, labels: Any) -> Any:
    return np.stack([np.maximum(np.asarray(result.batch_effects[label]), 1e-30) for label in labels])


@eagerly
@pytest.mark.parametrize("prior", [0.0, 3.0])
@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_never_rises_and_is_that_of_its_definition(target: Target, kind: str, prior: float) -> None:
    V, labels, *_ = planted(M, N)
    beside = {name: target.asarray(x) for name, x in KINDS[kind].items()}
    options: dict[str, Any] = {"check_every": 1, "tol": 1e-13, "max_iter": 15, "batch": labels, "batch_prior": prior}
    for solver in SOLVERS if target.name == "numpy" else SOLVERS[:1]:
        result = nmf(target.asarray(V), 3, solver=solver, **beside, **options, **KL)
        assert np.max(np.diff(result.history), initial=0.0) <= 1e-12 * result.history[0]
        W, H = (target.to_numpy(x) for x in (result.W, result.H))
        assert result.objective == pytest.approx(loss(V, W, H, labels, prior, **KINDS[kind]), rel=1e-8)
        here = nmf(V, 3, solver=solver, **KINDS[kind], **options, **KL)
        assert result.objective == pytest.approx(here.objective, rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("solver", SOLVERS)
def test_sparse_is_dense_and_blocks_of_rows_are_all(solver: str, kind: str) -> None:
    V, labels, *_ = planted(600, 90)  # which is cut into blocks
    shapes = {name: (600 if x.shape[0] > 1 else 1, 90 if x.shape[1] > 1 else 1) for name, x in KINDS[kind].items()}
    rng = np.random.default_rng(7)
    beside = {name: rng.integers(1 - (name == "weights"), 4, shape).astype(float) for name, shape in shapes.items()}
    options: dict[str, Any] = {"solver": solver, "batch": labels, "max_iter": 6, "tol": 0, **beside, **KL}
    dense = nmf(V, 4, **options)
    for kind_of_data in (scipy.sparse.csr_array, scipy.sparse.csc_array, np.asfortranarray):
        other = nmf(kind_of_data(V), 4, **options)
        np.testing.assert_allclose(other.W @ other.H, dense.W @ dense.H, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(table_of(other), table_of(dense), rtol=1e-7, atol=1e-9)
        assert other.divergence == pytest.approx(dense.divergence, rel=1e-9)
    expected = beta_divergence(
        V,
        dense.W,
        dense.H,
        beta_loss=1.0,
        weights=beside.get("weights"),
        exposure=rows_of(dense, labels) * beside.get("exposure", 1.0),
    )
    assert float(expected) == pytest.approx(dense.divergence, rel=1e-10)


@pytest.mark.parametrize("prior", [0.0, 5.0])
def test_the_fit_is_an_optimum_that_scipy_cannot_lower(prior: float) -> None:
    V, labels, *_ = planted(18, 10, 2)
    beside = {name: x[:18, :10] for name, x in KINDS["both"].items()}
    result = nmf(V, 2, batch=labels, batch_prior=prior, max_iter=5000, tol=1e-12, **beside, **KL)
    start = np.concatenate([result.W.ravel(), result.H.ravel()])

    def objective(x: Any) -> float:
        return loss(V, x[:36].reshape(18, 2), x[36:].reshape(2, 10), labels, prior, **beside)

    assert objective(start) == pytest.approx(result.objective, rel=1e-9)
    found = minimize(objective, start, method="L-BFGS-B", bounds=[(1e-12, None)] * start.size)
    assert found.fun >= result.objective * (1 - 1e-6)


def test_missing_entries_are_weights_of_zero_and_never_read() -> None:
    V, labels, *_ = planted()
    seen = np.random.default_rng(1).random(V.shape) < 0.7
    options: dict[str, Any] = {"batch": labels, "max_iter": 40, "tol": 0, **KL}
    weighted = nmf(V, 3, weights=seen, **options)
    missing = nmf(np.where(seen, V, np.nan), 3, missing="nan", **options)
    np.testing.assert_array_equal(missing.W, weighted.W)
    np.testing.assert_array_equal(table_of(missing), table_of(weighted))
    assert nmf(np.where(seen, V, 1e6), 3, weights=seen, **options).divergence == weighted.divergence
    stored = scipy.sparse.coo_array((V[seen] + 0.0, np.nonzero(seen)), shape=V.shape)
    absent = nmf(stored, 3, absent="missing", **options)
    assert absent.divergence == pytest.approx(weighted.divergence, rel=1e-9)
    np.testing.assert_allclose(table_of(absent), table_of(weighted), rtol=1e-7)


def test_planted_effects_are_found_though_a_third_is_missing() -> None:
    V, labels, H, B = planted(1500, 40)
    seen = np.random.default_rng(1).random(V.shape) < 0.7
    result = nmf(np.where(seen, V, np.nan), 3, missing="nan", batch=labels, n_restarts=3, max_iter=1000, tol=1e-7, **KL)
    many = B * H.sum(axis=0) > 0.2
    assert np.median(np.abs(table_of(result) / B - 1)[many]) < 0.05


def test_an_effect_of_which_nothing_is_seen_is_one_and_moves_no_other() -> None:
    V, labels, *_ = planted()
    seen = np.ones(V.shape, dtype=bool)
    seen[labels == "x", 5] = False
    options: dict[str, Any] = {"batch": labels, "max_iter": 300, **KL}
    result = nmf(V, 3, weights=seen, **options)
    assert result.batch_effects["x"][5] == 1
    others = [np.log(result.batch_effects[label][5]) * (labels == label).mean() for label in "yz"]
    assert sum(others) == pytest.approx(0.0, abs=1e-9)
    with_prior = nmf(V, 3, weights=seen, batch_prior=2.0, **options)
    assert with_prior.batch_effects["x"][5] == pytest.approx(1.0, rel=1e-12)
    unseen = nmf(V, 3, weights=(labels != "x")[:, None], **options)
    np.testing.assert_array_equal(unseen.batch_effects["x"], 1)
    assert unseen.W[labels == "x"].max() == 0
    long: dict[str, Any] = {"max_iter": 3000, "tol": 1e-10, **KL}
    alone = nmf(V[labels != "x"], 3, batch=labels[labels != "x"], **long)
    again = nmf(V, 3, batch=labels, weights=(labels != "x")[:, None], **long)
    assert again.divergence == pytest.approx(alone.divergence, rel=0.02)  # of another start


def test_what_an_exposure_of_rows_or_columns_and_of_batches_changes() -> None:
    V, labels, *_ = planted(40, 20)
    rng = np.random.default_rng(3)
    rows, columns, table = rng.lognormal(size=(40, 1)), rng.lognormal(size=(1, 20)), rng.lognormal(size=(3, 20))
    plain = nmf(V, 3, batch=labels, max_iter=20, tol=0, solver="mu", init=(np.ones((40, 3)), _start(20)), beta_loss=1.0)
    options: dict[str, Any] = {"batch": labels, "max_iter": 20, "tol": 0, "solver": "mu", "beta_loss": 1.0}
    of_rows = nmf(V, 3, exposure=rows, init=(1 / rows * np.ones((40, 3)), _start(20)), **options)
    np.testing.assert_allclose(rows * (of_rows.W @ of_rows.H), plain.W @ plain.H, rtol=1e-6)
    np.testing.assert_allclose(table_of(of_rows), table_of(plain), rtol=1e-6, atol=1e-12)
    of_columns = nmf(V, 3, exposure=columns, init=(np.ones((40, 3)), _start(20) / columns), **options)
    np.testing.assert_allclose(columns * (of_columns.W @ of_columns.H), plain.W @ plain.H, rtol=1e-6)
    np.testing.assert_allclose(table_of(of_columns), table_of(plain), rtol=1e-6, atol=1e-12)
    codes = np.searchsorted(["x", "y", "z"], labels)
    of_batches = nmf(V, 3, exposure=table[codes], init=(np.ones((40, 3)), _start(20)), **options)
    assert of_batches.divergence == pytest.approx(plain.divergence, rel=1e-6)
    ratio = table_of(plain) / np.maximum(table_of(of_batches), 1e-12) / table
    seen = table_of(plain) > 0
    spread = np.where(seen, ratio, np.nan)
    np.testing.assert_allclose(np.nanmax(spread, axis=0) / np.nanmin(spread, axis=0), 1, rtol=1e-5)
    full = nmf(V, 3, exposure=rng.lognormal(size=(40, 20)), init=(np.ones((40, 3)), _start(20)), **options)
    assert abs(full.divergence / plain.divergence - 1) > 0.01


def _start(n: int) -> Any:
    return np.random.default_rng(0).random((3, n)) + 0.1


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1e30, 1e200])
def test_the_units_of_weights_and_of_the_prior(scale: float) -> None:
    V, labels, *_ = planted()
    weights = np.random.default_rng(2).integers(0, 3, V.shape).astype(float)
    options: dict[str, Any] = {"batch": labels, "max_iter": 20, "tol": 0, "solver": "mu", **KL}
    one = nmf(V, 3, weights=weights, batch_prior=5.0, **options)
    other = nmf(V, 3, weights=weights * scale, batch_prior=5.0 * scale, **options)
    np.testing.assert_allclose(table_of(other), table_of(one), rtol=1e-9)
    np.testing.assert_allclose(other.W @ other.H, one.W @ one.H, rtol=1e-9, atol=1e-12)


def test_transform_with_weights_keeps_known_effects_and_finds_others() -> None:
    V, labels, *_ = planted(400)
    fitted = nmf(V[:300], 3, batch=labels[:300], max_iter=1000, tol=1e-8, **KL)
    weights = np.random.default_rng(0).integers(0, 3, (100, 40)).astype(float)
    depth = np.random.default_rng(1).lognormal(size=(100, 40))
    options: dict[str, Any] = {"max_iter": 1000, "tol": 1e-9, "weights": weights}
    known = transform(V[300:], fitted, batch=labels[300:], exposure=depth, **options)
    exposed = transform(V[300:], fitted.H, beta_loss=1.0, exposure=depth * rows_of(known, labels[300:]), **options)
    assert known.divergence == pytest.approx(exposed.divergence, rel=1e-6)
    new = np.where(labels[300:] == "z", "other", labels[300:])
    mixed = transform(V[300:], fitted, batch=new, exposure=depth, **options)
    np.testing.assert_allclose(mixed.batch_effects["x"], fitted.batch_effects["x"], atol=1e-30)
    assert mixed.divergence < known.divergence
