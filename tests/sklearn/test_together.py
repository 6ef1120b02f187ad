"""Many fits side by side are those that scikit-learn makes one after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

decomposition = pytest.importorskip("sklearn.decomposition", reason="scikit-learn is not installed")
sparse = pytest.importorskip("scipy.sparse", reason="scipy is not installed")
together = pytest.importorskip("nmf_xp.sklearn.together")

RNG = np.random.default_rng(0)
X = RNG.poisson(RNG.gamma(0.5, 1.0, (60, 4)) @ RNG.gamma(0.3, 1.0, (4, 45))) * 1.0
OPTIONS: dict[str, Any] = {
    "init": "random",
    "tol": 1e-4,
    "max_iter": 1000,
    "alpha_W": 0.0,
    "alpha_H": 0.0,
    "l1_ratio": 0.0,
}


def found(X: Any, seeds: list[int], **options: Any) -> list[Any]:
    components: dict[int, Any] = {}
    together.components_of(X, 4, seeds, components.__setitem__, **{**OPTIONS, **options})
    assert sorted(components) == list(range(len(seeds)))
    return [components[i] for i in range(len(seeds))]


@pytest.mark.parametrize("kernels", ["kernels", "no kernels"])
@pytest.mark.parametrize("kind", ["dense", "sparse", "sparser"])
def test_coordinate_descent(monkeypatch: pytest.MonkeyPatch, kind: str, kernels: str) -> None:
    if kernels == "no kernels":
        monkeypatch.setenv("NMF_XP_KERNELS", "0")
    V = X if kind == "dense" else sparse.csr_matrix(X if kind == "sparse" else np.where(X > 2, X, 0.0))
    seeds = list(range(25))  # more than run side by side
    options = {"solver": "cd", "beta_loss": "frobenius"}
    for seed, H in zip(seeds, found(V, seeds, **options), strict=True):
        expected = decomposition.non_negative_factorization(V, n_components=4, random_state=seed, **OPTIONS, **options)[
            1
        ]
        np.testing.assert_allclose(H, expected, rtol=0, atol=1e-9 * expected.max())


@pytest.mark.parametrize(
    "changed",
    [
        {"max_iter": 3},
        {"alpha_W": 0.01},
        {"alpha_H": 0.02, "l1_ratio": 0.5},
        {"tol": 0.0, "max_iter": 7},
        {"init": "nndsvd"},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:Maximum number of iterations")
def test_every_option_is_scikit_learns(changed: dict[str, Any]) -> None:
    options = {**OPTIONS, "solver": "cd", "beta_loss": "frobenius", **changed}
    (H,) = found(X, [3], **options)
    expected = decomposition.non_negative_factorization(X, n_components=4, random_state=3, **options)[1]
    np.testing.assert_allclose(H, expected, rtol=0, atol=1e-9 * expected.max())


@pytest.mark.parametrize("scale", [1e-40, 1e40])
def test_data_that_need_units(scale: float) -> None:
    (H,) = found(X * scale, [3], solver="cd", beta_loss="frobenius")
    (expected,) = found(X, [3], solver="cd", beta_loss="frobenius")
    np.testing.assert_allclose(H / H.max(), expected / expected.max(), atol=1e-6)


@pytest.mark.parametrize("beta_loss", ["kullback-leibler", "itakura-saito"])
def test_multiplicative_updates(beta_loss: str) -> None:
    V = X + 0.5 if beta_loss == "itakura-saito" else X
    options = {"solver": "mu", "beta_loss": beta_loss}
    for seed, H in enumerate(found(V, [0, 1], **options)):
        expected = decomposition.non_negative_factorization(V, n_components=4, random_state=seed, **OPTIONS, **options)[
            1
        ]
        np.testing.assert_allclose(H, expected, rtol=0, atol=1e-3 * expected.max())


def test_zeros_that_a_loss_cannot_have() -> None:
    with pytest.raises(ValueError, match="contains zeros"):
        found(X, [0], solver="mu", beta_loss="itakura-saito")


def test_an_error_in_what_takes_them_is_raised() -> None:
    def full(i: int, H: Any) -> None:
        msg = "no space left"
        raise OSError(msg)

    with pytest.raises(OSError, match="no space left"):
        together.components_of(X, 4, [0, 1, 2], full, solver="cd", beta_loss="frobenius", **OPTIONS)
