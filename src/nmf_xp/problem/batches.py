r"""Batch effects within the model: V is modelled by B[g_i, j] (WH)_ij, with a table B of batches and columns.

For Poisson counts, the Kullback-Leibler loss, the best table for given factors is exact. With the pseudo-counts c of a
gamma prior around 1 it is

    B[g, j] = (c + sum of V over the rows of g) / (c + sum of WH over these rows),

so B is no more than a function of W and H. The loss is that at the best table. With the table of the present factors
the divergence lies above it and meets it there, so whatever lowers the one lowers the other.

Only B[g, j] h_kj is known, not how it is shared: the geometric mean of each column of B over the rows of V is made 1.
"""

from __future__ import annotations

import hashlib
import warnings
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from nmf_xp.arrays import libraries, operators, transfer
from nmf_xp.arrays.checks import check_non_negative
from nmf_xp.data import Dense, Sparse
from nmf_xp.data.blocks import transposed_matmul
from nmf_xp.data.seam import Wrapping
from nmf_xp.data.tabled import AT_ONCE, Tabled, TabledTransposed, model_sums, sums_of_batches
from nmf_xp.divergences import data_divergence

if TYPE_CHECKING:
    from collections.abc import Hashable

    import numpy as np

    from nmf_xp.arrays.typing import Array, Namespace
    from nmf_xp.data import Data
    from nmf_xp.data.constraints import Constraints


LEAST = 2.0**-126  # stands for an effect of 0, which says that the batch has no count there


ALONE = 0.99  # of a component, which then lives in one batch
LISTED = 5  # components in a message


class ConfoundingWarning(UserWarning):
    """A component lives in one batch only, so that it cannot be told from an effect of the batch."""


class Fields(NamedTuple):
    """What data with batches are made of."""

    base: Any
    codes: Array  # g (m,): the batch of each row of V
    counts: Array  # (G, n): the sums of V over the rows of each batch
    shares: Array  # (G, 1): of the rows
    prior: Array  # (): c
    known: Array  # (G, n): tables that are given, and 0 where they are to be found


class Batched(Fields, Wrapping):
    """Data whose rows come in batches: `base`, and what says the best table for given factors."""

    turned: ClassVar[bool] = False

    @property
    def T(self) -> Batched:
        """The transposed problem."""
        return BatchedTransposed(self.base.T, *self[1:])

    def member(self, i: int) -> Batched:
        """The same for every member of a stack of factors."""
        return self

    def table(self, W: Array, H: Array, *, xp: Namespace) -> Array:
        """The best B for these factors: (..., G, n)."""
        tiny = float(xp.finfo(W.dtype).smallest_normal)
        model = model_sums(self.codes, W, H, self.counts.shape[0], turned=self.turned, xp=xp)
        best = (self.counts + self.prior) / operators.at_least(model + self.prior, tiny, xp=xp)
        empty = xp.sum(self.counts, axis=-1, keepdims=True) == 0  # it says nothing of the columns
        return xp.where(self.known > 0, self.known, xp.where(empty, 1.0, best))

    def gauge(self, table: Array, *, xp: Namespace) -> Array:
        """The geometric mean over V's rows of each column of a table, where it is not 0: (..., 1, n)."""
        positive = table > 0
        logs = xp.where(positive, xp.log(xp.where(positive, table, 1.0)), 0.0)
        weights = xp.where(positive, self.shares, 0.0)
        total = xp.sum(weights, axis=-2, keepdims=True)
        return xp.exp(xp.sum(weights * logs, axis=-2, keepdims=True) / xp.where(total > 0, total, 1.0))

    def settled(self, W: Array, H: Array, *, xp: Namespace) -> Array:
        """H with the geometric means of the table, by which the loss stays as it is."""
        return H * self.gauge(self.table(W, H, xp=xp), xp=xp)

    def renewed(self, W: Array, H: Array, _: Any, *, whole: bool = False, beta: float, xp: Namespace) -> Data:
        """The data with the best table for these factors."""
        kind = TabledTransposed if self.turned else Tabled
        return kind(self.base, self.codes, self.table(W, H, xp=xp))

    def divergence(self, W: Array, H: Array, _: Any, *, beta: float, xp: Namespace) -> Array:
        """The divergence at the best table: (...,)."""
        return data_divergence(self.renewed(W, H, None, beta=beta, xp=xp), W, H, beta=beta, xp=xp)

    def penalty(self, W: Array, H: Array, *, xp: Namespace) -> Array:
        """What the prior adds to the objective, c (b - 1 - log b) for each entry: (...,)."""
        dtype = libraries.accumulator_dtype(xp, libraries.device(W))
        table = self.table(W, H, xp=xp)
        free = xp.where(xp.logical_and(self.known == 0, table > 0), table, 1.0)
        return xp.sum(self.prior * (free - 1.0 - xp.log(free)), axis=(-2, -1), dtype=dtype)


