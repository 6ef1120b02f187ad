"""The batches of V's rows, from the user's words: labels, effects that are known, a prior."""

from __future__ import annotations

import hashlib
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.arrays import libraries, transfer
from nmf_xp.arrays.checks import check_non_negative
from nmf_xp.data.blocks import Blockwise
from nmf_xp.data.grid import Grid
from nmf_xp.data.naming import text
from nmf_xp.data.tabled import model_sums, sums_of_batches, sums_of_data
from nmf_xp.problem.batched import Batched, BatchedBlocks
from nmf_xp.problem.batched_grid import BatchedGrid, what_v_says
from nmf_xp.problem.effects import Effects, Shrunk
from nmf_xp.problem.labels import labels_of

if TYPE_CHECKING:
    from collections.abc import Hashable

    import numpy as np

    from nmf_xp.arrays.typing import Array, Namespace
    from nmf_xp.data.constraints import Constraints

LEAST = 2.0**-126  # stands for an effect of 0, which says that the batch has no count there
LARGEST = 1e30  # of a known effect, far within the numbers of float32
ALONE = 0.99  # of a component, which then lives in one batch
LISTED = 5  # components in a message


class ConfoundingWarning(UserWarning):
    """A component lives in one batch only, so that it cannot be told from an effect of the batch."""


class Batches(NamedTuple):
    """The batches of V's rows, as the user has them."""

    labels: tuple[Hashable, ...]  # (G,)
    codes: np.ndarray[Any, Any]  # (m,): the number of each row's label
    prior: float = 0.0
    known: np.ndarray[Any, Any] | None = None  # (G, n): tables that are given, 0 where they are to be found
    fixed_h: bool = False

    @property
    def identity(self) -> str:
        """What tells these batches from others, for a checkpoint."""
        parts = (repr(self.labels).encode(), self.codes.tobytes(), repr(self.prior).encode())
        known = b"" if self.known is None else self.known.tobytes()
        return hashlib.blake2b(b"|".join((*parts, known)), digest_size=16).hexdigest()

    def check_terms(self, w: Constraints, h: Constraints) -> None:
        """Refuse what is asked of the factor whose scale goes into the effects that are found."""
        x = w if self.fixed_h else h
        found = self.known is None or bool((self.known == 0).all(axis=-1).any())
        asked = x.penalised or x.others or x.upper is not None or x.lower is not None
        if found and not self.prior and (asked or (not self.fixed_h and x.fixed is not None)):
            which = "W beside effects that are to be found" if self.fixed_h else "H"
            msg = f"`batch_prior` must be positive where something is asked of {which}, which they evade, got 0"
            raise ValueError(msg)

    def warn_of_confounded(self, W: Array, H: Array, effects: Any) -> None:
        """Say which components live in one batch, where nothing tells what is the batch's and what its rows'."""
        import numpy as np

        loadings, components = transfer.to_host(transfer.computed(W)), transfer.to_host(H)
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

    def on(self, data: Any, prior: float, *, xp: Namespace) -> Batched | BatchedGrid:
        """The data with these batches, for the prior in the problem's units."""
        device, dtype, count = libraries.device(data.values), data.values.dtype, len(self.labels)
        m, n = data.shape[-2:]
        rows, columns = (xp.ones(shape, dtype=dtype, device=device) for shape in ((m, 1), (1, n)))
        codes = transfer.from_host(self.codes, xp=xp, dtype=xp.int32, device=device)
        if isinstance(data, Grid):
            counts, weights = what_v_says(data, self.codes, count, xp=xp)
        else:
            counts = sums_of_data(data, codes, count, xp=xp)
            weights = counts if self.prior else model_sums(data, codes, rows, columns, count, xp=xp)
        silent = xp.zeros_like(counts) > 0  # V says nothing of these effects
        if not self.prior:
            silent = xp.logical_or(weights == 0, xp.sum(counts, axis=-1, keepdims=True) == 0)
        shares = xp.where(silent, 0.0, sums_of_batches(codes, rows, count, xp=xp) / m)
        known = xp.astype(silent, dtype)
        if self.known is not None:
            given = transfer.from_host(self.known, xp=xp, dtype=dtype, device=device)
            known = xp.where(given > 0, given, known)
        c = xp.full((), prior, dtype=dtype, device=device)
        effects = (Shrunk if self.prior else Effects)(counts, shares, c, known)
        if isinstance(data, Grid):
            return BatchedGrid(data, effects)
        kind = BatchedBlocks if isinstance(data, Blockwise) else Batched
        return kind(data, codes[..., None], effects)


def batches_of(data: Any, batch: Any, prior: Any, effects: Any, *, alone: bool, fixed_h: bool) -> Batches | None:
    """The batches that labels (m,) name, in the order of the labels; None without any.

    V is `alone` where it is one matrix on one device.
    """
    if batch is None:
        for name, x in (("batch_prior", prior), ("batch_effects", effects)):
            if x is not None and x != 0:
                msg = f"`{name}` must come with `batch`, the labels of V's rows"
                raise ValueError(msg)
        return None
    if not alone:
        msg = "`batch` must be left out for stacks and V on several devices"
        raise ValueError(msg)
    import numpy as np

    m, n = data.shape
    labels = labels_of(batch, m)
    names = list(dict.fromkeys(labels))
    if len({text(name) for name in names}) < len(names):
        msg = f"`batch` must have labels that differ as text, got {names!r}"
        raise ValueError(msg)
    try:
        names = sorted(names)
    except TypeError:  # of several types
        names = sorted(names, key=str)
    number = {name: i for i, name in enumerate(names)}
    codes = np.asarray([number[label] for label in labels], dtype=np.int32)
    known = None if effects is None else np.stack([_effect(effects, name, n) for name in names])
    return Batches(tuple(names), codes, check_non_negative("batch_prior", prior), known, fixed_h)


def _effect(effects: Any, label: Hashable, n: int) -> np.ndarray[Any, Any]:
    """The factors (n,) that are known of a batch; 0 where there are none. Labels are the same if their texts are."""
    import numpy as np

    if not isinstance(effects, dict):
        msg = f"`batch_effects` must be those of a result, a dict of labels and arrays, got {type(effects).__name__}"
        raise TypeError(msg)
    row = next((x for known, x in effects.items() if text(known) == text(label)), None)
    if row is None:
        return np.zeros(n)
    row = transfer.to_host(row) if libraries.is_array(row) else np.asarray(row)
    if row.shape != (n,) or row.dtype.kind not in "iuf" or not ((row >= 0) & (row <= LARGEST)).all():
        msg = (
            f"`batch_effects` must have {n} numbers from 0 to {LARGEST:g}, one for each column of V, "
            f"those of {label!r} are not"
        )
        raise ValueError(msg)
    return np.maximum(row, LEAST)
