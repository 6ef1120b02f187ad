"""The test matrix itself: no backend is left out unnoticed, and no known failure outlives its reason."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from nmf_xp.testing import Backend
from tests import conftest
from tests.known_failures import KNOWN_FAILURES


def test_a_missing_backend_fails_in_ci_and_is_skipped_with_its_reason_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Backend, "missing", lambda _: "out of order")
    monkeypatch.setattr(conftest, "CI", True)
    monkeypatch.setattr(conftest, "LEFT_OUT", ["array_api_strict"])
    with pytest.raises(pytest.skip.Exception, match="array_api_strict: out of order"):
        next(conftest._active_target(Backend.STRICT))
    with pytest.raises(pytest.fail.Exception, match="torch: out of order, and CI must cover every backend"):
        next(conftest._active_target(Backend.TORCH))
    with pytest.raises(pytest.skip.Exception, match="torch:cuda: out of order"):
        next(conftest._active_target(Backend.TORCH_CUDA))
    monkeypatch.setattr(conftest, "CI", False)
    with pytest.raises(pytest.skip.Exception, match="torch: out of order"):
        next(conftest._active_target(Backend.TORCH))


def test_the_header_says_which_backends_are_covered() -> None:
    covered, *_, skipped = conftest.pytest_report_header()
    for backend in Backend:
        with conftest.installed(backend):
            assert backend.value in (covered if backend.missing() is None else skipped)


def test_every_known_failure_names_a_check_and_where_it_is_discussed() -> None:
    names = {
        node.name
        for path in Path(__file__).parent.rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }
    for (_, check), failure in KNOWN_FAILURES.items():
        assert check in names
        assert failure.reason
        assert failure.link.startswith("https://")
