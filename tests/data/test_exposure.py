"""Exposures: the divergence of V from U * WH, for every loss, kind of data, solver and backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy import sparse

import nmf_xp
from nmf_xp import RowBlocks, beta_divergence, nmf, transform
from nmf_xp.online import online_nmf, online_start
from nmf_xp.solvers import LOSSES, SOLVERS
from nmf_xp.testing import oracle

if TYPE_CHECKING:
    from nmf_xp.testing.backends import Target

M, N, R = 12, 9, 3
BETAS = (-1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
PAIRS = [(solver, beta) for solver in SOLVERS for beta in BETAS if beta in LOSSES.get(solver, (beta,))]
SHAPES = {"rows": (M, 1), "columns": (1, N), "entries": (M, N), "one": (1, 1)}


def problem(kind: str, *, zeros: bool = False) -> tuple[Any, Any, Any, Any]:
    """V, U, W and H, where V is near U * WH."""
    rng = np.random.default_rng(sum(map(ord, kind)))
    U = rng.lognormal(0, 1, SHAPES[kind])
    W, H = rng.gamma(1.0, 1.0, (M, R)) + 0.1, rng.gamma(1.0, 1.0, (R, N)) + 0.1
    V = U * (W @ H) * rng.uniform(0.5, 1.5, (M, N))
    return np.where(rng.random((M, N)) < 0.3, 0.0, V) if zeros else V, U, W, H


def divergence(V: Any, U: Any, W: Any, H: Any, beta: float, weights: Any = 1.0) -> float:
    """By its definition, of V from U * WH."""
    return float(np.sum(weights * oracle.entry_divergence(V, U * (W @ H), beta)))


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("beta", BETAS)
def test_the_divergence_is_that_from_the_exposed_model(target: Target, beta: float, kind: str) -> None:
    V, U, W, H = problem(kind)
    arrays = [target.asarray(x, "float64") for x in (V, W, H)]
    found = beta_divergence(*arrays, beta_loss=beta, exposure=target.asarray(U, "float64"))
    assert float(target.to_numpy(found)) == pytest.approx(divergence(V, U, W, H, beta), rel=1e-9)


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize(("solver", "beta"), PAIRS)
def test_every_solver_lowers_the_divergence_from_the_exposed_model(solver: str, beta: float, kind: str) -> None:
    V, U, *_ = problem(kind)
    options: dict[str, Any] = {"solver": solver, "beta_loss": beta, "exposure": U, "check_every": 1, "tol": 1e-12}
    result = nmf(V, R, random_state=0, max_iter=40, **options)
    assert result.divergence == pytest.approx(divergence(V, U, result.W, result.H, beta), rel=1e-9)
    assert result.divergence < 0.5 * result.history[0]
    if solver != "online":
        assert all(b <= a * (1 + 1e-10) for a, b in zip(result.history, result.history[1:], strict=False))


@pytest.mark.parametrize("beta", BETAS)
def test_on_every_backend_it_is_the_problem_of_v_over_u_with_weights(target: Target, beta: float) -> None:
    V, U, *_ = problem("entries")
    options: dict[str, Any] = {"beta_loss": beta, "solver": "mu", "random_state": 0, "max_iter": 10, "tol": 0}
    result = nmf(target.asarray(V, "float64"), R, exposure=target.asarray(U, "float64"), **options)
    expected = nmf(V / U, R, weights=U**beta, **options)
    for x, y in ((result.W, expected.W), (result.H, expected.H)):
        np.testing.assert_allclose(target.to_numpy(x), y, rtol=1e-6, atol=1e-9 * y.max())


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("beta", [0.5, 1.0, 1.5, 2.0])
def test_sparse_streamed_and_distributed_data_are_as_dense_ones(beta: float, kind: str) -> None:
    dask = pytest.importorskip("dask.array")
    V, U, *_ = problem(kind, zeros=True)
    start = (np.full((M, R), 0.7) + np.arange(R), np.full((R, N), 0.4) + 0.1 * np.arange(N))
    options: dict[str, Any] = {"beta_loss": beta, "solver": "mu", "init": start, "max_iter": 8, "tol": 0}
    expected = nmf(V, R, exposure=U, **options)
    held = {
        "csr": (sparse.csr_array(V), U),
        "csc": (sparse.csc_array(V), U),
        "blocks": (RowBlocks(lambda: iter([V[:5], V[5:]])), U),
        "sparse blocks": (RowBlocks(lambda: iter([sparse.csr_array(V[:7]), sparse.csr_array(V[7:])])), U),
        "dask": (dask.from_array(V, chunks=(5, 4)), U),
        "dask, with weights": (dask.from_array(V, chunks=(5, 4)), dask.from_array(U)),
    }
    for name, (X, exposure) in held.items():
        more: dict[str, Any] = {"weights": np.ones((1, 1))} if "weights" in name else {}
        result = nmf(X, R, exposure=exposure, **options, **more)
        assert result.divergence == pytest.approx(expected.divergence, rel=1e-9), name
        W = result.W.compute() if hasattr(result.W, "compute") else result.W
        np.testing.assert_allclose(W @ result.H, expected.W @ expected.H, rtol=1e-7, err_msg=name)


def test_weights_missing_entries_and_stacks_go_together_with_it() -> None:
    V, U, *_ = problem("columns")
    rng = np.random.default_rng(0)
    weights = rng.random((M, N))
    V = np.where(rng.random((M, N)) < 0.2, np.nan, V)
    seen = np.where(np.isnan(V), 0.0, weights)
    options: dict[str, Any] = {"beta_loss": 1, "weights": weights, "missing": "nan", "random_state": 0}
    one = nmf(V, R, exposure=U, **options)
    assert one.divergence == pytest.approx(divergence(np.nan_to_num(V, nan=1.0), U, one.W, one.H, 1.0, seen), rel=1e-9)
    stack = nmf(np.stack([V, V]), R, exposure=np.stack([U, U]), **options)
    W, H = (np.asarray(x[0]) for x in (stack.W, stack.H))
    assert stack.divergence[0] == pytest.approx(divergence(np.nan_to_num(V, nan=1.0), U, W, H, 1.0, seen), rel=1e-9)


@pytest.mark.parametrize("beta", [1.0, 1.5, 2.0])
def test_transform_finds_the_loadings_behind_an_exposure(beta: float) -> None:
    _, U, W, H = problem("entries")
    found = transform(U * (W @ H), H, beta_loss=beta, exposure=U, tol=1e-12, max_iter=5000)
    np.testing.assert_allclose(found.W, W, rtol=1e-3)


def test_the_estimators_take_it() -> None:
    sklearn = pytest.importorskip("nmf_xp.sklearn", reason="scikit-learn is not installed")
    V, U, *_ = problem("columns")
    for model in (
        sklearn.NMF(R, solver="cd", random_state=0, max_iter=500, tol=1e-6),
        sklearn.NMF(R, solver="mu", beta_loss="kullback-leibler", init="random", random_state=0, max_iter=500),
        sklearn.MiniBatchNMF(R, batch_size=4, beta_loss="kullback-leibler", random_state=0, max_iter=50, tol=0),
    ):
        beta = {"frobenius": 2.0, "kullback-leibler": 1.0}[model.beta_loss]
        W = model.fit_transform(V, exposure=U)
        error = np.sqrt(2 * divergence(V, U, W, model.components_, beta))
        assert model.reconstruction_err_ == pytest.approx(error, rel=1e-6)
        loadings = model.transform(V, exposure=U)
        assert divergence(V, U, loadings, model.components_, beta) < 1.05 * divergence(V, U, W, model.components_, beta)
    W, H, _ = sklearn.non_negative_factorization(V, n_components=R, exposure=U, random_state=0)
    assert divergence(V, U, W, H, 2.0) < divergence(V, 1.0, W, H, 2.0)


def test_a_stream_takes_it() -> None:
    V, U, *_ = problem("entries")
    state = online_start(np.random.default_rng(0).random((R, N)) + 0.1, beta_loss=1)
    done = online_nmf(V, None, state, batch_size=4, max_iter=30, beta_loss=1, exposure=U)
    assert divergence(V, U, done.W, done.state.H, 1.0) < 0.2 * divergence(V, 1.0, done.W, done.state.H, 1.0)


def test_a_row_exposure_is_absorbed_by_w_where_nothing_else_decides() -> None:
    V, U, *_ = problem("rows")
    options: dict[str, Any] = {"beta_loss": 1, "random_state": 0, "tol": 1e-10, "max_iter": 20000}
    plain, exposed = nmf(V, 1, **options), nmf(V, 1, exposure=U, **options)
    np.testing.assert_allclose(U * (exposed.W @ exposed.H), plain.W @ plain.H, rtol=1e-6)


@pytest.mark.parametrize(
    ("exposure", "error", "message"),
    [
        (np.zeros((M, 1)), ValueError, "`exposure` must be positive, got zeros; give a weight of 0"),
        (-np.ones((M, 1)), ValueError, "`exposure` must be non-negative"),
        (np.full((M, 1), np.nan), ValueError, "`exposure` must be finite"),
        (np.ones((M, 2)), ValueError, "`exposure` must have shape"),
        (np.ones((M, 1), dtype=bool), TypeError, "`exposure` must be real, got dtype bool"),
        (np.full((M, 1), 1e200), ValueError, "divide it by a number, by which W is then multiplied"),
        ({"a": 1.0}, TypeError, "`exposure` must be an array"),
    ],
)
def test_an_exposure_that_cannot_be_meant_is_refused(exposure: Any, error: type[Exception], message: str) -> None:
    V, *_ = problem("rows")
    with pytest.raises(error, match=message):
        nmf(V, R, exposure=exposure)


def test_a_checkpoint_knows_the_exposure(tmp_path: Any) -> None:
    V, U, *_ = problem("rows")
    options: dict[str, Any] = {"random_state": 0, "checkpoint": tmp_path / "run.npz", "max_iter": 20}
    nmf(V, R, exposure=U, **options)
    with pytest.raises(nmf_xp.CheckpointError):
        nmf(V, R, exposure=2 * U, **options)
