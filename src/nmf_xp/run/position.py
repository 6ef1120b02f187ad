"""How long a run is to be, where it stands, how it ended, and what a callback sees of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from nmf_xp.arrays.checks import check_integer, check_non_negative

if TYPE_CHECKING:
    from nmf_xp.arrays.typing import Array, Namespace
    from nmf_xp.result import Status


class Progress(NamedTuple):
    """What a callback sees at each check.

    `divergence` is the objective, a float; for a stack a tuple of them, with the factors of the members that still run.
    """

    iteration: int
    divergence: Any
    W: Array
    H: Array


class Schedule(NamedTuple):
    """How long to iterate, and when to check."""

    max_iter: int
    tol: float
    check_every: int


def check_schedule(max_iter: Any, tol: Any, check_every: Any) -> Schedule:
    """The schedule of these, each of which is checked."""
    return Schedule(
        check_integer("max_iter", max_iter, minimum=1),
        check_non_negative("tol", tol),
        check_integer("check_every", check_every, minimum=1),
    )


class End(NamedTuple):
    """How one matrix, or one member of a stack, ended."""

    history: tuple[float, ...]
    n_iter: int
    status: Status
    state: Any


class Position(NamedTuple):
    """Where a run stands after some iterations: all that is needed to go on."""

    n_iter: int
    rows: list[int]  # the member in each row of the state
    history: list[list[float]]  # of each member
    ends: list[End | None]  # of each member
    state: Any
    checked: bool = False  # whether the last entries of the history are of this iteration


class Recorder(Protocol):
    """What keeps positions, so that a later run can go on from the last of them."""

    def resume(self, begun: Position, *, xp: Namespace) -> Position:
        """The position that was kept, or that of a run that has just begun."""

    def record(self, position: Position) -> None:
        """Keep this position if it is time to; the lists in it change after the call."""


class Outcome(NamedTuple):
    """How a run ended: Python scalars from eager arrays, arrays from traced ones."""

    W: Array
    H: Array
    divergence: Any
    objective: Any
    kkt_residual: Any
    history: Any
    n_iter: Any
    status: Any
