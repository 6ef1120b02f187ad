"""Time per iteration at equal iterations: every side from the same start, interleaved, medians.

The whole call is timed: its checks of the input, what it prepares, and its report at the end.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.competitors import OTHERS, REFERENCE, SKLEARN_MU, Side
from benchmarks.ours import resolved, side
from benchmarks.protocol import LOSSES, NOT_INSTALLED, divergence, interleaved, reason, start, timed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.datasets import Dataset


def _four_products(V: Any, W: Any, H: Any, iterations: int, loss: str) -> tuple[Any, Any]:  # noqa: ARG001
    model = V[1]
    for _ in range(4 * iterations):
        np.matmul(W, H, out=model)
    return W, H


def _one_read(V: Any, W: Any, H: Any, iterations: int, loss: str) -> tuple[Any, Any]:  # noqa: ARG001
    entries = V[0].reshape(-1)
    for _ in range(iterations):
        np.dot(entries, entries)
    return W, H


def _with_model(V: Any, W: Any, H: Any) -> tuple[Any, Any, Any]:
    return (V, np.zeros_like(V)), W, H


LEAST = 30  # iterations: with a tenth of those that a user takes, what a call costs whatever their number would count
PRODUCTS = "four matrix products"
READ = "V read once"
LIMITS = [
    Side(PRODUCTS, "numpy", "numpy", _four_products, LOSSES[:1], _with_model),
    Side(READ, "numpy", "numpy", _one_read, LOSSES[:1], _with_model),
]
COMPARED = (SKLEARN_MU.name, REFERENCE[LOSSES[1]].name, PRODUCTS, READ)


def measure(
    name: str,
    dataset: Dataset,
    loss: str,
    *,
    solvers: list[str],
    backends: list[str],
    rounds: int,
    budget: float,
    seconds: float = 1.0,
) -> Iterator[dict[str, Any]]:
    """One row a side; `seconds` is how long scikit-learn's run should take, within 30 to 100 iterations."""
    V, rank = dataset.load(), dataset.rank
    W, H = start(V, rank, seed=0)
    common = {
        "view": "per-iteration", "loss": loss, "data": name, "input": "csr" if dataset.sparse else "dense",
        "shape": list(V.shape), "rank": rank, "dtype": str(V.dtype),
    }  # fmt: skip
    ours = {f"nmf_xp {solver}": solver for solver in solvers}
    sides = [*OTHERS, *(side(solver, backend) for backend in backends for solver in solvers), *LIMITS]
    taken = [x for x in sides if x.takes(V, rank, loss)]
    yield from ({**common, "side": x.name, "error": NOT_INSTALLED} for x in taken if not x.installed)
    taken = [x for x in taken if x.installed]
    reference = SKLEARN_MU if SKLEARN_MU in taken else taken[0]
    reference.start(V, W, H, 1, loss)()
    equal = int(np.clip(seconds / (timed(reference.start(V, W, H, 2, loss))[0] / 2), LEAST, 100))
    jobs, iterations = {}, {}
    for x in taken:
        try:  # runs beforehand: imports, compilation, the first touch of memory
            x.start(V, W, H, 2, loss)()
            one = timed(x.start(V, W, H, 2, loss))[0] / 2
            iterations[x.name] = int(np.clip(budget / one, 2, equal))  # fewer only for what would take minutes
            if x.compiled:
                x.start(V, W, H, iterations[x.name], loss)()
        except Exception as error:
            yield {**common, "side": x.name, "error": reason(error)}
        else:
            jobs[x.name] = x.start(V, W, H, iterations[x.name], loss)
    timings = interleaved(jobs, rounds=rounds, budget=budget)
    each = {x: timing.median / iterations[x] for x, timing in timings.items()}
    for x, timing in timings.items():
        value = float("nan") if timing.error else divergence(V, timing.output[0], timing.output[1], loss)
        if not math.isfinite(value):
            yield {**common, "side": x, "error": timing.error or "not finite"}
            continue
        relative = {to: each[x] / each[to] for to in COMPARED if to in each and to != x}
        yield {
            **common,
            "side": x,
            "iterations": iterations[x],
            "seconds": each[x],
            "runs": [run / iterations[x] for run in timing.seconds],
            "divergence": value,
            "relative": {to: value for to, value in relative.items() if value == value},
            **({"solver": resolved(ours[x], V, rank, loss)} if ours.get(x) == "auto" else {}),
        }
