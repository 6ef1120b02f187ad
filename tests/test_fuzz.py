"""What the fuzzer takes for a failure."""

from __future__ import annotations

import dataclasses

import pytest

from tests import fuzzing
from tests.calls import Call
from tests.fuzzing import Case, examine


def test_an_error_must_name_its_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(message: str) -> None:
        def run(call: Call) -> None:
            raise ValueError(message)

        monkeypatch.setattr(Call, "run", run)

    refuse("`solver` must be another one")
    assert examine(Case()) == "refused"
    refuse("operands could not be broadcast together")
    with pytest.raises(AssertionError, match="broadcast"):
        examine(Case())


def test_another_exception_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(call: Call) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Call, "run", run)
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        examine(Case())


def test_a_wrong_answer_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Call.run
    monkeypatch.setattr(Call, "run", lambda call: dataclasses.replace(run(call), _divergence=1.0))
    with pytest.raises(AssertionError, match="reported"):
        examine(Case())


def test_a_failure_has_a_kind() -> None:
    assert fuzzing.kind_of("W has 3 NaN, 1e-131 and -2.5") == fuzzing.kind_of("W has 14 NaN, 2 and 0.1")
