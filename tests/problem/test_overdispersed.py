"""The negative binomial loss against its formula, an independent optimum, planted dispersions and SciPy's functions."""

from __future__ import annotations

import importlib
import itertools
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
from nmf_xp.cli import main
from nmf_xp.data import as_data
from nmf_xp.problem import overdispersed
from nmf_xp.problem.dispersion import LEAST, digammas
from tests import overdispersed_rises
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
        with pytest.raises(TypeError, match="must have values in a compiled function"):
            jax.jit(lambda V, a: nmf(V, 2, beta_loss=NegativeBinomial(a), random_state=0))(V, ALPHA)
        with pytest.raises(ValueError, match="must be given in a compiled function"):
            jax.jit(lambda V: nmf(V, 2, beta_loss=NegativeBinomial(), random_state=0))(V)


def test_digammas_are_those_of_scipy() -> None:
    x: Any = np.logspace(-4, 9, 200)
    first, second = (np.asarray(found) for found in digammas(x, xp=np))
    np.testing.assert_allclose(first, scipy.special.digamma(x), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(second, scipy.special.polygamma(1, x), rtol=1e-10)


@pytest.mark.parametrize("kind", ["row", "column"])
def test_dispersions_of_rows_and_columns_are_found(kind: str) -> None:
    rng = np.random.default_rng(0)
    m, n, r = 400, 300, 3
    alpha: Any = rng.choice([0.1, 0.3, 1.0], size=(m, 1) if kind == "row" else (1, n))
    Y = 40 * rng.dirichlet(np.full(r, 0.4), size=m) @ rng.gamma(0.5, size=(r, n))
    V = rng.poisson(Y * rng.gamma(1 / alpha, alpha, size=Y.shape)).astype(float)
    fitted = nmf(V, r, beta_loss=NegativeBinomial(kind), max_iter=500, random_state=0)
    found: Any = fitted.noise.dispersion
    assert found.shape == alpha.shape
    for planted_one in (0.1, 0.3, 1.0):
        assert np.median(found[alpha == planted_one]) == pytest.approx(planted_one, rel=0.1)
    again: Any = transform(V[:100], fitted).noise
    if kind == "column":
        assert again == fitted.noise
    else:
        assert again.dispersion.shape == (100, 1)
        assert np.median(np.abs(again.dispersion / found[:100] - 1)) < 0.05
    with pytest.raises(ValueError, match="or broadcast to it"):
        nmf(V[:-1, :-1], r, beta_loss=fitted.noise)


def test_dispersions_of_lines_in_sparse_data_are_those_of_dense_data() -> None:
    rng = np.random.default_rng(0)
    Y = 2 * rng.gamma(0.5, size=(300, 2)) @ rng.gamma(0.5, size=(2, 80))
    V = rng.poisson(Y * rng.gamma(2, 0.5, size=Y.shape)).astype(float)
    for kind in ("row", "column"):
        dense, sparse = (
            nmf(given, 2, beta_loss=NegativeBinomial(kind), random_state=0) for given in (V, scipy.sparse.csr_array(V))
        )
        np.testing.assert_allclose(sparse.noise.dispersion, dense.noise.dispersion, rtol=0.01)
        assert sparse.divergence == pytest.approx(dense.divergence, rel=1e-3)


@eagerly
@pytest.mark.parametrize("what", ["row", "column", "entry"])
def test_an_exposure_multiplies_the_mean(target: Target, what: str) -> None:
    rng = np.random.default_rng(0)
    shape = {"row": (60, 1), "column": (1, 40), "entry": (60, 40)}[what]
    exposure = rng.lognormal(0.0, 1.0, size=shape)
    Y = 10 * rng.dirichlet(np.full(3, 0.4), size=60) @ rng.gamma(0.5, size=(3, 40))
    V = rng.poisson(exposure * Y * rng.gamma(1 / ALPHA, ALPHA, size=Y.shape)).astype(float)
    options: dict[str, Any] = {"beta_loss": NegativeBinomial(ALPHA), "random_state": 0, "max_iter": 30}
    found = nmf(target.asarray(V), 3, exposure=target.asarray(exposure), **options)
    mean = exposure * (target.to_numpy(found.W) @ target.to_numpy(found.H))
    assert found.divergence == pytest.approx(half_deviance(V, mean, ALPHA), rel=1e-7)
    if what != "entry":
        sparse = nmf(scipy.sparse.csr_array(V), 3, exposure=exposure, **options)
        assert sparse.divergence == pytest.approx(half_deviance(V, exposure * (sparse.W @ sparse.H), ALPHA), rel=1e-7)


def test_an_exposure_is_not_taken_for_dispersion() -> None:
    rng = np.random.default_rng(1)
    exposure = rng.lognormal(0.0, 1.0, size=(300, 200))
    Y = 40 * rng.dirichlet(np.full(3, 0.4), size=300) @ rng.gamma(0.5, size=(3, 200))
    V = rng.poisson(exposure * Y * rng.gamma(1 / ALPHA, ALPHA, size=Y.shape)).astype(float)
    loss = NegativeBinomial()
    known = nmf(V, 3, beta_loss=loss, exposure=exposure, random_state=0)
    assert known.noise.dispersion == pytest.approx(ALPHA, rel=0.1)
    assert nmf(V, 3, beta_loss=loss, random_state=0).noise.dispersion > 2 * ALPHA


def test_a_weight_counts_a_row_as_often_and_missing_entries_do_not_count() -> None:
    V = planted(50, 30)
    times = np.random.default_rng(0).integers(0, 4, size=(50, 1)).astype(float)
    options: dict[str, Any] = {"beta_loss": NegativeBinomial(ALPHA), "max_iter": 2000, "tol": 1e-10}
    W, H = (np.random.default_rng(2).gamma(1.0, size=shape) for shape in ((50, 2), (2, 30)))
    each = np.repeat(np.arange(50), times[:, 0].astype(int))
    repeated = nmf(V[each], 2, init=(W[each], H), **options)
    for given in (V, scipy.sparse.csr_array(V)):
        weighted = nmf(given, 2, weights=times, init=(W, H), **options)
        assert weighted.divergence == pytest.approx(repeated.divergence, rel=1e-6)
    seen = np.random.default_rng(1).random(V.shape) < 0.8
    options |= {"beta_loss": NegativeBinomial(), "random_state": 0}
    masked = nmf(np.where(seen, V, 1e6), 2, weights=seen, **options)
    missing = nmf(np.where(seen, V, np.nan), 2, missing="nan", **options)
    assert missing.divergence == masked.divergence
    assert masked.noise.dispersion == pytest.approx(ALPHA, rel=0.3)


@pytest.mark.parametrize("solver", SOLVERS)
def test_large_counts_take_few_iterations(solver: str) -> None:
    """The majoriser alone leaves 1.8 to 4.5 times this loss after 100 iterations."""
    rng = np.random.default_rng(0)
    Y = 4e5 * rng.dirichlet(np.full(3, 0.4), size=60) @ rng.gamma(0.5, size=(3, 40))
    V = rng.poisson(Y * rng.gamma(1 / ALPHA, ALPHA, size=Y.shape)).astype(float)
    options: dict[str, Any] = {"beta_loss": NegativeBinomial(ALPHA), "solver": solver, "random_state": 0}
    early = nmf(V, 3, max_iter=100, tol=0, **options)
    late = nmf(V, 3, max_iter=5000, tol=1e-13, **options)
    assert early.divergence == pytest.approx(late.divergence, rel=0.05)


def test_it_rises_for_no_random_problem() -> None:
    """Of 2000 of them none did: python -m tests.overdispersed_rises."""
    targets = [backend.target() for backend in overdispersed_rises.BACKENDS]
    for seed in range(12):
        for i, solver in enumerate(SOLVERS):
            problem = overdispersed_rises.made(1000 + seed)
            assert overdispersed_rises.rise(problem, solver, targets[(seed + i) % len(targets)]) < 8


def test_one_huge_count_does_not_hide_the_dispersion() -> None:
    """The likelihood has another maximum there, without dispersion, and factors that spend a component on it."""
    V = planted(40, 25)
    V[2, 3] = 1e6

    def log_likelihood(fit: Any) -> float:
        size = 1 / fit.noise.dispersion
        return float(scipy.stats.nbinom.logpmf(V, size, size / (size + np.maximum(fit.W @ fit.H, 1e-300))).sum())

    found = nmf(V, 4, beta_loss=NegativeBinomial(), random_state=0)
    assert found.noise.dispersion == pytest.approx(ALPHA, rel=0.5)
    assert log_likelihood(found) >= log_likelihood(nmf(V, 4, beta_loss=NegativeBinomial(0.25), random_state=0))


def test_float32_finds_what_float64_finds() -> None:
    """On JAX too, where sums are in float32: the differences of digammas are below its rounding."""
    jnp: Any = importlib.import_module("jax.numpy")
    V = planted(60, 40)
    rng = np.random.default_rng(0)
    rare = rng.poisson(20 * rng.random((80, 60)) * (rng.random((80, 60)) < 0.2)).astype(float)
    for counts, kind in ((V, "global"), (V, "column"), (V, "row"), (rare, "global")):
        expected = nmf(counts, 3, beta_loss=NegativeBinomial(kind), random_state=0).noise.dispersion
        for given in (counts.astype(np.float32), jnp.asarray(counts, dtype="float32")):
            found = nmf(given, 3, beta_loss=NegativeBinomial(kind), random_state=0, max_iter=1).noise.dispersion
            np.testing.assert_allclose(np.median(found), np.median(expected), rtol=0.05)


@pytest.mark.parametrize("solver", SOLVERS)
def test_large_counts_beside_small_ones_are_finite_in_float32(solver: str) -> None:
    rng = np.random.default_rng(1)
    V = rng.poisson(1e7 * rng.uniform(1, 20, size=(40, 20))).astype(float)
    V[rng.random(V.shape) < 0.05] = 1.0
    options: dict[str, Any] = {"beta_loss": NegativeBinomial(ALPHA), "solver": solver, "random_state": 0}
    narrow, wide = (nmf(V.astype(dtype), 3, **options) for dtype in (np.float32, np.float64))
    assert narrow.divergence == pytest.approx(wide.divergence, rel=0.05)
    V[2, 3] = 1e20
    assert np.isfinite(nmf(V, 3, **options).divergence)


def test_rows_without_dispersion_do_not_keep_the_search_going(monkeypatch: pytest.MonkeyPatch) -> None:
    V = np.random.default_rng(0).poisson(2.0, size=(300, 100)).astype(float)
    noise: Any = importlib.import_module("nmf_xp.run.noise")
    calls, likeliest = itertools.count(), noise.likeliest

    def counted(*args: Any, **options: Any) -> Any:
        next(calls)
        return likeliest(*args, **options)

    monkeypatch.setattr(noise, "likeliest", counted)
    nmf(V, 2, beta_loss=NegativeBinomial("row"), random_state=0, max_iter=5)
    assert next(calls) < 12


def test_a_loss_is_compared_kept_and_said(tmp_path: Path) -> None:
    rows = np.linspace(0.1, 0.5, 60)[:, None]
    loss = NegativeBinomial(rows)
    rows[0] = 9.0
    assert loss.dispersion[0, 0] == 0.1
    assert loss == NegativeBinomial(loss.dispersion.tolist())
    assert hash(loss) == hash(NegativeBinomial(loss.dispersion))
    assert loss != NegativeBinomial(loss.dispersion.T)
    assert loss != NegativeBinomial(0.1)
    assert str(loss) == "negative binomial, a dispersion for each row, 0.1 to 0.5"
    assert NegativeBinomial(np.float64(0.3)) == NegativeBinomial(np.asarray(0.3)) == NegativeBinomial(0.3)
    assert NegativeBinomial("row").identity == NegativeBinomial("row").identity != NegativeBinomial("column").identity
    assert str(NegativeBinomial("column")) == "negative binomial, a dispersion found for each column"
    V = planted()
    found = nmf(V, 3, beta_loss=loss, random_state=0)
    assert found.noise == loss
    found.save(tmp_path / "fit.npz")
    assert load(tmp_path / "fit.npz").noise == loss
    found.report(tmp_path / "fit.html")
    assert str(loss) in (tmp_path / "fit.html").read_text()
    given = {"init": (found.W, found.H), "max_iter": 30, "tol": 1e-13}
    ours = nmf(V, 3, beta_loss=NegativeBinomial(0.3), **given)
    assert nmf(V, 3, beta_loss=NegativeBinomial(np.full((1, 40), 0.3)), **given).divergence == ours.divergence


NO_NUMBERS = [0, -1.0, float("inf"), float("nan"), True, "row-wise", None]
NO_ARRAYS: list[Any] = [[1.0], [[1.0, -1.0]], [[1.0, "a"]], [[1, 2], [3, 4]], [[]]]


@pytest.mark.parametrize("dispersion", [*NO_NUMBERS, *NO_ARRAYS])
def test_what_is_no_dispersion(dispersion: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"NegativeBinomial\.dispersion"):
        NegativeBinomial(dispersion)


def test_its_name() -> None:
    V = planted(40, 30)
    named = nmf(V, 2, beta_loss="negative-binomial", random_state=0)
    assert named.noise == nmf(V, 2, beta_loss=NegativeBinomial(), random_state=0).noise
    for name in ("nb", "negative_binomial", "neg-binomial"):
        with pytest.raises(ValueError, match="take 'negative-binomial'"):
            nmf(V, 2, beta_loss=name)


def test_the_command_line_knows_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, fit, new = tmp_path / "counts.csv", tmp_path / "fit.npz", tmp_path / "new.csv"
    np.savetxt(table, planted(50, 30), delimiter=",", fmt="%d")
    loss = ["--beta-loss", "negative-binomial"]
    assert main(["fit", str(table), "-k", "3", *loss, "--random-state", "0", "--out", str(fit)]) == 0
    kept: Any = load(fit)
    assert str(kept.noise) in capsys.readouterr().out
    assert main(["transform", str(table), str(fit), "--out", str(new)]) == 0
    assert str(kept.noise) in capsys.readouterr().out
    ranks = ["--ranks", "2-4", "--n-restarts", "2", "--random-state", "0"]
    assert main(["select", str(table), *ranks, *loss]) == 0
    assert main(["fit", str(table), "-k", "3", "--beta-loss", "nb", "--out", str(tmp_path / "no.npz")]) == 2
    assert "'negative-binomial'" in capsys.readouterr().err


def test_what_is_refused() -> None:
    V = planted(20, 12)
    loss = NegativeBinomial(ALPHA)
    refused: list[tuple[dict[str, Any], str]] = [
        ({"beta_loss": NegativeBinomial(np.ones((1, 11)))}, "or broadcast to it"),
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
    with pytest.raises(ValueError, match="none of rows or columns"):
        nmf(scipy.sparse.csr_array(V), 2, beta_loss=loss, absent="missing")
    assert nmf(np.stack([V, V]), 2, beta_loss=loss, random_state=0).divergence.shape == (2,)
