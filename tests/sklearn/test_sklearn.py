"""The estimators: the same numbers as scikit-learn's, their manners, and what they can do besides."""

from __future__ import annotations

import io
import pickle
import re
import subprocess
import sys
import warnings
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
import pytest

pytest.importorskip("sklearn")

import joblib
import scipy.sparse as sp
from sklearn import config_context, decomposition
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_digits, load_iris
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline

import nmf_xp
from nmf_xp.arrays import libraries
from nmf_xp.sklearn import NMF, MiniBatchNMF, non_negative_factorization, plain, starts
from nmf_xp.solvers import automatic
from tests.compiled import eagerly
from tests.problems import noisy

if TYPE_CHECKING:
    from nmf_xp.testing import Target

SOLVERS = [("cd", 2.0), ("mu", 2.0), ("mu", 1.5), ("mu", 1.0), ("mu", 0.0)]
OURS = [("mu", 2.0), ("mu", 1.0), ("auto", 1.0), ("mm", 1.5), ("cd-accelerated", 2.0)]  # what shares code left out
FORMATS = ["dense", "csr"]
quietly = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def real_data(name: str, beta: float) -> Any:
    """Some rows of the real data; for Itakura-Saito with half a unit more, as it has no zeros."""
    if name == "digits":
        X = pytest.importorskip("sklearn.datasets").load_digits().data[:150]
    elif name == "faces":
        X = pytest.importorskip("skimage.data").lfw_subset().reshape(200, -1)[:40].astype(float)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # lda leaves its file open
            X = pytest.importorskip("lda.datasets").load_reuters()[:100].astype(float)
        X = X[:, X.sum(axis=0) > 10]
    return X + 0.5 if beta == 0 else X


def fitted(cls: Any, X: Any, **options: Any) -> tuple[Any, Any]:
    model = cls(n_components=6, random_state=0, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model, model.fit_transform(X)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(("solver", "beta"), SOLVERS)
@pytest.mark.parametrize("name", ["digits", "faces", "reuters"])
def test_the_same_factors_after_200_iterations(name: str, solver: str, beta: float, kind: str) -> None:
    """To 1e-8 of the largest entry. Where scikit-learn's epsilon acts, no worse a fit: see the page about it."""
    X = real_data(name, beta)
    X = sp.csr_array(X) if kind == "csr" else X
    options = {"solver": solver, "beta_loss": beta, "init": "random", "tol": 0, "max_iter": 200}
    theirs, W_theirs = fitted(decomposition.NMF, X, **options)
    ours, W = fitted(NMF, X, **options)
    if (name, solver, beta) == ("reuters", "mu", 1.0):
        assert ours.reconstruction_err_ <= theirs.reconstruction_err_
        return
    np.testing.assert_allclose(W, W_theirs, rtol=0, atol=1e-8 * W_theirs.max())
    np.testing.assert_allclose(ours.components_, theirs.components_, rtol=0, atol=1e-8 * theirs.components_.max())
    assert ours.reconstruction_err_ == pytest.approx(theirs.reconstruction_err_, rel=1e-9)


@pytest.mark.parametrize("init", ["random", "nndsvd", "nndsvda", "nndsvdar", None])
@pytest.mark.parametrize("solver", ["cd", "mu"])
def test_the_same_start_and_the_same_end(solver: str, init: str | None) -> None:
    """Every start, with default tolerances: the same number of iterations, and the same components."""
    X = 100 * noisy(40, 25, 5, zeros=True).V
    options = {"solver": solver, "init": init, "max_iter": 5000}
    if (solver, init) == ("mu", "nndsvd"):
        pytest.skip("zeros of the start stay zeros for scikit-learn; both warn of it, see the test of warnings")
    theirs, _ = fitted(decomposition.NMF, X, **options)
    ours, _ = fitted(NMF, X, **options)
    assert ours.n_iter_ == theirs.n_iter_ < 5000
    np.testing.assert_allclose(ours.components_, theirs.components_, rtol=0, atol=1e-8 * theirs.components_.max())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_generator_is_left_where_scikit_learn_leaves_it(dtype: str) -> None:
    """A second fit from the same generator begins with the same numbers, where the first ended within its orders.

    In float32 these data are factorized in units of their own.
    """
    X, rngs = (load_iris().data * 128).astype(dtype), [np.random.RandomState(3), np.random.RandomState(3)]
    for _ in range(2):
        counts, found = [], []
        for kind, rng in zip((decomposition.NMF, NMF), rngs, strict=True):
            model = kind(3, init="random", shuffle=True, tol=1e-2, random_state=rng).fit(X)
            counts.append(model.n_iter_)
            found.append(model.components_)
        assert counts[0] == counts[1]
        rtol = 1e-3 if dtype == "float32" else 1e-8
        np.testing.assert_allclose(found[1], found[0], rtol=rtol, atol=rtol * float(found[0].max()))
        assert rngs[0].randint(1000) == rngs[1].randint(1000)


@pytest.mark.parametrize("unit", [1e-5, 1e-2, 1.0, 37.5, 600.0])
@pytest.mark.parametrize("init", ["nndsvd", "nndsvda", "nndsvdar"])
def test_the_start_is_theirs_in_other_units(init: str, unit: float) -> None:
    """float32 is factorized in units of its own above some hundred, as pictures of 16 bits are."""
    X = (load_digits().data[:200] * unit).astype(np.float32)
    theirs = decomposition._nmf._initialize_nmf(X, 5, init=init, random_state=0)
    ours = starts.start(X, 5, init=init, random_state=0, beta=2.0)
    for x, y in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5 * float(y.max()))


