"""The two entry points: validate, start, iterate, return."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp import _compat, _control, _faults
from nmf_xp._ending import Asked
from nmf_xp.checkpoint import Checkpoint
from nmf_xp.data.blocks import Blockwise
from nmf_xp.data.grid import Grid
from nmf_xp.data.hidden import missed_columns, supports, without_unreachable
from nmf_xp.data.kinds import Kind, kind_of, settled
from nmf_xp.init import INITS, proportional_start, start
from nmf_xp.posing import Posed, pose
from nmf_xp.problem import Factors
from nmf_xp.result import Result
from nmf_xp.solvers import BY_KIND, LOSSES, OPTIONS, SOLVERS, automatic
from nmf_xp.solvers.grid import GridUpdate
from nmf_xp.validation import (
    check_array,
    check_beta,
    check_callable,
    check_columns,
    check_components,
    check_init,
    check_integer,
    check_n_components,
    check_non_negative,
    check_option,
    check_penalties,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator

    from nmf_xp._control import Progress
    from nmf_xp._typing import Array, Namespace
    from nmf_xp.data.sources import RowBlocks
    from nmf_xp.problem import Constraints, Problem
    from nmf_xp.solvers import Solver

    Callback = Callable[[Progress], bool | None]


@_faults.explained
@_compat.on_data
def nmf(
    V: Array | RowBlocks,
    /,
    n_components: int,
    *,
    beta_loss: float | str = "frobenius",
    solver: str | tuple[str, dict[str, Any]] = "auto",
    init: str | tuple[Array, Array] = "random",
    weights: Array | None = None,
    missing: str | None = None,
    absent: str = "zero",
    alpha_W: float = 0.0,
    alpha_H: float | str = "same",
    l1_ratio: float = 0.0,
    fixed_w: Array | None = None,
    fixed_h: Array | None = None,
    upper_w: float | Array | None = None,
    upper_h: float | Array | None = None,
    normalize: str | None = None,
    n_restarts: int = 1,
    keep_restarts: bool = False,
    max_iter: int = 200,
    tol: float = 1e-4,
    check_every: int = 10,
    random_state: Any = None,
    callback: Callback | None = None,
    progress: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 100,
) -> Result:
    """Factorize a non-negative matrix, V ~ WH with W, H >= 0.

    Parameters
    ----------
    V : array, shape (..., m, n)
        A non-negative matrix, or a stack of them to be factorized each for itself, of any namespace that follows the
        array API standard: NumPy, CuPy, JAX, torch and others; or one sparse matrix of SciPy, CuPy, torch, JAX or
        pydata. An HDF5 dataset, a zarr array, backed AnnData, `RowBlocks`, and a memory map that does not fit in memory
        are read block by block in every iteration; a dask array stays where it is. V is never changed. Integers and
        booleans are factorized in the namespace's default floating dtype, 16-bit floats in float32.
    n_components : int
        Rank r of the factorization, from 1 to m + n.
    beta_loss : float or {"frobenius", "kullback-leibler", "itakura-saito"}, default "frobenius"
        The beta of the divergence that is decreased; the names stand for 2, 1 and 0. V must be positive for beta <= 0.
    solver : {"auto", "mu", "mm", "newton", "cd", "cd-plain", "online"} or (name, options), default "auto"
        None of them but "online" raises the objective.

        - "mu": multiplicative updates (Lee & Seung 2001; Fevotte & Idier 2011), for every loss.
        - "mm": three majorise-minimise updates an iteration, accelerated by SQUAREM (Varadhan & Roland 2008), for
          every loss.
        - "newton": Newton's method for all rows at once, for Kullback-Leibler; three multiplicative updates come first.
        - "cd": coordinate descent, for Frobenius (Cichocki & Phan 2009; Gillis & Glineur 2012) and Kullback-Leibler
          (Hsieh & Dhillon 2011). It and "newton" extrapolate (Ang & Gillis 2019).
        - "cd-plain": scikit-learn's "cd", for Frobenius: one sweep an iteration, without extrapolation, and with exact
          zeros. Options: `violation_tol`, to end also where the violation of the optimality conditions, summed over
          an iteration, is at most so many times that of the first one; `orders`, permutations of the components in
          which one half-iteration after the other visits them, repeated where they end.
        - "online": multiplicative updates from one batch of rows after the other (Lefevre, Bach & Fevotte 2011), for
          every loss: for more rows than a solver needs to see between two updates of H. An iteration is a pass over V;
          the objective may rise. Options: `batch_size`, 1024 by default, where no batch goes beyond a block of data
          that are read block by block; `forget_factor` from 0 to 1, by default 0.7, what is left of the past after a
          pass.
        - "mu" and "cd-plain" have the option `polish`: False returns the factors as the last iteration left them, in
          the scale of their start.
        - "auto": "newton" for Kullback-Leibler, "cd" for Frobenius, "mm" for all else and for data that are read block
          by block, "mu" for dask arrays; on a GPU "mm" for Kullback-Leibler, by count of passes over V, as no time was
          measured on one. `result.solver` says which.
    init : {"random", "nndsvd", "nndsvda", "nndsvdar"} or (W, H), default "random"
        The start. "random": uniform numbers, scaled so that sum(WH) = sum(V). The others: non-negative double SVD
        (Boutsidis & Gallopoulos 2008) with its zeros left, replaced by sqrt(mean(V) / r), or by random numbers of a
        hundredth of that; they need n_components <= min(m, n). Zeros of a start hardly move under multiplicative
        updates.
    weights : array, optional
        Non-negative weights of the entries, real or boolean, of V's shape or broadcasting to it. An entry of weight 0
        is unobserved: what stands there in V is not read. A row or column with nothing observed gets the least
        possible factor, which is 0 for all practical purposes.
    missing : {None, "nan"}, default None
        "nan": NaN in V means unobserved. By default it is an error.
    absent : {"zero", "missing"}, default "zero"
        What the entries are that a sparse V does not store: zeros, or unobserved.
    alpha_W, alpha_H : float, default 0; alpha_H may be "same"
        Strength of the penalty on W and on H, in scikit-learn's scaling: the objective is
        D(V | WH) + n alpha_W [l1_ratio sum(W) + (1 - l1_ratio)/2 sum(W^2)] and likewise m alpha_H for H.
    l1_ratio : float from 0 to 1, default 0
        Share of the L1 penalty; the rest is L2.
    fixed_w, fixed_h : boolean array, optional
        Entries of W (m, r) and H (r, n), or of a shape that broadcasts to it, that keep the value they have in
        ``init=(W, H)``: known components, partly known profiles, a background column.
    upper_w, upper_h : float or array, optional
        Upper bounds on the entries of W and H.
    normalize : {None, "W", "H"}, default None
        "W": in the result each column of W sums to 1, and "H": each row of H; the other factor takes the scale, so that
        WH stays. Refused with bounds, fixed entries and penalties.
    n_restarts : int, default 1
        Random starts of one V, run together as a stack of which each member ends for itself. The best is returned, and
        the first is that of a single run. A stack of starts ``init=(W, H)``, (k, m, r) and (k, r, n), is run likewise.
    keep_restarts : bool, default False
        Keep the factors of all restarts in ``result.restarts``, not only their divergences.
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
    checkpoint : path, optional
        A file, .npz, .safetensors or .zarr, in which the run keeps its position, and from which the same call goes on
        where it was interrupted, to the same last bit. `max_iter` and, for one matrix, `tol` may differ then; all that
        defines the problem must not. See :doc:`/checkpoints`.
    checkpoint_every : int, default 100
        Iterations from one checkpoint to the next; it is written at the first check that comes to that many. With
        ``tol=0`` it is written no more often than every `check_every` iterations either.

    Returns
    -------
    Result
        The factors, of V's namespace and device, with the divergence, its history, the iterations that ran and why
        they ended. Column k of W and row k of H have norms within a factor of two of each other, unless a penalty, a
        bound or a fixed entry decides their scale. Entries that the data do not ask for are exactly 0. For a dask
        array W is one too, and H a NumPy array.

    Raises
    ------
    TypeError
        An argument is of the wrong type: V is no array, or its dtype is complex or no number; W or H given by
        `init` differ from V in namespace, dtype or device.
    ValueError
        V has negative, missing or infinite entries, an empty axis or other than two axes, or zeros where beta <= 0;
        or an option is out of range. Values are checked where they can be read: not inside `jax.jit`.
    ImportError
        `progress` is asked for, and tqdm is not installed; or the library of a checkpoint's format is not.
    CheckpointError
        The checkpoint is damaged or of another run, or cannot be written.

    Notes
    -----
    W is updated first, then H with the new W. Inside `jax.jit` the whole run is traced, with no callback, progress bar
    or SVD start. Where V, its weights or the start are far from one, they are scaled by powers of two for the run, and
    the factors scaled back: a common factor of V or of the weights changes nothing but the scale of the answer.

    Examples
    --------
    >>> import numpy as np
    >>> from nmf_xp import nmf
    >>> V = np.random.default_rng(0).poisson(5.0, size=(20, 10))
    >>> result = nmf(V, 3, beta_loss="kullback-leibler", random_state=0, max_iter=1000)
    >>> result.W.shape, result.H.shape, result.status.name
    ((20, 3), (3, 10), 'CONVERGED')
    """
    V = settled(V)
    beta, settings, schedule = _settings(V, beta_loss, solver, max_iter, tol, check_every)
    n_restarts = check_integer("n_restarts", n_restarts, minimum=1)
    _check_kind(kind_of(V), n_restarts, init)
    record = None if checkpoint is None else Checkpoint(checkpoint, checkpoint_every, random_state)
    posed = pose(V, beta=beta, weights=weights, missing=missing, absent=absent)
    m, n = posed.shape
    r = check_n_components(n_components, posed.shape)
    check_init(init, INITS, r, posed.shape)
    if n_restarts > 1 and (posed.stack or init != "random" or not _compat.is_readable(posed.values)):
        msg = (
            "`n_restarts` above 1 needs one matrix V, init='random' and values that can be read, "
            f"got V of shape {posed.stack + posed.shape} and init={init if isinstance(init, str) else '(W, H)'!r}; "
            "give a stack of starts `init=(W, H)` instead"
        )
        raise ValueError(msg)
    if isinstance(init, str) and not (fixed_w is None and fixed_h is None):
        msg = f"`fixed_w` and `fixed_h` need the values to keep: give `init=(W, H)`, got init={init!r}"
        raise ValueError(msg)
    if not isinstance(init, str):
        posed = posed.suited(*init)
    alphas = check_penalties(alpha_W, alpha_H, l1_ratio)
    constraints = (
        posed.constraints("W", (m, r), alpha=n * alphas[0], l1_ratio=l1_ratio, fixed=fixed_w, upper=upper_w),
        posed.constraints("H", (r, n), alpha=m * alphas[1], l1_ratio=l1_ratio, fixed=fixed_h, upper=upper_h),
    )
    if normalize is not None:
        check_option("normalize", normalize, ("W", "H"))
        if any(c.fixed is not None or c.upper is not None for c in constraints):
            msg = (
                f"`normalize` must be None with fixed entries or upper bounds, which it would break, got {normalize!r}"
            )
            raise ValueError(msg)
        if any(c.l1 is not None or c.l2 is not None for c in constraints):
            msg = (
                "`normalize` must be None with penalties, which decide the scale of the factors and would be others "
                f"after it, got {normalize!r}; divide the returned W and H yourself"
            )
            raise ValueError(msg)
    posed = posed._replace(problem=posed.problem._replace(w=constraints[0], h=constraints[1]))
    if not isinstance(init, str):
        given = [posed.factor(f"init[{i}]", x, "WH"[i], r) for i, x in enumerate(init)]
    elif init == "random" or _compat.is_readable(posed.values):
        members = posed.members if n_restarts == 1 else n_restarts
        given = start(posed.problem.data, r, init=init, random_state=random_state, members=members, xp=posed.xp)
    else:
        msg = f"`init` must be 'random' or (W, H) in a compiled function, got {init!r}, which needs the values of `V`"
        raise ValueError(msg)
    restarted = not posed.stack and any(x.ndim > 2 for x in given)
    settings = settings._replace(init=init if isinstance(init, str) else None)
    result = _solve(posed, given, settings, schedule, record, callback=callback, progress=progress)
    if normalize is not None:
        result = _normalized(result, normalize, xp=posed.xp)
    return _best(result, keep_factors=keep_restarts) if restarted else result


@_faults.explained
@_compat.on_data
def transform(
    V: Array | RowBlocks,
    H: Array,
    /,
    *,
    beta_loss: float | str = "frobenius",
    solver: str | tuple[str, dict[str, Any]] = "auto",
    init: Array | None = None,
    weights: Array | None = None,
    missing: str | None = None,
    absent: str = "zero",
    alpha_W: float = 0.0,
    l1_ratio: float = 0.0,
    fixed_w: Array | None = None,
    upper_w: float | Array | None = None,
    max_iter: int = 200,
    tol: float = 1e-4,
    check_every: int = 10,
    callback: Callback | None = None,
    progress: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 100,
) -> Result:
    """W for the rows of V with H fixed: the loadings of new rows on known components.

    Parameters
    ----------
    V : array, shape (..., m, n)
        Non-negative data, as for `nmf`.
    H : array, shape (r, n) or (..., r, n)
        Components, for example `nmf(...).H`, of V's namespace and device and of the dtype in which V is factorized; one
        set for all of V, or a stack like V's, or a stack of several for one V.
    init : array, shape (m, r), optional
        The start of W. By default each row of W is constant and gives that row of WH the sum of its row of V, so that
        the answer for a row depends on no other row but through the end of the iteration.
    fixed_w : boolean array, optional
        Entries of W that keep the value they have in `init`.
    beta_loss, solver, weights, missing, absent, alpha_W, l1_ratio, upper_w : optional
        As for `nmf`.
    max_iter, tol, check_every, callback, progress, checkpoint, checkpoint_every : optional
        As for `nmf`; use the `beta_loss` with which H was found.

    Returns
    -------
    Result
        W is new; H is the array that was given.

    Raises
    ------
    TypeError, ValueError, ImportError, CheckpointError
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
    V = settled(V)
    beta, settings, schedule = _settings(V, beta_loss, solver, max_iter, tol, check_every, convex=True)
    if settings.method == "online":
        msg = "`solver` must be one that finds W alone, got 'online', which learns H; leave it out"
        raise ValueError(msg)
    record = None if checkpoint is None else Checkpoint(checkpoint, checkpoint_every)
    posed = pose(V, beta=beta, weights=weights, missing=missing, absent=absent)
    m, n = posed.shape
    check_array("H", H, min_ndim=2)
    check_columns((*posed.stack, *posed.shape), H)
    r = H.shape[-2]
    posed = posed.suited(init, H, fixed_h=True)
    components = posed.factor("H", H, "H", r)
    if _compat.is_readable(H):
        check_components(H, xp=posed.xp)
    if init is not None:
        W = posed.factor("init", init, "W", r)
    elif fixed_w is None:
        W = proportional_start(posed.problem.data, components, xp=posed.xp)
    else:
        msg = "`fixed_w` needs the values to keep: give `init=W`, got init=None"
        raise ValueError(msg)
    alpha = check_penalties(alpha_W, 0.0, l1_ratio)[0]
    w = posed.constraints("W", (m, r), alpha=n * alpha, l1_ratio=l1_ratio, fixed=fixed_w, upper=upper_w)
    posed = posed._replace(problem=posed.problem._replace(w=w))
    settings = settings._replace(fixed_h=True)
    result = _solve(posed, [W, components], settings, schedule, record, callback=callback, progress=progress)
    if result.W.ndim > 2:
        H = posed.xp.broadcast_to(H, (*result.W.shape[:-2], r, n))
    return dataclasses.replace(result, H=H)


