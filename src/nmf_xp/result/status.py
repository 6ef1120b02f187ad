"""Why a run ended, as a code and as a sentence."""

from __future__ import annotations

import enum
import math
from typing import Any


class Status(enum.Enum):
    """Why the iteration ended; `message` says it in a sentence. Carried by the loop, never inferred."""

    message: str

    def __new__(cls, code: int, message: str) -> Status:
        """Make a member whose value is `code`."""
        member = object.__new__(cls)
        member._value_ = code
        member.message = message
        return member

    @classmethod
    def of(cls, code: Any) -> Status:
        """The status with this code."""
        return next(status for status in cls if status.value == int(code))

    RUNNING = 0, "the iteration has not ended"
    CONVERGED = 1, "the objective fell by no more than tol times itself, and little more is to come"
    MAX_ITER = 2, "max_iter iterations ran; raise max_iter if that is too few"
    STOPPED = 3, "the callback stopped the run"
    INCREASED = 4, "the objective rose by more than rounding explains: the dtype's precision is spent; use a wider one"
    NOT_FINITE = 5, "the objective is not finite; scale V to order one, or use another beta_loss or start"
    SLOW = 6, "the objective fell by no more than tol times itself, but it is far from a minimum; lower tol"


MAY_RISE = ("online",)  # solvers whose objective may rise without rounding


def message_of(status: Status, history: tuple[float, ...], solver: str) -> str:
    """The sentence of a status, with the last fall of the objective."""
    if len(history) < 2 or not history[-1] or not all(map(math.isfinite, history[-2:])):
        return status.message
    fell = (history[-2] - history[-1]) / abs(history[-1])
    size = abs(fell)
    moved = f"{'rose' if fell < 0 else 'fell'} {f'{size:.2g} of itself' if size < 1e-6 else f'{100 * size:.2g} %'}"
    rounding = fell < 0 and solver not in MAY_RISE
    more = "which is rounding, and nothing more is to come" if rounding else "and little more is to come"
    slow = "which is rounding, and is far from a minimum" if rounding else "which is slow but far from a minimum"
    said = {
        Status.CONVERGED: f"the objective {moved} between the last two checks, {more}",
        Status.SLOW: f"the objective {moved} between the last two checks, {slow}: lower tol, or take another solver "
        "or start",
        Status.MAX_ITER: f"max_iter iterations ran, and the objective {moved} between the last two checks; "
        "raise max_iter if that is too much",
        Status.INCREASED: f"the objective rose by {-fell:.2g} of itself between the last two checks, which rounding "
        "does not explain: the dtype's precision is spent; use a wider one",
    }
    return said.get(status, status.message)
