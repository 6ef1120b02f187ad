"""Peak memory of a dense Kullback-Leibler fit beyond V and the factors, 4000 x 4000 float64 at rank 20.

Each side runs in a process of its own, once for its resident memory and once for what Python's allocators report
(tracemalloc, which NumPy feeds; it does not see what BLAS and compiled code allocate for themselves).
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.competitors import PLAIN, SKLEARN_MU, Side
from benchmarks.datasets import poisson
from benchmarks.ours import side
from benchmarks.protocol import LOSSES, NOT_INSTALLED, start

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
RANK = 20
ITERATIONS = 5


def measure(*, solvers: list[str], size: int = 4000) -> Iterator[dict[str, Any]]:
    """One row a side."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "V.npy"
        np.save(path, poisson(size, size, 16))
        for x in (SKLEARN_MU, PLAIN, *map(side, solvers)):
            row = {"view": "memory", "loss": LOSSES[0], "data": f"{size} x {size}, rank {RANK}", "side": x.name}
            if not x.installed:
                yield {**row, "error": NOT_INSTALLED}
            elif LOSSES[0] in x.losses:
                try:
                    yield {**row, **_in_process(x.name, path, "resident"), **_in_process(x.name, path, "traced")}
                except subprocess.CalledProcessError as error:
                    yield {**row, "error": error.stderr.strip().splitlines()[-1][:100]}


def _in_process(name: str, path: Path, how: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.memory", name, str(path), how]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return {how: json.loads(done.stdout)}


def extra(x: Side, V: Any, how: str) -> float:
    """Bytes at the peak of a fit beyond what there was before and one pair of factors, as a share of V's."""
    W, H = start(V, RANK, seed=0)
    few = np.ascontiguousarray(V[:300, :300])
    x.start(few, *start(few, RANK, seed=0), ITERATIONS, LOSSES[0])()  # imports, threads, compilation
    job = x.start(V, W, H, ITERATIONS, LOSSES[0])
    if how == "traced":
        tracemalloc.start()
        job()
        peak = float(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    else:
        before = _reset_peak()
        job()
        peak = _peak() - before
    return (peak - W.nbytes - H.nbytes) / float(V.nbytes)


def _reset_peak() -> float:
    """Resident bytes now. Linux can begin the peak anew; elsewhere it is the peak so far, which is no less."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _peak()


def _peak() -> float:
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        import resource  # not on Windows

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1.0 if sys.platform == "darwin" else 1024.0)
    return next(float(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def main(name: str, path: str, how: str) -> None:
    """The process of one side."""
    known = {x.name: x for x in (SKLEARN_MU, PLAIN)}
    x = known[name] if name in known else side(name.removeprefix("nmf_xp "))
    print(json.dumps(extra(x, np.load(path), how)))


if __name__ == "__main__":
    main(*sys.argv[1:])