def _settings(
    V: Any,
    beta_loss: float | str,
    solver: Any,
    max_iter: int,
    tol: float,
    check_every: int,
    *,
    convex: bool = False,
) -> tuple[float, _Settings, _control.Schedule]:
    """Validate what depends on V's type at most; a `convex` problem, W alone, has one solver on all devices."""
    beta = check_beta(beta_loss)
    pair = isinstance(solver, tuple) and len(solver) == 2 and isinstance(solver[1], dict)
    solver, options = solver if pair else (solver, {})
    method = check_option("solver", solver, ("auto", *SOLVERS))
    schedule = _control.Schedule(
        check_integer("max_iter", max_iter, minimum=1),
        check_non_negative("tol", tol),
        check_integer("check_every", check_every, minimum=1),
    )
    kind = kind_of(V)
    method = automatic(beta, kind, on_gpu=not convex and _compat.on_gpu(V)) if method == "auto" else method
    if method not in BY_KIND.get(kind, SOLVERS):
        msg = (
            f"`solver` must be one of {sorted(('auto', *BY_KIND[kind]))} for data that are {kind.value}, "
            f"got {solver!r}, which takes V in memory only"
        )
        raise ValueError(msg)
    if beta not in LOSSES.get(method, (beta,)):
        losses = " or ".join(f"{loss:g}" for loss in LOSSES[method])
        msg = f"`solver={method!r}` needs a `beta_loss` of {losses}, got {beta:g}; solver='auto' takes one that fits"
        raise ValueError(msg)
    for option in options:
        if option not in OPTIONS.get(method, ()):
            known = ", ".join(OPTIONS.get(method, ())) or "none"
            msg = f"The options of `solver` {method!r} must be among its own, {known}, got {option!r}"
            raise ValueError(msg)
    if options.get("violation_tol") is not None:
        check_non_negative("violation_tol", options["violation_tol"])
    if "batch_size" in options:
        options = {**options, "batch_size": check_integer("batch_size", options["batch_size"], minimum=1)}
    if "forget_factor" in options and check_non_negative("forget_factor", options["forget_factor"]) > 1:
        msg = f"`forget_factor` must be from 0 to 1, got {options['forget_factor']}"
        raise ValueError(msg)
    return beta, _Settings(method, tuple(options.items())), schedule


