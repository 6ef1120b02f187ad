"""The door of the functions that people call: tables come in as arrays, and their names go out with what is found.

It says so too where a keyword is another library's, and where a run ended before it had found what was asked for.
"""

from __future__ import annotations

import functools
import warnings
from typing import TYPE_CHECKING, Any, TypeVar

from nmf_xp.arrays import libraries
from nmf_xp.arrays.checks import WrongEntry, wrong_entry
from nmf_xp.arrays.keywords import check_keywords
from nmf_xp.data import naming, tables
from nmf_xp.result import Result, Status
from nmf_xp.result.explained import Seen

if TYPE_CHECKING:
    from collections.abc import Callable

    from nmf_xp.data.naming import Names

F = TypeVar("F", bound="Callable[..., Any]")

LISTS = ("weights", "exposure", "fixed_w", "fixed_h", "upper_w", "upper_h")  # what may be lists of lists, as V may
TRACE = 1e-6  # of the objective at the start, below which it does not matter that it still falls
BESIDE = ("weights", "exposure")  # what has V's labels, if it has any
NEGATIVE = "`V` must be non-negative"  # what is said of scaled data, as `X` of AnnData often is
OBSERVED = ("weights", "exposure", "missing", "absent")  # how V was observed


class ConvergenceWarning(UserWarning):
    """A run ended at `max_iter` while its objective still fell; both `max_iter` and `tol` were left as they are.

    It is off by ``warnings.simplefilter("ignore", nmf_xp.ConvergenceWarning)``. Who chooses `max_iter` is not warned.
    """


def door(function: F) -> F:
    """The function of V, which may be a table then, with the names of V in what it returns."""

    @functools.wraps(function)
    def wrapped(V: Any, /, *args: Any, **options: Any) -> Any:
        check_keywords(function, options)
        read = tables.arrived("V", V, layer=options.pop("layer", None))
        names, components = read.names, None
        given = {name: _option_of(name, x, names) for name, x in options.items()}
        if function.__name__ == "transform" and args:
            args, given, names, components = _with_components(args, given, names)
        elif isinstance(init := options.get("init"), tuple) and len(init) == 2:
            components = tables.arrived("init[1]", init[1]).names.rows if tables.is_named(init[1]) else None
        args = tuple(tables.array_of("H", x) if tables.is_named(x) else x for x in args)
        try:
            found = function(read.values, *args, **given)
        except ValueError as error:
            entry = wrong_entry(error)
            if entry is None:
                raise
            raise ValueError(_named(entry, names)) from None
        if any((names.rows, names.columns, names.kind, components)):
            found = found.named(rows=names.rows, columns=names.columns, components=components, table=names.kind)
        if isinstance(found, Result) and not libraries.is_traced(found._divergence):
            if found.loss == found.beta and found.batch_labels is None:
                found._remember(Seen(read.values, {name: given[name] for name in OBSERVED if name in given}))
            if {"max_iter", "tol"}.isdisjoint(options):
                _warn(found)
        return found

    wrapper: Any = wrapped
    return wrapper


def _named(entry: WrongEntry, names: Names) -> WrongEntry:
    """An entry of V that cannot be, by the names of its row and column; where AnnData is scaled, what to pass."""
    scaled = names.kind == "anndata" and entry.startswith(NEGATIVE)
    besides = "; or pass `V.raw` or a `layer` that holds counts" if scaled else ""
    rows, columns = (None if side is None else list(map(naming.text, side)) for side in names[:2])
    return entry.named(rows, columns, besides=besides)


def _option_of(name: str, x: Any, names: Names) -> Any:
    if x is None or isinstance(x, (str, int, float)):
        return x
    return labels_beside(x, names) if name == "batch" else _array_of(name, x, names)


