r"""Newton's method for the Kullback-Leibler loss: every row of W at once, H fixed, with a line search of its own.

With Y = WH, the rows of W are independent, and row i has

    slope        G_ik  = sum_j (1 - v_ij / y_ij) h_kj
    curvature    Q_ikl = sum_j (v_ij / y_ij^2) h_kj h_lj.

A matrix for each row costs r products of the size of WH. Its diagonal, s_ik^2 = Q_ikk, costs one, and how components
overlap is much the same in all rows: with 1/y_ij for v_ij / y_ij^2, which is its mean for counts, and with the product
of its marginals for y_ij, it is C = corr(H diag(1/y_j) H^T). So Q_i is replaced by S_i C S_i, the quadratic model is
decreased by sweeps of coordinate descent within the bounds, and the row moves by the longest step t <= 1 found at
which the divergence still falls along its direction d,

    phi'(t) = sum_k d_k sum_j h_kj - sum_j v_ij e_ij / (y_ij + t e_ij) <= 0,     e = d H.

With b = e / y the last sum is that of v b / (b + 1/t), divided by t, so that a trial takes a sum, a division and a sum
over the row.

phi is convex, so it falls from 0 to such a t: no step raises D, and no divergence is computed. To take the curvature
at its mean is Fisher scoring; coordinate descent (Hsieh & Dhillon 2011) needs r passes where this takes four products.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nmf_xp.arrays import libraries, operators
from nmf_xp.data.blocks import Part, sweep
from nmf_xp.divergences import block_divergence, whole_divergence
from nmf_xp.problem import Factors
from nmf_xp.solvers.coordinate import growth, has_own_slope, least_squares_sweeps, row_kernel, sweeps_kernel
from nmf_xp.solvers.extrapolation import Extrapolated, Half
from nmf_xp.solvers.mu import multiplied

if TYPE_CHECKING:
    from collections.abc import Callable

    from nmf_xp.arrays.typing import Array, Namespace
    from nmf_xp.data import Data
    from nmf_xp.data.constraints import Constraints
    from nmf_xp.problem import Problem
    from nmf_xp.solvers.extrapolation import Momentum

SWEEPS, TRIALS = 2, 3


class Newton(Extrapolated):
    """Newton's method for one factor after the other."""

    def begin(self, problem: Problem, W: Array, H: Array, *, xp: Namespace) -> Factors:
        """The factors after some multiplicative iterations, for a model far from the data leads into poor minima."""
        if self.fixed_h:
            return Factors(W, H)
        return multiplied(problem, W, H, beta=self.beta, floor=self.floor, xp=xp)

    def in_one_call(self, problem: Problem, r: int) -> tuple[str, tuple[int, int]] | None:
        """The kernel that makes many iterations of small matrices, and the counts that it takes."""
        return "newton_loadings" if self.fixed_h else "newton_iterations", (SWEEPS, TRIALS)

    def half(
        self,
        data: Data,
        W: Array,
        H: Array,
        constraints: Constraints,
        *,
        momentum: Momentum | None = None,
        top: Array | None = None,
        measured: bool = False,
        xp: Namespace,
    ) -> Half:
        """The new W, and the divergence where it comes with it."""
        kernel = row_kernel("newton", data, W, constraints, xp=xp)
        if kernel is not None:
            l1, l2 = constraints.penalties
            settings: Any = {"l1": l1, "l2": l2, "floor": self.floor, "sweeps": SWEEPS, "trials": TRIALS}
            alone = measured and not has_own_slope(data)
            new, sums = kernel(W, H, **settings, measured=alone, **growth(data, W, H, xp=xp))
            return Half(new, sums and whole_divergence(data, new, H, *sums, xp=xp))
        correlation = shared_correlation(W, H, xp=xp)

        sweeps = sweeps_kernel("least_squares_sweeps", data, W, constraints)

        def rows(block: Data, W: Array, constraints: Constraints) -> Part:
            settings: Any = {"sweeps": sweeps, "top": top, "floor": self.floor, "xp": xp}
            new, moved = newton_rows(block, W, H, correlation, constraints, **settings)
            return Part(new, (block_divergence(block, new, H, moved(), beta=1.0, xp=xp),) if measured else ())

        W, sums = sweep(rows, data, W, constraints, xp=xp)
        return Half(W, sums[0] if measured else None)


