"""The stand-in for CuPy refuses what CuPy refuses, counts, and sees what would be read too early on a GPU."""

from __future__ import annotations

import gc
import importlib
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import nmf_xp
from nmf_xp.solvers import LOSSES, SOLVERS
from tests import stand_in

if TYPE_CHECKING:
    from collections.abc import Callable


def test_it_is_there_only_where_it_is_asked_for() -> None:
    before = {name for name in sys.modules if "cupy" in name}
    with stand_in.installed():
        import cupy

        assert "stand_in" in str(cupy.__file__)
    assert {name for name in sys.modules if "cupy" in name} == before
    assert str(stand_in.FOLDER) not in sys.path


REFUSED: dict[str, tuple[type[Exception], Callable[[Any], Any]]] = {
    "implicit conversion": (TypeError, lambda cp: np.asarray(cp.ones(3))),
    "a NumPy array beside its own": (TypeError, lambda cp: cp.ones(3) + np.ones(3)),
    "its own beside a NumPy array": (TypeError, lambda cp: np.ones(3) * cp.ones(3)),
    "a function of a NumPy array": (TypeError, lambda cp: cp.sum(np.ones(3))),
    "a list of numbers": (TypeError, lambda cp: cp.sqrt([1.0, 2.0])),
    "a NumPy array into its own": (TypeError, lambda cp: cp.ones(3).__setitem__(0, np.ones(()))),
    "the hash of a device": (TypeError, lambda cp: hash(cp.cuda.Device(0))),
    "the hash of an array": (TypeError, lambda cp: hash(cp.ones(3))),
    "a device in creation": (TypeError, lambda cp: cp.zeros(3, device=cp.cuda.Device(0))),
    "searchsorted of a number": (NotImplementedError, lambda cp: cp.searchsorted(cp.arange(3), 1)),
    "unstack": (AttributeError, lambda cp: cp.unstack(cp.ones((2, 2)))),
    "vecdot": (AttributeError, lambda cp: cp.vecdot(cp.ones(2), cp.ones(2))),
    "a sparse matrix of integers": (ValueError, lambda cp: sparse().csr_matrix(cp.ones((2, 2), dtype="int32"))),
    "sparse parts of NumPy": (ValueError, lambda _: sparse().csr_matrix((np.ones(1), np.zeros(1), np.arange(2)))),
    "a sparse product of two dtypes": (
        TypeError,
        lambda cp: sparse().csr_matrix(cp.ones((2, 2))) @ cp.ones((2, 1), dtype="float32"),
    ),
    "iteration over a number": (TypeError, lambda cp: list(cp.sum(cp.ones(3)))),
    "two devices": (ValueError, lambda cp: on_the_second(cp) + cp.ones(3)),
    "another device than the current one": (ValueError, lambda cp: on_the_second(cp) + 1.0),
    "a device that is not there": (RuntimeError, lambda cp: cp.cuda.Device(2).use()),
    "a stream of another device": (RuntimeError, lambda cp: on_the_second_stream(cp).__enter__()),
}


def sparse() -> Any:
    import cupyx.scipy.sparse

    return cupyx.scipy.sparse


def on_the_second(cp: Any) -> Any:
    with cp.cuda.Device(1):
        return cp.ones(3)


def on_the_second_stream(cp: Any) -> Any:
    with cp.cuda.Device(1):
        return cp.cuda.Stream()


@pytest.mark.parametrize("name", list(REFUSED))
def test_it_refuses_what_cupy_refuses(name: str, cupy: Any) -> None:
    error, function = REFUSED[name]
    with pytest.raises(error):
        function(cupy)


READS: dict[str, Callable[[Any], Any]] = {
    "float": float,
    "bool": lambda x: bool(x[()]),
    "get": lambda x: x.get(),
    "item": lambda x: x.item(),
    "tolist": lambda x: x.tolist(),
    "mask": lambda x: x[x > 0],
    "nonzero": lambda x: sys.modules["cupy"].nonzero(x.reshape(1)),
    "where": lambda x: sys.modules["cupy"].where(x.reshape(1)),
    "repr": repr,
    "synchronize": lambda x: x.device.synchronize(),
}


@pytest.mark.parametrize("name", list(READS))
def test_it_counts_what_the_host_waits_for(name: str, cupy: Any, devices: Any) -> None:
    x = cupy.asarray(2.0)
    devices.counts.reset()
    READS[name](x)
    assert devices.counts.waits == 1


