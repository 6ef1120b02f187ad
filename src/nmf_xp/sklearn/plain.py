"""Fits of ordinary numbers in NumPy arrays and SciPy matrices, by the solver itself: as scikit-learn does, and no more.

`nmf` asks what an array is, in which units it is solved, and how far from a minimum it ended. On a matrix of some
hundred entries that takes longer than the iterations. Here scikit-learn's own checks have been made already, and the
numbers are such that `nmf` would take them as they are: else there is None, and `nmf` is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.arrays import libraries, operators, threads, transfer
from nmf_xp.data import as_data, dense_if_quicker
from nmf_xp.data.units import floor_of, floor_of_loadings, units_of
from nmf_xp.divergences import data_divergence
from nmf_xp.problem import Problem
from nmf_xp.problem.checks import check_penalties
from nmf_xp.problem.optimality import penalties
from nmf_xp.problem.posing import Posed
from nmf_xp.problem.terms import asked_of
from nmf_xp.result import Status
from nmf_xp.sklearn.callbacks import EVERY, START, reconstruction_error
from nmf_xp.solvers import SOLVERS
from nmf_xp.solvers.mu import half_square
from nmf_xp.updates import factor_floor

if TYPE_CHECKING:
    from collections.abc import Callable

    from nmf_xp.arrays.typing import Array
    from nmf_xp.sklearn.starts import DrawnOrders
    from nmf_xp.solvers import Solver


CANCELLED = 1e-5  # of sum(V^2) / 2: a divergence below it has lost digits that are kept elsewhere


class Plain(NamedTuple):
    """What came of a fit."""

    W: Array
    H: Array
    divergence: float
    history: tuple[float, ...]
    n_iter: int
    status: Status


def plain(
    X: Any,
    W: Any,
    H: Any,
    solver: tuple[str, dict[str, Any]],
    *,
    beta: float,
    alphas: tuple[float, float | str, float],
    max_iter: int,
    tol: float,
    every: int = EVERY,
    fixed_h: bool = False,
    measured: bool = True,
    orders: Callable[[], DrawnOrders] | None = None,
) -> Plain | None:
    """W and H from a start for checked X, where nothing is to be scaled; `tol` is that of the rule of "mu".

    Without `tol` and if not `measured` there is no divergence. `orders` begins to draw those of the components.
    """
    if W.ndim > 2 or any(libraries.is_foreign(x) for x in (X, W, H)):
        return None
    data = as_data(X)
    xp, dtype = libraries.array_namespace(data.values), data.values.dtype
    if not W.dtype == H.dtype == dtype or W.shape[-1] > sum(data.shape):
        return None
    data = dense_if_quicker(data, xp=xp)
    largest, largest_w, largest_h = (transfer.scalar(xp.max(x)) for x in (data.values, W, H))
    least = factor_floor(dtype, beta=beta, xp=xp)
    units = units_of(largest, 1.0, dtype, beta=beta, floor=least, xp=xp)
    units = units.suited(largest_w, largest_h, dtype, zero=largest == 0, xp=xp)
    if any(units) or not largest > 0:
        return None
    if fixed_h:
        floor = floor_of_loadings(least, largest, largest_h, dtype, beta=beta, xp=xp)
        if beta != 2 and float(H.min()) < floor:  # what its zeros leave without a model is another problem
            return None
    else:
        floor = floor_of(least, largest, dtype, beta=beta, xp=xp)
    posed = Posed(Problem(data), xp, beta, units, floor, largest, ())
    alpha_w, alpha_h, l1_ratio = alphas
    if alpha_w or alpha_h not in (0, "same"):
        terms = asked_of(check_penalties(alpha_w, 0.0 if fixed_h else alpha_h, l1_ratio), l1_ratio)
        posed = posed.constrained(W.shape[-1], terms)
        if posed.heavy:
            return None
    name, options = solver
    settings: Any = {"fixed_h": fixed_h, **options}
    with threads.held_for(W):
        drawn = None if orders is None else orders()
        schedule: Any = {"max_iter": max_iter, "tol": tol, "every": every, "measured": measured, "orders": drawn}
        return _run(SOLVERS[name](beta=beta, floor=floor, **settings), posed, W, H, **schedule)


def _run(
    solver: Solver,
    posed: Posed,
    W: Array,
    H: Array,
    *,
    max_iter: int,
    tol: float,
    every: int,
    measured: bool,
    orders: DrawnOrders | None,
) -> Plain:
    """Iterations, with a look after every so many."""
    xp, beta = posed.xp, posed.beta
    problem = solver.prepare(posed.problem, xp=xp)

    def divergence(W: Array, H: Array) -> float:
        return transfer.scalar(data_divergence(problem.data, W, H, beta=beta, xp=xp))

    def objective(found: float, W: Array, H: Array) -> float:
        free = problem.w.free and problem.h.free
        return found if free else found + float(penalties(problem, W, H, xp=xp))

    looks, n_iter, history = tol > 0 or (solver.has_rule and not solver.fixed_h), 0, []
    given = W, H
    W, H = (
        operators.at_least(W, solver.floor, xp=xp),
        H if solver.fixed_h else operators.at_least(H, solver.floor, xp=xp),
    )
    state = solver.init(problem, W, H, xp=xp)
    found, status = None, Status.MAX_ITER
    size = half_square(problem.data, xp=xp) if beta == 2 and looks else 0.0
    if looks:
        found = divergence(W, H)
        history.append(objective(found, W, H))
    if tol > 0:
        as_given = found is not None and all(0 < solver.floor <= xp.min(x) for x in given)
        begun = found if as_given else divergence(*(xp.where(x == 0, START, x) for x in given))
        first = previous = reconstruction_error(begun)
    halves = 1 if solver.fixed_h else 2
    while n_iter < max_iter:
        n = max_iter if orders is None and not looks else min(every, max_iter - n_iter)
        if orders is not None:
            state = state._replace(orders=orders.draw(n * halves))
        state, rest = solver.measured_steps(state, problem, n, xp=xp)
        n_iter += n  # lint: a Python int
        last = n_iter == max_iter or (solver.has_rule and bool(state.ended))
        if looks and rest is not None and not last and size + rest > CANCELLED * size:
            found = size + rest
        else:
            found = divergence(state.W, state.H) if looks or (measured and last) else float("nan")
        if looks:
            history.append(objective(found, state.W, state.H))
        if solver.has_rule and state.ended:
            if orders is not None:
                orders.leave((n - n_iter + int(state.ended)) * halves)
            n_iter, status = int(state.ended), Status.CONVERGED
            break
        if looks and not found < float("inf"):
            status = Status.NOT_FINITE
            break
        if tol > 0 and n_iter % every == 0:
            error = reconstruction_error(found)
            if previous - error < tol * first:
                status = Status.STOPPED
                break
            previous = error
    assert found is not None
    W, H = (transfer.in_row_order(x) for x in (state.W, state.H))
    return Plain(W, H, found, tuple(history), n_iter, status)
