"""What is quicker in NumPy's own words for matrices so small that nothing is compiled for them.

An operator of the array API takes longer than its numbers there; these write into arrays and leave out what one sweep
of one matrix does not need.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def small_cyclic_sweep(
    W: NDArray[Any], product: NDArray[Any], gram: NDArray[Any], order: NDArray[Any], l1: float, floor: float
) -> tuple[NDArray[Any], float]:
    """The same as `cyclic_sweep`."""
    Wt = np.array(W.T, order="C")
    pull = product.T - l1 if l1 else product.T
    violation = 0.0
    for t in order.tolist():
        w, curvature = Wt[t], gram[t, t]
        slope = gram[t].dot(Wt)
        slope -= pull[t]
        if curvature > 0:
            moved = slope / -curvature
            moved += w
            np.maximum(moved, floor, out=moved)
        else:
            moved = w
        # Only what is at the floor, and would fall below, does not count.
        slope *= (w > floor) | (slope < 0)
        violation += float(np.abs(slope, out=slope).sum())
        Wt[t] = moved
    return Wt.T, violation
