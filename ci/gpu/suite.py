"""The project's tests on one backend, until they end or the time is out."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ci.gpu import stream

if TYPE_CHECKING:
    from ci.gpu.task import Run

ROOT = Path(__file__).parents[2]
REHEARSED = "tests/test_divergences.py::test_values_worked_out_by_hand"


def main(run: Run) -> None:
    """Run pytest, which writes a line for each failure, and for each so many that passed."""
    lacking = [package for package in ("pytest", "hypothesis") if importlib.util.find_spec(package) is None]
    if lacking:
        run.emit(what="all", not_run=f"{' and '.join(lacking)} not installed")
        return
    settings = {stream.OUT: str(run.out), stream.BACKEND: run.task.backend, stream.UNTIL: str(run.until)}
    settings["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "--xla_gpu_autotune_level=0")  # the products are small
    begin = time.perf_counter()
    status = subprocess.run(command(run), cwd=ROOT, env={**os.environ, **settings}, check=False).returncode
    run.emit(what="pytest", status=status, seconds=time.perf_counter() - begin)


def command(run: Run) -> list[str]:
    """Pytest's command line: the tests whose name holds the backend's, on many cores where xdist is here."""
    found = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", stream.__name__]
    for message in ("Error reading persistent", "Error writing persistent"):  # JAX's cache, which processes share
        found += ["-W", f"ignore:{message}:UserWarning"]
    if importlib.util.find_spec("xdist") is not None:
        found += [
            "-n",
            str(1 if run.small else run.workers),
            "--dist",
            "worksteal",
            "-p",
            "no:benchmark",
        ]  # which warns of xdist
    return [*found, "-k", run.task.backend, REHEARSED if run.small else "tests"]
