"""A sample of the corpus, which `python -m tests.corpus` runs whole; and each invariant fails where it is violated."""

from __future__ import annotations

import dataclasses
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.calls import Call
from tests.conftest import CI
from tests.corpus.matrices import CORPUS
from tests.corpus.runs import Run, call_of, dense, runs
from tests.invariants import (
    balanced,
    finite,
    never_rises,
    reported,
    same_in_extreme_units,
    same_in_other_memory_order,
    same_in_other_units,
    same_when_sparse,
    same_with_rows_permuted,
    same_with_weights_of_one,
    status_honest,
    zeros_exact,
)

if TYPE_CHECKING:
    from tests.calls import Answer
    from tests.reference import Question


RUNS = 6
"""Runs of each matrix: all take about a minute."""


def matrix(name: str) -> Any:
    try:
        return dense(name)
    except ModuleNotFoundError as error:
        if CI:
            raise
        pytest.skip(str(error))


@pytest.mark.parametrize("name", CORPUS)
def test_matrices_are_what_they_should_be(name: str) -> None:
    V = matrix(name)
    m, n = V.shape
    assert 16 <= m <= 600
    assert 3 <= n <= 500
    assert np.nanmin(V) >= 0
    assert not np.isinf(V).any()
    assert np.isnan(V).mean() < 0.1
    assert CORPUS[name].rank <= min(m, n)
    assert np.linalg.matrix_rank(np.nan_to_num(V)) >= 2


def test_the_corpus_is_varied() -> None:
    assert len(CORPUS) >= 25
    assert len({m.package for m in CORPUS.values()}) >= 8
    assert len(list(runs())) >= 5000


@pytest.mark.parametrize("name", ["serology", "LFW faces"])
@pytest.mark.parametrize("start", ["nndsvd", "nndsvdar"])
def test_balancing_raises_no_entry_to_a_floor_that_shows(name: str, start: str) -> None:
    matrix(name)
    call = call_of(Run(name, -1.0, "mm", "float32", start))
    [(question, answer)] = call.answers(call.run())
    never_rises(question, answer)


def test_the_start_of_a_symmetric_matrix_is_no_matter_of_rounding() -> None:
    """Where an eigenvalue is negative both parts of a singular pair weigh the same."""
    matrix("Les Miserables")
    same_in_other_units(call_of(Run("Les Miserables", 2.0, "cd", "float32", "nndsvd")))


@pytest.mark.parametrize("name", CORPUS)
def test_the_answers_of_a_sample_are_right(name: str) -> None:
    """All that is asked of a single answer but `status_honest`: no plateau before a second fall is seen.

    What compares two calls is left to the script: entries may grow from the floor, which is the same in all units.
    """
    matrix(name)
    members = [run for run in runs() if run.matrix == name]
    for run in random.Random(name).sample(members, RUNS):
        call = call_of(run)
        [(question, answer)] = call.answers(call.run())
        for check in (finite, balanced, zeros_exact, reported, never_rises):
            check(question, answer)
        if (
            run.beta >= 0 or run.dtype == "float64"
        ):  # in float32 the floor for beta -1 is 5e-7: entries at it can be seen
            zeros_exact(question, answer)


@pytest.mark.parametrize(("name", "beta"), [("economy", 3.0), ("temperatures", 0.5)])
def test_loadings_that_crawl_are_not_called_converged(name: str, beta: float) -> None:
    """Components that are nearly alike: one fall, and then next to none, far from the minimum."""
    matrix(name)
    call = call_of(Run(name, beta, "mu", "float64", "transform"))
    [(question, answer)] = call.answers(call.run())
    status_honest(question, answer)


# Each invariant fails where it is violated ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def right() -> tuple[Question, Answer]:
    V = np.random.default_rng(0).gamma(1.0, 1.0, (30, 20))
    V[::3, 1:] *= np.arange(19) % 3 == 0  # rows that lack two of three components
    call = Call(V, 3, {"beta_loss": 1.0, "solver": "mm", "random_state": 0, "tol": 1e-9, "max_iter": 3000})
    [(question, answer)] = call.answers(call.run())
    for check in (finite, balanced, zeros_exact, reported, never_rises, status_honest):
        check(question, answer)
    assert (answer.W == 0).sum() > 3
    return question, answer


def first(x: Any, value: float) -> Any:
    """An array with another first entry."""
    changed = x.copy()
    changed[0, 0] = value
    return changed


