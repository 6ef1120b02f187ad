"""A stack whose members are in units so far apart that one exponent does not suit them: each is run by itself."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, TypeVar

from nmf_xp.problem.starts import random_generator
from nmf_xp.result import Result, stacked

if TYPE_CHECKING:
    from collections.abc import Callable

    from nmf_xp.problem.posing import Posed

F = TypeVar("F", bound="Callable[..., Result]")


class Apart(Exception):  # noqa: N818
    """The members of a stack are to be run by themselves."""

    def __init__(self, posed: Posed) -> None:
        super().__init__()
        self.posed = posed


def check_together(posed: Posed, record: Any, callback: Any, progress: Any) -> None:
    """Leave a run whose members lie apart; refuse what sees or keeps all of them at once."""
    if not posed.apart:
        return
    if record is not None or callback is not None or progress:
        msg = (
            "`callback`, `progress` and `checkpoint` must be left out for a stack whose members are in units far apart;"
            " call `nmf` for each member"
        )
        raise ValueError(msg)
    raise Apart(posed)


def by_members(run: F) -> F:
    """The function, called for each member of a stack whose members lie apart, with its part of what was given."""

    @functools.wraps(run)
    def wrapped(V: Any, *args: Any, **options: Any) -> Result:
        try:
            return run(V, *args, **options)
        except Apart as found:
            posed = found.posed
        if options.get("random_state") is not None:  # random starts are drawn one after the other
            options = options | {"random_state": random_generator(options["random_state"])}
        results = [
            run(
                *(_of_member(x, i, posed) for x in (V, *args)),
                **{k: _of_member(x, i, posed) for k, x in (options | _batches_of_member(i, posed)).items()},
            )
            for i in range(posed.members or 0)
        ]
        return stacked(results, posed.stack, xp=posed.xp)

    wrapper: Any = wrapped
    return wrapper


def _batches_of_member(i: int, posed: Posed) -> dict[str, Any]:
    """The labels of a member's rows, and what is known of their effects, as options."""
    batches = posed.batches
    if batches is None:
        return {}
    codes = batches.codes if batches.codes.ndim == 1 else batches.codes[i]
    labels = {"batch": [batches.labels[code] for code in codes]}
    if batches.known is None:
        return labels
    known = zip(batches.labels, batches.known if batches.known.ndim == 2 else batches.known[i], strict=True)
    return {**labels, "batch_effects": {label: effects for label, effects in known if effects.max() > 0}}


def _of_member(x: Any, i: int, posed: Posed) -> Any:
    """What belongs to one member: its part of a stack, and all of what is none."""
    if isinstance(x, tuple | list):
        return type(x)(_of_member(y, i, posed) for y in x)
    if getattr(x, "ndim", 0) <= 2:
        return x
    shape = x.shape[-2:]
    x = posed.xp.broadcast_to(x, (*posed.stack, *shape))
    return posed.xp.reshape(x, (-1, *shape))[i, ...]
