"""Batch effects within the model, against the problem written out, an independent optimum and planted truth."""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import scipy.sparse
from scipy.optimize import minimize

import nmf_xp
from nmf_xp import CheckpointError, ConfoundingWarning, Lower, Robust, beta_divergence
from nmf_xp.arrays import kernels, precision
from nmf_xp.sklearn import NMF
from tests.compiled import eagerly

if TYPE_CHECKING:
    from pathlib import Path

    from nmf_xp.testing import Target

nmf: Any = nmf_xp.nmf  # whose effects are there
transform: Any = nmf_xp.transform
load: Any = nmf_xp.load

SOLVERS = ["mu", "mm", "newton", "cd"]
KL: dict[str, Any] = {"beta_loss": "kullback-leibler", "random_state": 0}


def planted(m: int = 60, n: int = 40, r: int = 3, seed: int = 0) -> tuple[Any, Any, Any, Any]:
    """Counts, the label of each row's batch, the profiles, and the batches' effects with a geometric mean of 1."""
    rng = np.random.default_rng(seed)
    W, H = rng.dirichlet(np.full(r, 0.3), size=m), rng.gamma(0.4, size=(r, n)) + 0.01
    codes, B = rng.integers(0, 3, size=m), rng.lognormal(0, 0.7, size=(3, n))
    B /= np.exp(np.log(B)[codes].mean(axis=0))
    return rng.poisson(100 * (W @ H) * B[codes]).astype(float), np.asarray(["x", "y", "z"])[codes], H, B


def table_of(result: Any) -> Any:
    return np.stack([np.asarray(x) for x in result.batch_effects.values()])


def loss(V: Any, W: Any, H: Any, labels: Any, prior: float = 0.0) -> float:
    """The divergence at the best table, and the prior, entry by entry."""
    total = 0.0
    for label in np.unique(labels):
        rows = labels == label
        model = W[rows] @ H
        b = (V[rows].sum(axis=0) + prior) / (model.sum(axis=0) + prior)
        y = np.maximum(model * b, 1e-300)
        v = V[rows]
        total += float((y - v + np.where(v > 0, v * np.log(np.where(v > 0, v, 1) / y), 0)).sum())
        total += float((prior * (b - 1 - np.log(b))).sum()) if prior else 0.0
    return total


@eagerly
@pytest.mark.parametrize("prior", [0.0, 2.0])
@pytest.mark.parametrize("solver", SOLVERS)
def test_the_loss_never_rises_on_any_backend(target: Target, solver: str, prior: float) -> None:
    V, labels, *_ = planted(20, 12)
    options: dict[str, Any] = {"solver": solver, "check_every": 1, "tol": 1e-13, "max_iter": 25, "batch": labels}
    result = nmf(target.asarray(V), 3, batch_prior=prior, **options, **KL)
    assert np.max(np.diff(result.history), initial=0.0) <= 1e-12 * result.history[0]
    W, H = (target.to_numpy(x) for x in (result.W, result.H))
    assert result.objective == pytest.approx(loss(V, W, H, labels, prior), rel=1e-8)
    here = nmf(V, 3, batch_prior=prior, **options, **KL)
    assert result.objective == pytest.approx(here.objective, rel=1e-6)
    assert {type(x) for x in result.batch_effects.values()} == {type(result.W)}