def _check_kind(kind: Kind, n_restarts: int, init: Any) -> None:
    """Refuse what needs V in memory before a pass over V is spent on it."""
    if n_restarts > 1 and kind is not Kind.WHOLE:
        msg = (
            f"`n_restarts` must be 1 for data that are {kind.value}, got {n_restarts}; "
            "call `nmf` with several values of `random_state`"
        )
        raise ValueError(msg)
    if kind is Kind.GRID and isinstance(init, str) and init != "random":
        msg = f"`init` must be 'random' or (W, H) for dask arrays, got {init!r}"
        raise ValueError(msg)


class _Settings(NamedTuple):
    """Which solver, which factors it updates, and from which start where that was not given."""

    method: str
    options: tuple[tuple[str, Any], ...] = ()
    fixed_h: bool = False
    init: str | None = None


def _solve(
    posed: Posed,
    start: list[Array],
    settings: _Settings,
    schedule: _control.Schedule,
    record: Checkpoint | None,
    *,
    callback: Callback | None,
    progress: bool,
) -> Result:
    """Iterate from W and H in `start`, which is emptied, and put the outcome into V's own units."""
    xp, problem = posed.xp, posed.problem
    settings_of_solver = {
        "beta": posed.beta,
        "floor": posed.floor,
        "fixed_h": settings.fixed_h,
        **dict(settings.options),
    }
    make = GridUpdate if isinstance(problem.data, Grid) else SOLVERS[settings.method]
    solver = make(**settings_of_solver)
    start[:] = _same_stack(*start, xp=xp)
    if record is not None:
        function = "transform" if settings.fixed_h else "nmf"
        named = " ".join((settings.method, *(f"{name}={value}" for name, value in settings.options)))
        record.identify(posed, start, schedule, function=function, solver=named, init=settings.init)
    asked, problem = _begin(problem, start, solver, xp=xp)
    options: Any = {"schedule": schedule, "recorder": record, "asked": asked}
    options["second"] = _second(posed, settings, solver)
    with _observer(posed, schedule, callback, progress) as observe, record or contextlib.nullcontext():
        outcome = _control.run(solver, problem, start, observe=observe, **options, xp=xp)
    if asked is not None and asked.missed and float("inf") in _compat.to_host(outcome.divergence).ravel():
        msg = (
            f"no component is positive in column {asked.missed} of V, so nothing explains what stands there and the "
            "divergence is infinite; the other columns are fitted as if these were missing"
        )
        warnings.warn(msg, stacklevel=3)
    W, H = (posed.restore_factor(which, x) for which, x in zip("WH", (outcome.W, outcome.H), strict=True))
    if len(posed.stack) > 1:
        W, H = (xp.reshape(x, (*posed.stack, *x.shape[-2:])) for x in (W, H))
    history = outcome.history
    if isinstance(history, tuple) and any(posed.units):
        restore = posed.restore_divergence
        history = tuple(restore(x) if isinstance(x, float) else tuple(map(restore, x)) for x in history)
    return Result(
        W=W,
        H=H,
        solver=settings.method,
        beta=posed.beta,
        _divergence=posed.restore_divergence(outcome.divergence),
        _objective=posed.restore_divergence(outcome.objective),
        _history=history,
        _n_iter=outcome.n_iter,
        _status=outcome.status,
        _kkt_residual=outcome.kkt_residual,
    )


