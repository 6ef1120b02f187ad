"""What is here: the machine, the versions, the backends, and whether a first factorization is right on each."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ci.gpu import lines
from nmf_xp.testing import Backend

if TYPE_CHECKING:
    from ci.gpu.task import Run

PACKAGES = (
    "numpy", "scipy", "torch", "triton", "jax", "jaxlib", "jax-cuda13-plugin", "jax-cuda12-plugin", "cupy-cuda13x",
    "cupy-cuda12x", "array-api-compat", "torchnmf", "pytest", "hypothesis", "numba",
)  # fmt: skip
FIRST = (("mu", 1.0), ("auto", 1.0), ("auto", 2.0), ("auto", 0.5))


def main(run: Run) -> None:
    """The machine, or one backend; the probe goes on to a first factorization and a first kernel."""
    if run.task.stage == "machine":
        machine(run)
        return
    backend = Backend(run.task.backend)
    begin = time.perf_counter()
    reason = missing(backend)
    device = None if reason else "unnamed"
    if reason is None:
        with contextlib.suppress(Exception):  # a stand-in has no name
            device = device_name(backend.value)
    about = {"missing": reason, "device": device, "seconds": time.perf_counter() - begin}
    lines.write(run.out, "here", backend=backend.value, what="backend", **about)
    if reason is None and run.task.stage == "probe":
        run.attempt("first factorizations", lambda: first_factorizations(backend.value))
        if backend.library == "jax":
            run.attempt("first kernel", first_kernel)


def missing(backend: Backend) -> str | None:
    """Why a backend cannot run here; a library that is here may fail too, on a driver that does not fit, say."""
    try:
        return backend.missing()
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def machine(run: Run) -> None:
    """Chip, driver, versions and commit, each from a program or a package that may not be here."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    chip = said(query)
    if chip is not None:
        run.emit(what="chip", text=chip)
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    versions["nmf_xp"] = str(importlib.import_module("nmf_xp").__version__)
    run.emit(what="versions", found=versions, cores=os.cpu_count())
    commit = said(["git", "describe", "--always", "--dirty", "--abbrev=12"])
    if commit is not None:
        run.emit(what="commit", text=commit)


def said(command: list[str]) -> str | None:
    """What a program says in one line; None where it is not here or fails."""
    if shutil.which(command[0]) is None:
        return None
    answer = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent, timeout=40)
    return "; ".join(answer.stdout.split("\n")).strip("; ") if answer.returncode == 0 else None


def device_name(backend: str) -> str:
    """The name that the library has for its device."""
    match backend:
        case "torch:cuda":
            return str(importlib.import_module("torch").cuda.get_device_name())
        case "jax:gpu" | "jax":
            return str(importlib.import_module("jax").devices()[0].device_kind)
        case "cupy":
            cupy = importlib.import_module("cupy")
            name = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)["name"]
            return name.decode() if isinstance(name, bytes) else str(name)
    return "cpu"


def first_factorizations(backend: str) -> dict[str, Any]:
    """The relative difference of the divergence from NumPy's in float64, for some solvers."""
    import numpy as np

    from nmf_xp import nmf

    V = (
        np.random.default_rng(0).poisson(3.0, (48, 40)).astype("float32")
    )  # too small for NumPy's kernels to be compiled
    begin = time.perf_counter()
    differences = {}
    for solver, loss in FIRST:
        settings: dict[str, Any] = {"beta_loss": loss, "solver": solver, "random_state": 0, "max_iter": 20, "tol": 0}
        here = float(nmf(Backend(backend).target().asarray(V), 5, **settings).divergence)
        there = float(nmf(V.astype("float64"), 5, **settings).divergence)
        differences[f"{solver} {loss:g}"] = abs(here - there) / there
    return {"seconds": time.perf_counter() - begin, "differences": differences}


def first_kernel() -> dict[str, Any]:
    """Whether JAX's kernels are taken here, and where they are not compiled, what JAX says."""
    import jax

    from nmf_xp.arrays.kernels import gpu

    if gpu.device() is None:
        return {"taken": False, "why": "kernels are for one NVIDIA GPU of Ampere or newer"}
    from nmf_xp.arrays.kernels import fused_dense
    from nmf_xp.data import Dense

    V, W, H = (jax.numpy.ones(shape, "float32") for shape in ((512, 256), (512, 16), (16, 256)))
    leaves, structure = jax.tree.flatten((Dense(V), W, H))
    begin = time.perf_counter()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        taken = gpu.compiles(fused_dense._dense_quotient, structure, *((x.shape, x.dtype) for x in leaves))
    why = "; ".join(str(warning.message)[:300] for warning in seen)
    return {"taken": taken, "why": why, "seconds": time.perf_counter() - begin}
