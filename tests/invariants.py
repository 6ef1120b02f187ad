"""What holds for every answer of the library, each as a function that raises AssertionError with a sentence.

`ANSWERED` are those of one answer: functions of a call's `Question` and `Answer`. `COMPARED` are those that set a call
beside another one that must have the same answer: functions of a `Call`.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from nmf_xp.arrays import transfer
from nmf_xp.solvers.online import OnlinePasses
from tests.calls import SPARSE
from tests.optimum import best_from

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.calls import Answer, Call
    from tests.reference import Question

    Matrix = np.ndarray[Any, Any]

DECADES = 3.0
"""How far the norms of a column of W and its row of H may be apart, as a power of ten."""
REMAINING, REMAINING_CONVEX = 1e-2, 1e-3
"""What may still be gained from where a run is said to have converged, relative, for the `tol` that is the default."""
BATCH = OnlinePasses.batch_size
"""Rows of a batch of "online", unless it is asked for others."""
TINY = {"float64": 1e-100, "float32": 1e-30}
"""Relative to the largest entry of its component, a positive entry below this stands for a zero."""
SAME = {"float64": 1e-6, "float32": 1e-2}
"""What the models of two calls with the same answer may differ by after a few iterations, in norm, relative."""
SENSITIVE = 10.0
"""How many times as far as a rounding error of V moves the model."""


def finite(question: Question, answer: Answer) -> None:
    """Factors are finite and not negative, and keep their upper bounds; numbers are no NaN."""
    for name, x, terms in (("W", answer.W, question.w), ("H", answer.H, question.h)):
        assert np.isfinite(x).all(), f"{name} has {np.isnan(x).sum()} NaN and {np.isinf(x).sum()} infinities"
        assert x.min() >= 0, f"{name} has the negative entry {x.min():.3g}"
        if terms.upper is not None:
            free = True if terms.fixed is None else ~terms.fixed
            assert not np.any((x > terms.upper * (1 + answer.eps)) & free), f"{name} exceeds its upper bound"
    for what in ("divergence", "objective", "residual"):
        value = getattr(answer, what)
        assert value >= 0, f"the {what} is {value}"


def balanced(question: Question, answer: Answer) -> None:
    """The columns of W and the rows of H are of one order where nothing else decides it, and die together."""
    if answer.normalized or question.given_h or any(t.penalised or t.bounded for t in (question.w, question.h)):
        return
    for k, (a, b) in enumerate(zip(_norms(answer.W, 0), _norms(answer.H, 1), strict=True)):
        assert (a == 0) == (b == 0), f"component {k} is zero in one factor and has norm {max(a, b):.1e} in the other"
        if a > 0:
            apart = abs(np.log10(a) - np.log10(b))
            assert apart < DECADES, f"component {k} has norm {a:.1e} in W and {b:.1e} in H"


def _norms(X: Matrix, axis: int) -> Matrix:
    largest = np.max(X, axis=axis, keepdims=True)
    scaled = np.divide(X, largest, out=np.zeros_like(X), where=largest > 0)
    return np.squeeze(largest, axis) * np.sqrt(np.sum(scaled**2, axis=axis))


def zeros_exact(question: Question, answer: Answer) -> None:
    """What is meant to be zero is 0.0: no positive entry is out of all proportion, or a floor that several share.

    Entries without which the objective or the residual would be higher, or that would grow from zero, are no zeros.
    With a residual above 1 some zero is to grow out of all proportion: what is meant is not known yet.
    """
    if answer.residual > 1:
        return
    tiny = TINY["float32" if answer.eps > 1e-10 else "float64"]
    factors = [("W", answer.W, question.w, question.V)]
    if not question.given_h:
        factors.append(("H", answer.H.T, question.h, question.V.T))
    suspects, sentences = {name: np.zeros_like(x, dtype=bool) for name, x, *_ in factors}, []
    for name, x, terms, data in factors:
        free = np.ones_like(x, dtype=bool) if terms.fixed is None else ~(terms.fixed if name == "W" else terms.fixed.T)
        small = free & (x > 0) & (x < tiny * x.max(axis=0, keepdims=True))
        suspects[name] |= small
        if small.any():
            sentences.append(f"{small.sum()} entries of {name} are positive and below {tiny:.0e} of their component")
        for k in range(x.shape[1]):
            positive = x[free[:, k] & (x[:, k] > 0), k]
            if not positive.size or positive.min() > 1e-6 * positive.max():
                continue
            rows = free[:, k] & (x[:, k] == positive.min())
            different, least = len(np.unique(data[rows], axis=0)), positive.min()
            if different >= 3:
                suspects[name][rows, k] = True
                sentences.append(f"{different} rows of {name} share {least:.1e}, the least of component {k}: a floor")
    if not sentences:
        return

    def emptied() -> tuple[Matrix, Matrix]:
        H = np.where(suspects["H"].T, 0.0, answer.H) if "H" in suspects else answer.H
        return np.where(suspects["W"], 0.0, answer.W), H

    # An entry with more of which the objective would be lower, were it zero, is none: beside the zeros of the other
    # factor, or beside that factor as it is, where two entries that explain one of V wait for each other.
    W0, H0 = emptied()
    for w_side, h_side in (((W0, H0), (W0, H0)), ((W0, answer.H), (answer.W, H0))):
        slopes = question.slopes(*w_side)[0], question.slopes(*h_side)[1]
        for (push, pull), name in zip(slopes, list(suspects), strict=False):
            wanted = (pull > push) | np.isinf(pull)  # where the model is zero, the pull is the steeper of the two
            suspects[name] = suspects[name] & ~(wanted.T if name == "H" else wanted)
    here, there = question.objective(answer.W, answer.H), question.objective(*emptied())
    allowed = here * max(1e-9, 32 * answer.eps) + question.rounding(answer.W, answer.H, answer.eps)
    found = sum(int(where.sum()) for where in suspects.values())
    if not found or not there <= here + allowed:
        return
    # Nor are they zeros where without them others would be far from their optimum.
    sentences.append(f"{found} of these entries could be 0")
    assert question.residual(*emptied()) > 2 * question.residual(answer.W, answer.H) + 1e-3, "; ".join(sentences)


def reported(question: Question, answer: Answer) -> None:
    """Divergence, objective and optimality residual are those of the factors that came back."""
    W, H = answer.W, answer.H
    allowed = 4 * question.rounding(W, H, answer.eps)
    with np.errstate(over="ignore"):
        if np.isinf(np.max(question.V) ** question.beta):  # beyond float64 itself
            return
    for what in ("divergence", "objective"):
        said, true = getattr(answer, what), getattr(question, what)(W, H)
        right = abs(said - true) <= allowed if np.isfinite(true) else not np.isfinite(said)
        assert right, f"the {what} is said to be {said:.9g} and is {true:.9g}; rounding explains {allowed:.1e}"
    true = question.residual(W, H)
    # A penalty that is far beyond the data leaves the factors where less would, as is documented.
    beyond = answer.objective > 1e12 * answer.divergence or question.far_beyond
    if not beyond and np.isfinite(question.divergence(W, H)) and np.isfinite(true):
        m, n = question.V.shape
        allowed = 1e-6 + 64 * (m + n + W.shape[-1]) * answer.eps * (1 + true)
        said = answer.residual
        assert abs(said - true) <= allowed, f"the residual is said to be {said:.6g} and is {true:.6g}"


def never_rises(question: Question, answer: Answer) -> None:
    """The objective falls from check to check, but for rounding, and no run ends by a rise."""
    if answer.solver == "online":
        return
    rounding = question.rounding(answer.W, answer.H, answer.eps)
    for i, (before, after) in enumerate(itertools.pairwise(answer.history)):
        allowed = 64 * answer.eps * before + 4 * rounding
        assert not after > before + allowed, f"check {i + 1} rose from {before:.9g} to {after:.9g}"
    assert answer.status != "INCREASED", f"the run ended by a rise, {answer.history[-2:]}"


def status_honest(question: Question, answer: Answer) -> None:
    """From where a run is said to have converged, a long one gains next to nothing."""
    if answer.status != "CONVERGED" or answer.objective > 1e12 * answer.divergence:
        return
    here = question.objective(answer.W, answer.H)
    if not np.isfinite(here):
        return
    best = best_from(question, answer.W, answer.H)
    share = (REMAINING_CONVEX if question.convex else REMAINING) * max(1.0, answer.tol / 1e-4)
    allowed = share * here + 4 * question.rounding(answer.W, answer.H, answer.eps)
    assert here - best <= allowed, f"converged at {here:.6g}, and a long run from there reaches {best:.6g}"


ANSWERED: tuple[Callable[[Question, Answer], None], ...] = (
    finite,
    balanced,
    zeros_exact,
    reported,
    never_rises,
    status_honest,
)


def same_in_units_of_four(call: Call) -> None:
    """V times 4^k has the factors times 2^k, bit for bit where the divergence has no powers but integer ones."""
    first = call.run()
    question = call.question()
    exact = question.beta in (0.0, 1.0, 2.0)
    for k in (-3, 7):
        result = in_units(call, 2.0**k).run()
        for name, scaled, plain in (("W", result.W, first.W), ("H", result.H, first.H)):
            power = 2.0**k
            if call.H is not None or call.options.get("normalize") is not None:
                fixed = call.options.get("normalize") or "H"  # the factor that has units of its own
                power = 1.0 if name == fixed else 4.0**k
            if exact:
                off = int(np.sum(transfer.to_host(scaled) != transfer.to_host(plain) * power))
                assert off == 0, f"{off} entries of {name} differ where V is 4^{k} times what it was"
        _assert_same(call, first, result, scale=4.0**k, what=f"with V times 4^{k}")


def same_in_other_units(call: Call) -> None:
    """V times 1000 has the same model times 1000."""
    first, second = call.run(), in_units(call, np.sqrt(1000.0)).run()
    _assert_same(call, first, second, scale=1000.0, what="with V times 1000")


def same_in_extreme_units(call: Call) -> None:
    """The same near the ends of the dtype's range."""
    first = call.run()
    half = 41 if call.V.dtype == np.float32 else 382  # 4^41 = 5e24, 4^382 = 1e230
    high = float(np.nanmax(call.V))
    for k in (half, -half):
        k -= int(np.floor(np.log2(high) / 2)) if high > 0 else 0
        least = float(np.min(call.V, initial=np.inf, where=call.V > 0)) * 4.0**k
        if least < float(np.finfo(call.V.dtype).smallest_normal):
            continue  # what is smaller than a normal number is not the same number in other units
        _assert_same(call, first, in_units(call, 2.0**k).run(), scale=4.0**k, what=f"with V times 4^{k}")


