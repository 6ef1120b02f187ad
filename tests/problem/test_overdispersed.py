"""The negative binomial loss against its formula, an independent optimum, planted dispersions and SciPy's functions."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import scipy.sparse
import scipy.special
import scipy.stats
from scipy.optimize import minimize

import nmf_xp
from nmf_xp import FileError, NegativeBinomial, RowBlocks, load, transform
from nmf_xp.arrays import kernels
from nmf_xp.arrays.libraries import array_namespace
from nmf_xp.data import as_data
from nmf_xp.problem import overdispersed
from nmf_xp.problem.dispersion import LEAST, digammas
from tests.compiled import eagerly

if TYPE_CHECKING:
    from pathlib import Path

    from nmf_xp.testing import Target

nmf: Any = nmf_xp.nmf
SOLVERS = ["mu", "mm", "newton", "cd"]
ALPHA = 0.3


def planted(m: int = 60, n: int = 40, r: int = 3, *, alpha: float = ALPHA, seed: int = 0) -> Any:
    """Counts with this dispersion."""
    rng = np.random.default_rng(seed)
    Y = 40 * rng.dirichlet(np.full(r, 0.4), size=m) @ rng.gamma(0.5, size=(r, n))
    return rng.poisson(Y * rng.gamma(1 / alpha, alpha, size=Y.shape)).astype(float)


def half_deviance(V: Any, Y: Any, alpha: float) -> float:
    """By SciPy's negative binomial probabilities, from those of the best mean, which is V."""
    size = 1 / alpha

    def log_likelihood(mean: Any) -> Any:
        return scipy.stats.nbinom.logpmf(V, size, size / (size + np.maximum(mean, 1e-300)))

    best = np.where(V > 0, log_likelihood(V), 0.0)
    return float((best - log_likelihood(Y)).sum())


@eagerly
@pytest.mark.parametrize("solver", SOLVERS)
def test_the_loss_is_half_the_deviance_and_never_rises(target: Target, solver: str) -> None:
    V = planted(20, 12)
    options: dict[str, Any] = {"solver": solver, "check_every": 1, "tol": 1e-13, "max_iter": 25, "random_state": 0}
    result = nmf(target.asarray(V), 3, beta_loss=NegativeBinomial(ALPHA), **options)
    assert np.max(np.diff(result.history), initial=0.0) <= 1e-12 * result.history[0]
    W, H = (target.to_numpy(x) for x in (result.W, result.H))
    assert result.divergence == pytest.approx(half_deviance(V, W @ H, ALPHA), rel=1e-9)
    assert result.beta == 1
    here = nmf(V, 3, beta_loss=NegativeBinomial(ALPHA), **options)
    assert result.divergence == pytest.approx(here.divergence, rel=1e-6)


