"""Losses that a few wrong rows do not rule, on every solver, backend and kind of data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import scipy.sparse
from sklearn.datasets import load_digits

import nmf_xp
from nmf_xp import L1, Lower, Robust, RowBlocks, beta_divergence, nmf, transform
from tests.compiled import eagerly
from tests.problem.test_robust import PHIS, SOLVERS, phi
from tests.problems import noisy
from tests.solvers.test_solvers import made_sparse

if TYPE_CHECKING:
    from pathlib import Path

    from nmf_xp.testing import Target

SPARSE = [("mu", 0.5), ("mu", 2), ("mm", 1.5), ("newton", 1), ("cd-plain", 2)]


def divergences(V: Any, W: Any, H: Any, beta: float, weights: Any = None) -> Any:
    """Of each row, by the public divergence."""
    V = V.toarray() if scipy.sparse.issparse(V) else V
    weights = np.ones(V.shape) if weights is None else np.broadcast_to(weights, V.shape)
    rows = zip(V, W, weights, strict=True)
    return np.asarray(
        [float(beta_divergence(v[None], w[None], H, beta_loss=beta, weights=u[None])) for v, w, u in rows]
    )


def spoiled(V: Any) -> Any:
    """With one row of noise in four."""
    V = V.copy()
    V[::4] = 5 * V.max() * np.random.default_rng(3).random(V[::4].shape)
    return V


def with_noise(V: Any, seed: int, loud: float) -> tuple[Any, Any]:
    """V with one row in fifty replaced by noise, and which rows these are."""
    rng = np.random.default_rng(seed)
    bad = np.zeros(len(V), dtype=bool)
    bad[rng.choice(len(V), len(V) // 50, replace=False)] = True
    return np.where(bad[:, None], loud * V.max() * rng.random(V.shape), V), bad


@eagerly
@pytest.mark.parametrize("name", PHIS)
@pytest.mark.parametrize(("solver", "beta"), SOLVERS)
def test_the_loss_never_rises(target: Target, solver: str, beta: float, name: str) -> None:
    V, W, H = noisy(9, 7, 3)
    V = spoiled(V)
    start = target.asarray(W), target.asarray(H)
    robust = Robust(beta, name, scale=0.5, of="rows")
    options: dict[str, Any] = {"beta_loss": robust, "solver": solver, "check_every": 1, "tol": 1e-13, "max_iter": 30}
    result = nmf(target.asarray(V), 3, init=start, **options)
    assert np.max(np.diff(result.history), initial=0.0) <= 1e-12 * result.history[0]
    W, H = (np.asarray(target.to_numpy(x), dtype=np.float64) for x in (result.W, result.H))
    d = divergences(V, W, H, beta)
    assert float(result.divergence) == pytest.approx(phi(name, d, 0.5).sum(), rel=1e-6)
    assert result.history[-1] < 0.95 * result.history[0]
    weights = np.asarray(target.to_numpy(result.weights_of_rows), dtype=np.float64)
    expected = {"huber": np.sqrt(0.5 / np.maximum(d, 0.5)), "cauchy": 1 / (1 + d / 0.5), "welsch": np.exp(-d / 0.5)}
    np.testing.assert_allclose(weights, expected[name], rtol=1e-4, atol=1e-10)


@eagerly
@pytest.mark.parametrize("name", PHIS)
@pytest.mark.parametrize(("solver", "beta"), SPARSE)
def test_a_sparse_matrix_gives_what_the_dense_one_gives(target: Target, solver: str, beta: float, name: str) -> None:
    V, W, H = noisy(12, 9, 3, zeros=True)
    held = made_sparse(target, target.asarray(V))
    options: dict[str, Any] = {"solver": solver, "check_every": 1, "tol": 1e-13, "max_iter": 20}
    options["beta_loss"] = Robust(beta, name, scale=2.0, of="rows")
    dense = nmf(V, 3, init=(W, H), **options)
    found = nmf(held, 3, init=(target.asarray(W), target.asarray(H)), **options)
    np.testing.assert_allclose(found.history, dense.history, rtol=1e-9)
    np.testing.assert_allclose(np.asarray(target.to_numpy(found.weights_of_rows)), dense.weights_of_rows, rtol=1e-6)
    assert np.max(np.diff(found.history)) <= 1e-12 * found.history[0]


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("name", PHIS)
@pytest.mark.parametrize("beta", [0.5, 1, 1.5, 2])
def test_weights_and_exposures_of_a_sparse_matrix_count_within_a_row(beta: float, name: str, axis: int) -> None:
    V, W, H = noisy(12, 9, 3, zeros=True)
    shape = (12, 1) if axis == 0 else (1, 9)
    weights, U = (np.random.default_rng(i).uniform(0.5, 2.0, size=shape) for i in range(2))
    weights[0, 0] = 0.0
    options: dict[str, Any] = {"init": (W, H), "solver": "mu", "max_iter": 20, "weights": weights, "exposure": U}
    options |= {"beta_loss": Robust(beta, name, 2.0, of="rows"), "check_every": 1, "tol": 1e-13}
    dense, found = nmf(V, 3, **options), nmf(scipy.sparse.csr_array(V), 3, **options)
    np.testing.assert_allclose(found.W @ found.H, dense.W @ dense.H, rtol=1e-8, atol=1e-10)
    d = divergences(V / U, found.W, found.H, beta, weights * U**beta)
    assert found.divergence == pytest.approx(phi(name, d, 2.0).sum(), rel=1e-9)
    assert np.max(np.diff(found.history)) <= 1e-12 * found.history[0]
    missing = nmf(scipy.sparse.csr_array(V), 3, absent="missing", **options)
    d = divergences(V / U, missing.W, missing.H, beta, weights * U**beta * (V > 0))
    assert missing.divergence == pytest.approx(phi(name, d, 2.0).sum(), rel=1e-9)


@pytest.mark.parametrize("name", PHIS)
@pytest.mark.parametrize("beta", [1, 2])
def test_a_sparse_matrix_is_not_made_dense(beta: float, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from nmf_xp.data.sparse import Sparse

    V = scipy.sparse.random_array((300, 200), density=0.02, rng=np.random.default_rng(0), format="csr")
    monkeypatch.setattr(Sparse, "dense", None)
    result = nmf(V, 3, beta_loss=Robust(beta, name, of="rows"), random_state=0, max_iter=20)
    assert result.weights_of_rows.shape == (300,)


def test_a_close_fit_of_a_sparse_matrix_keeps_its_digits() -> None:
    """Where what is absent is a difference of nearly equal sums, it is summed by itself."""
    rng = np.random.default_rng(0)
    W, H = (np.where(rng.random(shape) < 0.3, rng.random(shape) + 0.5, 0.0) for shape in ((40, 3), (3, 30)))
    V = W @ H
    near = W * rng.uniform(1 - 1e-6, 1 + 1e-6, W.shape) + 1e-12, H + 1e-12
    options: dict[str, Any] = {"init": near, "solver": "mu", "max_iter": 3, "check_every": 1, "tol": 1e-13}
    for beta in (0.5, 1, 1.5, 2):
        robust = Robust(beta, "cauchy", 1.0, of="rows")
        dense, found = (nmf(x, 3, beta_loss=robust, **options) for x in (V, scipy.sparse.csr_array(V)))
        np.testing.assert_allclose(found.history, dense.history, rtol=1e-4)


def test_at_a_small_scale_huber_is_the_l21_norm() -> None:
    """Step by step the multiplicative updates of Kong, Ding & Huang (2011), with the weights 1 / |row|."""
    V, W, H = noisy(20, 9, 3)
    V, scale = spoiled(V), 1e-10
    options: dict[str, Any] = {"beta_loss": Robust(2, "huber", scale, of="rows"), "init": (W, H), "solver": "mu"}
    found = nmf(V, 3, max_iter=20, tol=0, **options)
    for _ in range(20):
        weights = 1.0 / np.linalg.norm(V - W @ H, axis=1, keepdims=True)
        W = W * ((weights * V) @ H.T) / ((weights * (W @ H)) @ H.T)
        weights = 1.0 / np.linalg.norm(V - W @ H, axis=1, keepdims=True)
        H = H * (W.T @ (weights * V)) / (W.T @ (weights * (W @ H)))
    np.testing.assert_allclose(found.W @ found.H, W @ H, rtol=1e-6, atol=1e-8)
    norms = np.linalg.norm(V - W @ H, axis=1)
    assert found.divergence == pytest.approx(np.sqrt(2 * scale) * norms.sum() - scale * len(V), rel=1e-9)


@pytest.mark.parametrize("beta", [1, 2])
@pytest.mark.parametrize("loud", [1.0, 10.0, 100.0])
def test_noise_in_the_place_of_rows_does_not_spoil_the_others(loud: float, beta: float) -> None:
    V = load_digits().data
    X, bad = with_noise(V, 0, loud)
    options: dict[str, Any] = {"random_state": 0, "max_iter": 400}
    clean = nmf(V[~bad], 10, beta_loss=beta, **options)
    robust: Any = nmf(X, 10, beta_loss=Robust(beta, "welsch", of="rows"), **options)

    def error(W: Any, H: Any) -> float:
        return float(beta_divergence(V[~bad], W, H, beta_loss=beta)) ** 0.5

    assert error(robust.W[~bad], robust.H) <= 1.1 * error(clean.W, clean.H)
    if loud > 1:
        plain = nmf(X, 10, beta_loss=beta, **options)
        assert error(robust.W[~bad], robust.H) < error(plain.W[~bad], plain.H)
    if loud == 100:
        assert set(np.argsort(robust.weights_of_rows)[: bad.sum()]) == set(np.flatnonzero(bad))
        assert robust.weights_of_rows[bad].max() < 1e-6 < 0.01 < robust.weights_of_rows[~bad].min()


def test_the_rows_with_many_wrong_entries_have_the_least_mean_weights() -> None:
    V = load_digits().data[:100] + 0.5
    wrong = np.zeros(V.shape, dtype=bool)
    wrong[7, ::2] = True
    weights = np.ones(V.shape)
    weights[3, :40] = 0.0
    X = np.where(wrong, 500.0, V)
    result: Any = nmf(X, 4, beta_loss=Robust(2, "cauchy"), weights=weights, random_state=0)
    assert np.argmin(result.weights_of_rows) == 7
    d = (X - result.W @ result.H) ** 2 / 2
    each = 1 / (1 + d / result.robust.scale)
    np.testing.assert_allclose(result.weights_of_rows, np.average(each, axis=1, weights=weights), rtol=1e-9)
    assert nmf(V, 4, random_state=0, max_iter=5).weights_of_rows is None


def test_with_terms_missing_entries_and_transform() -> None:
    V, W, H = noisy(9, 7, 3)
    V[0, 0] = np.nan
    robust = Robust(1, "cauchy", 1.0, of="rows")
    options: dict[str, Any] = {"missing": "nan", "check_every": 1, "tol": 1e-12, "w": [Lower(0.1), L1(0.01)]}
    result = nmf(V, 3, beta_loss=robust, solver="mm", max_iter=30, init=(W, H), **options)
    assert np.max(np.diff(result.history)) <= 1e-12 * result.history[0]
    d = divergences(np.nan_to_num(V), result.W, result.H, 1, ~np.isnan(V))
    assert result.divergence == pytest.approx(phi("cauchy", d, 1.0).sum(), rel=1e-9)
    plain = noisy(9, 7, 3).V
    found = transform(plain, nmf(plain, 3, beta_loss=robust, random_state=0), tol=1e-13, max_iter=2000)
    assert found.robust == robust
    # Each row has its own weight, so that its W is what it is without one.
    expected = transform(plain, found.H, beta_loss=1, tol=1e-13, max_iter=2000)
    np.testing.assert_allclose(found.W, expected.W, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("unit", [1e-20, 1e20])
@pytest.mark.parametrize("beta", [0, 1, 2])
def test_in_other_units_the_answer_is_the_same(beta: float, unit: float) -> None:
    V, _, _ = noisy(9, 7, 3)
    options: dict[str, Any] = {"solver": "mu", "random_state": 0, "max_iter": 30}
    plain: Any = nmf(V, 3, beta_loss=Robust(beta, of="rows"), **options)
    far: Any = nmf(V * unit, 3, beta_loss=Robust(beta, of="rows"), **options)
    np.testing.assert_allclose(far.W @ far.H / unit, plain.W @ plain.H, rtol=1e-8)
    assert far.robust.scale == pytest.approx(plain.robust.scale * unit**beta, rel=1e-6)
    heavy: Any = nmf(V, 3, beta_loss=Robust(beta, of="rows"), weights=np.full((9, 7), unit), **options)
    assert heavy.robust.scale == pytest.approx(plain.robust.scale * unit, rel=1e-6)
    np.testing.assert_allclose(heavy.weights_of_rows, plain.weights_of_rows, rtol=1e-6)


def test_restarts_stacks_checkpoints_and_files(tmp_path: Path) -> None:
    V, _, _ = noisy(9, 7, 3)
    robust = Robust(2, "cauchy", 1.0, of="rows")
    best: Any = nmf(V, 3, beta_loss=robust, n_restarts=3, random_state=0, max_iter=20, keep_restarts=True)
    assert best.restarts.weights_of_rows.shape == (3, 9)
    np.testing.assert_allclose(best.weights_of_rows, 1 / (1 + divergences(V, best.W, best.H, 2)), rtol=1e-9)
    several = nmf(scipy.sparse.csr_array(V), 3, beta_loss=robust, n_restarts=3, random_state=0, max_iter=20)
    np.testing.assert_allclose(several.weights_of_rows, best.weights_of_rows, rtol=1e-6)
    stack = np.stack([V, 2 * V, V, V]).reshape(2, 2, 9, 7)
    stacked: Any = nmf(stack, 3, beta_loss=robust, random_state=0, max_iter=20)
    assert stacked.weights_of_rows.shape == (2, 2, 9)
    apart: Any = nmf(np.stack([V, 1e-200 * V]), 3, beta_loss=Robust(1, "cauchy", 1.0, of="rows"), random_state=0)
    assert apart[0].weights_of_rows.shape == (9,)
    assert apart[1].weights_of_rows.min() == 1.0
    options: dict[str, Any] = {"beta_loss": robust, "solver": "mu", "random_state": 0, "tol": 1e-13}
    whole = nmf(V, 3, max_iter=40, **options)
    nmf(V, 3, max_iter=20, checkpoint=tmp_path / "run.npz", **options)
    np.testing.assert_array_equal(nmf(V, 3, max_iter=40, checkpoint=tmp_path / "run.npz", **options).W, whole.W)
    with pytest.raises(Exception, match="another run"):
        nmf(V, 3, max_iter=40, checkpoint=tmp_path / "run.npz", **options | {"beta_loss": Robust(2, "cauchy", 1.0)})
    for suffix in (".npz", ".safetensors"):
        whole.save(tmp_path / f"kept{suffix}")
        kept = nmf_xp.load(tmp_path / f"kept{suffix}")
        assert kept.robust == whole.robust
        np.testing.assert_array_equal(kept.weights_of_rows, whole.weights_of_rows)
    assert "the frobenius (beta 2) of rows" in str(whole)


def test_the_report_names_the_outliers(tmp_path: Path) -> None:
    X, bad = with_noise(load_digits().data[:100], 0, 10.0)
    result: Any = nmf(X, 5, beta_loss=Robust(2, "welsch", of="rows"), random_state=0)
    result.named(rows=[f"<b>{i}</b>" for i in range(100)]).report(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "least trusted rows" in page
    for i in np.flatnonzero(bad):
        assert f"&lt;b&gt;{i}&lt;/b&gt; (" in page
    nmf(X, 5, random_state=0).report(tmp_path / "plain.html")
    assert "least trusted" not in (tmp_path / "plain.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("weights", [np.ones(8), np.full(9, 2.0), np.full(9, np.nan), np.ones(9, dtype=int)])
def test_a_file_with_weights_that_cannot_be_is_refused(tmp_path: Path, weights: Any) -> None:
    V, _, _ = noisy(9, 7, 3)
    nmf(V, 3, beta_loss=Robust(2, of="rows"), random_state=0).save(tmp_path / "kept.npz")
    arrays = dict(np.load(tmp_path / "kept.npz"))
    np.savez(tmp_path / "kept.npz", **{**arrays, "weights_of_rows": weights})
    with pytest.raises(nmf_xp.FileError, match="damaged: the weights of the rows"):
        nmf_xp.load(tmp_path / "kept.npz")


def test_inside_jit() -> None:
    jax = pytest.importorskip("jax")
    V, W, H = noisy(9, 7, 3)
    options: dict[str, Any] = {"solver": "mu", "max_iter": 20, "beta_loss": Robust(1, "welsch", 5.0, of="rows")}

    def fit(V: Any, W: Any, H: Any) -> Any:
        result = nmf(V, 3, init=(W, H), **options)
        return result.W, result.weights_of_rows

    with jax.enable_x64(True):
        found = jax.jit(fit)(*(jax.numpy.asarray(x) for x in (V, W, H)))
    for ours, expected in zip(found, fit(V, W, H), strict=True):
        np.testing.assert_allclose(np.asarray(ours), expected, rtol=1e-8)


@pytest.mark.parametrize("name", PHIS)
@pytest.mark.parametrize("seed", range(8))
def test_on_hostile_rows_the_loss_never_rises(seed: int, name: str) -> None:
    """Empty rows and columns, rows a million times too large, exact rows, weights of 0."""
    rng = np.random.default_rng(seed)
    V = rng.gamma(0.5, size=(15, 3)) @ rng.gamma(0.5, size=(3, 10))
    V[0], V[:, 1], V[2] = 0.0, 0.0, 1e6 * rng.random(10)
    weights = (rng.random(V.shape) < 0.9).astype(float)
    weights[3] = 0.0
    for beta, solver in ((1, "newton"), (2, "cd"), (1.5, "mm"), (0.5, "mu")):
        options: dict[str, Any] = {"solver": solver, "random_state": seed, "check_every": 1, "tol": 1e-13}
        options["beta_loss"] = Robust(beta, name, 0.1, of="rows")
        for held, seen in ((V, None), (V, weights), (scipy.sparse.csr_array(V), None)):
            result = nmf(held, 3, weights=seen, max_iter=50, **options)
            assert np.max(np.diff(result.history), initial=0.0) <= 1e-11 * result.history[0]
            assert np.isfinite(result.weights_of_rows).all()


def test_empty_rows_have_no_say_in_the_scale() -> None:
    V = np.random.default_rng(0).poisson(3.0, size=(40, 20)).astype(float)
    padded = np.concatenate([V, np.zeros((60, 20))])
    plain: Any = nmf(V, 2, beta_loss=Robust(1, of="rows"), random_state=0)
    for kind in (np.asarray, scipy.sparse.csr_array):
        found: Any = nmf(kind(padded), 2, beta_loss=Robust(1, of="rows"), random_state=0)
        assert found.robust.scale == pytest.approx(plain.robust.scale, rel=0.2)
        assert found.weights_of_rows[:40].min() > 0.5
    with pytest.raises(ValueError, match="must be given"):
        nmf(np.zeros((5, 4)), 2, beta_loss=Robust(1, of="rows"))


def test_where_it_cannot_be() -> None:
    V, _, _ = noisy(9, 7, 3)
    with pytest.raises(ValueError, match="read block by block"):
        nmf(RowBlocks([V[:4], V[4:]]), 3, beta_loss=Robust(2, of="rows"))
    with pytest.raises(ValueError, match=r"`Robust\.of` must be"):
        Robust(of="columns")
    with pytest.raises(ValueError, match="half of the rows are fitted exactly"):
        nmf(np.outer(np.arange(1.0, 10), np.arange(1.0, 8)), 1, beta_loss=Robust(2, of="rows"), max_iter=5)
    with pytest.raises(ValueError, match="Say of='rows'"):
        nmf(scipy.sparse.csr_array(V * (V > 2)), 3, beta_loss=Robust(2))
