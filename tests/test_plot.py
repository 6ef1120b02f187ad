"""Pictures: what is drawn, and on which axes."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from nmf_xp import nmf, plot

matplotlib = pytest.importorskip("matplotlib", reason="matplotlib is not installed")
matplotlib.use("agg")


@pytest.fixture
def axes() -> Any:
    figure = pyplot().figure()
    yield figure.add_subplot()
    pyplot().close(figure)


def pyplot() -> Any:
    import matplotlib.pyplot as plt

    return plt


def test_convergence_draws_the_history(axes: Any) -> None:
    result = nmf(np.ones((4, 3)) + np.eye(4, 3), 1, random_state=0)
    assert plot.convergence(result, ax=axes) is axes
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), result.history)
    assert axes.get_yscale() == ("log" if result.history[0] >= 10 * result.history[-1] else "linear")


def test_convergence_is_logarithmic_where_the_objective_falls_far(axes: Any) -> None:
    exact = np.outer(np.arange(1.0, 6), np.arange(1.0, 5))
    result = nmf(exact, 1, random_state=0, tol=1e-12)
    assert result.history[-1] < result.history[0] / 10
    assert plot.convergence(result, ax=axes).get_yscale() == "log"


def test_convergence_without_the_history_of_one_matrix_says_so(axes: Any) -> None:
    V = np.ones((4, 3)) + np.eye(4, 3)
    with pytest.raises(ValueError, match="must have the history of one matrix, got none; run with tol > 0"):
        plot.convergence(nmf(V, 1, random_state=0, tol=0), ax=axes)
    stack = nmf(np.stack([V, 2 * V]), 1, random_state=0)
    with pytest.raises(ValueError, match="got a stack; draw one of its members"):
        plot.convergence(stack, ax=axes)
    plot.convergence(stack[1], ax=axes)


def test_components_are_images_side_by_side_each_on_its_own_scale(axes: Any) -> None:
    H = np.arange(1.0, 43.0).reshape(7, 6)
    assert plot.components(H, (2, 3), ax=axes) is axes
    assert len(axes.images) == 7
    for row, image in zip(H, axes.images, strict=True):
        np.testing.assert_allclose(np.asarray(image.get_array()), row.reshape(2, 3) / row.max())
    boxes = [image.get_extent() for image in axes.images]
    assert [box[0] for box in boxes[:5]] == sorted({box[0] for box in boxes})  # five columns
    assert all(a[1] < b[0] for a, b in itertools.pairwise(boxes[:5]))  # which do not touch
    assert boxes[5][3] > boxes[0][2]  # the sixth begins a new row, below the first
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    assert all(left <= box[0] and box[1] <= right and box[2] <= bottom and box[3] >= top for box in boxes)
    assert [text.get_text() for text in axes.texts] == [f"H[{k}]" for k in range(7)]


def test_components_that_are_no_images_are_rows(axes: Any) -> None:
    H = np.asarray([[1.0, 2.0, 4.0], [0.0, 0.0, 0.0]])
    plot.components(H, ax=axes)
    np.testing.assert_array_equal(np.asarray(axes.images[0].get_array()), [[0.25, 0.5, 1], [0, 0, 0]])
    assert axes.get_ylabel() == "component"


def test_a_new_figure_by_default() -> None:
    axes = plot.components(np.eye(4), (2, 2), columns=2)
    assert len(axes.images) == 4
    pyplot().close(axes.figure)


def test_components_that_cannot_be_drawn_are_refused(axes: Any) -> None:
    with pytest.raises(ValueError, match=r"`shape` must be .* the product 6, the columns of `H`, got \(2, 2\)"):
        plot.components(np.ones((2, 6)), (2, 2), ax=axes)
    with pytest.raises(ValueError, match=r"`H` must be a matrix \(r, n\), got shape \(3, 2, 6\)"):
        plot.components(np.ones((3, 2, 6)), (2, 3), ax=axes)
    with pytest.raises(ValueError, match="`columns` must be at least 1, got 0"):
        plot.components(np.ones((2, 6)), (2, 3), columns=0, ax=axes)
