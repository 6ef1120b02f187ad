"""Checks of what is asked of a factorization: its rank, its start, its penalties."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nmf_xp.arrays import libraries
from nmf_xp.arrays.checks import check_integer, check_non_negative, check_option, is_integer, named_kind
from nmf_xp.data.kinds import Kind

if TYPE_CHECKING:
    from collections.abc import Collection

    from nmf_xp.problem import Problem
    from nmf_xp.problem.posing import Posed


def check_init(init: Any, names: Collection[str], n_components: int, shape: tuple[int, ...]) -> None:
    """A name that suits the rank, or a pair of factors."""
    if isinstance(init, str):
        check_option("init", init, names)
        if init != "random" and n_components > min(shape):
            msg = (
                f"`init` {init!r} needs n_components <= min(m, n) = {min(shape)}, got {n_components}; use init='random'"
            )
            raise ValueError(msg)
    elif not (isinstance(init, tuple | list) and len(init) == 2):
        msg = f"`init` must be one of {sorted(names)} or a pair (W, H), got {named_kind(init)}"
        raise TypeError(msg)


def check_penalties(alpha_W: Any, alpha_H: Any, l1_ratio: Any) -> tuple[float, float]:
    """The two penalty strengths."""
    alpha_W = check_non_negative("alpha_W", alpha_W)
    if isinstance(alpha_H, str):
        check_option("alpha_H", alpha_H, ("same",))
        alpha_H = alpha_W
    if check_non_negative("l1_ratio", l1_ratio) > 1:
        msg = f"`l1_ratio` must be from 0 to 1, got {l1_ratio}"
        raise ValueError(msg)
    return alpha_W, check_non_negative("alpha_H", alpha_H)


def check_n_components(n_components: Any, shape: tuple[int, ...]) -> int:
    """The rank as a Python int, between 1 and m + n."""
    m, n = shape[-2:]
    if not is_integer(n_components):
        msg = f"`n_components` must be an integer from 1 to m + n = {m + n}, got {n_components!r}"
        raise TypeError(msg)
    if not 1 <= n_components <= m + n:
        msg = f"`n_components` must be an integer from 1 to m + n = {m + n}, got {n_components}"
        raise ValueError(msg)
    return int(n_components)


def check_restarts(n_restarts: Any, init: Any, kind: Kind) -> int:
    """The number of restarts; what needs V in memory is refused before a pass over V is spent on it."""
    n_restarts = check_integer("n_restarts", n_restarts, minimum=1)
    if n_restarts > 1 and kind is not Kind.WHOLE:
        msg = (
            f"`n_restarts` must be 1 for data that are {kind.value}, got {n_restarts}; "
            "call `nmf` with several values of `random_state`"
        )
        raise ValueError(msg)
    if kind is Kind.GRID and isinstance(init, str) and init != "random":
        msg = f"`init` must be 'random' or (W, H) for dask arrays, got {init!r}"
        raise ValueError(msg)
    return n_restarts


def check_start(posed: Posed, init: Any, n_restarts: int, *, fixed: bool) -> None:
    """Refuse restarts of what is a stack or is given, and fixed entries without their values."""
    if n_restarts > 1 and (posed.stack or init != "random" or not libraries.is_readable(posed.values)):
        msg = (
            "`n_restarts` above 1 needs one matrix V, init='random' and values that can be read, "
            f"got V of shape {posed.stack + posed.shape} and init={init if isinstance(init, str) else '(W, H)'!r}; "
            "give a stack of starts `init=(W, H)` instead"
        )
        raise ValueError(msg)
    if isinstance(init, str) and fixed:
        msg = f"`fixed_w`, `fixed_h` and `Fixed` need the values to keep: give `init=(W, H)`, got init={init!r}"
        raise ValueError(msg)
    if isinstance(init, str) and init != "random" and not libraries.is_readable(posed.values):
        msg = f"`init` must be 'random' or (W, H) in a compiled function, got {init!r}, which needs the values of `V`"
        raise ValueError(msg)


def check_normalize(normalize: Any, problem: Problem) -> None:
    """Refuse to normalise factors that are asked for something that it would break."""
    if normalize is None:
        return
    check_option("normalize", normalize, ("W", "H"))
    if any(terms.bounded for terms in (problem.w, problem.h)):
        msg = f"`normalize` must be None with fixed entries or bounds, which it would break, got {normalize!r}"
        raise ValueError(msg)
    if not all(terms.free for terms in (problem.w, problem.h)):
        msg = (
            "`normalize` must be None with penalties, which decide the scale of the factors and would be others "
            f"after it, got {normalize!r}; divide the returned W and H yourself"
        )
        raise ValueError(msg)
