"""The least objective that methods apart from the library find: SciPy's NNLS, bounded least squares and L-BFGS-B."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import lsq_linear, minimize, nnls

import nmf_xp

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.reference import Question, Terms

    Matrix = np.ndarray[Any, Any]

TINY, HUGE = 1e-300, 1e100
LONG = 1000
"""Iterations of a long run."""


def loadings(question: Question, H: Matrix, given: Matrix | None = None) -> Matrix:
    """The best W for H, row by row; `given` has the values of fixed entries. The problem must be convex."""
    if not question.convex:
        msg = "a global optimum is known for given H and beta from 1 to 2 only"
        raise ValueError(msg)
    rows = []
    for i in range(len(question.V)):
        fixed = None if question.w.fixed is None else question.w.fixed[i]
        upper = None if question.w.upper is None else question.w.upper[i]
        start = None if given is None else given[i]
        solve = _least_squares if question.beta == 2 else _row_by_descent
        rows.append(_with_fixed(solve, question, i, H, fixed, upper, start))
    return np.stack(rows)


def _with_fixed(
    solve: Callable[..., Matrix],
    question: Question,
    i: int,
    H: Matrix,
    fixed: Matrix | None,
    upper: Matrix | None,
    given: Matrix | None,
) -> Matrix:
    """Row i, where what the fixed entries explain is an offset of the model."""
    free = np.ones(len(H), dtype=bool) if fixed is None else ~fixed
    row = np.zeros(len(H)) if given is None else np.where(free, 0.0, given)
    if free.any():
        v, w = question.V[i], question.weights[i]
        bound = None if upper is None else upper[free]
        row[free] = solve(v, w, H[free], row @ H, bound, question.w, question.beta)
    return row


def _least_squares(
    v: Matrix, w: Matrix, H: Matrix, offset: Matrix, upper: Matrix | None, terms: Terms, beta: float
) -> Matrix:
    """Frobenius: penalties by augmentation. l1 1'x is a shift of the right side by a c with A'c = l1 1."""
    A = np.vstack([(H * np.sqrt(w)).T, np.sqrt(terms.l2) * np.eye(len(H))])
    b = np.concatenate([np.sqrt(w) * (v - offset), np.zeros(len(H))])
    if terms.l1:
        shift = np.linalg.lstsq(A.T, np.full(len(H), terms.l1), rcond=None)[0]
        if not np.allclose(A.T @ shift, terms.l1):  # some component is free of all but the penalty
            return _row_by_descent(v, w, H, offset, upper, terms, beta)
        b = b - shift
    if upper is None:
        return np.asarray(nnls(A, b, maxiter=50 * A.shape[1])[0])
    x = np.zeros(len(H))
    open_ = upper > 0  # lsq_linear wants room between the bounds
    if open_.any():
        found = lsq_linear(A[:, open_], b, bounds=(0, upper[open_]), method="bvls", tol=1e-14)
        x[open_] = np.clip(found.x, 0, upper[open_])
    return x


def _row_by_descent(
    v: Matrix, w: Matrix, H: Matrix, offset: Matrix, upper: Matrix | None, terms: Terms, beta: float
) -> Matrix:
    """L-BFGS-B from two starts, in units in which each component alone would explain the row with a loading of 1."""
    own = (w * H).sum(axis=1)
    scale = np.divide((w * v).sum(), own, out=np.zeros(len(H)), where=own > 0)
    scale = np.where(scale > 0, scale, 1.0)
    limit = None if upper is None else upper / scale

    def value(z: Matrix) -> tuple[float, Matrix]:
        x = z * scale
        d, slope = _divergence(v, w, offset + x @ H, beta)
        with np.errstate(all="ignore"):
            value = d + terms.l1 * x.sum() + terms.l2 / 2 * (x @ x)
            return float(np.nan_to_num(value, nan=HUGE, posinf=HUGE)), (H @ slope + terms.l1 + terms.l2 * x) * scale

    found = []
    for start in (np.full(len(H), 1 / len(H)), np.full(len(H), 1e-3)):
        z = start if limit is None else np.minimum(start, limit)
        for _ in range(3):  # begun anew where it gave up
            result = minimize(value, z, jac=True, method="L-BFGS-B", bounds=_bounds(len(H), limit), options=PRECISE)
            z = result.x
        found.append((value(z)[0], z))
    return min(found, key=lambda pair: pair[0])[1] * scale


PRECISE = {"maxiter": 2000, "maxfun": 20000, "ftol": 0.0, "gtol": 1e-13, "maxcor": 30}


def _bounds(n: int, upper: Matrix | None) -> list[tuple[float, float | None]]:
    return [(0.0, None)] * n if upper is None else [(0.0, float(u)) for u in upper]


def _divergence(V: Matrix, weights: Matrix, Y: Matrix, beta: float) -> tuple[float, Matrix]:
    """The weighted divergence without what depends on V alone, and its slope along Y; a model of 0 is one of 1e-300."""
    Y = np.maximum(Y, TINY)
    with np.errstate(over="ignore"):
        if beta == 2:
            return float(np.sum(weights * (V - Y) ** 2) / 2), weights * (Y - V)
        if beta == 1:
            return float(np.sum(weights * (Y - V * np.log(Y)))), weights * (1 - V / Y)
        if beta == 0:
            return float(np.sum(weights * (V / Y + np.log(Y)))), weights * (1 / Y - V / Y / Y)
        d = Y**beta / beta - V * Y ** (beta - 1) / (beta - 1)
        return float(np.sum(weights * d)), weights * (Y ** (beta - 1) - V * Y ** (beta - 2))


def best_from(question: Question, W: Matrix, H: Matrix) -> float:
    """The least objective that is found from these factors: by long runs of the library, and apart from it."""
    found = [question.objective(W, H), *(question.objective(*pair) for pair in _long_runs(question, W, H))]
    if question.convex and question.beta == 2:
        found.append(question.objective(loadings(question, H, W), H))
    found.append(question.objective(*_joint_descent(question, W, H)))
    return min(x for x in found if x == x)


def _long_runs(question: Question, W: Matrix, H: Matrix) -> list[tuple[Matrix, Matrix]]:
    """The library's own solvers in float64 from here."""
    m, n = question.V.shape
    beta, runs = question.beta, []
    if beta <= 0 and (question.V[question.weights > 0] == 0).any():
        return []
    alphas = [terms.l1 + terms.l2 for terms in (question.w, question.h)]
    ratio = next((terms.l1 / (terms.l1 + terms.l2) for terms in (question.w, question.h) if terms.penalised), 0.0)
    V = np.where(question.weights > 0, question.V, 1.0)
    options: dict[str, Any] = {
        "beta_loss": beta,
        "weights": None if (question.weights == 1).all() else question.weights,
        "alpha_W": alphas[0] / n,
        "l1_ratio": ratio,
        "fixed_w": question.w.fixed,
        "upper_w": question.w.upper,
        "max_iter": LONG,
        "tol": 1e-9,
    }
    for solver in {"auto", "mm"}:
        if question.given_h:
            runs.append(nmf_xp.transform(V, H, init=W, solver=solver, **options))
        else:
            of_h = {"alpha_H": alphas[1] / m, "fixed_h": question.h.fixed, "upper_h": question.h.upper}
            runs.append(nmf_xp.nmf(V, W.shape[1], init=(W, H), solver=solver, **options, **of_h))
    return [(run.W, run.H) for run in runs]


