"""Pictures: what is drawn, and on which axes."""

from __future__ import annotations

import dataclasses
import itertools
import sys
from typing import Any

import numpy as np
import pytest

from nmf_xp import nmf, plot, select_rank
from nmf_xp.plot import style

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
    # Whether the last objective is 0.0 or what rounding leaves depends on the processor.
    assert plot.convergence(result, ax=axes).get_yscale() == ("log" if min(result.history) > 0 else "symlog")


def falls(history: tuple[Any, ...]) -> Any:
    """A result with this history."""
    return dataclasses.replace(nmf(np.ones((4, 3)), 1, random_state=0), _history=history)


@pytest.mark.parametrize("end", [0.0, -1e-30, 5e-324])
def test_an_objective_of_zero_is_drawn_on_an_axis_that_shows_the_fall(axes: Any, end: float) -> None:
    plot.convergence(falls((300.0, 1e-3, 1e-8, end)), ax=axes)
    axes.figure.canvas.draw()
    heights = height(axes, axes.lines[0])
    assert 0 <= heights[3] < heights[0] <= 1
    # Five decades to the second and to the third, and none is a speck of the axis, which has 330 at most.
    assert np.diff(heights).max() < -0.01


def height(axes: Any, line: Any) -> Any:
    """Where the points of a line are, from 0 at the bottom of its axes to 1 at the top."""
    places = axes.transData.transform(np.asarray(line.get_xydata()))
    return axes.transAxes.inverted().transform(places)[:, 1]


def test_zero_stays_in_view_when_another_run_or_a_restart_reached_it(axes: Any) -> None:
    plot.convergence(falls((300.0, 0.0)), ax=axes)
    plot.convergence(falls((300.0, 1e-9)), ax=axes)
    assert axes.get_yscale() == "symlog"
    restarts = dataclasses.replace(falls((300.0, 1e-9)), restarts=falls(((200.0, 0.0), (300.0, 1e-9))))
    assert plot.convergence(restarts, ax=pyplot().figure().add_subplot()).get_yscale() == "symlog"
    assert plot.convergence(falls((0.0, 0.0)), ax=pyplot().figure().add_subplot()).get_yscale() == "linear"
    infinite = plot.convergence(falls((np.inf, 300.0, 0.1)), ax=pyplot().figure().add_subplot())
    assert infinite.get_yscale() == "log"


def test_convergence_without_the_history_of_one_matrix_says_so(axes: Any) -> None:
    V = np.ones((4, 3)) + np.eye(4, 3)
    with pytest.raises(ValueError, match="must have the history of one matrix, got none; run with tol > 0"):
        plot.convergence(nmf(V, 1, random_state=0, tol=0), ax=axes)
    stack = nmf(np.stack([V, 2 * V]), 1, random_state=0)
    with pytest.raises(ValueError, match="got a stack; draw one of its members"):
        plot.convergence(stack, ax=axes)
    plot.convergence(stack[1], ax=axes)


def test_runs_on_one_axes_are_told_apart_without_their_hue(axes: Any) -> None:
    V = np.random.default_rng(0).random((9, 6))
    for solver in ("cd", "mu", "mm"):
        plot.convergence(nmf(V, 2, solver=solver, random_state=0, n_restarts=2), label=solver, ax=axes)
    runs = [line for line in axes.lines if line.get_label() in ("cd", "mu", "mm")]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["cd", "mu", "mm"]
    for looks in ({line.get_marker() for line in runs}, {line.get_linestyle() for line in runs}):
        assert len(looks) == 3
    assert len(axes.lines) == 9  # each with its restarts behind it
    assert all(line.get_zorder() > other.get_zorder() for line in runs for other in axes.lines if other not in runs)


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


def test_spectra_stand_one_above_the_other(axes: Any) -> None:
    H = np.asarray([[1.0, 2.0, 4.0], [6.0, 0.0, 3.0]])
    assert plot.spectra(H, [400, 500, 700], names=["a", "b"], ax=axes) is axes
    for line, row, base in zip(axes.lines, H, (1, 0), strict=True):
        np.testing.assert_array_equal(line.get_xdata(), [400, 500, 700])
        np.testing.assert_allclose(line.get_ydata(), base + 0.85 * row / row.max())
    assert [text.get_text() for text in axes.get_yticklabels()] == ["a", "b"]
    assert axes.get_yticks().tolist() == [1, 0]
    with pytest.raises(
        ValueError, match=r"`x` must have shape \(3,\), one position for each column of `H`, got \(2,\)"
    ):
        plot.spectra(H, [1, 2], ax=axes)
    with pytest.raises(ValueError, match="`names` must hold 2, one for each component, got 1"):
        plot.spectra(H, names=["a"], ax=axes)


