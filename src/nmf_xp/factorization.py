"""The two entry points: validate, start, iterate, return."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp import _compat, _control
from nmf_xp.data import as_data
from nmf_xp.init import INITS, proportional_start, start
from nmf_xp.problem import Problem
from nmf_xp.result import Result
from nmf_xp.solvers import SOLVERS
from nmf_xp.updates import factor_floor
from nmf_xp.validation import (
    as_working_dtype,
    check_array,
    check_beta,
    check_callable,
    check_factor,
    check_init,
    check_integer,
    check_n_components,
    check_non_negative,
    check_one_matrix,
    check_option,
    check_shape,
    check_values,
    check_zeros,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nmf_xp._control import Progress
    from nmf_xp._typing import Array, Namespace

    Callback = Callable[[Progress], bool | None]


def nmf(
    V: Array,
    /,
    n_components: int,
    *,
    beta_loss: float | str = "frobenius",
    solver: str = "auto",
    init: str | tuple[Array, Array] = "random",
    max_iter: int = 200,
    tol: float = 1e-4,
    check_every: int = 10,
    random_state: Any = None,
    callback: Callback | None = None,
    progress: bool = False,
) -> Result:
    """Factorize a non-negative matrix, V ~ WH with W, H >= 0.

    Parameters
    ----------
    V : array, shape (m, n)
        Non-negative data of any namespace that follows the array API standard: NumPy, CuPy, JAX, torch and others.
        It is never changed. Integers and booleans are factorized in the namespace's default floating dtype,
        16-bit floats in float32.
    n_components : int
        Rank r of the factorization, from 1 to m + n.
    beta_loss : float or {"frobenius", "kullback-leibler", "itakura-saito"}, default "frobenius"
        The beta of the divergence that is decreased; the names stand for 2, 1 and 0. V must be positive for beta <= 0.
    solver : {"auto", "mu"}, default "auto"
        "mu": multiplicative updates (Lee & Seung 2001; Fevotte & Idier 2011). "auto" takes "mu".
    init : {"random", "nndsvd", "nndsvda", "nndsvdar"} or (W, H), default "random"
        The start. "random": uniform numbers, scaled so that sum(WH) = sum(V). The others: non-negative double SVD
        (Boutsidis & Gallopoulos 2008) with its zeros left, replaced by the mean of V, or by small random numbers;
        they need n_components <= min(m, n). Zeros of a start hardly move under multiplicative updates.
    max_iter : int, default 200
        Most iterations.
    tol : float, default 1e-4
        The iteration ends when the objective fell by less than `tol` times itself since the last check. With 0 it
        runs `max_iter` iterations, and without a callback or progress bar no value is read back from the device.
    check_every : int, default 10
        Iterations from one check to the next.
    random_state : None, int, numpy.random.Generator or numpy.random.RandomState
        Seed of the start. The same seed gives the same start on every backend.
    callback : callable, optional
        Called at each check as ``callback(progress)`` with the fields `iteration`, `divergence`, `W` and `H`. The run
        stops when it returns True.
    progress : bool, default False
        Show a progress bar. Needs tqdm (``pip install "nmf_xp[progress]"``).

    Returns
    -------
    Result
        The factors, of V's namespace and device, with the divergence, its history, the iterations that ran and why
        they ended.

    Raises
    ------
    TypeError
        An argument is of the wrong type: V is no array, or its dtype is complex or no number; W or H given by
        `init` differ from V in namespace, dtype or device.
    ValueError
        V has negative, missing or infinite entries, an empty axis or other than two axes, or zeros where beta <= 0;
        or an option is out of range. Values are checked where they can be read: not inside `jax.jit`.
    ImportError
        `progress` is asked for, and tqdm is not installed.

    Notes
    -----
    W is updated first, then H with the new W. Inside `jax.jit` the whole run is traced, with no callback, progress bar
    or SVD start. Data whose largest entry is far from one are scaled by a power of four for the run, and the factors
    scaled back.

    Examples
    --------
    >>> import numpy as np
    >>> from nmf_xp import nmf
    >>> V = np.random.default_rng(0).poisson(5.0, size=(20, 10))
    >>> result = nmf(V, 3, beta_loss="kullback-leibler", random_state=0)
    >>> result.W.shape, result.H.shape, result.status.name
    ((20, 3), (3, 10), 'CONVERGED')
    """
    posed = _pose(V, beta_loss, solver, max_iter, tol, check_every)
    r = check_n_components(n_components, posed.problem.data.shape)
    check_init(init, INITS)
    if not isinstance(init, str):
        shapes = (posed.problem.data.shape[-2], r), (r, posed.problem.data.shape[-1])
        W, H = (_given(f"init[{i}]", x, shapes[i], posed) for i, x in enumerate(init))
    elif init == "random" or not _compat.is_traced(V):
        W, H = start(posed.problem.data, r, init=init, random_state=random_state, xp=posed.xp)
    else:
        msg = f"`init` must be 'random' or (W, H) in a compiled function, got {init!r}, which needs the values of `V`"
        raise ValueError(msg)
    return _solve(posed, W, H, fixed_h=False, callback=callback, progress=progress)


def transform(
    V: Array,
    H: Array,
    /,
    *,
    beta_loss: float | str = "frobenius",
    solver: str = "auto",
    init: Array | None = None,
    max_iter: int = 200,
    tol: float = 1e-4,
    check_every: int = 10,
    callback: Callback | None = None,
    progress: bool = False,
) -> Result:
    """W for the rows of V with H fixed: the loadings of new rows on known components.

    Parameters
    ----------
    V : array, shape (m, n)
        Non-negative data, as for `nmf`.
    H : array, shape (r, n)
        Components, for example `nmf(...).H`, of V's namespace and device and of the dtype in which V is factorized.
    init : array, shape (m, r), optional
        The start of W. By default each row of W is constant and gives that row of WH the sum of its row of V, so that
        the answer for a row depends on no other row but through the end of the iteration.
    beta_loss, solver, max_iter, tol, check_every, callback, progress
        As for `nmf`; use the `beta_loss` with which H was found.

    Returns
    -------
    Result
        W is new; H is the array that was given.

    Raises
    ------
    TypeError, ValueError, ImportError
        As for `nmf`; ValueError also when H has no positive entry.

    Notes
    -----
    The problem is convex for 1 <= beta <= 2: W then tends to a global minimum from every positive start.

    Examples
    --------
    >>> import numpy as np
    >>> from nmf_xp import nmf, transform
    >>> V = np.random.default_rng(0).poisson(5.0, size=(20, 10))
    >>> H = nmf(V[:15], 3, beta_loss="kullback-leibler", random_state=0).H
    >>> transform(V[15:], H, beta_loss="kullback-leibler").W.shape
    (5, 3)
    """
    posed = _pose(V, beta_loss, solver, max_iter, tol, check_every)
    m, n = posed.problem.data.shape[-2:]
    check_array("H", H, min_ndim=2, max_ndim=2)
    r = H.shape[0]
    components = _given("H", H, (r, n), posed)
    if _compat.is_readable(H) and _compat.scalar(posed.xp.max(H)) == 0:
        msg = "`H` must have a positive entry, got zeros only"
        raise ValueError(msg)
    if init is None:
        W = proportional_start(posed.problem.data, posed.xp.maximum(components, posed.floor), xp=posed.xp)
    else:
        W = _given("init", init, (m, r), posed)
    result = _solve(posed, W, components, fixed_h=True, callback=callback, progress=progress)
    return dataclasses.replace(result, H=H)


class _Posed(NamedTuple):
    """A validated problem, in the units in which it is solved: V = 4^exponent times the data."""

    problem: Problem
    xp: Namespace
    beta: float
    floor: float
    method: str
    schedule: _control.Schedule
    exponent: int

    def restore_factor(self, x: Array) -> Array:
        """A factor in V's own units."""
        return x * 2.0**self.exponent if self.exponent else x

    def restore_divergence(self, x: Any) -> Any:
        """A divergence in V's own units; beyond the range of float64 it is infinite."""
        if not self.exponent:
            return x
        root = 2.0 ** max(-1074.0, min(1023.0, self.exponent * self.beta))
        return float(x) * root * root


