"""A GPU that is not there, too old, full, or gone: one error that says what to do, and nothing that is kept."""

from __future__ import annotations

import functools
import gc
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import nmf_xp
from nmf_xp import RowBlocks
from nmf_xp.arrays import faults
from nmf_xp.cli import main
from tests.problem.test_validation import DEVICES
from tests.problems import noisy

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SAID = {
    "no-gpu": "cudaErrorNoDevice: no CUDA-capable device is detected",
    "gpu-too-old": "cudaErrorNoKernelImageForDevice: no kernel image is available for execution on the device",
    "driver-too-old": "cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version",
    "device-vanishes": "cudaErrorDevicesUnavailable: CUDA-capable device(s) is/are busy or unavailable",
}


def outcome(id_: str) -> str:
    """What docs/bad-input.md says of a device, as a pattern."""
    ((_, _, what),) = [row for row in DEVICES if row[0] == id_]
    return re.escape(what.removeprefix("`` ").removesuffix(" ``")).replace(re.escape("..."), ".+")


def raised(function: Callable[[], Any]) -> Exception:
    with pytest.raises((RuntimeError, TypeError, ValueError, MemoryError)) as caught:
        function()
    error = caught.value
    assert error.__cause__ is None
    assert error.__context__ is None or error.__suppress_context__, "one error, not two"
    return error


def test_every_row_has_a_case() -> None:
    others = {"gpu-full", "blocks-too-large", "two-devices", "two-devices-sparse"}
    assert {id_ for id_, _, _ in DEVICES} == {*SAID, *others}


@pytest.mark.parametrize("id_", ["gpu-too-old", "device-vanishes"])
@pytest.mark.parametrize("function", ["nmf", "transform"])
def test_a_device_that_fails_in_the_middle(id_: str, function: str, cupy: Any, devices: Any) -> None:
    V, _, H = (cupy.asarray(x) for x in noisy(12, 9, 3))
    gc.collect()
    used = cupy.get_default_memory_pool().used_bytes()

    def fail(_: Any) -> None:
        devices.failing[0] = SAID[id_]

    def run() -> Any:
        if function == "nmf":
            return nmf_xp.nmf(V, 3, random_state=0, callback=fail)
        return nmf_xp.transform(V, H, callback=fail)

    error = raised(run)
    assert re.fullmatch(outcome(id_), f"{type(error).__name__}: {error}")
    devices.failing.clear()
    gc.collect()
    assert cupy.get_default_memory_pool().used_bytes() == used
    assert nmf_xp.nmf(V, 3, random_state=0, max_iter=2).n_iter == 2