@pytest.mark.parametrize("solver", SOLVERS)
def test_sparse_is_dense_and_kernels_are_their_twins(solver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    V, labels, *_ = planted(200, 90)
    options: dict[str, Any] = {"solver": solver, "batch": labels, "max_iter": 6, "tol": 0, **KL}
    dense = nmf(V, 4, **options)
    others = [
        nmf(kind(V), 4, **options) for kind in (scipy.sparse.csr_array, scipy.sparse.csc_array, np.asfortranarray)
    ]
    monkeypatch.setattr(kernels, "find", lambda *_: None)
    others.append(nmf(V, 4, **options))
    for other in others:
        np.testing.assert_allclose(other.W @ other.H, dense.W @ dense.H, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(table_of(other), table_of(dense), rtol=1e-7, atol=1e-9)
        assert other.divergence == pytest.approx(dense.divergence, rel=1e-9)


def test_the_fit_is_an_optimum_that_scipy_cannot_lower() -> None:
    V, labels, *_ = planted(18, 10, 2)
    result = nmf(V, 2, batch=labels, max_iter=5000, tol=1e-12, **KL)
    start = np.concatenate([result.W.ravel(), result.H.ravel()])

    def objective(x: Any) -> float:
        return loss(V, x[:36].reshape(18, 2), x[36:].reshape(2, 10), labels)

    found = minimize(objective, start, method="L-BFGS-B", bounds=[(1e-12, None)] * start.size)
    assert found.fun >= result.divergence * (1 - 1e-7)
    assert result.kkt_residual < 1e-4


def test_the_divergence_is_that_with_the_effects_as_an_exposure() -> None:
    V, labels, *_ = planted()
    result = nmf(V, 3, batch=labels, **KL)
    rows = np.stack([result.batch_effects[label] for label in labels])
    exposed = beta_divergence(V, result.W, result.H, beta_loss=1.0, exposure=np.maximum(rows, 1e-30))
    assert float(exposed) == pytest.approx(result.divergence, rel=1e-10)
    logs = np.log(np.where(rows > 0, rows, 1))
    np.testing.assert_allclose(logs.mean(axis=0), 0, atol=1e-6)


def test_planted_effects_and_profiles_are_found() -> None:
    V, labels, H, B = planted(1500, 40)
    result = nmf(V, 3, batch=labels, n_restarts=3, max_iter=1000, tol=1e-7, **KL)
    plain = nmf(V, 3, n_restarts=3, max_iter=1000, tol=1e-7, **KL)
    many = B * H.sum(axis=0) > 0.2  # of these there are counts enough
    assert np.median(np.abs(table_of(result) / B - 1)[many]) < 0.05

    def cosine(found: Any) -> float:
        a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (found, H))
        return float((a @ b.T).max(axis=0).mean())

    assert cosine(result.H) > 0.999 > cosine(plain.H)


def test_one_batch_is_no_batch_and_labels_are_only_names() -> None:
    V, labels, *_ = planted()
    plain = nmf(V, 3, max_iter=3000, tol=1e-11, **KL)
    one = nmf(V, 3, batch=["all"] * len(V), max_iter=3000, tol=1e-11, **KL)
    assert one.divergence == pytest.approx(plain.divergence, rel=1e-6)
    np.testing.assert_allclose(one.batch_effects["all"], 1, rtol=1e-9)
    first = nmf(V, 3, batch=labels, **KL)
    numbers = {"x": 7, "y": -1, "z": 3}
    for other in ([numbers[x] for x in labels], np.asarray([numbers[x] for x in labels])):
        renamed = nmf(V, 3, batch=other, **KL)
        assert tuple(renamed.batch_effects) == (-1, 3, 7)
        np.testing.assert_allclose(renamed.batch_effects[7], first.batch_effects["x"], rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-200, 1e-20, 1e20, 1e200])
def test_the_scale_of_the_counts_changes_no_effect(scale: float) -> None:
    V, labels, *_ = planted()
    options: dict[str, Any] = {"batch": labels, "max_iter": 20, "tol": 0, "solver": "mu", **KL}
    one, other = nmf(V, 3, **options), nmf(V * scale, 3, **options)
    np.testing.assert_allclose(table_of(other), table_of(one), rtol=1e-9, atol=1e-12)
    assert other.divergence / scale == pytest.approx(one.divergence, rel=1e-9)
    prior = [nmf(V * s, 3, batch_prior=5.0 * s, **options) for s in (1.0, scale)]
    np.testing.assert_allclose(table_of(prior[1]), table_of(prior[0]), rtol=1e-9)


