"""How much of V the model explains, beside the mean of each column: worked out from V when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nmf_xp.arrays import libraries, operators, precision, transfer
from nmf_xp.data.blocks import Part, sweep
from nmf_xp.data.constraints import FREE, Constraints
from nmf_xp.data.grid import Grid
from nmf_xp.divergences import data_divergence
from nmf_xp.problem.posing import pose

if TYPE_CHECKING:
    import numpy as np

    from nmf_xp.arrays.typing import Array
    from nmf_xp.data import Data
    from nmf_xp.problem.posing import Posed


ROUNDING = 16  # units in the last place by which rounding may move a mean


class Seen:
    """V as a run saw it, which a result keeps to answer for it; no copy is made. A pickle or a copy leaves V out."""

    def __init__(self, V: Any, options: dict[str, Any]) -> None:
        """`options` are those of `nmf` that say how V was observed."""
        self.V = V
        self.options = options
        self._of_means: dict[float, Any] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return Seen, (None, {}), {"_of_means": self._of_means}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._of_means = state["_of_means"]

    def of_means(self, beta: float) -> Any:
        """The divergence of V from the means of its columns; a NumPy array for a stack."""
        if beta not in self._of_means:
            found = divergence_of_means(self._known(), beta=beta, **self._settings())
            self._of_means[beta] = self._by_members(beta) if found is None else found
        return self._of_means[beta]

    def _by_members(self, beta: float) -> Any:
        """The same for a stack whose members are in units far apart, each in its own."""
        import numpy as np

        members = (of_member(self, i) for i in range(self.V.shape[0]))
        return np.asarray([member and member.of_means(beta) for member in members])

    def without(self, W: Array, H: Array, beta: float) -> Any:
        """The divergence with one component after the other as strong in each row as it is on average."""
        return divergences_without(self._known(), W, H, beta=beta, **self._settings())

    def _known(self) -> Any:
        if self.V is None:
            raise ValueError(UNKNOWN)
        return self.V

    def _settings(self) -> dict[str, Any]:
        return {"weights": None, "exposure": None, "missing": None, "absent": "zero", **self.options}


def share(result: Any) -> Any:
    """The share of V's divergence that a result explains; see `Result.explained`."""
    import numpy as np

    if isinstance(result._seen, float):
        return result._seen
    reference = _of(result).of_means(result.beta)
    divergence = result.divergence
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.where(np.asarray(reference) > 0, 1 - np.asarray(divergence) / np.asarray(reference), np.nan)
    return found if found.ndim else float(found)


def share_by_component(result: Any) -> np.ndarray[Any, Any]:
    """What is lost of it without one component; see `Result.explained_by_component`."""
    if isinstance(result._seen, float):
        raise ValueError(UNKNOWN)
    seen = _of(result)
    return (seen.without(result.W, result.H, result.beta) - result.divergence) / seen.of_means(result.beta)


def _of(result: Any) -> Seen:
    if result.batch_labels is not None:
        msg = "`explained` must be asked of a fit without `batch`, whose effects explain a part of V too"
        raise ValueError(msg)
    if result.noise is not None:
        msg = "`explained` must be asked of a fit without `NegativeBinomial`, for which no mean of a column is the best"
        raise ValueError(msg)
    if result.robust is not None:
        msg = "`explained` must be asked of a fit without `Robust`, whose loss no mean of a column minimises"
        raise ValueError(msg)
    if result._seen is None:
        raise ValueError(UNKNOWN)
    return result._seen


def of_member(seen: Any, i: int) -> Seen | None:
    """What is known of one member of a stack, or of one restart of one matrix."""
    if not isinstance(seen, Seen) or seen.V is None:
        return None
    if len(getattr(seen.V, "shape", ())) < 3:
        return seen

    def part(x: Any) -> Any:
        return x[i if x.shape[0] > 1 else 0, ...] if len(getattr(x, "shape", ())) == 3 else x

    return Seen(part(seen.V), {name: part(x) for name, x in seen.options.items()})


UNKNOWN = "`explained` needs V, which this result does not know: it comes from a file, a copy or a compiled function"


@precision.on_data
def divergence_of_means(V: Any, *, beta: float, **observation: Any) -> Any:
    """D(V | c), where c is the mean of each column of V over what is observed: the least of all rows c.

    With an exposure e it is D(V | e c). What is rounding is 0. V may be of any kind but a dask array.
    None stands for a stack whose members have no unit in common.
    """
    posed = pose(V, beta=beta, **observation)
    _refuse_grid(posed)
    if posed.apart and len(posed.stack) == 1:
        return None
    xp, data = posed.xp, posed.problem.data
    m, n = posed.shape
    dtype, device = data.values.dtype, libraries.device(data.values)
    wide = libraries.accumulator_dtype(xp, device)
    ones = xp.ones((*data.shape[:-2], m, 1), dtype=dtype, device=device)

    def sums(block: Data, column: Array, _: Constraints) -> Part:
        row, turned = operators.transposed(column), block.T
        everywhere = xp.ones((*row.shape[:-2], n, 1), dtype=dtype, device=device)
        # The model's slope for beta 2 is (WH) H^T over the domain, with its weights.
        weight = turned.model_slope(everywhere, row, None, beta=2, xp=xp)
        size = block.sum(block.values**beta, dtype=wide, xp=xp)
        return Part(None, (turned.contract(block.values, row, xp=xp), weight, size))

    total, weight, size = sweep(sums, data, ones, FREE, xp=xp).sums
    least = float(xp.finfo(dtype).smallest_normal)
    means = operators.at_least(total / operators.at_least(weight, least, xp=xp), posed.floor, xp=xp)
    found = data_divergence(data, ones, operators.transposed(means), beta=beta, xp=xp)
    found = xp.where(found > (ROUNDING * float(xp.finfo(dtype).eps)) ** 2 * size, found, 0.0)
    found = posed.restore_divergence(found if posed.stack else transfer.scalar(found))
    return transfer.to_host(found) if posed.stack else float(found)


@precision.on_data
def divergences_without(V: Any, W: Array, H: Array, *, beta: float, **observation: Any) -> np.ndarray[Any, Any]:
    """D(V | WH) with each column of W in turn replaced by its mean over the rows: (r,)."""
    import numpy as np

    posed = pose(V, beta=beta, **observation)
    _refuse_grid(posed)
    if posed.stack:
        msg = "`explained_by_component` must be asked of one member of a stack, such as result[0], got all of them"
        raise ValueError(msg)
    xp, r = posed.xp, W.shape[-1]
    posed = posed.suited(W, H)
    W, H = posed.factor("W", W, "W", r), posed.factor("H", H, "H", r)
    mean = xp.mean(W, axis=0, keepdims=True)
    found = []
    for k in range(r):
        own = xp.arange(r, device=libraries.device(W)) == k
        even = xp.where(own, mean, W)
        found.append(transfer.scalar(data_divergence(posed.problem.data, even, H, beta=beta, xp=xp)))
    return np.asarray([posed.restore_divergence(x) for x in found])


def _refuse_grid(posed: Posed) -> None:
    if isinstance(posed.problem.data, Grid):
        msg = "`explained` must be asked of V in one process, got a dask array; pass its `.compute()` to `nmf`"
        raise ValueError(msg)
