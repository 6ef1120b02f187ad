"""The GPU report: without a GPU nothing is written, and what a machine with one would write is a page."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from nmf_xp import _kernels
from nmf_xp.testing import Backend, check_backend
from tests.scripts import ROOT, load

if TYPE_CHECKING:
    from types import ModuleType


@pytest.fixture(scope="module")
def gpu_report() -> ModuleType:
    return load("ci/gpu_report.py")


def test_without_a_gpu_it_says_so_and_writes_nothing(
    gpu_report: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Backend, "missing", lambda _: "no CUDA device")
    before = gpu_report.REPORT.read_text(encoding="utf-8")
    assert gpu_report.main() == 2
    assert "no GPU backend can run here" in capsys.readouterr().err
    assert gpu_report.REPORT.read_text(encoding="utf-8") == before


def test_the_script_is_sound_bash() -> None:
    subprocess.run(["bash", "-n", "ci/gpu.sh"], cwd=ROOT, check=True)


def test_the_page_holds_chip_versions_figures_and_verdicts(gpu_report: ModuleType) -> None:
    report = check_backend(np, dtypes=["float64"])
    rows = [("cupy", 16, 1.25, 3.5)]
    page = gpu_report.render(
        "H200, 580.1", {"cupy": "14.2"}, {"cupy": report}, (0, "9 passed"), rows, {"jax:gpu": "why"}
    )
    for part in (
        "H200, 580.1",
        "cupy 14.2",
        "9 passed",
        "| cupy | 16 | 1.25 | 3.5 |",
        "cupy: conforms",
        "jax:gpu did not run: why",
    ):
        assert part in page


def test_the_benchmark_runs_on_a_cpu_in_small(gpu_report: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_report, "SHAPE", (24, 16))
    monkeypatch.setattr(gpu_report, "RANKS", (2,))
    monkeypatch.setattr(gpu_report, "synchronizer", lambda _: lambda _: None)
    ((name, rank, milliseconds, _),) = gpu_report.benchmark(Backend.NUMPY, "here")
    assert (name, rank) == ("here", 2)
    assert np.isfinite(milliseconds)
    assert gpu_report.versions()["python"] == sys.version.split()[0]


def test_the_benchmark_without_kernels_compiles_its_own_programs(
    gpu_report: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("jax", reason="jax is not installed")
    monkeypatch.setattr(gpu_report, "SHAPE", (24, 16))
    monkeypatch.setattr(gpu_report, "RANKS", (2,))
    seen, find = [], _kernels.find

    def observed(name: str, *arrays: Any) -> Any:
        seen.append((name, _kernels.wanted()))
        return find(name, *arrays)

    monkeypatch.setattr(_kernels, "find", observed)
    gpu_report.benchmark(Backend.JAX, "jax")
    ((name, *_),) = gpu_report.benchmark_without_kernels(Backend.JAX)
    assert name == "jax, no kernels"
    assert {("dense_quotient", True), ("dense_quotient", False)} <= set(seen)
    assert _kernels.wanted()
