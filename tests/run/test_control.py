"""How a run ends, what it shows on the way, and how often it waits for the device."""

from __future__ import annotations

import builtins
import dataclasses
import re
import signal
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import nmf_xp
from nmf_xp import Progress, Status
from nmf_xp.arrays import transfer
from nmf_xp.problem import Factors
from nmf_xp.solvers import SOLVERS
from nmf_xp.solvers.solver import Solver
from nmf_xp.testing import Backend, Target, oracle
from tests import compiled
from tests.compiled import eagerly
from tests.problems import noisy

if TYPE_CHECKING:
    from collections.abc import Mapping


def start(target: Target) -> tuple[Any, ...]:
    return tuple(target.asarray(x) for x in noisy(7, 5, 3, zeros=True))


def run(target: Target, **options: Any) -> nmf_xp.Result:
    """KL on the problem of this file, as the target runs it."""
    return compiled.factorize(target, *start(target), beta_loss=1, solver="mu", **options)


def observed(target: Target, **options: Any) -> nmf_xp.Result:
    """The same where Python drives the loop, which a callback needs."""
    V, W, H = start(target)
    return nmf_xp.nmf(V, 3, init=(W, H), beta_loss=1, solver="mu", **options)


def test_a_run_that_converges_says_so(target: Target) -> None:
    result = run(target, tol=1e-3, check_every=4, max_iter=1000)
    before, last = result.history[-2:]
    assert result.status is Status.CONVERGED
    assert before - last <= 1e-3 * last
    assert result.n_iter < 1000
    assert result.n_iter % 4 == 0
    assert all(x - y > 1e-3 * y for x, y in zip(result.history[:-2], result.history[1:-1], strict=True))


def test_converging_on_the_last_iteration_is_convergence(target: Target) -> None:
    """The status is carried: n_iter == max_iter in both of these."""
    n_iter = run(target, tol=1e-3, max_iter=1000).n_iter
    last = run(target, tol=1e-3, max_iter=n_iter)
    assert (last.n_iter, last.status) == (n_iter, Status.CONVERGED)
    short = run(target, tol=1e-3, max_iter=n_iter - 10)
    assert (short.n_iter, short.status) == (n_iter - 10, Status.MAX_ITER)


@pytest.mark.parametrize(("max_iter", "check_every"), [(1, 10), (12, 5), (10, 5), (7, 1)])
def test_the_history_has_the_start_and_each_check(target: Target, max_iter: int, check_every: int) -> None:
    result = run(target, tol=1e-12, max_iter=max_iter, check_every=check_every)
    V, W, H = noisy(7, 5, 3, zeros=True)
    floor = float(np.finfo(np.float64).smallest_normal)
    expected = [oracle.divergence(V, W, H, 1)]
    for n in [min(check_every, max_iter - done) for done in range(0, max_iter, check_every)]:
        W, H = oracle.factorize(V, W, H, 1, n, floor)
        expected.append(oracle.divergence(V, W, H, 1))
    assert (result.n_iter, result.status) == (max_iter, Status.MAX_ITER)
    assert result.history == pytest.approx(expected, rel=1e-10)
    assert result.divergence == pytest.approx(expected[-1], rel=1e-10)


@eagerly
def test_without_a_tolerance_every_iteration_runs(target: Target) -> None:
    """Even where nothing changes any more: 1 x 1 data are reproduced in the first iteration."""
    V = target.asarray(np.asarray([[3.0]]))
    result = nmf_xp.nmf(V, 1, tol=0, max_iter=23, random_state=0)
    assert (result.n_iter, result.status, result.history) == (23, Status.MAX_ITER, ())
    seen: list[int] = []
    result = nmf_xp.nmf(V, 1, tol=0, max_iter=23, random_state=0, callback=lambda p: seen.append(p.iteration))
    assert (result.n_iter, result.status, seen) == (23, Status.MAX_ITER, [10, 20, 23])
    assert len(result.history) == 4


def test_the_stop_test_does_not_depend_on_the_scale_of_the_start() -> None:
    """From (W, H) and from (1000 W, H) alike: the first update of W takes the scale out."""
    V, W, H = noisy(7, 5, 3)
    runs = [nmf_xp.nmf(V, 3, init=(s * W, H), beta_loss=1, tol=1e-5, max_iter=2000) for s in (1.0, 1e-3, 1e3)]
    assert runs[0].status is Status.CONVERGED
    assert {result.n_iter for result in runs} == {runs[0].n_iter}


def test_the_stop_test_does_not_depend_on_how_bad_the_start_is() -> None:
    """A start of a huge divergence does not end the run early."""
    V = noisy(9, 8, 3).V
    good = nmf_xp.nmf(V, 3, beta_loss=1, random_state=0, tol=1e-4, max_iter=2000)
    rng = np.random.default_rng(1)
    W, H = 1e6 * rng.uniform(size=(9, 3)) ** 8, rng.uniform(size=(3, 8)) ** 8
    bad = nmf_xp.nmf(V, 3, beta_loss=1, init=(W, H), tol=1e-4, max_iter=2000)
    assert bad.history[0] > 1e3 * good.history[0]
    assert bad.status is Status.CONVERGED
    assert bad.divergence < 1.2 * good.divergence


