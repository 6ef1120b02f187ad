"""Iterations of one matrix, without what a call of `nmf` does before and after them: a solver's, and a plain loop's."""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING, Any

from nmf_xp.arrays import libraries, precision
from nmf_xp.data import as_data
from nmf_xp.problem import Factors, Problem
from nmf_xp.run import programs
from nmf_xp.solvers import SOLVERS
from nmf_xp.updates import factor_floor

if TYPE_CHECKING:
    from collections.abc import Callable

    Pair = tuple[Any, Any]


class Iterations:
    """A solver at its start, run by the same programs as in `nmf`."""

    def __init__(self, V: Any, W: Any, H: Any, solver: str, beta: float) -> None:
        self.xp = libraries.array_namespace(W)
        self.solver = SOLVERS[solver](beta=beta, floor=factor_floor(W.dtype, beta=beta, xp=self.xp))
        self.problem = self.solver.prepare(Problem(as_data(V)), xp=self.xp)
        compiled = libraries.is_jax(W) and self.solver.compiles
        made: Any = programs.compiled_programs() if compiled else programs.python_programs
        self.state = _in_precision(made.init, self.solver, Factors(W, H), self.problem, self.xp)
        self.program: Any = None
        if compiled:
            lowered = _in_precision(made.steps.lower, self.solver, self.state, self.problem, 1, self.xp)
            self.program = lowered.compile()

    def run(self, n: int) -> Pair:
        """W and H after `n` iterations from the start."""
        if self.program is not None:
            state = self.program(self.solver.floor, self.state, self.problem, n)
        else:
            steps = programs.python_programs.steps
            state = _in_precision(steps, self.solver, self.state, self.problem, n, self.xp)
        return state.W, state.H

    def bytes(self) -> int | None:
        """What the compiled program holds, its arguments among them; None where nothing is compiled."""
        found = None if self.program is None else self.program.memory_analysis()
        if found is None:
            return None
        return int(found.argument_size_in_bytes + found.output_size_in_bytes + found.temp_size_in_bytes)


def _in_precision(program: Callable[..., Any], *args: Any) -> Any:
    with precision.own_errors():
        return precision.in_full_precision(program)(*args)


def plain(V: Any, W: Any, H: Any, beta: float, n: int) -> Pair:
    """The loop that one writes by hand with any of the libraries: Lee & Seung's updates, W first."""
    step = _compiled_step() if libraries.is_jax(W) else _step
    for _ in range(n):
        W, H = _in_precision(step, V, W, H, beta)
    return W, H


@functools.cache
def _compiled_step() -> Callable[..., Pair]:
    """A step under `jax.jit`, as one would have it there."""
    step: Callable[..., Pair] = importlib.import_module("jax").jit(_step, static_argnums=3)
    return step


def _step(V: Any, W: Any, H: Any, beta: float) -> Pair:
    if beta == 1:
        W = W * ((V / (W @ H)) @ H.T) / H.sum(1)
        return W, H * (W.T @ (V / (W @ H))) / W.sum(0)[:, None]
    if beta == 2:
        W = W * (V @ H.T) / (W @ (H @ H.T))
        return W, H * (W.T @ V) / ((W.T @ W) @ H)
    Y = W @ H  # without the exponent under which the objective never rises, which costs nothing of V's size
    W = W * ((V * Y ** (beta - 2)) @ H.T) / (Y ** (beta - 1) @ H.T)
    Y = W @ H
    return W, H * (W.T @ (V * Y ** (beta - 2))) / (W.T @ Y ** (beta - 1))
