"""Which noise: the probabilities against SciPy's and sums, and planted and real data."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import scipy.sparse
from scipy import stats
from sklearn.datasets import load_digits, load_sample_image

import nmf_xp
from nmf_xp import LossComparison, NegativeBinomial, Robust, RowBlocks, compare_losses, nmf, plot
from nmf_xp.selection import noise
from tests.compiled import eagerly

if TYPE_CHECKING:
    from nmf_xp.testing import Target

COUNTS = Path(__file__).parents[1] / "corpus" / "breast_cancer_mutations.tsv"


def means(seed: int, *, size: float = 20.0, m: int = 60, n: int = 40) -> Any:
    """Of rank 3, between a tenth and ten times their size."""
    rng = np.random.default_rng(seed)
    return size * rng.gamma(1.0, size=(m, 3)) @ rng.gamma(1.0, size=(3, n)) / 3 + 0.05 * size


def cancers() -> Any:
    return np.loadtxt(COUNTS, skiprows=1, usecols=range(1, 22), delimiter="\t")


def test_the_probabilities_of_counts_are_scipys_and_add_up() -> None:
    v = np.arange(400.0)
    for y in (0.01, 7.3, 60.0):
        Y = np.full(v.shape, y)
        np.testing.assert_allclose(noise.poisson(v, Y, 1.0), stats.poisson.logpmf(v, y), rtol=1e-12)
        for alpha in (1e-4, 0.3, 5.0):
            expected = stats.nbinom.logpmf(v, 1 / alpha, 1 / (1 + alpha * y))
            np.testing.assert_allclose(noise.negative_binomial(v, Y, alpha), expected, rtol=1e-8, atol=1e-9)
        nearly = noise.negative_binomial(v[:20], Y[:20], 1e-13)
        np.testing.assert_allclose(nearly, stats.poisson.logpmf(v[:20], y), rtol=1e-8)
        for variance in (1e-3, 1.0, 40.0):
            found = noise.rounded_gaussian(v, Y, variance)
            assert np.exp(found).sum() == pytest.approx(1.0, abs=1e-9)
            inner = stats.norm.cdf(v[1:20] + 0.5, y, variance**0.5) - stats.norm.cdf(v[1:20] - 0.5, y, variance**0.5)
            np.testing.assert_allclose(np.exp(found[1:20]), inner, atol=1e-12)
    assert noise.rounded_gaussian(np.asarray([1000.0]), np.asarray([1.0]), 1.0)[0] < -1e5


@pytest.mark.parametrize("p", [1.02, 1.2, 1.5, 1.8, 1.95])
@pytest.mark.parametrize("phi", [0.003, 0.1, 1.0, 5.0])
@pytest.mark.parametrize("y", [0.2, 5.0])
def test_tweedies_density_and_its_zero_add_up_to_one_with_the_mean_and_the_variance(
    p: float, phi: float, y: float
) -> None:
    def log_density(v: Any) -> Any:
        return noise.tweedie(v, np.full(v.shape, y), phi, p=p)

    logs = np.linspace(-690.0 if p > 1.9 else -60.0, np.log(y + 60 * (phi * y**p) ** 0.5), 400_001)
    v = np.exp(logs)
    weight = np.exp(log_density(v) + logs)
    zero = float(np.exp(log_density(np.zeros(1)))[0])
    assert np.trapezoid(weight, logs) + zero == pytest.approx(1.0, abs=1e-3)
    assert np.trapezoid(weight * v, logs) == pytest.approx(y, rel=1e-3)
    assert np.trapezoid(weight * (v - y) ** 2, logs) + zero * y * y == pytest.approx(phi * y**p, rel=2e-3)


def test_the_second_half_of_a_count_is_known_from_the_first() -> None:
    """By Bayes' rule, from a count with the mean 2 y of which a half is drawn."""
    first, second = (x.ravel().astype(float) for x in np.meshgrid(np.arange(12), np.arange(12)))
    y, alpha = 3.0, 0.4
    half = noise.noise_of(NegativeBinomial(alpha), counts=True, zeros=False)
    both = noise.negative_binomial(first + second, np.asarray(2 * y), alpha)
    both = both + stats.binom.logpmf(first, first + second, 0.5)
    expected = both - noise.negative_binomial(first, np.asarray(y), alpha)
    found = half.log_probability(second, *half.after(first, np.asarray(y), alpha))
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    plain = noise.noise_of("kullback-leibler", counts=True, zeros=False)
    assert plain.after(first, first, 1.0)[0] is first


