"""Each kernel and its twin on the same random arrays; a test demands that none is forgotten.

Kernels for NumPy are met where they are used, in an iteration of a solver with them and without. Those for JAX are
called by themselves, interpreted where there is no GPU, and compared with their twin on NumPy in float64, since a GPU
may multiply in TF32.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import itertools
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np

from nmf_xp.arrays import kernels, libraries, operators
from nmf_xp.arrays.kernels import compiling
from nmf_xp.data import Dense, as_data, with_weights
from nmf_xp.data.constraints import FREE, Constraints
from nmf_xp.data.dense import DenseTransposed
from nmf_xp.data.quotient import unfused
from nmf_xp.divergences import ROOTS, block_divergence, data_divergence
from nmf_xp.problem import Factors, Problem
from nmf_xp.problem.balance import balanced
from nmf_xp.problem.optimality import report
from nmf_xp.run.ending import returned
from nmf_xp.run.programs import python_programs
from nmf_xp.solvers import MultiplicativeUpdate
from nmf_xp.solvers.cd import CoordinateDescent
from nmf_xp.solvers.cyclic import CyclicDescent
from nmf_xp.solvers.extrapolation import Extrapolated, Momentum
from nmf_xp.solvers.newton import Newton
from nmf_xp.solvers.online import Moved, OnlineUpdate
from nmf_xp.testing.report import Skip
from nmf_xp.updates import factor_floor, slopes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nmf_xp.testing.backends import Target

    Pair = tuple[Any, Any]

ROWS, COLUMNS, RANK, MEMBERS = 37, 23, 5, 3


def pairs(name: str, target: Target, dtype: str) -> Iterator[Pair]:
    """What the kernel finds, and what its twin does."""
    yield from FOR_JAX[name](target, dtype) if name in FOR_JAX else _with_and_without(name, target, dtype)


def _with_and_without(name: str, target: Target, dtype: str) -> Iterator[Pair]:
    used: set[str] = set()
    find = kernels.find

    def observed(wanted: str, *arrays: Any) -> Any:
        kernel = find(wanted, *arrays)
        used.update(() if kernel is None else (wanted,))
        return kernel

    small = kernels.KERNELS[name] in kernels.FOR_SMALL
    least = mock.patch.object(kernels, "LEAST", 2**60 if small else 0)
    ready = mock.patch.object(compiling, "library", return_value=None) if small else contextlib.nullcontext()
    with mock.patch.object(kernels, "find", observed), least, ready:
        found = FOR_NUMPY[name](target, dtype)
    assert name in used, f"{name} is not used where it should be"
    with mock.patch.object(kernels, "find", return_value=None):
        expected = FOR_NUMPY[name](target, dtype)
    yield from zip(found, expected, strict=False)  # a divergence may come without the kernel only


def names_for(target: Target) -> list[str]:
    """The kernels for the target's arrays; Skip where there are none."""
    if not kernels.wanted():
        msg = "NMF_XP_KERNELS=0 leaves kernels out"
        raise Skip(msg)
    if target.is_jax:
        missing = [] if importlib.util.find_spec("jax.experimental.pallas.triton") else ["jax.experimental.pallas"]
        names = list(FOR_JAX)
    elif libraries.is_numpy(target.asarray(np.ones(1), "float32")):
        missing = [] if kernels.compiles() else ["numba"]
        missing += [] if importlib.util.find_spec("scipy") else ["scipy"]
        names = list(FOR_NUMPY)
    else:
        msg = "no kernel is for its arrays"
        raise Skip(msg)
    if missing:
        msg = f"{', '.join(missing)} not installed"
        raise Skip(msg)
    return names


