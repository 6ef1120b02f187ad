"""Choosing the rank: each measure against what it must be, the rules on made curves, and the whole on planted ranks."""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from nmf_xp import CheckpointError, NegativeBinomial, consensus_factors, nmf, select_rank, selection
from nmf_xp.arrays import blas
from nmf_xp.divergences import beta_divergence
from nmf_xp.problem.posing import pose
from nmf_xp.selection import evidence, held_out, relevance, rules
from nmf_xp.selection.consensus import consensus_matrix, cophenetic_correlation, dispersion, leaf_order
from nmf_xp.selection.merging import mean_silhouette, merge
from nmf_xp.selection.stability import amari_distance, stability

if TYPE_CHECKING:
    from pathlib import Path

    from nmf_xp.testing import Target

scipy = pytest.importorskip("scipy", reason="scipy is not installed")


def planted(rank: int, *, seed: int = 0, m: int = 60, n: int = 40) -> Any:
    rng = np.random.default_rng(seed)
    return rng.poisson(20 * rng.gamma(0.5, size=(m, rank)) @ rng.gamma(0.5, size=(rank, n))).astype(float)


def test_consensus_is_the_mean_of_the_connectivity_matrices() -> None:
    labels = np.random.default_rng(0).integers(3, size=(7, 5))
    expected = np.mean([[[a == b for a in run] for b in run] for run in labels], axis=0)
    np.testing.assert_allclose(consensus_matrix(labels), expected, rtol=1e-15)


def test_dispersion_and_cophenetic_correlation_at_their_ends() -> None:
    agree = consensus_matrix(np.asarray([[0, 0, 1, 1, 2], [2, 2, 0, 0, 1]]))  # renumbered groups are the same groups
    assert dispersion(agree) == cophenetic_correlation(agree) == 1.0
    assert dispersion(np.full((4, 4), 0.5)) == 0
    assert cophenetic_correlation(np.ones((1, 1))) == cophenetic_correlation(np.ones((4, 4))) == 1.0


def test_cophenetic_correlation_by_the_definition() -> None:
    """Three columns: the closest pair is joined, and the third at the mean of its two distances."""
    C = np.asarray([[1, 0.9, 0.4], [0.9, 1, 0.2], [0.4, 0.2, 1]])
    expected = np.corrcoef([0.1, 0.6, 0.8], [0.1, 0.7, 0.7])[0, 1]
    assert cophenetic_correlation(C) == pytest.approx(expected, rel=1e-12)
    assert set(leaf_order(C)[:2]) == {0, 1} or set(leaf_order(C)[1:]) == {0, 1}


def test_stability_ignores_the_order_and_scale_of_components(target: Target) -> None:
    rng = np.random.default_rng(0)
    W, H = rng.random((20, 4)), rng.random((4, 12))
    order, scale = rng.permutation(4), rng.uniform(0.1, 10, size=4)
    restarts = np.stack([W, (W * scale)[:, order]]), np.stack([H, (H / scale[:, None])[order]])
    xp = target.xp
    same = stability(*(target.asarray(x) for x in restarts), xp=xp)
    assert same.matched == pytest.approx(1, abs=1e-6)
    assert same.amari == pytest.approx(0, abs=1e-6)
    other = rng.random((20, 4)), rng.random((4, 12))
    apart = stability(
        *(target.asarray(np.stack([mine, theirs])) for mine, theirs in zip((W, H), other, strict=True)), xp=xp
    )
    cosines = [
        [np.sum(np.outer(W[:, i], H[i]) * np.outer(other[0][:, j], other[1][j])) for j in range(4)] for i in range(4)
    ]
    lengths = [np.asarray([np.linalg.norm(np.outer(w[:, i], h[i])) for i in range(4)]) for w, h in ((W, H), other)]
    similarity = np.asarray(cosines) / np.outer(lengths[0], lengths[1])
    best = max(similarity[range(4), list(p)].mean() for p in itertools.permutations(range(4)))
    assert apart.matched == pytest.approx(best, rel=1e-5)
    assert apart.amari == pytest.approx(amari_distance(similarity), rel=1e-5)


def test_amari_distance_at_its_ends() -> None:
    assert amari_distance(np.eye(5)[[1, 0, 4, 2, 3]]) == 0
    assert amari_distance(np.zeros((3, 3))) == 1


