"""The algorithms, each a `Solver`. Adding one takes a file here and a line in `SOLVERS`.

| file | algorithm | losses | an iteration reads V |
|---|---|---|---|
| `mu` | multiplicative updates | every beta | once |
| `mm` | joint majorisation-minimisation with SQUAREM | every beta | 3 times, in a cycle of three updates |
| `newton` | Newton's method, all rows at once | 1 | twice |
| `cd` | coordinate descent on what is in `coordinate` | 1, 2 | twice; r times more for 1 without a kernel |
| `online` | online multiplicative updates, batch by batch | every beta | once |
| `cyclic` | scikit-learn's coordinate descent, without extrapolation | 2 | twice |
| `extrapolation` | what `newton` and `cd` have in common | | once more where the objective does not come with H |
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nmf_xp.data.kinds import Kind
from nmf_xp.solvers.cd import CoordinateDescent
from nmf_xp.solvers.cyclic import CyclicDescent
from nmf_xp.solvers.mm import AcceleratedMajorizer
from nmf_xp.solvers.mu import MultiplicativeUpdate
from nmf_xp.solvers.newton import Newton
from nmf_xp.solvers.online import OnlinePasses
from nmf_xp.solvers.solver import Solver

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["BY_KIND", "LOSSES", "OPTIONS", "SOLVERS", "MultiplicativeUpdate", "Solver", "automatic"]


SOLVERS: dict[str, Callable[..., Solver]] = {
    "mu": MultiplicativeUpdate,
    "mm": AcceleratedMajorizer,
    "newton": Newton,
    "cd": CoordinateDescent,
    "cd-plain": lambda **settings: CyclicDescent(**{**settings, "floor": 0.0}),
    "online": OnlinePasses,
}

LOSSES = {"newton": (1.0,), "cd": (1.0, 2.0), "cd-plain": (2.0,)}
"""The betas of the solvers that do not take all."""

OPTIONS = {
    "mu": ("polish",),
    "cd-plain": ("violation_tol", "orders", "polish"),
    "online": ("batch_size", "forget_factor"),
}
"""The settings that a user may give."""


BY_KIND = {Kind.STREAMED: ("mm", "mu", "online"), Kind.GRID: ("mu",)}
"""The solvers for data that are nowhere whole: those that read V block by block."""


SMALL = 2**12
"""Entries of a matrix that is small: of a stack of these, a kernel for one matrix takes one after the other."""


def automatic(
    beta: float, kind: Kind = Kind.WHOLE, *, stack: tuple[int, ...] | None = None, on_gpu: bool = False
) -> str:
    """The solver for a loss: what came first in `benchmarks/` on most data sets; or the first that there is.

    A `stack`, given by its shape, of small matrices is run as one by `mm`, ten times as fast or more.

    On a GPU nothing was measured. There it is what needs the fewest passes over V to a divergence, and the fewest
    launches: the iterations that were counted on CPUs times what `tests/arrays/test_counts.py` counts in one of them.
    """
    if kind is not Kind.WHOLE:
        return BY_KIND[kind][0]
    if stack is not None and stack[-2] * stack[-1] <= SMALL:
        return "mm"
    return {1.0: "mm" if on_gpu else "newton", 2.0: "cd"}.get(beta, "mm")
