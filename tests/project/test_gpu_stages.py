"""The driver of ci/gpu.sh: whatever hangs or crashes, the rest goes on, what was found stays, nothing outlives it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ci.gpu import driver, lines, page, plan, stream, suite, task, variants
from ci.gpu.iterations import Iterations
from tests import stand_in
from tests.scripts import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are found in /proc")

HANGS = """
import pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session={own})
pathlib.Path({folder!r}, "pids").write_text(f"{{child.pid}}")
time.sleep(600)
"""
SLOW = 4.0  # seconds more than planned that a loaded machine may take to end and to start processes


def python(name: str, text: str) -> driver.Job:
    return driver.Job(name, [sys.executable, "-c", text], {})


def running(pid: int) -> bool:
    """Whether a process runs; one that has ended and whose parent has not asked yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def comes_true(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def run_all(jobs: list[driver.Job], limit: float, log: Path, *, together: bool) -> dict[str, driver.Ending]:
    found: dict[str, driver.Ending] = {}
    with log.open("ab") as file:
        driver.run_jobs(jobs, limit, file.fileno(), found.__setitem__, together=together)
    return found


@pytest.mark.parametrize("own", [False, True], ids=["its group", "a session of its own"])
def test_a_process_that_hangs_is_ended_at_its_limit_with_what_it_started(tmp_path: Path, *, own: bool) -> None:
    begin = time.monotonic()
    job = python("hangs", HANGS.format(folder=str(tmp_path), own=own))
    found = run_all([job], 2.0, tmp_path / "log", together=True)
    assert time.monotonic() - begin < 2.0 + SLOW
    assert found["hangs"].status is None
    pid = int((tmp_path / "pids").read_text(encoding="utf-8"))
    assert comes_true(lambda: not running(pid))


def test_what_a_process_left_behind_is_ended_with_its_group(tmp_path: Path) -> None:
    text = HANGS.format(folder=str(tmp_path), own=True).replace("time.sleep(600)\n", "")
    assert run_all([python("ends", text)], 60.0, tmp_path / "log", together=True)["ends"].status == 0
    pid = int((tmp_path / "pids").read_text(encoding="utf-8"))
    assert comes_true(lambda: not running(pid))


def test_side_by_side_none_waits_for_another_and_a_crash_is_a_status(tmp_path: Path) -> None:
    jobs = [
        python("hangs", "import time; time.sleep(600)"),
        python("aborts", "import os; print('before', flush=True); os.abort()"),
        python("fails", "raise SystemExit(3)"),
    ]
    found = run_all(jobs, 3.0, tmp_path / "log", together=True)
    assert {name: ending.status for name, ending in found.items()} == {
        "aborts": -signal.SIGABRT,
        "fails": 3,
        "hangs": None,
    }
    assert "before" in (tmp_path / "log").read_text(encoding="utf-8")


def test_one_that_hangs_leaves_the_others_their_share_of_the_time(tmp_path: Path) -> None:
    jobs = [
        python(name, text) for name, text in (("first", "import time; time.sleep(600)"), ("second", ""), ("third", ""))
    ]
    begin = time.monotonic()
    found = run_all(jobs, 8.0, tmp_path / "log", together=False)
    assert [found[name].status for name in ("first", "second", "third")] == [None, 0, 0]
    assert found["first"].limit == pytest.approx(8.0 * driver.FAIR / 3, abs=0.5)
    assert time.monotonic() - begin < 8.0


def test_lines_that_were_written_outlive_a_crash(tmp_path: Path) -> None:
    text = f"""
import os, pathlib
from ci.gpu import plan, task
run = task.Run(plan.Task("time", "torch"), pathlib.Path({str(tmp_path)!r}), small=True, workers=1, until=float("inf"))
run.attempt("first", lambda: {{"ms": 1.5}})
run.attempt("second", os.abort)
"""
    assert (
        run_all([python("crashes", text)], 60.0, tmp_path / "log", together=True)["crashes"].status == -signal.SIGABRT
    )
    assert lines.read([tmp_path / lines.NAME]) == [{"stage": "time", "backend": "torch", "what": "first", "ms": 1.5}]


def test_a_signal_ends_what_is_running(tmp_path: Path) -> None:
    command, environment = rehearsal(tmp_path, HANGS.format(folder=str(tmp_path), own=True), "--budget", "100")
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    try:
        assert comes_true(lambda: (tmp_path / "pids").exists() and (tmp_path / "pids").read_text() != "", 60.0)
        process.terminate()
        assert process.wait(timeout=20) == 143
    finally:
        process.kill()
    pid = int((tmp_path / "pids").read_text(encoding="utf-8"))
    assert comes_true(lambda: not running(pid))


def rehearsal(folder: Path, cupy: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """The command and its environment, with a CuPy that does this when it is imported."""
    (folder / "cupy").mkdir()
    (folder / "cupy" / "__init__.py").write_text(cupy, encoding="utf-8")
    environment = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(folder), "OUT": str(folder / "out")}
    return ["bash", "ci/gpu.sh", "--small", "--backends", "cupy", *arguments], environment


def test_a_library_that_hangs_costs_no_more_than_the_budget_and_the_page_says_so(tmp_path: Path) -> None:
    command, environment = rehearsal(tmp_path, HANGS.format(folder=str(tmp_path), own=True), "--budget", "12")
    begin = time.monotonic()
    answer = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert time.monotonic() - begin < 12.0 + SLOW
    assert answer.returncode == 2
    assert "cupy: it did not answer" in answer.stderr
    text = (tmp_path / "out" / "gpu-report.md").read_text(encoding="utf-8")
    assert "- probe cupy: ended at its limit" in text
    assert "- versions: python" in text  # which the process beside it found


def test_a_rehearsal_finds_all_that_it_asks_for_and_leaves_the_report_as_it_was(tmp_path: Path) -> None:
    before = page.PAGE.read_bytes()
    environment = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(stand_in.FOLDER), "OUT": str(tmp_path)}
    command = ["bash", "ci/gpu.sh", "--small", "--budget", "200", "--backends", "cupy", "--stages", "probe,kit,exact"]
    answer = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout
    assert "docs/gpu-report.md is left as it was" in answer.stderr
    assert page.PAGE.read_bytes() == before
    text = (tmp_path / "gpu-report.md").read_text(encoding="utf-8")
    assert "a rehearsal on the CPU" in text
    assert "| cupy | conforms |" in text
    exact = text.partition("## Against float64")[2].partition("## Time")[0]
    assert "not run" not in exact
    assert "WRONG" not in exact
    assert "- kit" not in text  # nothing failed or was ended