def in_units(call: Call, root: float) -> Call:
    """The same problem with V times root^2, and the start in the same units."""
    V = (call.V * np.asarray(root, call.V.dtype)) * np.asarray(root, call.V.dtype)
    init = call.options.get("init")
    if isinstance(init, tuple):
        return call.changed(V=V, options={"init": tuple(x * np.asarray(root, x.dtype) for x in init)})
    if isinstance(init, np.ndarray):
        return call.changed(V=V, options={"init": init * np.asarray(root, init.dtype) * np.asarray(root, init.dtype)})
    return call.changed(V=V)


def same_in_other_memory_order(call: Call) -> None:
    first = call.changed(storage="dense").run() if call.storage in SPARSE else call.run()
    for storage in ("fortran", "strided"):
        _assert_same(call, first, call.changed(storage=storage).run(), what=f"with V {storage}")


def same_when_sparse(call: Call) -> None:
    if call.options.get("missing") == "nan":
        return  # NaN would have to be stored
    first, other_steps = call.changed(storage="dense"), _storage_decides(call)
    for storage in SPARSE[:2]:
        _assert_calls_agree(first, call.changed(storage=storage), other_steps=other_steps, what=f"with V as {storage}")


def same_with_weights_of_one(call: Call) -> None:
    # With weights "cd" and "cd-plain" solve for the loadings of a row to the end; without they make a few sweeps.
    by_rows = _solver(call)[0] in ("cd", "cd-plain", "auto")
    solved = call.question().convex and call.question().beta == 2 and by_rows
    other_steps = solved or (call.storage in SPARSE and _storage_decides(call))
    for what, weights in (("a weight of 1 for each entry", np.ones_like(call.V)), ("weights of True", call.V > -1)):
        weights = np.where(np.isnan(call.V), 1, weights).astype(weights.dtype)
        weighted = call.changed(options={"weights": weights})
        _assert_calls_agree(call, weighted, other_steps=other_steps, what=f"with {what}")