WRONG: list[tuple[Any, Any, str]] = [
    (finite, lambda a: {"W": first(a.W, np.nan)}, "NaN"),
    (finite, lambda a: {"H": first(a.H, -1e-9)}, "negative"),
    (finite, lambda _: {"divergence": -1e-12}, "divergence"),
    (balanced, lambda a: {"W": a.W * 1e4, "H": a.H / 1e4}, "norm"),
    (balanced, lambda a: {"W": a.W * [1.0, 0.0, 1.0]}, "zero in one factor"),
    (zeros_exact, lambda a: {"W": np.where(a.W == 0, 1e-131, a.W)}, "below"),
    (zeros_exact, lambda a: {"W": np.where(a.W == 0, 1e-9, a.W)}, "a floor"),
    (reported, lambda a: {"divergence": a.divergence * (1 + 1e-9)}, "divergence"),
    (reported, lambda a: {"objective": a.objective * (1 - 1e-9)}, "objective"),
    (reported, lambda a: {"residual": a.residual + 1e-3}, "residual"),
    (reported, lambda a: {"H": np.where(np.arange(20) == 3, 0.0, a.H)}, "inf"),
    (never_rises, lambda _: {"history": (2.0, 1.0, 1.0 + 1e-6)}, "rose"),
    (never_rises, lambda _: {"status": "INCREASED"}, "rise"),
]


@pytest.mark.parametrize(("check", "change", "sentence"), WRONG)
def test_a_wrong_answer_is_seen(right: tuple[Question, Answer], check: Any, change: Any, sentence: str) -> None:
    question, answer = right
    with pytest.raises(AssertionError, match=sentence):
        check(question, answer._replace(**change(answer)))


def test_a_run_that_has_not_converged_is_seen(right: tuple[Question, Answer]) -> None:
    question, answer = right
    W = answer.W * np.random.default_rng(0).uniform(0.5, 1.5, answer.W.shape)
    with pytest.raises(AssertionError, match="a long run"):
        status_honest(question, answer._replace(W=W))


@dataclasses.dataclass(frozen=True)
class Askew(Call):
    """A call whose answers depend on what they must not depend on."""

    def run(self) -> Any:
        result = super().run()
        factor = 1.0 + 0.1 * float(self.storage != "dense") + 0.1 * float("weights" in self.options)
        factor += 0.1 * float(self.V.max() > 100) + 0.1 * float(self.V[0, 0] > self.V[1, 0])
        return dataclasses.replace(result, W=result.W * factor)


@pytest.mark.parametrize(
    "compare",
    [
        same_in_other_memory_order,
        same_in_other_units,
        same_when_sparse,
        same_with_rows_permuted,
        same_with_weights_of_one,
    ],
)
def test_a_difference_is_seen(compare: Any) -> None:
    rng = np.random.default_rng(0)
    V = rng.poisson(2.0, (12, 9)).astype(float)
    V[0, 0], V[1:, 0] = 50.0, 0.0
    options = {"beta_loss": 1.0, "solver": "mu", "max_iter": 5, "init": (rng.random((12, 3)), rng.random((3, 9)))}
    compare(Call(V, 3, options))
    with pytest.raises(AssertionError, match="differs"):
        compare(Askew(V, 3, options))


class Huge(Call):
    """A call whose model is as large beside V as one may be on its way from a start with zeros."""

    def run(self) -> Any:
        result = super().run()
        return dataclasses.replace(result, W=result.W * 1e50, H=result.H * 1e50)


def test_answers_are_compared_though_their_model_overflows() -> None:
    rng = np.random.default_rng(0)
    V = rng.uniform(1.0, 2.0, (12, 9))
    start = rng.random((12, 3)), rng.random((3, 9))
    same_in_extreme_units(Huge(V, 3, {"beta_loss": 1.0, "solver": "mu", "max_iter": 5, "init": start}))


@pytest.mark.parametrize("size", [5, 12])
def test_online_is_compared_where_a_batch_is_all_rows(size: int) -> None:
    """Else the rows that it sees together are others, and so is the answer."""
    rng = np.random.default_rng(0)
    V = rng.poisson(2.0, (12, 9)).astype(float)
    options = {"solver": ("online", {"batch_size": size}), "max_iter": 5, "init": (V[:, :3] + 1.0, V[:3] + 1.0)}
    same_with_rows_permuted(Call(V, 3, options))
    if size == 12:
        with pytest.raises(AssertionError, match="differs"):
            same_with_rows_permuted(Askew(V, 3, options))


def test_a_run_has_a_name() -> None:
    assert str(Run("wine", 1.0, "mu", "float32", "random")) == "wine, beta 1, mu, float32, random"