def test_who_changes_the_names_of_parameters_changes_a_copy() -> None:
    NMF._get_param_names().append("mine")
    assert "mine" not in NMF(2).get_params()


@pytest.mark.parametrize("both", [True, False])
def test_shuffled_components_and_penalties(both: bool) -> None:
    X = noisy(40, 25, 5, zeros=True).V
    penalties = {"alpha_W": 0.01, "alpha_H": 0.02, "l1_ratio": 0.3} if both else {"alpha_W": 0.001, "l1_ratio": 1.0}
    options = {"shuffle": True, "max_iter": 3000, **penalties}
    theirs, W_theirs = fitted(decomposition.NMF, X, **options)
    ours, W = fitted(NMF, X, **options)
    assert ours.n_iter_ == theirs.n_iter_
    np.testing.assert_allclose(W, W_theirs, rtol=0, atol=1e-8 * W_theirs.max())
    assert ((W == 0) == (W_theirs == 0)).all()
    np.testing.assert_allclose(ours.transform(X), theirs.transform(X), rtol=0, atol=1e-8 * W_theirs.max())


def test_orders_are_drawn_from_a_generator_as_scikit_learn_draws_them() -> None:
    """Also where a fit goes on for long, and the generator is left where scikit-learn leaves it."""
    X = noisy(12, 9, 4, zeros=True).V
    options: dict[str, Any] = {"shuffle": True, "init": "random", "tol": 0, "max_iter": 1100}
    sides = [kind(4, random_state=np.random.RandomState(3), **options) for kind in (decomposition.NMF, NMF)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        W_theirs, W = (side.fit_transform(X) for side in sides)
        np.testing.assert_allclose(W, W_theirs, rtol=0, atol=1e-8 * W_theirs.max())
        drawn = [side.random_state.randint(2**31) for side in sides]
    assert drawn[0] == drawn[1]


class Fewer(NMF):
    """An estimator with parameters of its own."""

    def __init__(self, n_components: int = 2, *, tries: int = 3) -> None:
        super().__init__(n_components)
        self.tries = tries


def test_a_subclass_has_its_own_parameters() -> None:
    NMF().get_params()
    assert Fewer().get_params() == {"n_components": 2, "tries": 3}
    assert "tries" not in NMF().get_params()


def test_what_numpy_holds_is_checked_as_a_frame_is() -> None:
    """Arrays that need no conversion take a shorter way to the same errors and the same names."""
    X = noisy(12, 9, 2).V
    for wrong, said in ((np.nan, "contains NaN"), (np.inf, "contains infinity"), (-1.0, "Negative values")):
        bad = X.copy()
        bad[3, 4] = wrong
        model = NMF(2, max_iter=500).fit(X)
        for call in (model.fit, model.transform):
            with pytest.raises(ValueError, match=said):
                call(bad)
    with pytest.raises(ValueError, match="X has 8 features, but NMF is expecting 9 features as input"):
        model.transform(X[:, :8])
    assert NMF(2).fit(X[:, :8]).n_features_in_ == 8
    with pytest.raises(NotFittedError):
        NMF(2).transform(X)


@pytest.mark.parametrize("solver", ["cd", "mu"])
def test_at_convergence_no_worse_than_scikit_learn(solver: str) -> None:
    V, W, H = noisy(25, 15, 3, seed=1)
    options: dict[str, Any] = {"solver": solver, "init": "custom", "tol": 0, "max_iter": 20000}
    theirs = decomposition.NMF(3, **options)
    theirs.fit_transform(V, W=W.copy(), H=H.copy())
    ours = NMF(3, **options)
    W = ours.fit_transform(V, W=W, H=H)
    end = nmf_xp.nmf(V, 3, init=(W, ours.components_), solver="mu", max_iter=1, tol=0)
    assert end.kkt_residual < 1e-6
    assert ours.reconstruction_err_**2 <= theirs.reconstruction_err_**2 * (1 + 1e-6)


@pytest.mark.parametrize("n_components", ["auto", None, 3])
@pytest.mark.parametrize("update_H", [True, False])
@quietly
def test_the_function(n_components: Any, update_H: bool) -> None:
    V, W, H = noisy(12, 9, 3 if n_components else 9)
    options = {"n_components": n_components, "init": "custom", "update_H": update_H, "max_iter": 50}
    given: dict[str, Any] = {"H": H} if not update_H else {"W": W, "H": H}
    theirs = decomposition.non_negative_factorization(V, **{k: x.copy() for k, x in given.items()}, **options)
    ours = non_negative_factorization(V, **given, **options)
    for x, y in zip(ours[:2], theirs[:2], strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-9)
    assert ours[2] == theirs[2]


BAD: list[tuple[dict[str, Any], Any, dict[str, Any]]] = [
    ({"n_components": -1}, None, {}),
    ({"n_components": 2.5}, None, {}),
    ({"init": "magic"}, None, {}),
    ({"tol": -1.0}, None, {}),
    ({"max_iter": 0}, None, {}),
    ({"alpha_W": -1.0}, None, {}),
    ({"l1_ratio": 2.0}, None, {}),
    ({"beta_loss": "magic"}, None, {}),
    ({"shuffle": "yes"}, None, {}),
    ({"init": "nndsvd", "n_components": 9}, None, {}),
    ({"beta_loss": "kullback-leibler"}, None, {}),
    ({"solver": "mu", "beta_loss": 0.0}, np.zeros((8, 7)) + np.eye(8, 7), {}),
    ({}, -np.ones((8, 7)), {}),
    ({}, np.full((8, 7), np.nan), {}),
    ({}, np.ones(8), {}),
    ({"init": "custom"}, None, {"W": np.ones((8, 2)), "H": np.ones((3, 7))}),
    ({"init": "custom"}, None, {"W": np.ones((9, 2)), "H": np.ones((2, 7))}),
    ({"init": "custom"}, None, {"W": np.ones((8, 2)), "H": np.ones((2, 6))}),
    ({"init": "custom"}, None, {"W": np.ones((8, 2)), "H": np.zeros((2, 7))}),
    ({"init": "custom"}, None, {"W": np.ones((8, 2)), "H": -np.ones((2, 7))}),
    ({"init": "custom"}, None, {"W": np.ones((8, 2), dtype=np.float32), "H": np.ones((2, 7))}),
]


@pytest.mark.parametrize(("options", "X", "given"), BAD)
def test_the_same_error_messages(options: dict[str, Any], X: Any, given: dict[str, Any]) -> None:
    X = noisy(8, 7, 2).V if X is None else X
    messages = []
    for cls in (decomposition.NMF, NMF):
        with pytest.raises((ValueError, TypeError)) as error:
            cls(**{"n_components": 2, **options}).fit_transform(X, **given)
        text = re.sub(r"\{.*?\}", lambda found: str(sorted(found[0][1:-1].split(", "))), str(error.value))
        messages.append((error.type.__name__, text))  # sets have no order
    assert messages[0] == messages[1]


@pytest.mark.parametrize(
    ("options", "given"),
    [
        ({"max_iter": 1}, {}),
        ({"solver": "mu", "init": "nndsvd", "max_iter": 2000}, {}),
        ({"init": "random", "max_iter": 2000}, {"W": np.ones((8, 2)), "H": np.ones((2, 7))}),
    ],
    ids=["iterations run out", "zeros in the start", "a start that is not used"],
)
def test_the_same_warnings(options: dict[str, Any], given: dict[str, Any]) -> None:
    warned = []
    for cls in (decomposition.NMF, NMF):
        with pytest.warns() as record:
            cls(2, random_state=0, **options).fit_transform(noisy(8, 7, 2).V, **given)
        warned.append({(w.category, str(w.message)) for w in record})
    assert warned[0] == warned[1]


@pytest.mark.parametrize("solver", ["cd", "mu", "mm"])
def test_converging_in_the_last_iteration_is_no_failure(solver: str) -> None:
    X = noisy(20, 12, 3).V
    model = NMF(3, solver=solver, random_state=0, max_iter=5000, tol=1e-3).fit(X)
    again = NMF(3, solver=solver, random_state=0, max_iter=model.n_iter_, tol=1e-3).fit(X)  # warnings are errors
    assert again.n_iter_ == model.n_iter_ < 5000
    with pytest.warns(ConvergenceWarning, match="Increase it to improve convergence"):
        NMF(3, solver=solver, random_state=0, max_iter=model.n_iter_ - 10, tol=1e-3).fit(X)


@pytest.mark.parametrize(
    "model",
    [NMF(), *(NMF(solver=solver, beta_loss=beta) for solver, beta in OURS), MiniBatchNMF()],
    ids=str,
)
@quietly
def test_transform_agrees_with_fit_transform(model: Any) -> None:
    """The tolerance that the page states: 2 % of the largest entry by default, with `tol=1e-8` 1e-4; "mm" is slower."""
    X = real_data("digits", 1.0) + 0.1
    slow = getattr(model, "solver", None) == "mm"
    for tol, tolerance in ((1e-4, 0.02), (1e-8, 1e-3 if slow else 1e-4)):
        model = clone(model).set_params(n_components=3, tol=tol, max_iter=5000, random_state=0)
        W = model.fit_transform(X)
        np.testing.assert_allclose(model.transform(X), W, rtol=0, atol=tolerance * W.max())


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(("solver", "beta"), SOLVERS)
@quietly
def test_a_fit_by_mu_or_cd_is_scikit_learns(solver: str, beta: float, kind: str) -> None:
    """With a tolerance too; for beta 1 and 2 W after "mu" is the best for these components, so no worse."""
    if (beta, kind) == (0.0, "csr"):
        pytest.skip("the loss refuses the zeros that are not stored")
    X = real_data("digits", beta) + 0.1
    X = sp.csr_array(X) if kind == "csr" else X
    options = {"solver": solver, "beta_loss": beta, "max_iter": 60}
    theirs, W_theirs = fitted(decomposition.NMF, X, **options)
    ours, W = fitted(NMF, X, **options)
    assert ours.n_iter_ == theirs.n_iter_
    H_theirs = theirs.components_
    np.testing.assert_allclose(ours.components_, H_theirs, rtol=0, atol=1e-8 * H_theirs.max())
    np.testing.assert_allclose(ours.history_[-1], theirs.reconstruction_err_**2 / 2, rtol=1e-9)
    if solver == "mu" and beta in (1, 2):
        assert ours.reconstruction_err_ <= theirs.reconstruction_err_ * (1 + 1e-6)
    else:
        np.testing.assert_allclose(W, W_theirs, rtol=0, atol=1e-8 * W_theirs.max())
        assert ours.reconstruction_err_ == pytest.approx(theirs.reconstruction_err_, rel=1e-9)
    found = nmf_xp.beta_divergence(X, W, ours.components_, beta_loss=beta)
    assert ours.reconstruction_err_ == pytest.approx((2 * float(found)) ** 0.5, rel=1e-9)


@pytest.mark.parametrize("model", [NMF(solver="mu"), NMF(solver="mu", beta_loss=1.0), MiniBatchNMF()], ids=str)
@quietly
def test_the_loadings_of_mu_are_the_best(model: Any) -> None:
    X = real_data("digits", 1.0) + 0.1
    model.set_params(n_components=3, random_state=0)
    left = nmf_xp.beta_divergence(X, model.fit_transform(X), model.components_, beta_loss=model.beta_loss)
    found = nmf_xp.beta_divergence(X, model.transform(X), model.components_, beta_loss=model.beta_loss)
    assert found == pytest.approx(left, rel=1e-6)
    best = nmf_xp.transform(X, model.components_, beta_loss=model.beta_loss, tol=1e-12, max_iter=10000)
    assert found == pytest.approx(best.divergence, rel=1e-4)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    "penalties", [{}, {"alpha_W": 0.001, "alpha_H": 0.002, "l1_ratio": 0.5}], ids=["free", "penalised"]
)
@pytest.mark.parametrize(("solver", "beta"), [x for x in SOLVERS if x[1] > 0])
@quietly
def test_a_fit_that_is_looked_at_is_the_same(solver: str, beta: float, penalties: dict[str, float], kind: str) -> None:
    """A callback sends a fit through `nmf`; without one it goes straight to the solver."""
    X = real_data("faces", beta)
    X = sp.csr_array(X) if kind == "csr" else X
    options = {"solver": solver, "beta_loss": beta, "max_iter": 45, **penalties}
    direct, W = fitted(NMF, X, **options)
    seen, W_seen = fitted(NMF, X, **options, callback=lambda _: False)
    assert direct.n_iter_ == seen.n_iter_
    np.testing.assert_allclose(W, W_seen, rtol=0, atol=1e-9 * W_seen.max())
    np.testing.assert_allclose(direct.components_, seen.components_, rtol=0, atol=1e-9 * seen.components_.max())
    np.testing.assert_allclose(direct.history_, seen.history_, rtol=1e-9)
    with mock.patch.object(plain, "factor_floor", side_effect=AssertionError("it went straight to the solver")):
        fitted(NMF, X, **options, tol=0, callback=lambda _: False)  # with a tolerance "mu" looks for the best W
        with pytest.raises(AssertionError, match="straight"):
            fitted(NMF, X, **options, tol=0)


