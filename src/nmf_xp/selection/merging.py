"""Consensus factors: the components that many restarts agree on (cNMF; Kotliar et al. 2019, eLife 8:e43803, Methods).

The components are compared, grouped and averaged by NumPy and SciPy on the host; V is met by `nmf` and `transform`
only.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.arrays import libraries, precision, transfer
from nmf_xp.arrays.checks import check_integer, check_non_negative
from nmf_xp.data.kinds import settled
from nmf_xp.factorization import nmf, transform
from nmf_xp.result import display
from nmf_xp.run.door import door

if TYPE_CHECKING:
    import numpy as np

    from nmf_xp.arrays.typing import Array
    from nmf_xp.result import Result

    Matrix = np.ndarray[Any, Any]

NEIGHBOURS = 0.3  # of the number of restarts, as in cNMF


UNLIKE = "the medians of their components are 0 but for rounding; restarts do not agree on so many"
NOTHING = 1e-3  # of a component's length: a median of no more is that of components with nothing in common


@dataclass(frozen=True, repr=False)
class ConsensusFactors:
    """Components that restarts agree on, and V's loadings on them.

    Attributes
    ----------
    result : Result
        H holds the consensus components, each with sum 1, and W the loadings that `transform` finds on them. Those that
        make up most of V's rows come first. They are fewer than were asked for where groups were dropped.
    labels : numpy.ndarray, shape (n_restarts, r)
        The consensus component, a row of ``result.H``, to which each component of each restart contributed; -1 where
        it was dropped as an outlier, with its group, or as zero.
    distances : numpy.ndarray, shape (n_restarts, r)
        Mean Euclidean distance from each component, scaled to length 1, to its nearest neighbours, by which outliers
        are told: 0 where all restarts agree, at most the root of 2.
    silhouette : float
        How well the groups of components are apart: the mean silhouette of those that were not dropped (Rousseeuw
        1987), at most 1. With ``max_distance=2``, which drops none, it is the stability by which cNMF's users choose a
        rank.
    doubts : tuple of str
        What is wrong with the components: that groups were dropped whose members have nothing in common, so that their
        median is zero but for rounding. Empty where nothing is.

    Notes
    -----
    ``print(found)`` and a notebook show what came out.
    """

    result: Result
    labels: Matrix
    distances: Matrix
    silhouette: float
    doubts: tuple[str, ...] = ()

    def named(self, **names: Any) -> ConsensusFactors:
        """The same with names of rows, columns or components on its result; see `Result.named`."""
        return replace(self, result=self.result.named(**names))

    def _rows(self) -> dict[str, str]:
        dropped = int((self.labels < 0).sum())
        said = {
            **display.rows(self.result),
            "restarts": str(len(self.labels)),
            "dropped": f"{dropped} of {self.labels.size} components",
            "silhouette": f"{self.silhouette:.6g}",
        }
        return said | ({"doubts": "; ".join(self.doubts)} if self.doubts else {})

    def __repr__(self) -> str:
        return f"ConsensusFactors({self.result!r}, silhouette={self.silhouette:.6g})"

    def __str__(self) -> str:
        return display.text(self._rows())

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return display.notebook(self._rows(), self.result.history)


@door
@precision.on_data
def consensus_factors(
    V: Any,
    n_components: int,
    /,
    *,
    n_restarts: int = 100,
    max_distance: float = 0.5,
    beta_loss: float | str = "frobenius",
    solver: str = "auto",
    weights: Array | None = None,
    exposure: Array | None = None,
    batch: Any = None,
    batch_prior: float = 0.0,
    missing: str | None = None,
    absent: str = "zero",
    layer: str | None = None,  # noqa: ARG001 - the door takes it
    max_iter: int = 1000,
    tol: float = 1e-4,
    random_state: Any = None,
    progress: bool = False,
) -> ConsensusFactors:
    """Factorize V many times, drop the components that few restarts found, and take the medians of the others.

    Parameters
    ----------
    V : array, shape (m, n)
        A non-negative matrix or a table of numbers, as for `nmf`.
    n_components : int
        Rank r.
    n_restarts : int, default 100
        Random starts, at least 2.
    max_distance : float, default 0.5
        A component is dropped where its mean distance to the 0.3 `n_restarts` components next to it is not below this.
        The distances are those of rows of H of length 1, so 2 keeps all.
    beta_loss, solver, weights, exposure, missing, absent, layer, max_iter, tol, random_state, progress : optional
        As for `nmf`; the progress is that of the restarts.
    batch, batch_prior : optional
        As for `nmf`: each restart finds the effects of batches, and so do the loadings on what the restarts agree on.

    Returns
    -------
    ConsensusFactors
        The factors, and what became of each component; with `doubts` where groups were dropped.

    Raises
    ------
    TypeError, ValueError
        As for `nmf`; ValueError also where fewer than `n_components` components are left, or no group has
        anything in common.
    ImportError
        scipy is not installed.

    Notes
    -----
    The defaults and the steps are those of cNMF 1.7, but that cNMF groups by k-means from random starts; here it is
    Ward's method, which decreases the same sum of squares and has no start to depend on.

    Examples
    --------
    >>> import numpy as np
    >>> from nmf_xp import consensus_factors
    >>> rng = np.random.default_rng(0)
    >>> V = rng.poisson(20 * rng.gamma(0.5, size=(60, 3)) @ rng.gamma(0.5, size=(3, 40)))
    >>> found = consensus_factors(V, 3, n_restarts=10, beta_loss="kullback-leibler", random_state=0)
    >>> found.result.W.shape, found.result.H.shape, int((found.labels < 0).sum())
    ((60, 3), (3, 40), 0)
    """
    import numpy as np

    V = settled(V)
    n_restarts = check_integer("n_restarts", n_restarts, minimum=2)
    max_distance = check_non_negative("max_distance", max_distance)
    options: dict[str, Any] = {"beta_loss": beta_loss, "solver": solver, "max_iter": max_iter, "tol": tol}
    options |= {"weights": weights, "exposure": exposure, "missing": missing, "absent": absent}
    options |= {"batch": batch, "batch_prior": batch_prior}
    restarts = {"n_restarts": n_restarts, "keep_restarts": True, "random_state": random_state, "progress": progress}
    best: Any = nmf(V, n_components, **restarts, **options)
    H = best.restarts.H
    merged = merge(transfer.to_host(H), max_distance=max_distance)
    xp = libraries.array_namespace(H)
    components = transfer.from_host(merged.components, xp=xp, dtype=H.dtype, device=libraries.device(H))
    with warnings.catch_warnings():  # a part of V that belongs to no group is what the divergence says
        warnings.filterwarnings("ignore", message="no component is positive in column")
        result = transform(V, components, **options)
    order = _by_share(transfer.to_host(result.W))
    indices = transfer.from_host(order, xp=xp, dtype=xp.int64, device=libraries.device(H))
    W, H = xp.take(result.W, indices, axis=1), xp.take(result.H, indices, axis=0)
    labels = np.where(merged.labels < 0, -1, np.argsort(order)[merged.labels])
    dropped = n_components - len(order)
    doubts = (
        (f"{dropped} of {n_components} groups {'was' if dropped == 1 else 'were'} dropped: {UNLIKE}",)
        if dropped
        else ()
    )
    result = replace(result, W=W, H=H)._remember(result._seen)
    return ConsensusFactors(result, labels, merged.distances, merged.silhouette, doubts)


def _by_share(W: Matrix) -> Matrix:
    """The components in falling order of their shares in V's rows, summed over the rows."""
    import numpy as np

    shares = W / np.maximum(W.sum(axis=1, keepdims=True), np.finfo(W.dtype).tiny)
    return np.argsort(-shares.sum(axis=0), kind="stable")


