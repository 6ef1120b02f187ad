"""Choosing the rank and the loss: one file an idea.

`evidence` is what is known of one rank, and what is kept of it on the disk: from `consensus` and `stability`, how far
restarts agree, and from `held_out`, how well the rank predicts what it has not seen. `relevance` says how many
components of the largest rank are needed. `rules` makes a recommendation of it, and `outcome` is what comes back.
`merging` makes one factorization of many restarts.

`losses` compares losses by what their `noise` makes of the part of V that the `splits` hold back, and `comparison` is
what comes back.
"""

from __future__ import annotations

import importlib.util
import threading
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from nmf_xp.arrays import libraries, precision, threads, transfer
from nmf_xp.arrays.checks import as_working_dtype, check_integer, check_option
from nmf_xp.data import as_data, entry_weights
from nmf_xp.data.kinds import settled
from nmf_xp.data.sparse import Sparse
from nmf_xp.divergences import check_beta
from nmf_xp.problem.checks import check_n_components
from nmf_xp.problem.overdispersed import as_negative_binomial
from nmf_xp.problem.posing import pose
from nmf_xp.problem.starts import seed_of
from nmf_xp.run.checkpoint import identity
from nmf_xp.run.door import door
from nmf_xp.run.observer import progress_bar
from nmf_xp.selection import held_out, rules
from nmf_xp.selection.comparison import LossComparison
from nmf_xp.selection.evidence import Kept, gather
from nmf_xp.selection.losses import compare_losses
from nmf_xp.selection.merging import ConsensusFactors, consensus_factors
from nmf_xp.selection.outcome import RankSelection
from nmf_xp.selection.relevance import relevances

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    from nmf_xp.arrays.typing import Array, Namespace
    from nmf_xp.problem.overdispersed import NegativeBinomial
    from nmf_xp.problem.posing import Posed

__all__ = [
    "ConsensusFactors",
    "LossComparison",
    "RankSelection",
    "compare_losses",
    "consensus_factors",
    "select_rank",
]

PREDICTIVE = {"held-out": held_out.speckled, "bi-cross-validation": held_out.bi_cross}
RULES = ("auto", *PREDICTIVE, "relevance", "cophenetic", "stability")


