r"""Weighted least squares for the rows of W, H fixed: each entry in turn moved to its minimum, whatever the weights.

With weights w_ij, a row has the curvature G_i = H diag(w_i) H^T, which is its own. Three ways take the same steps;
they differ in what they cost.

* **One curvature for all rows**, a_i H diag(b) H^T, where w_ij = a_i b_j. Where a_i b_j is only a close bound of w_ij,
  as 1 is of weights of 0 and 1, steps are shorter by the share of the bound that the weights have, and cheaper.
* **A curvature for each row**, the products of the weights with those of two rows of H: r (r + 1) / 2 for each entry
  of V, of BLAS's kind. Then a sweep costs nothing of V's size.
* **The residual kept**: E = WH - V follows each move, with 4 r operations for each entry of V and sweep. In a kernel a
  row of it stays in the cache.

The divergence after the last sweep follows in the second and the third, without cancellation.

Where few entries decide a row, its components may be told apart by weights a million times smaller, and sweeps take
thousands of rounds. So in a convex problem, H given, a row that a sweep still moves takes Newton's step too: the
minimum over the entries that are within their bounds, which ends the search once it has found which these are.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.arrays import libraries, operators
from nmf_xp.data import Dense, Sparse, Weighted, with_bound
from nmf_xp.data.blocks import Part, sweep
from nmf_xp.data.weighted import LineWeighted
from nmf_xp.solvers.coordinate import least_squares_sweeps, sweeps_kernel
from nmf_xp.updates import slopes

if TYPE_CHECKING:
    from collections.abc import Callable

    from nmf_xp.arrays.typing import Array, Namespace
    from nmf_xp.data import Data
    from nmf_xp.data.constraints import Constraints
    from nmf_xp.problem import Problem

CLOSE = 0.25  # the least share of their bound for which weights are taken as it
SETTLED = 1e-7  # of a row's divergence: what a last sweep lowers it by no more than does not need Newton's step
PASSES = 4  # of Newton's step: after each, entries that met their bound stay there
ROOM = 2**26  # numbers in the curvatures of all rows, beyond which that step is left out


def with_close_bound(problem: Problem, *, fixed_h: bool, xp: Namespace) -> Problem:
    """The problem with a bound on its weights, where it is close enough for its cheaper steps to gain time.

    One factor alone is a convex problem, which is to end at its minimum: there each row has its own curvature.
    """
    return problem if fixed_h else problem._replace(data=with_bound(problem.data, least=CLOSE, xp=xp))


def weighted_sweeps(
    data: Data,
    W: Array,
    H: Array,
    constraints: Constraints,
    *,
    floor: float,
    sweeps: int,
    convex: bool = False,
    top: Array | None = None,
    xp: Namespace,
) -> tuple[Array, Array | None]:
    """W (..., m, r) after some sweeps, and the divergence, (...,), where it comes with them.

    No entry grows beyond `top` (..., 1, r), where that is given.

    Where the problem is `convex`, as H stays, rows that the sweeps leave far from their minimum take Newton's step too.
    """
    bound = data.bound
    settings: Any = {"floor": floor, "sweeps": sweeps, "top": top, "xp": xp}
    if bound is None:
        return _exact(data, W, H, constraints, convex=convex, **settings)
    new = _bounded(data, W, H, bound.columns, constraints, **settings)
    if bound.members is None:
        return new, None
    return xp.where(bound.members, new, _exact(data, W, H, constraints, convex=convex, **settings)[0]), None


def _bounded(
    data: Data,
    W: Array,
    H: Array,
    columns: Array,
    constraints: Constraints,
    *,
    floor: float,
    sweeps: int,
    top: Array | None,
    xp: Namespace,
) -> Array:
    """W after sweeps over a quadratic whose curvature is that of the bound."""
    gram = (H * columns) @ operators.transposed(H)
    ridge = None
    if constraints.l2 is not None:
        ridge = constraints.l2 * xp.eye(H.shape[-2], dtype=gram.dtype, device=libraries.device(gram))
    kernel = None if ridge is not None else sweeps_kernel("least_squares_sweeps", data, W, constraints)

    def rows(block: Data, W: Array, constraints: Constraints) -> Part:
        if isinstance(block, LineWeighted):
            product, model = slopes(block, W, H, beta=2.0, xp=xp)
            slope = model - product
        else:
            slope = block.contract(block.predict(W, H, xp=xp) - block.values, H, xp=xp)
        assert block.bound is not None
        observed = block.bound.rows > 0
        scale = xp.sqrt(xp.where(observed, block.bound.rows, 1.0)) + xp.zeros_like(W)
        settings: Any = {
            "scale": scale,
            "ridge": ridge,
            "kernel": kernel,
            "top": top,
            "floor": floor,
            "sweeps": sweeps,
            "xp": xp,
        }
        new = least_squares_sweeps(W, constraints.add_slope(slope, W, xp=xp), gram, constraints, **settings)
        return Part(xp.where(observed, new, constraints.enforce(floor + xp.zeros_like(W), W, xp=xp)), ())

    return sweep(rows, data, W, constraints, xp=xp).rows


def _exact(
    data: Data,
    W: Array,
    H: Array,
    constraints: Constraints,
    *,
    floor: float,
    sweeps: int,
    convex: bool,
    top: Array | None,
    xp: Namespace,
) -> tuple[Array, Array | None]:
    """W after sweeps with each row's own curvature, and the divergence where H does not stay."""
    kernel = _kernel(data, W, constraints)
    if kernel is not None:
        l1, l2 = constraints.penalties
        settings: Any = {"top": top, "floor": floor, "sweeps": sweeps, "passes": PASSES}
        return kernel(W, H, l1=l1, l2=l2, settled=SETTLED if convex else float("inf"), **settings)
    (r, n), dense = H.shape[-2:], data.values.ndim > 1
    way = _by_curvatures if dense and r * (r + 1) <= 4 * n else _by_residual
    alive = operators.transposed(xp.max(H, axis=-1, keepdims=True)) > 0

    def rows(block: Data, W: Array, constraints: Constraints) -> Part:
        W, divergence = way(_Rows(block, H, constraints, alive, floor, sweeps, convex, top, xp), W)
        return Part(W, () if divergence is None else (divergence,))

    W, sums = sweep(rows, data, W, constraints, xp=xp)
    return W, sums[0] if sums else None