KINDS: dict[str, dict[str, Any]] = {
    "dense": {},
    "masked": {"missing": "nan"},
    "penalised": {"alpha_W": 0.1, "l1_ratio": 0.5},
    "bounded": {"upper_w": 1.0, "upper_h": 1.0},
    "restarts": {"n_restarts": 3},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("solver", ["mu", "mm", "newton", "cd", "online"])
def test_a_solver_waits_for_nothing_between_two_checks(solver: str, kind: str, cupy: Any, devices: Any) -> None:
    """Nor does anything travel to the device: what a run reads does not grow with its iterations."""
    V = np.random.default_rng(0).gamma(1.0, 1.0, (12, 9)) + 0.1
    if kind == "masked":
        V[2, 3] = np.nan
    found = []
    for iterations in (2, 9):
        given = cupy.asarray(V)
        devices.counts.reset()
        options: dict[str, Any] = {
            "beta_loss": 1.0,
            "solver": solver,
            "max_iter": iterations,
            "tol": 0,
            "random_state": 0,
        }
        nmf_xp.nmf(given, 3, **(options | KINDS[kind]))
        found.append((devices.counts.waits, devices.counts.to_device, devices.counts.to_host))
    assert found[0] == found[1]


def test_it_counts_no_wait_where_there_is_none_and_every_copy(cupy: Any, devices: Any) -> None:
    x = cupy.asarray(np.ones((30, 20)))
    (transfer,) = devices.counts.transfers
    assert (devices.counts.to_device, transfer.key, transfer.nbytes) == (1, (0, 0), 30 * 20 * 8)
    y = cupy.maximum((x @ x.T)[:3, :], 2.0).sum(axis=0) / cupy.linalg.norm(x)
    y += 1.0
    y[0] = 3.0
    assert (devices.counts.waits, devices.counts.to_host, devices.counts.to_device) == (0, 0, 1)
    launches = devices.counts.launches
    _ = x.T[2:].reshape(-1)[::2][None, :]  # the same memory, but for the copy that `reshape` makes
    assert devices.counts.launches == launches + 1
    y.get()
    assert (devices.counts.waits, devices.counts.to_host) == (1, 1)


def test_a_copy_goes_to_the_current_device(cupy: Any) -> None:
    x = on_the_second(cupy)
    assert x.device.id == 1
    moved = cupy.asarray(x)
    assert moved.device.id == 0
    np.testing.assert_array_equal((moved + 1.0).get(), 2.0)
    np.testing.assert_array_equal(x.get(), 1.0)  # `get` works on any device


def test_it_sees_what_is_read_before_it_is_written(cupy: Any, devices: Any) -> None:
    one, two = (cupy.cuda.Stream(non_blocking=True) for _ in range(2))
    with one:
        x = cupy.ones(3)
    with two, pytest.raises(devices.RaceError, match="is read before it is written on another stream"):
        _ = x + 1.0
    two.wait_event(one.record())
    with two:
        _ = x + 1.0


def test_it_sees_memory_that_is_used_again_too_early(cupy: Any, devices: Any) -> None:
    one, two = (cupy.cuda.Stream(non_blocking=True) for _ in range(2))
    with one:
        x = cupy.ones(3)
    two.wait_event(one.record())
    with two:
        _ = x + 1.0
    del x
    gc.collect()
    with one, pytest.raises(devices.RaceError, match="used again while another stream reads it"):
        cupy.ones(3)
    with one:
        x = cupy.ones(3)
    two.wait_event(one.record())
    with two:
        _ = x + 1.0
    one.wait_event(two.record())
    del x
    with one:
        cupy.ones(3)


def test_the_null_stream_waits_for_blocking_ones_only(cupy: Any, devices: Any) -> None:
    with cupy.cuda.Stream():
        x = cupy.ones(3)
    _ = x + 1.0
    with cupy.cuda.Stream(non_blocking=True):
        x = cupy.ones(3)
    with pytest.raises(devices.RaceError):
        _ = x + 1.0


def test_memory_has_an_end_and_comes_back(cupy: Any, devices: Any) -> None:
    pool = cupy.get_default_memory_pool()
    before = pool.used_bytes()
    pool.set_limit(size=before + 1000)
    x = cupy.ones(100)
    assert pool.used_bytes() == before + 800
    with pytest.raises(cupy.cuda.memory.OutOfMemoryError, match="Out of memory allocating 1,600 bytes"):
        cupy.ones(200)
    del x
    assert pool.used_bytes() == before


def test_a_device_that_fails_answers_nothing(cupy: Any, devices: Any) -> None:
    x = cupy.ones(3)
    devices.failing[0] = "cudaErrorDevicesUnavailable: CUDA-capable device(s) is/are busy or unavailable"
    for function in (lambda: x + 1.0, x.get, lambda: cupy.ones(3)):
        with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="cudaErrorDevicesUnavailable"):
            function()


@pytest.mark.parametrize("absent", ["zero", "missing"])
@pytest.mark.parametrize(("solver", "beta"), [(s, b) for s in SOLVERS for b in LOSSES.get(s, (1.0, 2.0))])
def test_sparse_data_are_multiplied_without_a_wait(
    solver: str, beta: float, absent: str, cupy: Any, devices: Any
) -> None:
    """The places are looked at once, and only the entries are exchanged."""
    sparse: Any = importlib.import_module("cupyx.scipy.sparse")
    V = np.random.default_rng(0).gamma(1.0, 1.0, (12, 9)) * (np.random.default_rng(1).random((12, 9)) < 0.6)
    options: dict[str, Any] = {"beta_loss": beta, "solver": solver, "absent": absent, "tol": 0, "random_state": 0}
    found = []
    for iterations in (2, 9):
        given = sparse.csr_matrix(cupy.asarray(V))
        devices.counts.reset()
        result = nmf_xp.nmf(given, 3, max_iter=iterations, **options)
        found.append((devices.counts.waits, devices.counts.to_device, devices.counts.to_host))
    assert found[0] == found[1]
    expected = nmf_xp.nmf(importlib.import_module("scipy.sparse").csr_matrix(V), 3, max_iter=9, **options)
    np.testing.assert_allclose(result.W.get() @ result.H.get(), expected.W @ expected.H, rtol=1e-6, atol=1e-9)
