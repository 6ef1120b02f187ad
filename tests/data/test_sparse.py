"""Sparse V equals dense V, in every format that is installed, and stays as it was."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from array_api_compat import numpy as xp

from nmf_xp import beta_divergence, nmf, transform, update_h, update_w
from nmf_xp.arrays.transfer import to_host
from nmf_xp.data import Dense, as_data, dense_if_quicker, with_weights
from nmf_xp.data.constraints import FREE
from nmf_xp.problem import Problem
from nmf_xp.problem.optimality import report
from nmf_xp.updates import factor_floor

if TYPE_CHECKING:
    from collections.abc import Callable

scipy_sparse = pytest.importorskip("scipy.sparse")

BETAS = (0.5, 1, 1.5, 2, 3)


def counts() -> np.ndarray[Any, Any]:
    """Sparse counts with an empty row and an empty column."""
    rng = np.random.default_rng(0)
    V = rng.poisson(2.0, (24, 15)) * (rng.random((24, 15)) < 0.4).astype(float)
    V[3], V[:, 5] = 0, 0
    return V


def _unsorted_with_duplicates(V: np.ndarray[Any, Any]) -> Any:
    """Every entry twice at half its value, in no order, with some explicit zeros and 64-bit indices."""
    i, j = np.nonzero(V)
    i, j, v = (
        np.concatenate([i, i, [0, 7]]),
        np.concatenate([j, j, [0, 7]]),
        np.concatenate([V[i, j] / 2] * 2 + [[0, 0]]),
    )
    order = np.random.default_rng(1).permutation(len(i))
    return scipy_sparse.coo_array((v[order], (i[order].astype(np.int64), j[order].astype(np.int64))), shape=V.shape)


def _explicit_zeros(V: np.ndarray[Any, Any]) -> Any:
    stored = scipy_sparse.csr_array(V + 1)
    stored.data -= 1
    return stored


def _torch(layout: str) -> Callable[[Any], Any]:
    return lambda V: getattr(importlib.import_module("torch").asarray(V), layout)()


def _jax(name: str) -> Callable[[Any], Any]:
    def convert(V: np.ndarray[Any, Any]) -> Any:
        sparse = importlib.import_module("jax.experimental.sparse")
        return getattr(sparse, name).fromdense(importlib.import_module("jax.numpy").asarray(V))

    return convert


def _pydata(name: str) -> Callable[[Any], Any]:
    return lambda V: getattr(importlib.import_module("sparse"), name).from_numpy(V)


FORMATS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "csr_array": ("scipy", scipy_sparse.csr_array),
    "csr_matrix": ("scipy", scipy_sparse.csr_matrix),
    "csc_array": ("scipy", scipy_sparse.csc_array),
    "csc_matrix": ("scipy", scipy_sparse.csc_matrix),
    "coo_array": ("scipy", scipy_sparse.coo_array),
    "lil_array": ("scipy", scipy_sparse.lil_array),
    "unsorted": ("scipy", _unsorted_with_duplicates),
    "explicit zeros": ("scipy", _explicit_zeros),
    "torch coo": ("torch", _torch("to_sparse_coo")),
    "torch csr": ("torch", _torch("to_sparse_csr")),
    "jax BCOO": ("jax", _jax("BCOO")),
    "jax BCSR": ("jax", _jax("BCSR")),
    "pydata COO": ("sparse", _pydata("COO")),
    "pydata GCXS": ("sparse", _pydata("GCXS")),
}


@pytest.fixture(params=list(FORMATS))
def convert(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    library, function = FORMATS[request.param]
    pytest.importorskip(library, reason=f"{library} is not installed")
    return function


def _parts(V: Any) -> list[Any]:
    """The arrays of which a SciPy array is made."""
    return [V.data, *(V.coords if V.format == "coo" else (V.indices, V.indptr))]


def assert_equal(sparse: Any, dense: Any) -> None:
    for x, y in ((sparse.W, dense.W), (sparse.H, dense.H)):
        assert np.linalg.norm(to_host(x) - y) <= 1e-10 * np.linalg.norm(y)
    assert sparse.divergence == pytest.approx(dense.divergence, rel=1e-10)
    assert sparse.kkt_residual == pytest.approx(dense.kkt_residual, rel=1e-6)


@pytest.mark.parametrize("beta", BETAS)
def test_sparse_equals_dense(convert: Callable[[Any], Any], beta: float) -> None:
    V = counts()
    options: dict[str, Any] = {"solver": "mu", "beta_loss": beta, "random_state": 0, "max_iter": 25, "tol": 0}
    assert_equal(nmf(convert(V), 3, **options), nmf(V, 3, **options))


@pytest.mark.parametrize("beta", BETAS)
def test_the_divergence_never_rises(beta: float) -> None:
    history = nmf(
        scipy_sparse.csr_array(counts()), 3, solver="mu", beta_loss=beta, random_state=0, check_every=1, tol=1e-12
    ).history
    assert np.max(np.diff(history)) <= 1e-13 * history[0]


@pytest.mark.parametrize("init", ["nndsvd", "nndsvda", "nndsvdar"])
def test_svd_starts_equal_the_dense_ones(convert: Callable[[Any], Any], init: str) -> None:
    V = counts()
    options: dict[str, Any] = {"init": init, "random_state": 0, "max_iter": 1, "tol": 0, "solver": "mu", "beta_loss": 1}
    assert_equal(nmf(convert(V), 3, **options), nmf(V, 3, **options))


def test_restarts_and_transform(convert: Callable[[Any], Any]) -> None:
    V = counts()
    options: dict[str, Any] = {"solver": "mu", "beta_loss": 1, "random_state": 0, "max_iter": 60, "n_restarts": 3}
    sparse, dense = nmf(convert(V), 3, **options), nmf(V, 3, **options)
    assert sparse.restarts is not None
    assert dense.restarts is not None
    np.testing.assert_allclose(sparse.restarts.divergence, dense.restarts.divergence, rtol=1e-10)
    assert sparse.status is dense.status
    options = {"solver": "mu", "beta_loss": 1, "max_iter": 30, "tol": 0}
    assert_equal(transform(convert(V), sparse.H, **options), transform(V, dense.H, **options))


def test_absent_entries_can_be_unobserved(convert: Callable[[Any], Any]) -> None:
    V = counts()
    rng = np.random.default_rng(2)
    weights = rng.random(V.shape)
    stored = as_data(convert(V))
    holes = np.full(V.shape, np.nan)
    holes[to_host(stored.i), to_host(stored.j)] = V[to_host(stored.i), to_host(stored.j)]  # type: ignore[attr-defined]
    options: dict[str, Any] = {"solver": "mu", "beta_loss": 1, "random_state": 0, "max_iter": 25, "tol": 0}
    dense = nmf(holes, 3, missing="nan", weights=weights, **options)
    device_weights = importlib.import_module("nmf_xp.arrays.libraries").array_namespace(stored.values).asarray(weights)
    assert_equal(nmf(convert(V), 3, absent="missing", weights=device_weights, **options), dense)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("shape", [(), (1,), (15,), (24, 1), (1, 1), (24, 15)])
def test_weights_count_on_zeros_too(convert: Callable[[Any], Any], shape: tuple[int, ...], beta: float) -> None:
    V = counts()
    weights = np.random.default_rng(2).random(shape) + 0.1
    if shape:
        weights.flat[0] = 0.0
    if weights.size == 1:
        weights = np.full(shape, 0.7)
    stored = as_data(convert(V)).values
    device_weights = importlib.import_module("nmf_xp.arrays.libraries").array_namespace(stored).asarray(weights)
    options: dict[str, Any] = {"solver": "mu", "beta_loss": beta, "random_state": 0, "max_iter": 20, "tol": 0}
    sparse = nmf(convert(V), 3, weights=device_weights, **options)
    dense = nmf(V, 3, weights=weights, **options)
    assert_equal(sparse, dense)
    options.pop("random_state")
    assert_equal(
        transform(convert(V), sparse.H, weights=device_weights, **options),
        transform(V, dense.H, weights=weights, **options),
    )


def test_blocks_of_rows_with_weights_on_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    V, weights = counts(), np.random.default_rng(2).random((24, 1))
    options: dict[str, Any] = {
        "solver": "mu",
        "beta_loss": 1,
        "random_state": 0,
        "max_iter": 25,
        "tol": 0,
        "weights": weights,
    }
    monkeypatch.setattr(importlib.import_module("nmf_xp.data").Sparse, "block_starts", lambda *_: [0, 3, 4, 11, 20, 24])
    assert_equal(nmf(scipy_sparse.csr_array(V), 3, **options), nmf(V, 3, **options))


@pytest.mark.parametrize("share", [0.4, 0.6])
def test_a_matrix_that_is_half_full_is_treated_as_dense(share: float) -> None:
    rng = np.random.default_rng(0)
    V = (1 + rng.poisson(2.0, (80, 60))) * (rng.random((80, 60)) < share).astype(float)
    data = as_data(scipy_sparse.csr_array(V))
    taken = dense_if_quicker(data, xp=np)
    assert isinstance(taken, Dense) == (share > 0.5)
    if isinstance(taken, Dense):
        np.testing.assert_array_equal(taken.values, V)
    sparse, dense = (nmf(x, 3, beta_loss=1, random_state=0) for x in (scipy_sparse.csr_array(V), V))
    np.testing.assert_allclose(sparse.W, dense.W, rtol=1e-6)
    missing = nmf(scipy_sparse.csr_array(V), 3, beta_loss=1, random_state=0, absent="missing")
    np.testing.assert_allclose(missing.W, nmf(V, 3, beta_loss=1, random_state=0, weights=V > 0).W, rtol=1e-6)


def test_held_out_entries_of_a_sparse_matrix() -> None:
    """The divergence on stored entries alone is that of the dense matrix with those entries observed."""
    V = counts()
    W, H = np.random.default_rng(1).random((24, 3)), np.random.default_rng(2).random((3, 15))
    sparse = scipy_sparse.csr_array(V)
    for beta in (0.0, *BETAS):
        found = beta_divergence(sparse, W, H, beta_loss=beta, absent="missing")
        expected = beta_divergence(np.where(V > 0, V, 1.0), W, H, beta_loss=beta, weights=(V > 0).astype(float))
        np.testing.assert_allclose(to_host(found), to_host(expected), rtol=1e-12)
        for function in (update_w, update_h):
            found = function(sparse, W, H, beta_loss=beta, absent="missing")
            expected = function(V, W, H, beta_loss=beta, weights=(V > 0).astype(float))
            np.testing.assert_allclose(to_host(found), to_host(expected), rtol=1e-12)


def test_the_pure_functions_take_sparse_arrays() -> None:
    V = counts()
    W, H = np.random.default_rng(1).random((24, 3)), np.random.default_rng(2).random((3, 15))
    sparse = scipy_sparse.csr_array(V)
    for beta in BETAS:
        for function in (update_w, update_h, beta_divergence):
            found, expected = (function(x, W, H, beta_loss=beta) for x in (sparse, V))
            np.testing.assert_allclose(to_host(found), to_host(expected), rtol=1e-12)
    assert float(beta_divergence(sparse, W, H, beta_loss=0)) == np.inf


def test_blocks_of_rows_equal_one_block(monkeypatch: pytest.MonkeyPatch) -> None:
    from nmf_xp.data.sparse import Sparse

    V = scipy_sparse.csr_array(counts())
    options: dict[str, Any] = {"solver": "mu", "beta_loss": 1, "random_state": 0, "max_iter": 25, "tol": 0}
    whole = nmf(V, 3, **options)
    monkeypatch.setattr(Sparse, "block_starts", lambda *_: [0, 3, 4, 11, 20, 24])
    assert_equal(nmf(V, 3, **options), whole)
    weighted = nmf(V, 3, absent="missing", **options)
    monkeypatch.undo()
    assert_equal(weighted, nmf(V, 3, absent="missing", **options))


@pytest.mark.parametrize("off", [0.1, 0.03])
def test_the_divergence_near_a_fit_in_single_precision(off: float) -> None:
    """Sums over the whole domain and over the stored entries, which nearly cancel: a thousandth of each is left."""
    sparse = pytest.importorskip("scipy.sparse")
    for seed in range(3):
        rng = np.random.default_rng(seed)
        W = np.kron(np.eye(2), rng.gamma(1.0, size=(1500, 2))).astype("float32")
        H = np.kron(np.eye(2), rng.gamma(1.0, size=(2, 300))).astype("float32")
        V = W @ H
        W = np.maximum(W * (1 + off * rng.standard_normal(W.shape)), 0).astype("float32")
        expected = np.sum((V.astype("float64") - W.astype("float64") @ H) ** 2) / 2
        assert float(beta_divergence(sparse.csr_array(V), W, H)) == pytest.approx(expected, rel=3e-6)


def test_the_divergence_of_a_good_fit_in_single_precision() -> None:
    """A few entries carry nearly all: one unit in their last place is what 0.0004 of the rest is lost in."""
    sparse = pytest.importorskip("scipy.sparse")
    for seed in range(10):
        rng = np.random.default_rng(seed)
        W, H = (np.exp(2 * rng.standard_normal(shape)).astype("float32") for shape in ((96, 2), (2, 21)))
        Y = W.astype("float64") @ H
        V = (Y * (1 + 0.03 * rng.standard_normal(Y.shape))).astype("float32")
        V[V < np.quantile(V, 0.3)] = 0
        found = float(beta_divergence(sparse.csr_array(V), W, H))
        assert found == pytest.approx(np.sum((V - Y) ** 2) / 2, rel=3e-5)


@pytest.mark.parametrize("beta", [-2.0, -1.0, 0.0, 0.5, 1.5])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@np.errstate(over="ignore")  # a rise without bounds, as within a run
def test_a_model_of_zero_where_all_is_stored(dtype: str, beta: float) -> None:
    """Its slopes are those of dense data, without a warning: powers of the least number may overflow."""
    rng = np.random.default_rng(0)
    V, W, H = (rng.uniform(0.5, 2.0, shape).astype(dtype) for shape in ((9, 7), (9, 2), (2, 7)))
    W[4] = 0
    rows = rng.uniform(0.5, 2.0, (9, 1)).astype(dtype)
    floor = factor_floor(V.dtype, beta=beta, xp=xp)
    for weights in (None, rows):
        seen = [
            report(
                Problem(with_weights(as_data(x), weights, absent="zero", beta=beta, xp=xp), FREE, FREE),
                *(W, H),
                beta=beta,
                floor=floor,
                fixed_h=False,
                xp=xp,
            )
            for x in (V, scipy_sparse.csr_array(V))
        ]
        for name in ("w_slopes", "h_slopes"):
            dense, sparse = (getattr(x, name) for x in seen)
            allowed = 100 * float(np.finfo(dtype).eps)
            np.testing.assert_allclose(sparse, dense, rtol=allowed, atol=allowed)


def test_the_users_array_is_never_changed() -> None:
    for make in (_unsorted_with_duplicates, _explicit_zeros):
        V = make(counts())
        before = [part.copy() for part in _parts(V)]
        nmf(V, 3, solver="mu", beta_loss=1, random_state=0, max_iter=3)
        for x, y in zip(before, _parts(V), strict=True):
            np.testing.assert_array_equal(x, y)


def test_integers_and_single_precision() -> None:
    V = counts()
    assert nmf(scipy_sparse.csr_array(V.astype(int)), 3, random_state=0).W.dtype == np.float64
    assert nmf(scipy_sparse.csr_array(V.astype(np.float32)), 3, random_state=0).W.dtype == np.float32


def test_a_second_call_on_jax_compiles_nothing() -> None:
    jax = pytest.importorskip("jax", reason="jax is not installed")
    V = _jax("BCOO")(counts())
    nmf(V, 3, solver="mu", beta_loss=1, random_state=0)
    compiled: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event) if "backend_compile" in event else None
    )
    nmf(V, 3, solver="mu", beta_loss=1, random_state=1)
    assert compiled == []


def test_inside_a_compiled_function_of_jax() -> None:
    jax = pytest.importorskip("jax", reason="jax is not installed")
    V = _jax("BCOO")(counts())
    eager = nmf(V, 3, solver="mu", beta_loss=1, random_state=0, max_iter=20)
    compiled = jax.jit(lambda V: nmf(V, 3, solver="mu", beta_loss=1, random_state=0, max_iter=20))(V)
    np.testing.assert_allclose(to_host(compiled.W), to_host(eager.W), rtol=1e-10)
    twice = type(V)((V.data, V.indices), shape=V.shape)  # nothing is promised of these indices
    np.testing.assert_allclose(
        to_host(nmf(twice, 3, solver="mu", beta_loss=1, random_state=0, max_iter=20).W), to_host(eager.W)
    )
    with pytest.raises(ValueError, match=r"call `V.sum_duplicates\(\)` before"):
        jax.jit(lambda V: nmf(V, 3, solver="mu", beta_loss=1, random_state=0).W)(twice)


def test_nothing_stored_is_all_zero() -> None:
    result = nmf(scipy_sparse.csr_array((4, 3)), 2, solver="mu", beta_loss=1, random_state=0)
    assert result.divergence == pytest.approx(0, abs=1e-100)
    assert np.isfinite(to_host(result.W)).all()


@pytest.mark.parametrize(
    ("V", "options", "message"),
    [
        (-counts(), {}, "`V` must be non-negative, got -"),
        (counts() * np.nan, {}, "`V` must be finite, got NaN at index (0, 0)"),
        (counts(), {"solver": "mu", "beta_loss": 0}, "`V` must be positive for `beta_loss` 0"),
        (counts(), {"weights": np.ones((2, 15)), "absent": "missing"}, "`weights` must have shape (24, 15)"),
        (counts(), {"missing": "nan"}, "`missing` must be None for a sparse V"),
        (counts(), {"absent": "nought"}, "`absent` must be one of"),
    ],
)
def test_bad_sparse_input(V: np.ndarray[Any, Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="^" + message.replace("(", r"\(").replace(")", r"\)")):
        nmf(scipy_sparse.csr_array(V), 2, **options)


def test_bad_shapes_and_dense_data_that_are_called_sparse() -> None:
    with pytest.raises(ValueError, match="`V` must have two axes, none of them empty, where it is sparse"):
        nmf(scipy_sparse.coo_array(counts()[0]), 2)
    with pytest.raises(ValueError, match="`V` must have two axes, none of them empty, where it is sparse"):
        nmf(scipy_sparse.csr_array((0, 3)), 2)
    with pytest.raises(ValueError, match="`absent` must be left at 'zero' for a dense V"):
        nmf(counts(), 2, absent="missing")
