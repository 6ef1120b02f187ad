"""What can be asked of a result by name: tables of its factors, features, rows of its model."""

from __future__ import annotations

import importlib
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from nmf_xp import Result, nmf, transform
from nmf_xp.result.features import LEAST, specific
from tests.problems import noisy

if TYPE_CHECKING:
    from nmf_xp.testing import Target

pandas: Any = pytest.importorskip("pandas")

FEW: dict[str, Any] = {"random_state": 0, "max_iter": 40}
V = noisy(12, 6, 3).V + 0.0
ROWS, COLUMNS = [f"sample {i}" for i in range(12)], list("abcdef")


@pytest.fixture(scope="module")
def flowers() -> Any:
    """Petals and sepals of 150 irises: named columns, rows by number."""
    datasets = pytest.importorskip("sklearn.datasets")
    return datasets.load_iris(as_frame=True).data


def test_frames_have_the_names_of_the_table(flowers: Any) -> None:
    some = flowers.iloc[::3]
    result = nmf(some, 2, beta_loss=1, **FEW)
    W, H = result.to_frame("W"), result.to_frame("H")
    pandas.testing.assert_index_equal(W.index, some.index)
    pandas.testing.assert_index_equal(H.columns, some.columns)
    assert list(W.columns) == list(H.index) == ["component_0", "component_1"]
    np.testing.assert_array_equal(W.to_numpy(), result.W)
    np.testing.assert_array_equal(H.to_numpy(), result.H)
    model = W @ H
    assert list(model.columns) == list(flowers.columns)
    assert some.join(W).shape == (50, 6)
    np.testing.assert_array_equal(transform(some, H, beta_loss=1).H, result.H)


def test_frames_of_an_array_count(target: Target) -> None:
    result = nmf(target.asarray(V), 3, **FEW)
    W = result.to_frame("W")
    assert list(W.index) == list(range(12))
    np.testing.assert_array_equal(W.to_numpy(), target.to_numpy(result.W))
    assert list(result.to_frame("H").columns) == list(range(6))


@pytest.mark.parametrize("kind", ["polars", "pyarrow"])
def test_a_table_comes_back_as_one_of_its_library(kind: str) -> None:
    library = pytest.importorskip(kind)
    given = {name: V[:, j] for j, name in enumerate(COLUMNS)}
    result = nmf(library.DataFrame(given) if kind == "polars" else library.table(given), 3, **FEW)
    W, H = result.to_frame("W"), result.to_frame("H")
    assert type(W) is (library.DataFrame if kind == "polars" else library.Table)
    names = H.columns if kind == "polars" else H.column_names
    assert list(names) == ["component", *COLUMNS]
    assert list(W.columns if kind == "polars" else W.column_names) == [f"component_{k}" for k in range(3)]
    np.testing.assert_array_equal(np.asarray(W["component_1"]), result.W[:, 1])
    assert (
        H["component"].to_list()
        if kind == "polars"
        else H["component"].to_pylist() == [f"component_{k}" for k in range(3)]
    )
    assert type(result.to_frame("H", kind="pandas")) is pandas.DataFrame
    back = transform(V, H, max_iter=10)  # the names of its first column are no numbers
    np.testing.assert_array_equal(back.H, result.H)
    assert back.component_names == tuple(f"component_{k}" for k in range(3))
    assert back.column_names == tuple(COLUMNS)
    again: Any = nmf(pandas.DataFrame(V, ROWS, COLUMNS), 3, **FEW).to_frame("W", kind=kind)
    assert list(np.asarray(again["row"])) == ROWS


def test_names_that_a_table_cannot_tell_apart_are_numbered() -> None:
    pytest.importorskip("polars")
    result = nmf(V, 2, **FEW).named(columns=list("aabcca"))
    assert result.to_frame("H", kind="polars").columns == ["component", "a", "a (2)", "b", "c", "c (2)", "a (3)"]
    assert list(result.to_frame("H").columns) == list("aabcca")


