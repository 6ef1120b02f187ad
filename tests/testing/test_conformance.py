"""The conformance kit: its checks on every backend, its report, its command."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from nmf_xp.cli import main
from nmf_xp.testing import Backend, Entry, Outcome, Report, Skip, Target, check_backend, checks, parametrize
from nmf_xp.testing.report import run_check

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("check", checks(), ids=lambda check: check.__name__)
def test_every_backend_conforms(check: Callable[[Target, str], str], target: Target, dtype: str) -> None:
    try:
        check(target, dtype)
    except Skip as skip:
        pytest.skip(str(skip))


@parametrize(Backend.NUMPY.target(), dtypes=["float64"])  # type: ignore[untyped-decorator]
def test_the_pytest_face_runs_the_same_checks(check: Callable[[Target, str], str], target: Target, dtype: str) -> None:
    assert check in checks()
    assert (target.name, dtype) == ("numpy", "float64")


def test_every_check_says_what_it_promises() -> None:
    for check in checks():
        assert check.__doc__ is not None
        assert check.__doc__.count("\n") == 0
        assert check.__doc__.endswith(".")


def test_a_report_is_a_table_a_verdict_and_json() -> None:
    report = check_backend(np, dtypes=["float32"])
    assert report.ok
    lines = str(report).splitlines()
    assert lines[0].split() == ["check", "target", "dtype", "outcome", "detail"]
    assert len(lines) == len(checks()) + 3
    assert lines[-1].endswith("skipped")
    parsed = json.loads(report.to_json())
    assert parsed["ok"] is True
    assert {entry["check"] for entry in parsed["entries"]} == {check.__name__ for check in checks()}


def test_expected_failures_that_pass_are_failures() -> None:
    report = check_backend(np, dtypes=["float64"], expected_failures={"transform_agrees": "a bug that was mended"})
    assert not report.ok
    (failure,) = report.failures
    assert failure.outcome is Outcome.UNEXPECTED_PASS
    assert "a bug that was mended" in failure.detail


def test_expected_failures_that_fail_are_fine() -> None:
    def fails() -> str:
        assert int("0"), "it is wrong"
        return ""

    assert run_check(fails, "name", "numpy", "float64", {}).outcome is Outcome.FAILED
    entry = run_check(fails, "name", "numpy", "float64", {"name": "known, see the issue"})
    assert (entry.outcome, entry.detail) == (Outcome.EXPECTED_FAILURE, "known, see the issue")
    assert Report((entry,)).ok


def test_an_exception_of_the_library_is_a_failure_and_keeps_its_name() -> None:
    def breaks() -> str:
        msg = "no such\n  kernel"
        raise RuntimeError(msg)

    assert run_check(breaks, "name", "odd", "float32", {}) == Entry(
        "name", "odd", "float32", Outcome.FAILED, "RuntimeError: no such kernel"
    )


def test_a_device_without_float64_is_no_failure() -> None:
    strict = pytest.importorskip("array_api_strict", reason="array-api-strict is not installed")
    report = check_backend(strict, device=strict.Device("no_float64"))
    assert report.ok, report
    wide = {entry.outcome for entry in report.entries if entry.dtype == "float64"}
    assert wide == {Outcome.SKIPPED}
    assert all("has no float64" in entry.detail for entry in report.entries if entry.dtype == "float64")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"expected_failures": {"no_such_check": "why"}}, "`expected_failures` must name checks"),
        ({"dtypes": ["float16"]}, "`dtypes` must be 'float32' and 'float64'"),
    ],
)
def test_bad_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_backend(np, **options)


def test_the_command_prints_the_table_and_writes_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "report.json"
    assert main(["conformance", "--backend", "numpy", "--json", str(path)]) == 0
    out = capsys.readouterr().out
    assert "agrees_with_the_oracle" in out
    assert json.loads(path.read_text(encoding="utf-8"))["ok"] is True


def test_the_command_fails_where_a_check_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("nmf_xp.updates.mm_exponent", lambda *_, **__: 1.0)
    assert main(["conformance", "--backend", "numpy"]) == 1
    assert "FAILED" in capsys.readouterr().out


def test_the_command_refuses_an_unknown_backend(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conformance", "--backend", "abacus"]) == 2
    assert "--backend must be one of numpy" in capsys.readouterr().err
