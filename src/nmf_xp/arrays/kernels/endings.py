"""What is returned of the factors of small dense matrices, in one call: a twin of `ended` in `run/ending.py`.

That file says why. Its functions stand here in their order, for one matrix and without penalties and bounds, so that
the objective is the divergence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nmf_xp.arrays import threads
from nmf_xp.arrays.kernels.compiling import entry, jit
from nmf_xp.arrays.kernels.held import (
    AT_FLOOR,
    SMALL,
    SPECK,
    balance,
    copied,
    entry_violation,
    held_by,
    is_clear,
    is_left,
    is_near,
    kkt_residual,
    largest_entries,
    same,
    shares_of,
    smallest_entry,
)
from nmf_xp.arrays.kernels.looks import look
from nmf_xp.arrays.kernels.tiling import as_members, copy

if TYPE_CHECKING:
    from numpy.typing import NDArray

LOOKS = 2  # of a search for zeros, at least


def dense_ending(
    V: NDArray[Any],
    W: NDArray[Any],
    H: NDArray[Any],
    *,
    beta: float,
    floor: float,
    alone: bool,
    polish: bool,
    constants: tuple[float, float],
    limits: tuple[float, ...],
) -> tuple[NDArray[Any], ...]:
    """W, H, divergence, residual and gap of what is returned, for one matrix or a stack and beta 1 or 2.

    The constants are those of `dense_report`; the limits are the numbers by which `ended` judges, in the order of
    `_ended`.
    """
    before = W, H
    W, H = np.array(W, order="C"), np.array(H, order="C")
    found = np.empty((*W.shape[:-2], 3))
    number, info = W.dtype.type, np.finfo(W.dtype)
    looks: Any = tuple(map(number, (floor, info.smallest_normal, info.eps, *constants)))
    rest: Any = looks, tuple(map(float, limits)), beta == 2, alone, polish
    arrays = [as_members(x) for x in (V, *before, W, H)]
    flat = found.reshape(-1, 3)

    def work(start: int, stop: int) -> None:
        some = (x[start:stop] if x.shape[0] > 1 else x for x in arrays)
        arguments: Any = (*some, flat[start:stop], *rest)
        _members(*arguments)

    threads.over_rows(flat.shape[0], work, products=LOOKS * 3 * W.size * H.shape[-1])
    return W, H, *(found[..., i][()] for i in range(3))


@entry("x3, x3, x3, x3, x3, f2, (x, x, x, x, x), (f, f, f, f, f, f, f), b, b, b")
def _members(
    V: Any,
    before_w: Any,
    before_h: Any,
    W: Any,
    H: Any,
    found: Any,
    looks: Any,
    limits: Any,
    squares: bool,
    alone: bool,
    polish: bool,
) -> None:
    for c in range(W.shape[0]):
        problem = V[c % V.shape[0]], looks, squares, alone
        if polish:
            _ended(problem, before_w[c], before_h[c], W[c], H[c], found[c], limits)
        else:
            seen = _look(problem, W[c], H[c])
            found[c, 0], found[c, 2] = seen[2][0], seen[2][1]
            found[c, 1] = kkt_residual(W[c], H[c], seen, 0.0, looks[1], alone)


@jit
def _ended(problem: Any, before_w: Any, before_h: Any, W: Any, H: Any, found: Any, limits: Any) -> None:
    """The factors in place, and what is `found` of them."""
    _, (floor, tiny, eps, _, unseen), _, alone = problem
    negligible, least, dead, no_worse, margin, steep, shows = limits
    w_shares, h_shares = shares_of(before_w, before_h, tiny)
    if not alone:
        balance(W, H)
    first = _look(problem, W, H)
    residual = kkt_residual(W, H, first, floor, tiny, alone)
    found[0], found[1], found[2] = first[2][0], residual, first[2][1]
    bounds = floor, least, negligible, shows
    clear = is_clear(before_w, W, w_shares, first[0], bounds)
    if clear and alone and smallest_entry(H) * shows >= floor:
        return
    if clear and not alone and is_clear(before_h, H, h_shares, first[1], bounds):
        return
    held = (
        w_shares,
        h_shares,
        held_by(before_w, w_shares, least, floor, eps),
        held_by(before_h, h_shares, least, floor, eps),
    )
    _drop_unseen(W, first[0], unseen)
    if not alone:
        _drop_unseen(H, first[1], unseen)
    residual = kkt_residual(W, H, first, floor, tiny, alone)
    limit = 1.5 * min(residual, 1.0) + margin
    noise = 64.0 * eps + 0.0 * residual
    near = min(max(1.5 * residual, 64.0 * eps), steep)
    factors = copied(W), copied(H)
    best_w, best_h, seen, violation = factors[0], factors[1], first, residual
    for attempt in range(4):
        share = negligible if attempt < 2 else 1.0 - attempt  # and then -1 and -2
        bound = near if attempt == 0 else noise
        new_w, new_h, then, known = _once(problem, factors, factors[0], factors[1], first, held, share, bound, dead)
        if same(new_w, factors[0]) and same(new_h, factors[1]):
            break
        then, there, better = _judged(problem, new_w, new_h, then, known, first, limit, no_worse)
        if not better:  # one of the zeros may be to grow again, and others are asked for no more
            more_w, more_h, more, known = _once(problem, factors, new_w, new_h, then, held, share, bound, dead)
            if not (same(more_w, new_w) and same(more_h, new_h)):
                new_w, new_h = more_w, more_h
                then, there, better = _judged(problem, new_w, new_h, more, known, first, limit, no_worse)
        if not better:
            more_w, more_h = _where_no_other_suffers(problem, factors, new_w, new_h, then, limit)
            if not (same(more_w, new_w) and same(more_h, new_h)):
                new_w, new_h = more_w, more_h
                then, there, better = _judged(problem, new_w, new_h, then, False, first, limit, no_worse)
        if better:
            best_w, best_h, seen, violation = copied(new_w), copied(new_h), then, there
            if not alone:  # zeros have moved the norms, and no number depends on these
                balance(best_w, best_h)
            break
    if is_left(best_w, seen[0], held[2]) or (not alone and is_left(best_h, seen[1], held[3])):
        new_w, new_h, then, known = _once(problem, factors, best_w, best_h, seen, held, -2.0, noise, dead)
        if not (same(new_w, best_w) and same(new_h, best_h)):
            then, there, better = _judged(problem, new_w, new_h, then, known, first, limit, no_worse)
            if better:
                best_w, best_h, seen, violation = new_w, new_h, then, there
    if is_near(floor, best_w, best_h, shows):  # where the iteration ends, but nothing that was asked for does
        violation = kkt_residual(best_w, best_h, seen, 0.0, tiny, alone)
    copy(best_w, W)
    copy(best_h, H)
    found[0], found[1], found[2] = seen[2][0], violation, seen[2][1]


@jit
def _look(problem: Any, W: Any, H: Any) -> Any:
    """The slopes of W and of H, and the divergence and the gap."""
    V, looks, squares, alone = problem
    w_slopes, h_slopes, numbers = np.empty(W.shape, V.dtype), np.empty(H.shape, V.dtype), np.empty(2)
    zero = looks[1] - looks[1]
    look(V, W, H, w_slopes, h_slopes, numbers, (zero, zero, zero, zero), looks, squares, alone)
    return w_slopes, h_slopes, numbers


@jit
def _drop_unseen(x: Any, slopes: Any, unseen: Any) -> None:
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            if slopes[i, j] == unseen:
                x[i, j] = 0


@jit
def _judged(problem: Any, W: Any, H: Any, then: Any, known: bool, first: Any, limit: float, no_worse: float) -> Any:
    """The report on factors with zeros, if it is not known, their residual, and whether they are no worse."""
    if not known:
        then = _look(problem, W, H)
    there = kkt_residual(W, H, then, problem[1][0], problem[1][1], problem[3])
    fall, margin = first[2][0] - then[2][0], no_worse * abs(first[2][0])
    better = (fall >= -margin and min(there, 1.0) <= limit) or (fall > margin and there <= 1.0)
    return then, there, better


@jit
def _once(
    problem: Any, factors: Any, W: Any, H: Any, known: Any, held: Any, share: float, bound: float, dead: float
) -> Any:
    """Factors with more zeros, a report, and whether it is on these factors."""
    _, (_, _, eps, _, _), squares, alone = problem
    first, is_known = known, True
    for which in range(1 if alone else 2):
        old, given = (W, factors[0]) if which == 0 else (H, factors[1])
        shares, bits = (held[0], held[2]) if which == 0 else (held[1], held[3])
        new = _zeroed(old, known[0] if which == 0 else known[1], shares, bits, share)
        unchanged = same(new, old)
        if unchanged and same(old, given):
            continue
        if not (unchanged and is_known):
            known = _look(problem, new if which == 0 else W, new if which == 1 else H)
        spared = _restored(new, given, known[0] if which == 0 else known[1], bits, -16.0 * eps, False)
        if not same(spared, new):  # beside these a speck may be wanted no more
            new = spared
            known = _look(problem, new if which == 0 else W, new if which == 1 else H)
        spared = _restored(spared, given, known[0] if which == 0 else known[1], bits, -bound, True)
        if squares and share > 0:
            _drop_far_below(new, spared, first[0] if which == 0 else first[1])
        if which == 0:
            W = spared
        else:
            H = spared
        is_known = same(spared, new)
    if not alone:
        alive_w, alive_h = _without_the_dead(W, H, dead)
        is_known = is_known and same(alive_w, W) and same(alive_h, H)
        W, H = alive_w, alive_h
    return W, H, known, is_known


@jit
def _zeroed(x: Any, slopes: Any, shares: Any, held: Any, share: float) -> Any:
    new = copied(x)
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            slope, bits = slopes[i, j], held[i, j]
            unwanted = slope >= 1 or (slope >= 0 and shares[i, j] <= share)
            unwanted = unwanted or (slope >= 0.5 and bits & SMALL != 0) or bits & SPECK != 0
            if unwanted and (share != -2 or bits & AT_FLOOR != 0):
                new[i, j] = 0
    return new


@jit
def _restored(x: Any, before: Any, slopes: Any, held: Any, bound: float, specks: bool) -> Any:
    """The factor as it was before where, at zero, the slope is below the bound: of specks, or of all others."""
    new = copied(x)
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            if x[i, j] == 0 and slopes[i, j] < bound and (held[i, j] & SPECK != 0) == specks:
                new[i, j] = before[i, j]
    return new


@jit
def _drop_far_below(zeroed: Any, restored: Any, slopes: Any) -> None:
    for i in range(zeroed.shape[0]):
        for j in range(zeroed.shape[1]):
            if zeroed[i, j] == 0 and slopes[i, j] >= 0.5:
                restored[i, j] = 0


@jit
def _without_the_dead(W: Any, H: Any, dead: float) -> Any:
    new_w, new_h = copied(W), copied(H)
    left, right = largest_entries(W, H)
    for k in range(W.shape[1]):
        if not (min(left[k], right[k]) > 0 and max(left[k], right[k]) > dead):
            for i in range(W.shape[0]):
                new_w[i, k] = 0
            for j in range(H.shape[1]):
                new_h[k, j] = 0
    return new_w, new_h


@jit
def _where_no_other_suffers(problem: Any, factors: Any, W: Any, H: Any, seen: Any, limit: float) -> Any:
    """The factors without the zeros of each row of W and column of H beside which an entry is far off."""
    _, (floor, tiny, _, _, _), _, alone = problem
    new_w, new_h = copied(W), copied(H)
    w_sizes, h_sizes = largest_entries(W, H)
    for i in range(W.shape[0]):
        worst = 0.0
        for k in range(W.shape[1]):
            worst = max(worst, entry_violation(W[i, k], seen[0][i, k], floor, max(tiny, w_sizes[k])))
        if worst > limit:
            for k in range(W.shape[1]):
                new_w[i, k] = factors[0][i, k]
    for j in range(0 if alone else H.shape[1]):
        worst = 0.0
        for k in range(H.shape[0]):
            worst = max(worst, entry_violation(H[k, j], seen[1][k, j], floor, max(tiny, h_sizes[k])))
        if worst > limit:
            for k in range(H.shape[0]):
                new_h[k, j] = factors[1][k, j]
    return new_w, new_h
