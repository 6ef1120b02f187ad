"""The runs of the corpus: each matrix with its solvers, losses, dtypes and starts, and what they violate."""

from __future__ import annotations

import functools
import itertools
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nmf_xp.solvers import LOSSES, SOLVERS
from tests.calls import Call, only_documented_warnings
from tests.corpus.matrices import CORPUS, values
from tests.invariants import ANSWERED, COMPARED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BETAS = (-1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
DTYPES = ("float64", "float32")
STARTS = ("random", "nndsvd", "nndsvda", "nndsvdar", "given", "transform")
SHORT = 15
"""Iterations after which two calls with the same answer are compared: more would let rounding grow."""


class Run(NamedTuple):
    """One factorization of the corpus."""

    matrix: str
    beta: float
    solver: str
    dtype: str
    start: str

    def __str__(self) -> str:
        return f"{self.matrix}, beta {self.beta:g}, {self.solver}, {self.dtype}, {self.start}"


class Violation(NamedTuple):
    """A run, the invariant that it violates, and the sentence about it."""

    run: Run
    invariant: str
    sentence: str


def runs() -> Iterator[Run]:
    """All runs, the matrices in turn, so that any part of them has every kind."""
    for dtype, start, beta in itertools.product(DTYPES, STARTS, BETAS):
        for solver in SOLVERS:
            if beta not in LOSSES.get(solver, (beta,)) or (solver == "online" and start == "transform"):
                continue
            for name in CORPUS:
                if not (start.startswith("nndsvd") and np.isnan(dense(name)).any()):
                    yield Run(name, beta, solver, dtype, start)


@functools.cache
def dense(name: str) -> Any:
    V = values(name)
    return V.toarray() if hasattr(V, "toarray") else V


def call_of(run: Run) -> Call:
    """The call of a run; where the loss is infinite on zeros, they are the least positive entry."""
    rank = CORPUS[run.matrix].rank
    V = dense(run.matrix)
    if run.beta <= 0:
        V = np.where(V == 0, V[V > 0].min(), V)
    V = V.astype(run.dtype)
    sparse = hasattr(values(run.matrix), "tocsr") and run.beta > 0
    options: dict[str, Any] = {"beta_loss": run.beta, "solver": run.solver, "random_state": 0}
    if np.isnan(V).any():
        options["missing"] = "nan"
    call = Call(V, rank, options, storage="csr" if sparse else "dense")
    if run.start in ("given", "transform"):
        rng = np.random.default_rng(1)
        scale = np.sqrt(np.nanmean(V) / rank)
        # W a hundred times too large and H as much too small: nothing that a user would notice.
        W = 100 * scale * rng.uniform(0.1, 1.1, (V.shape[0], rank))
        H = scale / 100 * rng.uniform(0.1, 1.1, (rank, V.shape[1]))
        if run.start == "given":
            return call.changed(options={"init": (W.astype(run.dtype), H.astype(run.dtype))})
        del options["random_state"]
        return Call(V, rank, options, components(run), storage=call.storage)
    return call.changed(options={"init": run.start})


@functools.lru_cache(maxsize=8)
def _components(matrix: str, dtype: str) -> Any:
    """Parts of rows of V: as ill-conditioned as real components are, with V's own zeros."""
    V = np.nan_to_num(dense(matrix))
    rank = CORPUS[matrix].rank
    groups = np.random.default_rng(2).permutation(len(V)) % rank
    return np.stack([V[groups == k].mean(axis=0) for k in range(rank)]).astype(dtype)


def components(run: Run) -> Any:
    H = _components(run.matrix, run.dtype)
    return np.where(H == 0, H[H > 0].min(), H) if run.beta <= 0 else H


def violations(run: Run) -> list[Violation]:
    """What a run violates; an exception is a violation of its own."""
    found: list[Violation] = []

    def examine(check: Callable[..., None], *args: Any) -> None:
        try:
            check(*args)
        except AssertionError as error:
            found.append(Violation(run, check.__name__, str(error).split("\n")[0]))
        except Exception as error:
            found.append(Violation(run, check.__name__, f"{type(error).__name__}: {error}"))

    call = call_of(run)
    try:
        [(question, answer)] = call.answers(call.run())
    except Exception as error:
        return [Violation(run, "answers", f"{type(error).__name__}: {error}")]
    for check in ANSWERED:
        examine(check, question, answer)
    short = call.changed(options={"max_iter": SHORT, "tol": 0.0})
    for compare in COMPARED:
        examine(compare, short)
    return found


def in_time(task: tuple[Run, float]) -> list[Violation] | None:
    """What a run violates, where a warning is a violation too; None where the time is over."""
    run, until = task
    if time.time() > until:
        return None
    with only_documented_warnings():
        return violations(run)