@pytest.mark.parametrize("chip", ["H100, 580.1", None])
def test_the_report_is_written_where_there_is_a_chip_and_not_on_a_stand_in(
    chip: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def found(stage: str, backends: list[str], options: driver.Options, end: float) -> bool:
        lines.write(options.out, "here", backend="cupy", what="backend", missing=None)
        if chip is not None:
            lines.write(options.out, "machine", what="chip", text=chip)
        return True

    monkeypatch.setattr(driver, "run_stage", found)
    (tmp_path / "docs").mkdir()
    monkeypatch.setattr(page, "PAGE", tmp_path / "docs" / "page.md")
    monkeypatch.setattr(page, "KEPT", tmp_path / "docs" / "kept.jsonl")
    assert driver.drive(driver.Options(tmp_path, 100.0, 0.0, ["kit"], ["cupy"], small=False, workers=1)) == 0
    assert page.PAGE.exists() == page.KEPT.exists() == (chip is not None)
    if chip is None:
        assert "nvidia-smi names no GPU: docs/gpu-report.md is left as it was" in capsys.readouterr().err
    else:
        assert f"- chip: {chip}" in page.PAGE.read_text(encoding="utf-8")
        assert lines.read([page.KEPT]) == lines.read([tmp_path / lines.NAME])


CRASHES = """
import os
class cuda:
    def is_available(): return True
def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    os.abort()
"""


def test_a_library_that_crashes_ends_no_other_stage(tmp_path: Path) -> None:
    command, environment = rehearsal(tmp_path, CRASHES, "--budget", "120", "--stages", "kit,exact,probe")
    answer = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode == 1
    rows = lines.read([tmp_path / "out" / lines.NAME])
    assert [row["missing"] for row in rows if row["stage"] == "here"] == [None]
    ends = {row["what"]: row["how"] for row in rows if row["stage"] == "end"}
    assert ends == {"machine": "exit 0", "probe cupy": "exit -6", "kit cupy": "exit -6", "exact cupy": "exit -6"}
    text = (tmp_path / "out" / "gpu-report.md").read_text(encoding="utf-8")
    assert all(f"- {name} cupy: exit -6" in text for name in ("probe", "kit", "exact"))


def test_where_jax_is_not_installed_that_is_the_answer(tmp_path: Path) -> None:
    options = driver.Options(tmp_path, 100.0, 0.0, [], ["jax"], small=False, workers=1)
    command = driver.job(plan.Task("here", "jax:gpu"), options).command
    text = f"import sys; sys.modules['jax'] = None; sys.argv = {command[2:]!r}; from ci.gpu import task; task.main()"
    assert run_all([python("here", text)], 60.0, tmp_path / "log", together=True)["here"].status == 0
    (row,) = lines.read([tmp_path / lines.NAME])
    assert row["missing"] == "jax is not installed"


def test_a_stage_for_which_no_time_is_left_is_not_begun(tmp_path: Path) -> None:
    options = driver.Options(tmp_path, 100.0, 98.0, ["kit"], ["torch"], small=True, workers=1)
    assert driver.drive(options) == 2
    rows = lines.read([tmp_path / lines.NAME])
    assert [row.get("not_run") for row in rows if row["stage"] == "here"] == ["no time was left"]


def test_only_the_process_without_kernels_is_without_them(tmp_path: Path) -> None:
    options = driver.Options(tmp_path, 100.0, 0.0, ["time"], ["jax"], small=False, workers=1)
    jobs = [driver.job(task, options) for task in plan.tasks("time", ["jax:gpu"], small=False)]
    assert [job.name for job in jobs] == ["time jax:gpu", "time jax:gpu, no kernels"]
    assert [job.environment.get("NMF_XP_KERNELS") for job in jobs] == [None, "0"]


TESTS = """
import pytest, time
@pytest.mark.parametrize("backend", ["torch"])
def test_passes(backend): pass
@pytest.mark.parametrize("backend", ["torch"])
def test_fails(backend): assert backend == "numpy"
@pytest.mark.parametrize("backend", ["torch"])
def test_is_skipped(backend): pytest.skip("why")
@pytest.mark.parametrize("backend", ["torch", "numpy"])
def test_comes_last(backend): time.sleep({seconds})
"""


def streamed(folder: Path, *, until: str, seconds: float) -> list[dict[str, Any]]:
    """The lines of pytest with the plugin on some tests."""
    (folder / "test_some.py").write_text(TESTS.format(seconds=seconds), encoding="utf-8")
    run = task.Run(plan.Task("tests", "torch"), folder, small=True, workers=1, until=float("inf"))
    command = [*suite.command(run)[:-1], "-c", os.devnull, "--rootdir", str(folder), str(folder)]
    settings = {stream.OUT: str(folder), stream.BACKEND: "torch", stream.UNTIL: until, "PYTHONPATH": str(ROOT)}
    subprocess.run(command, cwd=folder, env={**os.environ, **settings}, check=False, capture_output=True)
    return lines.read([folder / lines.NAME])


def test_each_test_that_fails_is_a_line_and_their_sum_comes_last(tmp_path: Path) -> None:
    failure, *_, end = streamed(tmp_path, until="inf", seconds=0.0)
    assert failure["test"].endswith("test_fails[torch]")
    assert "assert 'torch' == 'numpy'" in failure["why"]
    assert (end["passed"], end["failed"], end["skipped"], end["ended"]) == (2, 1, 1, True)


def test_when_the_time_is_out_the_tests_stop_and_say_so(tmp_path: Path) -> None:
    *_, end = streamed(tmp_path, until="0", seconds=3.0)
    assert end["stopped"] == "the time is out"
    assert end["passed"] < 2
    text = page.render([{"stage": "start", "date": "today", "backends": ["torch"], "small": True}, end])
    assert f"| torch | {end['passed']} | {end['failed']} | {end['skipped']} | stopped: the time is out |" in text


def test_other_kernels_are_compared_and_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """JAX's with other tiles, and one in a file, with its settings."""
    jax = pytest.importorskip("jax", reason="jax is not installed")
    text = (
        "SETTINGS = [{}, {'scale': 2.0}]\ndef quotient(V, W, H, scale=1.0):\n    return scale * (V / (W @ H)) @ H.T\n"
    )
    (tmp_path / "kl_triton.py").write_text(text, encoding="utf-8")
    monkeypatch.setattr(variants, "CARRIED", tmp_path)
    for backend in ("torch", "jax"):
        pytest.importorskip(backend, reason=f"{backend} is not installed")
        variants.main(task.Run(plan.Task("variants", backend), tmp_path, small=True, workers=1, until=float("inf")))
    right, twice, pallas = lines.read([tmp_path / lines.NAME])
    assert [row["what"] for row in (right, twice)] == [
        f"kl_triton.py {name}, rank 4" for name in ("as it is", "scale 2.0")
    ]
    assert right["norm"] < 1e-6
    assert twice["norm"] == pytest.approx(1.0)
    assert pallas["norm"] < 1e-6
    V, W, H = (jax.numpy.ones(shape) for shape in ((70, 70), (70, 4), (4, 70)))
    assert variants.pallas(V, W, H, COLUMNS=64, PART=64) == pytest.approx(variants.pallas(V, W, H))


def test_iterations_of_a_compiled_solver_are_those_of_one_that_is_not() -> None:
    jnp = pytest.importorskip("jax.numpy")
    rng = np.random.default_rng(3)
    V, W, H = (rng.random(shape, dtype=np.float32) for shape in ((9, 7), (9, 2), (2, 7)))
    for solver, beta in (("mu", 1), ("cd", 2), ("online", 1)):
        compiled = Iterations(jnp.asarray(V), jnp.asarray(W), jnp.asarray(H), solver, beta)
        assert (compiled.bytes() is None) == (solver == "online")
        for found, right in zip(compiled.run(3), Iterations(V, W, H, solver, beta).run(3), strict=True):
            np.testing.assert_allclose(found, right, rtol=1e-4)