@pytest.mark.parametrize("scale", [1e-150, 1e150])
def test_numbers_far_from_one_take_the_way_with_units(scale: float) -> None:
    X = noisy(12, 9, 3).V
    options = {"init": "random", "max_iter": 20, "tol": 0}
    ordinary, W = fitted(NMF, X, **options)
    far, W_far = fitted(NMF, X * scale, **options)
    np.testing.assert_allclose(W_far / W_far.max(), W / W.max(), atol=1e-9)
    assert far.reconstruction_err_ == pytest.approx(ordinary.reconstruction_err_ * scale, rel=1e-9)


@eagerly
@pytest.mark.parametrize(("solver", "beta"), [("cd", 2.0), ("mu", 1.0), ("auto", 1.0), ("minibatch", 1.0)])
@quietly
def test_every_array_library_without_a_configuration(target: Target, solver: str, beta: float) -> None:
    V = noisy(24, 11, 3).V
    options: dict[str, Any] = {"n_components": 3, "init": "random", "random_state": 0, "beta_loss": beta}
    cls: Any = NMF
    if solver == "minibatch":
        cls, options = MiniBatchNMF, {**options, "batch_size": 7, "max_iter": 3}
    else:
        options = {**options, "solver": solver, "max_iter": 40, "tol": 1e-3}
    X = target.asarray(V, "float64")
    model = cls(**options)
    if solver == "auto":  # it depends on the device
        options = {**options, "solver": automatic(beta, on_gpu=libraries.on_gpu(X))}
    expected = cls(**options)
    W_expected = expected.fit_transform(V)
    W = model.fit_transform(X)
    for got, wanted in ((W, W_expected), (model.components_, expected.components_)):
        assert type(got) is type(X)
        assert getattr(got, "device", None) == getattr(X, "device", None)
        np.testing.assert_allclose(target.to_numpy(got), wanted, rtol=1e-6, atol=1e-9)
    assert (model.n_iter_, model.n_features_in_) == (expected.n_iter_, 11)
    assert type(model.transform(X)) is type(X)
    np.testing.assert_allclose(
        target.to_numpy(model.inverse_transform(W)), W_expected @ expected.components_, rtol=1e-5
    )
    with pytest.raises(ValueError, match="Negative values in data passed to"):
        cls(**options).fit(target.asarray(V - 5, "float64"))
    with pytest.raises(ValueError, match="X has 10 features, but"):
        model.transform(X[:, :10])
    if type(X) is not np.ndarray:
        with pytest.raises(ValueError, match=r"transform\(\) must use the same namespace"):
            model.transform(V)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@quietly
