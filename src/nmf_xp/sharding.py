"""V divided among the devices of JAX: which grid of them to use, how to load it, and what an iteration sends.

`nmf` and `transform` take such a V as any other. The grid has `rows` x `columns` devices, each of which holds one
block of V.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from nmf_xp._layout import Layout
from nmf_xp.validation import check_beta, check_integer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["best_grid", "load_blocks", "words_per_iteration"]


def words_per_iteration(
    shape: tuple[int, int], n_components: int, grid: tuple[int, int], *, beta_loss: float | str = "frobenius"
) -> float:
    """How many numbers a device sends in one iteration of multiplicative updates, and how many it receives.

    Parameters
    ----------
    shape : (int, int)
        Rows m and columns n of V.
    n_components : int
        Rank r.
    grid : (int, int)
        Rows p and columns q of the grid of devices.
    beta_loss : float or str, default "frobenius"
        As for `nmf`.

    Returns
    -------
    float
        Numbers of V's dtype, in all-reduces round a ring.

    Notes
    -----
    The sums for W, (m/p) x r, run over the q devices that share rows, those for H, (n/q) x r, over the p that share
    columns; a ring of d devices passes a sum on 2 (1 - 1/d) times. Both sums are there once for the Frobenius and
    Kullback-Leibler losses, with r x r or r numbers more, and twice for all others. The least is where m/p = n/q.
    """
    (m, n), (p, q), r = shape, grid, n_components
    beta = check_beta(beta_loss)
    times, more = {2.0: (1, r * r), 1.0: (1, r)}.get(beta, (2, 0))
    w, h = (times * r * length + more for length in (m / p, n / q))
    return 2 * (1 - 1 / q) * w + 2 * (1 - 1 / p) * h


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
    return min(even, key=lambda grid: words_per_iteration((m, n), 1, grid))


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
        slices.

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

    def block(index: tuple[slice, ...]) -> Any:
        rows, columns = index
        found = np.asarray(load(rows, columns))
        wanted = (rows.stop - rows.start, columns.stop - columns.start)
        if found.shape != wanted:
            where = f"rows {rows.start}:{rows.stop} and columns {columns.start}:{columns.stop}"
            msg = f"`load` must return a block of shape {wanted} for {where}, got {found.shape}"
            raise ValueError(msg)
        return found

    return Layout(mesh, *mesh.axis_names).make((m, n), block)