def _numbers(dtype: str, *, members: int | None = None) -> tuple[np.ndarray[Any, Any], ...]:
    """Counts, half of them zeros, and factors with entries at the floor; the factors of many members, on request."""
    rng = np.random.default_rng(11)
    stack = () if members is None else (members,)
    V = rng.poisson(0.7, (ROWS, COLUMNS)).astype(dtype)
    W, H = rng.random((*stack, ROWS, RANK)) + 0.1, rng.random((*stack, RANK, COLUMNS)) + 0.1
    W, H = (np.where(rng.random(x.shape) < 0.2, _floor(dtype), x).astype(dtype) for x in (W, H))
    W[..., 0], H[..., 0, :] = 0.5, 0.5  # so that the model is above the floor
    return V, W, H


def _floor(dtype: str) -> float:
    return factor_floor(np.dtype(dtype), beta=1.0, xp=libraries.array_namespace(np.ones(1)))


def _divergence(target: Target, dtype: str) -> list[Any]:
    V, W, H = (target.asarray(x) for x in _numbers(dtype))
    data = Dense(V)
    whole = block_divergence(data, W, H, data.predict(W, H, xp=target.xp), beta=1.0, xp=target.xp)
    return [whole, data_divergence(data, W, H, beta=1.0, xp=target.xp)]


def _sparse_divergence(target: Target, dtype: str) -> list[Any]:
    V, W, H = (target.asarray(x) for x in _numbers(dtype))
    return [
        data_divergence(as_data(importlib.import_module("scipy.sparse").csr_array(V)), W, H, beta=1.0, xp=target.xp)
    ]


def _sparse_report(target: Target, dtype: str) -> list[Any]:
    """With zeros in the factors, where both are found and where W alone is."""
    values, *factors = _numbers(dtype)
    W, H = (target.asarray(np.where(x < 0.2, 0, x).astype(dtype)) for x in factors)
    data = as_data(importlib.import_module("scipy.sparse").csr_array(values)).with_both_orders()
    found: list[Any] = []
    for fixed_h in (False, True):
        seen = report(Problem(data), W, H, beta=1.0, floor=_floor(dtype), fixed_h=fixed_h, xp=target.xp)
        found.extend((seen.divergence, seen.w_slopes, *(() if fixed_h else (seen.h_slopes,)), 1.0 + seen.gap))
    return found


def _powers(name: str) -> Callable[[Target, str], list[Any]]:
    """Slopes, or the divergence, of positive counts and of a nearly exact model."""

    def work(target: Target, dtype: str) -> list[Any]:
        V, *factors = _numbers(dtype)
        W, H = (target.asarray(np.maximum(x, 0.01).astype(dtype)) for x in factors)
        found: list[Any] = []
        for near, X in ((False, target.asarray(V + 0.5)), (True, (W @ H) * (1 + 2**-10))):
            for beta in ROOTS:
                settings: Any = {"beta": beta, "xp": target.xp}
                along, down = (Dense(X), W, H), (DenseTransposed(X), operators.transposed(H), operators.transposed(W))
                if name == "power_parts":
                    found.extend((*slopes(*along, **settings), *slopes(*down, **settings)))
                elif beta > 0 or not near:  # near V, that of beta 0 is as uncertain as V's last digit makes it
                    found.extend((data_divergence(*along, **settings), data_divergence(*down, **settings)))
        return found

    return work


def _divergences(target: Target, dtype: str) -> list[Any]:
    V, W, H = (target.asarray(x) for x in _numbers(dtype, members=MEMBERS))
    return [data_divergence(Dense(V), W, H, beta=1.0, xp=target.xp)]


def _iterations(target: Target, dtype: str) -> list[Any]:
    V, W, H = (target.asarray(x) for x in _numbers(dtype, members=MEMBERS))
    solver, problem = MultiplicativeUpdate(1.0, _floor(dtype)), Problem(Dense(V))
    return list(solver.steps(solver.init(problem, W, H, xp=target.xp), problem, 2, xp=target.xp))


