"""The kit catches every planted bug, and finds none where there is none."""

from __future__ import annotations

import functools
import importlib
from typing import Any

import numpy as np
import pytest

import nmf_xp
from nmf_xp.testing import Report, check_backend, check_gradient, check_update
from tests import mutants
from tests.mutants import MUTANTS, Mutant


def prove(update: Any, xp: str, device: str | None = None, beta: float = 1.0, n_problems: int = 1000) -> Report:
    module = pytest.importorskip(xp, reason=f"{xp} is not installed")
    where = None if device is None else module.Device(device)
    divergence = functools.partial(mutants.divergence, beta=beta)
    with np.errstate(all="ignore"):
        return check_update(update, divergence, xp=module, device=where, zeros=beta > 0, n_problems=n_problems)


@pytest.mark.parametrize(
    ("xp", "device"), [("numpy", None), ("array_api_strict", "device1"), ("torch", None), ("jax.numpy", None)]
)
def test_the_rule_without_a_bug_passes(xp: str, device: str | None) -> None:
    report = prove(functools.partial(library_rule, beta=1.0), xp, device, n_problems=20)
    assert report.ok, report


def library_rule(V: Any, W: Any, H: Any, *, beta: float) -> Any:
    W = nmf_xp.update_w(V, W, H, beta_loss=beta)
    return W, nmf_xp.update_h(V, W, H, beta_loss=beta)


@pytest.mark.parametrize("beta", [-2.0, 0.0, 0.5, 1.5, 2.0, 4.0])
def test_the_rule_of_every_exponent_passes(beta: float) -> None:
    report = prove(functools.partial(library_rule, beta=beta), "numpy", beta=beta)
    # After 3000 steps the slow exponents need not have come to rest.
    assert [e for e in report.failures if e.check != "rests_only_where_the_divergence_is_stationary"] == [], report


def test_the_hand_written_rule_of_which_the_mutants_are_made_passes() -> None:
    report = prove(mutants.right, "numpy")
    assert report.ok, report


def name(mutant: Mutant) -> str:
    update = getattr(mutant.update, "func", mutant.update)
    return f"{update.__name__}-{mutant.xp}-{mutant.beta:g}-{mutant.caught_by}"


@pytest.mark.parametrize("mutant", MUTANTS, ids=name)
def test_a_planted_bug_is_caught(mutant: Mutant) -> None:
    report = prove(mutant.update, mutant.xp, mutant.device, mutant.beta, n_problems=1000 if mutant.beta == 1 else 5000)
    assert mutant.caught_by in [entry.check for entry in report.failures], report


def test_there_are_enough_of_them() -> None:
    assert len(MUTANTS) >= 25


def line() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    return rng.normal(size=8), rng.normal(size=8)


def squared_error(p: Any) -> Any:
    """Mean of (y - (b + m x))^2 for p = (b, m)."""
    x, y = line()
    return ((y - (p[0] + p[1] * x)) ** 2).mean()


def right_gradient(p: Any) -> Any:
    x, y = line()
    residual = y - (p[0] + p[1] * x)
    return np.asarray([-2 * residual.mean(), -2 * (residual * x).mean()])


def test_a_gradient_without_a_bug_passes() -> None:
    assert check_gradient(squared_error, right_gradient, np.asarray([0.3, -0.7])).ok


def test_a_gradient_with_wrong_signs_is_caught_and_its_entry_named() -> None:
    def wrong(p: Any) -> Any:
        x, y = line()
        return np.asarray([p[0] - p[1] * x.mean() + y.mean(), right_gradient(p)[1]])

    (failure,) = check_gradient(squared_error, wrong, np.asarray([-0.3, 0.7])).failures
    assert failure.detail.startswith("entry (0,) is ")

    (failure,) = check_gradient(squared_error, lambda p: -right_gradient(p), np.asarray([0.3, -0.7])).failures
    assert failure.detail.endswith("the sign is wrong")


def test_a_gradient_without_its_factor_2_is_caught_and_the_factor_named() -> None:
    (failure,) = check_gradient(squared_error, lambda p: right_gradient(p) / 2, np.asarray([0.3, -0.7])).failures
    assert failure.detail.endswith("the ratio is 0.5")


@pytest.mark.parametrize("library", ["torch", "jax.numpy"])
def test_gradients_agree_with_automatic_differentiation(library: str) -> None:
    xp = pytest.importorskip(library, reason=f"{library} is not installed")
    x = xp.asarray(np.asarray([1.0, -2.0, 3.0]))
    report = check_gradient(lambda x: (x**3).sum(), lambda x: 3 * x**2, x)
    assert report.ok
    assert [entry.outcome.name for entry in report.entries] == ["PASSED", "PASSED"]
    assert len(check_gradient(lambda x: (x**3).sum(), lambda x: 2 * x**2, x).failures) == 2


@pytest.mark.parametrize(
    ("where", "attribute", "replacement", "caught_by"),
    [
        ("nmf_xp.updates", "mm_exponent", lambda *_, **__: 1.0, "agrees_with_the_oracle"),
        ("nmf_xp.problem.posing", "factor_floor", lambda *_, **__: 1e60, "agrees_with_the_oracle"),
        ("nmf_xp.problem.posing", "entry_weights", lambda *_, **__: None, "weights_hide_what_is_unobserved"),
        ("nmf_xp.data.dense", "full_domain_slope", lambda W, *_, **__: 1.0 + 0.0 * W, "divergence_never_rises"),
    ],
)
def test_a_bug_in_the_library_itself_is_caught(
    monkeypatch: pytest.MonkeyPatch, where: str, attribute: str, replacement: Any, caught_by: str
) -> None:
    monkeypatch.setattr(importlib.import_module(where), attribute, replacement)
    with np.errstate(all="ignore"):
        report = check_backend(np, dtypes=["float64"])
    assert caught_by in [entry.check for entry in report.failures], report
