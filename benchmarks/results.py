"""The file of results: what ran, where, when and with which versions; written, read and merged."""

from __future__ import annotations

import argparse
import datetime as dt
import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PACKAGES = (
    "nmf_xp", "numpy", "scipy", "numba", "threadpoolctl", "jax", "jaxlib", "torch", "scikit-learn", "torchnmf",
    "nmf-torch", "tensorly", "lda", "nimfa", "scikit-image",
)  # fmt: skip
KEY = ("view", "loss", "data", "input", "backend", "seed", "side", "target")  # what makes a row another one


def load() -> float | None:
    """How many processes wanted a core in the last minute; asked before a run, what else the machine had to do."""
    return round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None


def describe(load_before: float | None) -> dict[str, Any]:
    """The present run: date, machine, versions and commit."""
    folder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    folder.add_argument("--output")  # where the results lie says nothing about them
    arguments = folder.parse_known_args()[1]
    return {
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "load_before": load_before,
        "arguments": arguments,
        "machine": {
            "cpu": _cpu(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "memory_gib": _memory(),
            "system": platform.platform(),
            "blas": _blas(),
        },
        "versions": {"python": platform.python_version(), **{x: _version(x) for x in PACKAGES}},
        "commit": _commit(),
    }


def results(run: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The contents of a file: each row says which run it is from."""
    return {"runs": [run], "rows": [{**row, "run": 0} for row in rows]}


def merged(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Several files as one; of rows for the same thing the last one counts, and runs without rows are left out."""
    runs = [run for part in parts for run in part["runs"]]
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    offset = 0
    for part in parts:
        for row in part["rows"]:
            key = tuple(row.get(x) for x in KEY)
            rows[key] = {**row, "run": row["run"] + offset}
        offset += len(part["runs"])
    used = sorted({row["run"] for row in rows.values()})
    new = {old: i for i, old in enumerate(used)}
    return {"runs": [runs[i] for i in used], "rows": [{**row, "run": new[row["run"]]} for row in rows.values()]}


def write(found: dict[str, Any], path: Path) -> None:
    """One row a line, so that two files can be compared by eye."""
    runs = json.dumps(found["runs"], indent=1)
    rows = ",\n".join(json.dumps(row, allow_nan=False) for row in found["rows"])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'{{"runs": {runs},\n"rows": [\n{rows}\n]}}\n', encoding="utf-8")


def read(path: Path) -> dict[str, Any]:
    """The contents of a file."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _cpu() -> str:
    """Linux knows the model's name; elsewhere Python's own answer has to do."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = dict(line.split(":", 1) for line in info.read_text(encoding="utf-8").splitlines() if ":" in line)
        named = {key.strip(): value.strip() for key, value in lines.items()}
        name, family, model = (named.get(x, "") for x in ("model name", "cpu family", "model"))
        return f"{name}, family {family}, model {model}"
    return platform.processor() or platform.machine()


def _memory() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None


def _blas() -> list[str]:
    try:
        import threadpoolctl
    except ImportError:
        return []
    found = threadpoolctl.threadpool_info()
    return sorted({f"{x['internal_api']} {x.get('version')}, {x['num_threads']} threads" for x in found})


def _commit() -> str | None:
    """The commit, and whether files differ from it."""
    git = ["git", "-C", str(ROOT)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
        changes = subprocess.run([*git, "status", "--porcelain"], check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + (" and changes" if changes.strip() else "")