def test_dtypes_and_the_epsilon(dtype: str) -> None:
    """A factor is as small as its dtype allows: 1e-12 of the data is not rounded up to float32's epsilon."""
    V, W, H = noisy(20, 12, 3)
    X = (1e-6 * V).astype(dtype)
    model = NMF(3, solver="mu", beta_loss=1, init="custom", max_iter=300, tol=0)
    W_small = model.fit_transform(X, W=(1e-6 * W).astype(dtype), H=H.astype(dtype))
    assert (W_small.dtype, model.components_.dtype) == (np.dtype(dtype), np.dtype(dtype))
    W_large = model.fit_transform(V.astype(dtype), W=W.astype(dtype), H=H.astype(dtype))
    np.testing.assert_allclose(1e6 * W_small, W_large, rtol=0, atol=(1e-3 if dtype == "float32" else 1e-9))


@quietly
def test_weights_restarts_callbacks_and_the_history() -> None:
    V, W, H = noisy(20, 12, 3)
    weights = (np.random.default_rng(0).random(V.shape) < 0.8) * 1.0
    spoiled = np.where(weights > 0, V, 1e6)
    options: dict[str, Any] = {"solver": "auto", "beta_loss": 1, "init": "custom"}
    ours = [NMF(3, **options).fit_transform(X, W=W, H=H, weights=weights) for X in (V, spoiled)]
    np.testing.assert_allclose(ours[0], ours[1], rtol=1e-9)

    single = NMF(3, init="random", random_state=0).fit(V)
    best = NMF(3, init="random", random_state=0, n_restarts=5).fit(V)
    assert best.reconstruction_err_ <= single.reconstruction_err_ * (1 + 1e-9)
    assert best.history_[0] >= best.history_[-1]

    seen: list[Any] = []

    def callback(progress: Any) -> bool:
        seen.append(progress)
        return len(seen) == 2

    model = NMF(3, init="random", random_state=0, callback=callback)
    model.fit(V)
    assert (model.n_iter_, len(model.history_), len(seen)) == (20, 3, 2)