def _joint_descent(question: Question, W: Matrix, H: Matrix) -> tuple[Matrix, Matrix]:
    """L-BFGS-B on both factors at once, or on W alone, each component in units of its largest entries."""
    factors = [(W, question.w)] if question.given_h else [(W, question.w), (H.T, question.h)]
    scales = [np.maximum(x.max(axis=0, keepdims=True), TINY) for x, _ in factors]
    start = np.concatenate([(x / s).ravel() for (x, _), s in zip(factors, scales, strict=True)])
    lower, upper = np.zeros_like(start), np.full_like(start, np.inf)
    at = 0
    for (x, terms), scale in zip(factors, scales, strict=True):
        part = slice(at, at := at + x.size)
        # Terms are of the factor's own orientation; x is W or the transpose of H.
        turn = (lambda a: a) if terms is question.w else np.transpose
        if terms.upper is not None:
            upper[part] = (turn(terms.upper) / scale).ravel()
        if terms.fixed is not None:
            hold = turn(terms.fixed).ravel()
            lower[part] = np.where(hold, start[part], lower[part])
            upper[part] = np.where(hold, start[part], upper[part])

    def split(z: Matrix) -> list[Matrix]:
        sizes = np.cumsum([x.size for x, _ in factors])[:-1]
        return [p.reshape(x.shape) * s for p, (x, _), s in zip(np.split(z, sizes), factors, scales, strict=True)]

    def value(z: Matrix) -> tuple[float, Matrix]:
        parts = split(z)
        A, B = parts[0], H if question.given_h else parts[1].T
        d, slope = _divergence(question.V, question.weights, A @ B, question.beta)
        slope = np.nan_to_num(slope, posinf=HUGE, neginf=-HUGE)
        gradients = [slope @ B.T] if question.given_h else [slope @ B.T, (A.T @ slope).T]
        for i, (part, (_, terms)) in enumerate(zip(parts, factors, strict=True)):
            d += terms.penalty(part)
            gradients[i] = (gradients[i] + terms.l1 + terms.l2 * part) * scales[i]
        return d, np.concatenate([g.ravel() for g in gradients])

    start = np.clip(start, lower, upper)
    with np.errstate(all="ignore"):
        unit = abs(value(start)[0]) or 1.0

    def relative(z: Matrix) -> tuple[float, Matrix]:
        with np.errstate(all="ignore"):  # a step of the line search may go far
            d, g = value(z)
            return float(np.nan_to_num(d / unit, nan=HUGE)), np.nan_to_num(g / unit, posinf=HUGE, neginf=-HUGE)

    bounds = [(low, None if np.isinf(high) else high) for low, high in zip(lower, upper, strict=True)]
    options = {"maxiter": LONG // 2, "maxfun": LONG, "ftol": 1e-13, "gtol": 0.0}
    result = minimize(relative, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    found = split(np.clip(result.x, lower, upper))
    return found[0], H if question.given_h else found[1].T