def test_a_prior_draws_the_effects_to_one_and_allows_penalties() -> None:
    V, labels, *_ = planted()
    spread = [np.abs(np.log(table_of(nmf(V, 3, batch=labels, batch_prior=c, **KL)))).mean() for c in (1.0, 30.0, 1e6)]
    assert spread[0] > spread[1] > spread[2]
    assert spread[2] < 1e-3
    penalised = nmf(V, 3, batch=labels, batch_prior=1.0, alpha_W=0.01, alpha_H=0.01, l1_ratio=1.0, **KL)
    assert np.all(np.diff(penalised.history) <= 1e-9 * penalised.history[0])
    assert penalised.W.sum() < nmf(V, 3, batch=labels, batch_prior=1.0, **KL).W.sum() * 1.01


@pytest.mark.parametrize("prior", [1.0, 10.0, 100.0])
def test_with_a_prior_too_the_fit_is_an_optimum(prior: float) -> None:
    V, labels, *_ = planted(18, 10, 2)
    result = nmf(V, 2, batch=labels, batch_prior=prior, max_iter=5000, tol=1e-12, **KL)
    assert result.status.name in ("CONVERGED", "MAX_ITER")
    start = np.concatenate([result.W.ravel(), result.H.ravel()])

    def objective(x: Any) -> float:
        return loss(V, x[:36].reshape(18, 2), x[36:].reshape(2, 10), labels, prior)

    found = minimize(objective, start, method="L-BFGS-B", bounds=[(1e-12, None)] * start.size)
    assert objective(start) == pytest.approx(result.objective, rel=1e-9)
    assert found.fun >= result.objective * (1 - 1e-6)