def _second(posed: Posed, settings: _Settings, solver: Solver) -> Solver | None:
    """The solver that is asked whether a run has converged: what `auto` takes, where that is another one.

    For W alone there are bounds instead.
    """
    method = automatic(posed.beta)
    if settings.fixed_h or method == settings.method or isinstance(posed.problem.data, Grid | Blockwise):
        return None
    return SOLVERS[method](beta=posed.beta, floor=posed.floor) if solver.polish and not solver.has_rule else None


def _begin(problem: Problem, start: list[Array], solver: Solver, *, xp: Namespace) -> tuple[Asked | None, Problem]:
    """Raise the factors in `start` to the solver's floor, where their entries are not given, and bounds below it too.

    Entries that are fixed and the H of `transform` stay as they are. What their zeros leave without a model is not in
    the problem that is solved. Where that is another one than what was asked for, the latter comes back beside it.
    """
    given, asked = Factors(*start), problem
    w, h, low = *(_above_floor(c, solver.floor, xp=xp) for c in (problem.w, problem.h)), None
    if w is not None or h is not None:
        low = Asked(asked, given)
        problem = problem._replace(w=w or problem.w, h=h or problem.h)
    fixed = problem.w.fixed, None if solver.fixed_h else problem.h.fixed
    raised = [_compat.at_least(x, solver.floor, xp=xp) for x in given]
    start[:] = [c.enforce(new, x, xp=xp) for new, x, c in zip(raised, given, (problem.w, problem.h), strict=True)]
    if solver.beta == 2:  # nothing is divided by the model
        start[1] = given.H if solver.fixed_h else start[1]
        return low, problem
    if not (solver.fixed_h or any(x is not None for x in fixed)):
        return low, problem
    if not _compat.is_readable(given.H):  # in a compiled function the floor has to stand for zeros
        start[:] = raised
        return Asked(asked, given), problem
    W, H = start[0], given.H if solver.fixed_h else start[1]
    least = float(xp.finfo(H.dtype).smallest_normal) / solver.floor
    found = supports(None if fixed[0] is None else W, H, least=least, xp=xp)
    start[1] = H
    if found is None:
        return low, problem
    reached = found[0] @ found[1]
    rows, columns = (xp.min(reached, axis=axis, keepdims=True) == 0 for axis in (-1, -2))
    start[0] = xp.where(xp.logical_and(rows, W <= least), raised[0], W)
    start[1] = xp.where(xp.logical_and(columns, H <= least), raised[1], H)
    data = without_unreachable(problem.data, *found, beta=solver.beta, xp=xp)
    missed = missed_columns(*found, xp=xp) if fixed[0] is None else None  # what the user fixed needs no word
    return Asked(asked, given, missed), problem._replace(data=data)


