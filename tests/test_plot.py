"""Pictures: what is drawn, and on which axes."""

from __future__ import annotations

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
    assert axes.get_yscale() == "log"


def test_convergence_without_a_history_says_so(axes: Any) -> None:
    with pytest.raises(ValueError, match="must have the history of one matrix, got none"):
        plot.convergence(nmf(np.ones((4, 3)), 1, random_state=0, tol=0), ax=axes)


def test_components_are_a_grid_of_scaled_images(axes: Any) -> None:
    H = np.arange(1.0, 43.0).reshape(7, 6)
    assert plot.components(H, (2, 3), ax=axes) is axes
    grid = np.asarray(axes.images[0].get_array())
    assert grid.shape == (2 * 3 - 1, 5 * 4 - 1)
    np.testing.assert_allclose(grid[3:5, 0:3], H[5].reshape(2, 3) / H[5].max())
    assert np.nanmax(grid) == 1


def test_components_of_another_shape_are_refused(axes: Any) -> None:
    with pytest.raises(ValueError, match=r"`shape` must have the product 6, the columns of `H`, got \(2, 2\)"):
        plot.components(np.ones((2, 6)), (2, 2), ax=axes)