def _array_of(name: str, x: Any, names: Names) -> Any:
    """An option as an array, where it is a table or may be a list; a table beside V must have its labels."""
    if isinstance(x, list) and name not in LISTS:
        return tables.array_of(name, tuple(x)) if name == "init" else x
    if name not in BESIDE or not tables.is_named(x):
        return tables.array_of(name, x)
    values, own = tables.arrived(name, x)
    for side, ours, theirs in (("rows", names.rows, own.rows), ("columns", names.columns, own.columns)):
        if ours is not None and theirs is not None and len(ours) == len(theirs):
            _check_labels((name, theirs), ("V", ours), side)
    return values


def labels_beside(batch: Any, names: Names) -> Any:
    """Labels of V's rows. A column of a table that stands in another order than V's rows is refused."""
    index = getattr(batch, "index", None)
    if index is None or callable(index) or not (names.rows or names.kind == "pandas"):
        return batch  # a list's is a method; beside an array nothing says which row is which
    rows = list(index)
    numbered = list(range(len(rows)))
    if rows != numbered:
        _check_labels(("batch", rows), ("V", numbered if names.rows is None else names.rows), "rows")
    return batch


def _with_components(
    args: tuple[Any, ...], options: dict[str, Any], names: Names
) -> tuple[tuple[Any, ...], dict[str, Any], Names, Any]:
    """The arguments of `transform` with H as an array, and the names of the columns and components that it brings."""
    H, *rest = args
    known, components = None, None
    if isinstance(H, Result):
        known, components = H.column_names, H.component_names
        options = {"beta_loss": H.loss, **options}
        if options.get("batch") is not None and H.batch_effects is not None:
            options = {"batch_effects": H.batch_effects, **options}
        H = H.H
    elif isinstance(H, list):
        H = tables.array_of("H", H)
    elif tables.is_named(H):
        H, (components, known, _) = tables.arrived("H", H)
    if known is not None and names.columns is not None:
        _check_labels(("V", names.columns), ("H", known), "columns")
    return (H, *rest), options, names._replace(columns=names.columns or known), components


def _check_labels(given: tuple[str, Any], known: tuple[str, Any], side: str) -> None:
    """Refuse a table whose rows or columns are not those of another one, in their order."""
    (name, theirs), (whose, ours) = ((which, list(map(naming.text, labels))) for which, labels in (given, known))
    if ours == theirs:
        return
    lacking, beside = _without(ours, theirs), _without(theirs, ours)
    parts = (f"without {_listed(lacking)}" if lacking else "", f"with {_listed(beside)} besides" if beside else "")
    said = " and ".join(filter(None, parts)) or "them in another order"
    remedy = "; take those of `H`: `V[list(result.column_names)]`" if whose == "H" and not lacking else ""
    msg = f"`{name}` must have the {side} of `{whose}`, in their order, got {said}{remedy}"
    raise ValueError(msg)


def _without(names: list[str], others: list[str]) -> list[str]:
    known = set(others)
    return [name for name in names if name not in known]


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - naming.LISTED} more" if len(names) > naming.LISTED else ""
    return ", ".join(map(repr, names[: naming.LISTED])) + more


def _warn(result: Result) -> None:
    """Say that the run did not come to its end, where more than a trace of the objective is left."""
    several = isinstance(result.status, tuple)
    statuses, histories = (result.status, result.history) if several else ((result.status,), (result.history,))
    count = sum(map(_is_short, statuses, histories))
    if not count:
        return
    who = f"{count} of {len(statuses)} runs" if several else "the run"
    n_iter = max(result.n_iter.ravel().tolist()) if several else result.n_iter
    msg = f"{who} ended after max_iter={n_iter} iterations, while the objective still fell: "
    warnings.warn(f"{msg}give a larger `max_iter`, or a larger `tol`", ConvergenceWarning, stacklevel=3)


def _is_short(status: Status, history: tuple[float, ...]) -> bool:
    """Whether a run ended too early; an exact fit falls as long as one lets it."""
    return status is Status.MAX_ITER and bool(history) and history[-1] > TRACE * history[0]