def _above_floor(constraints: Constraints, floor: float, *, xp: Namespace) -> Constraints | None:
    """The constraints with no bound below the floor, None where there is none to raise."""
    upper = constraints.upper
    if upper is None or (_compat.is_readable(upper) and _compat.scalar(xp.min(upper)) >= floor):
        return None
    return constraints._replace(upper=_compat.at_least(upper, floor, xp=xp))


def _same_stack(W: Array, H: Array, *, xp: Namespace) -> tuple[Array, Array]:
    """Both factors as stacks where one of them is a stack."""
    stacks = {x.shape[:-2] for x in (W, H) if x.ndim > 2}
    if len(stacks) > 1:
        msg = f"The stacks of `W` and `H` must have the same length, got shapes {tuple(W.shape)} and {tuple(H.shape)}"
        raise ValueError(msg)
    for stack in stacks:
        W, H = (xp.broadcast_to(x, (*stack, *x.shape[-2:])) for x in (W, H))
    return W, H


def _best(restarts: Result, *, keep_factors: bool) -> Result:
    """The restart with the least objective, carrying all of them."""
    objectives = [x if x == x else float("inf") for x in restarts.objective.tolist()]
    best = restarts[objectives.index(min(objectives))]
    if not keep_factors:
        restarts = dataclasses.replace(restarts, W=restarts.W[:0, ...], H=restarts.H[:0, ...])
    return dataclasses.replace(best, restarts=restarts)


