"""Starts of which a part is given: one factor, or the first components of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from nmf_xp import Fixed, RowBlocks, Upper, nmf
from nmf_xp.problem.completing import completed
from nmf_xp.problem.posing import pose
from nmf_xp.problem.terms import Terms
from tests.problems import noisy

if TYPE_CHECKING:
    from nmf_xp.testing import Target

V, W, H = noisy(12, 8, 3)
FEW: dict[str, Any] = {"random_state": 0, "max_iter": 30}


def started(init: Any, terms: Terms | None = None, V: Any = V, **observation: Any) -> tuple[Any, Any]:
    seen: dict[str, Any] = {"weights": None, "missing": None, "absent": "zero", **observation}
    posed = pose(V, beta=2.0, **seen)
    return completed(posed, init, terms or Terms(), 3, random_state=0)[0]


@pytest.mark.parametrize("scale", [1.0, 1e-100, 1e100])
def test_the_factor_that_is_missing_is_drawn_in_the_size_of_v(scale: float) -> None:
    given = started((None, H), V=scale * V)
    assert given[1] is H
    assert (given[0] @ H).sum() == pytest.approx(scale * V.sum())
    assert np.ptp(given[0]) > 0
    given = started((W, None), V=scale * V)
    assert (W @ given[1]).sum() == pytest.approx(scale * V.sum())


def test_only_what_is_observed_counts() -> None:
    weights = np.ones(V.shape)
    weights[0] = 0
    huge = np.where(weights > 0, V, 1e6)
    given = started((None, H), V=huge, weights=weights)
    assert (given[0] @ H)[1:].sum() == pytest.approx(V[1:].sum())


@pytest.mark.parametrize("init", [(None, "H"), ("W", None), (None, None)])
def test_a_run_from_half_a_start(target: Target, init: Any) -> None:
    if target.compiled:
        pytest.skip("the start is drawn from values")
    factors = {"W": target.asarray(W), "H": target.asarray(H), None: None}
    given: Any = tuple(factors[which] for which in init)
    result = nmf(target.asarray(V), 3, init=given, solver="mu", **FEW)
    assert all(later <= earlier for earlier, later in zip(result.history, result.history[1:], strict=False))
    again = nmf(target.asarray(V), 3, init=given, solver="mu", **FEW)
    assert result.divergence == again.divergence
    assert (
        nmf(target.asarray(V), 3, init=given, solver="mu", random_state=1, max_iter=30).divergence != again.divergence
    )


def test_nothing_given_is_the_random_start() -> None:
    np.testing.assert_array_equal(nmf(V, 3, init=(None, None), **FEW).W, nmf(V, 3, **FEW).W)


@pytest.mark.parametrize("beta", [2, 1, 0.5])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_components_that_are_fixed_stay_and_come_first(beta: float, count: int) -> None:
    result = nmf(V, 3, beta_loss=beta, h=[Fixed(H[:count])], **FEW)
    np.testing.assert_array_equal(result.H[:count], H[:count])
    assert not np.isin(result.H[count:], H).any()
    result = nmf(V, 3, beta_loss=beta, w=[Fixed(W[:, :count])], **FEW)
    np.testing.assert_array_equal(result.W[:, :count], W[:, :count])


def test_a_known_component_is_found_beside_unknown_ones() -> None:
    exact = W @ H
    result = nmf(exact, 3, h=[Fixed(H[:1])], random_state=0, max_iter=2000, tol=1e-12)
    assert result.divergence < 1e-10 * np.sum(exact**2)
    np.testing.assert_array_equal(result.H[0], H[0])


def test_fixed_components_take_tables_integers_and_other_terms() -> None:
    pandas: Any = pytest.importorskip("pandas")
    expected = nmf(V, 3, h=[Fixed(H[:2])], **FEW)
    np.testing.assert_array_equal(nmf(V, 3, h=[Fixed(pandas.DataFrame(H[:2]))], **FEW).W, expected.W)
    bounded = nmf(V, 3, h=[Fixed(H[:2]), Upper(0.05)], **FEW)
    np.testing.assert_array_equal(bounded.H[:2], H[:2])
    assert bounded.H[2].max() <= 0.05


def test_fixed_components_with_a_start_take_their_place_in_it() -> None:
    start = np.ones((12, 3)), np.ones((3, 8))
    result = nmf(V, 3, init=start, h=[Fixed(H[:1])], **FEW)
    np.testing.assert_array_equal(result.H[0], H[0])
    both = start[0], np.vstack([H[:1], np.ones((2, 8))])
    mask = np.zeros((3, 1), dtype=bool)
    mask[0] = True
    np.testing.assert_array_equal(result.W, nmf(V, 3, init=both, fixed_h=mask, **FEW).W)


def test_blocks_and_stacks_and_large_numbers() -> None:
    blocks = nmf(RowBlocks([V[:5], V[5:]]), 3, h=[Fixed(H[:2])], **FEW)
    np.testing.assert_array_equal(blocks.H[:2], H[:2])
    stack = nmf(np.stack([V, 2 * V]), 3, h=[Fixed(H[:2])], **FEW)
    np.testing.assert_array_equal(stack.H[:, :2], np.stack([H[:2]] * 2))
    large = nmf(1e200 * V, 3, h=[Fixed(H[:2])], **FEW)
    np.testing.assert_array_equal(large.H[:2], H[:2])
    assert np.isfinite(large.W).all()


def test_a_mask_of_numbers_stays_refused_by_its_short_form() -> None:
    with pytest.raises(TypeError, match="`fixed_w` must be a boolean array, got dtype float64"):
        nmf(V, 3, init=(W, H), fixed_w=np.ones((12, 3)))