@door
@precision.on_data
def select_rank(
    V: Any,
    /,
    ranks: Iterable[int],
    *,
    rule: str = "auto",
    n_restarts: int = 20,
    beta_loss: float | str | NegativeBinomial = "frobenius",
    solver: str = "auto",
    weights: Array | None = None,
    missing: str | None = None,
    absent: str = "zero",
    layer: str | None = None,  # noqa: ARG001 - the door takes it
    n_folds: int = 5,
    fold_restarts: int = 8,
    max_iter: int = 400,
    tol: float = 1e-4,
    random_state: Any = None,
    progress: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
) -> RankSelection:
    """Factorize V with several ranks, compare them, and recommend one.

    Parameters
    ----------
    V : array, shape (m, n)
        A non-negative matrix or a table of numbers, as for `nmf`.
    ranks : iterable of int
        The ranks to compare, at least two. Ranks on both sides of the answer are needed: one at the edge is never
        well supported.
    rule : {"auto", "held-out", "bi-cross-validation", "relevance", "cophenetic", "stability"}, default "auto"
        How the rank is chosen; only the cross-validation that the rule needs is run.

        - "held-out": the least rank that predicts entries that were held out as well as any, up to the error of the
          comparison.
        - "bi-cross-validation": likewise for blocks of rows and columns (Owen & Perry 2009).
        - "relevance": as many components as automatic relevance determination keeps of the largest rank (Tan & Fevotte
          2013).
        - "cophenetic": the first rank, from 2 on, after which the cophenetic correlation of the consensus falls
          (Brunet et al. 2004); where it stays the same, the dispersion is asked.
        - "stability": the rank, from 2 on, whose components differ least between restarts (Wu et al. 2016).
        - "auto": "held-out".
    n_restarts : int, default 20
        Random starts of each rank, at least 2, from which consensus and stability are computed.
    beta_loss, weights, missing, absent, layer, max_iter, tol, random_state : optional
        As for `nmf`, but for `Robust`. The beta_loss should be that of the noise: the prediction is judged by it too.
        With `NegativeBinomial`, whose dispersion each fit finds anew, by the probability of what was held out. Take one
        dispersion for all: those of rows or columns that are found from few counts are too small to predict well.
    solver : str, default "auto"
        As for `nmf`. "auto" is "mu" in the folds: it is the fastest with weights, and what the rules were calibrated
        with.
    n_folds : int, default 5
        Folds of the cross-validation, at least 2.
    fold_restarts : int, default 8
        Random starts in each fold; the one that is best in training after 60 iterations goes on to `max_iter`.
    progress : bool, default False
        Show a progress bar, of the ranks. Needs tqdm (``pip install "nmf_xp[progress]"``).
    checkpoint : path, optional
        A file, .npz, .safetensors or .zarr, in which each rank is kept when it is finished, and from which the same
        call goes on where it was interrupted. `ranks` may be others then; V and all other options must be the same.
        See :doc:`/checkpoints`.

    Returns
    -------
    RankSelection
        The recommended rank, the rule, what makes the evidence weak, the table and the consensus matrices.

    Raises
    ------
    TypeError, ValueError
        As for `nmf`; ValueError also where there are fewer than two ranks, or where a fold would be empty.
    ImportError
        scipy is not installed, or tqdm where `progress` is asked for.
    CheckpointError
        The checkpoint is damaged or of another run, or cannot be written.

    Notes
    -----
    On NumPy, ranks run at the same time, one a thread, where there are as many as threads.

    A column of V is in the group of its largest loading, with the components scaled so that each column of W sums to 1.
    Consensus matrices are n x n, in NumPy. Cross-validation holds V, and weights of its size, as dense arrays, also
    where V is sparse. Each rank has random numbers of its own, so that its row in the table, but for the relevance,
    does not depend on the other ranks.

    Examples
    --------
    >>> import numpy as np
    >>> from nmf_xp import select_rank
    >>> rng = np.random.default_rng(0)
    >>> V = rng.poisson(20 * rng.gamma(0.5, size=(60, 3)) @ rng.gamma(0.5, size=(3, 40)))
    >>> selection = select_rank(V, range(1, 6), beta_loss="kullback-leibler", n_restarts=5, random_state=0)
    >>> selection.rank, selection.rule
    (3, 'held-out')
    """
    V = settled(V)
    check_option("rule", rule, RULES)
    rule = "held-out" if rule == "auto" else rule
    noise = as_negative_binomial(beta_loss)
    asked: Any = beta_loss
    beta = check_beta("kullback-leibler" if noise is not None else asked)
    if noise is not None and noise.of != "global" and rule == "bi-cross-validation":
        msg = "`rule` must be another one for a dispersion of each row or column, got 'bi-cross-validation'"
        raise ValueError(msg)
    n_restarts = check_integer("n_restarts", n_restarts, minimum=2)
    n_folds = check_integer("n_folds", n_folds, minimum=2)
    fold_restarts = check_integer("fold_restarts", fold_restarts, minimum=1)
    kept = Kept(checkpoint)
    posed = pose(V, beta=beta, weights=weights, missing=missing, absent=absent)
    if posed.stack:
        shape = posed.stack + posed.shape
        msg = f"`V` must be one matrix, got a stack of shape {shape}; select the rank of each member by itself"
        raise ValueError(msg)
    if libraries.is_readable(posed.values) and transfer.scalar(posed.xp.max(posed.values)) == 0:
        msg = "`V` must have a positive entry for a rank to be selected, got zeros only"
        raise ValueError(msg)
    candidates = _check_ranks(ranks, posed.shape, n_folds=n_folds, rule=rule)
    if importlib.util.find_spec("scipy") is None:
        msg = 'selecting a rank needs scipy: pip install "nmf_xp[selection]"'
        raise ImportError(msg)
    options = {"beta_loss": noise or beta, "solver": solver, "max_iter": max_iter, "tol": tol}
    described = {"rule": rule, "n_restarts": n_restarts, "n_folds": n_folds, "fold_restarts": fold_restarts}
    described |= {
        "missing": missing,
        "absent": absent,
        **options,
        "beta_loss": beta if noise is None else noise.identity,
        "solver": repr(solver),
        "random_state": identity.seed(random_state),
    }
    with kept, threads.held_for(posed.values):
        kept.take_up(posed, described, seed_of(random_state))
        losses = None
        if rule in PREDICTIVE and not all(rank in kept for rank in candidates):
            dense, observed = _dense(V, weights, missing, absent, xp=posed.xp)
            losses = PREDICTIVE[rule](
                dense,
                weights=observed,
                n_folds=n_folds,
                starts=fold_restarts,
                seed=kept.seed,
                options={**options, "solver": "mu" if solver == "auto" else solver},
                xp=posed.xp,
            )

        unfinished = [rank for rank in reversed(candidates) if rank not in kept]  # the longest first
        lock = threading.Lock()
        of_nmf = {**options, "weights": weights, "missing": missing, "absent": absent}

        def finish(rank: int) -> None:
            found = gather(V, rank, n_restarts=n_restarts, options=of_nmf, losses=losses, seed=kept.seed)
            kept.keep(rank, found)
            if bar is not None:
                with lock:
                    bar.update()

        with progress_bar(len(unfinished), unit="rank", what="select_rank") if progress else nullcontext() as bar:
            if len(unfinished) < threads.count():  # there are threads to spare within a rank
                for rank in unfinished:
                    finish(rank)
            else:
                threads.run(finish, unfinished)
    return _selection(posed, candidates, kept, rule=rule)


