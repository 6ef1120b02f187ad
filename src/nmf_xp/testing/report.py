"""What a run of checks found: a table to read, a verdict, and JSON."""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping


class Outcome(enum.Enum):
    """How a check ended."""

    PASSED = "ok"
    FAILED = "FAILED"
    SKIPPED = "skipped"
    EXPECTED_FAILURE = "fails as expected"
    UNEXPECTED_PASS = "PASSES, expected to fail"


class Skip(Exception):  # noqa: N818 - it is no error
    """Raised by a check that cannot say anything here, with the reason."""


@dataclass(frozen=True)
class Entry:
    """One check on one target."""

    check: str
    target: str
    dtype: str
    outcome: Outcome
    detail: str


@dataclass(frozen=True)
class Report:
    """All entries of a run; `ok` is the verdict, `str()` the table, `to_json()` both for a machine."""

    entries: tuple[Entry, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing failed that should pass, and nothing passed that should fail."""
        return not self.failures

    @property
    def failures(self) -> tuple[Entry, ...]:
        """The entries that make the verdict negative."""
        return tuple(e for e in self.entries if e.outcome in (Outcome.FAILED, Outcome.UNEXPECTED_PASS))

    def __str__(self) -> str:
        heads = ("check", "target", "dtype", "outcome", "detail")
        rows = [heads, *((e.check, e.target, e.dtype, e.outcome.value, e.detail) for e in self.entries)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(heads) - 1)]
        lines = [
            "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[-1]]).rstrip()
            for row in rows
        ]
        counts = ", ".join(
            f"{n} {outcome.value}" for outcome in Outcome if (n := sum(e.outcome is outcome for e in self.entries))
        )
        return "\n".join([*lines, "", counts or "nothing was checked"])

    def to_json(self) -> str:
        """The verdict and the entries as a JSON object."""
        entries = [{**vars(e), "outcome": e.outcome.name.lower()} for e in self.entries]
        return json.dumps({"ok": self.ok, "entries": entries}, indent=2)


def run_check(
    check: Callable[[], str], name: str, target: str, dtype: str, expected_failures: Mapping[str, str]
) -> Entry:
    """Run one check; whatever it raises is its outcome."""
    reason = expected_failures.get(name)
    try:
        detail = check()
        if reason is None:
            return Entry(name, target, dtype, Outcome.PASSED, detail)
        return Entry(name, target, dtype, Outcome.UNEXPECTED_PASS, f"expected to fail: {reason}")
    except Skip as skip:
        return Entry(name, target, dtype, Outcome.SKIPPED, str(skip))
    except Exception as error:
        text = " ".join(str(error).split()) or type(error).__name__
        detail = text if isinstance(error, AssertionError) else f"{type(error).__name__}: {text}"
        if reason is None:
            return Entry(name, target, dtype, Outcome.FAILED, detail[:300])
        return Entry(name, target, dtype, Outcome.EXPECTED_FAILURE, reason)


def merge(reports: Iterable[Report]) -> Report:
    """One report of several."""
    return Report(tuple(entry for report in reports for entry in report.entries))