def test_what_is_held_out_is_never_read_in_training() -> None:
    """Each fold's model must be that of a run on V with anything in the place of the fold's entries."""
    V, seed = planted(2, m=12, n=9), 5
    options: dict[str, Any] = {"beta_loss": 1.0, "solver": "mu", "max_iter": 30, "tol": 1e-4}
    loss = held_out.speckled(V, weights=None, n_folds=3, starts=2, seed=seed, options=options, xp=np)(3)
    fold_of = np.random.default_rng([seed, 0]).permutation(np.arange(V.size) % 3).reshape(V.shape)
    for fold in range(3):
        out = fold_of == fold
        spoiled = np.where(out, 1e3, V)
        rng = np.random.default_rng([seed, 1, 3, fold])
        first = nmf(spoiled, 3, weights=~out, n_restarts=2, random_state=rng, **options)
        mine = nmf(spoiled, 3, weights=~out, init=(first.W, first.H), **options)
        simple = nmf(spoiled, 1, weights=~out, random_state=0, **options)
        Y = 0.95 * mine.W @ mine.H + 0.05 * simple.W @ simple.H
        entries = V[out], Y[out]
        expected = sum(v * np.log(v / y) - v + y if v else y for v, y in zip(*entries, strict=True)) / out.sum()
        assert loss[fold] == pytest.approx(expected, rel=1e-9)


def test_bi_cross_validation_predicts_an_exact_model() -> None:
    rng = np.random.default_rng(0)
    W, H = rng.gamma(0.5, size=(30, 2)), rng.gamma(0.5, size=(2, 20))
    # Rows and columns of one component alone: the model is unique, and no held-out row is beyond it.
    W[::3, 0] = W[1::3, 1] = H[0, ::3] = H[1, 1::3] = 0.0
    V = W @ H
    options = {"beta_loss": 2.0, "solver": "cd", "max_iter": 500, "tol": 1e-9}
    losses = held_out.bi_cross(V, weights=None, n_folds=4, starts=2, seed=0, options=options, xp=np)
    one, two = losses(1).mean(), losses(2).mean()
    share = held_out.RANK_ONE_SHARE**2  # of the error of rank one, which is mixed in, is all that is left
    assert two == pytest.approx(share * one, rel=1e-3)
    assert one > 1e-3


def test_weights_of_zero_take_entries_out_of_both_cross_validations() -> None:
    V = planted(2, m=16, n=12)
    weights = (np.random.default_rng(1).random(V.shape) < 0.8).astype(float)
    spoiled = np.where(weights > 0, V, 1e3)
    for rule in ("held-out", "bi-cross-validation"):
        options: dict[str, Any] = {"rule": rule, "n_restarts": 2, "n_folds": 3, "beta_loss": 1, "random_state": 0}
        clean, dirty = (select_rank(x, [1, 2], weights=weights, **options) for x in (V, spoiled))
        for name, column in clean.table.items():
            np.testing.assert_array_equal(column, dirty.table[name], err_msg=name)


RANKS = [2, 3, 4, 5]
NOISE = np.asarray([0.0, 0.1, -0.1, 0.05, -0.05])


def curve(*means: float) -> Any:
    return np.asarray(means)[:, None] + np.asarray([NOISE * i for i in range(len(means))])


def test_the_least_rank_that_predicts_as_well_is_chosen() -> None:
    clear = rules.by_prediction(RANKS, curve(9, 2, 2.5, 3), rule="held-out")
    assert clear == (3, "held-out", ())
    near = rules.by_prediction(RANKS, curve(9, 2, 1.99, 3), rule="held-out")  # better by far less than the error
    assert near.rank == 3
    assert near.doubts == ("rank 4 predicts better, by less than the error of the comparison",)


def test_a_rank_at_the_edge_is_weak_evidence() -> None:
    assert rules.by_prediction(RANKS, curve(9, 8, 7, 6), rule="held-out").doubts == (
        "it is the largest rank that was tried",
    )
    assert rules.by_prediction(RANKS, curve(1, 2, 3, 4), rule="held-out").doubts == (
        "it is the least rank that was tried",
    )
    assert not rules.by_prediction([1, 2], curve(1, 2), rule="held-out").doubts  # there is no rank below 1


def test_the_cophenetic_rule_takes_the_rank_before_the_first_fall() -> None:
    level = np.ones(4)
    assert rules.by_cophenetic(RANKS, np.asarray([0.98, 0.99, 0.9, 0.95]), level) == (3, "cophenetic", ())
    slight = rules.by_cophenetic(RANKS, np.asarray([0.98, 0.99, 0.989, 0.9]), level)
    assert slight.rank == 3
    assert slight.doubts == ("the cophenetic correlation falls by 0.001 only",)
    edge = ("it is the largest rank that was tried",)
    assert rules.by_cophenetic(RANKS, level, level) == (5, "cophenetic", edge)


