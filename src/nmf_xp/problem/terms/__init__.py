"""What a user asks of a factor besides the fit: a list of small frozen values. Adding a term takes a file here.

A `Penalty` adds to the objective; a `Bound` says where entries may be. Each turns into `Constraints`, in the units in
which the problem is solved: what all solvers know, and what a term brings along, a `Quadratic`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from nmf_xp.problem.terms.bounds import Fixed, Lower, Upper
from nmf_xp.problem.terms.decorrelate import Decorrelate
from nmf_xp.problem.terms.penalties import L1, L2
from nmf_xp.problem.terms.term import Bound, Penalty, Term

__all__ = ["L1", "L2", "Bound", "Decorrelate", "Fixed", "Lower", "Penalty", "Term", "Terms", "Upper", "asked_of"]


class Terms(NamedTuple):
    """What is asked of W and of H: the terms, each with the words by which an error calls it."""

    w: tuple[tuple[str, Term], ...] = ()
    h: tuple[tuple[str, Term], ...] = ()

    @property
    def all(self) -> tuple[Term, ...]:
        """The terms of both factors."""
        return tuple(term for _, term in (*self.w, *self.h))

    @property
    def fixes(self) -> bool:
        """Whether entries keep what a start gives them."""
        return any(isinstance(term, Fixed) for term in self.all)


def asked_of(
    alphas: tuple[float, float],
    l1_ratio: float,
    *,
    fixed: tuple[Any, Any] = (None, None),
    upper: tuple[Any, Any] = (None, None),
    terms: tuple[Any, Any] = ((), ()),
) -> Terms:
    """The terms of W and of H: those of the short forms, and the lists that the user gives."""
    sides = []
    for i, which in enumerate("wh"):
        alpha = alphas[i]
        short: list[tuple[str, Term]] = []
        if alpha:
            penalties = L1(alpha * l1_ratio), L2(alpha * (1 - l1_ratio))
            short.extend((f"alpha_{which.upper()}", penalty) for penalty in penalties)
        if fixed[i] is not None:
            short.append((f"fixed_{which}", Fixed(fixed[i])))
        if upper[i] is not None:
            short.append((f"upper_{which}", Upper(upper[i])))
        sides.append((*short, *((f"{which}=[{type(x).__name__}]", x) for x in _checked(which, terms[i]))))
    return Terms(*sides)


def _checked(which: str, terms: Any) -> tuple[Term, ...]:
    listed = tuple(terms) if isinstance(terms, tuple | list) else (terms,)
    for x in listed:
        if isinstance(x, type) and issubclass(x, Term):
            msg = f"`{which}` must list terms with their values, such as L1(0.1), got the class {x.__name__}"
            raise TypeError(msg)
        if not isinstance(x, Term):
            known = ", ".join(x.__name__ for x in (L1, L2, Upper, Lower, Fixed, Decorrelate))
            msg = f"`{which}` must be a list of terms of nmf_xp ({known}), got {type(x).__module__}.{type(x).__name__}"
            raise TypeError(msg)
    return listed
