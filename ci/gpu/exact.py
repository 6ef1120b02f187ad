"""An iteration of `mu` in each dtype, with the kernels that there are, against a plain loop in float64 there."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np

from ci.gpu import plan
from ci.gpu.clock import Clock, uniform
from ci.gpu.iterations import Iterations, plain
from nmf_xp.arrays import kernels, transfer

if TYPE_CHECKING:
    from ci.gpu.task import Run

ALLOWED = {"float32": 1e-5, "float64": 1e-13}  # of the norm; sums of thousands of products differ by less than this
DENSITY = {"dense": 0.7, "sparse": 0.05}  # of the entries that are not zero


def main(run: Run) -> None:
    """The cases of this part, those on the same data one after the other."""
    clock = Clock(run.task.backend)
    data: Any = None
    for case in plan.exact_cases(small=run.small)[run.task.part :: run.task.parts]:
        if data is None or data[0] != (case.kind, case.shape):
            data = (case.kind, case.shape), matrix(case)
        run.attempt(case.what, lambda V=data[1], case=case: compared(clock, V, case))  # type: ignore[misc]


def matrix(case: plan.Exact) -> Any:
    """Entries over four orders of magnitude, and zeros, but for one entry at least in each row and column."""
    rng = np.random.default_rng(case.shape[0])
    V = rng.random(case.shape, dtype="float32") ** 4
    V *= rng.random(case.shape, dtype="float32") < DENSITY[case.kind]
    m, n = case.shape
    every = np.arange(max(m, n))
    V[every % m, every % n] = 0.5
    return V


def compared(clock: Clock, V: Any, case: plan.Exact) -> dict[str, Any]:
    """The relative errors of W and H in the norm, and the mean ones, which show a bias."""
    from scipy.sparse import csr_array

    W, H = uniform((case.shape[0], case.rank), 4), uniform((case.rank, case.shape[1]), 5)
    used: set[str] = set()
    find = kernels.find

    def observed(name: str, *arrays: Any) -> Any:
        kernel = find(name, *arrays)
        used.update(() if kernel is None else (name,))
        return kernel

    given = clock.asarray(csr_array(V) if case.kind == "sparse" else V, case.dtype)
    w, h = (clock.asarray(x, case.dtype) for x in (W, H))
    with warnings.catch_warnings(record=True) as seen, mock.patch.object(kernels, "find", observed):
        warnings.simplefilter("always")
        found = Iterations(given, w, h, "mu", 1.0).run(1)
    v, w, h = (clock.asarray(x, "float64") for x in (V, W, H))
    expected = plain(v, w, h, 1.0, 1)
    pairs = [tuple(transfer.to_host(x).astype("float64") for x in pair) for pair in zip(found, expected, strict=True)]
    errors = [float(np.linalg.norm(f - e) / np.linalg.norm(e)) for f, e in pairs]
    bias = [float(np.mean(f[e > 0] / e[e > 0] - 1)) if (e > 0).any() else float("nan") for f, e in pairs]
    said = sorted({str(warning.message)[:300] for warning in seen})
    right = all(error <= ALLOWED[case.dtype] for error in errors)  # which no NaN is
    return {"right": right, "norm": errors, "bias": bias, "kernels": sorted(used), "warnings": said}
