"""The table of arrays in docs/backends.md is what the kit finds, for every library that is installed."""

from __future__ import annotations

import pytest

from nmf_xp.testing.arrivals import ARRIVALS, Arrival
from tests.scripts import ROOT

PAGE = (ROOT / "docs" / "backends.md").read_text(encoding="utf-8")
TEXT = PAGE.partition("<!-- arrays -->")[2].partition("<!-- /arrays -->")[0]


@pytest.mark.parametrize("arrival", ARRIVALS, ids=lambda arrival: f"{arrival.library}: {arrival.what}")
def test_what_happens_to_an_array_is_what_its_row_says(arrival: Arrival) -> None:
    if arrival.missing():
        pytest.skip(f"{arrival.library} is not installed")
    outcome = arrival.outcome()
    assert outcome != "WRONG"
    assert len(outcome.split()) <= 40
    assert f"| {arrival.library} | {arrival.what} | {outcome} |\n" in TEXT


def test_every_row_is_there_once() -> None:
    rows = [line for line in TEXT.splitlines() if line.startswith("| ") and not line.startswith("| library |")]
    assert [tuple(row.strip("| ").split(" | ")[:2]) for row in rows] == [(x.library, x.what) for x in ARRIVALS]


def test_wrong_numbers_are_seen() -> None:
    assert Arrival("numpy", "twice", lambda V: 2 * V).outcome() == "WRONG"