def test_where_the_cophenetic_correlation_is_level_the_dispersion_falls() -> None:
    correlation = np.asarray([0.98, 1.0, 1.0 - 1e-15, 0.9])
    found = rules.by_cophenetic(RANKS, correlation, np.asarray([0.5, 1.0, 0.75, 0.6]))
    doubt = "the cophenetic correlation does not fall, only the dispersion does, by 0.25"
    assert found == (3, "cophenetic", (doubt,))
    rising = rules.by_cophenetic(RANKS, np.asarray([0.8, 0.9, 0.99, 0.9]), np.asarray([1.0, 0.9, 0.8, 0.7]))
    assert rising == (4, "cophenetic", ())  # the correlation decides wherever it moves


def test_restarts_that_disagree_can_have_a_cophenetic_correlation_of_one() -> None:
    """One of three restarts splits the second group: the consensus is a tree, but no agreement."""
    labels = np.asarray([[0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 2, 2]])
    consensus = consensus_matrix(labels)
    assert cophenetic_correlation(consensus) == pytest.approx(1, abs=rules.ROUNDING)
    assert dispersion(consensus) < 0.9


def test_the_stability_rule_takes_the_least_amari_distance() -> None:
    assert rules.by_stability(RANKS, np.asarray([0.1, 0.02, 0.2, 0.3])) == (3, "stability", ())
    rival = rules.by_stability(RANKS, np.asarray([0.1, 0.02, 0.025, 0.3]))
    assert rival == (3, "stability", ("as stable, up to 0.01: rank 4",))


def test_rank_one_is_no_evidence_of_agreement() -> None:
    """All columns are in its one group, whatever V is."""
    least = "it is the least rank that was compared, as agreement at rank 1 is no evidence"
    assert rules.by_cophenetic([1, 2, 3, 4], np.asarray([1.0, 0.98, 0.99, 0.9]), np.ones(4)) == (3, "cophenetic", ())
    assert rules.by_cophenetic([1, 2, 3], np.asarray([1.0, 0.99, 0.9]), np.ones(3)) == (2, "cophenetic", (least,))
    assert rules.by_stability([1, 2, 3, 4], np.asarray([0.0, 0.1, 0.02, 0.2])) == (3, "stability", ())
    assert rules.by_stability([1, 2, 3], np.asarray([0.0, 0.01, 0.2])) == (2, "stability", (least,))
    edge = ("it is the largest rank that was tried", least)
    assert rules.by_stability([1, 2], np.asarray([0.0, 0.3])) == (2, "stability", edge)
    assert rules.by_cophenetic([1, 2], np.asarray([1.0, 0.9]), np.ones(2)) == (2, "cophenetic", edge)


def test_a_fall_by_rounding_is_none() -> None:
    falling = np.asarray([1.0, 1.0 - 1e-15, 0.99, 0.9])
    assert rules.by_cophenetic(RANKS, falling, np.asarray([1.0, 1.0 - 1e-15, 0.9, 0.8])).rank == 3


@pytest.mark.parametrize("rule", ["cophenetic", "stability"])
@pytest.mark.parametrize("rank", [2, 3, 4])
def test_a_planted_rank_is_found_from_one_on(rule: str, rank: int) -> None:
    V = np.random.default_rng(0).poisson(np.kron(np.eye(rank), np.ones((15, 10))) * 20 + 1)
    found = select_rank(V, range(1, rank + 3), rule=rule, n_restarts=6, beta_loss=1, random_state=0)
    assert found.rank == rank


def test_what_is_rounding_is_shown_as_zero() -> None:
    V = np.kron(np.eye(3), np.ones((12, 8))) * 5.0  # rank 3 fits exactly, and all restarts agree
    found = select_rank(V, range(1, 5), n_restarts=4, n_folds=3, random_state=0, max_iter=3000, tol=1e-12)
    assert found.table["amari"][2] == 0
    assert found.table["matched"][2] == 1
    lines = [line.split() for line in str(found).splitlines()[:-1]]
    shown = dict(zip(lines[0], lines[3], strict=True))
    assert 0 < found.table["divergence"][2] < 1e-9 or found.table["divergence"][2] == 0
    assert shown["divergence"] == shown["amari"] == "0"
    page = found._repr_html_()
    assert all(f">{cell}</td>" in page for line in lines[1:] for cell in line)
    assert "Recommended: rank 3" in page


