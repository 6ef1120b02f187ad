"""Which solver, for which loss, with which settings: from the user's words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.arrays import libraries
from nmf_xp.arrays.checks import check_integer, check_non_negative, check_option
from nmf_xp.data.kinds import Kind, kind_of
from nmf_xp.divergences import check_beta
from nmf_xp.problem.overdispersed import NegativeBinomial, as_negative_binomial
from nmf_xp.problem.robust import Robust
from nmf_xp.solvers import BY_KIND, LOSSES, OPTIONS, SOLVERS, automatic

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nmf_xp.problem.terms import Terms


class Method(NamedTuple):
    """A solver by its name, with all that decides what it is; also the start by its name, if it has one."""

    name: str
    beta: float
    options: tuple[tuple[str, Any], ...] = ()
    fixed_h: bool = False
    init: str | None = None
    robust: Robust | None = None
    noise: NegativeBinomial | None = None


def chosen(
    V: Any,
    beta_loss: float | str | Robust | NegativeBinomial,
    solver: Any,
    *,
    fixed_h: bool = False,
    terms: Terms,
    weights: Any = None,
    missing: str | None = None,
    absent: str = "zero",
    exposure: Any = None,
    batch: Any = None,
) -> Method:
    """The method, by what V's type and the terms say at most; with H fixed, a convex problem, one for all devices."""
    if isinstance(beta_loss, type) and issubclass(beta_loss, Robust | NegativeBinomial):
        example = 'Robust("frobenius", "huber")' if issubclass(beta_loss, Robust) else "NegativeBinomial()"
        msg = f"`beta_loss` must be a loss such as {example}, got the class {beta_loss.__name__}"
        raise TypeError(msg)
    noise = as_negative_binomial(beta_loss)
    robust = beta_loss if isinstance(beta_loss, Robust) else None
    weighted = not (weights is None and exposure is None and missing is None and absent == "zero" and robust is None)
    name_of_loss: Any = beta_loss.beta if isinstance(beta_loss, Robust) else beta_loss
    beta = check_beta("kullback-leibler" if noise is not None else name_of_loss)
    pair = isinstance(solver, tuple) and len(solver) == 2 and isinstance(solver[1], dict)
    solver, options = solver if pair else (solver, {})
    name = check_option("solver", solver, ("auto", *SOLVERS))
    kind = kind_of(V)
    if name == "auto":
        stack = tuple(V.shape) if libraries.is_array(V) and V.ndim > 2 and not fixed_h else None
        name = automatic(beta, kind, stack=stack, on_gpu=not fixed_h and libraries.on_gpu(V))
        if not all(term.suits(name, beta, weighted=weighted) for term in terms.all):
            name = BY_KIND.get(kind, ("mm",))[0]  # majorisation takes every term
    if name not in BY_KIND.get(kind, SOLVERS):
        msg = (
            f"`solver` must be one of {sorted(('auto', *BY_KIND[kind]))} for data that are {kind.value}, "
            f"got {solver!r}, which takes V in memory only"
        )
        raise ValueError(msg)
    if beta not in LOSSES.get(name, (beta,)):
        losses = " or ".join(f"{loss:g}" for loss in LOSSES[name])
        msg = f"`solver={name!r}` needs a `beta_loss` of {losses}, got {beta:g}; solver='auto' takes one that fits"
        raise ValueError(msg)
    for term in terms.all:
        if not term.suits(name, beta, weighted=weighted):
            where = f"for beta {beta:g}" + (" and entries with weights" if weighted and robust is None else "")
            where = where if robust is None else f"{where} and a `Robust` loss"
            msg = f"`solver` must be 'mu' or 'mm' with {type(term).__name__} {where}, got {name!r}"
            raise ValueError(msg)
    for option in options:
        if option not in OPTIONS.get(name, ()):
            known = ", ".join(OPTIONS.get(name, ())) or "none"
            msg = f"The options of `solver` {name!r} must be among its own, {known}, got {option!r}"
            raise ValueError(msg)
    if options.get("violation_tol") is not None:
        check_non_negative("violation_tol", options["violation_tol"])
    if "batch_size" in options:
        options = {**options, "batch_size": check_integer("batch_size", options["batch_size"], minimum=1)}
    if "forget_factor" in options and check_non_negative("forget_factor", options["forget_factor"]) > 1:
        msg = f"`forget_factor` must be from 0 to 1, got {options['forget_factor']}"
        raise ValueError(msg)
    loss = robust or noise
    if loss is not None or batch is not None:
        if loss is not None and kind is not Kind.WHOLE:
            msg = f"`V` must be whole in memory for a `{type(loss).__name__}` loss, got data that are {kind.value}"
            raise ValueError(msg)
        what = f"a `{type(loss).__name__}` loss" if loss is not None else "`batch`"
        able = [one for one in BY_KIND.get(kind, SOLVERS) if beta in LOSSES.get(one, (beta,))]
        _check_renewed(what, name, able, options)
    if batch is not None and (beta != 1 or robust is not None):
        msg = f"`batch` needs `beta_loss='kullback-leibler'` or 'negative-binomial', got {robust or beta}"
        raise ValueError(msg)
    return Method(name, beta, tuple(options.items()), fixed_h, robust=robust, noise=noise)


def _check_renewed(what: str, solver: str, solvers: Iterable[str], options: dict[str, Any]) -> None:
    """Refuse what cannot go with data that are renewed before each half-iteration."""
    if solver == "online" or "violation_tol" in options or "orders" in options:
        got = "'online'" if solver == "online" else f"the options {sorted(options)}"
        *names, last = (repr(name) for name in solvers if name != "online")
        msg = f"`solver` must be {', '.join(names)} or {last} for {what}, got {got}"
        raise ValueError(msg)
