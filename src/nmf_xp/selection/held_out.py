"""Cross-validation: how well a factorization of one part of V predicts the rest of it.

Both functions deal V into folds and return what a rank loses: a function of the rank whose value is the mean
divergence of an entry that was held out, or for a negative binomial loss its log-probability below 0, one number a
fold. A model that says zero where there is something is infinitely wrong for beta <= 1, though only little is wrong
with it; so one part in twenty of each prediction is that of the best model of rank one, which is found once for each
fold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nmf_xp.arrays import libraries, operators, transfer
from nmf_xp.divergences import beta_divergence
from nmf_xp.factorization import nmf, transform
from nmf_xp.selection.noise import negative_binomial

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from nmf_xp.arrays.typing import Array, Namespace
    from nmf_xp.result import Result

    Vector = np.ndarray[Any, Any]
    Losses = Callable[[int], Vector]

SHORT = 60  # iterations of each start, of which the best goes on
RANK_ONE_SHARE = 0.05  # calibrated on planted ranks, see docs/choosing-the-rank.md


def speckled(
    V: Array,
    *,
    weights: Array | None,
    n_folds: int,
    starts: int,
    seed: int,
    options: dict[str, Any],
    xp: Namespace,
) -> Losses:
    """Hold out entries here and there, each in one fold (Wold 1978; for NMF, Kanagal & Sindhwani 2010)."""
    import numpy as np

    rng = np.random.default_rng([seed, 0])
    fold_of = rng.permutation(np.arange(V.shape[0] * V.shape[1]) % n_folds).reshape(tuple(V.shape))

    def split(fold: int) -> tuple[Array, Array]:
        """The weights of the entries that are seen, and of those that are held out."""
        out = transfer.from_host((fold_of == fold).astype(float), xp=xp, dtype=V.dtype, device=libraries.device(V))
        return (1 - out, out) if weights is None else ((1 - out) * weights, out * weights)

    def simple(fold: int) -> Result:
        return nmf(V, 1, weights=split(fold)[0], random_state=0, **options)

    simplest = [simple(fold) for fold in range(n_folds)]

    def loss(rank: int, fold: int) -> float:
        seen, out = split(fold)
        rng = np.random.default_rng([seed, 1, rank, fold])
        found = _best_of(starts, V, rank, weights=seen, rng=rng, options=options)
        model = _mixed((found.W, found.H), (simplest[fold].W, simplest[fold].H), xp=xp)
        return _mean_loss(V, model, out, found, xp=xp)

    return lambda rank: np.asarray([loss(rank, fold) for fold in range(n_folds)])


def bi_cross(
    V: Array,
    *,
    weights: Array | None,
    n_folds: int,
    starts: int,
    seed: int,
    options: dict[str, Any],
    xp: Namespace,
) -> Losses:
    """Hold out blocks of rows and columns (Owen & Perry 2009).

    With V cut into the blocks A and B above, C and D below, D is factorized into W H; the rows of B are placed on H
    and the columns of C on W, and A is predicted by the product of the two. The folds of rows and columns are
    shuffled and used in pairs, so that each row and each column is held out once.
    """
    import numpy as np

    rng = np.random.default_rng([seed, 0])
    row_fold, column_fold = (rng.permutation(np.arange(length) % n_folds) for length in V.shape)

    def blocks(x: Array | None, fold: int) -> list[Array | None]:
        """A, B, C and D."""
        rows, columns = row_fold == fold, column_fold == fold
        return [None if x is None else _block(x, i, j, xp=xp) for i in (rows, ~rows) for j in (columns, ~columns)]

    def model(rank: int, fold: int) -> tuple[Result, tuple[Array, Array]]:
        """The fit of D, and the factors that predict A."""
        _, B, C, D = (x for x in blocks(V, fold) if x is not None)
        _, b, c, d = blocks(weights, fold)
        rng = np.random.default_rng([seed, 1, rank, fold])
        found = _best_of(starts, D, rank, weights=d, rng=rng, options=options)
        known = {**options, "beta_loss": found.loss}
        W = transform(B, found.H, weights=b, **known).W
        flipped = (operators.transposed(x) for x in (C, found.W))
        H = transform(*flipped, weights=None if c is None else operators.transposed(c), **known).W
        return found, (W, operators.transposed(H))

    simplest = [model(1, fold) for fold in range(n_folds)]

    def loss(rank: int, fold: int) -> float:
        found, factors = simplest[fold] if rank == 1 else model(rank, fold)
        mixed = _mixed(factors, simplest[fold][1], xp=xp)
        A = _block(V, row_fold == fold, column_fold == fold, xp=xp)
        return _mean_loss(A, mixed, blocks(weights, fold)[0], found, xp=xp)

    return lambda rank: np.asarray([loss(rank, fold) for fold in range(n_folds)])


def _best_of(
    starts: int, V: Array, rank: int, *, weights: Array | None, rng: np.random.Generator, options: dict[str, Any]
) -> Result:
    """The best of several short runs, continued: a rank must not lose because one fold ended in a poor minimum."""
    short = {**options, "max_iter": min(SHORT, options["max_iter"])}
    first = nmf(V, rank, weights=weights, n_restarts=starts, random_state=rng, **short)
    return nmf(V, rank, weights=weights, init=(first.W, first.H), **options)


def _mixed(model: tuple[Array, Array], simple: tuple[Array, Array], *, xp: Namespace) -> tuple[Array, Array]:
    """The factors of the weighted mean of two models.

    A row or column of which all that was seen is zero says nothing of what was held out: it is taken as a small one.
    """
    simple = tuple(xp.where(x == 0, RANK_ONE_SHARE * xp.mean(x), x) for x in simple)
    W = xp.concat([(1 - RANK_ONE_SHARE) * model[0], RANK_ONE_SHARE * simple[0]], axis=-1)
    return W, xp.concat([model[1], simple[1]], axis=-2)


def _mean_loss(V: Array, model: tuple[Array, Array], weights: Array | None, fit: Result, *, xp: Namespace) -> float:
    """The mean divergence of an entry; of a fit with a dispersion, what its log-probability is below 0."""
    import numpy as np

    total = V.shape[0] * V.shape[1] if weights is None else transfer.scalar(xp.sum(weights))
    if total == 0:
        msg = "`n_folds` must leave an observed entry in each fold, got one without any; take fewer folds"
        raise ValueError(msg)
    if fit.noise is None:
        return transfer.scalar(beta_divergence(V, *model, beta_loss=fit.beta, weights=weights)) / total
    v, W, H = (transfer.to_host(x).astype(float) for x in (V, *model))
    seen = np.ones_like(v) if weights is None else np.broadcast_to(transfer.to_host(weights), v.shape)
    found = negative_binomial(np.where(seen > 0, v, 0.0), W @ H, fit.noise.dispersion)
    return -float((seen * found).sum() / total)


def _block(V: Array, rows: np.ndarray[Any, Any], columns: np.ndarray[Any, Any], *, xp: Namespace) -> Array:
    """The rows and columns where the NumPy masks are true."""
    import numpy as np

    for axis, mask in enumerate((rows, columns)):
        indices = transfer.from_host(np.flatnonzero(mask), xp=xp, dtype=xp.int64, device=libraries.device(V))
        V = xp.take(V, indices, axis=axis)
    return V