def _pose(V: Any, beta_loss: float | str, solver: str, max_iter: int, tol: float, check_every: int) -> _Posed:
    """Validate all that `nmf` and `transform` have in common."""
    beta = check_beta(beta_loss)
    method = check_option("solver", solver, ("auto", *SOLVERS))
    schedule = _control.Schedule(
        check_integer("max_iter", max_iter, minimum=1),
        check_non_negative("tol", tol),
        check_integer("check_every", check_every, minimum=1),
    )
    data = as_data(V)
    check_one_matrix("V", data.shape)
    V = data.values
    xp = _compat.array_namespace(V)
    V = as_working_dtype("V", V, xp=xp)
    exponent = 0
    if _compat.is_readable(V):
        low, high = check_values("V", V, xp=xp)
        check_zeros(low, beta)
        exponent = _exponent(high, V.dtype, beta, xp=xp)
    if exponent:
        V = V * 2.0**-exponent * 2.0**-exponent
    floor = factor_floor(V.dtype, beta=beta, xp=xp)
    method = "mu" if method == "auto" else method
    return _Posed(Problem(data.with_values(V)), xp, beta, floor, method, schedule, exponent)


def _exponent(largest: float, dtype: Any, beta: float, *, xp: Namespace) -> int:
    """The k of the factor 4^-k by which V is scaled: 0 unless V's powers come near overflow or the factors' floor."""
    range_of_dtype = math.log2(float(xp.finfo(dtype).max))
    if largest == 0 or abs(math.log2(largest)) <= range_of_dtype / (8 * max(1.0, abs(beta))):
        return 0
    return math.floor(math.log2(largest) / 2)


