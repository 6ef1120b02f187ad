"""What the functions say at the door, and where a run did not come to its end."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import nmf_xp
from nmf_xp import ConvergenceWarning, Status, beta_divergence, consensus_factors, nmf, select_rank, transform
from tests.problems import noisy

V = np.random.default_rng(0).random((30, 20))
H = np.random.default_rng(1).random((3, 20))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: nmf(V, 3, seed=1), "`nmf` calls it `random_state`, got `seed`"),  # type: ignore[call-arg]
        (lambda: nmf(V, rank=3), "`nmf` calls it `n_components`, got `rank`"),  # type: ignore[call-arg]
        (lambda: nmf(V, k=3), "`nmf` calls it `n_components`, got `k`"),  # type: ignore[call-arg]
        (lambda: nmf(V, 3, n_init=3), "`nmf` calls it `n_restarts`, got `n_init`"),  # type: ignore[call-arg]
        (lambda: nmf(V, 3, W=V), "`nmf` calls it `init=(W, H)`, got `W`"),  # type: ignore[call-arg]
        (lambda: nmf(V, 3, normalise="W"), "`nmf` calls it `normalize`, got"),  # type: ignore[call-arg]
        (lambda: transform(V, H, iterations=3), "`transform` calls it `max_iter`, got"),  # type: ignore[call-arg]
        (lambda: transform(V, H, seed=3), "`transform` has no such argument, got `seed`"),  # type: ignore[call-arg]
        (lambda: select_rank(V, [1, 2], seed=3), "`select_rank` calls it `random_state`"),  # type: ignore[call-arg]
        (lambda: consensus_factors(V, 2, n_runs=3), "`consensus_factors` calls it `n_restarts`"),  # type: ignore[call-arg]
        (lambda: beta_divergence(V, V, H, loss=1), "`beta_divergence` calls it `beta_loss`"),  # type: ignore[call-arg]
    ],
)
def test_a_word_of_another_library_is_answered_with_ours(call: Any, said: str) -> None:
    with pytest.raises(TypeError) as caught:
        call()
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        *[(name, "kullback-leibler") for name in ("KL", "kl", "Kullback_Leibler", "poisson", "kl-divergence")],
        *[(name, "frobenius") for name in ("euclidean", "fro", "Frobenius", "L2", "ls")],
        *[(name, "itakura-saito") for name in ("IS", "is", "itakura_saito")],
    ],
)
def test_a_loss_by_another_name_is_answered_with_ours(theirs: str, ours: str) -> None:
    with pytest.raises(ValueError, match=f"got '{theirs}'; say '{ours}'"):
        nmf(V, 3, beta_loss=theirs)


def test_a_run_that_was_not_long_enough_says_so_once() -> None:
    with pytest.warns(ConvergenceWarning, match="the run ended after max_iter=200 iterations") as caught:
        result = nmf(V, 5, beta_loss=1, solver="mu", random_state=0)
    assert result.status is Status.MAX_ITER
    assert len(caught) == 1
    assert caught[0].filename == __file__


@pytest.mark.parametrize("options", [{"max_iter": 200}, {"tol": 1e-4}, {"tol": 0}, {"max_iter": 5}])
def test_who_chose_how_long_is_not_warned(options: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nmf(V, 5, beta_loss=1, solver="mu", random_state=0, **options)


def test_it_is_off_by_one_setting_and_is_quiet_where_a_run_converged() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert nmf(noisy(12, 6, 2).V, 2, random_state=0).status is Status.CONVERGED
        warnings.simplefilter("ignore", nmf_xp.ConvergenceWarning)
        assert nmf(V, 5, beta_loss=1, solver="mu", random_state=0).status is Status.MAX_ITER


def test_of_a_stack_it_says_how_many() -> None:
    low = np.random.default_rng(0).random((30, 3)) @ H
    with pytest.warns(ConvergenceWarning, match="1 of 2 runs ended after max_iter=200 iterations"):
        nmf(np.stack([V, low]), 2, beta_loss=1, solver="mu", random_state=0)


def test_an_exact_fit_falls_for_ever_and_is_quiet() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        low = np.random.default_rng(0).random((30, 3)) @ H
        assert nmf(low, 5, beta_loss=1, solver="mm", random_state=0).status is Status.MAX_ITER


def test_the_other_functions_and_the_estimators_are_quiet() -> None:
    estimators = pytest.importorskip("nmf_xp.sklearn")
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        select_rank(V, [1, 2], n_restarts=2, n_folds=2, fold_restarts=1, random_state=0)
        consensus_factors(V, 2, n_restarts=3, max_distance=2, random_state=0)
        warnings.simplefilter("ignore")  # scikit-learn's own
        warnings.simplefilter("error", ConvergenceWarning)
        estimators.NMF(5, random_state=0).fit(V)