def _extrapolated(
    settings: Any, beta: float, count: int = 2, *, fixed_h: bool = False
) -> Callable[[Target, str], list[Any]]:
    """Iterations of a stack of small matrices, with the momentum of the next, without penalties and with.

    Of Newton's method one: in the second, rounding may decide which trial of a line search is taken.
    """

    def work(target: Target, dtype: str) -> list[Any]:
        V, W, H = (target.asarray(x) for x in _numbers(dtype, members=MEMBERS))
        solver, found = settings(beta=beta, floor=_floor(dtype), fixed_h=fixed_h), list[Any]()
        for terms in (FREE, Constraints(l1=0.5, l2=0.25)):
            problem = solver.prepare(Problem(Dense(V), terms, terms), xp=target.xp)
            state = solver.init(problem, W, H, xp=target.xp)
            found.extend(solver.steps(state, problem, count, xp=target.xp)[:5])  # factors and momentum
        return found

    return work


def _reports(target: Target, dtype: str) -> list[Any]:
    """Of a stack, a narrow and a wide matrix, for both losses, with zeros in the factors, for both and for W alone."""
    values, *factors = _numbers(dtype, members=MEMBERS)
    rng = np.random.default_rng(12)
    narrow, wide = [(400, 90, 30), (30, 90)], [(40, 2500, 12), (12, 2500)]
    cases = [(values, *factors)]
    for (m, n, r), shape in (narrow, wide):
        cases.append((rng.poisson(0.7, (m, n)), rng.random((m, r)), rng.random(shape)))
    found: list[Any] = []
    for beta, (values, *factors) in itertools.product((1.0, 2.0), cases):
        V, *start = (target.asarray(x.astype(dtype)) for x in (values, *(np.where(x < 0.2, 0, x) for x in factors)))
        for terms, fixed_h in ((FREE, False), (Constraints(l1=0.5, l2=0.25), False), (FREE, True)):
            settings: Any = {"beta": beta, "floor": _floor(dtype), "fixed_h": fixed_h, "xp": target.xp}
            seen = report(Problem(Dense(V), terms, terms), *start, **settings)
            found.extend((seen.divergence, seen.objective, seen.w_slopes, *(() if fixed_h else (seen.h_slopes,))))
            found.append(1.0 + seen.gap)  # which may be 0
    return found


def _endings(target: Target, dtype: str) -> list[Any]:
    """What is returned of a stack and of one matrix, with zeros to find, where both are found and where W alone is."""
    values, *stack = _numbers(dtype, members=MEMBERS)
    found: list[Any] = []
    for beta in (1.0, 2.0):
        for fixed_h in (False, True):
            solver = MultiplicativeUpdate(beta, _floor(dtype), fixed_h)
            for start in (stack, [x[0] for x in stack]):
                problem = Problem(Dense(target.asarray(values)))
                state = solver.steps(Factors(*map(target.asarray, start)), problem, 20, xp=target.xp)
                found.extend(returned(solver, state, problem, None, python_programs, reading=True, xp=target.xp))
    return found


def _scales(target: Target, dtype: str) -> list[Any]:
    """A stack with components that are far from balanced, and one that is zero."""
    V, W, H = _numbers(dtype, members=MEMBERS)
    W = W * np.array([512.0, 0.01, 1.0, 9.0, 1.0], dtype)
    H[:, 4, :] = 0
    factors = Factors(*map(target.asarray, (W, H)))
    return list(balanced(factors, Problem(Dense(target.asarray(V))), fixed_h=False, xp=target.xp))


def _cyclic(target: Target, dtype: str) -> list[Any]:
    """Two iterations in orders of their own, with penalties, of dense and of sparse data, and the violation met."""
    V, *factors = _numbers(dtype)
    W, H = (target.asarray(np.where(x < 0.2, 0, x).astype(dtype)) for x in factors)
    solver = CyclicDescent(2.0, 0.0, violation_tol=1e-3, orders=((4, 2, 0, 1, 3), (1, 0, 2, 4, 3), (0, 1, 2, 3, 4)))
    found: list[Any] = []
    for X in (target.asarray(V), importlib.import_module("scipy.sparse").csr_array(V)):
        for terms in (FREE, Constraints(l1=0.5, l2=0.25)):
            problem = solver.prepare(Problem(as_data(X), terms, terms), xp=target.xp)
            state = solver.init(problem, W, H, xp=target.xp)
            state = solver.steps(state, problem, 2, xp=target.xp)
            found.extend((state.W, state.H, state.first))
    return found