@pytest.mark.parametrize("rule", ["held-out", "bi-cross-validation", "relevance", "cophenetic"])
@pytest.mark.parametrize("kind", ["nan", "unstored"])
def test_missing_entries_are_entries_of_weight_zero(rule: str, kind: str) -> None:
    sparse = pytest.importorskip("scipy.sparse", reason="scipy is not installed")
    V = planted(2, m=24, n=18) + 1.0
    seen = np.random.default_rng(1).random(V.shape) < 0.8
    options: dict[str, Any] = {"rule": rule, "n_restarts": 3, "n_folds": 3, "beta_loss": 1, "random_state": 0}
    options["max_iter"] = 30
    expected = select_rank(np.where(seen, V, 1e9), [1, 2], weights=seen, **options)
    if kind == "nan":
        found = select_rank(np.where(seen, V, np.nan), [1, 2], missing="nan", **options)
    else:
        found = select_rank(sparse.csr_array(np.where(seen, V, 0)), [1, 2], absent="missing", **options)
    assert found.rank == expected.rank
    for name, column in expected.table.items():
        np.testing.assert_allclose(found.table[name], column, rtol=1e-6, atol=1e-9, err_msg=name)


def test_consensus_factors_of_missing_entries() -> None:
    V = planted(3)
    seen = np.random.default_rng(1).random(V.shape) < 0.8
    options: dict[str, Any] = {"n_restarts": 5, "beta_loss": 1, "random_state": 0}
    expected = consensus_factors(np.where(seen, V, 7.0), 3, weights=seen, **options)
    found = consensus_factors(np.where(seen, V, np.nan), 3, missing="nan", **options)
    np.testing.assert_allclose(found.result.H, expected.result.H, rtol=1e-9)


def test_a_group_without_anything_in_common_is_dropped_with_a_word() -> None:
    """More programs than components: a restart that has one of them leaves out another."""
    rng = np.random.default_rng(1)
    V = np.zeros((60, 24))
    for p in range(12):
        V[5 * p : 5 * p + 5, 2 * p : 2 * p + 2] = rng.poisson(6, (5, 2))
    found = consensus_factors(V, 8, n_restarts=10, beta_loss=1, random_state=0)
    kept = found.result.H.shape[0]
    assert kept < 8
    assert found.doubts[0].startswith(f"{8 - kept} of 8 group")
    assert "were dropped" in found.doubts[0] or "was dropped" in found.doubts[0]
    H = np.asarray(found.result.H)
    np.testing.assert_allclose(H.sum(axis=1), 1)
    assert np.all(H.max(axis=1) > 0.3)  # of two columns of 24, where a flat one has 1/24
    assert set(np.unique(found.labels)) == {-1, *range(kept)}
    assert found.doubts[0] in str(found)
    assert "groups" in found._repr_html_()
    assert "array(" not in repr(found)


def test_a_component_that_is_zero_is_no_member_of_a_group() -> None:
    rng = np.random.default_rng(0)
    H = np.stack([np.eye(3, 6) + 0.01 * rng.random((3, 6)) for _ in range(6)])
    expected = merge(H, max_distance=0.5)
    with_zero = np.concatenate([H, np.zeros((6, 1, 6))], axis=1)[:, [3, 0, 1, 2]]
    with_zero[2, 0] = H[2, 0]  # enough groups for four
    with_zero[3, 0] = np.eye(1, 6, 4)
    found = merge(with_zero, max_distance=2.0)
    assert np.all(found.labels[[0, 1, 4, 5], 0] == -1)
    assert np.all(np.isfinite(found.components))
    assert found.distances.max() <= 2**0.5
    assert len(expected.components) == 3


def test_a_progress_bar_counts_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    tqdm: Any = pytest.importorskip("tqdm.auto", reason="tqdm is not installed")
    bars: list[Any] = []

    class Bar(tqdm.tqdm):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            bars.append(self)

    monkeypatch.setattr(tqdm, "tqdm", Bar)
    V = planted(2, m=20, n=14)
    select_rank(V, [1, 2, 3], progress=True, random_state=0, **QUICK)
    assert [(bar.n, bar.total, bar.unit) for bar in bars] == [(3, 3, "rank")]
    consensus_factors(V, 2, n_restarts=3, max_iter=20, max_distance=2, progress=True, random_state=0)
    assert [bar.total for bar in bars] == [3, 20]
    assert ["at most" in str(bar) for bar in bars] == [False, True]  # all ranks are tried, iterations may end early


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 1.5, 2.0, 3.0])
def test_relevance_determination_never_raises_its_objective(beta: float, monkeypatch: pytest.MonkeyPatch) -> None:
    V = planted(2, m=14, n=11) + 0.1
    posed = pose(V, beta=beta, weights=None, missing=None, absent="zero")
    prior = relevance._Prior(b=1.5, c=30.0, dispersion=0.5)
    rng = np.random.default_rng(1)
    begin = [rng.random((14, 4)) + 0.1, rng.random((4, 11)) + 0.1]
    objectives = []
    for n in (1, 2, 3, 5, 10, 30, 100, 300):
        monkeypatch.setattr(relevance, "MAX_ITER", n)
        objectives.append(relevance._minimise(posed, prior, list(begin))[0])
    assert np.all(np.diff(objectives) <= 1e-12 * np.abs(objectives[:-1]))
    assert objectives[-1] < objectives[0]


