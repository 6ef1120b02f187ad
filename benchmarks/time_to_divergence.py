"""Time to scikit-learn's own divergence after 50, 200 and 1000 iterations, from the same starts.

First the number of iterations that each side needs is found, then runs of exactly so many iterations, without checks,
are timed in turn with scikit-learn's runs. A side that needs more than `MOST_ITERATIONS` times as many iterations, or
more than `MOST_TIME` times the time, is a failure and shown as one.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from benchmarks.competitors import OTHERS, REFERENCE, Side
from benchmarks.ours import resolved, side
from benchmarks.protocol import NOT_INSTALLED, Timing, divergence, interleaved, reason, start, timed
from nmf_xp import Status, nmf

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.datasets import Dataset
    from nmf_xp import Progress

TARGETS = (50, 200, 1000)
MOST_ITERATIONS = 5
MOST_TIME = 10
OUT_OF_BOUNDS = f"not within {MOST_ITERATIONS}x the iterations and {MOST_TIME}x the time"
SLACK = 2.0  # seconds that a search may take longer; whether a side is too slow is for its timed runs to say
ROUNDING = 1e-9  # two programs on one trajectory differ by so much, relative
NEAR = 1e-3  # how much the solver's own figure may be above the target for the exact one to be computed


class Search:
    """At which iteration each target is reached."""

    def __init__(self, targets: dict[int, float], seconds: float) -> None:
        self.targets = targets
        self.seconds = seconds + SLACK  # left to spend
        self.iterations: dict[int, int] = {}
        self.failure = OUT_OF_BOUNDS  # of the targets that are not reached

    def near(self, value: float) -> bool:
        """Whether the exact divergence is worth computing."""
        return any(value <= x * (1 + NEAR) for t, x in self.targets.items() if t not in self.iterations)

    def saw(self, iteration: int, value: float) -> None:
        """Note the targets that this divergence reaches in time."""
        if value != value:
            msg = "not a number"
            raise FloatingPointError(msg)
        for t, target in self.targets.items():
            if t not in self.iterations and iteration <= MOST_ITERATIONS * t and value <= target * (1 + ROUNDING):
                self.iterations[t] = iteration

    def missed(self, iteration: int) -> bool:
        """Whether the iterations allowed for a target have passed without it."""
        return any(t not in self.iterations and iteration >= MOST_ITERATIONS * t for t in self.targets)

    def over(self, iteration: int) -> bool:
        """Whether nothing is left to be found, or the bound is passed."""
        left = [t for t in self.targets if t not in self.iterations and iteration < MOST_ITERATIONS * t]
        return not left or self.seconds < 0


def search_ours(search: Search, solver: str, V: Any, W: Any, H: Any, loss: str) -> None:
    """nmf_xp calls back at every iteration; a check changes nothing of the iteration."""
    begin = time.perf_counter()

    def look(seen: Progress) -> bool:
        nonlocal begin
        search.seconds -= time.perf_counter() - begin
        if search.near(seen.divergence) or seen.divergence != seen.divergence:
            search.saw(seen.iteration, divergence(V, seen.W, seen.H, loss))
        begin = time.perf_counter()  # the exact divergence is not the solver's time
        return search.over(seen.iteration)

    most = MOST_ITERATIONS * max(search.targets)
    options = {"beta_loss": loss, "solver": solver, "tol": 0, "check_every": 1, "max_iter": most}
    result = nmf(V, W.shape[1], init=(W, H), callback=look, **options)  # type: ignore[arg-type]
    if result.status in (Status.INCREASED, Status.NOT_FINITE):
        search.failure = f"{result.status.name} at iteration {result.n_iter}"


def search_other(search: Search, other: Side, V: Any, W: Any, H: Any, loss: str) -> None:
    """A library without a callback is continued from its own factors, in steps of at most 2 % of what it has done.

    Once it has missed a target it is not tried on the later ones.
    """
    iteration = 0
    while not search.over(iteration) and not search.missed(iteration):
        step = max(1, iteration // 50)
        seconds, found = timed(other.start(V, W, H, step, loss))
        W, H = (np.ascontiguousarray(x) for x in found)
        search.seconds -= seconds
        iteration += step
        search.saw(iteration, divergence(V, W, H, loss))


class Reference(NamedTuple):
    """scikit-learn's divergences, and about how long it took to each."""

    targets: dict[int, float]
    seconds: dict[int, float]