def _selection(posed: Posed, candidates: list[int], kept: Kept, *, rule: str) -> RankSelection:
    """The evidence of all ranks as a table, and what the rule makes of it."""
    import numpy as np

    evidence = [kept[rank] for rank in candidates]
    table = {name: np.asarray([found.row[name] for found in evidence]) for name in evidence[0].row}
    largest = evidence[-1].best
    relevance = relevances(posed, (largest.W, largest.H), seed=kept.seed)
    table["relevance"] = relevance[[rank - 1 for rank in candidates]]
    if rule in PREDICTIVE:
        loss = np.stack([found.loss for found in evidence])
        table["loss"] = loss.mean(axis=1)
        table["loss_error"] = loss.std(axis=1, ddof=1) / loss.shape[1] ** 0.5
        found = rules.by_prediction(candidates, loss, rule=rule)
    elif rule == "relevance":
        found = rules.by_relevance(candidates, relevance)
    elif rule == "cophenetic":
        found = rules.by_cophenetic(candidates, table["cophenetic"], table["dispersion"])
    else:
        found = rules.by_stability(candidates, table["amari"])
    consensus = {rank: kept[rank].consensus for rank in candidates}
    best = {rank: kept[rank].best for rank in candidates}
    return RankSelection(found.rank, found.rule, found.doubts, table, consensus, best)


def _check_ranks(ranks: Iterable[int], shape: tuple[int, ...], *, n_folds: int, rule: str) -> list[int]:
    """The ranks in order; where blocks are held out, they must fit what is left."""
    try:
        given = list(ranks)
    except TypeError:
        msg = f"`ranks` must be several integers, such as range(2, 9), got {ranks!r}"
        raise TypeError(msg) from None
    candidates = sorted({check_n_components(rank, (shape[0], shape[1])) for rank in given})
    if len(candidates) < 2:
        msg = f"`ranks` must hold at least two different ranks, got {given}"
        raise ValueError(msg)
    if rule == "bi-cross-validation" and n_folds > min(shape):
        msg = f"`n_folds` must be at most {min(shape)}, the shorter side of `V`, for this rule, got {n_folds}"
        raise ValueError(msg)
    if rule == "bi-cross-validation":
        left = sum(length - -(-length // n_folds) for length in shape)
        if candidates[-1] > left:
            msg = f"`ranks` must be at most {left} with blocks held out, got {candidates[-1]}"
            raise ValueError(msg)
    return candidates


def _dense(
    V: Array, weights: Array | None, missing: str | None, absent: str, *, xp: Namespace
) -> tuple[Array, Array | None]:
    """V as a dense array of the dtype in which it is factorized, and the weights of its entries, of its shape."""
    data = as_data(V)
    data = data.with_values(as_working_dtype("V", data.values, xp=xp))
    weights = entry_weights(data, weights, missing, xp=xp)
    if not isinstance(data, Sparse):
        return data.values, None if weights is None else xp.broadcast_to(weights, data.shape)
    dense = data.dense(xp=xp)
    if absent == "missing":
        stored = data.with_values(xp.ones_like(data.values)).dense(xp=xp)
        weights = stored if weights is None else stored * weights
    return dense, None if weights is None else xp.broadcast_to(weights, dense.shape)
