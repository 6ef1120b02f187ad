"""The two entry points: validate, start, iterate, return."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from nmf_xp.arrays import faults, libraries, precision
from nmf_xp.arrays.checks import check_array
from nmf_xp.data.checks import check_columns, check_components
from nmf_xp.data.kinds import kind_of, settled
from nmf_xp.problem.checks import (
    check_init,
    check_n_components,
    check_normalize,
    check_penalties,
    check_restarts,
    check_start,
)
from nmf_xp.problem.completing import completed
from nmf_xp.problem.posing import pose
from nmf_xp.problem.starts import INITS, first_factors, proportional_start
from nmf_xp.problem.terms import asked_of
from nmf_xp.result import Result, best_of, normalized
from nmf_xp.run.checkpoint import Checkpoint
from nmf_xp.run.door import door
from nmf_xp.run.members import by_members, check_together
from nmf_xp.run.position import check_schedule
from nmf_xp.run.solve import solve
from nmf_xp.solvers.choice import chosen

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Hashable, Sequence

    from nmf_xp.arrays.typing import Array
    from nmf_xp.problem.overdispersed import NegativeBinomial
    from nmf_xp.problem.posing import Posed
    from nmf_xp.problem.robust import Robust
    from nmf_xp.problem.terms import Term
    from nmf_xp.run.position import Progress

    Callback = Callable[[Progress], bool | None]


@door
@faults.explained
@precision.on_data
@by_members
def nmf(
    V: Any,
    /,
    n_components: int,
    *,
    beta_loss: float | str | Robust | NegativeBinomial = "frobenius",
    solver: str | tuple[str, dict[str, Any]] = "auto",
    init: str | tuple[Array | None, Array | None] = "random",
    weights: Array | None = None,
    exposure: Array | None = None,
    batch: Any = None,
    batch_prior: float = 0.0,
    missing: str | None = None,
    absent: str = "zero",
    layer: str | None = None,  # noqa: ARG001 - the door takes it
    alpha_W: float = 0.0,
    alpha_H: float | str = "same",
    l1_ratio: float = 0.0,
    fixed_w: Array | None = None,
    fixed_h: Array | None = None,
    upper_w: float | Array | None = None,
    upper_h: float | Array | None = None,
    w: Sequence[Term] = (),
    h: Sequence[Term] = (),
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
        are read block by block in every iteration; a dask array stays where it is. Or a table of numbers, whose names
        the result has: of pandas, polars, pyarrow, an xarray.DataArray, AnnData or its `raw`, or lists of lists. See
        :doc:`/how-to/tables`. V is never changed. Integers and
        booleans are factorized in the namespace's default floating dtype, 16-bit floats in float32.
    n_components : int
        Rank r of the factorization, from 1 to m + n.
    beta_loss : float, {"frobenius", "kullback-leibler", "itakura-saito"}, Robust or NegativeBinomial, optional
        The beta of the divergence that is decreased, by default 2; the names stand for 2, 1 and 0. V must be positive
        for beta <= 0.
        With `Robust` a few wrong entries or rows of V do not rule the fit; for entries V is then dense, or sparse with
        absent="missing". `NegativeBinomial` is for counts that vary more than Poisson's, "negative-binomial" is
        `NegativeBinomial()`.
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
        updates. ``(None, H)`` and ``(W, None)`` draw the factor that is missing; with a `checkpoint` they need a
        `random_state`.
    weights : array, optional
        Non-negative weights of the entries, real or boolean, of V's shape or broadcasting to it. An entry of weight 0
        is unobserved: what stands there in V is not read. A row or column with nothing observed gets the least
        possible factor, which is 0 for all practical purposes.
    exposure : array, optional
        A known positive factor of each entry, of V's shape or broadcasting to it, of V's namespace and device: the
        model is exposure * WH (sequencing depth, opportunities, the efficiency of a detector). One number for each row
        is absorbed by W, and changes WH only where W is penalised or bounded. Beside `batch`, numbers for each batch
        and column are absorbed by the effects likewise, and change the fit only with a `batch_prior`.
    batch : array-like, shape (m,) or (..., m), or several (m,), optional
        The label of each row's batch: text, numbers, a column of a table; the members of a stack share them or have
        their own. Of several vectors, such as donor and day, each combination is a batch. The model is
        B[g_i, j] (WH)_ij with a factor for each batch g and column j, found with W and H (`result.batch_effects`), so
        that counts stay counts. For beta_loss="kullback-leibler" and `NegativeBinomial`. Of entries that are not
        observed the effects know nothing, and an effect of which none is observed is 1. See :doc:`/how-to/batches`.
    batch_prior : float, default 0
        Pseudo-counts in each batch and column that draw B towards 1, as a gamma prior does: for small batches and rare
        counts, and where something is asked of H, which B would evade.
    missing : {None, "nan"}, default None
        "nan": NaN in V means unobserved. By default it is an error.
    absent : {"zero", "missing"}, default "zero"
        What the entries are that a sparse V does not store: zeros, or unobserved.
    layer : str, optional
        Of AnnData, the layer to take instead of `X`.
    alpha_W, alpha_H : float, default 0; alpha_H may be "same"
        Strength of the penalty on W and on H, in scikit-learn's scaling: the objective is
        D(V | WH) + n alpha_W [l1_ratio sum(W) + (1 - l1_ratio)/2 sum(W^2)] and likewise m alpha_H for H. What
        is far beyond the data, 1e192 times or in float32 1e24, leaves the factors where that much would.
    l1_ratio : float from 0 to 1, default 0
        Share of the L1 penalty; the rest is L2.
    fixed_w, fixed_h : boolean array, optional
        Entries of W (m, r) and H (r, n), or of a shape that broadcasts to it, that keep the value they have in
        ``init=(W, H)``: known components, partly known profiles, a background column.
    upper_w, upper_h : float or array, optional
        Upper bounds on the entries of W and H.
    w, h : list of terms, default none
        What else is asked of W and of H: `L1`, `L2`, `Upper`, `Lower`, `Fixed` and `Decorrelate`, of which the
        arguments above are short forms. All of them hold at once, and penalties add up. ``h=[Fixed(H0)]`` with numbers
        keeps the rows of H0 as the first components.
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
        Called at each check as ``callback(progress)`` with the fields `iteration`, `divergence`, `W` and `H`, copies of
        the factors. The run stops when it returns True.
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
        they ended. Column k of W and row k of H have norms within a factor of two of each other, unless penalties,
        bounds that are met or fixed entries above zero decide their scale. Entries that the data do not ask for are
        exactly 0. For a dask array W is one too, and H a NumPy array.

    Raises
    ------
    TypeError
        An argument is of the wrong type or has a name that is not known: V is no array or table of numbers, or its
        dtype is complex or no number; W or H given by `init` differ from V in namespace, dtype or device.
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
    alphas = check_penalties(alpha_W, alpha_H, l1_ratio)
    terms = asked_of(alphas, l1_ratio, fixed=(fixed_w, fixed_h), upper=(upper_w, upper_h), terms=(w, h))
    observation: Any = {"weights": weights, "missing": missing, "absent": absent, "exposure": exposure}
    method = chosen(V, beta_loss, solver, terms=terms, batch=batch, **observation)
    schedule = check_schedule(max_iter, tol, check_every)
    n_restarts = check_restarts(n_restarts, init, kind_of(V))
    record = None if checkpoint is None else Checkpoint(checkpoint, checkpoint_every, random_state)
    posed = pose(V, beta=method.beta, **observation).in_batches(batch, prior=batch_prior)
    r = check_n_components(n_components, posed.shape)
    check_init(init, INITS, r, posed.shape)
    init, terms = completed(posed, init, terms, r, random_state=random_state)
    check_start(posed, init, n_restarts, fixed=terms.fixes)
    if not isinstance(init, str):
        posed = posed.suited(*init)
    posed = posed.constrained(r, terms)
    check_normalize(normalize, posed.problem)
    check_together(posed, record, callback, progress)
    factors = first_factors(posed, init, r, random_state=random_state, n_restarts=n_restarts)
    restarted = not posed.stack and any(x.ndim > 2 for x in factors)
    if isinstance(init, str):
        method = method._replace(init=init)
    result = solve(posed, factors, method, schedule, record, callback=callback, progress=progress)
    if normalize is not None:
        result = normalized(result, normalize, xp=posed.xp)
    result = best_of(result, keep_factors=keep_restarts) if restarted else result
    result = _with_loadings(result, posed)
    if posed.batches is not None and result._batch_loadings is not None:
        posed.batches.warn_of_confounded(result)
    return result


@door
@faults.explained
@precision.on_data
@by_members
def transform(
    V: Any,
    H: Any,
    /,
    *,
    beta_loss: float | str | Robust | NegativeBinomial = "frobenius",
    solver: str | tuple[str, dict[str, Any]] = "auto",
    init: Array | None = None,
    weights: Array | None = None,
    exposure: Array | None = None,
    batch: Any = None,
    batch_effects: dict[Hashable, Array] | None = None,
    batch_prior: float = 0.0,
    missing: str | None = None,
    absent: str = "zero",
    layer: str | None = None,  # noqa: ARG001 - the door takes it
    alpha_W: float = 0.0,
    l1_ratio: float = 0.0,
    fixed_w: Array | None = None,
    upper_w: float | Array | None = None,
    w: Sequence[Term] = (),
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
        Components, for example `nmf(...).H`, or a Result, whose `beta_loss` is then the default, or a table, whose
        columns must be those of a table V. They are of V's namespace and device and of the dtype in which V is
        factorized; one set for all of V, or a stack like V's, or a stack of several for one V.
    init : array, shape (m, r), optional
        The start of W. By default each row of W is constant and gives that row of WH the sum of its row of V, so that
        the answer for a row depends on no other row but through the end of the iteration.
    batch : array-like, shape (m,), optional
        The label of each row's batch, as for `nmf`.
    batch_effects : dict, optional
        The effects of batches that are known, `batch_effects` of a result: by default those of H where it is a Result.
        Those of other labels are found. Labels are the same where their texts are.
    batch_prior : float, default 0
        Pseudo-counts that draw the effects which are found towards 1, as for `nmf`.
    fixed_w : boolean array, optional
        Entries of W that keep the value they have in `init`.
    beta_loss, solver, weights, exposure, missing, absent, layer, alpha_W, l1_ratio, upper_w, w : optional
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
    The problem is convex for 1 <= beta <= 2 without `Robust` and `Decorrelate`: W then tends to a global minimum from
    every positive start.

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
    terms = asked_of(
        check_penalties(alpha_W, 0.0, l1_ratio), l1_ratio, fixed=(fixed_w, None), upper=(upper_w, None), terms=(w, ())
    )
    observation: Any = {"weights": weights, "missing": missing, "absent": absent, "exposure": exposure}
    method = chosen(V, beta_loss, solver, fixed_h=True, terms=terms, batch=batch, **observation)
    schedule = check_schedule(max_iter, tol, check_every)
    if method.name == "online":
        msg = "`solver` must be one that finds W alone, got 'online', which learns H; leave it out"
        raise ValueError(msg)
    record = None if checkpoint is None else Checkpoint(checkpoint, checkpoint_every)
    posed = pose(V, beta=method.beta, **observation).in_batches(
        batch, prior=batch_prior, effects=batch_effects, fixed_h=True
    )
    n = posed.shape[1]
    check_array("H", H, min_ndim=2)
    check_columns((*posed.stack, *posed.shape), H)
    r = H.shape[-2]
    posed = posed.suited(init, H, fixed_h=True)
    components = posed.factor("H", H, "H", r)
    if libraries.is_readable(H):
        check_components(H, xp=posed.xp)
    if init is not None:
        W = posed.factor("init", init, "W", r)
    elif not terms.fixes:
        W = proportional_start(posed.problem.data, components, xp=posed.xp)
    else:
        msg = "`fixed_w` needs the values to keep: give `init=W`, got init=None"
        raise ValueError(msg)
    posed = posed.constrained(r, terms)
    check_together(posed, record, callback, progress)
    result = solve(posed, [W, components], method, schedule, record, callback=callback, progress=progress)
    if result.W.ndim > 2:
        H = posed.xp.broadcast_to(H, (*result.W.shape[:-2], r, n))
    return _with_loadings(dataclasses.replace(result, H=H), posed)


def _with_loadings(result: Result, posed: Posed) -> Result:
    """The result with what each batch holds of W, where there are batches and W can be read."""
    if posed.batches is None or not libraries.is_readable(result.H):
        return result
    return dataclasses.replace(result, _batch_loadings=posed.batches.loadings(result.W))