def test_dispersions_of_lines_are_compared_by_name() -> None:
    rng, Y = np.random.default_rng(0), means(0)
    V = rng.poisson(Y * rng.gamma(4.0, 0.25, Y.shape))
    losses: list[Any] = ["kullback-leibler", "negative-binomial", NegativeBinomial("column"), NegativeBinomial("row")]
    comparison = compare_losses(V, 3, losses, n_splits=2, random_state=0)
    names = ["Poisson", "negative binomial", "negative binomial by column", "negative binomial by row"]
    assert comparison.table["noise"].tolist() == names
    assert comparison.noise.startswith("negative binomial")


def test_tweedie_is_a_sum_of_gammas() -> None:
    """Against the probability that as many as j of Poisson's are gamma's, written out."""
    p, phi, y = 1.4, 0.7, 3.0
    v = np.linspace(0.01, 20.0, 50)
    rate, shape, scale = y ** (2 - p) / (phi * (2 - p)), (2 - p) / (p - 1), phi * (p - 1) * y ** (p - 1)
    expected = sum(stats.poisson.pmf(j, rate) * stats.gamma.pdf(v, j * shape, scale=scale) for j in range(1, 100))
    np.testing.assert_allclose(np.exp(noise.tweedie(v, np.full(50, y), phi, p=p)), expected, rtol=1e-10)


def test_the_densities_are_scipys() -> None:
    v, y = np.linspace(0.1, 30.0, 40), np.full(40, 6.0)
    np.testing.assert_allclose(noise.gamma(v, y, 0.4), stats.gamma.logpdf(v, 2.5, scale=2.4), rtol=1e-12)
    np.testing.assert_allclose(noise.gaussian(v, y, 4.0), stats.norm.logpdf(v, 6.0, 2.0), rtol=1e-12)
    cut = noise.cut_gaussian(np.asarray([0.0, 1.0]), np.full(2, 1.5), 4.0)
    np.testing.assert_allclose(cut, [stats.norm.logcdf(0, 1.5, 2.0), stats.norm.logpdf(1, 1.5, 2.0)], rtol=1e-12)


@pytest.mark.parametrize("seed", range(2))
def test_planted_counts(seed: int) -> None:
    rng, Y = np.random.default_rng(seed), means(seed)
    comparison = compare_losses(rng.poisson(Y), 3, random_state=seed)
    assert comparison.recommended == "kullback-leibler"
    assert comparison.noise == "Poisson"
    assert comparison.table["pearson"][0] == pytest.approx(1.0, abs=0.1)
    comparison = compare_losses(rng.poisson(Y * rng.gamma(4.0, 0.25, Y.shape)), 3, random_state=seed)
    assert comparison.recommended == NegativeBinomial()
    assert not comparison.weak
    assert comparison.table["dispersion"][1] == pytest.approx(0.25, rel=0.2)
    assert comparison.best.noise is not None


def test_a_negative_binomial_without_a_dispersion_is_poissons() -> None:
    """In these counts it predicts better by a ten-thousandth, which is more than two standard errors."""
    V = np.random.default_rng(106).poisson(means(106))
    comparison = compare_losses(V, 3, n_splits=3, n_restarts=2, max_iter=300, random_state=106)
    assert comparison.table["dispersion"][1] < 1e-5
    assert comparison.noise == "Poisson"
    assert not comparison.weak


@pytest.mark.parametrize("seed", range(2))
def test_planted_numbers(seed: int) -> None:
    rng, Y = np.random.default_rng(seed), means(seed)
    comparison = compare_losses(rng.gamma(10.0, Y / 10), 3, random_state=seed)
    assert comparison.noise == "gamma"
    assert comparison.table["dispersion"][2] == pytest.approx(0.1, rel=0.2)
    comparison = compare_losses(abs(rng.normal(Y, 2.0)), 3, random_state=seed)
    assert comparison.noise == "Gaussian"
    assert not comparison.weak
    assert comparison.table["dispersion"][0] == pytest.approx(4.0, rel=0.2)
    gammas = rng.poisson(2 * Y**0.5)  # Tweedie with p = 1.5 and phi = 1
    comparison = compare_losses(rng.gamma(np.maximum(gammas, 1e-300), Y**0.5 / 2), 3, random_state=seed)
    assert comparison.noise == "Tweedie 1.5"
    assert comparison.table["dispersion"][1] == pytest.approx(1.0, rel=0.2)