def test_top_features_are_the_largest_entries_in_order() -> None:
    H = np.asarray([[1.0, 3.0, 2.0, 0.0], [0.0, 0.0, 0.0, 5.0], [4.0, 4.0, 1.0, 2.0]])
    panels = plot.top_features(H, ["a", "b", "$c$", "d" * 40], n_top=2, columns=2)
    assert panels.shape == (3,)
    for panel, lengths, names in zip(
        panels, ([3, 2], [5, 0], [4, 4]), (["b", r"\$c\$"], ["d" * 23 + "…", "a"], ["a", "b"]), strict=True
    ):
        assert [bar.get_width() for bar in panel.patches] == lengths
        assert [text.get_text() for text in panel.get_yticklabels()] == names
    assert panels[0].yaxis_inverted()  # the longest at the top
    panels[0].figure.canvas.draw()  # a dollar begins no mathematics
    pyplot().close(panels[0].figure)
    figure, given = pyplot().subplots(1, 3)
    assert plot.top_features(H, n_top=9, ax=given).tolist() == given.tolist()
    assert [text.get_text() for text in given[0].get_yticklabels()] == ["1", "2", "0", "3"]
    with pytest.raises(ValueError, match="`ax` must hold 3 axes, got 1"):
        plot.top_features(H, ax=given[0])
    with pytest.raises(ValueError, match="`names` must hold 4, one for each column of `H`, got 1"):
        plot.top_features(H, ["a"], ax=given)
    with pytest.raises(ValueError, match="`n_top` must be at least 1, got 0"):
        plot.top_features(H, n_top=0, ax=given)
    pyplot().close(figure)


def test_names_of_a_table_are_drawn(axes: Any) -> None:
    pandas: Any = pytest.importorskip("pandas")
    table = pandas.DataFrame(np.random.default_rng(0).random((12, 4)), columns=["oil", "gas", "$b", "bank"])
    result = nmf(table, 2, random_state=0).named(components=["energy", "money"])
    for H in (result, result.to_frame("H")):
        figure = axes.figure
        figure.clear()
        axes = figure.add_subplot()
        panels = plot.top_features(H, n_top=1)
        assert [panel.get_title(loc="left") for panel in panels] == ["energy", "money"]
        names = [table.columns[k].replace("$", r"\$") for k in result.H.argmax(axis=1)]
        assert [panel.get_yticklabels()[0].get_text() for panel in panels] == names
        plot.components(H, ax=axes)
        assert [text.get_text() for text in axes.get_yticklabels()] == ["energy", "money"]
        assert [text.get_text() for text in axes.get_xticklabels()] == ["oil", "gas", r"\$b", "bank"]
        plot.spectra(H, ax=axes)
        assert [text.get_text() for text in axes.get_yticklabels()] == ["energy", "money"]
        pyplot().close(panels[0].figure)
    axes.clear()
    table.columns = [400, 410, 430, 460]
    plot.spectra(nmf(table, 2, random_state=0), ax=axes)
    assert axes.lines[0].get_xdata().tolist() == [400, 410, 430, 460]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["H[0]", "H[1]"]
    panels = plot.reconstruction(table, result)
    np.testing.assert_allclose(np.asarray(panels[0].images[0].get_array()), table.to_numpy())
    pyplot().close(panels[0].figure)


def test_a_selection_is_drawn_with_the_names_of_its_columns(axes: Any) -> None:
    pandas: Any = pytest.importorskip("pandas")
    V = np.kron(np.eye(2), np.ones((6, 3))) + 0.01 * np.random.default_rng(0).random((12, 6))
    table = pandas.DataFrame(V, columns=list("abcdef"))
    selection = select_rank(table, [1, 2], n_restarts=3, rule="stability", random_state=0)
    plot.consensus(selection, ax=axes)
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert sorted(labels) == list("abcdef")
    assert set(labels[:3]) in ({"a", "b", "c"}, {"d", "e", "f"})
    np.testing.assert_allclose(np.asarray(axes.images[0].get_array()).sum(), selection.consensus[2].sum())


def test_the_model_is_drawn_beside_the_data_and_their_difference() -> None:
    V = np.random.default_rng(0).poisson(3.0, (9, 6)) + 0.0
    V[2, 4] = np.nan
    result = nmf(V, 2, random_state=0, missing="nan")
    panels = plot.reconstruction(V, result, missing="nan")
    WH = result.W @ result.H
    for panel, expected in zip(panels, (V, WH, V - WH), strict=True):
        np.testing.assert_allclose(np.asarray(panel.images[0].get_array().filled(np.nan)), expected)
        assert panel.images[0].get_extent() == [0, 6, 9, 0]
    assert panels[0].images[0].get_clim() == panels[1].images[0].get_clim()
    low, high = panels[2].images[0].get_clim()
    assert low == -high < 0
    with pytest.raises(ValueError, match="`ax` must hold 3 axes, got 1"):
        plot.reconstruction(V, result, missing="nan", ax=panels[0])
    pyplot().close(panels[0].figure)