class Merged(NamedTuple):
    """Consensus components (r or fewer, n), and labels and distances (restarts, r) of those of all restarts."""

    components: Matrix
    labels: Matrix
    distances: Matrix
    silhouette: float


def merge(H: Matrix, *, max_distance: float) -> Merged:
    """Group the components of all restarts (restarts, r, n), without the outliers, and take the medians."""
    import numpy as np

    try:
        from scipy.cluster import hierarchy
        from scipy.spatial.distance import pdist, squareform
    except ImportError as error:
        msg = 'consensus factors need scipy: pip install "nmf_xp[selection]"'
        raise ImportError(msg) from error
    restarts, r, n = H.shape
    flat = H.reshape(-1, n).astype(float)
    largest = flat.max(axis=1, keepdims=True)
    alive = largest[:, 0] > 0
    flat = flat / np.where(largest > 0, largest, 1.0)  # whose squares do not underflow
    flat = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1.0)
    apart = squareform(pdist(flat))
    nearest = np.sort(apart, axis=1)[:, 1 : 1 + max(1, int(NEIGHBOURS * restarts))]
    distances = np.where(alive, nearest.mean(axis=1), 2**0.5)  # a component that is zero is like none
    kept = alive & (distances < max_distance)
    if np.count_nonzero(kept) < max(r, 2):
        msg = f"`max_distance` must keep at least {max(r, 2)} components, got {max_distance}, which keeps {kept.sum()}"
        raise ValueError(msg)
    groups = hierarchy.fcluster(hierarchy.linkage(flat[kept], method="ward"), r, criterion="maxclust") - 1
    if groups.max() + 1 < r:
        msg = f"`max_distance` must keep {r} different components, got {max_distance}, which keeps {groups.max() + 1}"
        raise ValueError(msg)
    labels = np.full(len(flat), -1)
    labels[kept] = groups
    silhouette = mean_silhouette(apart[np.ix_(kept, kept)], groups)
    components = np.stack([np.median(flat[labels == k], axis=0) for k in range(r)])
    held = np.linalg.norm(components, axis=1) > NOTHING
    if not held.any():
        msg = f"`n_components` must be a rank at which restarts agree on something, got {r}: {UNLIKE}"
        raise ValueError(msg)
    labels = np.where((labels >= 0) & held[labels], (np.cumsum(held) - 1)[labels], -1)
    components = components[held] / components[held].sum(axis=1, keepdims=True)
    return Merged(components, labels.reshape(restarts, r), distances.reshape(restarts, r), silhouette)


def mean_silhouette(apart: Matrix, groups: Matrix) -> float:
    """(b - a) / max(a, b), with a the mean distance within a point's group and b that to the next one (Rousseeuw 1987).

    A point alone in its group counts as 0; where there is one group only, it is 1.
    """
    import numpy as np

    points, r = np.arange(len(groups)), int(groups.max()) + 1
    if r == 1:
        return 1.0
    members = np.eye(r)[groups]
    sizes = members.sum(axis=0)
    sums = apart @ members
    within = sums[points, groups] / np.maximum(sizes[groups] - 1, 1)
    means = sums / sizes
    means[points, groups] = np.inf
    between = means.min(axis=1)
    score = (between - within) / np.maximum(np.maximum(within, between), np.finfo(float).tiny)
    return float(np.where(sizes[groups] > 1, score, 0.0).mean())