def test_a_table_that_cannot_be_made_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    result = nmf(V, 2, **FEW)
    with pytest.raises(ValueError, match=re.escape("`which` must be one of ['H', 'W'], got 'V'")):
        result.to_frame("V")
    with pytest.raises(ValueError, match="`kind` must be one of"):
        result.to_frame("W", kind="R")
    with pytest.raises(TypeError, match="one member of a stack"):
        nmf(np.stack([V, V]), 2, **FEW).to_frame("W")

    def none(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", none)
    with pytest.raises(ImportError, match="a table needs pandas: pip install pandas"):
        result.to_frame("W")


def test_the_top_features_are_the_largest_shares(flowers: Any) -> None:
    result = nmf(flowers, 2, beta_loss=1, **FEW)
    top = result.top(3)
    for k in range(2):
        order = np.argsort(-result.H[k])[:3]
        assert top[f"component_{k}"] == tuple(flowers.columns[order])
        np.testing.assert_allclose(top.scores[f"component_{k}"], result.H[k, order] / result.H[k].sum())
    lines = str(top).splitlines()
    assert lines[0].startswith(f"component_0  {top['component_0'][0]} {top.scores['component_0'][0]:.1%}, ")
    assert len(lines) == 2
    numbers = nmf(flowers.to_numpy(), 2, beta_loss=1, **FEW).top(1)
    assert numbers["component_0"] == (int(np.argmax(result.H[0])),)


def test_the_most_specific_features_tell_a_component_from_the_others() -> None:
    # "the" has the largest share of both topics, and says nothing of either.
    H = np.asarray([[6.0, 3.0, 0.9, 0.1], [5.0, 0.5, 0.5, 4.0]])
    result = Result(np.ones((5, 2)), H, "mu", 1.0, 0.0, 0.0, (), 1, 1, 0.0)
    result = result.named(columns=["the", "oil", "gas", "bank"], components=["energy", "money"])
    assert result.top(1)["energy"] == result.top(1)["money"] == ("the",)
    specific = result.top(2, by="specific")
    assert specific["energy"] == ("oil", "gas")
    assert specific["money"] == ("bank",)  # the others have more of the rest
    p, q = 0.3, 0.05
    assert specific.scores["energy"][0] == pytest.approx(p * np.log(p / q) - p + q)


def test_specific_is_the_least_distance_to_any_other() -> None:
    shares = np.random.default_rng(0).dirichlet(np.full(20, 0.3), size=4)
    shares[0, 3] = 0.0
    found = specific(shares)
    for k in range(4):
        for j in range(20):
            p, others = shares[k, j], np.maximum(np.delete(shares[:, j], k), LEAST / 20)
            expected = min(p * np.log(p / q) - p + q for q in others) if p > others.max() else 0.0
            assert found[k, j] == pytest.approx(expected, abs=1e-12)
    alone = specific(np.asarray([[0.5, 0.3, 0.2]]))
    assert alone[0, 0] > alone[0, 1] == alone[0, 2] == 0


def test_names_that_a_terminal_would_obey_are_shown_escaped() -> None:
    said = str(nmf(V, 2, **FEW).named(columns=["\x1b[31mred", "\u202eback", *"cdef"]).top(6))
    assert "\x1b" not in said
    assert "\u202e" not in said
    assert "\\x1b[31mred" in said


def test_a_name_of_two_lines_stays_on_its_line() -> None:
    result = nmf(V, 2, **FEW).named(columns=["a\nb", "c\r\nd", "e\u2028f", *"ghi"], components=["one\ntwo", "three"])
    lines = str(result.top(6)).split("\n")
    assert [line.partition(" ")[0] for line in lines] == ["one\\ntwo", "three"]
    assert all(line.isprintable() for line in lines)
    assert "a\\nb" in lines[0]


def test_a_row_whose_name_others_have_too_is_asked_for_by_its_number() -> None:
    result = nmf(V, 2, **FEW).named(rows=["twice", "twice", *map(str, range(len(V) - 2))])
    with pytest.raises(KeyError, match="2 rows have the name 'twice'; give the number of one"):
        result.reconstruct("twice")
    assert result.reconstruct(1).shape == (V.shape[1],)


def test_features_are_asked_for_by_a_number_and_a_way() -> None:
    result = nmf(V, 2, **FEW)
    with pytest.raises(ValueError, match="`n` must be an integer of at least 1, got 0"):
        result.top(0)
    with pytest.raises(ValueError, match="`by` must be one of"):
        result.top(by="size")
    with pytest.raises(TypeError, match="one member of a stack"):
        nmf(np.stack([V, V]), 2, **FEW).top()
    assert len(result.top(99)["component_0"]) == np.count_nonzero(result.H[0])


def test_rows_of_the_model_by_number_and_by_name(target: Target) -> None:
    result = nmf(target.asarray(V), 3, **FEW).named(rows=ROWS)
    model = target.to_numpy(result.W) @ target.to_numpy(result.H)

    def close(rows: Any, expected: Any) -> None:
        np.testing.assert_allclose(target.to_numpy(result.reconstruct(rows)), expected, rtol=1e-12)

    close(None, model)
    close("sample 3", model[3])
    close(["sample 3", "sample 1"], model[[3, 1]])
    close(-1, model[-1])
    close([0, 5], model[[0, 5]])
    close(slice(2, 5), model[2:5])
    close(np.asarray([2, 2]), model[[2, 2]])


def test_a_number_that_is_a_name_is_a_name() -> None:
    result = nmf(pandas.DataFrame(V).iloc[::-1], 2, **FEW)
    # BLAS adds the terms of one row in another order than those of many.
    np.testing.assert_allclose(result.reconstruct(11), (result.W @ result.H)[0], rtol=1e-14)
    with pytest.raises(KeyError, match="no row has the name 'x'"):
        result.reconstruct("x")
    with pytest.raises(IndexError, match="there are 12 rows, got number 12"):
        nmf(V, 2, **FEW).reconstruct(12)


def test_names_are_given_to_a_result_of_arrays() -> None:
    result = nmf(V, 2, **FEW)
    named = result.named(rows=ROWS, columns=pandas.Index(COLUMNS), components=["x", "y"])
    assert (named.row_names, named.column_names, named.component_names) == (tuple(ROWS), tuple(COLUMNS), ("x", "y"))
    assert result.row_names is None
    assert named.named(components=["u", "v"]).column_names == tuple(COLUMNS)
    assert named.explained == result.explained
    with pytest.raises(ValueError, match="`components` must hold 2 names, one for each of the components, got 3"):
        result.named(components=["x", "y", "z"])
    with pytest.raises(TypeError, match="`columns` must be a sequence of names, got the text 'abcdef'"):
        result.named(columns="abcdef")


def test_a_result_is_no_pair_and_is_not_compared() -> None:
    result = nmf(V, 2, **FEW)
    with pytest.raises(TypeError, match=re.escape("write `result.W, result.H`")):
        _W, _H = result
    with pytest.raises(TypeError, match=re.escape("write `numpy.allclose(r1.W, r2.W)`")):
        _ = result == nmf(V, 2, **FEW)
    assert result == result
    assert result != 3
    assert result in [None, result]
    assert len({result, result}) == 1
    stack = nmf(np.stack([V, 2 * V]), 2, **FEW)
    assert [one.divergence for one in stack] == stack.divergence.tolist()


def test_named_results_go_through_compiled_functions() -> None:
    jax = pytest.importorskip("jax")
    result = nmf(jax.numpy.asarray(V), 2, **FEW).named(columns=COLUMNS)
    doubled = jax.jit(lambda r: jax.tree_util.tree_map(lambda x: 2 * x, r))(result)
    assert doubled.column_names == tuple(COLUMNS)
    np.testing.assert_allclose(np.asarray(doubled.W), 2 * np.asarray(result.W))