@pytest.mark.parametrize("id_", ["no-gpu", "gpu-too-old", "driver-too-old"])
def test_a_command_that_gets_no_gpu(id_: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], devices: Any) -> None:
    np.save(tmp_path / "V.npy", noisy(12, 9, 3).V)
    devices.failing.update({0: SAID[id_], 1: SAID[id_]})
    for device in ([], ["--device", "cuda:1"]):
        assert main(["fit", str(tmp_path / "V.npy"), "-k", "2", "--backend", "cupy", *device]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert SAID[id_] in line
        assert faults.remedy(SAID[id_]) in line  # type: ignore[operator]
    ((_, _, what),) = [row for row in DEVICES if row[0] == id_]
    assert str(faults.remedy(SAID[id_])) in what
    assert main(["conformance", "--backend", "cupy"]) == 1
    assert "not run: cupy (no CUDA device)" in capsys.readouterr().out


def test_a_command_whose_device_vanishes_ends_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], devices: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "V.npy", noisy(12, 9, 3).V)
    run = nmf_xp.nmf

    def vanishing(V: Any, *args: Any, **options: Any) -> Any:
        devices.failing[0] = SAID["device-vanishes"]
        return run(V, *args, **options)

    monkeypatch.setattr(nmf_xp, "nmf", vanishing)
    assert main(["fit", str(tmp_path / "V.npy"), "-k", "2", "--backend", "cupy"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("nmf-xp: error: `V`'s device failed in the middle of the run")
    assert line.endswith(faults.LOST)


@pytest.mark.parametrize("solver", ["mu", "mm", "newton", "cd"])
def test_a_gpu_that_is_full_keeps_nothing_and_what_is_said_to_fit_does(solver: str, cupy: Any) -> None:
    host = noisy(400, 90, 3).V
    gc.collect()
    pool = cupy.get_default_memory_pool()
    before = pool.used_bytes()
    V = cupy.asarray(host)
    given = pool.used_bytes()
    pool.set_limit(size=given + V.nbytes // 2)
    options: dict[str, Any] = {"beta_loss": 1.0, "random_state": 0, "max_iter": 3}
    error = raised(functools.partial(nmf_xp.nmf, V, 3, solver=solver, **options))
    assert re.fullmatch(outcome("gpu-full"), f"{type(error).__name__}: {error}")
    gc.collect()
    assert pool.used_bytes() == given
    np.testing.assert_array_equal(V.get(), host)
    (rows,) = map(int, re.findall(r"at most (\d+) rows", str(error)))
    assert rows < 400
    like = V[:1].copy()
    del V, error  # whose traceback holds V
    gc.collect()
    result = nmf_xp.nmf(RowBlocks([host[i : i + rows] for i in range(0, 400, rows)], like=like), 3, **options)
    assert result.n_iter == 3
    del result, like
    gc.collect()
    assert pool.used_bytes() == before


def test_blocks_that_do_not_fit(cupy: Any) -> None:
    host = noisy(400, 90, 3).V
    gc.collect()
    pool = cupy.get_default_memory_pool()
    pool.set_limit(size=pool.used_bytes() + host.nbytes // 2)
    error = raised(lambda: nmf_xp.nmf(RowBlocks([host], like=cupy.ones(1)), 3, random_state=0))
    assert re.fullmatch(outcome("blocks-too-large"), f"{type(error).__name__}: {error}")


def test_arrays_on_two_devices(cupy: Any) -> None:
    V, W, H = noisy(4, 3, 2)
    here = cupy.asarray(V)
    with cupy.cuda.Device(1):
        there = [cupy.asarray(x) for x in (W, H)]
        weights = cupy.ones((4, 3))
    pattern = outcome("two-devices")
    for function, name in (
        (lambda: nmf_xp.nmf(here, 2, init=tuple(there)), "init[0]"),
        (lambda: nmf_xp.nmf(here, 2, weights=weights), "weights"),
        (lambda: nmf_xp.transform(here, there[1]), "H"),
        (lambda: nmf_xp.beta_divergence(here, *there), "W"),
        (lambda: nmf_xp.update_h(here, *there), "W"),
        (lambda: nmf_xp.nmf(here, 2, upper_w=weights[:, :2]), "upper_w"),
    ):
        error = raised(function)
        assert re.fullmatch(pattern.replace(re.escape("init[0]"), re.escape(name)), f"{type(error).__name__}: {error}")
    import cupyx.scipy.sparse

    sparse = cupyx.scipy.sparse.csr_matrix(here)
    error = raised(lambda: nmf_xp.nmf(sparse, 2, init=tuple(there)))
    assert re.fullmatch(outcome("two-devices-sparse"), f"{type(error).__name__}: {error}")


class AcceleratorError(RuntimeError):
    """As torch has it."""


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (RuntimeError("CUDA out of memory. Tried to allocate 9 GiB."), MemoryError, "What fits: "),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9"), MemoryError, "What fits: "),
        (MemoryError("Unable to allocate 9 GiB"), MemoryError, "What fits: "),
        (AcceleratorError("CUDA error: unspecified launch failure\nCompile with"), RuntimeError, "start a new process"),
        (RuntimeError("CUDA error: no kernel image is available for execution"), RuntimeError, "too old"),
        (RuntimeError("INTERNAL: CUDA_ERROR_NO_DEVICE"), RuntimeError, "no GPU can be seen"),
        (RuntimeError("Found no NVIDIA driver on your system."), None, ""),
        (RuntimeError("a bug"), None, ""),
        (ValueError("CUDA error of the user's own words"), None, ""),
    ],
)
def test_every_library_has_its_words(error: Exception, kind: type[Exception] | None, words: str) -> None:
    V = noisy(12, 9, 3).V

    def fail(_: Any) -> None:
        raise error

    found: Any = None
    try:
        nmf_xp.nmf(V, 2, random_state=0, callback=fail)
    except Exception as caught:  # whichever it is
        found = caught
    if kind is None:
        assert found is error
    else:
        assert type(found) in (kind, faults.DeviceError)
        assert isinstance(found, kind)
        assert words in str(found)
        assert "\n" not in str(found)


@pytest.mark.parametrize(
    ("name", "said", "full"),
    [
        ("CUBLASError", "CUBLAS_STATUS_ALLOC_FAILED", True),
        ("CUBLASError", "CUBLAS_STATUS_EXECUTION_FAILED", False),
        ("CuSparseError", "CUSPARSE_STATUS_EXECUTION_FAILED", False),
        ("CUSOLVERError", "CUSOLVER_STATUS_ALLOC_FAILED", True),
        ("NVRTCError", "NVRTC_ERROR_OUT_OF_MEMORY (1)", True),
        ("RuntimeError", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("RuntimeError", "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`", True),
        ("RuntimeError", "CUDA error: an illegal memory access was encountered", False),
    ],
)
def test_failures_of_cudas_libraries_are_known(name: str, said: str, full: bool) -> None:
    error = RuntimeError(said) if name == "RuntimeError" else type(name, (Exception,), {})(said)
    assert faults.is_out_of_memory(error) == full
    assert full or faults.is_of_a_device(error)


@pytest.mark.parametrize("device", [0, 1])
def test_memory_is_given_back_on_the_device_that_is_full(device: int, cupy: Any, devices: Any) -> None:
    with cupy.cuda.Device(device):
        V = cupy.asarray(noisy(40, 30, 3).V)
        pool = cupy.get_default_memory_pool()
        pool.set_limit(pool.used_bytes() + 1000)
    with pytest.raises(MemoryError, match="What fits"):
        nmf_xp.nmf(V, 3, random_state=0)
    assert set(devices.freed) == {device}
