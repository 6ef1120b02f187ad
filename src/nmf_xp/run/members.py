"""A stack whose members are in units so far apart that one exponent does not suit them: each is run by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nmf_xp.problem.starts import random_generator
from nmf_xp.result import Result, stacked

if TYPE_CHECKING:
    from collections.abc import Callable

    from nmf_xp.problem.posing import Posed


def each_alone(run: Callable[..., Result], V: Any, posed: Posed, options: dict[str, Any]) -> Result:
    """The results of the members, each with its part of the options; random starts are drawn one after the other."""
    if "random_state" in options:
        options = options | {"random_state": random_generator(options["random_state"])}
    results = [
        run(_of_member(V, i, posed), **{name: _of_member(x, i, posed) for name, x in options.items()})
        for i in range(posed.members or 0)
    ]
    return stacked(results, posed.stack, xp=posed.xp)


def _of_member(x: Any, i: int, posed: Posed) -> Any:
    """What belongs to one member: its part of a stack, and all of what is none."""
    if isinstance(x, tuple | list):
        return type(x)(_of_member(y, i, posed) for y in x)
    if getattr(x, "ndim", 0) <= 2:
        return x
    shape = x.shape[-2:]
    x = posed.xp.broadcast_to(x, (*posed.stack, *shape))
    return posed.xp.reshape(x, (-1, *shape))[i, ...]