@pytest.mark.parametrize("init", ["random", "nndsvd", "nndsvda"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_prior_and_few_rows_in_a_batch_do_not_make_it_rise(solver: str, init: str) -> None:
    V, labels, *_ = planted(60, 40, 3, seed=3)
    few = np.where(np.arange(60) < 3, "a", labels)
    for prior, batch in ((100.0, few), (10.0, few), (0.5, np.arange(60) % 20)):
        options: dict[str, Any] = {"batch": batch, "batch_prior": prior, "init": init, "solver": solver}
        history = nmf(V, 3, check_every=1, max_iter=100, tol=1e-9, **options, **KL).history
        assert np.max(np.diff(history), initial=0.0) <= 1e-9 * history[0]


def test_labels_are_the_same_where_their_texts_are(tmp_path: Path) -> None:
    V, labels, *_ = planted(100)
    numbers = np.asarray([{"x": 0, "y": 1, "z": 2}[x] for x in labels])
    days = np.asarray(["2020-01-01", "2020-02-01", "2020-03-01"], dtype="datetime64[D]")[numbers]
    pandas = importlib.import_module("pandas")
    for batch in (numbers, numbers > 0, days, pandas.Series(days), [bytes([65 + i]) for i in numbers]):
        fitted = nmf(V[:80], 3, batch=batch[:80], **KL)
        fitted.save(tmp_path / "fit.npz")
        known = transform(V[80:], fitted, batch=batch[80:])
        loaded = transform(V[80:], load(tmp_path / "fit.npz"), batch=batch[80:])
        assert loaded.divergence == known.divergence
    as_days = pandas.Series(days)
    fitted = nmf(V[:80], 3, batch=as_days[:80], **KL)
    stamps = transform(V[80:], fitted, batch=list(as_days[80:]))
    assert stamps.divergence == transform(V[80:], fitted, batch=days[80:]).divergence
    with pytest.raises(ValueError, match="differ as text"):
        nmf(V, 3, batch=[1, "1"] * 50, **KL)


def test_a_column_in_another_order_is_refused() -> None:
    pandas = importlib.import_module("pandas")
    anndata = importlib.import_module("anndata")
    V, labels, *_ = planted()
    names = [f"row{i}" for i in range(60)]
    for index in (names, list(range(60))):
        frame = pandas.DataFrame(V, index=index)
        column = pandas.Series(labels, index=index)
        assert nmf(frame, 3, batch=column, **KL).divergence == nmf(V, 3, batch=labels, **KL).divergence
        mixed = column.sample(frac=1, random_state=0)
        with pytest.raises(ValueError, match="`batch` must have the rows of `V`, in their order"):
            nmf(frame, 3, batch=mixed, **KL)
        with pytest.raises(ValueError, match="`batch` must have the rows of `V`, in their order"):
            NMF(3, solver="mu", beta_loss=1.0, init="random").fit(frame, batch=mixed)
    cells = anndata.AnnData(V, obs=pandas.DataFrame({"donor": labels}, index=names))
    with pytest.raises(ValueError, match="`batch` must have the rows of `V`, in their order"):
        nmf(cells[::-1], 3, batch=cells.obs["donor"], **KL)
    shuffled = frame.sample(frac=1, random_state=1)
    nmf(shuffled.to_numpy(), 3, batch=pandas.Series(labels, index=shuffled.index), **KL)  # of an array nothing is known


def test_what_stands_for_no_label_in_tables() -> None:
    pandas, pyarrow = importlib.import_module("pandas"), importlib.import_module("pyarrow")
    V, labels, *_ = planted()
    lacking = [None if i == 3 else x for i, x in enumerate(labels)]
    masked = np.ma.masked_array(labels, np.arange(60) == 3)
    kinds: list[Any] = [pandas.Series(lacking, dtype=kind) for kind in ("string", "category", object)]
    numbers = pandas.Series([None if x is None else ord(x) for x in lacking], dtype="Int64")
    for batch in (*kinds, numbers, numbers.astype("Float64"), pyarrow.array(lacking), masked):
        with pytest.raises(ValueError, match="got none for row 3"):
            nmf(V, 3, batch=batch, **KL)
    expected = table_of(nmf(V, 3, batch=labels, **KL))
    for batch in (pyarrow.array(list(labels)), pyarrow.array(list(labels)).dictionary_encode()):
        np.testing.assert_array_equal(table_of(nmf(V, 3, batch=batch, **KL)), expected)
    torch = importlib.import_module("torch")
    scalars = list(torch.tensor([ord(x) for x in labels]))
    assert len(nmf(V, 3, batch=scalars, **KL).batch_effects) == 3


def test_the_picture_of_the_model_asks_for_the_effects() -> None:
    V, labels, *_ = planted()
    result = nmf(V, 3, batch=labels, **KL)
    assert "batches       3" in str(result)
    with pytest.raises(ValueError, match="`exposure` must be the effects"):
        importlib.import_module("nmf_xp.plot").reconstruction(V, result)


def test_transform_knows_old_batches_and_finds_new_ones() -> None:
    V, labels, *_ = planted(400)
    fitted = nmf(V[:300], 3, batch=labels[:300], max_iter=1000, tol=1e-8, **KL)
    options: dict[str, Any] = {"max_iter": 1000, "tol": 1e-9}
    known = transform(V[300:], fitted, batch=labels[300:], **options)
    for label in ("x", "y", "z"):
        np.testing.assert_allclose(known.batch_effects[label], fitted.batch_effects[label], rtol=1e-12, atol=1e-30)
    rows = np.stack([np.maximum(fitted.batch_effects[x], 1e-30) for x in labels[300:]])
    exposed = transform(V[300:], fitted.H, beta_loss=1.0, exposure=rows, **options)
    assert known.divergence == pytest.approx(exposed.divergence, rel=1e-6)
    new = np.where(labels[300:] == "z", "other", labels[300:])
    mixed = transform(V[300:], fitted, batch=new, **options)
    assert tuple(mixed.batch_effects) == ("other", "x", "y")
    np.testing.assert_allclose(mixed.batch_effects["x"], fitted.batch_effects["x"], atol=1e-30)
    assert mixed.divergence < known.divergence
    alone = transform(V[300:], fitted.H, beta_loss=1.0, batch=labels[300:], **options)
    assert alone.divergence < mixed.divergence


def test_restarts_checkpoints_and_files(tmp_path: Path) -> None:
    V, labels, *_ = planted()
    several = nmf(V, 3, batch=labels, n_restarts=4, keep_restarts=True, **KL)
    assert several.divergence == min(several.restarts.divergence)
    assert several.batch_effects["x"].shape == (40,)
    assert several.restarts.batch_effects["x"].shape == (4, 40)
    options: dict[str, Any] = {"batch": labels, "tol": 0, "checkpoint": tmp_path / "run.npz", "checkpoint_every": 10}
    nmf(V, 3, max_iter=20, **options, **KL)
    resumed = nmf(V, 3, max_iter=40, **options, **KL)
    whole = nmf(V, 3, batch=labels, tol=0, max_iter=40, **KL)
    np.testing.assert_array_equal(resumed.W, whole.W)
    np.testing.assert_array_equal(table_of(resumed), table_of(whole))
    with pytest.raises(CheckpointError, match="another run: solver was newton in the batches"):
        nmf(V, 3, max_iter=60, **{**options, "batch": labels[::-1]}, **KL)
    for suffix in ("npz", "safetensors"):
        whole.save(tmp_path / f"fit.{suffix}")
        back = load(tmp_path / f"fit.{suffix}")
        assert tuple(back.batch_effects) == ("x", "y", "z")
        np.testing.assert_array_equal(table_of(back), table_of(whole))


def test_labels_of_every_kind() -> None:
    V, labels, *_ = planted()
    pandas, polars = importlib.import_module("pandas"), importlib.import_module("polars")
    expected = table_of(nmf(V, 3, batch=labels, **KL))
    for batch in (
        list(labels),
        tuple(labels),
        pandas.Series(labels),
        pandas.Series(labels, dtype="category"),
        polars.Series(labels),
        pandas.DataFrame({"lab": labels})["lab"],
    ):
        np.testing.assert_array_equal(table_of(nmf(V, 3, batch=batch, **KL)), expected)
    frame = pandas.DataFrame(V, columns=[f"gene{i}" for i in range(40)])
    np.testing.assert_array_equal(table_of(nmf(frame, 3, batch=labels, **KL)), expected)


def test_a_batch_without_counts_and_a_column_that_a_batch_lacks() -> None:
    V, labels, *_ = planted()
    V[labels == "y"] = 0
    V[labels == "x", 5] = 0
    result = nmf(V, 3, batch=labels, max_iter=500, **KL)
    assert np.isfinite(result.W).all()
    assert np.isfinite(result.H).all()
    assert result.W[labels == "y"].max() == 0
    np.testing.assert_allclose(result.batch_effects["y"] / result.batch_effects["y"].mean(), 1, rtol=1e-6)
    assert result.batch_effects["x"][5] == 0
    assert np.all(np.diff(result.history) <= 1e-12 * result.history[0])


def test_a_component_of_one_batch_is_said_to_be_confounded() -> None:
    rng = np.random.default_rng(0)
    W, H = rng.dirichlet(np.full(3, 0.3), size=90), rng.gamma(0.3, size=(3, 40))
    labels = np.repeat(["a", "b", "c"], 30)
    W[labels != "c", 2] = 0  # what is only there cannot be told from an effect of the batch
    V = rng.poisson(300 * W @ H).astype(float)
    start = W + 1e-30, H + 1e-9
    with pytest.warns(ConfoundingWarning, match=r"component 2 in 'c'.* of the batch or a difference of its rows"):
        nmf(V, 3, init=start, batch=labels, beta_loss=1.0, solver="mu")
    V, labels, *_ = planted()
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConfoundingWarning)
        nmf(V, 3, batch=labels, **KL)


LABELS = np.asarray(list("ab") * 10)
REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"batch": LABELS[:-1]}, ValueError, r"one label for each of the 20 rows of V, got shape \(19,\)"),
    ({"batch": [None, *LABELS[1:]]}, ValueError, "got none for row 0"),
    ({"batch": np.where(np.arange(20) == 3, np.nan, 1.0)}, ValueError, "got none for row 3"),
    ({"batch": "lab"}, TypeError, "of a table pass the column"),
    ({"batch": LABELS, "beta_loss": "frobenius"}, ValueError, "kullback-leibler"),
    ({"batch": LABELS, "beta_loss": Robust("kullback-leibler")}, ValueError, "got Robust"),
    ({"batch": LABELS, "solver": "online"}, ValueError, "'online'"),
    ({"batch": LABELS, "alpha_H": 0.1}, ValueError, "`batch_prior` must be positive"),
    (
        {"batch": LABELS, "init": (np.ones((20, 2)), np.ones((2, 9))), "fixed_h": np.ones((2, 9), dtype=bool)},
        ValueError,
        "asked of H, which they evade",
    ),
    ({"batch": LABELS, "h": [Lower(0.1)]}, ValueError, "`batch_prior` must be positive"),
    ({"batch": LABELS, "batch_prior": -1.0}, ValueError, "non-negative"),
    ({"batch_prior": 1.0}, ValueError, "must come with `batch`"),
]