def _frobenius(target: Target, dtype: str) -> list[Any]:
    """Two multiplicative iterations with penalties, of dense and of sparse data."""
    V, W, H = (target.asarray(x) for x in _numbers(dtype))
    solver, found = MultiplicativeUpdate(2.0, _floor(dtype)), list[Any]()
    for X in (V, importlib.import_module("scipy.sparse").csr_array(V)):
        for terms in (FREE, Constraints(l1=0.5, l2=0.25)):
            problem = Problem(as_data(X), terms, terms)
            found.extend(solver.steps(solver.init(problem, W, H, xp=target.xp), problem, 2, xp=target.xp))
    return found


def _online(target: Target, dtype: str) -> list[Any]:
    """Two steps of online updates, without penalties and with."""
    (V, W, H), found = (target.asarray(x) for x in _numbers(dtype)), list[Any]()
    for beta, terms in ((2.0, FREE), (2.0, Constraints(l1=0.5, l2=0.25)), (1.0, FREE)):
        update = OnlineUpdate(beta, _floor(dtype), 0.7, scikit_learn=True)
        block = update.block(Problem(Dense(V), terms, terms), H, xp=target.xp)
        moved = Moved(update.init(H, xp=target.xp), W)
        for _ in range(2):
            moved = update.step(moved.state, block, moved.W, update_w=True, xp=target.xp)
        found.extend((*moved.state[:3], *moved[1:]))
    return found


def _step(
    settings: Any, beta: float = 1.0, *, sparse: bool = False, weights: str | None = None
) -> Callable[[Target, str], list[Any]]:
    """W, and H with the new W, after one iteration of a solver; without extrapolation, which is not the kernels'."""

    def work(target: Target, dtype: str) -> list[Any]:
        V, W, H = (target.asarray(x) for x in _numbers(dtype))
        data = as_data(importlib.import_module("scipy.sparse").csr_array(V)) if sparse else Dense(V)
        if weights == "of rows":
            data = with_weights(data, V[:, :1] + 1.0, absent="zero", beta=beta, xp=target.xp)
        elif weights == "of entries":
            data = with_weights(data, V**4, absent="missing" if sparse else "zero", beta=beta, xp=target.xp)
        solver, xp = settings(beta=beta, floor=_floor(dtype)), target.xp
        problem = solver.prepare(Problem(data), xp=xp)
        if not isinstance(solver, Extrapolated):
            return list(solver.step(solver.init(problem, W, H, xp=xp), problem, xp=xp))
        W, H = solver.begin(problem, W, H, xp=xp)
        share = xp.full((1, 1), 0.75, dtype=W.dtype, device=target.device)
        W = solver.half(problem.data, W, H, FREE, momentum=Momentum(0.5 * W, share), xp=xp).new
        Ht, Wt = operators.transposed(H), operators.transposed(W)
        half = solver.half(problem.data.T, Ht, Wt, FREE, momentum=Momentum(0.5 * Ht, share), measured=True, xp=xp)
        return [W, half.new, *(x for x in (half.divergence, half.ahead, *(half.changes or ())) if x is not None)]

    return work


def _dense_quotient(target: Target, dtype: str) -> Iterator[Pair]:
    yield from _dense(target, dtype, transposed=False)


def _transposed_quotient(target: Target, dtype: str) -> Iterator[Pair]:
    yield from _dense(target, dtype, transposed=True)


def _dense(target: Target, dtype: str, *, transposed: bool) -> Iterator[Pair]:
    V, W, H = _numbers(dtype)
    kernel = _kernel(target, "fused_dense", "quotient", transposed=transposed)
    V, kind = (V.T, DenseTransposed) if transposed else (V, Dense)
    found = kernel(target.asarray(V), target.asarray(W), target.asarray(H))
    yield found, unfused(kind(_wide(V)), _wide(W), _wide(H))