def _solver(call: Call) -> tuple[str, dict[str, Any]]:
    """The name of the solver that is asked for, and its options."""
    solver = call.options.get("solver", "auto")
    return solver if isinstance(solver, tuple) else (solver, {})


def _storage_decides(call: Call) -> bool:
    """Whether the solver takes other steps for entries that are stored one by one.

    "cd" makes as many sweeps as cost what the products with V do, and "mm" updates W and H in turn there.
    """
    beta, solver = call.question().beta, _solver(call)[0]
    return (beta == 2 and solver in ("cd", "auto")) or (0 <= beta < 2 and beta != 1 and solver in ("mm", "auto"))


def _assert_calls_agree(first: Call, second: Call, *, other_steps: bool, what: str) -> None:
    """Both have the same model; by other steps both are right, and end in the same minimum where there is but one."""
    results = first.run(), second.run()
    if not other_steps:
        _assert_same(first, *results, what=what)
        return
    for call, result in zip((first, second), results, strict=True):
        for question, answer in call.answers(result):
            for check in (finite, reported, never_rises):
                check(question, answer)
    if first.question().convex:
        long = [call.changed(options={"max_iter": 5000, "tol": 1e-9}).run() for call in (first, second)]
        if any(result.status.name != "CONVERGED" for result in long):
            return  # one sweep an iteration may need more
        ends = [result.objective for result in long]
        size = first.question().objective(np.zeros((first.V.shape[0], first.rank)), transfer.to_host(results[0].H))
        allowed = REMAINING_CONVEX * min(ends) + SAME[first.V.dtype.name] ** 2 * size
        assert ends[0] == ends[1] or abs(ends[0] - ends[1]) <= allowed, (
            f"{what} the minimum is {ends[1]:.9g}, and without {ends[0]:.9g}"
        )