def test_counts_of_cancers_are_overdispersed_and_an_image_is_none_of_counts() -> None:
    comparison = compare_losses(cancers(), 3, random_state=0)
    assert comparison.noise == "negative binomial"
    assert not comparison.weak
    assert comparison.table["pearson"][0] == pytest.approx(2.47, abs=0.05)
    image = load_sample_image("china.jpg")[::6, ::6].mean(axis=2) / 255
    assert image.min() == 0
    found = compare_losses(image, 3, random_state=0, n_restarts=1)
    assert found.noise == "Gaussian"
    assert list(found.table["noise"]) == ["Gaussian", "Tweedie 1.5"]
    assert not found.weak


def test_a_variance_that_is_not_the_noises_is_a_doubt() -> None:
    rng, Y = np.random.default_rng(0), means(0, size=100.0)
    V = np.maximum(np.round(rng.normal(Y, 0.2 * Y**0.5)), 0)
    assert any("varies only" in doubt for doubt in compare_losses(V, 3, random_state=0).doubts)
    V = rng.poisson(Y * rng.gamma(1.0, 1.0, Y.shape))
    doubts = compare_losses(V, 3, ["kullback-leibler", NegativeBinomial(0.01)], random_state=0).doubts
    assert any("times as much as" in doubt for doubt in doubts)
    V = rng.poisson(np.full((12, 8), 2.0))
    assert compare_losses(V, 1, [1, NegativeBinomial(0.01)], random_state=0).weak


@eagerly
def test_on_every_backend(target: Target) -> None:
    V = np.random.default_rng(0).poisson(means(0, m=20, n=12)).astype(float)
    options: dict[str, Any] = {"random_state": 0, "n_splits": 2, "n_restarts": 1, "max_iter": 100}
    expected, found = (compare_losses(x, 2, [1, 2], **options) for x in (V, target.asarray(V)))
    assert found.recommended == expected.recommended
    np.testing.assert_allclose(found.table["log_probability"], expected.table["log_probability"], rtol=1e-4)
    assert type(found.best.W) is type(target.asarray(V))


def test_a_sparse_matrix_gives_what_the_dense_one_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    V = np.random.default_rng(0).poisson(0.1 * means(0, size=5.0)).astype(float)
    options: dict[str, Any] = {"random_state": 0, "n_splits": 2, "tol": 1e-7, "max_iter": 2000}
    losses = ["kullback-leibler", "frobenius"]
    dense = compare_losses(V, 3, losses, **options)
    monkeypatch.setattr(nmf_xp.data.sparse.Sparse, "dense", None)
    for kind in (scipy.sparse.csr_array, scipy.sparse.coo_array):
        found = compare_losses(kind(V), 3, losses, **options)
        assert found.recommended == dense.recommended
        # The halves are drawn entry by entry, and others are stored.
        np.testing.assert_allclose(found.table["log_probability"], dense.table["log_probability"], atol=0.03)
        np.testing.assert_allclose(found.table["pearson"], dense.table["pearson"], rtol=1e-2)


def test_what_comes_back() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(cancers(), index=[f"kind {i}" for i in range(96)])
    before = frame.copy()
    comparison = compare_losses(frame, 3, ["kullback-leibler", NegativeBinomial()], random_state=0, n_splits=2)
    assert isinstance(comparison, LossComparison)
    pandas.testing.assert_frame_equal(frame, before)
    assert comparison.best.row_names is not None
    assert comparison.best.row_names[0] == "kind 0"
    table = comparison.to_frame()
    assert list(table.columns) == ["noise", "log_probability", "error", "pearson", "dispersion"]
    assert np.isnan(table["dispersion"][0])
    text = str(comparison)
    assert text == repr(comparison)
    assert text.splitlines()[0].split() == ["noise", "log", "prob.", "error", "Pearson", "dispersion"]
    assert text.splitlines()[1].split()[0] == "Poisson"
    assert "Recommended: negative binomial, beta_loss=NegativeBinomial(dispersion='global')." in text
    assert "<table" in comparison._repr_html_()
    np.testing.assert_allclose(comparison.differences, -comparison.differences.T)
    assert (comparison.errors == comparison.errors.T).all()
    assert comparison.errors[0, 0] == 0
    again = compare_losses(frame, 3, ["kullback-leibler", NegativeBinomial()], random_state=0, n_splits=2)
    np.testing.assert_array_equal(again.table["log_probability"], comparison.table["log_probability"])
    nmf(frame, 3, beta_loss=comparison.recommended, random_state=0, max_iter=20)
    for kind in ("polars", "pyarrow"):
        pytest.importorskip(kind)
        assert comparison.to_frame(kind=kind).shape == (2, 5)