class BatchedTransposed(Batched):
    """The transposed problem: the table stays as it is."""

    turned: ClassVar[bool] = True

    @property
    def T(self) -> Batched:
        """The problem as it was."""
        return Batched(self.base.T, *self[1:])


class Batches(NamedTuple):
    """The batches of V's rows, as the user has them."""

    labels: tuple[Hashable, ...]  # (G,)
    codes: np.ndarray[Any, Any]  # (m,): the number of each row's label
    prior: float = 0.0
    known: np.ndarray[Any, Any] | None = None  # (G, n): tables that are given, 0 where they are to be found

    @property
    def identity(self) -> str:
        """What tells these batches from others, for a checkpoint."""
        parts = (repr(self.labels).encode(), self.codes.tobytes(), repr(self.prior).encode())
        known = b"" if self.known is None else self.known.tobytes()
        return hashlib.blake2b(b"|".join((*parts, known)), digest_size=16).hexdigest()

    def check_terms(self, *terms: Constraints) -> None:
        """Refuse what is asked of a factor and would be evaded: only the product with B is known."""
        asked = any(x.penalised or x.upper is not None or x.lower is not None or x.others for x in terms)
        if asked and not self.prior and self.known is None:
            msg = "`batch_prior` must be positive beside penalties and bounds, which batch effects evade, got 0"
            raise ValueError(msg)

    def warn_of_confounded(self, W: Array, H: Array, effects: Any) -> None:
        """Say which components live in one batch, where nothing tells what is the batch's and what its rows'."""
        import numpy as np

        loadings, components = transfer.to_host(W), transfer.to_host(H)
        table = np.stack([transfer.to_host(x) for x in effects.values()])
        held = np.stack([loadings[self.codes == i].sum(axis=0) for i in range(len(self.labels))])
        held = held * (table @ components.T)  # of the model, by each batch and component
        total = np.maximum(held.sum(axis=0), np.finfo(held.dtype).tiny)
        alone = (held / total >= ALONE) & (held.sum(axis=1, keepdims=True) < ALONE * held.sum())
        found = [f"component {k} in {self.labels[i]!r}" for i, k in np.argwhere(alone).tolist()]
        if found:
            more = f" and {len(found) - LISTED} more" if len(found) > LISTED else ""
            msg = (
                f"{', '.join(found[:LISTED])}{more}: of a component that lives in one batch only, nothing tells "
                "whether it is an effect of the batch or a difference of its rows"
            )
            warnings.warn(msg, ConfoundingWarning, stacklevel=2)

    def on(self, data: Data, prior: float, *, xp: Namespace) -> Batched:
        """The data with these batches, for the prior in the problem's units."""
        device, dtype = libraries.device(data.values), data.values.dtype
        codes = transfer.from_host(self.codes, xp=xp, dtype=xp.int32, device=device)
        counts = counts_of_batches(data, codes, len(self.labels), xp=xp)
        ones = xp.ones((data.shape[-2], 1), dtype=dtype, device=device)
        shares = sums_of_batches(codes, ones, len(self.labels), xp=xp) / data.shape[-2]
        known = xp.zeros_like(counts)
        if self.known is not None:
            known = transfer.from_host(self.known, xp=xp, dtype=dtype, device=device)
        return Batched(data, codes, counts, shares, xp.full((), prior, dtype=dtype, device=device), known)