def _kernel(data: Data, W: Array, constraints: Constraints) -> Callable[..., Any] | None:
    """The kernel for this kind of data, which keeps the residual of a row at a time, if there is one."""
    if not isinstance(data, Weighted):
        return None
    base = data.base
    if isinstance(base, Dense):
        kernel = sweeps_kernel("weighted_dense", data, W, constraints)
        return kernel and functools.partial(kernel, base.matrix, base.with_values(data.weights).matrix)
    if isinstance(base, Sparse) and base.along.others is not None:
        kernel = sweeps_kernel("weighted_sparse", data, W, constraints)
        return kernel and functools.partial(kernel, base.values, data.weights, base.along)
    return None


class _Rows(NamedTuple):
    """A block of rows, and what is asked of them."""

    data: Data
    H: Array
    constraints: Constraints
    alive: Array  # (..., 1, r): whether a component is anywhere positive
    floor: float
    sweeps: int
    convex: bool  # whether H stays, and rows that are far from their minimum take Newton's step
    top: Array | None  # (..., 1, r): to which an entry may grow
    xp: Namespace

    @property
    def l2(self) -> float:
        return self.constraints.penalties[1]

    def least(self, k: Any, old: Array, slope: Array, curvature: Array) -> Array:
        """The minimum of entry k of each row; where nothing observed depends on it, the least one."""
        xp, c = self.xp, operators.column(curvature, k)
        new = old - slope / xp.where(c > 0, c, 1.0)
        new = xp.where(c > 0, new, xp.where(operators.column(self.alive, k), self.floor, old))
        if self.top is not None:
            new = xp.minimum(new, xp.maximum(old, operators.column(self.top, k)))
        return self.constraints.column(k).enforce(operators.at_least(new, self.floor, xp=xp), old, xp=xp)

    def row_sums(self, Z: Array) -> Array:
        """Sums over each row, (..., m, 1), of what the weights multiply."""
        return self.data.contract(Z, self.xp.ones_like(self.H[..., :1, :]), xp=self.xp)

    def curvatures(self, W: Array) -> tuple[Array, Array]:
        """The upper triangles of H diag(w_i) H^T, (..., m, r (r + 1) / 2), and where in them each entry of it is."""
        xp, H, device = self.xp, self.H, libraries.device(self.H)
        r = H.shape[-2]
        numbers, places = (xp.arange(n, dtype=xp.int32, device=device) for n in (r, r * (r + 1) // 2))

        def place(low: Any, high: Any) -> Any:  # made on the device: a table of Python's would be a copy to it
            return low * r - xp.floor_divide(low * (low - 1), 2) + high - low

        starts = place(numbers, numbers)
        first = xp.sum(xp.astype(starts <= places[:, None], xp.int32), axis=-1, dtype=xp.int32) - 1
        second = places - xp.take(starts, first) + first
        products = xp.take(H, first, axis=-2) * xp.take(H, second, axis=-2)
        table = place(xp.minimum(numbers, numbers[:, None]), xp.maximum(numbers, numbers[:, None]))
        return self.data.model_slope(W, products, None, beta=1.0, xp=xp), table

    def moved_on(
        self, W: Array, slope: Array, diagonal: Array, last: Array, left: Array, triangles: Callable[[], Any]
    ) -> Array:
        """W after Newton's step for the rows that changed by `last` in a sweep, with `left` of their divergence."""
        xp = self.xp
        if math.prod(W.shape) * W.shape[-1] > ROOM:
            return W
        fall = 0.5 * xp.sum(diagonal * last * last, axis=-1, keepdims=True)
        far = fall > SETTLED * left

        def stepped() -> Array:
            return xp.where(far, self._newton(W, slope, diagonal, *triangles()), W)

        return operators.either(xp.any(far), stepped, lambda: W, xp=xp)

    def _newton(self, W: Array, slope: Array, diagonal: Array, triangles: Array, table: Array) -> Array:
        """The minimum over the entries that are within their bounds, of which some may meet theirs on the way to it."""
        xp, r = self.xp, W.shape[-1]
        gram = xp.reshape(xp.take(triangles, xp.reshape(table, (-1,)), axis=-1), (*W.shape, r))
        eye = xp.eye(r, dtype=W.dtype, device=libraries.device(W))
        gram = gram + self.l2 * eye
        for _ in range(PASSES):
            new = self._newton_step(W, slope, gram, diagonal, eye)
            W, slope = new, slope + (gram @ (new - W)[..., None])[..., 0]
        return W

    def _newton_step(self, W: Array, slope: Array, gram: Array, diagonal: Array, eye: Array) -> Array:
        """To the minimum and back to the bounds, or only as far as the first bound: what lowers the objective more."""
        xp, constraints = self.xp, self.constraints
        bottom = constraints.floor(self.floor, xp=xp)
        free = xp.logical_and(W > bottom, diagonal > 0)
        if constraints.upper is not None:
            free = xp.logical_and(free, W < constraints.upper)
        if constraints.fixed is not None:
            free = xp.logical_and(free, xp.logical_not(constraints.fixed))
        scale = xp.where(free, 1.0 / xp.sqrt(xp.where(diagonal > 0, diagonal, 1.0)), 0.0)
        damped = 1.0 + 8 * W.shape[-1] * float(xp.finfo(W.dtype).eps)  # what is singular to rounding has a solution
        system = xp.where(eye > 0, damped, gram * scale[..., :, None] * scale[..., None, :])
        way = scale * operators.solution(system, -(slope * scale)[..., None], xp=xp)[..., 0]
        share = xp.where(way < 0, (W - bottom) / xp.where(way < 0, -way, 1.0), 1.0)
        if constraints.upper is not None:
            room = xp.where(way > 0, (constraints.upper - W) / xp.where(way > 0, way, 1.0), 1.0)
            share = xp.minimum(share, room)
        share = operators.at_most(xp.min(share, axis=-1, keepdims=True), 1.0, xp=xp)
        best, gain = W, 0.0 * share
        for ahead in (W + way, W + share * way):
            new = constraints.enforce(operators.at_least(ahead, self.floor, xp=xp), W, xp=xp)
            change = new - W
            bent = (gram @ change[..., None])[..., 0]
            change = xp.sum(change * (slope + 0.5 * bent), axis=-1, keepdims=True)
            best, gain = xp.where(change < gain, new, best), xp.minimum(change, gain)
        return best


def _by_curvatures(rows: _Rows, W: Array) -> tuple[Array, Array | None]:
    """From the slope and the curvature of each row."""
    data, H, constraints, xp = rows.data, rows.H, rows.constraints, rows.xp
    residual = data.predict(W, H, xp=xp) - data.values
    begun = constraints.add_slope(data.contract(residual, H, xp=xp), W, xp=xp)
    triangles, table = rows.curvatures(W)
    eye = xp.eye(W.shape[-1], dtype=table.dtype, device=libraries.device(W))
    diagonal = xp.take(triangles, xp.sum(table * eye, axis=-1), axis=-1) + rows.l2

    def move(k: Any, old: Array, slope: Array) -> tuple[Array, Array]:
        new = rows.least(k, old, operators.column(slope, k), diagonal)
        row = xp.take(triangles, xp.reshape(operators.column(table, k), (-1,)), axis=-1)
        return new, slope + (new - old) * row

    before, new, slope = W, W, begun
    for _ in range(rows.sweeps):
        before = new
        new, slope = operators.replace_columns(move, new, slope, xp=xp)
        slope = slope + rows.l2 * (new - before)  # the penalty meets an entry's own slope alone
    # A quadratic changes by the move times the mean of its slopes at both ends, here without those of the penalty.
    l1, l2 = constraints.penalties
    gain = (new - W) * (0.5 * (begun + slope - l2 * (W + new)) - l1)
    squares = residual * residual
    if rows.convex:
        left = 0.5 * rows.row_sums(squares) + xp.sum(gain, axis=-1, keepdims=True)
        return rows.moved_on(new, slope, diagonal, new - before, left, lambda: (triangles, table)), None
    dtype = libraries.accumulator_dtype(xp, libraries.device(W))
    return new, 0.5 * data.sum(squares, dtype=dtype, xp=xp) + xp.sum(gain, axis=(-2, -1), dtype=dtype)


def _by_residual(rows: _Rows, W: Array) -> tuple[Array, Array | None]:
    """With the residual at the stored entries, which follows each move."""
    data, H, constraints, xp = rows.data, rows.H, rows.constraints, rows.xp
    Ht = operators.transposed(H)
    diagonal = data.model_slope(W, H * H, None, beta=1.0, xp=xp) + rows.l2

    def move(k: Any, old: Array, residual: Array) -> tuple[Array, Array]:
        h = operators.transposed(operators.column(Ht, k))
        slope = constraints.add_slope(data.contract(residual, h, xp=xp), old, xp=xp)
        new = rows.least(k, old, slope, diagonal)
        return new, residual + data.predict(new - old, h, xp=xp)

    before, residual = W, data.predict(W, H, xp=xp) - data.values
    for _ in range(rows.sweeps):
        before = W
        W, residual = operators.replace_columns(move, W, residual, xp=xp)
    squares = residual * residual
    if rows.convex:
        slope = constraints.add_slope(data.contract(residual, H, xp=xp), W, xp=xp)
        left = 0.5 * rows.row_sums(squares)
        return rows.moved_on(W, slope, diagonal, W - before, left, lambda: rows.curvatures(W)), None
    return W, 0.5 * data.sum(squares, dtype=libraries.accumulator_dtype(xp, libraries.device(W)), xp=xp)