@pytest.mark.parametrize(
    ("noise", "beta", "expected"), [("gauss", 2.0, 4.0), ("counts", 1.0, 1.0), ("gamma", 0.0, 0.1)]
)
@np.errstate(invalid="ignore")  # 0 / 0 where nothing is observed, as within a call
def test_the_dispersion_is_that_of_the_noise(noise: str, beta: float, expected: float) -> None:
    rng = np.random.default_rng(0)
    Y = 50 * (rng.random((80, 3)) + 0.5) @ (rng.random((3, 60)) + 0.5)
    draws = {"gauss": rng.normal(Y, 2.0), "counts": rng.poisson(Y).astype(float), "gamma": rng.gamma(10.0, Y / 10)}
    weights = np.ones(Y.shape)
    weights[:, :10] = 0  # what is not observed does not count
    posed = pose(draws[noise], beta=beta, weights=weights, missing=None, absent="zero")
    fit = nmf(draws[noise], 3, weights=weights, beta_loss=beta, random_state=0, max_iter=2000, tol=1e-7)
    found = relevance._dispersion(posed.problem.data, fit.W, fit.H, beta=beta, xp=np)
    assert found == pytest.approx(expected, rel=0.1)  # 4000 entries leave a standard error of 2 %; gamma is skewed


def test_components_beyond_the_planted_ones_are_irrelevant_in_any_unit() -> None:
    V = planted(3)
    fit = nmf(V, 6, beta_loss=1, random_state=0)
    found = []
    for unit in (1.0, 2.0**140):
        posed = pose(V * unit, beta=1.0, weights=None, missing=None, absent="zero")
        found.append(relevance.relevances(posed, (fit.W, fit.H * unit), seed=0))
    assert np.all(found[0][:3] > 10)
    assert found[0][3:].tolist() == [0, 0, 0]
    np.testing.assert_allclose(found[1], found[0], rtol=1e-6, atol=1e-6)


def test_the_relevance_rule_counts_the_relevant_components() -> None:
    relevances = np.asarray([9.0, 8.0, 7.0, 1e-9, 1e-9])
    assert rules.by_relevance(RANKS, relevances) == (3, "relevance", ())
    slight = rules.by_relevance(RANKS, np.asarray([9.0, 8.0, 7.0, 2.0, 1e-9]))
    assert slight == (4, "relevance", ("1 of them is much less relevant than the first",))
    gap = rules.by_relevance([1, 2, 4, 6], np.asarray([9.0, 8.0, 7.0, 6.0, 5.0, 1e-9])).doubts
    assert gap == ("5 components are relevant, and this rank is the nearest to it",)
    assert rules.by_relevance(RANKS, np.full(5, 9.0)).doubts == ("it is the largest rank that was tried",)


@pytest.mark.parametrize("rule", ["auto", "bi-cross-validation", "relevance", "stability"])
def test_an_easy_planted_rank_is_found(rule: str) -> None:
    groups = np.kron(np.eye(3), np.ones((20, 12))) * 20 + 2
    V = np.random.default_rng(0).poisson(groups)
    selection = select_rank(V, range(2, 6), rule=rule, n_restarts=8, beta_loss="kullback-leibler", random_state=0)
    assert selection.rank == 3
    assert selection.rule == ("held-out" if rule == "auto" else rule)
    block = np.kron(np.eye(3), np.ones((12, 12)))
    np.testing.assert_array_equal(selection.consensus[3], block)
    assert selection.table["cophenetic"][1] == 1


def test_the_table_the_text_and_the_best_restarts() -> None:
    V = planted(3)
    before = V.copy()
    selection = select_rank(V, (4, 2, 3), n_restarts=4, beta_loss=1, random_state=0)
    np.testing.assert_array_equal(V, before)
    np.testing.assert_array_equal(selection.table["rank"], [2, 3, 4])
    assert len({len(column) for column in selection.table.values()}) == 1
    for i, rank in enumerate((2, 3, 4)):
        best = selection.best[rank]
        assert best.divergence == selection.table["divergence"][i]
        assert best.divergence == pytest.approx(float(beta_divergence(V, best.W, best.H, beta_loss=1)), rel=1e-9)
        assert best.restarts is None
        assert selection.consensus[rank].shape == (40, 40)
    assert "Recommended: rank 3, by the rule 'held-out'" in str(selection)
    assert selection.weak == ("The evidence is weak" in str(selection))
    again = select_rank(V, [3, 2], n_restarts=4, beta_loss=1, random_state=0)
    for name in selection.table.keys() - {"relevance"}:  # a row does not depend on the other ranks
        np.testing.assert_array_equal(selection.table[name][:2], again.table[name], err_msg=name)


