"""Clusters for tests, with workers in this process or in processes of their own."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

distributed = pytest.importorskip("distributed")

QUIET: dict[str, Any] = {"dashboard_address": ":0", "silence_logs": logging.CRITICAL, "threads_per_worker": 1}
HERE: dict[str, Any] = {"processes": False, "protocol": "tcp://"}
LONG = 120  # seconds after which what should happen is given up


@contextlib.contextmanager
def cluster(n_workers: int = 2, **options: Any) -> Iterator[tuple[Any, Any]]:
    """A cluster and its client."""
    with (
        distributed.LocalCluster(n_workers=n_workers, **QUIET, **options) as found,
        distributed.Client(found) as client,
    ):
        yield found, client


@contextlib.contextmanager
def worker(address: str, path: Path | None = None, **environment: str) -> Iterator[str]:
    """The address of a worker in a process of its own, which finds its packages in `path` first."""
    first = {} if path is None else {"PYTHONPATH": os.pathsep.join((str(path), os.environ.get("PYTHONPATH", "")))}
    command = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--no-nanny", "--nthreads", "1"]
    with distributed.Client(address, set_as_default=False) as client:
        before = set(client.nthreads())
        process = subprocess.Popen(
            [*command, "--no-dashboard"],
            env={**os.environ, **first, **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            client.wait_for_workers(len(before) + 1, timeout=LONG)
            (new,) = set(client.nthreads()) - before
            yield new
        finally:
            process.kill()
            process.wait()
            until(lambda: len(client.nthreads()) <= len(before))


def until(holds: Callable[[], Any]) -> None:
    """Wait for it."""
    given_up = time.monotonic() + LONG
    while not holds():
        assert time.monotonic() < given_up, "it did not happen"
        time.sleep(0.02)
