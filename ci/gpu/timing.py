"""Milliseconds of an iteration: every solver, the loops that one writes by hand, and torchnmf, on the same data."""

from __future__ import annotations

import importlib.util
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from ci.gpu import plan
from ci.gpu.clock import Clock, counts, factors, uniform
from ci.gpu.iterations import Iterations, plain

if TYPE_CHECKING:
    from ci.gpu.task import Run

BETA_NAMES = {1.0: "kullback-leibler", 2.0: "frobenius"}


class Data(NamedTuple):
    """V on the backend, its bytes, and its shape."""

    V: Any
    size: float
    shape: tuple[int, int]


def main(run: Run) -> None:
    """All cases of the backend; of the data only those of one kind are there at a time."""
    clock = Clock(run.task.backend)
    data: dict[str, Data] = {}
    for case in plan.timed_cases(run.task.column, small=run.small):

        def timed(case: plan.Timed = case) -> dict[str, Any]:
            if case.data not in data:
                data.clear()
                data[case.data] = made(clock, case.data, small=run.small)
            return SIDES.get(case.side, solver)(clock, data[case.data], case)

        if case.side == plan.TORCHNMF and importlib.util.find_spec("torchnmf") is None:
            run.emit(what=case.what, not_run="torchnmf is not installed")
        else:
            run.attempt(case.what, timed)


def made(clock: Clock, kind: str, *, small: bool) -> Data:
    """The data of a kind."""
    shape = plan.sizes(small=small)[kind]
    if kind == "sparse":
        values = counts(shape, plan.entries(small=small))
        return Data(clock.asarray(values), float(values.data.nbytes), shape)
    values = uniform(shape, 0)
    return Data(clock.asarray(values), float(values.nbytes), shape)


def copy(clock: Clock, data: Data, _: plan.Timed) -> dict[str, Any]:
    """V read once and written once: the speed of the memory."""
    ms = clock.milliseconds(lambda: data.V + 1.0, 5)
    return {"ms": ms, "GB/s": 2 * data.size / ms / 1e6}


def loop(clock: Clock, data: Data, case: plan.Timed) -> dict[str, Any]:
    """The plain loop; its most memory too."""
    W, H = (clock.asarray(x) for x in factors(data.shape, case.rank))
    clock.forget_peak()
    ms = clock.milliseconds(lambda: plain(data.V, W, H, case.beta, case.iterations)) / case.iterations
    return {"ms": ms, **in_units(clock.peak(), data)}


def torchnmf(clock: Clock, data: Data, case: plan.Timed) -> dict[str, Any]:
    """torchnmf, by the difference of two calls, which leaves out what a call does besides."""
    from benchmarks import competitors

    W, H = (clock.asarray(x) for x in factors(data.shape, case.rank))
    few = 2  # with so few iterations as here it evaluates no loss between them
    clock.forget_peak()
    times = [
        clock.milliseconds(lambda n=n: competitors.torchnmf(data.V, W, H, n, BETA_NAMES[case.beta]))  # type: ignore[misc]
        for n in (few, few + case.iterations)
    ]
    return {"ms": (times[1] - times[0]) / case.iterations, **in_units(clock.peak(), data)}


def solver(clock: Clock, data: Data, case: plan.Timed) -> dict[str, Any]:
    """A solver's iterations: the first call, which may compile, then the median, the most memory and the waits."""
    W, H = (clock.asarray(x) for x in factors(data.shape, case.rank))
    clock.forget_peak()
    begin = time.perf_counter()
    iterations = Iterations(data.V, W, H, case.side, case.beta)
    clock.wait(iterations.run(case.iterations))
    first = time.perf_counter() - begin
    ms = clock.milliseconds(lambda: iterations.run(case.iterations)) / case.iterations
    most = clock.peak()
    few, more = (clock.waits(lambda n=n: iterations.run(n)) for n in (1, 2))  # type: ignore[misc]
    waits = {} if few is None or more is None else {"waits": more - few}
    return {"ms": ms, "first seconds": first, **in_units(iterations.bytes() if most is None else most, data), **waits}


def in_units(most: int | None, data: Data) -> dict[str, float]:
    """The most memory in units of V."""
    return {} if most is None else {"peak": most / data.size}


SIDES = {plan.COPY: copy, plan.PLAIN: loop, plan.TORCHNMF: torchnmf}