def test_every_backend_gives_the_same_table(target: Target) -> None:
    V = planted(2, m=20, n=14)
    options: dict[str, Any] = {
        "n_restarts": 3,
        "n_folds": 3,
        "max_iter": 30,
        "tol": 0,
        "random_state": 0,
        "beta_loss": 1,
        "solver": "mu",  # "auto" is another solver on a GPU
    }
    expected = select_rank(V, [1, 2, 3], **options)
    found = select_rank(target.asarray(V), [1, 2, 3], **options)
    tolerance = 1e-8
    for name, column in expected.table.items():
        np.testing.assert_allclose(found.table[name], column, rtol=tolerance, atol=tolerance, err_msg=name)
    assert found.rank == expected.rank


def test_a_sparse_matrix_is_as_its_dense_one() -> None:
    V = planted(2, m=20, n=14)
    options: dict[str, Any] = {
        "n_restarts": 2,
        "n_folds": 3,
        "max_iter": 20,
        "tol": 0,
        "random_state": 0,
        "beta_loss": 1,
    }
    dense, sparse = select_rank(V, [1, 2], **options), select_rank(scipy.sparse.csr_array(V), [1, 2], **options)
    for name, column in dense.table.items():
        np.testing.assert_allclose(sparse.table[name], column, rtol=1e-8, atol=1e-8, err_msg=name)


def test_merging_takes_medians_of_what_restarts_agree_on_and_drops_the_rest() -> None:
    rng = np.random.default_rng(0)
    truth = np.eye(3, 30) + np.eye(3, 30, 5)
    H = np.stack([(truth * rng.uniform(0.98, 1.02, truth.shape))[rng.permutation(3)] for _ in range(9)])
    H *= rng.uniform(0.1, 10, size=(9, 3, 1))  # of no matter
    strange = H.copy()
    strange[4, 1] = rng.random(30)
    components, labels, distances, silhouette = merge(strange, max_distance=0.3)
    assert 0.9 < silhouette < 1
    assert [tuple(i) for i in np.argwhere(labels < 0)] == [(4, 1)]
    assert distances.argmax() == 4 * 3 + 1
    order = components.argmax(axis=1) % 5
    np.testing.assert_allclose(components[np.argsort(order)], truth / 2, atol=0.02)
    for k in range(3):
        members = strange[labels == k]
        members = members / np.linalg.norm(members, axis=1, keepdims=True)
        median = np.median(members, axis=0)
        np.testing.assert_allclose(components[k], median / median.sum(), rtol=1e-12)


def test_consensus_factors_fit_as_well_as_the_best_restart(target: Target) -> None:
    V = planted(3)
    found = consensus_factors(target.asarray(V), 3, n_restarts=6, beta_loss=1, random_state=0)
    best = nmf(V, 3, n_restarts=6, beta_loss=1, random_state=0, max_iter=400)
    assert found.result.divergence < 1.02 * best.divergence
    assert found.labels.shape == found.distances.shape == (6, 3)
    H = target.to_numpy(found.result.H)
    np.testing.assert_allclose(H.sum(axis=1), 1, rtol=1e-6)