@eagerly
def test_a_callback_sees_each_check(target: Target) -> None:
    seen: list[Progress] = []
    result = observed(target, tol=1e-12, max_iter=12, check_every=5, callback=seen.append)
    assert [progress.iteration for progress in seen] == [5, 10, 12]
    assert [progress.divergence for progress in seen] == list(result.history[1:])
    for progress in seen:
        V, W, H = (target.to_numpy(x) for x in (start(target)[0], progress.W, progress.H))
        assert oracle.divergence(V, W, H, 1) == pytest.approx(progress.divergence, rel=1e-12)
    last, returned = (target.to_numpy(x) for x in (seen[-1].W @ seen[-1].H, result.W @ result.H))
    np.testing.assert_allclose(last, returned, rtol=1e-9, atol=1e-11)  # the last one, balanced and with zeros
    plain = observed(target, tol=1e-12, max_iter=12, check_every=5)
    np.testing.assert_array_equal(target.to_numpy(plain.W), target.to_numpy(result.W))


@eagerly
def test_a_callback_may_stop_the_run(target: Target) -> None:
    result = observed(target, tol=0, max_iter=100, check_every=3, callback=lambda progress: progress.iteration >= 6)
    assert (result.n_iter, result.status) == (6, Status.STOPPED)
    assert "callback" in result.status.message


def test_the_factors_that_a_callback_keeps_stay_as_they_were() -> None:
    kept: list[Progress] = []
    observed(Backend.NUMPY.target(), tol=0, max_iter=30, check_every=1, callback=kept.append)
    V = noisy(7, 5, 3, zeros=True).V
    divergences = [oracle.divergence(V, np.asarray(p.W), np.asarray(p.H), 1) for p in kept]
    assert divergences == pytest.approx([p.divergence for p in kept], rel=1e-12)


@eagerly
@pytest.mark.parametrize("transforms", [False, True], ids=["nmf", "transform"])
def test_an_interrupt_returns_control_and_corrupts_nothing(target: Target, transforms: bool) -> None:
    """Ctrl-C, sent as the signal that it is."""
    given, before = start(target), noisy(7, 5, 3, zeros=True)
    V, W, H = given

    def interrupt(progress: Progress) -> None:
        if progress.iteration >= 20:
            signal.raise_signal(signal.SIGINT)

    options: dict[str, Any] = {"beta_loss": 1, "tol": 0, "callback": interrupt, "max_iter": 1000}
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background process ignores the signal
    try:
        with pytest.raises(KeyboardInterrupt):
            nmf_xp.transform(V, H, init=W, **options) if transforms else nmf_xp.nmf(V, 3, init=(W, H), **options)
    finally:
        signal.signal(signal.SIGINT, inherited)
    for x, expected in zip(given, before, strict=True):
        np.testing.assert_array_equal(target.to_numpy(x), expected)
    assert observed(target, max_iter=20).n_iter == 20  # and the library still works


@dataclasses.dataclass(frozen=True)
class Faulty(Solver):
    """A solver whose step multiplies W by a factor."""

    factor: float = 1.0

    def stacks(self, W: Any, problem: Any) -> bool:
        return True

    def init(self, problem: Any, W: Any, H: Any, *, xp: Any) -> Any:
        return Factors(W, H)

    def step(self, state: Any, problem: Any, *, xp: Any) -> Any:
        return state._replace(W=state.W * self.factor)