def _sparse_quotient(target: Target, dtype: str) -> Iterator[Pair]:
    """Along the rows, whose entries are in order, and along the columns, which find theirs by an index."""
    V, W, H = _numbers(dtype)
    data, kernel = _sparse(target, V), _kernel(target, "fused_sparse", "quotient")
    W_here, Ht_here = target.asarray(W), target.asarray(H.T)
    yield kernel(data.values, data.along, W_here, Ht_here), unfused(Dense(_wide(V)), _wide(W), _wide(H))
    found = kernel(data.values, data.across, Ht_here, W_here)
    yield found, unfused(Dense(_wide(V.T)), _wide(H.T), _wide(W.T))


def _gathered_product(target: Target, dtype: str) -> Iterator[Pair]:
    V, W, H = _numbers(dtype)
    data, kernel = _sparse(target, V), _kernel(target, "fused_sparse", "product")
    expected = (_wide(W) @ _wide(H))[V > 0]
    yield kernel(data.i, data.j, target.asarray(W), target.asarray(H.T)), expected


def _kernel(target: Target, module: str, name: str, **options: Any) -> Callable[..., Any]:
    """A kernel as the target runs it: on its GPU, or interpreted."""
    kernel = getattr(importlib.import_module(f"nmf_xp.arrays.kernels.{module}"), name)
    return target.compile(functools.partial(kernel, interpret=target.device.platform != "gpu", **options))


def _sparse(target: Target, V: np.ndarray[Any, Any]) -> Any:
    return as_data(importlib.import_module("jax.experimental.sparse").BCOO.fromdense(target.asarray(V)))


def _wide(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return x.astype(np.float64)


FOR_NUMPY: dict[str, Callable[[Target, str], list[Any]]] = {
    "kl_divergence": _divergences,
    "kl_entries": _divergence,
    "kl_half_iteration": _step(MultiplicativeUpdate),
    "kl_iterations": _iterations,
    "least_squares_rows": _step(CoordinateDescent, beta=2.0),
    "least_squares_sweeps": _step(CoordinateDescent, beta=2.0, weights="of rows"),
    "component_scales": _scales,
    "dense_ending": _endings,
    "dense_report": _reports,
    "newton_iterations": _extrapolated(Newton, 1.0, count=1),
    "newton_loadings": _extrapolated(Newton, 1.0, count=1, fixed_h=True),
    "online_components": _online,
    "online_loadings": _online,
    "coordinate_iterations": _extrapolated(CoordinateDescent, 1.0),
    "coordinate_loadings": _extrapolated(CoordinateDescent, 1.0, fixed_h=True),
    "descent_iterations": _extrapolated(CoordinateDescent, 2.0),
    "cyclic_iterations": _cyclic,
    "cyclic_sweep": _cyclic,
    "frobenius_iterations": _frobenius,
    "frobenius_rows": _frobenius,
    "small_cyclic_sweep": _cyclic,
    "weighted_dense": _step(CoordinateDescent, beta=2.0, weights="of entries"),
    "weighted_sparse": _step(CoordinateDescent, beta=2.0, sparse=True, weights="of entries"),
    "coordinate_dense": _step(CoordinateDescent),
    "coordinate_sparse": _step(CoordinateDescent, sparse=True),
    "newton_dense": _step(Newton),
    "newton_sparse": _step(Newton, sparse=True),
    "power_parts": _powers("power_parts"),
    "power_divergence": _powers("power_divergence"),
    "kl_half_iteration_sparse": _step(MultiplicativeUpdate, sparse=True),
    "kl_slopes_sparse": _sparse_report,
    "sampled_product": _sparse_divergence,
    "by_columns": _step(Newton, sparse=True),
}
FOR_JAX: dict[str, Callable[[Target, str], Iterator[Pair]]] = {
    "dense_quotient": _dense_quotient,
    "transposed_quotient": _transposed_quotient,
    "sparse_quotient": _sparse_quotient,
    "gathered_product": _gathered_product,
}