def _normalized(result: Result, which: str, *, xp: Namespace) -> Result:
    """The same product with the columns of W, or the rows of H, summing to 1."""
    W, H = result.W, result.H
    if which == "W":
        sums = _or_one(_compat.computed(xp.sum(W, axis=-2, keepdims=True)), xp=xp)
        return dataclasses.replace(result, W=W / sums, H=H * _compat.transposed(sums))
    sums = _or_one(xp.sum(H, axis=-1, keepdims=True), xp=xp)
    return dataclasses.replace(result, W=W * _compat.transposed(sums), H=H / sums)


def _or_one(sums: Array, *, xp: Namespace) -> Array:
    """The sums, and 1 for a component that is zero."""
    return xp.where(sums > 0, sums, 1.0)


@contextlib.contextmanager
def _observer(
    posed: Posed, schedule: _control.Schedule, callback: Callback | None, progress: bool
) -> Iterator[Callable[[Progress], bool] | None]:
    """What the loop calls at each check: the progress bar and the user's callback; None for neither."""
    check_callable("callback", callback)
    if callback is None and not progress:
        yield None
        return
    if _compat.is_traced(posed.values):
        msg = "`callback` and `progress` must be left out in a compiled function, where nothing can be observed"
        raise ValueError(msg)
    bar = progress_bar(schedule.max_iter) if progress else None

    def observe(seen: Progress) -> bool:
        stacked = isinstance(seen.divergence, tuple)
        values = [posed.restore_divergence(x) for x in (seen.divergence if stacked else (seen.divergence,))]
        if bar is not None:
            bar.update(seen.iteration - bar.n)
            bar.set_postfix(divergence=f"{min(values):.6g}")  # of several, the least so far
        if callback is None:
            return False
        W, H = posed.restore_factor("W", seen.W), posed.restore_factor("H", seen.H)
        divergence = tuple(values) if stacked else values[0]
        return bool(callback(seen._replace(divergence=divergence, W=W, H=H)))

    try:
        yield observe
    finally:
        if bar is not None:
            bar.close()


def progress_bar(total: int, *, unit: str = "it", what: str = "nmf") -> Any:
    """A bar of tqdm's, which must be installed."""
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        msg = '`progress=True` needs tqdm: pip install "nmf_xp[progress]"'
        raise ImportError(msg) from error
    return tqdm(total=total, unit=unit, desc=what)
