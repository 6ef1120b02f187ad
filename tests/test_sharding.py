"""V on many JAX devices: the same answers, and nothing but blocks of factors moves."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nmf_xp
from benchmarks import communication
from benchmarks.collectives import Collective, collectives, programs, virtual_devices
from nmf_xp.sharding import best_grid, load_blocks, words_per_iteration

jax = pytest.importorskip("jax")

from tests import many_devices  # noqa: E402  (it imports jax)
from tests.many_devices import GRIDS, SCENARIOS, SOLVERS, M, N, R  # noqa: E402

ROOT = Path(__file__).parents[1]
DEVICES = 8
FLOAT64 = 8
BLOCK = FLOAT64 * R * max(M // 4, N // 2)  # of a factor on a grid of 4 x 2
SHARD = FLOAT64 * M * N // DEVICES


def begin(folder: Path, devices: int, *arguments: str) -> subprocess.Popen[str]:
    """A scenario in a process of its own, whose compiled programs XLA writes into the folder."""
    environment = os.environ | virtual_devices(devices, folder)
    environment["XLA_FLAGS"] += " --xla_llvm_disable_expensive_passes=true --xla_backend_optimization_level=0"
    environment["NMF_XP_KERNELS"] = "0"
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(nmf_xp.__file__).parents[1]), str(ROOT)])
    command = [sys.executable, "-m", "tests.many_devices", *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def end(*processes: subprocess.Popen[str]) -> None:
    """Waits for all of them; none is left behind."""
    try:
        for process in processes:
            output, _ = process.communicate(timeout=300)
            assert process.returncode == 0, output
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def largest(folder: Path, name: str = "") -> dict[str, int]:
    """The bytes of the largest collective of each kind."""
    found: dict[str, int] = {}
    for program in programs(folder, name).values():
        for kind, size, *_ in program:
            found[kind] = max(size, found.get(kind, 0))
    return found


@pytest.mark.parametrize("scenario", [name for name in SCENARIOS if name != "process"])
def test_many_devices_give_what_one_gives_and_move_no_block_of_v(scenario: str, tmp_path: Path) -> None:
    end(begin(tmp_path, DEVICES, scenario, *[str(tmp_path)] * (scenario == "solvers")))
    moved = largest(tmp_path)  # by the checks of V, the start, the iterations, the objective and the report
    if scenario == "errors":
        assert moved.pop("all-gather") <= 64, "where on the devices the first bad entry is"
    assert set(moved) == {"all-reduce"}
    assert moved["all-reduce"] <= SHARD / 4
    scenarios: dict[str, list[tuple[tuple[int, int], str, float]]] = {
        "solvers": [((4, 2), solver, beta) for solver, beta in SOLVERS],
        "grids": [(grid, "mu", 1) for grid in GRIDS],
    }
    compared = scenarios.get(scenario, [])
    found = list(programs(tmp_path, "steps").values())
    assert len(found) >= len(compared)
    for program, (grid, solver, beta) in zip(found, compared, strict=False):
        model = FLOAT64 * words_per_iteration((M, N), R, grid, beta_loss=beta, solver=solver)
        assert sum(collective.sent for collective in program) == pytest.approx(model, rel=0.1)
    if scenario == "solvers":
        sizes = [collective.size for program in found[: len(compared)] for collective in program]
        assert max(sizes) <= 2 * BLOCK + 64 * FLOAT64, "at most two sums for a factor at once"


def test_two_processes_agree_with_one(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    both = [begin(tmp_path / str(i), DEVICES // 2, "process", str(i), port, str(tmp_path)) for i in range(2)]
    end(*both)
    found, twin = (dict(np.load(tmp_path / f"{i}.npz")) for i in range(2))
    expected: dict[str, Any] = {}
    for name, options in many_devices.runs().items():
        result = nmf_xp.nmf(many_devices.data(), R, **jax.tree.map(many_devices.on_host, options))
        expected |= {f"{name} {x}": getattr(result, x) for x in ("W", "H", "history", "divergence")}
    expected["transform W"] = nmf_xp.transform(many_devices.data(), result.H, beta_loss=2).W
    assert found.keys() == expected.keys()
    for name, value in found.items():
        np.testing.assert_array_equal(value, twin[name], err_msg=name)
        x = np.asarray(expected[name])
        np.testing.assert_allclose(value, x, rtol=1e-6, atol=1e-6 * float(x.max()), err_msg=name)
    for i in range(2):
        compiled = largest(tmp_path / str(i), "steps")
        assert set(compiled) == {"all-reduce"}
        assert max(compiled.values()) <= SHARD / 4


def test_the_best_grid_is_as_long_as_v() -> None:
    assert best_grid((4_000_000, 1_000_000), 64) == (16, 4)
    assert best_grid((1_000_000, 4_000_000), 64) == (4, 16)
    assert best_grid((30, 12), 6) == (3, 2)
    assert best_grid((30, 4), 8) == (2, 4)
    assert best_grid((7, 8), 4) == (1, 4)
    with pytest.raises(
        ValueError, match=r"^`shape` must be divided evenly by a grid of 4 devices, got \(7, 9\); pad V"
    ):
        best_grid((7, 9), 4)


def test_the_model_by_hand() -> None:
    """4 x 2 devices: sums for 100 rows over two of them, for 50 columns over four, on a ring."""
    for solver, beta, each, more in (
        ("mu", 1, 3, 3),
        ("mu", 2, 3, 9),
        ("mu", 3, 6, 0),
        ("auto", 0, 18, 0),
        ("auto", 1, 10, 12),
        ("auto", 2, 3, 27),
    ):
        expected = 1.0 * (100 * each + more) + 1.5 * (50 * each + more)
        assert words_per_iteration((400, 100), 3, (4, 2), beta_loss=beta, solver=solver) == expected
    assert words_per_iteration((400, 100), 3, (1, 1)) == 0
    with pytest.raises(ValueError, match=r"^`solver` must be one of \['cd', 'cd-plain', 'mm', 'mu'\], got 'newton'"):
        words_per_iteration((400, 100), 3, (4, 2), solver="newton")


def test_load_blocks_on_the_devices_there_are() -> None:
    X = np.arange(12.0).reshape(4, 3)
    V = load_blocks((4, 3), lambda rows, columns: X[rows, columns], devices=jax.devices()[:1])
    assert V.sharding.mesh.axis_names == ("rows", "columns")
    np.testing.assert_array_equal(V, X)
    with pytest.raises(ValueError, match=r"^`load` must return a block of shape \(4, 3\) and dtype float64 for rows 0"):
        load_blocks((4, 3), lambda *_: X[:3], devices=jax.devices()[:1])
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()[:1]).reshape(1, 1, 1), ("a", "b", "c"))
    with pytest.raises(ValueError, match=r"^`mesh` must have two axes, one for the rows and one for the columns of V"):
        load_blocks((4, 3), lambda rows, columns: X[rows, columns], mesh=mesh)


def test_the_tables_of_the_documentation() -> None:
    page = (ROOT / "docs" / "benchmarks" / "communication.md").read_text(encoding="utf-8")
    assert communication.predicted_table() in page
    table = communication.measured_table([(2, 1)], ["kullback-leibler"])
    row = table.splitlines()[-1]
    assert "| +0.0% |" in row
    assert row in page


HLO = """
%body (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  %all-reduce.1 = (f32[4,2]{1,0}, /*index=1*/f64[3]{0}) all-reduce(%a, %b), channel_id=2, replica_groups=[4,2]<=[8], to
}
ENTRY %main (p: f32[4]) -> f32[4] {
  %while.1 = (s32[], f32[4]) while(%t), condition=%c, body=%body, backend_config={"known_trip_count":{"n":"5"}}
  %all-gather-start.1 = bf16[] all-gather-start(%a), channel_id=5, replica_groups={{0,1,2},{3,4,5}}, dimensions={0}
  %all-reduce.2 = s8[7] all-reduce(%a), replica_groups=mesh['x'=4,'y'=2], device_ids=([4,2]T(1,0)) {'x','y'}, to_apply
  %use = f32[] get-tuple-element(%all-reduce.2), index=0
}
"""


def test_collectives_are_read_from_a_program() -> None:
    assert collectives(HLO) == [
        Collective("all-reduce", 4 * 8 + 8 * 3, 2, 5),
        Collective("all-gather", 2, 3, 1),
        Collective("all-reduce", 7, 8, 1),
    ]
    assert collectives(HLO)[0].sent == 1.0 * 56 * 5
    with pytest.raises(ValueError, match="no group of devices is known"):
        collectives("%a = f32[] all-reduce(%b), to_apply=%c")
