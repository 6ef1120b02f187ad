"""The GPU report: made of the lines that there are, and left alone where there is no GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ci.gpu import __main__ as command
from ci.gpu import exact, iterations, lines, page, plan, timing
from ci.gpu.task import Run
from nmf_xp.solvers import SOLVERS
from tests.scripts import ROOT

if TYPE_CHECKING:
    from pathlib import Path

BACKENDS = ["cupy", "torch:cuda", "jax:gpu"]
START: dict[str, Any] = {"stage": "start", "date": "2026-12-01 10:00 UTC", "backends": BACKENDS, "small": False}


def cells(text: str, row: str) -> list[str]:
    """The cells of the first row of a table that begins with this one."""
    (line, *_) = [line for line in text.splitlines() if line.startswith(f"| {row} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def without_a_gpu(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command with a CuPy that sees no device."""
    (folder / "cupy").mkdir()
    text = "class cuda:\n    def is_available(): return False\n"
    (folder / "cupy" / "__init__.py").write_text(text, encoding="utf-8")
    environment = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(folder), "OUT": str(folder / "out")}
    return subprocess.run(
        ["bash", "ci/gpu.sh", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def test_without_a_gpu_it_says_so_and_writes_nothing(tmp_path: Path) -> None:
    before = [path.read_bytes() if path.exists() else None for path in (page.PAGE, page.KEPT)]
    answer = without_a_gpu(tmp_path, "--backends", "cupy", "--budget", "100", "--stages", "kit,time")
    assert answer.returncode == 2
    assert answer.stderr.splitlines() == [
        "no GPU backend can run here (cupy: no CUDA device); docs/gpu-report.md is left as it was"
    ]
    assert [path.read_bytes() if path.exists() else None for path in (page.PAGE, page.KEPT)] == before
    rows = lines.read([tmp_path / "out" / lines.NAME])
    assert [row["missing"] for row in rows if row["stage"] == "here"] == ["no CUDA device"]
    assert "cupy: no CUDA device" in [row.get("detail") for row in rows if row["stage"] == "end"]
    assert not [row for row in rows if row["stage"] in ("kit", "time")]
    text = (tmp_path / "out" / "gpu-report.md").read_text(encoding="utf-8")
    assert cells(text, "cupy")[1] == "not run: no CUDA device"


@pytest.mark.parametrize("script", ["ci/gpu.sh", "ci/gpu_wheels.sh"])
def test_the_scripts_are_sound_bash(script: str) -> None:
    subprocess.run(["bash", "-n", script], cwd=ROOT, check=True)


def test_where_a_package_and_its_wheel_are_missing_the_script_says_how_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "ci").mkdir()
    (tmp_path / "ci" / "gpu.sh").write_bytes((ROOT / "ci" / "gpu.sh").read_bytes())
    environment = {**os.environ, "PYTHON": "false"}
    command = ["bash", str(tmp_path / "ci" / "gpu.sh")]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode == 2
    assert "run ci/gpu_wheels.sh" in answer.stderr


def test_the_page_in_the_documentation_is_that_of_the_results_beside_it() -> None:
    assert page.PAGE.read_text(encoding="utf-8") == page.render(lines.read([page.KEPT])), "run python3 -m ci.gpu.page"


def test_of_nothing_the_page_says_not_run_line_by_line() -> None:
    text = page.render([])
    for backend in BACKENDS:
        assert cells(text, backend)[1] == "not run"
    for what in [case.what for case in plan.exact_cases(small=False)]:
        assert cells(text, what)[1:] == ["not run"] * 3
    for what in [case.what for case in plan.timed_cases("torch:cuda", small=False)]:
        row = cells(text, what)
        assert set(row[1:]) <= {"not run", ""}
        assert row[2] == "not run"
    assert "- date: not run" in text
    assert "- versions: not run" in text


def test_the_page_holds_chip_versions_figures_and_verdicts() -> None:
    rows: list[dict[str, Any]] = [
        START,
        {"stage": "machine", "what": "chip", "text": "H200, 580.1"},
        {"stage": "machine", "what": "versions", "found": {"cupy": "14.2"}},
        {"stage": "here", "backend": "cupy", "what": "backend", "missing": None, "device": "H200"},
        {"stage": "here", "backend": "jax:gpu", "what": "backend", "missing": "why", "device": None},
        {
            "stage": "probe",
            "backend": "cupy",
            "what": "first factorizations",
            "differences": {"a": 3e-7},
        },
        {"stage": "kit", "backend": "cupy", "what": "planned", "checks": ["a float32", "b float32"]},
        {"stage": "kit", "backend": "cupy", "what": "a float32", "outcome": "passed", "detail": ""},
        {"stage": "kit", "backend": "cupy", "what": "b float32", "outcome": "failed", "detail": "off by one"},
        {"stage": "time", "backend": "cupy", "what": "mu, KL, rank 64, large", "ms": 1.25, "peak": 3.5},
        {"stage": "time", "backend": "torch:cuda", "what": "mu, KL, rank 64, large", "ms": 2.5, "waits": 7},
        {"stage": "tests", "backend": "cupy", "what": "so far", "passed": 9, "failed": 0, "skipped": 1, "ended": True},
    ]
    text = page.render(rows)
    assert "- date: 2026-12-01 10:00 UTC\n- chip: H200, 580.1\n- commit: unknown\n- versions: cupy 14.2\n" in text
    assert cells(text, "cupy")[1:] == ["H200", "3.0e-07", "not run", "none are for it"]
    assert cells(text, "jax:gpu")[1] == "not run: why"
    assert "| cupy | FAILS | 1 | 1 | 0 | 0 |" in text
    assert "- kit cupy b float32: off by one" in text
    assert cells(text, "mu, KL, rank 64, large")[1:] == ["1.25", "2.5", "not run", "not run"]
    assert "| mu, KL, rank 64, large | 3.5 | not counted | not run | not run |" in text
    assert "| mu, KL, rank 64, large | 7 |" in text
    assert "| cupy | 9 | 0 | 1 | to the end |" in text


def test_a_check_that_was_planned_and_not_reached_is_not_run() -> None:
    rows: list[dict[str, Any]] = [
        START,
        {"stage": "kit", "backend": "cupy", "what": "planned", "checks": ["a float32", "b float32"]},
        {"stage": "kit", "backend": "cupy", "what": "planned", "checks": ["c float32"]},  # another part
        {"stage": "kit", "backend": "cupy", "what": "a float32", "outcome": "passed", "detail": ""},
        {"stage": "end", "of": "kit", "what": "kit cupy", "how": "ended at its limit", "seconds": 60.0, "limit": 60.0},
    ]
    text = page.render(rows)
    assert "| cupy | not run | 1 | 0 | 0 | 2 |" in text
    assert "- cupy, b float32: not run\n- cupy, c float32: not run\n" in text
    assert "- kit cupy: ended at its limit after 60 of 60 s" in text


def test_a_line_that_was_cut_is_left_out_and_what_was_found_stays(tmp_path: Path) -> None:
    lines.write(tmp_path, "time", backend="cupy", what="copy", ms=1.23456)
    lines.write(tmp_path, "time", backend="cupy", what="copy", not_run="no time was left")
    with (tmp_path / lines.NAME).open("a", encoding="utf-8") as file:
        file.write('{"stage": "time", "backend": "cupy", "wh')
    rows = lines.read([tmp_path / "absent.jsonl", tmp_path / lines.NAME])
    assert len(rows) == 2
    assert cells(page.render(rows), "copy")[1] == "1.235"
    assert page.failures(rows) == []
    lines.write(tmp_path, "time", backend="cupy", what="copy", ms=2.0)  # the cut line takes this one with it
    lines.write(tmp_path, "time", backend="cupy", what="copy", ms=3.0)
    assert cells(page.render(lines.read([tmp_path / lines.NAME])), "copy")[1] == "3"


def test_the_results_of_several_calls_make_one_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "KEPT", tmp_path / "kept.jsonl")
    monkeypatch.setattr(page, "PAGE", tmp_path / "page.md")
    for name, stage in (("a", "start"), ("b", "time")):
        text = json.dumps({"stage": stage, "date": "today", "backend": "cupy", "what": "copy", "ms": 4.5})
        (tmp_path / name).write_text(text + "\n", encoding="utf-8")
    assert page.main([str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    once = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert "- date: today" in once
    assert cells(once, "copy")[1] == "4.5"
    (tmp_path / "page.md").unlink()
    assert page.main([]) == 0
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == once


def test_every_solver_is_timed_beside_a_plain_loop_and_no_two_lines_have_one_name() -> None:
    for backend, (on_gpu, on_cpu) in plan.LIBRARIES.items():
        for column, small in ((on_gpu, False), (on_cpu, True)):
            cases = plan.timed_cases(column, small=small)
            names = [case.what for case in cases]
            assert len(set(names)) == len(names)
            large = {(case.beta, case.rank) for case in cases if case.data == "large" and case.side == plan.PLAIN}
            solvers = [case for case in cases if case.side in SOLVERS]
            assert {case.side for case in solvers} == set(SOLVERS)
            assert {(case.beta, case.rank) for case in solvers if case.data == "large"} <= large
            assert (plan.TORCHNMF in {case.side for case in cases}) == (backend == "torch")


@pytest.fixture
def numpy_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("NMF_XP_KERNELS", "0")
    return Run(plan.Task("time", "numpy"), tmp_path, small=True, workers=1, until=float("inf"))


def test_the_times_and_the_errors_are_taken_on_a_cpu_in_small(numpy_run: Run, tmp_path: Path) -> None:
    timing.main(numpy_run)
    rows = lines.read([tmp_path / lines.NAME])
    assert [row["what"] for row in rows] == [case.what for case in plan.timed_cases("numpy", small=True)]
    assert all(np.isfinite(row["ms"]) for row in rows)
    numpy_run.task = plan.Task("exact", "numpy")
    exact.main(numpy_run)
    rows = lines.read([tmp_path / lines.NAME])[len(rows) :]
    assert [row["what"] for row in rows] == [case.what for case in plan.exact_cases(small=True)]
    assert all(row["right"] and row["warnings"] == [] for row in rows)


@pytest.mark.parametrize(("factor", "off"), [(1 + 2**-11, "4.9e-04"), (float("nan"), "nan")])  # as TF32 would; 0 / 0
def test_an_iteration_that_is_off_is_called_wrong(
    factor: float, off: str, numpy_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = plan.exact_cases(small=True)[0]

    def rounded(V: Any, W: Any, H: Any, beta: float, n: int) -> tuple[Any, Any]:
        W, H = iterations.plain(V, W, H, beta, n)
        return W, H * factor

    monkeypatch.setattr(exact, "plain", rounded)
    monkeypatch.setattr(plan, "exact_cases", lambda **_: [case])
    numpy_run.task = plan.Task("exact", "numpy")
    exact.main(numpy_run)
    (row,) = lines.read([tmp_path / lines.NAME])
    assert not row["right"]
    assert page.failures([row]) == [f"- exact numpy {case.what}: wrong by {off}"]


def test_when_its_time_is_out_a_process_begins_nothing_and_an_error_is_a_line(tmp_path: Path) -> None:
    late = Run(plan.Task("time", "torch"), tmp_path, small=True, workers=1, until=0.0)
    assert not late.attempt("late", lambda: {"ms": 1.0})
    late.until = float("inf")
    assert late.attempt("broken", lambda: {"ms": 1 / 0})
    rows = lines.read([tmp_path / lines.NAME])
    assert [row.get("not_run") for row in rows] == ["no time was left", None]
    assert rows[1]["error"] == "ZeroDivisionError: division by zero"
    assert page.failures(rows) == ["- time torch late: no time was left", f"- time torch broken: {rows[1]['error']}"]


def test_unknown_stages_and_backends_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    given = command.options(["--stages", "kit,time", "--backends", "torch", "--budget", "30"])
    assert (given.stages, given.libraries, given.budget) == (["kit", "time"], ["torch"], 30.0)
    for arguments in (["--stages", "kit,tyme"], ["--backends", "numpy"], ["--stages", ""]):
        with pytest.raises(SystemExit):
            command.options(arguments)
    assert "tyme is none of probe, kit, exact, time, tests, variants, profile" in capsys.readouterr().err