def reference_run(reference: Side, V: Any, W: Any, H: Any, loss: str, targets: tuple[int, ...]) -> Reference:
    """One run in parts: neither of its algorithms has a memory, so that it may go on from its own factors."""
    found, total, done, spent = {}, {}, 0, 0.0
    for t in sorted(targets):
        seconds, (W, H) = timed(reference.start(V, W, H, t - done, loss))
        done, spent = t, spent + seconds
        found[t], total[t] = divergence(V, W, H, loss), spent
    return Reference(found, total)


def measure(
    name: str,
    dataset: Dataset,
    loss: str,
    seed: int,
    *,
    sparse: bool,
    solvers: list[str],
    rounds: int,
    budget: float,
    targets: tuple[int, ...] = TARGETS,
    others: list[Side] = OTHERS,
) -> Iterator[dict[str, Any]]:
    """One row a side and target, for one matrix given as CSR or dense, and one start."""
    V = dataset.load()
    if sparse and isinstance(V, np.ndarray):
        import scipy.sparse

        V = scipy.sparse.csr_array(V)
    W, H = start(V, dataset.rank, seed)
    reference = REFERENCE[loss]
    common = {
        "view": "time-to", "loss": loss, "data": name, "input": "csr" if sparse else "dense", "seed": seed,
        "reference": reference.name,
    }  # fmt: skip

    def failed(side: str, error: str) -> list[dict[str, Any]]:
        return [{**common, "side": side, "target": t, "error": error} for t in targets]

    if not reference.installed:
        yield from failed(reference.name, NOT_INSTALLED)
        return
    reference.start(V, W, H, 1, loss)()
    known = reference_run(reference, V, W, H, loss, targets)
    ours = {side(solver).name: solver for solver in solvers if side(solver).takes(V, dataset.rank, loss)}
    sides = {name: side(solver) for name, solver in ours.items()}
    for other in others:
        if other.installed and other is not reference and other.takes(V, dataset.rank, loss):
            sides[other.name] = other
        elif not other.installed and loss in other.losses:
            yield from failed(other.name, NOT_INSTALLED)

    searches: dict[str, Search] = {}
    for x, found in sides.items():
        try:
            found.start(V, W, H, 2, loss)()  # imports and compilation
            search = Search(known.targets, MOST_TIME * known.seconds[max(targets)])
            if x in ours:
                search_ours(search, ours[x], V, W, H, loss)
            else:
                search_other(search, found, V, W, H, loss)
        except Exception as error:
            yield from failed(x, reason(error))
        else:
            searches[x] = search
    jobs: dict[tuple[str, int], Callable[[], Any]] = {}
    for t in targets:
        jobs[reference.name, t] = reference.start(V, W, H, t, loss)
        for x, search in searches.items():
            if t in search.iterations:
                jobs[x, t] = sides[x].start(V, W, H, search.iterations[t], loss)
    timings = interleaved(jobs, rounds=rounds, budget=budget)
    for x, search in searches.items():
        named = {"solver": resolved(ours[x], V, dataset.rank, loss)} if x in ours else {}
        for t in targets:
            row = {**common, "side": x, "target": t, "divergence": known.targets[t], **named}
            if t in search.iterations:
                row["iterations"] = search.iterations[t]
                yield {**row, **_outcome(timings[x, t], timings[reference.name, t], V, row)}
            else:
                yield {**row, "error": search.failure}


def _outcome(timing: Timing, reference: Timing, V: Any, row: dict[str, Any]) -> dict[str, Any]:
    """How often faster it is, or why it failed."""
    if timing.error or reference.error:
        return {"error": timing.error or reference.error}
    reached = divergence(V, timing.output[0], timing.output[1], row["loss"])
    times_faster = reference.median / timing.median
    numbers = {
        "seconds": timing.median, "runs": list(timing.seconds),
        "reference_seconds": reference.median, "reference_runs": list(reference.seconds),
    }  # fmt: skip
    if not reached <= row["divergence"] * (1 + NEAR / 10):
        return {**numbers, "error": f"its timed run ended at {reached:.6g}, above {row['divergence']:.6g}"}
    if times_faster < 1 / MOST_TIME:
        return {**numbers, "error": f"{1 / times_faster:.0f} times slower"}
    return {**numbers, "reached": reached, "times_faster": times_faster}