def test_consensus_factors_are_those_of_cnmf() -> None:
    """The same medians as by k-means, of the same components, and in cNMF's order (Kotliar et al. 2019)."""
    KMeans = pytest.importorskip("sklearn.cluster").KMeans
    silhouette_score = pytest.importorskip("sklearn.metrics").silhouette_score
    V = planted(4)
    options: dict[str, Any] = {"n_restarts": 20, "random_state": 3, "beta_loss": 1, "max_iter": 1000}
    runs = nmf(V, 5, keep_restarts=True, **options).restarts  # one component more than there are: outliers
    assert runs is not None
    spectra = runs.H.reshape(-1, 40) / np.linalg.norm(runs.H.reshape(-1, 40), axis=1, keepdims=True)
    apart = np.linalg.norm(spectra[:, None] - spectra, axis=-1)
    neighbours = int(0.3 * 20)
    density = np.sort(apart, axis=1)[:, : neighbours + 1].sum(axis=1) / neighbours
    kept = density < 0.15
    assert 0 < kept.sum() < len(kept)
    groups = KMeans(n_clusters=5, n_init=10, random_state=1).fit(spectra[kept]).labels_
    medians = np.stack([np.median(spectra[kept][groups == k], axis=0) for k in range(5)])
    medians /= medians.sum(axis=1, keepdims=True)

    found = consensus_factors(V, 5, max_distance=0.15, **options)
    np.testing.assert_allclose(found.distances.ravel(), density, rtol=1e-9, atol=1e-7)
    np.testing.assert_array_equal(found.labels.ravel() >= 0, kept)
    np.testing.assert_allclose(found.result.H[np.lexsort(found.result.H.T)], medians[np.lexsort(medians.T)], rtol=1e-9)
    usage = (found.result.W / found.result.W.sum(axis=1, keepdims=True)).sum(axis=0)
    assert np.all(np.diff(usage) <= 0)
    for k in range(5):
        median = np.median(spectra[found.labels.ravel() == k], axis=0)
        np.testing.assert_allclose(found.result.H[k], median / median.sum(), rtol=1e-9)
    assert found.silhouette == pytest.approx(silhouette_score(spectra[kept], groups), rel=1e-6)


def test_a_component_alone_has_no_silhouette() -> None:
    apart = np.asarray([[0.0, 1.0, 4.0], [1.0, 0.0, 2.0], [4.0, 2.0, 0.0]])
    assert mean_silhouette(apart, np.asarray([0, 0, 1])) == pytest.approx((3 / 4 + 1 / 2 + 0) / 3)
    assert mean_silhouette(apart, np.zeros(3, dtype=int)) == 1


QUICK: dict[str, Any] = {"n_restarts": 3, "n_folds": 3, "fold_restarts": 2, "max_iter": 30, "beta_loss": 1}


def test_ranks_run_at_the_same_time_and_give_what_one_thread_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("threadpoolctl", reason="without threadpoolctl there is one thread")
    V = planted(2, m=20, n=14)
    monkeypatch.setattr(blas, "processors", lambda: 1)
    alone = select_rank(V, [1, 2, 3], random_state=0, **QUICK)
    limits = iter([2])
    monkeypatch.setattr(blas, "processors", lambda: next(limits, 1))  # two threads, each with one of BLAS
    together, original = threading.Barrier(2, timeout=30), evidence.gather

    def gather(V: Any, rank: int, **options: Any) -> Any:
        if rank > 1:
            together.wait()  # which the second of two threads must reach while the first one waits
        return original(V, rank, **options)

    monkeypatch.setattr(selection, "gather", gather)
    threaded = select_rank(V, [1, 2, 3], random_state=0, **QUICK)
    for name, column in alone.table.items():
        np.testing.assert_array_equal(threaded.table[name], column, err_msg=name)


class KilledError(Exception):
    """What ends a run as if its process had ended."""


def killed_after(n: int, monkeypatch: pytest.MonkeyPatch, *arguments: Any, **options: Any) -> list[int]:
    """Run until so many ranks are finished; returns them."""
    finished: list[int] = []
    original = evidence.gather

    def gather(V: Any, rank: int, **given: Any) -> Any:
        if len(finished) == n:
            raise KilledError
        finished.append(rank)
        return original(V, rank, **given)

    with monkeypatch.context() as patch:
        patch.setattr(blas, "processors", lambda: 1)
        patch.setattr(selection, "gather", gather)
        if n < 9:
            with pytest.raises(KilledError):
                select_rank(*arguments, **options)
        else:
            select_rank(*arguments, **options)
    return finished