@pytest.mark.parametrize(
    ("factor", "status"), [(1.5, Status.INCREASED), (float("nan"), Status.NOT_FINITE), (1e200, Status.NOT_FINITE)]
)
def test_a_run_that_goes_wrong_says_so(
    target: Target, monkeypatch: pytest.MonkeyPatch, factor: float, status: Status
) -> None:
    monkeypatch.setitem(
        SOLVERS,
        "faulty",
        lambda **settings: Faulty(**settings, factor=factor),
    )
    V, W, H = (target.asarray(x) for x in noisy(7, 5, 3))
    with np.errstate(over="ignore", invalid="ignore"):
        run = target.compile(lambda V, W, H: nmf_xp.nmf(V, 3, init=(4 * W, H), solver="faulty", check_every=2))
        result = run(V, W, H)
    assert (result.n_iter, result.status) == (2, status)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every value of array_api_strict that becomes a Python or a NumPy one, by any way there is."""
    strict = pytest.importorskip("array_api_strict")
    log: list[str] = []
    cls = type(strict.asarray(1.0))
    for name in (
        "__float__",
        "__int__",
        "__bool__",
        "__index__",
        "__complex__",
        "__array__",
        "__buffer__",
        "__dlpack__",
    ):
        if hasattr(cls, name):
            monkeypatch.setattr(cls, name, logged(getattr(cls, name), name, log))
    monkeypatch.setattr(transfer, "to_host", logged(transfer.to_host, "to_host", log))
    return log


def logged(function: Any, name: str, log: list[str]) -> Any:
    def wrapper(*args: Any, **options: Any) -> Any:
        log.append(name)
        return function(*args, **options)

    return wrapper


def count(reads: list[str], **options: Any) -> int:
    target = Backend.STRICT.target()
    V, W, H = start(target)
    reads.clear()
    nmf_xp.nmf(V, 3, init=(W, H), beta_loss=1, **options)
    return len(reads)


def test_without_a_tolerance_nothing_is_read_back(reads: list[str]) -> None:
    """The reads are those of the validation, however long the run."""
    assert count(reads, tol=0, max_iter=1) == count(reads, tol=0, max_iter=50) > 0


def test_each_check_reads_one_scalar(reads: list[str]) -> None:
    """And what is returned some more, however long the run: are there zeros to be made, may they stay, and is
    anything left at the floor?"""
    validation, most_at_the_end = count(reads, tol=0, max_iter=1), 15
    for options, checks in (
        ({"tol": 1e-300, "max_iter": 30, "check_every": 10}, 4),  # at the start, 10, 20, 30
        ({"tol": 1e-300, "max_iter": 30, "check_every": 30}, 2),
        ({"tol": 1e-300, "max_iter": 12, "check_every": 1}, 13),
        ({"tol": 0, "max_iter": 30, "check_every": 10, "callback": lambda _: None}, 4),
    ):
        assert 0 <= count(reads, **options) - validation - checks <= most_at_the_end


def test_a_progress_bar_appears_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tqdm")
    result = observed(Backend.NUMPY.target(), progress=True, tol=0, max_iter=25)
    shown = capsys.readouterr().err
    assert "25/25" in shown
    assert f"divergence={result.divergence:.6g}" in shown
    assert re.search(r"10/25 \[\d\d:\d\d, at most \d\d:\d\d left, ", shown)
    observed(Backend.NUMPY.target(), tol=0, max_iter=25)
    assert capsys.readouterr().err == ""


def test_a_progress_bar_is_closed_when_the_run_is_interrupted(capsys: pytest.CaptureFixture[str]) -> None:
    tqdm = pytest.importorskip("tqdm").tqdm

    def interrupt(_: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        observed(Backend.NUMPY.target(), progress=True, callback=interrupt)
    assert not getattr(tqdm, "_instances", ())
    assert "10/200" in capsys.readouterr().err


def test_a_progress_bar_without_tqdm_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    imported = builtins.__import__

    def without_tqdm(name: str, globals: Mapping[str, Any] | None = None, *rest: Any) -> Any:  # noqa: A002
        if name.partition(".")[0] == "tqdm":
            msg = "No module named 'tqdm'"
            raise ImportError(msg)
        return imported(name, globals, *rest)

    monkeypatch.setattr(builtins, "__import__", without_tqdm)
    with pytest.raises(ImportError, match=r"`progress=True` needs tqdm: pip install \"nmf_xp\[progress\]\""):
        observed(Backend.NUMPY.target(), progress=True)


@eagerly
@pytest.mark.parametrize("solver", ["mu", "mm", "online"])
def test_a_callback_that_writes_into_the_factors_changes_no_run(target: Target, solver: str) -> None:
    def write(progress: Progress) -> None:
        factors: tuple[Any, ...] = progress.W, progress.H
        for x in factors:
            if target.is_jax:  # whose arrays nobody can write into
                continue
            x[...] = 1e30

    V, W, H = start(target)
    options: dict[str, Any] = {"init": (W, H), "solver": solver, "tol": 0, "max_iter": 20, "check_every": 5}
    plain = nmf_xp.nmf(V, W.shape[-1], callback=lambda _: None, **options)
    written = nmf_xp.nmf(V, W.shape[-1], callback=write, **options)
    for name in ("W", "H"):
        np.testing.assert_array_equal(target.to_numpy(getattr(plain, name)), target.to_numpy(getattr(written, name)))


def test_a_callback_that_writes_into_the_state_of_a_stream_changes_no_run() -> None:
    from nmf_xp.online import online_nmf, online_start

    def write(_step: int, _cost: float, state: Any) -> None:
        for x in state[:4]:
            x[...] = 1e30

    V = noisy(40, 7, 3).V
    runs = [
        online_nmf(V, None, online_start(np.ones((3, 7)) + np.eye(3, 7)), batch_size=10, max_iter=3, callback=callback)
        for callback in (None, write)
    ]
    np.testing.assert_array_equal(runs[0].state.H, runs[1].state.H)
    np.testing.assert_array_equal(runs[0].W, runs[1].W)
