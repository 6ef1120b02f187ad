"""Losses whose powers are roots, against Kullback-Leibler: the time of an iteration on every library.

    python -m benchmarks.other_losses [--rounds 3]

2000 x 1000 at rank 20. Each row is one solver on one library, with beta 0, 1/2 and 3/2 relative to beta 1, and for
`mm` relative to `newton` too, which beta 1 has by default. An iteration is the difference of runs of 6 and of 1, and
the sides take turns; the least processor time of some rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
from typing import TYPE_CHECKING, Any

import jax
import torch

from benchmarks.other_libraries import RANK, compared, counts, run, without_kernels
from benchmarks.scikit_learn import machine
from nmf_xp import nmf
from nmf_xp.run.hosted import natively

if TYPE_CHECKING:
    from collections.abc import Callable

OTHERS = (0.0, 0.5, 1.5)
SIDES: dict[str, tuple[Callable[[Any], Any], Callable[[], Any]]] = {
    "NumPy": (lambda V: V, contextlib.nullcontext),
    "NumPy, no kernels": (lambda V: V, without_kernels),
    "JAX": (jax.numpy.asarray, contextlib.nullcontext),
    "torch": (torch.asarray, contextlib.nullcontext),
    "JAX, own operators": (jax.numpy.asarray, natively),
    "torch, own operators": (torch.asarray, natively),
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    config: Any = jax.config
    config.update("jax_enable_x64", True)
    print(f"load {os.getloadavg()[0]:.1f}\n")
    columns = ("library", "solver", "beta 1, ms", *(f"beta {x:g}" for x in OTHERS), "over `newton`: 0, 1/2, 3/2")
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for dtype in ("float64", "float32"):
        for name, (convert, way) in SIDES.items():
            V = convert(counts().astype(dtype))
            pairs = [("newton", 1.0), *((solver, beta) for solver in ("mm", "mu") for beta in (1.0, *OTHERS))]
            jobs: dict[Any, Callable[[int], Any]] = {}
            for solver, beta in pairs:
                call = functools.partial(nmf, V, RANK, solver=solver, beta_loss=beta, random_state=0, tol=0)
                jobs[solver, beta] = functools.partial(run, call, way)
            found = compared(jobs, rounds)
            for solver in ("mm", "mu"):
                base = found[solver, 1.0]
                cells = [f"{1e3 * base:.1f}", *(f"{found[solver, beta] / base:.1f}" for beta in OTHERS)]
                by_newton = [f"{found[solver, beta] / found['newton', 1.0]:.1f}" for beta in OTHERS]
                cells.append(", ".join(by_newton) if solver == "mm" else "")
                print(f"| {name}, {dtype} | {solver} | {' | '.join(cells)} |", flush=True)
    print(f"\nload {os.getloadavg()[0]:.1f}\n\n{machine()}")


if __name__ == "__main__":
    main()
