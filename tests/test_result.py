"""What a factorization returns."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

import nmf_xp
from nmf_xp import Result, Status
from nmf_xp.testing import Target, oracle
from tests import compiled
from tests.problems import BRANCHES, noisy


@pytest.mark.parametrize("beta", BRANCHES)
def test_its_divergence_is_that_of_its_factors(target: Target, beta: float) -> None:
    V, W, H = noisy(7, 5, 3, zeros=beta > 0)
    result = compiled.factorize(target, *(target.asarray(x) for x in (V, W, H)), beta_loss=beta, max_iter=20)
    W, H = target.to_numpy(result.W), target.to_numpy(result.H)
    assert result.divergence == pytest.approx(oracle.divergence(V, W, H, beta), rel=1e-11)
    assert result.divergence == pytest.approx(result.history[-1], rel=1e-12)


def test_its_numbers_are_python_numbers(target: Target) -> None:
    result = compiled.factorize(target, *(target.asarray(x) for x in noisy(7, 5, 3)), max_iter=20)
    assert type(result.divergence) is float
    assert type(result.kkt_residual) is float
    assert type(result.n_iter) is int
    assert type(result.status) is Status
    assert type(result.history) is tuple
    assert {type(x) for x in result.history} == {float}
    assert (type(result.solver), type(result.beta)) == (str, float)


def test_it_cannot_be_changed() -> None:
    result = nmf_xp.nmf(noisy(7, 5, 3).V, 3, random_state=0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.W = result.H  # type: ignore[misc]


def test_its_repr_says_how_it_ended(target: Target) -> None:
    result = compiled.factorize(target, *(target.asarray(x, "float32") for x in noisy(7, 5, 3)), max_iter=20, tol=1e-9)
    expected = (
        f"Result(W=(7, 3), H=(3, 5), dtype=float32, divergence={result.divergence:.6g}, n_iter=20, status=MAX_ITER, "
        "solver='cd')"
    )
    assert repr(result) == expected


@pytest.mark.parametrize("status", list(Status))
def test_a_status_carries_its_message_and_is_found_by_its_code(status: Status) -> None:
    assert Status.of(status.value) is status
    assert Status.of(np.int32(status.value)) is status
    assert isinstance(status.message, str)
    assert len(status.message) > 10
    assert len({other.message for other in Status}) == len(Status)


def test_public_names_are_the_documented_ones() -> None:
    public = {"nmf", "transform", "beta_divergence", "update_w", "update_h", "Result", "Status", "Progress"}
    assert public <= set(nmf_xp.__all__)
    for name in nmf_xp.__all__:
        public_object: Any = getattr(nmf_xp, name)
        assert public_object.__doc__, name
    assert isinstance(nmf_xp.nmf(noisy(7, 5, 3).V, 1), Result)
