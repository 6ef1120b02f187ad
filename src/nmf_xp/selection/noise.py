"""The noise that a loss stands for: the probability of what was not seen, given its mean.

Poisson and the negative binomial are probabilities of counts. Gamma and Gaussian are densities, and Tweedie's is a
density with a probability of zero. A density has the unit of 1 / V and says nothing beside a probability; so among
counts the Gaussian is that of a number that is rounded, and beside zeros with a probability one that is cut at zero.

All of it is on the host, in float64, with SciPy's functions.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.arrays import libraries, transfer
from nmf_xp.arrays.checks import is_real
from nmf_xp.divergences import check_beta
from nmf_xp.problem.overdispersed import NegativeBinomial, as_negative_binomial
from nmf_xp.problem.robust import Robust
from nmf_xp.result.display import loss_name

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    Vector = np.ndarray[Any, Any]
    LogProbability = Callable[[Vector, Vector, Any], Vector]

AT_ONCE = 2**20  # numbers in a table of terms
TERMS = (16, 64, 256, 1024)  # up to these places of the largest term Tweedie's series is summed; beyond it an expansion
WIDTH = 8.0  # of the sum, in square roots of that place: what is farther off is below rounding


class Noise(NamedTuple):
    """A distribution with the mean y, whose variance is dispersion * y^power, or y + dispersion * y^2."""

    name: str
    loss: float | str | NegativeBinomial  # for `beta_loss`
    log_probability: LogProbability  # of v for the mean y and the dispersion
    power: float = 1.0
    counts: bool = False
    fitted: bool = True  # whether its dispersion is found

    def variance(self, y: Vector, dispersion: Any) -> Vector:
        """The variance of what has the mean y."""
        if isinstance(self.loss, NegativeBinomial):
            return y + dispersion * y**2
        return dispersion * y**self.power

    def after(self, seen: Vector, y: Vector, dispersion: Any) -> tuple[Vector, Any]:
        """The mean and the dispersion of the second half of a count with the mean y, where the first one is known.

        Both halves of a negative binomial count have one rate, y g with g of gamma's distribution, of which the first
        tells. For Poisson's they are independent.
        """
        if not isinstance(self.loss, NegativeBinomial):
            return y, dispersion
        a = 1.0 / dispersion
        return y * ((a + seen) / (a + y)), 1.0 / (a + seen)

    def dispersion(self, fit: Any, v: Vector, y: Vector) -> Any:
        """Its dispersion, from a fit and from pairs of entries and their means: 1 for Poisson, else the likeliest."""
        import numpy as np
        from scipy.optimize import minimize_scalar

        if fit.noise is not None:
            found = fit.noise.dispersion
            return np.asarray(transfer.to_host(found) if libraries.is_array(found) else found, dtype=np.float64)
        if not self.fitted:
            return 1.0
        least = np.finfo(np.float64).eps ** 2 * np.mean(v) ** (2.0 - self.power)  # of an exact fit
        middle = math.log(max(float(np.mean((v - y) ** 2 / y**self.power)), least))

        def loss(t: float) -> float:
            return -float(np.sum(self.log_probability(v, y, math.exp(t))))

        return math.exp(minimize_scalar(loss, bounds=(middle - 5.0, middle + 5.0), method="bounded").x)


def noise_of(loss: Any, *, counts: bool, zeros: bool) -> Noise:
    """The noise of a loss, beside losses of `counts`, or for a V with `zeros` that have a probability."""
    found = as_negative_binomial(loss)
    if found is not None:
        loss = found
        fitted = isinstance(loss.dispersion, str)
        given = f" {loss.dispersion:g}" if is_real(loss.dispersion) else "" if loss.of == "global" else f" by {loss.of}"
        given = f" given{given}" if not fitted and not is_real(loss.dispersion) else given
        return Noise(f"negative binomial{given}", loss, negative_binomial, counts=True, fitted=fitted)
    if isinstance(loss, Robust):
        msg = f"`losses` must be those of a noise, got {loss}; a robust loss is no probability of anything"
        raise ValueError(msg)
    beta = check_beta(loss)
    if beta == 1:
        return Noise("Poisson", loss, poisson, counts=True, fitted=False)
    if beta == 2:
        formula = rounded_gaussian if counts else cut_gaussian if zeros else gaussian
        return Noise("Gaussian", loss, formula, power=0.0)
    if beta == 0:
        return Noise("gamma", loss, gamma, power=2.0)
    if 0 < beta < 1:
        p = 2.0 - beta
        return Noise(f"Tweedie {p:g}", loss, lambda v, y, phi: tweedie(v, y, phi, p=p), power=p)
    msg = (
        "`losses` must be Frobenius, Kullback-Leibler, Itakura-Saito, a beta between 0 and 1, or `NegativeBinomial`, "
        f"got {loss_name(beta)}, which is the loss of no noise that is known here"
    )
    raise ValueError(msg)


def poisson(v: Vector, y: Vector, _: Any) -> Vector:
    """The log-probability of a count."""
    from scipy.special import gammaln, xlogy

    found: Vector = xlogy(v, y) - y - gammaln(v + 1.0)
    return found


def negative_binomial(v: Vector, y: Vector, alpha: Any) -> Vector:
    """The log-probability of a count whose variance is y + alpha y^2."""
    import numpy as np
    from scipy.special import betaln, xlogy

    a = 1.0 / alpha
    found: Vector = xlogy(v, y) - v * np.log(a + y) - a * np.log1p(y / a) - np.log(a + v) - betaln(a, v + 1.0)
    return found


def gaussian(v: Vector, y: Vector, variance: Any) -> Vector:
    """The log-density."""
    return -0.5 * ((v - y) ** 2 / variance + math.log(2.0 * math.pi * variance))


def cut_gaussian(v: Vector, y: Vector, variance: Any) -> Vector:
    """The log-density of positive numbers, and the log-probability of zero, which stands for all that is below it."""
    import numpy as np
    from scipy.special import log_ndtr

    return np.where(v > 0, gaussian(v, y, variance), log_ndtr(-y / math.sqrt(variance)))


def rounded_gaussian(v: Vector, y: Vector, variance: Any) -> Vector:
    """The log-probability of the counts within 1/2 of the number; 0 stands for all that is below 1/2."""
    import numpy as np
    from scipy.special import log_ndtr

    sigma = math.sqrt(variance)
    low, high = np.where(v > 0, v - 0.5 - y, -np.inf) / sigma, (v + 0.5 - y) / sigma
    low, high = np.where(low > 0, -high, low), np.where(low > 0, -low, high)  # by symmetry, where less is lost
    upper = log_ndtr(high)
    with np.errstate(divide="ignore"):
        found: Vector = upper + np.log(-np.expm1(log_ndtr(low) - upper))
    return found


def gamma(v: Vector, y: Vector, phi: Any) -> Vector:
    """The log-density for the shape 1 / phi."""
    import numpy as np
    from scipy.special import gammaln

    k = 1.0 / phi
    found: Vector = k * np.log(k * v / y) - k * v / y - np.log(v) - gammaln(k)
    return found


def tweedie(v: Vector, y: Vector, phi: Any, *, p: float) -> Vector:
    """The log-density for 1 < p < 2, a Poisson number of gamma summands, and the log-probability of zero.

    The series of Dunn & Smyth (2005), Statistics and Computing 15, eq. 4, about its largest term. Where that is far
    out, the saddlepoint density takes its place, which is right to less than a thousandth there.
    """
    import numpy as np

    found = -(y ** (2.0 - p)) / (phi * (2.0 - p))
    seen = v > 0
    v, y = v[seen], y[seen]
    place = v ** (2.0 - p) / (phi * (2.0 - p))
    deviance = 2.0 * ((v ** (2.0 - p) - v * y ** (1.0 - p)) / (1.0 - p) - (v ** (2.0 - p) - y ** (2.0 - p)) / (2.0 - p))
    density = -0.5 * (np.log(2.0 * math.pi * phi) + p * np.log(v) + deviance / phi)
    least = 0.0
    for most in TERMS:
        which = np.flatnonzero((place > least) & (place <= most))
        count = math.ceil(most + WIDTH * math.sqrt(most)) + 8
        for start in range(0, len(which), AT_ONCE // count):
            some = which[start : start + AT_ONCE // count]
            kernel = (v[some] * y[some] ** (1.0 - p) / (1.0 - p) - y[some] ** (2.0 - p) / (2.0 - p)) / phi
            density[some] = kernel - np.log(v[some]) + _series(v[some], phi, p, count)
        least = most
    found[seen] = density
    return found


def _series(v: Vector, phi: float, p: float, count: int) -> Vector:
    """The logarithm of the sum over j of z^j / (j! Gamma(j a)), for a = (2 - p) / (p - 1)."""
    import numpy as np
    from scipy.special import gammaln, logsumexp

    a, j = (2.0 - p) / (p - 1.0), np.arange(1.0, count + 1.0)
    log_z = a * np.log(v / (p - 1.0)) - (1.0 + a) * math.log(phi) - math.log(2.0 - p)
    found: Vector = logsumexp(log_z[:, None] * j - gammaln(j + 1.0) - gammaln(a * j), axis=1)
    return found
