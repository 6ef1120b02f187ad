"""How far the rows of a factor move along what Newton's method proposes: parts of the kernels in `newton`."""

from __future__ import annotations

from typing import Any

import numpy as np

from nmf_xp.arrays.kernels.compiling import inlined, jit


@inlined
def length(
    v: Any,
    y: Any,
    e: Any,
    d: Any,
    w: Any,
    sums: Any,
    first: Any,
    l1: Any,
    l2: Any,
    floor: Any,
    tiny: Any,
    trials: int,
) -> Any:
    """The longest step found along d at which the divergence still falls; `first` is its slope at 0."""
    zero = floor * 0
    one = floor / floor
    if not first < 0:
        return zero
    linear = ridge = zero
    for k in range(d.shape[0]):
        linear += d[k] * (sums[k] + l1 + l2 * w[k])
        ridge += l2 * d[k] * d[k]
    low, high, t = zero, one, one
    at_low, at_high = first, zero
    least = floor * floor
    for trial in range(trials + 1):
        total = zero
        for j in range(v.shape[0]):
            total += v[j] * e[j] / max(y[j] + t * e[j], least)
        slope = linear + t * ridge - total
        if slope <= 0:
            low, at_low = t, slope
            if trial == 0:
                break
        else:
            high, at_high = t, slope
        share = at_low / min(at_low - max(at_high, zero), -tiny)
        t = low + (high - low) * min(max(share, one / 20), one - one / 20)
    return low


@jit
def lengths(v: Any, y: Any, e: Any, d: Any, w: Any, growth: Any, slope: Any, settings: Any, room: Any, t: Any) -> None:
    """In `t`, the `length` of each lane. Those for which 1 is too much are gathered before more is tried."""
    _, l1, l2, floor, tiny, _, trials = settings
    (columns, lanes), r = v.shape, d.shape[0]
    zero = floor * 0
    one, least = floor / floor, floor * floor
    first, total = np.zeros(lanes, w.dtype), np.zeros(lanes, w.dtype)
    linear, ridge = np.zeros(lanes, w.dtype), np.zeros(lanes, w.dtype)
    for k in range(r):
        for i in range(lanes):
            x = d[k, i]
            first[i] += slope[k, i] * x
            linear[i] += x * (growth[k, i] + l1 + l2 * w[k, i])
            ridge[i] += l2 * x * x
    for j in range(columns):
        for i in range(lanes):
            total[i] += v[j, i] * e[j, i] / max(y[j, i] + e[j, i], least)
    long, count = np.empty(lanes, np.int64), 0
    high, at_high = np.ones(lanes, w.dtype), np.empty(lanes, w.dtype)
    low, at_low = np.zeros(lanes, w.dtype), np.empty(lanes, w.dtype)
    for i in range(lanes):
        at_one = linear[i] + ridge[i] - total[i]
        t[i] = one if first[i] < 0 else zero
        if first[i] < 0 and not at_one <= 0:
            long[count], at_low[count], at_high[count] = i, first[i], at_one
            linear[count], ridge[count] = linear[i], ridge[i]
            count += 1
    if count == 0:
        return
    for j in range(columns):
        for p in range(count):
            i, to = long[p], j * count + p
            room[0, to], room[1, to], room[2, to] = v[j, i], y[j, i], e[j, i]
    middle = np.empty(count, w.dtype)
    for _ in range(trials):
        for p in range(count):
            share = at_low[p] / min(at_low[p] - max(at_high[p], zero), -tiny)
            middle[p] = low[p] + (high[p] - low[p]) * min(max(share, one / 20), one - one / 20)
            total[p] = zero
        for j in range(columns):
            part = slice(j * count, (j + 1) * count)
            vs, ys, es = room[0, part], room[1, part], room[2, part]
            for p in range(count):
                total[p] += vs[p] * es[p] / max(ys[p] + middle[p] * es[p], least)
        for p in range(count):
            at = linear[p] + middle[p] * ridge[p] - total[p]
            if at <= 0:
                low[p], at_low[p] = middle[p], at
            else:
                high[p], at_high[p] = middle[p], at
    for p in range(count):
        t[long[p]] = low[p]