@pytest.mark.parametrize("solver", SOLVERS)
def test_sparse_is_dense_and_kernels_are_their_twins(solver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """RcppML weighs each zero of sparse data as 1, by which the same counts have another fit."""
    V = planted(200, 90)
    options: dict[str, Any] = {"solver": solver, "max_iter": 6, "tol": 0, "random_state": 0}
    loss = NegativeBinomial(ALPHA)
    dense = nmf(V, 4, beta_loss=loss, **options)
    others = [nmf(scipy.sparse.csr_array(V), 4, beta_loss=loss, **options)]
    monkeypatch.setattr(overdispersed, "AT_ONCE", 1000)
    others += [nmf(kind(V), 4, beta_loss=loss, **options) for kind in (scipy.sparse.csc_array, np.asfortranarray)]
    monkeypatch.setattr(kernels, "find", lambda *_: None)
    others.append(nmf(V, 4, beta_loss=loss, **options))
    for other in others:
        np.testing.assert_allclose(other.W @ other.H, dense.W @ dense.H, rtol=1e-7, atol=1e-9)
        assert other.divergence == pytest.approx(dense.divergence, rel=1e-10)


def test_the_fit_is_an_optimum_that_scipy_cannot_lower() -> None:
    V = planted(18, 10, 2)
    result = nmf(V, 2, beta_loss=NegativeBinomial(ALPHA), max_iter=5000, tol=1e-12, random_state=0)
    start = np.concatenate([result.W.ravel(), result.H.ravel()])

    def objective(x: Any) -> float:
        Y = np.maximum(x[:36].reshape(18, 2) @ x[36:].reshape(2, 10), 1e-300)
        first = np.where(V > 0, V * np.log(np.where(V > 0, V, 1) / Y), 0)
        return float((first - (V + 1 / ALPHA) * np.log((V + 1 / ALPHA) / (Y + 1 / ALPHA))).sum())

    found = minimize(objective, start, method="L-BFGS-B", bounds=[(1e-12, None)] * start.size)
    assert objective(start) == pytest.approx(result.divergence, rel=1e-9)
    assert found.fun >= result.divergence * (1 - 1e-6)
    assert result.kkt_residual < 1e-3


@pytest.mark.parametrize("alpha", [0.05, 0.3, 1.5])
def test_a_planted_dispersion_is_found(alpha: float) -> None:
    V = planted(400, 250, 4, alpha=alpha)
    result = nmf(V, 4, beta_loss=NegativeBinomial(), max_iter=1000, random_state=0)
    assert result.noise.dispersion == pytest.approx(alpha, rel=0.1)
    sparse = nmf(scipy.sparse.csr_array(V), 4, beta_loss=NegativeBinomial(), max_iter=1000, random_state=0)
    assert sparse.noise.dispersion == pytest.approx(result.noise.dispersion, rel=1e-3)


def test_the_dispersion_is_a_maximum_of_the_likelihood() -> None:
    V = planted(80, 50)
    result = nmf(V, 3, beta_loss=NegativeBinomial(), max_iter=2000, tol=1e-9, random_state=0)

    def log_likelihood(alpha: float) -> float:
        size = 1 / alpha
        mean = np.maximum(result.W @ result.H, 1e-300)
        return float(scipy.stats.nbinom.logpmf(V, size, size / (size + mean)).sum())

    found = result.noise.dispersion
    assert log_likelihood(found) > max(log_likelihood(0.9 * found), log_likelihood(1.1 * found))


def test_counts_of_a_poisson_process_have_no_dispersion() -> None:
    rng = np.random.default_rng(0)
    V = rng.poisson(30 * rng.dirichlet(np.full(3, 0.4), size=80) @ rng.gamma(0.5, size=(3, 50))).astype(float)
    result = nmf(V, 3, beta_loss=NegativeBinomial(), random_state=0)
    plain = nmf(V, 3, beta_loss="kullback-leibler", random_state=0)
    assert result.noise.dispersion == LEAST
    assert result.divergence == pytest.approx(plain.divergence, rel=0.02)


@pytest.mark.parametrize("start", ["nndsvd", "a fit", "transform", "zeros"])
def test_zeros_of_a_start_do_not_spoil_the_dispersion(start: str) -> None:
    V = planted(80, 50)
    fitted = nmf(V, 3, beta_loss=NegativeBinomial(), random_state=0)
    if start == "transform":
        found = transform(V, fitted.H, beta_loss=NegativeBinomial())
    elif start == "zeros":
        assert np.isfinite(nmf(np.zeros((10, 8)), 2, beta_loss=NegativeBinomial(), random_state=0).W).all()
        assert np.isfinite(transform(np.zeros((2, 50)), fitted.H, beta_loss=NegativeBinomial()).W).all()
        return
    else:
        init = (fitted.W, fitted.H) if start == "a fit" else start
        found = nmf(V, 3, beta_loss=NegativeBinomial(), init=init)
    noise: Any = found.noise
    assert noise.dispersion == pytest.approx(fitted.noise.dispersion, rel=0.1)
    assert np.isfinite(found.W).all()


@pytest.mark.parametrize("level", [1.0, 1e6, 1e12])
def test_large_counts_do_not_cancel(level: float) -> None:
    """The two terms of the usual form are as large as the counts, and the loss is of the order of 1 / alpha."""
    rng = np.random.default_rng(0)
    Y = level * rng.uniform(1.0, 20.0, size=(30, 20))
    V = np.round(Y * rng.gamma(1 / ALPHA, ALPHA, size=Y.shape))
    decimal = importlib.import_module("decimal")
    decimal.getcontext().prec = 60
    total = decimal.Decimal(0)
    for v, y in zip(V.ravel().tolist(), Y.ravel().tolist(), strict=True):
        v, y, a = decimal.Decimal(v), decimal.Decimal(y), 1 / decimal.Decimal(ALPHA)
        total += (v * (v / y).ln() if v else 0) - (v + a) * ((v + a) / (y + a)).ln()
    data = overdispersed.Overdispersed.of(as_data(V), (np.full((1, 1), ALPHA),), xp=array_namespace(V))
    found = data.divergence(Y, np.eye(20), None, beta=1.0, xp=array_namespace(V))
    assert float(found) == pytest.approx(float(total), rel=1e-10)


def test_a_dispersion_beyond_the_numbers_of_v() -> None:
    V = planted(20, 12).astype(np.float32)
    with pytest.raises(ValueError, match="must be at most"):
        nmf(V, 2, beta_loss=NegativeBinomial(1e40), random_state=0)
    tiny = nmf(V, 2, beta_loss=NegativeBinomial(1e-50), random_state=0)
    plain = nmf(V, 2, beta_loss="kullback-leibler", random_state=0)
    assert tiny.divergence == pytest.approx(plain.divergence, rel=0.02)


def test_towards_zero_it_is_kullback_leibler() -> None:
    V = planted()
    options: dict[str, Any] = {"init": (np.full((60, 3), 1.0) + np.eye(60, 3), np.full((3, 40), 1.0) + np.eye(3, 40))}
    options |= {"max_iter": 3000, "tol": 1e-12}
    limit = nmf(V, 3, beta_loss=NegativeBinomial(1e-12), **options)
    plain = nmf(V, 3, beta_loss="kullback-leibler", **options)
    assert limit.divergence == pytest.approx(plain.divergence, rel=1e-3)
    W, H = plain.W + 1e-9, plain.H + 1e-9
    one = nmf(V, 3, init=(W, H), beta_loss=NegativeBinomial(1e-12), solver="mu", max_iter=1, tol=0)
    other = nmf(V, 3, init=(W, H), beta_loss="kullback-leibler", solver="mu", max_iter=1, tol=0)
    np.testing.assert_allclose(one.W @ one.H, other.W @ other.H, rtol=1e-8, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-150, 1e-20, 1e20, 1e150])