@pytest.mark.parametrize("name", ["ranks.npz", "ranks.safetensors", "ranks.zarr"])
@pytest.mark.parametrize("rule", ["auto", "cophenetic"])
def test_a_selection_goes_on_where_it_was_killed(
    name: str, rule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name != "ranks.npz":
        pytest.importorskip(name.removeprefix("ranks."))
    V, path = planted(2, m=20, n=14), tmp_path / name
    options: dict[str, Any] = {**QUICK, "rule": rule, "random_state": 0}
    expected = select_rank(V, [1, 2, 3, 4], **options)
    assert killed_after(2, monkeypatch, V, [1, 2, 3], checkpoint=path, **options) == [3, 2]
    assert killed_after(9, monkeypatch, V, [1, 2, 3, 4], checkpoint=path, **options) == [4, 1]
    assert killed_after(9, monkeypatch, V, [4, 2, 3], checkpoint=path, **options) == []
    found = select_rank(V, [1, 2, 3, 4], checkpoint=path, **options)
    assert (found.rank, found.rule, found.doubts) == (expected.rank, expected.rule, expected.doubts)
    for column in expected.table:
        np.testing.assert_array_equal(found.table[column], expected.table[column], err_msg=column)
    for rank, best in expected.best.items():
        np.testing.assert_array_equal(found.consensus[rank], expected.consensus[rank])
        for attribute in ("divergence", "objective", "kkt_residual", "n_iter", "status", "history", "solver", "beta"):
            assert getattr(found.best[rank], attribute) == getattr(best, attribute)
        np.testing.assert_array_equal(found.best[rank].W, best.W)
        np.testing.assert_array_equal(found.best[rank].H, best.H)


def test_a_kept_selection_comes_back_on_every_backend(target: Target, tmp_path: Path) -> None:
    V = target.asarray(planted(2, m=12, n=9))
    options: dict[str, Any] = {**QUICK, "rule": "stability", "checkpoint": tmp_path / "ranks.npz"}
    first, second = (select_rank(V, [1, 2], **options) for _ in range(2))  # without a seed: that of the first
    for name, column in first.table.items():
        np.testing.assert_array_equal(second.table[name], column, err_msg=name)
    assert type(second.best[2].W) is type(first.best[2].W)
    assert second.best[2].W.dtype == first.best[2].W.dtype
    np.testing.assert_array_equal(target.to_numpy(second.best[2].W), target.to_numpy(first.best[2].W))


def test_a_selection_of_another_problem_is_refused(tmp_path: Path) -> None:
    V, path = planted(2, m=12, n=9), tmp_path / "ranks.npz"
    options: dict[str, Any] = {**QUICK, "rule": "stability", "random_state": 0, "checkpoint": path}
    select_rank(V, [1, 2], **options)
    before = path.read_bytes()
    for change, reason in {
        "n_restarts": "n_restarts was 3 and is 4",
        "rule": "rule was stability and is cophenetic",
        "tol": "tol was 0.0001 and is 0.001",
        "random_state": "random_state was 0 and is 1",
        "weights": "weights is not what it was",
    }.items():
        others = {"n_restarts": 4, "rule": "cophenetic", "tol": 1e-3, "random_state": 1, "weights": np.eye(12, 9) + 1}
        with pytest.raises(CheckpointError, match=reason):
            select_rank(V, [1, 2], **{**options, change: others[change]})
    with pytest.raises(CheckpointError, match="V is not what it was"):
        select_rank(V + 1, [1, 2], **options)
    with pytest.raises(CheckpointError, match="function was select_rank and is nmf"):
        nmf(V, 2, checkpoint=path)
    assert path.read_bytes() == before
    path.write_bytes(before[:-50])
    with pytest.raises(CheckpointError, match=r"is damaged.*whole, with rank [12]: rename"):
        select_rank(V, [1, 2], **options)


def test_zeros_only_have_no_rank() -> None:
    with pytest.raises(ValueError, match="`V` must have a positive entry"):
        select_rank(np.zeros((8, 6)), [1, 2], n_restarts=3, random_state=0)


@pytest.mark.parametrize("rule", ["held-out", "bi-cross-validation"])
def test_a_rank_of_overdispersed_counts(rule: str, tmp_path: Path) -> None:
    """Judged by the probability of what is held out: divergences for several dispersions cannot be compared."""
    rng = np.random.default_rng(0)
    Y = 40 * rng.dirichlet(np.full(3, 0.4), size=80) @ rng.gamma(0.5, size=(3, 50))
    V = rng.poisson(Y * rng.gamma(4.0, 0.25, size=Y.shape)).astype(float)
    options: dict[str, Any] = {"rule": rule, "n_restarts": 3, "fold_restarts": 3, "random_state": 0}
    options |= {"beta_loss": "negative-binomial", "checkpoint": tmp_path / "ranks.npz"}
    selection = select_rank(V, range(1, 5), **options)
    assert selection.rank == 3
    best: Any = selection.best[3]
    assert best.noise.dispersion == pytest.approx(0.25, rel=0.15)
    again: Any = select_rank(V, range(1, 5), **options)  # from what was kept
    assert again.best[3].noise == best.noise
    with pytest.raises(CheckpointError, match="beta_loss"):
        select_rank(V, range(1, 5), **{**options, "beta_loss": NegativeBinomial(0.25)})
    V[0, 0] = np.nan
    options |= {"missing": "nan", "checkpoint": None}
    assert select_rank(V, range(1, 5), **options).rank == 3


def test_dispersions_of_lines_beside_blocks_that_are_held_out() -> None:
    with pytest.raises(ValueError, match="`rule` must be another one"):
        select_rank(planted(2), range(1, 4), rule="bi-cross-validation", beta_loss=NegativeBinomial("row"))
