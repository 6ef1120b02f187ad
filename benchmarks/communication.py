"""The communication model against what compiled programs send, and what it predicts for a matrix of 1e15 entries.

    python benchmarks/communication.py [--output docs/benchmarks/communication.md]

Each layout runs in a process of its own with virtual CPU devices: `nmf` itself, whose compiled iteration is then read.
Nothing is timed, so the figures are the same on every machine.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if __name__ == "__main__":  # as a script: the folder above holds the package `benchmarks`
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.collectives import largest_memory, programs, virtual_devices
from nmf_xp.sharding import words_per_iteration

if TYPE_CHECKING:
    from collections.abc import Sequence

SHAPE, RANK, ITEM = (4096, 2048), 16, 4  # bytes of a float32
GRIDS = [(8, 1), (4, 2), (2, 4), (1, 8), (4, 1), (2, 2), (1, 4), (2, 1)]
LOSSES = ("kullback-leibler", "frobenius", "itakura-saito")
SOLVERS = {
    "kullback-leibler": ("mu", "newton", "cd", "mm"),
    "frobenius": ("mu", "cd", "cd-plain", "mm"),
    "itakura-saito": ("mu", "mm"),
}

HUGE, HUGE_RANK, LINK = (10**9, 10**6), 50, 50e9  # bytes a second between devices: a port of 400 Gbit/s
MEMORY, ARITHMETIC = 3.35e12, 67e12  # bytes and float32 operations a second of an H100 SXM, by its data sheet
HUGE_DEVICES = (1024, 16384, 262144)


def main(arguments: list[str] | None = None) -> int:
    """Run the layouts, print the tables and write them where asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="write the tables here too")
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        run(int(options.worker[0]), int(options.worker[1]), *options.worker[2:])
        return 0
    text = "\n\n".join([measured_table(GRIDS, LOSSES), solvers_table(), predicted_table()]) + "\n"
    print(text)
    if options.output:
        options.output.write_text(text, encoding="utf-8")
    return 0


def run(p: int, q: int, loss: str, solver: str) -> None:
    """Factorize on a grid of p x q devices; XLA dumps the programs."""
    import jax
    import numpy as np

    from nmf_xp import nmf
    from nmf_xp.sharding import load_blocks

    mesh = jax.sharding.Mesh(np.asarray(jax.devices()).reshape(p, q), ("rows", "columns"))
    V = load_blocks(SHAPE, _block, mesh=mesh)
    nmf(V, RANK, beta_loss=loss, solver=solver, random_state=0, max_iter=2)


def _block(rows: slice, columns: slice) -> Any:
    import numpy as np

    i, j = np.ogrid[rows, columns]
    return (1 + (i * 7 + j * 13) % 11).astype(np.float32)


class Cost(NamedTuple):
    """What one device pays."""

    sent: float  # bytes in one iteration
    memory: int  # bytes of the program that needs most


def measure(grid: tuple[int, int], loss: str, solver: str = "mu") -> Cost:
    """What the programs that `nmf` runs cost a device."""
    p, q = grid
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = os.environ | virtual_devices(p * q, folder)
        worker = [sys.executable, __file__, "--worker", str(p), str(q), loss, solver]
        subprocess.run(worker, check=True, env=environment)
        (steps,) = programs(folder, "steps").values()
        return Cost(sum(collective.sent for collective in steps), largest_memory(folder))


def model(grid: tuple[int, int], loss: str, solver: str = "mu") -> float:
    """Bytes that a device should send."""
    return ITEM * words_per_iteration(SHAPE, RANK, grid, beta_loss=loss, solver=solver)


def bound(shape: tuple[int, int], rank: int, devices: int) -> float:
    """The order of what some device must send, in numbers: min(r sqrt(mn/P), r min(m, n))."""
    return rank * min(math.sqrt(math.prod(shape) / devices), *shape)


def measured_table(grids: Sequence[tuple[int, int]], losses: Sequence[str]) -> str:
    """Model and program, layout by layout, as Markdown."""
    m, n = SHAPE
    lines = [
        f"Bytes that a device sends in one iteration of `mu`, {m} x {n}, float32, rank {RANK}:",
        "",
        "| grid | loss | model | compiled program | difference | times the bound |",
        "|---|---|---|---|---|---|",
    ]
    for loss in losses:
        for grid in grids:
            expected, found = model(grid, loss), measure(grid, loss).sent
            times = found / (ITEM * bound(SHAPE, RANK, math.prod(grid)))
            lines.append(
                f"| {grid[0]} x {grid[1]} | {loss} | {expected:,.0f} | {found:,.0f} | {found / expected - 1:+.1%} | "
                f"{times:.1f} |"
            )
    return "\n".join(lines)


def solvers_table() -> str:
    """What every solver costs, as Markdown."""
    grid, block = (4, 2), ITEM * SHAPE[0] * SHAPE[1] / 8
    lines = [
        "On a grid of 4 x 2, an iteration of each solver, and the memory that XLA plans on a CPU for the program that "
        "needs most:",
        "",
        "| loss | solver | model | compiled program | difference | against `mu` | memory, in blocks of V |",
        "|---|---|---|---|---|---|---|",
    ]
    for loss, solvers in SOLVERS.items():
        for solver in solvers:
            expected, (sent, memory) = model(grid, loss, solver), measure(grid, loss, solver)
            lines.append(
                f"| {loss} | {solver} | {expected:,.0f} | {sent:,.0f} | {sent / expected - 1:+.1%} | "
                f"{sent / model(grid, loss):.1f} | {memory / block:.1f} |"
            )
    return "\n".join(lines)


def predicted_table() -> str:
    """What the model says of a matrix of 1e9 x 1e6, as Markdown."""
    m, n = HUGE
    lines = [
        f"One iteration of `mu`, Kullback-Leibler, {m:,} x {n:,}, float32, rank {HUGE_RANK}, links of "
        f"{LINK / 1e9:.0f} GB/s:",
        "",
        "| devices | best grid | V on a device | a device sends | times the bound | in | by rows alone "
        "| V is read twice in | products in |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for devices in HUGE_DEVICES:
        grids = [(p, devices // p) for p in range(1, devices + 1) if devices % p == 0]  # V padded to fit
        sent, (p, q) = min((huge_bytes(grid), grid) for grid in grids)
        rows = huge_bytes((devices, 1))
        block = ITEM * m * n / devices
        lines.append(
            f"| {devices} | {p} x {q} | {block / 1e9:,.0f} GB | {sent / 1e6:,.0f} MB | "
            f"{sent / (ITEM * bound(HUGE, HUGE_RANK, devices)):.1f} | {1e3 * sent / LINK:,.1f} ms | "
            f"{1e3 * rows / LINK:,.1f} ms | {1e3 * 2 * block / MEMORY:,.0f} ms | "
            f"{1e3 * 8 * m * n * HUGE_RANK / devices / ARITHMETIC:,.0f} ms |"
        )
    return "\n".join(lines)


def huge_bytes(grid: tuple[int, int]) -> float:
    """Bytes that a device sends in an iteration on the huge matrix."""
    return ITEM * words_per_iteration(HUGE, HUGE_RANK, grid, beta_loss="kullback-leibler", solver="mu")


if __name__ == "__main__":
    sys.exit(main())