def same_with_rows_permuted(call: Call) -> None:
    """Rows of V in another order give rows of W in that order."""
    init = call.options.get("init", "random")
    name, settings = _solver(call)
    in_batches = name == "online" and settings.get("batch_size", BATCH) < call.V.shape[0]
    if in_batches or (isinstance(init, str) and call.H is None):
        return  # which rows are a batch, and where a start has its numbers, follows the order of the rows
    first = call.run()
    order = np.random.default_rng(0).permutation(call.V.shape[0])
    options = {}
    if not isinstance(init, str):
        options["init"] = (init[0][order], init[1]) if isinstance(init, tuple) else init[order]
    second = call.changed(V=call.V[order], options=options).run()
    _compare(_model(first)[order], _model(second), call, "with the rows in another order")


def _assert_same(call: Call, first: Any, second: Any, *, scale: float = 1.0, what: str) -> None:
    _compare(_model(first), _model(second, scale), call, what)


def _model(result: Any, scale: float = 1.0) -> Matrix:
    """WH in this unit. The product of the factors as they are may overflow where V is near the end of the range."""
    W, H = (transfer.to_host(x).astype(np.float64) for x in (result.W, result.H))
    a, b, c = (int(np.frexp(x)[1]) for x in (np.max(W, initial=0.0), np.max(H, initial=0.0), scale))
    return np.ldexp(np.ldexp(W, -a) @ np.ldexp(H, -b), a + b - c) / float(np.ldexp(scale, -c))


def _compare(first: Matrix, second: Matrix, call: Call, what: str) -> None:
    unit = float(np.max(np.abs(first), initial=0.0)) or 1.0  # whose square may be beyond all numbers
    first, second = first / unit, second / unit
    size = float(np.linalg.norm(first))
    apart = float(np.linalg.norm(first - second)) / size if size > 0 else float(np.linalg.norm(second) > 0)
    allowed = SAME[call.V.dtype.name]
    if apart > allowed and size > 0:
        allowed = max(allowed, SENSITIVE * _sensitivity(call, unit) / size)
    assert apart <= allowed, (
        f"{what} the model differs by {apart:.1e}, relative, in norm; rounding explains {allowed:.1e}"
    )


def _sensitivity(call: Call, unit: float) -> float:
    """How far the model moves, in norm, in a unit, where entries of V and of a start change by their rounding error."""
    rng, models = np.random.default_rng(0), []
    for _ in range(10):
        moved = in_units(call, 1.0 + float(np.finfo(call.V.dtype).eps) * int(rng.integers(1, 4)))
        V = moved.V * (1 + np.finfo(call.V.dtype).eps * rng.choice([-1, 1], size=call.V.shape))
        models.append(_model(moved.changed(V=V.astype(call.V.dtype)).run()) / unit)
    return max(float(np.linalg.norm(x - models[0])) for x in models[1:])


COMPARED: tuple[Callable[[Call], None], ...] = (
    same_in_units_of_four,
    same_in_other_units,
    same_in_extreme_units,
    same_in_other_memory_order,
    same_when_sparse,
    same_with_weights_of_one,
    same_with_rows_permuted,
)