def shared_correlation(W: Array, H: Array, *, xp: Namespace) -> Array:
    """C (..., r, r): how much the rows of H overlap, with a unit diagonal."""
    tiny = float(xp.finfo(W.dtype).smallest_normal)
    sums = xp.sum(W, axis=-2, keepdims=True) @ H  # of the columns of WH
    gram = (H / operators.at_least(sums, tiny, xp=xp)) @ operators.transposed(H)
    eye = xp.eye(gram.shape[-1], dtype=gram.dtype, device=libraries.device(gram))
    length = xp.sqrt(operators.at_least(xp.sum(gram * eye, axis=-1, keepdims=True), tiny, xp=xp))
    return gram / length / operators.transposed(length)


def newton_rows(
    data: Data,
    W: Array,
    H: Array,
    correlation: Array,
    constraints: Constraints,
    *,
    sweeps: Callable[..., Array] | None,
    top: Array | None = None,
    floor: float,
    xp: Namespace,
) -> tuple[Array, Callable[[], Array]]:
    """W (..., m, r) after one step of Newton's method for each row, and what makes its WH at the stored entries.

    `sweeps` is the kernel of that name.
    """
    info = xp.finfo(W.dtype)
    tiny, huge, eps = float(info.smallest_normal), float(info.max), float(info.eps)
    V, Y = data.values, data.predict(W, H, xp=xp)
    l1, l2 = constraints.penalties
    model = data.model_slope(W, H, None, beta=1.0, xp=xp)
    inverse = 1.0 / Y  # XLA would make of V / Y / Y one division, by a square that underflows
    quotient = V * inverse
    slope = constraints.add_slope(model, W, xp=xp) - data.contract(quotient, H, xp=xp)
    curvature = data.contract(operators.at_most(quotient * inverse, huge, xp=xp), H * H, xp=xp) + l2
    scale = xp.sqrt(operators.at_least(curvature, tiny**0.5, xp=xp))
    new = least_squares_sweeps(
        W, slope, correlation, constraints, kernel=sweeps, scale=scale, top=top, floor=floor, sweeps=SWEEPS, xp=xp
    )

    change = new - W
    E = data.predict(change, H, xp=xp)
    # It is more than -1 but for rounding, and no larger than the change of an entry of W in units of that entry.
    growth = operators.at_least(E * inverse, eps - 1.0, xp=xp)
    weight = V * growth
    ones = xp.ones_like(H[..., :1, :])
    linear = xp.sum(change * (model + l1), axis=-1, keepdims=True)
    ridge = [l2 * xp.sum(change * x, axis=-1, keepdims=True) for x in (W, change)]

    def derivative(t: Array) -> Array:
        pull = data.contract(weight / (growth + data.spread(1.0 / t, xp=xp)), ones, xp=xp) / t
        return linear + ridge[0] + t * ridge[1] - pull

    first = xp.sum(slope * change, axis=-1, keepdims=True)
    t = longest_descent(derivative, first, tiny=tiny, xp=xp)

    def moved() -> Array:
        return operators.at_least(Y + data.spread(t, xp=xp) * E, floor * floor, xp=xp)

    return constraints.enforce(operators.at_least(W + t * change, floor, xp=xp), W, xp=xp), moved


def longest_descent(derivative: Callable[[Array], Array], first: Array, *, tiny: float, xp: Namespace) -> Array:
    """For each row the largest t <= 1 of some trials at which the derivative of a convex function is not positive.

    `first` is the derivative at 0. Trials follow the secant between the last two signs.
    """

    def trial(state: tuple[Array, ...]) -> tuple[Array, ...]:
        t, low, at_low, high, at_high = state
        slope = derivative(t)
        falls = slope <= 0
        low, at_low = xp.where(falls, t, low), xp.where(falls, slope, at_low)
        high, at_high = xp.where(falls, high, t), xp.where(falls, at_high, slope)
        share = at_low / operators.at_most(at_low - operators.at_least(at_high, 0.0, xp=xp), -tiny, xp=xp)
        share = operators.at_most(operators.at_least(share, 0.05, xp=xp), 0.95, xp=xp)
        return low + (high - low) * share, low, at_low, high, at_high

    one = xp.ones_like(first)  # where it falls at 1, both ends are there, and all that follows is
    _, low, *_ = operators.repeated(trial, (one, xp.zeros_like(first), first, one, one), 1 + TRIALS)
    return xp.where(first < 0, low, 0.0)