def test_the_scale_of_v_goes_into_the_dispersion(scale: float) -> None:
    V = planted()
    options: dict[str, Any] = {"max_iter": 20, "tol": 0, "random_state": 0}
    one = nmf(V, 3, beta_loss=NegativeBinomial(ALPHA), **options)
    other = nmf(V * scale, 3, beta_loss=NegativeBinomial(ALPHA / scale), **options)
    assert other.divergence / scale == pytest.approx(one.divergence, rel=1e-9)


def test_transform_restarts_files_and_numbers_that_are_no_counts(tmp_path: Path) -> None:
    V = planted(100)
    fitted = nmf(V[:80], 3, beta_loss=NegativeBinomial(), max_iter=1000, random_state=0)
    found = transform(V[80:], fitted, max_iter=1000, tol=1e-8)
    assert found.noise == fitted.noise
    assert "negative binomial, dispersion" in str(found)
    several = nmf(V, 3, beta_loss=NegativeBinomial(ALPHA), n_restarts=3, random_state=0)
    assert several.divergence == min(several.restarts.divergence)
    for suffix in ("npz", "safetensors"):
        fitted.save(tmp_path / f"fit.{suffix}")
        assert load(tmp_path / f"fit.{suffix}").noise == fitted.noise
    for said in ('{"dispersion": 0.2', "{}", '{"dispersion": "global"}', '{"dispersion": -1}'):
        arrays: Any = dict(np.load(tmp_path / "fit.npz"))
        arrays["noise"] = np.asarray(said)
        np.savez(tmp_path / "damaged.npz", **arrays)
        with pytest.raises(FileError, match="is damaged"):
            load(tmp_path / "damaged.npz")
    fitted.report(tmp_path / "fit.html")
    assert f"negative binomial, dispersion {fitted.noise.dispersion:.4g}" in (tmp_path / "fit.html").read_text()
    shares: Any = V / 7  # allowed, as for Kullback-Leibler
    assert np.isfinite(nmf(shares, 3, beta_loss=NegativeBinomial(), random_state=0).divergence)
    with pytest.raises(ValueError, match="without `NegativeBinomial`"):
        _ = fitted.explained


