"""Losses whose powers are beyond the numbers: every function gives finite factors, and no number is NaN."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from nmf_xp import Status, beta_divergence, nmf, online, transform, update_h, update_w

RNG = np.random.default_rng(0)
V, H = RNG.random((12, 8)) + 0.1, RNG.random((2, 8)) + 0.1
W = np.full((12, 2), 50.0)
BETAS = (-1e4, -300.0, -20.0, -2.0, 2.5, 20.0, 300.0, 700.0, 1e4)

CALLS: dict[str, dict[str, Any]] = {
    "a random start": {"max_iter": 20},
    "without checks": {"max_iter": 20, "tol": 0},
    "mu": {"max_iter": 20, "solver": "mu"},
    "a start far above V": {"max_iter": 20, "init": "given"},
    "online": {"max_iter": 5, "solver": "online"},
    "restarts": {"max_iter": 20, "n_restarts": 2},
    "weights": {"max_iter": 20, "weights": V > 0.5},
    "transform": {},
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("scale", [3.0, 100.0])
def test_factors_are_finite_and_no_number_is_nan(name: str, dtype: str, scale: float) -> None:
    for beta in BETAS:
        data, w, h = (x.astype(dtype) for x in (V * scale, W, 50 * H))
        given = {"init": (w, h)} if "init" in CALLS[name] else {"random_state": 0}
        options: dict[str, Any] = {"beta_loss": beta, **CALLS[name], **given}
        result = transform(data, h, beta_loss=beta) if name == "transform" else nmf(data, 2, **options)
        assert all(np.isfinite(x).all() and (x >= 0).all() for x in (result.W, result.H)), beta
        numbers = (result.divergence, result.objective, result.kkt_residual, *result.history)
        assert all(x >= 0 for x in numbers), beta


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_formulas_and_streams_are_finite_too(dtype: str) -> None:
    data, w, h = (x.astype(dtype) for x in (V * 3, W, H))
    for beta in BETAS:
        assert beta_divergence(data, w, h, beta_loss=beta) >= 0
        new: list[Any] = [update(data, w, h, beta_loss=beta) for update in (update_w, update_h)]
        begun = online.online_start(h, beta_loss=beta)
        for step in (
            online.online_step(begun, data, beta_loss=beta),
            online.online_nmf(data, None, begun, beta_loss=beta, max_iter=2),
        ):
            new += [step.W, step.state.H]
        assert all(np.isfinite(x).all() for x in new), beta


def test_an_objective_beyond_the_numbers_ends_the_run() -> None:
    result = nmf(V * 3, 2, beta_loss=700, random_state=0)
    assert result.status is Status.NOT_FINITE
    assert result.divergence == float("inf")


def test_scikit_learns_estimators() -> None:
    sk = pytest.importorskip("nmf_xp.sklearn", reason="scikit-learn is not installed")
    options: dict[str, Any] = {"init": "random", "random_state": 0, "max_iter": 10}
    for beta in (-20.0, 20.0, 700.0):
        for model in (sk.NMF(2, solver="mu", beta_loss=beta, **options), sk.MiniBatchNMF(2, beta_loss=beta, **options)):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                model.fit(V * 3)
            assert np.isfinite(model.components_).all()
            assert model.reconstruction_err_ >= 0
