"""What a factorization returns, and why it ended."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nmf_xp import _compat

if TYPE_CHECKING:
    from nmf_xp._typing import Array


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
    CONVERGED = 1, "the relative decrease of the objective between two checks fell to tol"
    MAX_ITER = 2, "max_iter iterations ran; raise max_iter or tol if they were to converge"
    STOPPED = 3, "the callback stopped the run"
    INCREASED = 4, "the objective rose by more than rounding explains: the dtype's precision is spent; use a wider one"
    NOT_FINITE = 5, "the objective is not finite; scale V to order one, or use another beta_loss or start"


@dataclass(frozen=True, repr=False)
class Result:
    """A factorization V ~ WH.

    Attributes
    ----------
    W : array, shape (m, r)
        Left factor, of V's namespace and device.
    H : array, shape (r, n)
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
    kkt_residual : float
        Largest violation of the optimality conditions, without unit: over all entries of the factors that were
        updated, |min(w / max of its component, 1 - numerator / denominator)|, where numerator and denominator
        are the two parts of the gradient. 0 at a stationary point; independent of the scales of V, W and H.
    solver : str
        The solver that ran.
    beta : float
        The beta of the divergence.

    Notes
    -----
    A Result is a JAX pytree, so that a compiled function may return it. Inside that function the numbers are traced
    values, and where it stands for many results (under `jax.vmap`) they are arrays, `status` an array of codes.
    """

    W: Array
    H: Array
    solver: str
    beta: float
    _divergence: Any = field(repr=False)
    _objective: Any = field(repr=False)
    _history: Any = field(repr=False)
    _n_iter: Any = field(repr=False)
    _status: Any = field(repr=False)
    _kkt_residual: Any = field(repr=False)

    @property
    def divergence(self) -> Any:
        """Beta-divergence of V from WH."""
        return _read(self._divergence, float)

    @property
    def objective(self) -> Any:
        """The divergence plus the penalties."""
        return _read(self._objective, float)

    @property
    def kkt_residual(self) -> Any:
        """Largest violation of the optimality conditions."""
        return _read(self._kkt_residual, float)

    @property
    def n_iter(self) -> Any:
        """Iterations that ran."""
        return _read(self._n_iter, int)

    @property
    def status(self) -> Any:
        """Why the iteration ended."""
        return _read(self._status, Status.of)

    @property
    def history(self) -> Any:
        """The objective at the start and at each check."""
        if isinstance(self._history, tuple) or _compat.is_traced(self._history) or self._history.ndim > 1:
            return self._history
        return tuple(x for x in _compat.to_host(self._history).tolist() if x == x)  # NaN: not reached

    def __repr__(self) -> str:
        factors = f"W={tuple(self.W.shape)}, H={tuple(self.H.shape)}, dtype={_compat.dtype_name(self.W.dtype)}"
        if not _compat.is_readable(self._divergence) or not isinstance(self.status, Status):
            return f"Result({factors})"
        return (
            f"Result({factors}, divergence={self.divergence:.6g}, n_iter={self.n_iter}, "
            f"status={self.status.name}, solver={self.solver!r})"
        )


DATA_FIELDS = ("W", "H", "_divergence", "_objective", "_history", "_n_iter", "_status", "_kkt_residual")
STATIC_FIELDS = ("solver", "beta")


def _read(x: Any, kind: Any) -> Any:
    """A 0-d array as a Python object; traced values and stacks as they are."""
    if _compat.is_traced(x) or getattr(x, "ndim", 0) > 0:
        return x
    return kind(x)