@quietly
def test_verbose_prints_the_error(capsys: pytest.CaptureFixture[str]) -> None:
    NMF(2, max_iter=20, solver="mu", verbose=1, random_state=0, tol=1e-12).fit(noisy(8, 7, 2).V)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" after")[0] for line in lines] == ["Epoch 10 reached", "Epoch 20 reached"]
    MiniBatchNMF(2, max_iter=1, batch_size=4, verbose=1, random_state=0).fit(noisy(8, 7, 2).V)
    assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.parametrize("cls", [NMF, MiniBatchNMF])
@quietly
def test_it_lives_among_scikit_learns_tools(cls: Any) -> None:
    X, y = real_data("digits", 1.0), np.arange(150) % 2
    model = cls(4, random_state=0, max_iter=30)
    W = model.fit_transform(X)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.transform(X), model.transform(X))
    file = io.BytesIO()
    joblib.dump(model, file)
    file.seek(0)
    np.testing.assert_array_equal(joblib.load(file).components_, model.components_)
    assert clone(model).get_params() == model.get_params()
    assert list(model.get_feature_names_out()) == [f"{cls.__name__.lower()}{k}" for k in range(4)]

    pipeline = Pipeline([("nmf", clone(model)), ("classify", LogisticRegression(max_iter=1000))])
    search = GridSearchCV(pipeline, {"nmf__n_components": [2, 4]}, cv=2, n_jobs=2).fit(X, y)
    assert search.predict(X).shape == (150,)
    union = FeatureUnion([("a", clone(model)), ("b", clone(model).set_params(n_components=2))])
    assert union.fit_transform(X).shape == (150, 6)
    columns = ColumnTransformer([("left", clone(model), slice(0, 32)), ("right", "passthrough", slice(32, 64))])
    assert columns.fit_transform(X).shape == (150, 4 + 32)
    assert W.shape == (150, 4)