@pytest.mark.parametrize(("options", "error", "message"), REFUSED, ids=[x[2] for x in REFUSED])
def test_what_is_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    V = np.random.default_rng(0).poisson(5.0, size=(20, 9)).astype(float)
    with pytest.raises(error, match=message):
        nmf(V, 2, **{"beta_loss": "kullback-leibler", **options})


def test_what_is_refused_beside_known_effects() -> None:
    V = np.random.default_rng(0).poisson(5.0, size=(20, 9)).astype(float)
    fitted = nmf(V, 2, batch=LABELS, **KL)
    with pytest.raises(ValueError, match="be positive where something is asked of W beside effects"):
        transform(V, fitted, batch=["new"] * 20, alpha_W=1.0)
    transform(V, fitted, batch=LABELS, alpha_W=1.0)
    transform(V, fitted, batch=["new"] * 20, alpha_W=1.0, batch_prior=1.0)
    with pytest.raises(ValueError, match="9 numbers from 0 to"):
        transform(V, fitted, batch=LABELS, batch_effects={"a": np.ones(8)})
    with pytest.raises(TypeError, match="a dict of labels"):
        transform(V, fitted, batch=LABELS, batch_effects=np.ones((2, 9)))
    with pytest.raises(ValueError, match="without `batch`"):
        _ = fitted.explained


def test_many_batches_are_summed_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    V, _, *_ = planted(70)
    labels = np.arange(70) // 2
    whole = nmf(V, 2, batch=labels, max_iter=5, tol=0, **KL)
    monkeypatch.setattr("nmf_xp.data.tabled.AT_ONCE", 100)
    parts = nmf(V, 2, batch=labels, max_iter=5, tol=0, **KL)
    np.testing.assert_allclose(table_of(parts), table_of(whole), rtol=1e-9)


def test_a_compiled_function_may_have_batches() -> None:
    jax = importlib.import_module("jax")
    V, labels, *_ = planted(30, 15)
    with jax.enable_x64(True), precision.own_errors():
        result = jax.jit(lambda V: nmf(V, 2, batch=labels, max_iter=20, **KL))(V)
    here = nmf(V, 2, batch=labels, max_iter=20, **KL)
    assert float(result.divergence) == pytest.approx(here.divergence, rel=1e-6)
    np.testing.assert_allclose(table_of(result), table_of(here), rtol=1e-4, atol=1e-6)
