"""Each kernel equals the array-API function whose twin it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from array_api_compat import numpy as xp

from nmf_xp import _kernels, nmf
from nmf_xp._compat import to_host
from nmf_xp.data import Dense
from nmf_xp.problem import Problem
from nmf_xp.solvers import MultiplicativeUpdate
from tests.problems import DTYPES

pytest.importorskip("numba", reason="the kernels need numba: https://numba.pydata.org")


def factors(shape: tuple[int, ...], r: int, dtype: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    rng = np.random.default_rng(r)
    *stack, m, n = shape
    return rng.random((*stack, m, r)).astype(dtype) + 0.1, rng.random((*stack, r, n)).astype(dtype) + 0.1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("r", [1, 3, 4, 6, 8, 11])
@pytest.mark.parametrize("stacked", [False, True])
def test_an_iteration_of_small_members(stacked: bool, r: int, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    V = np.random.default_rng(0).poisson(2.0, (5, 13, 9) if stacked else (13, 9)).astype(dtype)
    W, H = factors((5, 13, 9), r, dtype)
    solver, problem = MultiplicativeUpdate(beta=1.0, floor=1e-6), Problem(Dense(V))
    start = solver.init(problem, W, H, xp=xp)
    found = solver.step(start, problem, xp=xp)
    monkeypatch.setattr(_kernels, "find", lambda *_: None)
    expected = solver.step(start, problem, xp=xp)
    for x, y in zip(found, expected, strict=True):
        np.testing.assert_allclose(
            to_host(x), to_host(y), rtol=50 * float(np.finfo(dtype).eps)
        )  # sums of 13 terms in another order


def test_restarts_use_it_and_agree_with_single_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    V = np.random.default_rng(0).poisson(2.0, (13, 9)).astype(float)
    used, find = [], _kernels.find

    def observed(name: str, *arrays: Any) -> Any:
        used.append(name)
        return find(name, *arrays)

    monkeypatch.setattr(_kernels, "find", observed)
    restarts = nmf(V, 3, beta_loss=1, n_restarts=4, random_state=0, keep_restarts=True).restarts
    assert "kl_iteration" in used
    rng = np.random.default_rng(0)
    alone = [nmf(V, 3, beta_loss=1, random_state=rng) for _ in range(4)]
    assert restarts is not None
    assert restarts.n_iter.tolist() == [result.n_iter for result in alone]
    np.testing.assert_allclose(restarts.divergence, [result.divergence for result in alone], rtol=1e-12)