@pytest.mark.parametrize("library", ["pandas", "polars"])
@quietly
def test_data_frames_in_and_out(library: str) -> None:
    frames = pytest.importorskip(library)
    X = frames.DataFrame({f"f{j}": column for j, column in enumerate(noisy(10, 5, 2).V.T)})
    model = NMF(2, random_state=0).set_output(transform=library)
    out = model.fit_transform(X)
    assert isinstance(out, frames.DataFrame)
    assert list(out.columns) == ["nmf0", "nmf1"]
    assert list(model.feature_names_in_) == [f"f{j}" for j in range(5)]
    assert isinstance(model.transform(X), frames.DataFrame)


@quietly
def test_weights_are_routed() -> None:
    V = noisy(20, 12, 3).V
    weights = (np.random.default_rng(0).random(V.shape) < 0.8) * 1.0
    with config_context(enable_metadata_routing=True):
        model = NMF(3, random_state=0, init="random").set_fit_request(weights=True).set_transform_request(weights=False)
        routed = make_pipeline(model).fit(V, weights=weights)[0]
    alone = NMF(3, random_state=0, init="random").fit(V, weights=weights)
    np.testing.assert_array_equal(routed.components_, alone.components_)
    unweighted = NMF(3, random_state=0, init="random").fit(V)
    assert np.abs(unweighted.components_ - alone.components_).max() > 1e-3


