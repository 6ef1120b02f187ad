"""Arrays of JAX and torch that lie in the host's memory, handed to NumPy and its kernels, which are faster.

Nothing is copied on the way there. What comes back is of the caller's library, and so is what a callback sees.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
from typing import TYPE_CHECKING, Any

from nmf_xp.arrays import libraries, transfer
from nmf_xp.data import Sparse
from nmf_xp.data.blocks import Blockwise
from nmf_xp.data.grid import Grid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nmf_xp.arrays.typing import Namespace
    from nmf_xp.problem import Problem
    from nmf_xp.run.position import Outcome, Progress
    from nmf_xp.solvers.solver import Solver

_natively = contextvars.ContextVar("_natively", default=False)


@contextlib.contextmanager
def natively() -> Iterator[None]:
    """Within it every array is computed with by its own library, as on a GPU."""
    token = _natively.set(True)
    try:
        yield
    finally:
        _natively.reset(token)


def is_for_host(solver: Solver, problem: Problem, start: list[Any]) -> bool:
    """Whether NumPy is to do the work: where all arrays lie in the host's memory, and none comes in blocks."""
    if _natively.get() or not solver.compiles or isinstance(problem.data, Blockwise | Grid):
        return False
    return all(libraries.in_host_memory(x) for x in (problem.data.values, *start))


def run_on_host(
    run: Callable[..., Outcome],
    solver: Solver,
    problem: Problem,
    start: list[Any],
    *,
    observe: Callable[[Progress], bool] | None,
    asked: Any,
    xp: Namespace,
    **options: Any,
) -> Outcome:
    """What `run` makes of NumPy's views of all arrays, as arrays of their library."""
    device, dtype = libraries.device(start[0]), problem.data.values.dtype
    wide = libraries.accumulator_dtype(xp, device)
    back: Any = functools.partial(transfer.from_host, xp=xp, device=device)

    def seen(progress: Progress) -> bool:
        assert observe is not None
        W, H = (back(x, dtype=dtype) for x in (progress.W, progress.H))
        return observe(progress._replace(W=W, H=H))

    start[:] = map(transfer.to_host, start)  # lint: a list
    numpy = libraries.array_namespace(*start)
    given: Any = {"observe": seen if observe else None, "asked": _views(asked), **options}
    end = run(solver, _views(problem), start, **given, xp=numpy)
    factors: Any = {name: back(getattr(end, name), dtype=dtype) for name in ("W", "H")}
    numbers = {name: back(getattr(end, name), dtype=wide) for name in ("divergence", "objective", "kkt_residual")}
    return end._replace(**factors, **numbers)


def _views(tree: Any) -> Any:
    """The same named tuples, of NumPy's arrays."""
    if isinstance(tree, Sparse):
        tree = tree.with_one_order()._replace(rows_of=None)
    if hasattr(tree, "_fields"):
        return type(tree)(*map(_views, tree))
    if isinstance(tree, tuple | list):
        return type(tree)(map(_views, tree))
    return transfer.to_host(tree) if libraries.is_array(tree) else tree