@pytest.mark.parametrize("shape", [(60, 1), (1, 40)])
def test_a_dispersion_of_each_row_or_column_is_taken(shape: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many numbers as lines, here all the same, are as good as the one."""
    V = np.random.default_rng(0).poisson(means(0))
    options: dict[str, Any] = {"losses": [1, NegativeBinomial(0.1)], "n_splits": 2, "random_state": 0, "max_iter": 50}
    one = compare_losses(V, 3, **options)

    def several(*args: Any, **given: Any) -> Any:
        result = nmf(*args, **given)
        dispersion = SimpleNamespace(dispersion=np.full(shape, 0.1))
        return result if result.noise is None else dataclasses.replace(result, noise=dispersion)  # type: ignore[arg-type]

    monkeypatch.setattr("nmf_xp.selection.losses.nmf", several)
    monkeypatch.setattr("nmf_xp.selection.splits.AT_ONCE", 400)
    found = compare_losses(V, 3, **options)
    for name in ("log_probability", "error", "pearson", "dispersion"):
        np.testing.assert_allclose(found.table[name], one.table[name], rtol=1e-9)
    np.testing.assert_allclose(found.errors, one.errors, rtol=1e-6)


def test_its_picture() -> None:
    pytest.importorskip("matplotlib")
    comparison = compare_losses(cancers(), 3, random_state=0, n_splits=2)
    axes = plot.losses(comparison)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["Poisson", "negative binomial", "Gaussian"]
    drawn = axes.containers[0].lines[0].get_xdata()
    np.testing.assert_allclose(drawn, comparison.differences[:, 1])
    assert drawn[1] == 0


BAD: list[tuple[Any, Any, str]] = [
    ("counts", [1, Robust()], "a robust loss is no probability"),
    ("counts", [1, 1.5], "got beta 1.5, which is the loss of no noise"),
    ("counts", [1, "frobenus"], "`beta_loss` must be one of"),
    ("counts", [1], "at least two losses"),
    ("counts", [1, "kullback-leibler"], "each of another noise"),
    ("counts", "kullback-leibler", "must be several losses"),
    ("counts", [1, 0.5], "Poisson is a probability and Tweedie 1.5 a density"),
    ("positive", [NegativeBinomial(), "itakura-saito"], "negative binomial is a probability and gamma a density"),
    ("numbers", [1, 2], "`V` must have whole numbers for Poisson"),
    ("numbers", [0, 2], "`V` must be positive for gamma"),
    ("zeros", [1, 2], "got zeros only"),
    ("one", [1, 2], "must have enough counts"),
    ("few", [2, 0], "at most half as many as V has entries, 6"),
    ("far", [2, 0], "must have positive entries from 1e-100 to 1e+100"),
    ("stack", [1, 2], "must be one matrix, got a stack"),
    ("blocks", [1, 2], "must be whole in memory"),
]


@pytest.mark.parametrize(("kind", "losses", "message"), BAD)
def test_what_cannot_be_compared(kind: str, losses: Any, message: str) -> None:
    V = np.random.default_rng(0).poisson(5.0, size=(9, 7)).astype(float)
    data: Any = {
        "counts": V,
        "positive": V + 1,
        "numbers": V * 0.3,
        "zeros": 0 * V,
        "one": np.eye(1, 3),
        "few": V[:2, :3] + 0.5,
        "far": (V + 0.5) * 1e-200,
        "stack": V[None],
        "blocks": RowBlocks([V]),
    }[kind]
    with pytest.raises((TypeError, ValueError)) as caught:
        compare_losses(data, 2, losses, random_state=2)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_hostile_counts() -> None:
    """Empty rows and columns, one huge count, a matrix of one column, booleans and 8-bit integers."""
    rng = np.random.default_rng(0)
    V = rng.poisson(means(0, m=20, n=12)).astype(float)
    V[3], V[:, 2] = 0, 0
    V[5, 5] = 1e9
    for data in (V, V[:, :1], (V > 5), np.minimum(V, 100).astype(np.uint8), scipy.sparse.csr_array(V)):
        comparison = compare_losses(data, 1, random_state=0, n_splits=2, max_iter=50)
        assert np.isfinite(comparison.table["log_probability"]).all()
        assert np.isfinite(comparison.errors).all()
    exact = np.outer(np.arange(1.0, 30), np.arange(1.0, 20)) + 0.5 * np.ones((29, 19))
    assert np.isfinite(compare_losses(exact, 2, random_state=0, n_splits=2).table["log_probability"]).all()
    assert compare_losses(load_digits().data[:100], 5, random_state=0, n_splits=2).table["noise"].size == 3