@pytest.mark.parametrize("solver", ["mu", "auto"])
@quietly
def test_batches_are_routed(solver: str) -> None:
    rng = np.random.default_rng(0)
    batch, effects = rng.integers(0, 2, size=80), rng.lognormal(0, 0.7, size=(2, 15))
    V = rng.poisson(100 * rng.dirichlet([0.3] * 3, size=80) @ rng.gamma(0.4, size=(3, 15)) * effects[batch]) * 1.0
    model = NMF(3, solver=solver, beta_loss=1.0, init="random", random_state=0, max_iter=1000, tol=1e-6)
    with config_context(enable_metadata_routing=True):
        model.set_fit_request(batch=True).set_transform_request(batch=True)
        pipe = make_pipeline(model).fit(V, batch=batch)
        W = pipe.transform(V, batch=batch)
    fit = pipe[0]
    expected = nmf_xp.nmf(V, 3, beta_loss=1.0, batch=batch, random_state=0, max_iter=1000, tol=1e-8)
    assert fit.reconstruction_err_**2 / 2 == pytest.approx(expected.divergence, rel=0.05)
    rows = np.maximum(np.stack([fit.batch_effects_[i] for i in batch.tolist()]), 1e-30)
    found = nmf_xp.beta_divergence(V, W, fit.components_, beta_loss=1.0, exposure=rows)
    assert float(found) <= fit.reconstruction_err_**2 / 2 * (1 + 1e-4)
    new = fit.transform(V, batch=["another"] * 80)
    assert new.shape == W.shape
    assert NMF(3, init="random", random_state=0).fit(V).batch_effects_ is None
    for options in ({"solver": "auto"}, {}, {"solver": "mu", "beta_loss": 1.0, "alpha_W": 0.1}):
        with pytest.raises(ValueError, match=r"`batch` (needs|cannot go)"):
            NMF(3, init="random", **options).fit(V, batch=batch)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("beta", [0.0, 1.0, 1.5, 2.0])
@pytest.mark.parametrize("fresh", [False, True])
def test_mini_batches_as_scikit_learn(beta: float, kind: str, fresh: bool) -> None:
    """The same components after the same steps; W no worse, as it is the minimum for them."""
    X = real_data("digits", beta)
    X = sp.csr_array(X) if kind == "csr" else X
    options = {"init": "nndsvda", "batch_size": 40, "beta_loss": beta, "max_iter": 8, "fresh_restarts": fresh}
    theirs, _ = fitted(decomposition.MiniBatchNMF, X, **options)
    ours, _ = fitted(MiniBatchNMF, X, **options)
    assert (ours.n_steps_, ours.n_iter_) == (theirs.n_steps_, theirs.n_iter_)
    np.testing.assert_allclose(ours.components_, theirs.components_, rtol=0, atol=1e-8 * theirs.components_.max())
    assert ours.reconstruction_err_**2 <= 1.01 * theirs.reconstruction_err_**2
    without_tol = {**options, "tol": 0, "max_no_improvement": None}
    theirs, W_theirs = fitted(decomposition.MiniBatchNMF, X, **without_tol)
    ours, W = fitted(MiniBatchNMF, X, **without_tol)
    np.testing.assert_allclose(W, W_theirs, rtol=0, atol=1e-8 * W_theirs.max())
    assert ours.reconstruction_err_ == pytest.approx(theirs.reconstruction_err_, rel=1e-8)
    for chunk in (X[:60], X[60:]):
        theirs = theirs.partial_fit(chunk)
        ours = ours.partial_fit(chunk)
    np.testing.assert_allclose(ours.components_, theirs.components_, rtol=0, atol=1e-8 * theirs.components_.max())


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("fresh", [False, True])
def test_mini_batches_with_penalties_as_scikit_learn(beta: float, fresh: bool) -> None:
    """Both penalties on both factors, in fits and in further batches."""
    X = noisy(60, 12, 4).V + 0.1
    penalties = {"alpha_W": 0.01, "alpha_H": 0.02, "l1_ratio": 0.3}
    options = {"init": "nndsvda", "batch_size": 16, "beta_loss": beta, "max_iter": 4, "fresh_restarts": fresh}
    options |= {"tol": 0, "max_no_improvement": None, "fresh_restarts_max_iter": 5, **penalties}
    theirs, _ = fitted(decomposition.MiniBatchNMF, X, **options)
    ours, _ = fitted(MiniBatchNMF, X, **options)
    np.testing.assert_allclose(ours.components_, theirs.components_, rtol=0, atol=1e-8 * theirs.components_.max())
    theirs, ours = theirs.partial_fit(X[:20]), ours.partial_fit(X[:20])
    np.testing.assert_allclose(ours.components_, theirs.components_, rtol=0, atol=1e-8 * theirs.components_.max())


def test_partial_fit_from_nothing() -> None:
    X = real_data("digits", 1.0)
    theirs, ours = (cls(4, random_state=0, batch_size=30) for cls in (decomposition.MiniBatchNMF, MiniBatchNMF))
    for start in range(0, 150, 30):
        theirs.partial_fit(X[start : start + 30])
        ours.partial_fit(X[start : start + 30])
    assert ours.n_steps_ == theirs.n_steps_ == 5
    np.testing.assert_allclose(ours.components_, theirs.components_, rtol=0, atol=1e-8 * theirs.components_.max())


