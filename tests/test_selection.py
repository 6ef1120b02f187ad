"""Choosing the rank: each measure against what it must be, the rules on made curves, and the whole on planted ranks."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from nmf_xp import consensus_factors, nmf, select_rank
from nmf_xp.divergences import beta_divergence
from nmf_xp.selection import held_out, rules
from nmf_xp.selection.consensus import consensus_matrix, cophenetic_correlation, dispersion, leaf_order
from nmf_xp.selection.merging import merge
from nmf_xp.selection.stability import amari_distance, stability

if TYPE_CHECKING:
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
    loss = held_out.speckled(V, [1, 3], weights=None, n_folds=3, starts=2, seed=seed, options=options, xp=np)
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
        assert loss[1, fold] == pytest.approx(expected, rel=1e-9)


def test_bi_cross_validation_predicts_an_exact_model() -> None:
    rng = np.random.default_rng(0)
    V = rng.gamma(0.5, size=(30, 2)) @ rng.gamma(0.5, size=(2, 20))
    options = {"beta_loss": 2.0, "solver": "cd", "max_iter": 500, "tol": 1e-9}
    loss = held_out.bi_cross(V, [1, 2], weights=None, n_folds=4, starts=2, seed=0, options=options, xp=np).mean(axis=1)
    share = held_out.RANK_ONE_SHARE**2  # of the error of rank one, which is mixed in, is all that is left
    assert loss[1] == pytest.approx(share * loss[0], rel=1e-3)
    assert loss[0] > 1e-3


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
    assert rules.by_cophenetic(RANKS, np.asarray([0.98, 0.99, 0.9, 0.95])) == (3, "cophenetic", ())
    slight = rules.by_cophenetic(RANKS, np.asarray([0.98, 0.99, 0.989, 0.9]))
    assert slight.rank == 3
    assert slight.doubts == ("the cophenetic correlation falls by 0.001 only",)
    assert rules.by_cophenetic(RANKS, np.ones(4)) == (5, "cophenetic", ("it is the largest rank that was tried",))


def test_the_stability_rule_takes_the_least_amari_distance() -> None:
    assert rules.by_stability(RANKS, np.asarray([0.1, 0.02, 0.2, 0.3])) == (3, "stability", ())
    rival = rules.by_stability(RANKS, np.asarray([0.1, 0.02, 0.025, 0.3]))
    assert rival == (3, "stability", ("as stable, up to 0.01: rank 4",))


@pytest.mark.parametrize("rule", ["auto", "bi-cross-validation", "stability"])
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
    for name in selection.table:  # a row does not depend on the other ranks
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
    components, labels, distances = merge(strange, max_distance=0.3)
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
