"""The driver: every stage in processes of its own, which end at their limit, with all that they started."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ci.gpu import lines, page, plan

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
LEAST = 5.0  # seconds with which a stage is begun
RESERVE = 3.0  # seconds for the page at the end
FAIR = 1.5  # how much more than an equal share of what is left a process may take, where others wait
MARK = "NMF_XP_GPU_TASK"  # in the environment of a process and of all that it starts
LEFT = f"{page.PAGE.relative_to(ROOT)} is left as it was"
ENVIRONMENT = {
    "PYTHONUNBUFFERED": "1",
    "PYTHONFAULTHANDLER": "1",
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # else the first JAX process takes three quarters of the memory
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "MPLBACKEND": "agg",
}
ON_A_GPU = {  # what one process has compiled, the others find
    "JAX_COMPILATION_CACHE_DIR": str(Path(tempfile.gettempdir()) / f"nmf_xp-jax-cache-{os.getuid()}"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
IN_A_REHEARSAL = {"JAX_PLATFORMS": "cpu"}


class Options(NamedTuple):
    """What was asked for."""

    out: Path
    budget: float
    spent: float
    stages: list[str]
    libraries: list[str]
    small: bool
    workers: int


class Job(NamedTuple):
    """A process to run: its name, its command, and what its environment has besides ours."""

    name: str
    command: list[str]
    environment: dict[str, str]


class Ending(NamedTuple):
    """How a process ended: its exit status, or None where it was ended at its limit."""

    status: int | None
    seconds: float
    limit: float


def drive(options: Options) -> int:
    """All stages, within the budget; exit status 1 where something failed or was ended, 2 without a GPU."""
    end = time.monotonic() + options.budget - options.spent - RESERVE
    out, small = options.out, options.small
    wanted = plan.backends(options.libraries, small=small)
    about = {"budget": options.budget, "small": small, "stages": options.stages, "backends": wanted}
    lines.write(out, "start", date=f"{dt.datetime.now(tz=dt.UTC):%Y-%m-%d %H:%M} UTC", **about)
    begun = len(lines.read([out / lines.NAME]))
    first = "probe" if "probe" in options.stages else "here"
    fine = run_stage(first, wanted, options, end)
    missing = absent(lines.read([out / lines.NAME])[begun:], wanted)
    present = [backend for backend in wanted if backend not in missing]
    if present:
        for stage in plan.STAGES:
            if stage in options.stages and stage != "probe":
                fine &= run_stage(stage, present, options, end)
    if not present:
        reasons = "; ".join(f"{backend}: {reason}" for backend, reason in missing.items())
        lines.write(out, "end", what="no GPU", detail=reasons)
        make_page(out)
        print(f"no GPU backend can run here ({reasons}); {LEFT}", file=sys.stderr)
        return 2
    print(make_page(out), flush=True)
    if small:
        print(f"a rehearsal: {LEFT}", file=sys.stderr)
    elif not page.Found(lines.read([out / lines.NAME]))("machine", "", "chip"):  # it may be a stand-in
        print(f"nvidia-smi names no GPU: {LEFT}", file=sys.stderr)
    else:
        page.keep([out / lines.NAME])
    return 0 if fine and not page.failures(lines.read([out / lines.NAME])) else 1


def absent(rows: list[dict[str, object]], wanted: list[str]) -> dict[str, str]:
    """Which backends cannot run here, and why; one that does not answer is one of them."""
    said = {row["backend"]: row["missing"] for row in rows if row["stage"] == "here" and "missing" in row}
    reasons = {backend: said.get(backend, "it did not answer") for backend in wanted}
    return {backend: str(reason) for backend, reason in reasons.items() if reason is not None}


def run_stage(stage: str, backends: list[str], options: Options, end: float) -> bool:
    """One stage, and the page as far as it is known then; whether all its processes ended well."""
    limit, together = plan.STAGES.get(stage, plan.HERE)
    left = end - time.monotonic()
    if left < LEAST:
        print(f"== {stage}: no time is left", flush=True)
        lines.write(options.out, stage, what="all", not_run="no time was left")
        return False
    limit = min(limit, left)
    print(f"== {stage}: at most {limit:.0f} s", flush=True)
    jobs = {task.name: job(task, options) for task in plan.tasks(stage, backends, small=options.small)}
    begin, statuses = time.monotonic(), []

    def ended(name: str, ending: Ending) -> None:
        how = "ended at its limit" if ending.status is None else f"exit {ending.status}"
        lines.write(options.out, "end", of=stage, what=name, how=how, seconds=ending.seconds, limit=ending.limit)
        print(f"   {name}: {how} after {ending.seconds:.0f} s", flush=True)
        statuses.append(ending.status)

    with (options.out / "log.txt").open("ab") as log:
        run_jobs(list(jobs.values()), limit, log.fileno(), ended, together=together)
    make_page(options.out)
    print(f"== {stage}: {time.monotonic() - begin:.0f} s", flush=True)
    return not any(status != 0 for status in statuses)


def job(task: plan.Task, options: Options) -> Job:
    """The process of a task."""
    environment = IN_A_REHEARSAL if options.small else ON_A_GPU
    environment = environment if task.kernels else {**environment, "NMF_XP_KERNELS": "0"}
    settings = {"out": str(options.out.resolve()), "small": options.small, "workers": options.workers}
    return Job(task.name, [sys.executable, "-m", "ci.gpu.task", json.dumps([task, settings])], environment)


def run_jobs(jobs: list[Job], limit: float, log: int, ended: Callable[[str, Ending], None], *, together: bool) -> None:
    """Run processes side by side, or one after the other with a share of the time for each."""
    end = time.monotonic() + limit
    groups = [jobs] if together else [[job] for job in jobs]
    for i, group in enumerate(groups):
        left = end - time.monotonic()
        share = left if i + 1 == len(groups) else min(left, FAIR * left / (len(groups) - i))
        run_together(group, max(share, 0.0), log, ended)


def run_together(jobs: list[Job], limit: float, log: int, ended: Callable[[str, Ending], None]) -> None:
    """Run processes side by side and say how each ended; none of them, nor what they started, outlives the call."""
    begin = time.monotonic()
    mark = uuid.uuid4().hex
    running: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for job in jobs:
            os.write(log, f"\n#### {job.name}\n".encode())
            running[job.name] = subprocess.Popen(
                job.command,
                cwd=ROOT,
                env=surroundings(job, mark, limit),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        waiting = dict(running)
        while waiting and time.monotonic() - begin < limit:
            for name, process in list(waiting.items()):
                if process.poll() is not None:
                    del waiting[name]
                    ended(name, Ending(process.returncode, time.monotonic() - begin, limit))
            time.sleep(0.02)
        for name in waiting:
            ended(name, Ending(None, time.monotonic() - begin, limit))
    finally:
        end_all(list(running.values()), mark)


def surroundings(job: Job, mark: str, limit: float) -> dict[str, str]:
    """The environment of a process: ours, how it is known, and until when it may begin something new."""
    paths = [str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    soft = time.time() + limit - min(4.0, limit / 5)
    found = {**os.environ, **ENVIRONMENT, **job.environment, MARK: mark, "NMF_XP_GPU_UNTIL": f"{soft:.3f}"}
    return {**found, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}


def end_all(processes: list[subprocess.Popen[bytes]], mark: str) -> None:
    """End processes, their groups, and whatever else carries their mark, be it in a session of its own."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    for pid in marked(mark):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    until = time.monotonic() + 2
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):  # a process may hang in a driver, where nothing ends it
            process.wait(timeout=max(0.0, until - time.monotonic()))


def marked(mark: str) -> list[int]:
    """The processes that carry a mark in their environment, where the system lists them."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return found


def make_page(out: Path) -> str:
    """The page of what is known, into the folder of the results."""
    text = page.render(lines.read([out / lines.NAME]))
    (out / page.PAGE.name).write_text(text, encoding="utf-8")
    return text
