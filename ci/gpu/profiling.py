"""What an iteration asks of the driver: launches, waits and copies; and what a kernel does, where ncu is here."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ci.gpu import plan
from ci.gpu.clock import Clock, factors, uniform
from ci.gpu.iterations import Iterations

if TYPE_CHECKING:
    from ci.gpu.task import Run

ROOT = Path(__file__).parents[2]
CALLS = {
    "launches": ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx"),
    "waits": ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cuStreamSynchronize"),
    "copies": ("cudaMemcpyAsync", "cudaMemcpy", "cuMemcpyHtoDAsync_v2", "cuMemcpyDtoHAsync_v2"),
}
NCU = ["ncu", "--clock-control", "none", "--set", "basic", "--section", "MemoryWorkloadAnalysis",
       "--section", "WarpStateStats", "--kernel-name", "regex:.*kernel.*", "--launch-count", "2"]  # fmt: skip
KEPT = ("Duration", "Memory Throughput", "Compute (SM) Throughput", "Registers Per Thread", "Achieved Occupancy")


def main(run: Run) -> None:
    """The counts of some solvers, which torch's profiler sees for every library of the process, and ncu for JAX."""
    clock = Clock(run.task.backend)
    n = 64 if run.small else 4096 if run.task.stage == "profile" else 8192
    V = uniform((n, n), 0)
    if run.task.stage == "launch":
        clock.wait(started(clock, V, "mu", 1.0, 64).run(1))
        return
    if importlib.util.find_spec("torch") is None:
        run.emit(what="all", not_run="torch, whose profiler counts the calls, is not installed")
        return
    for case in plan.profiled_cases(small=run.small):
        run.attempt(plan.profiled_name(case), lambda case=case: counted(run, clock, V, *case))  # type: ignore[misc]
    if run.task.backend == "jax:gpu" and shutil.which("ncu") is not None:
        run.attempt("ncu", lambda: seen_by_ncu(run))


def started(clock: Clock, V: Any, solver: str, beta: float, rank: int) -> Iterations:
    """A solver on these data."""
    W, H = (clock.asarray(x) for x in factors(V.shape, rank))
    return Iterations(clock.asarray(V), W, H, solver, beta)


def counted(run: Run, clock: Clock, V: Any, solver: str, beta: float) -> dict[str, Any]:
    """Calls of CUDA in an iteration: those of four less those of two, halved, as the end waits and copies too."""
    import torch

    iterations = started(clock, V, solver, beta, 20 if not run.small else 4)
    clock.wait(iterations.run(2))
    on_gpu = torch.cuda.is_available()
    activities = [torch.profiler.ProfilerActivity.CPU, *([torch.profiler.ProfilerActivity.CUDA] if on_gpu else [])]
    sums = []
    for n in (2, 4):
        with torch.profiler.profile(activities=activities) as profiler:
            clock.wait(iterations.run(n))
        events = profiler.key_averages()
        sums.append({kind: sum(e.count for e in events if e.key in names) for kind, names in CALLS.items()})
    with (run.out / "profile.txt").open("a", encoding="utf-8") as file:
        order = "device_time_total" if on_gpu else "cpu_time_total"
        table = events.table(sort_by=order, row_limit=14, max_name_column_width=60)
        file.write(f"\n#### {run.task.backend}: {solver} {beta:g}\n{table}\n")
    return {kind: (sums[1][kind] - sums[0][kind]) / 2 for kind in CALLS}


def seen_by_ncu(run: Run) -> dict[str, Any]:
    """The kernel of dense data under ncu, in a process of its own."""
    task = plan.Task("launch", run.task.backend)
    settings = {"out": str(run.out), "small": run.small, "workers": run.workers}
    command = [*NCU, sys.executable, "-m", "ci.gpu.task", json.dumps([task, settings])]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=max(5.0, run.left))
    with (run.out / "profile.txt").open("a", encoding="utf-8") as file:
        file.write(answer.stdout[-60_000:] + answer.stderr[-2000:])
    kept = [" ".join(line.split()) for line in answer.stdout.splitlines() if any(word in line for word in KEPT)]
    return {"status": answer.returncode, "lines": kept[:24]}
