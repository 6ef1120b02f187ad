"""A start of which a part is given: one factor, or the first components of one; the rest is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nmf_xp.arrays import libraries, mesh
from nmf_xp.arrays.checks import is_dtype
from nmf_xp.data import tables
from nmf_xp.data.units import times_power
from nmf_xp.problem.starts import UNIFORM, random_generator, totals
from nmf_xp.problem.terms import Fixed, Terms

if TYPE_CHECKING:
    from nmf_xp.arrays.typing import Array
    from nmf_xp.problem.posing import Posed


def completed(posed: Posed, init: Any, terms: Terms, r: int, *, random_state: Any) -> tuple[Any, Terms]:
    """The start and the terms with all that they leave open.

    ``init=(None, H)`` and ``(W, None)`` get the other factor, uniform numbers times one that makes sum(WH) = sum(V).
    ``Fixed(H0)`` with numbers becomes the start and the mask of its components, which are the first ones. The others
    are drawn in the size of these.

    Raises
    ------
    ValueError
        There are more fixed components than components, or the start is a method that would replace them.
    """
    if not (terms.w or terms.h) and (isinstance(init, str) or not any(x is None for x in init)):
        return init, terms
    kept = {which: _kept(posed, which, asked, r) for which, asked in (("W", terms.w), ("H", terms.h))}
    given = dict(zip("WH", (None, None) if isinstance(init, str) else init, strict=True))
    nothing = all(x is None for x in kept.values())
    if nothing and (isinstance(init, str) or all(x is not None for x in given.values())):
        return init, terms
    if nothing and all(x is None for x in given.values()):
        return "random", terms
    if isinstance(init, str) and init != "random":
        msg = f"`init` must be 'random' or (W, H) where `Fixed` brings components, got {init!r}"
        raise ValueError(msg)
    factors = _factors(posed, given, kept, r, random_state=random_state)
    asis = {which: x is not None and kept[which] is None for which, x in given.items()}
    start = tuple(given[k] if asis[k] else _in_user_units(posed, k, x) for k, x in factors.items())
    sides = (_with_mask(posed, which, asked, kept[which], r) for which, asked in (("W", terms.w), ("H", terms.h)))
    return start, Terms(*sides)


def _brings(name: str, term: Any) -> bool:
    """Whether a term of a list holds components, and not a mask of what stays."""
    if not isinstance(term, Fixed) or "=[" not in name:
        return False
    entries = tables.array_of("Fixed", term.entries)
    if not libraries.is_array(entries):
        return False
    return is_dtype(entries, ("integral", "real floating"), xp=libraries.array_namespace(entries))


def _kept(posed: Posed, which: str, asked: tuple[Any, ...], r: int) -> Array | None:
    """The components that a term fixes, checked, in the problem's units; None where none does."""
    found = [(name, term) for name, term in asked if _brings(name, term)]
    if not found:
        return None
    axis, side = (-1, "columns") if which == "W" else (-2, "rows")
    name, values = found[0][0], tables.array_of("Fixed", found[0][1].entries)
    if len(found) > 1 or values.ndim != 2 or values.shape[axis] > r:
        got = f"{len(found)} of them" if len(found) > 1 else f"shape {tuple(values.shape)}"
        msg = f"`Fixed` must hold one matrix of at most n_components={r} {side}, got {got}"
        raise ValueError(msg)
    return posed.factor(name, values, which, int(values.shape[axis]))


def _factors(
    posed: Posed, given: dict[str, Any], kept: dict[str, Array | None], r: int, *, random_state: Any
) -> dict[str, Array]:
    """Both factors, in the problem's units."""
    xp, (m, n), V = posed.xp, posed.shape, posed.values
    rng = random_generator(random_state)
    stack = () if posed.members is None else (posed.members,)
    draws = [rng.uniform(*UNIFORM, size=(*stack, *shape)) for shape in ((m, r), (r, n))]
    found = []
    for i, (which, x) in enumerate(zip("WH", mesh.from_host(V, *draws, xp=xp), strict=True)):
        drawn, first = given[which] is None, kept[which]
        factor = x if drawn else posed.factor(f"init[{i}]", given[which], which, r)
        found.append(factor if first is None else _joined(first, factor, which, drawn=drawn, xp=xp))
    W, H = found
    free = [given[which] is None and kept[which] is None for which in "WH"]
    if sum(free) == 1:
        of_data, of_model = totals(posed.problem.data, W, H, xp=xp)
        scale = xp.where(of_model > 0, of_data / xp.where(of_model > 0, of_model, 1.0), 1.0)
        scale = xp.reshape(xp.astype(scale, V.dtype), (*stack, 1, 1) if stack else ())
        W, H = (W * scale, H) if free[0] else (W, H * scale)
    return {"W": W, "H": H}


def _joined(first: Any, others: Array, which: str, *, drawn: bool, xp: Any) -> Array:
    """The components that are kept, and behind them those of the start; in their size, where those are drawn."""
    axis = -1 if which == "W" else -2
    k = first.shape[axis]
    rest = others[..., k:] if which == "W" else others[..., k:, :]
    if drawn:
        size = xp.mean(first)
        rest = rest * xp.where(size > 0, size, 1.0)
    return xp.concat([xp.broadcast_to(first, (*rest.shape[:-2], *first.shape[-2:])), rest], axis=axis)


def _in_user_units(posed: Posed, which: str, x: Array) -> Array:
    x = times_power(x, posed.units.factor(which))
    return posed.xp.reshape(x, (*posed.stack, *x.shape[-2:])) if len(posed.stack) > 1 else x


def _with_mask(posed: Posed, which: str, asked: tuple[Any, ...], kept: Array | None, r: int) -> tuple[Any, ...]:
    """The terms, where a mask of the first components stands for these."""
    if kept is None:
        return asked
    k = kept.shape[-1 if which == "W" else -2]
    own = posed.xp.arange(r, device=libraries.device(posed.values)) < k
    mask = own[None, :] if which == "W" else own[:, None]
    return tuple((name, Fixed(mask) if _brings(name, term) else term) for name, term in asked)
