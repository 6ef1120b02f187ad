"""Several results as one, the best of them, and one in another scale."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nmf_xp.arrays import operators, transfer

if TYPE_CHECKING:
    from nmf_xp.arrays.typing import Array, Namespace
    from nmf_xp.result.factorized import Result


def stacked(results: list[Result], stack: tuple[int, ...], *, xp: Namespace) -> Result:
    """The results of the members of a stack as one."""

    def joined(name: str) -> Array:
        x = xp.stack([getattr(one, name) for one in results])
        return xp.reshape(x, (*stack, *x.shape[1:]))

    names = ("divergence", "objective", "history", "n_iter", "kkt_residual")
    rest: dict[str, Any] = {f"_{name}": tuple(getattr(one, name) for one in results) for name in names}
    rest["_status"] = tuple(one.status.value for one in results)
    if results[0].weights_of_rows is not None:
        rest["weights_of_rows"] = joined("weights_of_rows")
    if results[0].batch_labels is not None:
        rest |= _joined_batches(results, stack, xp=xp)
    return replace(results[0], W=joined("W"), H=joined("H"), restarts=None, **rest)


def _joined_batches(results: list[Result], stack: tuple[int, ...], *, xp: Namespace) -> dict[str, Any]:
    """Labels and effects of all members; of a batch that a member does not have they are 1."""
    import numpy as np

    labels = tuple(dict.fromkeys(label for one in results for label in one.batch_labels or ()))
    tables, loadings = [], []
    for one in results:
        own = {label: i for i, label in enumerate(one.batch_labels or ())}
        table, held = one._batch_table, one._batch_loadings
        none = xp.ones_like(table[0, :]), np.zeros_like(held[0])
        tables.append(xp.stack([table[own[label], :] if label in own else none[0] for label in labels]))
        loadings.append(np.stack([held[own[label]] if label in own else none[1] for label in labels]))
    table, held = xp.stack(tables), np.stack(loadings)
    return {
        "batch_labels": labels,
        "_batch_table": xp.reshape(table, (*stack, *table.shape[1:])),
        "_batch_loadings": held.reshape(*stack, *held.shape[1:]),
    }


def best_of(restarts: Result, *, keep_factors: bool) -> Result:
    """The restart with the least objective, carrying all of them."""
    objectives = [x if x == x else float("inf") for x in restarts.objective.tolist()]
    best = restarts[objectives.index(min(objectives))]
    if not keep_factors:
        restarts = replace(restarts, W=restarts.W[:0, ...], H=restarts.H[:0, ...], weights_of_rows=None)
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
