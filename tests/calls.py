"""A call of `nmf` or `transform` as data: how it is made on a backend, and what it asks."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy.sparse

import nmf_xp
from nmf_xp.arrays import transfer
from nmf_xp.divergences import check_beta
from nmf_xp.testing import Backend
from tests.reference import Question, Terms

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nmf_xp import Result
    from nmf_xp.testing import Target

    Matrix = np.ndarray[Any, Any]

SPARSE = ("csr", "csc", "coo")


@contextlib.contextmanager
def only_documented_warnings() -> Iterator[None]:
    """Warnings are errors, but for the sentence about columns of V that the given H does not reach."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message="no component is positive in column")
        yield


class Answer(NamedTuple):
    """A result, or a member of one, on the host: factors in float64, and all that is said of them."""

    W: Matrix
    H: Matrix
    divergence: float
    objective: float
    residual: float
    history: tuple[float, ...]
    status: str
    n_iter: int
    solver: str
    eps: float
    tol: float
    normalized: bool


@dataclasses.dataclass(frozen=True)
class Call:
    """`nmf(V, rank, **options)`, or `transform(V, H, **options)` where H is given; all arrays are NumPy's."""

    V: Matrix
    rank: int
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    H: Matrix | None = None
    backend: Backend = Backend.NUMPY
    storage: str = "dense"

    def changed(self, **changes: Any) -> Call:
        """The same call with other fields; `options` are added to those that there are."""
        options = {**self.options, **changes.pop("options", {})}
        return dataclasses.replace(self, **changes, options=options)

    def run(self) -> Result:
        target = self.backend.target()
        with target.active():
            options = {name: _on(target, value) for name, value in self.options.items()}
            V = _stored(target, self.V, self.storage)
            if self.H is None:
                return nmf_xp.nmf(V, self.rank, **options)
            return nmf_xp.transform(V, _on(target, self.H), **options)

    def answers(self, result: Result) -> Iterator[tuple[Question, Answer]]:
        """Each matrix of the call, as what it asks and what came back."""
        W, H = (transfer.to_host(x) for x in (result.W, result.H))
        asked = float(np.finfo(W.dtype).eps), self.options.get("tol", 1e-4), self.options.get("normalize") is not None
        if W.ndim == 2:
            numbers = [result.divergence, result.objective, result.kkt_residual]
            said = result.history, result.status, result.n_iter, result.solver
            yield self.question(), _answer(W, H, numbers, said, asked)
            return
        shape = W.shape[:-2]
        for i, index in enumerate(np.ndindex(shape)):
            numbers = [np.ravel(x)[i] for x in (result.divergence, result.objective, result.kkt_residual)]
            history = result.history[i] if result.history else ()
            said = history, result.status[i], int(np.ravel(result.n_iter)[i]), result.solver
            yield self.question(index), _answer(W[index], H[index], numbers, said, asked)

    def question(self, index: tuple[int, ...] = ()) -> Question:
        """What is asked of the matrix at this place of the stack."""
        option = self.options.get
        stack = self.V.shape[:-2]
        member = index if stack else ()  # one V with a stack of starts or of components is the same for all
        V = self.V[member].astype(np.float64)  # 16-bit floats and integers are exact there
        m, n = V.shape
        weights = np.ones((m, n))
        if option("weights") is not None:
            weights = np.broadcast_to(np.asarray(option("weights"), dtype=np.float64), self.V.shape)[member]
        if option("missing") == "nan":
            weights = np.where(np.isnan(V), 0.0, weights)
        if option("absent") == "missing" and self.storage in SPARSE:
            weights = np.where(V == 0, 0.0, weights)
        alpha_w = option("alpha_W", 0.0)
        alpha_h = option("alpha_H", "same")
        alpha_h = alpha_w if isinstance(alpha_h, str) else alpha_h
        given = self.H is not None
        return Question(
            V=np.where(weights == 0, 0.0, np.nan_to_num(V)),
            beta=check_beta(option("beta_loss", 2.0)),
            weights=weights,
            w=self._terms("w", (m, self.rank), n * alpha_w),
            h=Terms() if given else self._terms("h", (self.rank, n), m * alpha_h),
            given_h=given,
        )

    def _terms(self, which: str, shape: tuple[int, int], alpha: float) -> Terms:
        ratio = self.options.get("l1_ratio", 0.0)
        fixed, upper = (self.options.get(f"{kind}_{which}") for kind in ("fixed", "upper"))
        return Terms(
            l1=alpha * ratio,
            l2=alpha * (1 - ratio),
            fixed=None if fixed is None else np.broadcast_to(fixed, shape),
            upper=None if upper is None else np.broadcast_to(np.asarray(upper, dtype=np.float64), shape),
        )

    def __str__(self) -> str:
        options = ", ".join(f"{name}={_brief(value)}" for name, value in self.options.items())
        function = f"nmf(V, {self.rank}" if self.H is None else f"transform(V, H{list(self.H.shape)}"
        where = "" if self.backend is Backend.NUMPY else f" on {self.backend.value}"
        return f"{function}, {options}) for V {self.storage} {self.V.dtype}{list(self.V.shape)}{where}"


def _brief(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_brief, value))})"
    return f"{value.dtype}{list(value.shape)}" if isinstance(value, np.ndarray) else repr(value)


def _answer(
    W: Matrix, H: Matrix, numbers: list[Any], said: tuple[Any, ...], asked: tuple[float, float, bool]
) -> Answer:
    divergence, objective, residual = map(float, numbers)
    history, status, n_iter, solver = said
    W, H = W.astype(np.float64), H.astype(np.float64)
    return Answer(W, H, divergence, objective, residual, tuple(history), status.name, n_iter, solver, *asked)


def _on(target: Target, value: Any) -> Any:
    """An option with its arrays on the target."""
    if isinstance(value, tuple):
        return tuple(_on(target, x) for x in value)
    return target.asarray(value) if isinstance(value, np.ndarray) else value


def _stored(target: Target, V: Matrix, storage: str) -> Any:
    match storage:
        case "dense":
            return target.asarray(V)
        case "fortran":
            return np.asfortranarray(V)
        case "strided":  # every second row and column of a larger array
            large = np.full((*V.shape[:-2], 2 * V.shape[-2], 2 * V.shape[-1]), 7, dtype=V.dtype)
            large[..., ::2, ::2] = V
            return large[..., ::2, ::2]
        case "blocks":  # read again in every iteration
            return nmf_xp.RowBlocks(np.array_split(V, min(3, len(V))))
        case _:
            return getattr(scipy.sparse, f"{storage}_array")(V)