def counts_of_batches(data: Data, codes: Array, count: int, *, xp: Namespace) -> Array:
    """The sums of V over the rows of each batch: (G, n)."""
    step = max(1, AT_ONCE // codes.shape[0])
    parts = []
    for start in range(0, count, step):
        batches = xp.arange(start, min(start + step, count), dtype=codes.dtype, device=libraries.device(codes))
        member = xp.astype(batches[:, None] == codes[None, :], data.values.dtype)
        parts.append(operators.transposed(transposed_matmul(data, member, xp=xp)))
    return xp.concat(parts)


def batches_of(data: Any, batch: Any, prior: Any, effects: Any, *, alone: bool) -> Batches | None:
    """The batches that labels (m,) name, in the order of the labels; None without any.

    V is `alone` where it is one matrix on one device.
    """
    if batch is None:
        for name, x in (("batch_prior", prior), ("batch_effects", effects)):
            if x is not None and x != 0:
                msg = f"`{name}` must come with `batch`, the labels of V's rows"
                raise ValueError(msg)
        return None
    if not alone or type(data) not in (Dense, Sparse):
        msg = (
            "`batch` must be left out for stacks, V on several devices, and beside weights, exposures and missing "
            "entries (exposures of rows go into W, of columns into the effects)"
        )
        raise ValueError(msg)
    import numpy as np

    m, n = data.shape
    labels = _labels(batch, m)
    names = list(dict.fromkeys(labels))
    try:
        names = sorted(names)
    except TypeError:  # of several types
        names = sorted(names, key=str)
    number = {name: i for i, name in enumerate(names)}
    codes = np.asarray([number[label] for label in labels], dtype=np.int32)
    known = None if effects is None else np.stack([_effect(effects, name, n) for name in names])
    return Batches(tuple(names), codes, check_non_negative("batch_prior", prior), known)


def _effect(effects: Any, label: Hashable, n: int) -> np.ndarray[Any, Any]:
    """The factors (n,) that are known of a batch; 0 where there are none."""
    import numpy as np

    if not isinstance(effects, dict):
        msg = f"`batch_effects` must be those of a result, a dict of labels and arrays, got {type(effects).__name__}"
        raise TypeError(msg)
    if label not in effects:
        return np.zeros(n)
    row = effects[label]
    row = transfer.to_host(row) if libraries.is_array(row) else np.asarray(row)
    if row.shape != (n,) or row.dtype.kind not in "iuf" or not np.isfinite(row).all() or (row < 0).any():
        msg = f"`batch_effects` must have {n} numbers from 0 on, one for each column of V, those of {label!r} are not"
        raise ValueError(msg)
    return np.maximum(row, LEAST)


def _labels(batch: Any, m: int) -> list[Any]:
    """The labels of the rows, as hashable values on the host."""
    import numpy as np

    labels = transfer.to_host(batch) if libraries.is_array(batch) else batch
    labels = labels.to_numpy() if hasattr(labels, "to_numpy") else labels
    if isinstance(labels, str) or not hasattr(labels, "__len__"):
        msg = f"`batch` must be the labels of V's rows, got {batch!r}; of a table pass the column"
        raise TypeError(msg)
    found = np.asarray(labels, dtype=object) if isinstance(labels, list | tuple) else np.asarray(labels)
    if found.ndim != 1 or found.shape[0] != m:
        msg = f"`batch` must have a label for each of the {m} rows of V, got shape {found.shape}"
        raise ValueError(msg)
    values = [x.item() if isinstance(x, np.generic) else x for x in found.tolist()]
    missing = [i for i, x in enumerate(values) if x is None or x != x or str(x) in ("NaT", "<NA>")]
    if missing:
        msg = f"`batch` must have a label for each row, got none for row {missing[0]}; name those that are unknown"
        raise ValueError(msg)
    return values