def test_terms_hold_beside_it() -> None:
    V = planted()
    penalised = nmf(V, 3, beta_loss=NegativeBinomial(ALPHA), alpha_W=0.05, alpha_H=0.05, l1_ratio=1.0, random_state=0)
    free = nmf(V, 3, beta_loss=NegativeBinomial(ALPHA), random_state=0)
    assert np.all(np.diff(penalised.history) <= 1e-12 * penalised.history[0])
    assert penalised.objective > penalised.divergence > free.divergence
    bounded = nmf(V, 3, beta_loss=NegativeBinomial(ALPHA), upper_w=2.0, random_state=0)
    assert bounded.W.max() <= 2.0
    H: Any = np.array(free.H)
    fixed = np.zeros(H.shape, dtype=bool)
    fixed[0] = True
    kept: Any = nmf(V, 3, beta_loss=NegativeBinomial(ALPHA), init=(free.W, H), fixed_h=fixed)
    np.testing.assert_allclose(np.asarray(kept.H)[0], H[0], rtol=1e-12)


def test_a_checkpoint_goes_on_to_the_same_bit(tmp_path: Path) -> None:
    V = planted()
    options: dict[str, Any] = {"beta_loss": NegativeBinomial(ALPHA), "tol": 0, "random_state": 0}
    nmf(V, 3, max_iter=20, checkpoint=tmp_path / "run.npz", checkpoint_every=10, **options)
    resumed = nmf(V, 3, max_iter=40, checkpoint=tmp_path / "run.npz", checkpoint_every=10, **options)
    np.testing.assert_array_equal(resumed.W, nmf(V, 3, max_iter=40, **options).W)


def test_a_compiled_function_needs_a_number() -> None:
    jax = importlib.import_module("jax")
    V = planted(20, 12)
    with jax.enable_x64(True):
        run = jax.jit(lambda V: nmf(V, 2, beta_loss=NegativeBinomial(ALPHA), random_state=0, max_iter=20))
        assert float(run(V).divergence) > 0
        with pytest.raises(ValueError, match="must be given in a compiled function"):
            jax.jit(lambda V: nmf(V, 2, beta_loss=NegativeBinomial(), random_state=0))(V)


def test_digammas_are_those_of_scipy() -> None:
    x: Any = np.logspace(-4, 9, 200)
    first, second = (np.asarray(found) for found in digammas(x, xp=np))
    np.testing.assert_allclose(first, scipy.special.digamma(x), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(second, scipy.special.polygamma(1, x), rtol=1e-10)


@pytest.mark.parametrize("dispersion", [0, -1.0, float("inf"), float("nan"), True, "row-wise", None])
def test_what_is_no_dispersion(dispersion: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"NegativeBinomial\.dispersion"):
        NegativeBinomial(dispersion)


def test_what_is_refused() -> None:
    V = planted(20, 12)
    loss = NegativeBinomial(ALPHA)
    refused: list[tuple[dict[str, Any], str]] = [
        ({"weights": np.ones_like(V)}, "beside weights"),
        ({"exposure": np.full((20, 1), 2.0)}, "exposures"),
        ({"batch": ["a", "b"] * 10}, "`batch` needs"),
        ({"solver": "online"}, "'online'"),
        ({"beta_loss": NegativeBinomial}, "got the class NegativeBinomial"),
    ]
    for options, message in refused:
        with pytest.raises((TypeError, ValueError), match=message):
            nmf(V, 2, **{"beta_loss": loss, **options})
    with pytest.raises(ValueError, match="whole in memory"):
        nmf(RowBlocks(V), 2, beta_loss=loss)
    with pytest.raises(ValueError, match="for a stack"):
        nmf(np.stack([V, V]), 2, beta_loss=NegativeBinomial())
    assert nmf(np.stack([V, V]), 2, beta_loss=loss, random_state=0).divergence.shape == (2,)
