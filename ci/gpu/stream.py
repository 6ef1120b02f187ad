"""A plugin of pytest: a line of results for each test that fails, and for each so many that pass."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ci.gpu import lines

if TYPE_CHECKING:
    import pytest

OUT, BACKEND, UNTIL = "NMF_XP_STREAM_OUT", "NMF_XP_STREAM_BACKEND", "NMF_XP_STREAM_UNTIL"
EVERY = 25  # tests that passed
STOPPED = "the time is out"


def over() -> bool:
    """Whether the time is out."""
    return time.time() > float(os.environ[UNTIL])


class Stop:
    """Stops the tests when the time is out, in each of the processes among which xdist divides them."""

    def __init__(self) -> None:
        self.session: pytest.Session | None = None

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Keep the session, to stop it."""
        self.session = session

    def pytest_runtest_logfinish(self) -> None:
        """After each test."""
        if over() and self.session is not None:
            self.session.shouldstop = STOPPED


class Stream:
    """Writes what the tests find, in the process that collects it."""

    def __init__(self) -> None:
        self.counts = {"passed": 0, "failed": 0, "skipped": 0}

    def write(self, **found: Any) -> None:
        """One line."""
        lines.write(Path(os.environ[OUT]), "tests", backend=os.environ[BACKEND], **found)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count, and write."""
        if report.failed or report.when == "call" or report.skipped:
            self.counts[report.outcome] += 1
        if report.failed:
            why = " ".join(str(report.longrepr)[-1500:].split())
            self.write(what="failure", test=report.nodeid, when=report.when, why=why)
        elif report.when == "call" and self.counts["passed"] % EVERY == 0:
            self.write(what="so far", **self.counts)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file that cannot be collected."""
        if report.failed:
            self.write(what="failure", test=report.nodeid, when="collect", why=str(report.longrepr)[-1500:])

    def pytest_sessionfinish(self) -> None:
        """The sum."""
        self.write(what="so far", **self.counts, stopped=STOPPED if over() else "", ended=True)


def pytest_configure(config: pytest.Config) -> None:
    """Stop everywhere; write where the reports are collected."""
    config.pluginmanager.register(Stop())
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Stream())