@pytest.mark.parametrize("library", ["jax", "torch", "sparse torch", "scipy"])
def test_every_picture_takes_the_arrays_of_any_library(library: str) -> None:
    name = library.removeprefix("sparse ")
    module = pytest.importorskip({"jax": "jax.numpy", "scipy": "scipy.sparse"}.get(name, name))
    V = np.random.default_rng(0).poisson(2.0, (9, 6)) + 0.0
    given = module.csr_array(V) if name == "scipy" else module.asarray(V)
    given = given.to_sparse_coo() if library == "sparse torch" else given
    result = nmf(given, 2, solver="mu", random_state=0)
    drawn = [
        plot.convergence(result),
        plot.components(result.H, (2, 3)),
        plot.spectra(result.H),
        *plot.top_features(result.H),
        *plot.reconstruction(given, result),
    ]
    np.testing.assert_allclose(np.asarray(drawn[-3].images[0].get_array()), V)


def test_the_shades_are_of_even_steps_and_the_differences_of_two_hues_that_all_can_tell() -> None:
    grey = lightness(matplotlib.colormaps[style.MAGNITUDE](np.linspace(0, 1, 11)))
    np.testing.assert_allclose(np.diff(grey), -10, atol=2.5)
    ramp = lightness(matplotlib.colormaps[style.DIFFERENCE](np.linspace(0, 1, 11)))
    assert np.all(np.diff(ramp[:6]) > 0)
    assert np.all(np.diff(ramp[5:]) < 0)
    # Purple and orange differ in blue, which the usual kinds of colour blindness leave alone.
    quarter = matplotlib.colormaps[style.DIFFERENCE]([0.2, 0.8])[:, :3]
    assert quarter[0, 2] - quarter[0, 0] > 0.1
    assert quarter[1, 0] - quarter[1, 2] > 0.5


def lightness(colours: Any) -> Any:
    """CIE L* of sRGB colours."""
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)[:, :3]
    y = linear @ [0.2126, 0.7152, 0.0722]
    return np.where(y > 216 / 24389, 116 * np.cbrt(y) - 16, y * 24389 / 27)


def test_without_matplotlib_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r'plots need matplotlib: pip install "nmf_xp\[plot\]"'):
        plot.spectra(np.eye(3))


@pytest.fixture(scope="module")
def selection() -> Any:
    V = np.random.default_rng(0).poisson(np.kron(np.eye(2), np.ones((8, 5))) * 20 + 1)
    return select_rank(V, [1, 2, 3], n_restarts=3, beta_loss=1, random_state=0)


def test_ranks_draws_the_columns_of_the_table(selection: Any, axes: Any) -> None:
    pytest.importorskip("scipy", reason="scipy is not installed")
    assert plot.ranks(selection, ax=axes) is axes
    for line, name in zip(axes.lines[:3], ("cophenetic", "dispersion", "matched"), strict=True):
        np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3])
        np.testing.assert_array_equal(line.get_ydata(), selection.table[name])
    for looks in ({line.get_marker() for line in axes.lines[:3]}, {line.get_linestyle() for line in axes.lines[:3]}):
        assert len(looks) == 3  # told apart without their hue
    assert axes.lines[3].get_xdata()[0] == selection.rank
    assert axes.lines[3].get_linestyle() == ("--" if selection.weak else "-")
    right = next(other for other in axes.figure.axes if other is not axes)
    np.testing.assert_array_equal(right.lines[0].get_ydata(), selection.table["loss"])
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["cophenetic correlation", "dispersion", "matched components", "held-out loss (right)"]


def test_a_held_out_loss_of_zero_is_drawn_on_an_axis_that_shows_the_fall(selection: Any, axes: Any) -> None:
    selection = dataclasses.replace(selection, table=selection.table | {"loss": np.asarray([3.0, 1e-5, 0.0])})
    plot.ranks(selection, ax=axes)
    right = next(other for other in axes.figure.axes if other is not axes)
    assert np.diff(height(right, right.lines[0])).max() < -0.05


def test_consensus_puts_groups_side_by_side(axes: Any) -> None:
    pytest.importorskip("scipy", reason="scipy is not installed")
    group = np.asarray([0, 1, 0, 1, 1])
    matrix = np.equal.outer(group, group).astype(float)
    assert plot.consensus(matrix, labels=list("abcde"), ax=axes) is axes
    drawn = np.asarray(axes.images[0].get_array())
    names = [text.get_text() for text in axes.get_yticklabels()]
    order = ["abcde".index(name) for name in names]
    np.testing.assert_array_equal(drawn, matrix[np.ix_(order, order)])
    assert np.count_nonzero(np.diff(group[order])) == 1


def test_consensus_refuses_what_does_not_fit(axes: Any) -> None:
    with pytest.raises(ValueError, match=r"`matrix` must be square, got shape \(2, 3\)"):
        plot.consensus(np.ones((2, 3)), ax=axes)
    with pytest.raises(ValueError, match="`labels` must hold 2 names, one for each column of V, got 1"):
        plot.consensus(np.eye(2), labels=["a"], ax=axes)
