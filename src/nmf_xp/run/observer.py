"""What the loop calls at each check: the progress bar and the user's callback."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

from nmf_xp.arrays import libraries, precision, transfer
from nmf_xp.arrays.checks import check_callable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nmf_xp.problem.posing import Posed
    from nmf_xp.run.position import Progress, Schedule

    Callback = Callable[[Progress], bool | None]


@contextlib.contextmanager
def observer(
    posed: Posed, schedule: Schedule, callback: Callback | None, progress: bool
) -> Iterator[Callable[[Progress], bool] | None]:
    """What the loop calls at each check: the progress bar and the user's callback; None for neither."""
    check_callable("callback", callback)
    if callback is None and not progress:
        yield None
        return
    if libraries.is_traced(posed.values):
        msg = "`callback` and `progress` must be left out in a compiled function, where nothing can be observed"
        raise ValueError(msg)
    bar = progress_bar(schedule.max_iter) if progress else None

    def observe(seen: Progress) -> bool:
        stacked = isinstance(seen.divergence, tuple)
        values = [posed.restore_divergence(x) for x in (seen.divergence if stacked else (seen.divergence,))]
        if bar is not None:
            bar.update(seen.iteration - bar.n)
            bar.set_postfix(divergence=f"{min(values):.6g}")  # of several, the least so far
        if callback is None:
            return False
        W, H = (transfer.copied(posed.restore_factor(which, x)) for which, x in (("W", seen.W), ("H", seen.H)))
        divergence = tuple(values) if stacked else values[0]
        with precision.users_errors():
            return bool(callback(seen._replace(divergence=divergence, W=W, H=H)))

    try:
        yield observe
    finally:
        if bar is not None:
            bar.close()


def progress_bar(total: int, *, unit: str = "it", what: str = "nmf") -> Any:
    """A bar of tqdm's, which must be installed."""
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        msg = '`progress=True` needs tqdm: pip install "nmf_xp[progress]"'
        raise ImportError(msg) from error
    at_most = "at most " if unit == "it" else ""  # a run mostly ends before its last iteration
    shown = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}, " + at_most + "{remaining} left, {rate_fmt}{postfix}]"
    return tqdm(total=total, unit=unit, desc=what, bar_format=shown, disable=sys.stderr is None)
