"""What a factorization returns."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any
from xml.etree import ElementTree as ET

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


def test_printed_it_says_what_came_out(target: Target) -> None:
    result = compiled.factorize(target, *(target.asarray(x, "float32") for x in noisy(7, 5, 3)), max_iter=20, tol=1e-9)
    lines = dict(re.split("  +", line, maxsplit=1) for line in str(result).splitlines())
    assert lines["matrix"] == "7 x 5"
    assert lines["loss"] == "frobenius (beta 2)"
    assert lines["ended"] == result.message
    assert lines["divergence"] == f"{result.divergence:.6g}"
    assert "objective" not in lines  # it is the divergence where there is no penalty


def test_printed_a_stack_and_restarts_say_how_many_they_are() -> None:
    V = noisy(7, 5, 3).V
    stack = nmf_xp.nmf(np.stack([V, 3 * V]), 2, alpha_W=0.1, random_state=0, max_iter=30, tol=0)
    said = str(stack)
    assert "2 matrices, each 7 x 5\n" in said
    assert f"{min(stack.divergence):.6g} to {max(stack.divergence):.6g}" in said
    assert f"{min(stack.objective):.6g} to {max(stack.objective):.6g}" in said
    assert "2 MAX_ITER" in said
    best = nmf_xp.nmf(V, 2, beta_loss=1.5, n_restarts=3, random_state=0)
    assert str(best).endswith("restarts      the best of 3")
    assert "beta 1.5" in str(best)
    assert "3 matrices, each 7 x 5\n" in str(best.restarts)  # though their factors were not kept


def test_in_a_compiled_function_it_shows_what_is_known_there() -> None:
    jax = pytest.importorskip("jax", reason="jax is not installed")
    shown: list[Any] = []

    def show(V: Any) -> Any:
        result = nmf_xp.nmf(V, 2, random_state=0)
        shown.extend([str(result), result._repr_html_()])
        return result.W

    jax.jit(show)(noisy(7, 5, 3).V)
    assert shown == ["Result(W=(7, 2), H=(2, 5), dtype=float64, solver='cd')", None]


def test_in_a_notebook_it_is_a_table_with_the_falling_objective() -> None:
    result = nmf_xp.nmf(noisy(7, 5, 3).V, 2, random_state=0)
    shown = result._repr_html_()
    assert shown is not None
    root = ET.fromstring(shown)  # also XML, so every tag is closed
    found = {row[0].text: row[1].text for row in root.iter("tr")}
    assert found == dict(re.split("  +", line, maxsplit=1) for line in str(result).splitlines())
    (line,) = root.iter("polyline")
    places = [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
    assert len(places) == len(result.history)
    heights = [y for _, y in places]
    assert heights == sorted(heights)  # downwards on the screen
    assert "http" not in shown
    assert set(re.findall(r"color: *([^;\"]+)", shown)) == {"inherit"}  # the notebook's own, light or dark
    assert "<svg" not in (nmf_xp.nmf(noisy(7, 5, 3).V, 2, tol=0)._repr_html_() or "")
    assert "<svg" not in (nmf_xp.nmf(np.ones((2, 4, 3)), 1)._repr_html_() or "")


def test_in_a_notebook_zero_is_the_lowest_point_of_a_fall_and_infinity_none() -> None:
    result = dataclasses.replace(nmf_xp.nmf(np.ones((4, 3)), 1), _history=(math.inf, 100.0, 1.0, 0.01, 0.0))
    points = re.findall(r'points="(.+?)"', result._repr_html_() or "")[0].split()
    heights = [float(point.split(",")[1]) for point in points]
    assert len(heights) == 4
    assert heights == sorted(heights)  # downwards on a page
    assert heights[2] - heights[1] == pytest.approx(heights[1] - heights[0], abs=0.2)
    assert heights[3] - heights[2] == pytest.approx((heights[1] - heights[0]) / 2, abs=0.2)  # one decade


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
