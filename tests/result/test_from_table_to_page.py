"""Real tables from the call to the page: what a user does with names, each in a few lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import nmf_xp
from nmf_xp import Fixed, nmf, select_rank, transform
from tests.corpus import matrices

if TYPE_CHECKING:
    from pathlib import Path

pandas: Any = pytest.importorskip("pandas")


def test_flights_of_airlines_by_destination(tmp_path: Path) -> None:
    try:
        counts = matrices.flights()
    except ModuleNotFoundError as error:
        pytest.skip(str(error))
    result = nmf(counts, 6, beta_loss="kullback-leibler", normalize="H", random_state=0, max_iter=2000)
    assert result.row_names == tuple(counts.index)
    assert result.W.dtype == np.float64
    assert 0.5 < result.explained < 1
    # The hubs of an airline speak for the component that it has most of.
    strongest = result.to_frame("W").idxmax(axis=1)
    top = result.top(3, by="specific")
    for airline, hub in (("UA", "IAH"), ("AA", "DFW"), ("DL", "ATL"), ("US", "CLT"), ("WN", "MDW")):
        assert hub in top[strongest[airline]]
    result.save(tmp_path / "flights.npz")
    result.report(tmp_path / "flights.html")
    again = nmf_xp.load(tmp_path / "flights.npz")
    assert again.top(3)[strongest["UA"]] == result.top(3)[strongest["UA"]]
    united = transform(counts.loc[["UA"]], again, max_iter=500)
    assert united.row_names == ("UA",)
    assert united.to_frame("W").idxmax(axis=1)["UA"] == strongest["UA"]


def test_signatures_of_mutations_with_one_that_is_known() -> None:
    counts = matrices.mutations().T  # 21 tumours by 96 kinds of mutations
    found = nmf(counts, 3, beta_loss=1, normalize="H", random_state=0, max_iter=1000)
    known = found.to_frame("H").loc[["component_1"]]
    held = nmf(counts, 3, beta_loss=1, h=[Fixed(known)], random_state=1, max_iter=1000)
    np.testing.assert_array_equal(held.H[0], known.to_numpy()[0])
    assert held.divergence < 1.1 * found.divergence
    loadings = transform(counts, found.to_frame("H").rename(index={"component_1": "APOBEC"}), beta_loss=1)
    assert list(loadings.to_frame("W").columns) == ["component_0", "APOBEC", "component_2"]
    assert list(loadings.to_frame("W").index) == list(counts.index)


def test_the_rank_of_a_table_and_its_best_result() -> None:
    counts = matrices.mutations().T
    options: dict[str, Any] = {"n_restarts": 3, "random_state": 0, "beta_loss": 1, "max_iter": 100}
    chosen = select_rank(counts, [1, 2, 3], rule="stability", **options)
    assert chosen.best[2].column_names == tuple(counts.columns)
    assert set(chosen.best[2].top(5)["component_0"]) <= set(counts.columns)
    assert chosen.best[1].explained < chosen.best[3].explained
