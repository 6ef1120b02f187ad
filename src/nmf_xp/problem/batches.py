"""The batches of V's rows, from the user's words: labels, effects that are known, a prior."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.arrays import libraries, transfer
from nmf_xp.arrays.checks import check_non_negative
from nmf_xp.data.blocks import Blockwise
from nmf_xp.data.grid import Grid
from nmf_xp.data.naming import text
from nmf_xp.data.tabled import model_sums, sums_of_batches, sums_of_data
from nmf_xp.problem.batched import Batched, BatchedBlocks
from nmf_xp.problem.batched_grid import BatchedGrid, what_v_says
from nmf_xp.problem.confounding import loadings_of, warn_of_confounded
from nmf_xp.problem.effects import Effects, Shrunk
from nmf_xp.problem.labels import labels_of

if TYPE_CHECKING:
    from collections.abc import Hashable

    import numpy as np

    from nmf_xp.arrays.typing import Namespace
    from nmf_xp.data.constraints import Constraints

LEAST = 2.0**-126  # stands for an effect of 0, which says that the batch has no count there
LARGEST = 1e30  # of a known effect, far within the numbers of float32


class Batches(NamedTuple):
    """The batches of V's rows, as the user has them."""

    labels: tuple[Hashable, ...]  # (G,)
    codes: np.ndarray[Any, Any]  # (m,): the number of each row's label; for a stack perhaps (members, m)
    prior: float = 0.0
    known: np.ndarray[Any, Any] | None = None  # (..., G, n): effects that are given, 0 where they are to be found
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

    def loadings(self, W: Any) -> np.ndarray[Any, Any]:
        """The sums of W over the rows of each batch, on the host: (..., G, r)."""
        W = transfer.to_host(transfer.computed(W))
        codes = self.codes if self.codes.ndim == 1 else self.codes.reshape(W.shape[:-1])
        return loadings_of(W, codes, len(self.labels))

    def warn_of_confounded(self, result: Any) -> None:
        """Say which components live in one batch, where nothing tells what is the batch's and what its rows'."""
        H, table = (transfer.to_host(x) for x in (result.H, result._batch_table))
        warn_of_confounded(result._batch_loadings, H, table, self.labels, stacklevel=3)

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


def batches_of(
    data: Any, batch: Any, prior: Any, effects: Any, *, stack: tuple[int, ...], alone: bool, fixed_h: bool
) -> Batches | None:
    """The batches that labels (m,) name, or for each member of a stack its own, in the order of the labels.

    None without any. V is `alone` where it is on one device.
    """
    if batch is None:
        for name, x in (("batch_prior", prior), ("batch_effects", effects)):
            if x is not None and x != 0:
                msg = f"`{name}` must come with `batch`, the labels of V's rows"
                raise ValueError(msg)
        return None
    if not alone:
        msg = "`batch` must be left out for V on several devices"
        raise ValueError(msg)
    import numpy as np

    m, n = data.shape[-2:]
    labels, apart = labels_of(batch, m, stack)
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
    codes = codes.reshape(-1, m) if apart else codes
    known = None
    if effects is not None:
        rows = [_effect(effects, name, (*stack, n)) for name in names]
        known = np.stack(np.broadcast_arrays(*rows), axis=-2)
        known = known.reshape(-1, *known.shape[-2:]) if known.ndim > 2 else known
    return Batches(tuple(names), codes, check_non_negative("batch_prior", prior), known, fixed_h)


def _effect(effects: Any, label: Hashable, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """The factors (..., n) that are known of a batch, by the text of its label; 0 where there are none."""
    import numpy as np

    if not isinstance(effects, dict):
        msg = f"`batch_effects` must be those of a result, a dict of labels and arrays, got {type(effects).__name__}"
        raise TypeError(msg)
    n = shape[-1]
    row = next((x for known, x in effects.items() if text(known) == text(label)), None)
    if row is None:
        return np.zeros(n)
    row = transfer.to_host(row) if libraries.is_array(row) else np.asarray(row)
    if row.shape not in ((n,), shape) or row.dtype.kind not in "iuf" or not ((row >= 0) & (row <= LARGEST)).all():
        msg = (
            f"`batch_effects` must have {n} numbers from 0 to {LARGEST:g}, one for each column of V, "
            f"those of {label!r} are not"
        )
        raise ValueError(msg)
    return np.maximum(row, LEAST)
