"""Run the kit, the tests and a benchmark on the GPU backends that are here, and write docs/gpu-report.md."""

from __future__ import annotations

import datetime as dt
import importlib
import importlib.util
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from nmf_xp import nmf
from nmf_xp.testing import Backend, Report, check_backend

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[1]
REPORT = ROOT / "docs" / "gpu-report.md"
GPU_BACKENDS = (Backend.CUPY, Backend.TORCH_CUDA, Backend.JAX_GPU)
SHAPE, RANKS = (16_384, 16_384), (16, 64)


def main() -> int:
    """Write the report; exit status 1 where something failed, 2 without a GPU, when nothing is written."""
    missing = {backend: backend.missing() for backend in GPU_BACKENDS}
    backends = [backend for backend, reason in missing.items() if reason is None]
    if not backends:
        reasons = "; ".join(f"{backend.value}: {reason}" for backend, reason in missing.items())
        print(f"no GPU backend can run here ({reasons}); {REPORT.relative_to(ROOT)} is left as it was", file=sys.stderr)
        return 2
    if Backend.JAX_GPU in backends:
        importlib.import_module("jax").config.update("jax_enable_x64", True)
    reports = {backend.value: check_backend(backend.target()) for backend in backends}
    tests = run_tests(backends)
    rows = [row for backend in backends for row in benchmark(backend, backend.value)]
    if Backend.JAX_GPU in backends:
        rows += benchmark_without_kernels(Backend.JAX_GPU)
    text = render(chip(), versions(), reports, tests, rows, missing_reasons(missing))
    REPORT.write_text(text, encoding="utf-8")
    print(text)
    return 0 if tests[0] == 0 and all(report.ok for report in reports.values()) else 1


def missing_reasons(missing: dict[Backend, str | None]) -> dict[str, str]:
    """Why a backend did not run."""
    return {backend.value: reason for backend, reason in missing.items() if reason is not None}


def run_tests(backends: list[Backend]) -> tuple[int, str]:
    """The exit status and the last line of pytest on the GPU backends."""
    if importlib.util.find_spec("pytest") is None or importlib.util.find_spec("hypothesis") is None:
        return 0, "pytest and hypothesis are not installed; only the kit ran"
    names = " or ".join(backend.value for backend in backends)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", names, "tests"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    lines = run.stdout.strip().splitlines() or run.stderr.strip().splitlines() or ["no output"]
    return run.returncode, lines[-1]


def benchmark_without_kernels(backend: Backend) -> list[tuple[str, int, float, float]]:
    """The same for a JAX backend whose programs are compiled without kernels."""
    jax = importlib.import_module("jax")
    with mock.patch.dict(os.environ, {"NMF_XP_KERNELS": "0"}):
        jax.clear_caches()  # the choice is part of the programs
        rows = benchmark(backend, f"{backend.value}, no kernels")
    jax.clear_caches()
    return rows


def benchmark(backend: Backend, label: str) -> list[tuple[str, int, float, float]]:
    """For each rank: milliseconds of a KL iteration, and their ratio to reading V once at the measured copy speed."""
    target = backend.target()
    xp, wait = target.xp, synchronizer(backend)
    keyword = {"device": target.device} if target.device is not None else {}
    V = xp.ones(SHAPE, dtype=xp.float32, **keyword) + xp.reshape(
        xp.arange(SHAPE[1], dtype=xp.float32, **keyword), (1, -1)
    )
    copy = median_seconds(lambda: wait(V + 1.0))
    read = copy / 2  # a copy reads V once and writes it once
    rows = []
    for rank in RANKS:
        W, H = (xp.ones(shape, dtype=xp.float32, **keyword) for shape in ((SHAPE[0], rank), (rank, SHAPE[1])))

        def run(n: int, W: Any = W, H: Any = H, rank: int = rank) -> None:
            wait(nmf(V, rank, beta_loss=1, solver="mu", init=(W, H), max_iter=n, tol=0).W)

        run(2)
        seconds = median_seconds(lambda run=run: run(22)) - median_seconds(lambda run=run: run(2))  # type: ignore[misc]
        rows.append((label, rank, seconds / 20 * 1e3, seconds / 20 / read))
    return rows


def synchronizer(backend: Backend) -> Callable[[Any], None]:
    """What waits for an array to be computed."""
    if backend is Backend.CUPY:
        return lambda _: importlib.import_module("cupy").cuda.Device().synchronize()
    if backend is Backend.TORCH_CUDA:
        return lambda _: importlib.import_module("torch").cuda.synchronize()
    return lambda x: x.block_until_ready()


def median_seconds(function: Callable[[], None], repeats: int = 5) -> float:
    """Median time of several calls, after one that is not counted."""
    function()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        function()
        times.append(time.perf_counter() - begin)
    return sorted(times)[repeats // 2]


def chip() -> str:
    """Name and driver of the GPU."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown (nvidia-smi did not answer)"


def versions() -> dict[str, str]:
    """Versions of all that took part."""
    found = {"python": platform.python_version()}
    for name in ("nmf_xp", "numpy", "cupy", "torch", "jax", "array_api_compat"):
        if importlib.util.find_spec(name) is not None:
            found[name] = str(importlib.import_module(name).__version__)
    return found


def render(
    gpu: str,
    software: dict[str, str],
    reports: dict[str, Report],
    tests: tuple[int, str],
    rows: list[tuple[str, int, float, float]],
    missing: dict[str, str],
) -> str:
    """The page."""
    lines = ["# GPU report", "", f"{dt.datetime.now(tz=dt.UTC):%Y-%m-%d}, {gpu}.", ""]
    lines += [", ".join(f"{name} {version}" for name, version in software.items()) + ".", ""]
    lines += [f"Tests: {tests[1]}", ""]
    lines += [f"- {name} did not run: {reason}" for name, reason in missing.items()]
    m, n = SHAPE
    lines += ["", "## Time", "", f"Kullback-Leibler, `mu`, {m} x {n}, float32; medians of five.", ""]
    lines += ["| backend | rank | ms an iteration | over one read of V |", "|---|---|---|---|"]
    lines += [f"| {name} | {rank} | {ms:.2f} | {ratio:.1f} |" for name, rank, ms, ratio in rows]
    lines += ["", "Without kernels: `NMF_XP_KERNELS=0`. They multiply in full precision; XLA may take TF32."]
    for name, report in reports.items():
        lines += ["", f"## {name}: {'conforms' if report.ok else 'FAILS'}", "", "```text", str(report), "```"]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.exit(main())
