"""V divided among the devices of JAX: which grid of them to use, how to load it, and what an iteration sends.

`nmf` and `transform` take such a V as any other. The grid has `rows` x `columns` devices, each of which holds one
block of V.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from nmf_xp.arrays.checks import check_integer, check_option
from nmf_xp.arrays.mesh import Layout
from nmf_xp.divergences import check_beta
from nmf_xp.solvers import automatic

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["best_grid", "load_blocks", "words_per_iteration"]


def words_per_iteration(
    shape: tuple[int, int],
    n_components: int,
    grid: tuple[int, int],
    *,
    beta_loss: float | str = "frobenius",
    solver: str = "auto",
) -> float:
    """How many numbers a device sends in one iteration, and how many it receives.

    Parameters
    ----------
    shape : (int, int)
        Rows m and columns n of V.
    n_components : int
        Rank r.
    grid : (int, int)
        Rows p and columns q of the grid of devices.
    beta_loss, solver : optional
        As for `nmf`.

    Returns
    -------
    float
        Numbers of V's dtype, in all-reduces round a ring.

    Raises
    ------
    ValueError
        The solver has no iteration for this loss.

    Notes
    -----
    What is summed for W has the length of m/p rows, over the q devices that share them; for H that of n/q columns, over
    the p that share those. For each row or column `mu` sums r numbers for the Frobenius and Kullback-Leibler losses, 2r
    for others; a ring of d devices passes a sum on 2 (1 - 1/d) times. The least is where m/p = n/q.

    Examples
    --------
    >>> from nmf_xp.sharding import words_per_iteration
    >>> words_per_iteration((4000, 1000), 10, (4, 2), beta_loss="kullback-leibler", solver="mu")
    17525.0
    """
    (m, n), (p, q), r = shape, grid, n_components
    beta = check_beta(beta_loss)
    sums = _sums(beta, r)
    each, more = sums[automatic(beta) if solver == "auto" else check_option("solver", solver, sums)]
    w, h = (length * each + more for length in (m / p, n / q))
    return 2 * (1 - 1 / q) * w + 2 * (1 - 1 / p) * h


def _sums(beta: float, r: int) -> dict[str, tuple[int, int]]:
    """What each solver sums in an iteration: numbers for each row of W and column of H, and numbers besides."""
    if beta == 2:
        return {"mu": (r, r * r), "mm": (3 * r, 3 * r * r), "cd": (r, 3 * r * r), "cd-plain": (r, 2 * r * r)}
    if beta == 1:
        return {"mu": (r, r), "mm": (3 * r, 3 * r), "newton": (2 * r + 4, r * r + r), "cd": (2 * r, r)}
    return {"mu": (2 * r, 0), "mm": (6 * r, 0)}


def best_grid(shape: tuple[int, int], n_devices: int) -> tuple[int, int]:
    """The grid of devices that sends least, of those that divide V (m, n) evenly.

    Parameters
    ----------
    shape : (int, int)
        Rows and columns of V.
    n_devices : int
        How many devices there are, all of which the grid uses.

    Returns
    -------
    (int, int)
        Rows and columns of the grid.

    Raises
    ------
    ValueError
        No grid of as many devices divides V evenly, which JAX demands.

    Examples
    --------
    >>> from nmf_xp.sharding import best_grid
    >>> best_grid((4_000_000, 1_000_000), 64)
    (16, 4)
    """
    m, n = shape
    n_devices = check_integer("n_devices", n_devices, minimum=1)
    grids = [(p, n_devices // p) for p in range(1, n_devices + 1) if n_devices % p == 0]
    even = [(p, q) for p, q in grids if m % p == 0 and n % q == 0]
    if not even:
        msg = (
            f"`shape` must be divided evenly by a grid of {n_devices} devices, got {(m, n)}; pad V with rows or "
            "columns of zeros, or use another number of devices"
        )
        raise ValueError(msg)
    return min(even, key=lambda grid: words_per_iteration((m, n), 1, grid, solver="mu"))


def load_blocks(
    shape: tuple[int, int],
    load: Callable[[slice, slice], Any],
    *,
    mesh: Any = None,
    devices: Sequence[Any] | None = None,
) -> Any:
    """V on many devices, of which each process loads only the blocks that its own devices hold.

    Parameters
    ----------
    shape : (int, int)
        Rows and columns of V.
    load : callable
        ``load(rows, columns)`` returns that block of V for two slices, for example of a memory map: an array that NumPy
        understands, of the same dtype for every block. It is called once for each block of this process.
    mesh : jax.sharding.Mesh, optional
        A mesh with two axes, the first for the rows of V and the second for its columns. By default the axes are
        "rows" and "columns", and the grid is `best_grid` of the devices.
    devices : sequence of jax devices, optional
        The devices to use, where no mesh is given; by default all of all processes.

    Returns
    -------
    jax.Array
        V, shape (m, n).

    Raises
    ------
    ValueError
        The grid does not divide V evenly, the mesh has other than two axes, or a block has another shape than its
        slices or another dtype than the first.

    Examples
    --------
    >>> import numpy as np
    >>> from nmf_xp import nmf
    >>> from nmf_xp.sharding import load_blocks
    >>> numbers = np.random.default_rng(0).poisson(5.0, size=(20, 10)).astype("float32")
    >>> V = load_blocks(numbers.shape, lambda rows, columns: numbers[rows, columns])
    >>> nmf(V, 3, random_state=0).W.shape
    (20, 3)
    """
    import jax
    import numpy as np

    m, n = shape
    if mesh is None:
        devices = jax.devices() if devices is None else list(devices)
        grid = best_grid((m, n), len(devices))
        mesh = jax.sharding.Mesh(np.asarray(devices).reshape(grid), ("rows", "columns"))
    if len(mesh.axis_names) != 2:
        msg = f"`mesh` must have two axes, one for the rows and one for the columns of V, got {mesh.axis_names}"
        raise ValueError(msg)
    grid = tuple(mesh.devices.shape)
    if m % grid[0] or n % grid[1]:
        try:
            advice = f"use a grid of {best_grid((m, n), math.prod(grid))} devices"
        except ValueError:
            advice = "pad V with rows or columns of zeros, or use another number of devices"
        msg = f"`mesh` must divide V of shape {(m, n)} evenly, got a grid of {grid} devices; {advice}"
        raise ValueError(msg)

    dtypes: list[Any] = []

    def block(index: tuple[slice, ...]) -> Any:
        rows, columns = index
        found = np.asarray(load(rows, columns))
        dtypes.append(found.dtype)
        wanted = (rows.stop - rows.start, columns.stop - columns.start), dtypes[0]
        if (found.shape, found.dtype) != wanted:
            where = f"rows {rows.start}:{rows.stop} and columns {columns.start}:{columns.stop}"
            what = "a block of shape {} and dtype {}"
            msg = f"`load` must return {what.format(*wanted)} for {where}, got {what.format(found.shape, found.dtype)}"
            raise ValueError(msg)
        return found

    return Layout(mesh, *mesh.axis_names).make((m, n), block)
