"""Batches under the negative binomial loss: planted effects, the probabilities of SciPy, sparse data, `transform`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
import scipy.sparse
import scipy.stats

import nmf_xp
from nmf_xp import NegativeBinomial, load, transform
from nmf_xp.problem import overdispersed
from tests.compiled import eagerly

if TYPE_CHECKING:
    from pathlib import Path

    from nmf_xp.testing import Target

nmf: Any = nmf_xp.nmf
ALPHA = 0.25


class Planted(NamedTuple):
    """Counts of rows in three batches."""

    V: Any
    labels: Any
    effects: Any  # (3, n), of geometric mean 1
    H: Any  # the profiles that belong to these


def planted(seed: int = 0, *, m: int = 240, n: int = 100, level: float = 40.0) -> Planted:
    rng = np.random.default_rng(seed)
    labels, effects = rng.integers(3, size=m), rng.lognormal(0, 0.7, size=(3, n))
    W, H = rng.dirichlet(np.full(3, 0.4), size=m), level * rng.gamma(0.5, size=(3, n))
    V = rng.poisson(effects[labels] * (W @ H) * rng.gamma(1 / ALPHA, ALPHA, size=(m, n))).astype(float)
    mean = np.exp(np.log(effects[labels]).mean(axis=0))
    return Planted(V, labels, effects / mean, H * mean)


def cosine(found: Any, planted: Any) -> float:
    """The mean over the planted profiles of that with the nearest one."""
    found, planted = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (found, planted))
    return float((found @ planted.T).max(axis=0).mean())


def mean_of(result: Any, labels: Any) -> Any:
    return np.stack([result.batch_effects[label] for label in labels]) * (result.W @ result.H)


def half_deviance(V: Any, Y: Any, alpha: float) -> float:
    def log_likelihood(mean: Any) -> Any:
        return scipy.stats.nbinom.logpmf(V, 1 / alpha, 1 / (1 + alpha * np.maximum(mean, 1e-300)))

    return float(np.where(V > 0, log_likelihood(V) - log_likelihood(Y), -log_likelihood(Y)).sum())


@pytest.mark.parametrize("seed", range(3))
def test_planted_effects_profiles_and_dispersion_are_found(seed: int) -> None:
    V, labels, effects, H = planted(seed)
    options: dict[str, Any] = {"beta_loss": "negative-binomial", "random_state": 0, "max_iter": 500}
    found = nmf(V, 3, batch=labels, **options)
    assert found.noise.dispersion == pytest.approx(ALPHA, rel=0.1)
    assert cosine(found.H, H) > 0.99
    estimated = np.stack([found.batch_effects[i] for i in range(3)])
    seen = np.stack([V[labels == i].sum(axis=0) for i in range(3)]).min(axis=0) > 200
    assert np.corrcoef(np.log(estimated[:, seen]).ravel(), np.log(effects[:, seen]).ravel())[0, 1] > 0.97
    np.testing.assert_allclose(np.log(estimated[labels][:, seen]).mean(axis=0), 0.0, atol=1e-6)
    without = nmf(V, 3, **options)
    assert without.noise.dispersion > 1.5 * ALPHA  # what differs between batches is taken for it
    assert cosine(without.H, H) < cosine(found.H, H)
    assert found.divergence == pytest.approx(half_deviance(V, mean_of(found, labels), found.noise.dispersion), rel=1e-9)


def test_the_effects_are_the_most_likely() -> None:
    V, labels, *_ = planted()
    found = nmf(V, 3, batch=labels, beta_loss=NegativeBinomial(ALPHA), random_state=0, max_iter=2000, tol=1e-10)
    best = half_deviance(V, mean_of(found, labels), ALPHA)
    for factor in (0.97, 1.03):
        changed = {label: effects * factor for label, effects in found.batch_effects.items()}
        for label in changed:
            other = {**found.batch_effects, label: changed[label]}
            mean = np.stack([other[label] for label in labels]) * (found.W @ found.H)
            assert half_deviance(V, mean, ALPHA) > best


@eagerly
@pytest.mark.parametrize("solver", ["mu", "newton"])
def test_on_every_backend(target: Target, solver: str) -> None:
    V, labels, *_ = planted(m=40, n=20)
    options: dict[str, Any] = {"solver": solver, "random_state": 0, "batch": labels.tolist(), "max_iter": 20}
    found = nmf(target.asarray(V), 2, beta_loss=NegativeBinomial(ALPHA), **options)
    assert np.all(np.diff(found.history) <= 1e-12 * found.history[0])
    here = nmf(V, 2, beta_loss=NegativeBinomial(ALPHA), **options)
    assert found.divergence == pytest.approx(here.divergence, rel=1e-5)
    effects = np.stack([target.to_numpy(x) for x in found.batch_effects.values()])
    np.testing.assert_allclose(effects, np.stack(list(here.batch_effects.values())), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("solver", ["mu", "mm", "newton", "cd"])
def test_sparse_is_dense(solver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overdispersed, "AT_ONCE", 1000)
    V, labels, *_ = planted(level=0.6)
    assert np.mean(V > 0) < 0.4
    exposure = np.random.default_rng(1).lognormal(size=(len(V), 1))
    start = np.random.default_rng(2).gamma(1.0, size=(len(V), 3)), np.random.default_rng(3).gamma(1.0, size=(3, 100))
    options: dict[str, Any] = {"solver": solver, "init": start, "batch": labels, "batch_prior": 2.0, "max_iter": 20}
    options |= {"beta_loss": NegativeBinomial(ALPHA), "exposure": exposure, "tol": 1e-12}
    dense, sparse = (nmf(given, 3, **options) for given in (V, scipy.sparse.csr_array(V)))
    # The effects are found by up to 400 iterations, and those of mm extrapolate rounding.
    assert sparse.divergence == pytest.approx(dense.divergence, rel=1e-5 if solver == "mm" else 1e-8)
    if solver != "mm":
        np.testing.assert_allclose(mean_of(sparse, labels), mean_of(dense, labels), rtol=1e-5, atol=1e-9)
    expected = half_deviance(V, exposure * mean_of(dense, labels), ALPHA)
    assert dense.divergence == pytest.approx(expected, rel=1e-8)


def test_transform_files_and_restarts(tmp_path: Path) -> None:
    V, labels, effects, _ = planted()
    fitted = nmf(V, 3, batch=labels, beta_loss="negative-binomial", random_state=0, max_iter=500, tol=1e-8)
    found = transform(V[:50], fitted, batch=labels[:50], max_iter=500, tol=1e-8)
    assert found.noise == fitted.noise
    np.testing.assert_allclose(found.W @ found.H, fitted.W[:50] @ fitted.H, rtol=0.02, atol=1e-3)
    known: Any = found.batch_effects
    for label, kept in known.items():
        np.testing.assert_allclose(kept, fitted.batch_effects[label], rtol=1e-6, atol=1e-9)
    new: Any = transform(V[labels == 1], fitted.H, batch=["new"] * int((labels == 1).sum()), beta_loss=fitted.loss)
    seen = V[labels == 1].sum(axis=0) > 300
    assert np.corrcoef(np.log(new.batch_effects["new"][seen]), np.log(effects[1, seen]))[0, 1] > 0.95
    several = nmf(V, 3, batch=labels, beta_loss="negative-binomial", n_restarts=3, random_state=0)
    assert several.divergence == min(several.restarts.divergence)
    for kind in ("row", "column"):
        one: Any = nmf(V, 3, batch=labels, beta_loss=NegativeBinomial(kind), n_restarts=5, random_state=1, tol=1e-2)
        assert one.batch_effects[2].shape == (100,)
    agreed: Any = nmf_xp.consensus_factors(
        V, 3, beta_loss="negative-binomial", batch=labels, n_restarts=4, random_state=0
    )
    assert agreed.result.batch_effects[0].shape == (100,)
    fitted.save(tmp_path / "fit.npz")
    again: Any = load(tmp_path / "fit.npz")
    assert again.noise == fitted.noise
    assert set(again.batch_effects) == {"0", "1", "2"}


def test_a_batch_without_counts_in_a_column_and_what_is_refused() -> None:
    V, labels, *_ = planted(m=60, n=30)
    V[labels == 2, :5] = 0.0
    found = nmf(V, 2, batch=labels, beta_loss=NegativeBinomial(ALPHA), random_state=0)
    assert np.isfinite(found.W).all()
    assert np.max(found.batch_effects[2][:5]) < 1e-9
    shrunk = nmf(V, 2, batch=labels, batch_prior=5.0, beta_loss=NegativeBinomial(ALPHA), random_state=0)
    table = np.stack(list(shrunk.batch_effects.values()))
    assert shrunk.objective - shrunk.divergence == pytest.approx(5.0 * (table - 1 - np.log(table)).sum(), rel=1e-6)
    missing = np.where(np.random.default_rng(0).random(V.shape) < 0.2, np.nan, V)
    options: dict[str, Any] = {"batch": labels, "beta_loss": NegativeBinomial("column"), "random_state": 0}
    assert np.isfinite(nmf(missing, 2, missing="nan", **options).divergence)
    with pytest.raises(ValueError, match="for a stack"):
        nmf(np.stack([V, V]), 2, **options)
    jax = importlib.import_module("jax")
    options["beta_loss"] = NegativeBinomial(ALPHA)
    with jax.enable_x64(True), pytest.raises(ValueError, match="in a compiled function"):
        jax.jit(lambda V: nmf(V, 2, **options).W)(V)
