"""What a factorization returns, and why it ended."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nmf_xp.arrays import libraries, operators, transfer
from nmf_xp.result import display

if TYPE_CHECKING:
    from nmf_xp.arrays.typing import Array, Namespace
    from nmf_xp.problem.robust import Robust


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


@dataclass(frozen=True, repr=False)
class Result:
    """A factorization V ~ WH, or a stack of them.

    Attributes
    ----------
    W : array, shape (..., m, r)
        Left factor, of V's namespace and device.
    H : array, shape (..., r, n)
        Right factor, likewise.
    divergence : float
        Beta-divergence of V from WH, in V's own units. It is read from the device when it is asked for.
    objective : float
        The divergence plus the penalties: what the iteration decreased.
    history : tuple of float
        The objective at the start and at each check after it; empty for `tol=0` without a callback or progress bar,
        where nothing is checked.
    n_iter : int
        Iterations that ran.
    status : Status
        Why the iteration ended.
    message : str
        The same in a sentence with numbers.
    kkt_residual : float
        Largest violation of the optimality conditions, without unit: over all entries of the factors that were
        updated, |min(w / max of its component, 1 - numerator / denominator)|, where numerator and denominator
        are the two parts of the gradient. 0 at a stationary point; independent of the scales of V, W and H.
    solver : str
        The solver that ran: where "auto" was asked for, the one that was taken for the loss, the kind of data and the
        device. On a GPU that choice follows from counts of passes over V and of launches, not from times.
    beta : float
        The beta of the divergence.
    robust : Robust or None
        The robust loss with its scale, for `beta_loss=Robust(...)`: `divergence` is then that loss.
    restarts : Result or None
        All restarts as a stack, of which this is the best; with their factors where ``keep_restarts=True``.

    Notes
    -----
    For a stack of matrices `divergence`, `objective`, `kkt_residual` and `n_iter` are NumPy arrays with one axis, and
    `status` and `history` tuples, member by member in C order; ``result[i]`` is one member of a stack with one axis.

    ``print(result)`` says all of this in a few lines; a notebook shows them with the falling objective.

    A Result is a JAX pytree, so that a compiled function may return it. Inside that function the numbers are traced.
    """

    W: Any
    H: Any
    solver: str
    beta: float
    _divergence: Any
    _objective: Any
    _history: Any
    _n_iter: Any
    _status: Any
    _kkt_residual: Any
    restarts: Result | None = None
    robust: Robust | None = None

    @property
    def divergence(self) -> Any:
        """Beta-divergence of V from WH."""
        return _number(self._divergence)

    @property
    def objective(self) -> Any:
        """The divergence plus the penalties."""
        return _number(self._objective)

    @property
    def kkt_residual(self) -> Any:
        """Largest violation of the optimality conditions."""
        return _number(self._kkt_residual)

    @property
    def n_iter(self) -> Any:
        """Iterations that ran."""
        return _number(self._n_iter)

    @property
    def status(self) -> Any:
        """Why the iteration ended."""
        if libraries.is_traced(self._status):
            return self._status
        codes = _number(self._status)
        return Status.of(codes) if isinstance(codes, int) else tuple(Status.of(code) for code in codes.ravel())

    @property
    def message(self) -> Any:
        """Why the iteration ended, in a sentence with numbers; a tuple of them for a stack."""
        status, history = self.status, self.history
        if isinstance(status, tuple):
            return tuple(_message(one, past, self.solver) for one, past in zip(status, history, strict=True))
        return status if libraries.is_traced(status) else _message(status, history, self.solver)

    @property
    def history(self) -> Any:
        """The objective at the start and at each check."""
        history = self._history
        if not isinstance(history, tuple):
            if libraries.is_traced(history):
                return history
            history = transfer.to_host(history).tolist()
        if history and not isinstance(history[0], float):
            return tuple(_reached(member) for member in history)
        return _reached(history)

    def __getitem__(self, i: int) -> Result:
        """One member of a stack."""
        if self.W.ndim != 3:
            msg = f"only the result of a stack with one axis has members, got W of shape {tuple(self.W.shape)}"
            raise TypeError(msg)
        if not -self.W.shape[0] <= i < self.W.shape[0]:
            msg = f"the stack has {self.W.shape[0]} members, got index {i}"
            raise IndexError(msg)
        members = {name: getattr(self, name)[i] for name in DATA_FIELDS if name not in ("W", "H", "restarts")}
        return replace(self, W=self.W[i, ...], H=self.H[i, ...], restarts=None, **members)

    def __repr__(self) -> str:
        factors = f"W={tuple(self.W.shape)}, H={tuple(self.H.shape)}, dtype={libraries.dtype_name(self.W.dtype)}"
        if self.W.ndim > 2 or not libraries.is_readable(self._divergence):
            return f"Result({factors}, solver={self.solver!r})"
        return (
            f"Result({factors}, divergence={self.divergence:.6g}, n_iter={self.n_iter}, "
            f"status={self.status.name}, solver={self.solver!r})"
        )

    def __str__(self) -> str:
        return display.text(display.rows(self)) if libraries.is_readable(self._divergence) else repr(self)

    def _repr_html_(self) -> str | None:
        """What a notebook shows; None, and with it the `repr`, where no number can be read."""
        return display.notebook(display.rows(self), self.history) if libraries.is_readable(self._divergence) else None


DATA_FIELDS = ("W", "H", "_divergence", "_objective", "_history", "_n_iter", "_status", "_kkt_residual", "restarts")
STATIC_FIELDS = ("solver", "beta", "robust")


def _number(x: Any) -> Any:
    """A 0-d array as a Python number, a stack of them as a NumPy array; traced values as they are."""
    if libraries.is_traced(x):
        return x
    if isinstance(x, int | float):
        return int(x) if isinstance(x, int) else float(x)
    import numpy as np

    host = np.asarray(x) if isinstance(x, tuple) else transfer.to_host(x)
    return host if host.ndim else host.item()


MAY_RISE = ("online",)  # solvers whose objective may rise without rounding


def _message(status: Status, history: tuple[float, ...], solver: str) -> str:
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


def _reached(history: Any) -> tuple[float, ...]:
    """A history without the NaN that a compiled loop leaves behind its end."""
    return tuple(x for x in history if x == x)


def stacked(results: list[Result], stack: tuple[int, ...], *, xp: Namespace) -> Result:
    """The results of the members of a stack as one."""

    def joined(name: str) -> Array:
        x = xp.stack([getattr(one, name) for one in results])
        return xp.reshape(x, (*stack, *x.shape[1:]))

    names = ("divergence", "objective", "history", "n_iter", "kkt_residual")
    rest: dict[str, Any] = {f"_{name}": tuple(getattr(one, name) for one in results) for name in names}
    rest["_status"] = tuple(one.status.value for one in results)
    return replace(results[0], W=joined("W"), H=joined("H"), restarts=None, **rest)


def best_of(restarts: Result, *, keep_factors: bool) -> Result:
    """The restart with the least objective, carrying all of them."""
    objectives = [x if x == x else float("inf") for x in restarts.objective.tolist()]
    best = restarts[objectives.index(min(objectives))]
    if not keep_factors:
        restarts = replace(restarts, W=restarts.W[:0, ...], H=restarts.H[:0, ...])
    return replace(best, restarts=restarts)


def normalized(result: Result, which: str, *, xp: Namespace) -> Result:
    """The same product with the columns of W, or the rows of H, summing to 1."""
    W, H = result.W, result.H
    if which == "W":
        sums = _or_one(transfer.computed(xp.sum(W, axis=-2, keepdims=True)), xp=xp)
        return replace(result, W=W / sums, H=H * operators.transposed(sums))
    sums = _or_one(xp.sum(H, axis=-1, keepdims=True), xp=xp)
    return replace(result, W=W * operators.transposed(sums), H=H / sums)


def _or_one(sums: Array, *, xp: Namespace) -> Array:
    """The sums, and 1 for a component that is zero."""
    return xp.where(sums > 0, sums, 1.0)
