"""What every view has in common: the start, the measure and the clock."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nmf_xp import beta_divergence

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

NOT_INSTALLED = "not installed"
LOSSES = ("kullback-leibler", "frobenius")
SKLEARN_EPSILON = float(np.finfo(np.float32).eps)  # the least model that scikit-learn's divergence sees


def start(V: Any, rank: int, seed: int) -> tuple[Any, Any]:
    """scikit-learn's own random start, so that no other side has chosen it; positive, of V's dtype."""
    m, n = V.shape
    rng = np.random.default_rng(seed)
    scale = (float(V.sum(dtype=np.float64)) / (m * n * rank)) ** 0.5
    W, H = (np.abs(rng.standard_normal(shape)) * scale for shape in ((m, rank), (rank, n)))
    return W.astype(V.dtype), H.astype(V.dtype)


def divergence(V: Any, W: Any, H: Any, loss: str) -> float:
    """The divergence in float64, by one function for all sides.

    scikit-learn's factors may hold exact zeros. Where these put a zero of the model under a positive entry, the
    divergence is infinite, and a target that everybody reaches; there the model is raised to scikit-learn's own
    epsilon, which gives the lower target.
    """
    V, W, H = V.astype(np.float64), np.asarray(W, dtype=np.float64), np.asarray(H, dtype=np.float64)
    value = float(beta_divergence(V, W, H, beta_loss=loss))
    if value != float("inf"):
        return value
    V = V if isinstance(V, np.ndarray) else V.toarray()
    model = np.maximum(W @ H, SKLEARN_EPSILON)
    stored = V > 0
    return float((V[stored] * np.log(V[stored] / model[stored])).sum() - V.sum() + model.sum())


class Timing(NamedTuple):
    """Seconds of each run of a job, and what its last run returned; or why it failed."""

    seconds: tuple[float, ...]
    output: Any = None
    error: str = ""

    @property
    def median(self) -> float:
        """Median of the runs; NaN for a job that failed."""
        return statistics.median(self.seconds) if self.seconds and not self.error else float("nan")


def reason(error: Exception) -> str:
    """Why a side failed, short enough for a table."""
    return f"{type(error).__name__}: {str(error).strip()[:60]}"


PAUSE = 0.1


def timed(job: Callable[[], Any], pause: float = PAUSE) -> tuple[float, Any]:
    """Seconds, and what the job returned, after a pause in which the threads of the side before stop to spin.

    OpenBLAS and OpenMP keep a core busy for some time after their last product, waiting for the next.
    """
    if pause:
        time.sleep(pause)
    begin = time.perf_counter()
    output = job()
    return time.perf_counter() - begin, output


def interleaved(
    jobs: Mapping[Any, Callable[[], Any]], *, rounds: int = 3, budget: float = float("inf"), pause: float = PAUSE
) -> dict[Any, Timing]:
    """All jobs once, then all again: A B C A B C, so that a slow minute of the machine meets every side.

    A job that has spent `budget` seconds is not run again, and one that raises is a failure with its message.
    """
    done: dict[Any, Timing] = {name: Timing(()) for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            before = done[name]
            if before.error or (before.seconds and sum(before.seconds) * (1 + 1 / len(before.seconds)) > budget):
                continue
            try:
                seconds, output = timed(job, pause)
            except Exception as error:
                done[name] = Timing(before.seconds, error=reason(error))
            else:
                done[name] = Timing((*before.seconds, seconds), output)
    return done
