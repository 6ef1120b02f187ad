"""Compile an iteration with the GPU kernels for GPUs that are not here, and compare its memory with the factors'.

Needs no GPU, but what JAX compiles with: `pip install jax-cuda13-plugin jax-cuda13-pjrt nvidia-cuda-nvcc`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from typing import Any, NamedTuple

SHAPE, NNZ = (16_384, 8_192), 10_000_000
CONFIGURATION = """
gpu_device_info {{
  threads_per_block_limit: 1024  threads_per_warp: 32  threads_per_core_limit: 2048
  shared_memory_per_block: 49152  shared_memory_per_core: {core}  shared_memory_per_block_optin: {block}
  core_count: 100  fpus_per_core: 128  clock_rate_ghz: 1.5
  block_dim_limit_x: 2147483647  block_dim_limit_y: 65535  block_dim_limit_z: 65535
  memory_bandwidth: 1000000000000  l2_cache_size: 40000000  device_memory_size: 24000000000
  cuda_compute_capability {{ major: {major} minor: {minor} }}
  registers_per_core_limit: 65536  registers_per_block_limit: 65536
}}
platform_name: "CUDA"  device_description_str: "{name}"
dnn_version_info {{ major: 9 minor: 7 }}  runtime_version {{ major: 12 minor: 8 patch: 0 }}
"""


class Chip(NamedTuple):
    """A GPU, and what limits a kernel there."""

    name: str
    major: int
    minor: int
    core: int  # bytes of shared memory
    block: int  # of which one block may take


CHIPS = (
    Chip("A100", 8, 0, 167_936, 166_912),
    Chip("L4", 8, 9, 102_400, 101_376),
    Chip("H100", 9, 0, 233_472, 232_448),
    Chip("B200", 10, 0, 233_472, 232_448),
    Chip("RTX 5090", 12, 0, 102_400, 101_376),
)


def main() -> int:
    """Exit status 1 where a program needs more than some arrays of the factors' size, 2 without the compiler."""
    if not any(importlib.util.find_spec(f"jax_cuda{version}_plugin") for version in (12, 13)):
        print("neither jax-cuda13-plugin nor jax-cuda12-plugin is installed", file=sys.stderr)
        return 2
    os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"  # it looks for a driver
    import jax
    from jax.experimental import topologies

    jax.config.update("jax_enable_x64", True)  # type: ignore[no-untyped-call]
    failed = False
    for chip in CHIPS:
        configuration = CONFIGURATION.format(**chip._asdict())
        topology = topologies.get_topology_desc(chip.name, "cuda", target_config=configuration, topology="1x1x1")
        for dtype in ("float32", "float64"):
            for rank in (1, 16, 20, 64, 128):
                for kind in ("dense", "sparse"):
                    with pretended(chip):
                        ratio, kernels = temporaries(topology.devices[0], kind, dtype, rank)
                    expected = 0 if (dtype, rank) == ("float64", 128) else 2  # it does not fit
                    wrong = kernels != expected or (ratio > 8 and expected > 0)
                    failed |= wrong
                    verdict = "WRONG" if wrong else "ok"
                    about = f"{kernels} kernels, temporaries of {ratio:.1f} times the factors"
                    print(f"{chip.name} {kind} {dtype} rank {rank}: {about}; {verdict}")
    return int(failed)


def pretended(chip: Chip) -> contextlib.AbstractContextManager[None]:
    """JAX 0.11 lowers a kernel for the chip of the default device unless it is told another."""
    import jax
    from jax import sharding

    if jax.__version_info__ < (0, 11):
        return contextlib.nullcontext()
    name = f"NVIDIA {'GeForce RTX 4090' if chip.major == 12 else chip.name}"  # it does not know the RTX 5090
    device = sharding.AbstractDevice(device_kind=name, num_cores=100, platform="gpu")
    context: Any = sharding.use_abstract_mesh(sharding.AbstractMesh((), (), abstract_device=device))
    return context


def temporaries(device: Any, kind: str, dtype: str, rank: int) -> tuple[float, int]:
    """Temporaries of a Kullback-Leibler iteration over the size of its factors, and how many kernels it holds."""
    import jax
    from jax import numpy as jnp

    from nmf_xp.arrays.kernels import gpu
    from nmf_xp.data import Dense, Sparse
    from nmf_xp.data.sparse_products import View
    from nmf_xp.problem import Problem
    from nmf_xp.solvers import MultiplicativeUpdate

    def array(shape: tuple[int, ...], dtype: str = dtype) -> Any:
        return gpu.array(shape, dtype, sharding=jax.sharding.SingleDeviceSharding(device))

    def view(length: int, order: Any) -> View:
        return View(array((length + 1,), "int32"), array((NNZ,), "int32"), order)

    gpu.device = lambda: device  # the choice asks for the machine's own
    m, n = SHAPE
    entries = array((NNZ,), "int32")
    data: Any = Dense(array(SHAPE))
    if kind == "sparse":
        data = Sparse(array((NNZ,)), entries, entries, view(m, None), view(n, entries))
    solver = MultiplicativeUpdate(beta=1.0, floor=1e-13)

    def iteration(data: Any, W: Any, H: Any) -> Any:
        problem = Problem(data)
        return solver.step(solver.init(problem, W, H, xp=jnp), problem, xp=jnp)

    lowered = jax.jit(iteration).trace(data, array((m, rank)), array((rank, n))).lower(lowering_platforms=("cuda",))
    compiled = lowered.compile()
    memory: Any = compiled.memory_analysis()
    factors = (m + n) * rank * jnp.dtype(dtype).itemsize
    return memory.temp_size_in_bytes / factors, lowered.as_text().count("xla.gpu.triton")


if __name__ == "__main__":
    sys.exit(main())