def test_nothing_that_was_given_is_changed() -> None:
    """What the estimators are given is left as it was."""
    V, W, H = noisy(12, 9, 3)
    copies = [x.copy() for x in (V, W, H)]
    non_negative_factorization(V, W, H, 3, init="custom", max_iter=3, tol=0)
    MiniBatchNMF(3, init="custom", batch_size=5, max_iter=2, tol=0).fit(V, W=W, H=H)
    for x, copy in zip((V, W, H), copies, strict=True):
        np.testing.assert_array_equal(x, copy)


def test_without_scikit_learn_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['sklearn'] = None; import nmf_xp.sklearn"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert 'nmf_xp.sklearn needs scikit-learn: pip install "nmf_xp[sklearn]"' in done.stderr


@pytest.mark.parametrize("behind", [np.nan, np.inf, -1.0, 1e20])
@pytest.mark.parametrize("kind", ["numpy", "torch", "csr"])
def test_what_stands_behind_a_weight_of_zero_is_not_read(kind: str, behind: float) -> None:
    rng = np.random.default_rng(0)
    X = rng.gamma(1, 1, (20, 3)) @ rng.gamma(1, 1, (3, 12))
    seen = rng.random(X.shape) < 0.8
    spoiled = np.where(seen, X, behind)
    to: Any = np.asarray
    if kind == "torch":
        to = pytest.importorskip("torch", reason="torch is not installed").asarray
    weights = to(seen.astype(float))
    given, clean = (to(x) if kind != "csr" else sp.csr_array(x) for x in (spoiled, X))
    options: dict[str, Any] = {"random_state": 0, "tol": 1e-2, "max_iter": 3000}
    for model in (
        NMF(3, **options),
        NMF(3, solver="mu", beta_loss=1, init="random", **options),
        NMF(3, solver="mu", beta_loss=0, init="random", **options),
        MiniBatchNMF(3, **options),
    ):
        expected = model.fit_transform(clean, weights=weights)
        loadings = model.transform(clean, weights=weights)
        np.testing.assert_array_equal(model.fit_transform(given, weights=weights), expected)
        np.testing.assert_array_equal(model.transform(given, weights=weights), loadings)
        if not np.isfinite(behind):
            with pytest.raises(ValueError, match=r"NaN|infinity|Negative"):
                model.fit(given)
            with pytest.raises(ValueError, match=r"NaN|infinity|finite|Negative"):
                model.fit(given, weights=weights * 0 + 1)


def test_a_masked_array_is_refused_by_the_estimators_with_what_to_pass() -> None:
    X = np.random.default_rng(0).random((8, 5))
    masked = np.ma.masked_greater(X, 0.8)
    model = NMF(2, random_state=0, tol=1e-2, max_iter=3000)
    with pytest.raises(TypeError, match=r"`X` must .* `\.data`, with `weights=~numpy.ma.getmaskarray\(X\)`"):
        model.fit(masked)
    model.fit(masked.data, weights=~np.ma.getmaskarray(masked))
    model.fit(np.ma.MaskedArray(X))  # without a masked entry it is scikit-learn's array


def test_scikit_learn_is_wrong_for_sparse_matrices_by_columns() -> None:
    """What "Coming from scikit-learn" says of CSC; it pairs the model by rows with the data by columns."""
    X = np.random.default_rng(0).poisson(1.0, size=(30, 20)) * 1.0
    options: dict[str, Any] = {"solver": "mu", "beta_loss": "kullback-leibler", "init": "random", "random_state": 0}
    options |= {"n_components": 3, "max_iter": 200}

    def divergence(function: Any, kind: Any) -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            W, H, _ = function(kind(X), **options)
        return float(nmf_xp.beta_divergence(X, W, H, beta_loss=1))

    theirs = [divergence(decomposition.non_negative_factorization, kind) for kind in (sp.csr_matrix, sp.csc_matrix)]
    ours = [divergence(non_negative_factorization, kind) for kind in (sp.csr_matrix, sp.csc_matrix)]
    assert ours[1] == pytest.approx(ours[0], rel=1e-9)
    assert ours[0] <= theirs[0] * (1 + 1e-6)
    assert theirs[1] > 1.05 * theirs[0], (
        "scikit-learn has mended its products with CSC: take the section out of docs/coming-from-scikit-learn.md, the "
        "sentence out of docs/how-to/single-cells.md, and this test"
    )
