"""What sees a run: scikit-learn's stopping rule of `mu`, the lines of `verbose`, the user's callback."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from nmf_xp.arrays import libraries, transfer
from nmf_xp.divergences import beta_divergence

if TYPE_CHECKING:
    from collections.abc import Callable

    from nmf_xp import Progress
    from nmf_xp.sklearn.inputs import Observation

EVERY = 10  # iterations from one test of the rule to the next
START = 1e-4  # in place of the zeros of a start, whose divergence could be infinite


class Watch:
    """Called at each check of the loop; True ends the run.

    With a `tol`, it does where the error sqrt(2 D), without penalties, fell by less than `tol` times that of the start
    since the last check.
    """

    def __init__(
        self,
        error: Callable[[Any, Any], float],
        start: tuple[Any, Any],
        *,
        tol: float | None,
        penalised: bool,
        verbose: int,
        callback: Callable[[Progress], Any] | None,
    ) -> None:
        self.error, self.tol, self.penalised, self.verbose, self.callback = error, tol, penalised, verbose, callback
        self.begun = time.perf_counter()
        if tol is not None:
            xp = libraries.array_namespace(*start)
            self.first = self.previous = error(*(xp.where(x == 0, START, x) for x in start))

    def __call__(self, progress: Progress) -> bool:
        """Look at the run."""
        stop = self.callback is not None and bool(self.callback(progress))
        if not self.verbose and self.tol is None:
            return stop
        error = self._error(progress)
        if self.verbose:
            seconds = time.perf_counter() - self.begun
            print(f"Epoch {progress.iteration:02d} reached after {seconds:.3f} seconds, error: {error:f}")  # noqa: T201
        if self.tol is not None and progress.iteration % EVERY == 0:
            stop = stop or self.previous - error < self.tol * self.first
            self.previous = error
        return stop

    def _error(self, progress: Progress) -> float:
        """The error now; of several restarts, the least."""
        if isinstance(progress.divergence, tuple):
            return reconstruction_error(min(progress.divergence))
        if self.penalised:
            return self.error(progress.W, progress.H)
        return reconstruction_error(progress.divergence)


def reconstruction_error(divergence: Any) -> float:
    """sqrt(2 D): the Frobenius norm of the residual for beta 2, and scikit-learn's convention for every other."""
    return max(0.0, 2.0 * float(divergence)) ** 0.5


def error_of(X: Any, *, beta: float, observation: Observation) -> Callable[[Any, Any], float]:
    """The error of W and H as a model of X."""
    return lambda W, H: reconstruction_error(
        transfer.scalar(beta_divergence(X, W, H, beta_loss=beta, **observation._asdict()))
    )