def _given(name: str, factor: Any, shape: tuple[int, int], posed: _Posed) -> Array:
    """A factor from the user, checked, in the problem's units."""
    xp = check_array(name, factor, min_ndim=2, max_ndim=2)
    check_factor(name, factor, posed.problem.data.values)
    check_shape(name, factor, shape)
    if _compat.is_readable(factor):
        check_values(name, factor, xp=xp)
    return factor * 2.0**-posed.exponent if posed.exponent else factor


def _solve(posed: _Posed, W: Array, H: Array, *, fixed_h: bool, callback: Callback | None, progress: bool) -> Result:
    """Iterate, and put the outcome into V's own units."""
    xp = posed.xp
    W, H = xp.maximum(W, posed.floor), xp.maximum(H, posed.floor)
    solver = SOLVERS[posed.method](beta=posed.beta, floor=posed.floor, fixed_h=fixed_h)
    with _observer(posed, callback, progress) as observe:
        outcome = _control.run(solver, posed.problem, W, H, schedule=posed.schedule, observe=observe, xp=xp)
    history = outcome.history
    if isinstance(history, tuple):
        history = tuple(posed.restore_divergence(x) for x in history)
    return Result(
        W=posed.restore_factor(outcome.W),
        H=posed.restore_factor(outcome.H),
        solver=posed.method,
        beta=posed.beta,
        _divergence=posed.restore_divergence(outcome.objective),
        _history=history,
        _n_iter=outcome.n_iter,
        _status=outcome.status,
        _kkt_residual=outcome.kkt_residual,
    )


@contextlib.contextmanager
def _observer(posed: _Posed, callback: Callback | None, progress: bool) -> Iterator[Callable[[Progress], bool] | None]:
    """What the loop calls at each check: the progress bar and the user's callback; None for neither."""
    check_callable("callback", callback)
    if callback is None and not progress:
        yield None
        return
    if _compat.is_traced(posed.problem.data.values):
        msg = "`callback` and `progress` must be left out in a compiled function, where nothing can be observed"
        raise ValueError(msg)
    bar = _progress_bar(posed.schedule.max_iter) if progress else None

    def observe(seen: Progress) -> bool:
        divergence = posed.restore_divergence(seen.divergence)
        if bar is not None:
            bar.update(seen.iteration - bar.n)
            bar.set_postfix(divergence=f"{divergence:.6g}")
        if callback is None:
            return False
        W, H = posed.restore_factor(seen.W), posed.restore_factor(seen.H)
        return bool(callback(seen._replace(divergence=divergence, W=W, H=H)))

    try:
        yield observe
    finally:
        if bar is not None:
            bar.close()


def _progress_bar(total: int) -> Any:
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        msg = '`progress=True` needs tqdm: pip install "nmf_xp[progress]"'
        raise ImportError(msg) from error
    return tqdm(total=total, unit="it", desc="nmf")
