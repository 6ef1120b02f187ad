"""Which noise: losses compared by the probability that they give to what a fit has not seen."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.arrays import precision, transfer
from nmf_xp.arrays.checks import check_integer
from nmf_xp.data.kinds import Kind, kind_of, settled
from nmf_xp.factorization import nmf
from nmf_xp.problem.checks import check_n_components
from nmf_xp.problem.overdispersed import NegativeBinomial
from nmf_xp.problem.posing import pose
from nmf_xp.problem.starts import seed_of
from nmf_xp.run.door import door
from nmf_xp.selection.comparison import LossComparison, compared
from nmf_xp.selection.noise import noise_of
from nmf_xp.selection.splits import Table, blocks, speckled, thinned

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np

    from nmf_xp.arrays.typing import Array
    from nmf_xp.result import Result
    from nmf_xp.selection.noise import Noise
    from nmf_xp.selection.splits import Split

    HostArray = np.ndarray[Any, Any]

SHARES = (1e-3, 0.03, 0.2)  # of rank one in a prediction, of which each loss has the best: no mean is next to 0 then
SAMPLE = 20_000  # entries from which a dispersion is found, then right to about a hundredth


@door
@precision.on_data
def compare_losses(
    V: Array,
    /,
    n_components: int,
    losses: Iterable[float | str | NegativeBinomial] | None = None,
    *,
    n_splits: int = 5,
    n_restarts: int = 3,
    layer: str | None = None,  # noqa: ARG001 - the door takes it
    max_iter: int = 500,
    tol: float = 1e-5,
    random_state: Any = None,
) -> LossComparison:
    """Fit a part of V with each loss, and ask how probable the noise of the loss makes the other part.

    Parameters
    ----------
    V : array, shape (m, n)
        A non-negative matrix in memory or a table of numbers, as for `nmf`, all of it observed. Of a sparse V of
        another library than SciPy, SciPy's is fitted.
    n_components : int
        The rank of all fits. What a rank that is too low leaves unexplained looks like noise.
    losses : iterable of loss, optional
        What to compare, as `beta_loss` of `nmf` has it: 1, Poisson's, and `NegativeBinomial`, which are probabilities
        of counts; 2, the Gaussian's; 0, that of gamma, for positive V; betas between 0 and 1, Tweedie's with the
        variance phi y^(2 - beta) and a probability of zero. By default for counts Poisson, negative binomial and
        Gaussian, and for other numbers Gaussian, Tweedie 1.5 and, where there is no zero, gamma.
    n_splits : int, default 5
        How often V is split, at least 2.
    n_restarts : int, default 3
        Random starts of each fit, of which the best is taken.
    layer, max_iter, tol, random_state : optional
        As for `nmf`.

    Returns
    -------
    LossComparison
        The table, the loss that is recommended, and what makes the evidence weak.

    Raises
    ------
    TypeError, ValueError
        As for `nmf`; ValueError also where a loss stands for no noise, where probabilities of counts and densities
        are to be compared, or where V is not what a noise can be.
    ImportError
        scipy is not installed.

    Notes
    -----
    **Counts** are thinned: each is drawn, one by one, to one of two halves. A fit of the one predicts the other; a
    negative binomial count given its first half, as both have one rate. The
    Gaussian beside them is that of a rounded number, with all that is below 1/2 at 0, so that it is a probability
    too. **Other numbers** are held out, each of them in one split, which takes dense weights of V's size. Beside
    Tweedie, of which zeros have a probability, the Gaussian has one for them too, that of all below 0.

    Dispersions are the likeliest for what was seen. A part of each prediction is that of rank one, a thousandth, three
    hundredths or a fifth, whichever is best for the loss: else single means next to 0 would decide.

    Thinning adds the noise of chance to counts that vary less than Poisson's. Pearson's number is far below 1 then,
    which is said among the doubts.

    Examples
    --------
    >>> import numpy as np
    >>> from nmf_xp import compare_losses
    >>> rng = np.random.default_rng(0)
    >>> Y = 20 * rng.random((60, 3)) @ rng.random((3, 40))
    >>> comparison = compare_losses(rng.poisson(Y * rng.gamma(4.0, 0.25, size=Y.shape)), 3, random_state=0)
    >>> comparison.noise, comparison.weak
    ('negative binomial', False)
    """
    V = settled(V)
    if kind_of(V) is not Kind.WHOLE:
        msg = f"`V` must be whole in memory, got data that are {kind_of(V).value}; compare the losses on some rows"
        raise ValueError(msg)
    n_splits = check_integer("n_splits", n_splits, minimum=2)
    posed = pose(V, beta=2.0, weights=None, missing=None, absent="zero")
    if posed.stack:
        msg = f"`V` must be one matrix, got a stack of shape {posed.stack + posed.shape}; compare for each member"
        raise ValueError(msg)
    r = check_n_components(n_components, posed.shape)
    if importlib.util.find_spec("scipy") is None:
        msg = 'comparing losses needs scipy: pip install "nmf_xp[selection]"'
        raise ImportError(msg)
    import numpy as np

    table = Table.of(V)
    if not table.stored.any():
        msg = "`V` must have a positive entry for losses to be compared, got zeros only"
        raise ValueError(msg)
    noises = _noises(losses, table)
    seed = seed_of(random_state)
    rng = np.random.default_rng([seed, 0])
    options: dict[str, Any] = {"n_restarts": n_restarts, "max_iter": max_iter, "tol": tol}
    fitting = _Fitting(table, r, noises, options, seed=seed)
    split_up = thinned if any(noise.counts for noise in noises) else speckled
    found = [_looked_at(fitting, split, rng) for split in split_up(table, n_splits, rng)]
    overall = np.average([one.mean for one in found], axis=0).reshape(len(noises), len(SHARES))
    best = overall.argmax(axis=1) + len(SHARES) * np.arange(len(noises))
    found = [one.of(best) for one in found]
    mean, error, differences, errors = _summed(found, whole=split_up is thinned)
    fits = {noise.name: fitting.of_all(noise, V) for noise in noises}
    about = [_described(noise, fits[noise.name], table, r, rng) for noise in noises]
    columns: dict[str, Any] = {"noise": np.asarray([noise.name for noise in noises])}
    columns |= {"log_probability": mean, "error": error}
    columns |= {
        name: np.asarray(x) for name, x in zip(("pearson", "dispersion"), zip(*about, strict=True), strict=True)
    }
    simple = [not noise.fitted for noise in noises]
    chosen, doubts = compared(columns, simple, differences, errors)
    asked = tuple(noise.loss for noise in noises)
    return LossComparison(asked[chosen], doubts, asked, columns, differences, errors, fits)


def _noises(losses: Any, table: Table) -> list[Noise]:
    """The noise of each loss, which all go with V and with one another."""
    counts, zeros = table.counts, table.zeros
    if losses is None:
        plain = ("frobenius", 0.5) if zeros else ("frobenius", 0.5, "itakura-saito")
        losses = ("kullback-leibler", NegativeBinomial(), "frobenius") if counts else plain
    if isinstance(losses, str) or not hasattr(losses, "__iter__"):
        msg = f"`losses` must be several losses, such as ['kullback-leibler', 'frobenius'], got {losses!r}"
        raise TypeError(msg)
    given = list(losses)
    first = [noise_of(loss, counts=False, zeros=False) for loss in given]
    of_counts = [noise.name for noise in first if noise.counts]
    densities = [noise.name for noise in first if not noise.counts and noise.name != "Gaussian"]
    if len({noise.name for noise in first}) < max(2, len(first)):
        msg = f"`losses` must have at least two losses, each of another noise, got {given!r}"
        raise ValueError(msg)
    if of_counts and densities:
        msg = (
            f"`losses` must be all of counts or all of other numbers: {of_counts[0]} is a probability and "
            f"{densities[0]} a density, which has a unit; compare them apart"
        )
        raise ValueError(msg)
    if of_counts and not counts:
        msg = f"`V` must have whole numbers for {of_counts[0]}, which is a noise of counts, got others"
        raise ValueError(msg)
    if "gamma" in densities and zeros:
        msg = "`V` must be positive for gamma, got zeros; leave Itakura-Saito out, or take a beta between 0 and 1"
        raise ValueError(msg)
    cut = zeros and bool(densities)
    return [noise_of(loss, counts=bool(of_counts), zeros=cut) for loss in given]


class _Fitting(NamedTuple):
    """How every part of V is fitted."""

    table: Table
    r: int
    noises: list[Noise]
    options: dict[str, Any]
    seed: int

    def means(self, noise: Noise, split: Split) -> tuple[Result, list[tuple[HostArray, HostArray]]]:
        """A fit of what is seen, and the factors of its predictions, on the host, with one share after the other."""
        import numpy as np

        seen, weights = self.table.own(split.seen), None
        if split.weights is not None:
            weights = self.table.own(split.weights)
        settings: dict[str, Any] = {"beta_loss": noise.loss, "weights": weights, "random_state": self.seed}
        fit = nmf(seen, self.r, **settings, **self.options)
        one = nmf(seen, 1, **settings, **{**self.options, "n_restarts": 1})
        W, H, w, h = (np.asarray(transfer.to_host(x), dtype=np.float64) for x in (fit.W, fit.H, one.W, one.H))
        # A row of which all that was seen is zero says nothing of the rest: it is taken as a small one.
        w, h = (np.where(x == 0, SHARES[0] * x.mean(), x) for x in (w, h))
        return fit, [(np.hstack([(1.0 - share) * W, share * w]), np.vstack([H, h])) for share in SHARES]

    def of_all(self, noise: Noise, V: Any) -> Result:
        """The fit of all of V."""
        V = self.table.values if self.table.sparse else V
        return nmf(V, self.r, beta_loss=noise.loss, random_state=self.seed, **self.options)


class _Found(NamedTuple):
    """What one split says of the log-probabilities of its entries, for each loss and share."""

    size: int  # entries
    mean: HostArray  # (P,)
    variances: HostArray  # (P, P): of the differences of two predictions

    def of(self, which: HostArray) -> _Found:
        """The same of some of the predictions."""
        return self._replace(mean=self.mean[which], variances=self.variances[which][:, which])


def _looked_at(fitting: _Fitting, split: Split, rng: np.random.Generator) -> _Found:
    """The log-probabilities of what one split holds out."""
    import numpy as np

    models = []
    for noise in fitting.noises:
        fit, predictions = fitting.means(noise, split)
        for W, H in predictions:
            models.append((noise, W, H, noise.dispersion(fit, *_pairs(split.seen, W, H, split.out, rng))))
    count, sums, products = 0, np.zeros(len(models)), np.zeros((len(models), len(models)))
    for (rows, V), (_, seen) in zip(blocks(split.held_out), blocks(split.seen), strict=True):
        which = slice(None) if split.out is None else split.out[rows] > 0
        each = []
        for noise, W, H, dispersion in models:
            y, of_rows = W[rows] @ H, _of_rows(dispersion, rows)
            if split.out is None:
                y, of_rows = noise.after(seen, y, of_rows)
            each.append(noise.log_probability(*_entries(V, y, of_rows, which)))
        values = np.stack([x.ravel() for x in each])
        beside = values - values[:1]  # of which less cancels
        count, sums, products = count + values.shape[1], sums + values.sum(axis=1), products + beside @ beside.T
    mean, moments = sums / count, products / count
    squares = np.diag(moments)
    variances = squares[:, None] + squares - 2.0 * moments - (mean[:, None] - mean) ** 2
    return _Found(count, mean, np.maximum(variances, 0.0))


def _entries(V: HostArray, Y: HostArray, dispersion: Any, which: Any) -> tuple[HostArray, HostArray, Any]:
    """What is held out of some rows, its means, and its dispersions."""
    import numpy as np

    if np.ndim(dispersion):
        dispersion = np.broadcast_to(dispersion, V.shape)[which]
    return V[which].astype(np.float64), Y[which], dispersion


def _of_rows(dispersion: Any, rows: slice) -> Any:
    """The dispersion of some rows, where it is one of each."""
    return dispersion[rows] if getattr(dispersion, "ndim", 0) == 2 and dispersion.shape[0] > 1 else dispersion


def _pairs(
    V: Any, W: HostArray, H: HostArray, out: HostArray | None, rng: np.random.Generator
) -> tuple[HostArray, HostArray]:
    """Entries of V that are seen, at most `SAMPLE` of them, and their means."""
    import numpy as np

    m, n = V.shape
    places = np.arange(m * n) if m * n <= SAMPLE else rng.integers(m * n, size=SAMPLE)
    i, j = np.divmod(places, n)
    if out is not None:
        i, j = i[out[i, j] == 0], j[out[i, j] == 0]
    values = np.asarray(V[i, j], dtype=np.float64).ravel()
    return values, np.einsum("ik,ki->i", W[i], H[:, j])


def _summed(found: list[_Found], *, whole: bool) -> tuple[HostArray, HostArray, HostArray, HostArray]:
    """Means and their standard errors, and the same of the differences, over splits of all entries or of some."""
    import numpy as np

    means = np.stack([one.mean for one in found])
    between = means[:, :, None] - means[:, None, :]
    root = len(found) ** 0.5
    count = np.mean([one.size for one in found]) if whole else np.sum([one.size for one in found])
    over_entries = np.sqrt(np.mean([one.variances for one in found], axis=0) / count)
    errors = np.maximum(between.std(axis=0, ddof=1) / root, over_entries)
    return means.mean(axis=0), means.std(axis=0, ddof=1) / root, between.mean(axis=0), errors


def _described(noise: Noise, fit: Result, table: Table, r: int, rng: np.random.Generator) -> tuple[float, float]:
    """Pearson's number and the dispersion of a fit of all of V."""
    import numpy as np

    W, H = (np.asarray(transfer.to_host(x), dtype=np.float64) for x in (fit.W, fit.H))
    v, y = _pairs(table.values, W, H, None, rng)
    dispersion = noise.dispersion(fit, v[y > 0], y[y > 0])
    total, (m, n) = 0.0, table.values.shape
    for rows, V in blocks(table.values):
        Y = W[rows] @ H
        variance = noise.variance(Y, _of_rows(dispersion, rows))
        total += float(((V - Y) ** 2 / np.where(variance > 0, variance, 1.0))[variance > 0].sum())
    freedom = m * n - r * (m + n - r)
    shown = float(np.mean(dispersion)) if noise.name != "Poisson" else float("nan")
    return total / freedom if freedom > 0 else float("nan"), shown
