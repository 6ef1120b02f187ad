"""`nmf-xp conformance`: all checks on every backend that is installed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from nmf_xp.files import check_output, write_atomically
from nmf_xp.testing.backends import Backend
from nmf_xp.testing.conformance import check_backend
from nmf_xp.testing.report import merge

if TYPE_CHECKING:
    import argparse


def run(options: argparse.Namespace) -> int:
    """Print the table; the exit status is 1 where a check failed."""
    if options.json:
        check_output(Path(options.json), suffixes=None, force=options.force)
    backends = [backend for backend in Backend if backend is not Backend.TORCH_META]  # it has no values to check
    if options.backend:
        known = {backend.value: backend for backend in backends}
        unknown = [name for name in options.backend if name not in known]
        if unknown:
            msg = f"--backend must be one of {', '.join(known)}, got {', '.join(unknown)}"
            raise ValueError(msg)
        backends = [known[name] for name in options.backend]
    missing = {backend.value: reason for backend in backends if (reason := backend.missing()) is not None}
    backends = [backend for backend in backends if backend.value not in missing]
    if any(backend.library == "jax" for backend in backends):
        import jax

        jax.config.update("jax_enable_x64", True)  # type: ignore[no-untyped-call]
    reports = []
    for backend in backends:
        print(f"{backend.value} ...", file=sys.stderr, flush=True)  # noqa: T201
        reports.append(check_backend(backend.target()))
    report = merge(reports)
    print(report)  # noqa: T201
    for name, reason in missing.items():
        print(f"not run: {name} ({reason})")  # noqa: T201
    if options.json:
        text = report.to_json().encode()
        write_atomically(Path(options.json), lambda file: file.write(text), replace=options.force)
    return 0 if report.ok and reports else 1
