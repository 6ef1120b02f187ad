"""What a model has seen, and what it has not: the two parts of V by which losses are compared.

Counts are thinned: each is drawn, one by one, to one of two halves. Where they are Poisson's, the halves are
independent, whatever their means (Neufeld, Dharamshi, Gao & Witten 2024); a sparse V stays sparse. Of numbers that are
no counts, entries here and there are held out, each of them once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.arrays import libraries, transfer
from nmf_xp.arrays.checks import as_working_dtype
from nmf_xp.data import Sparse, as_data

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from nmf_xp.arrays.typing import Namespace

    HostArray = np.ndarray[Any, Any]

AT_ONCE = 2**18  # entries that are looked at together
FAR = 1e100  # of numbers whose squares and densities are computed
LARGEST = 2.0**53  # of a count


class Table(NamedTuple):
    """V on the host, a NumPy array or compressed rows of SciPy, and where the user has it."""

    values: Any
    xp: Namespace
    dtype: Any
    device: Any

    @classmethod
    def of(cls, V: Any) -> Table:
        """The table of one matrix in memory. A sparse one of any library becomes SciPy's."""
        data = as_data(V)
        xp = libraries.array_namespace(data.values)
        values = as_working_dtype("V", data.values, xp=xp)
        device, host = libraries.device(data.values), transfer.to_host(values)
        if not isinstance(data, Sparse):
            return cls(host, xp, values.dtype, device)
        from scipy.sparse import csr_array

        places = transfer.to_host(data.i), transfer.to_host(data.j)
        return cls(csr_array((host, places), shape=data.shape), xp, values.dtype, device)

    @property
    def sparse(self) -> bool:
        """Whether V is sparse."""
        return libraries.sparse_library(self.values) is not None

    @property
    def stored(self) -> HostArray:
        """What is stored of V."""
        found: HostArray = self.values.data if self.sparse else self.values
        return found

    @property
    def zeros(self) -> bool:
        """Whether V has a zero."""
        m, n = self.values.shape
        return bool((self.stored == 0).any()) or self.stored.size < m * n

    @property
    def counts(self) -> bool:
        """Whether V has whole numbers only, none of them too large to be counted."""
        import numpy as np

        return bool((self.stored == np.floor(self.stored)).all() and (self.stored < LARGEST).all())

    def own(self, values: Any) -> Any:
        """A table of V's shape as an array of V's library; one of SciPy as it is."""
        if libraries.sparse_library(values) is not None:
            return values
        return transfer.from_host(values, xp=self.xp, dtype=self.dtype, device=self.device)


class Split(NamedTuple):
    """One way to divide V: what is fitted, with weights or without, and what is predicted."""

    seen: Any  # (m, n), on the host
    held_out: Any
    out: HostArray | None = None  # (m, n): which entries are held out; None for all

    @property
    def weights(self) -> HostArray | None:
        """Those of what is seen."""
        return None if self.out is None else 1.0 - self.out


def thinned(table: Table, n_splits: int, rng: np.random.Generator) -> Iterator[Split]:
    """The two halves of counts, drawn anew for each split."""
    V = table.values
    for _ in range(n_splits):
        half = rng.binomial(table.stored.astype("int64"), 0.5).astype(table.stored.dtype)
        if not half.any():
            msg = f"`V` must have enough counts for two halves, got {table.stored.sum():.0f} in sum"
            raise ValueError(msg)
        if not table.sparse:
            yield Split(half, V - half)
            continue
        seen, rest = V.copy(), V.copy()
        seen.data, rest.data = half, V.data - half
        yield Split(seen, rest)


def speckled(table: Table, n_splits: int, rng: np.random.Generator) -> Iterator[Split]:
    """Entries that are held out, each of them in one split."""
    import numpy as np

    V = table.values.toarray() if table.sparse else table.values
    if V.size < 2 * n_splits:
        msg = f"`n_splits` must be at most half as many as V has entries, {V.size}, got {n_splits}"
        raise ValueError(msg)
    low, high = V[V > 0].min(), V.max()
    if not (1.0 / FAR < high < FAR and low > 1.0 / FAR):
        msg = f"`V` must have positive entries from {1 / FAR:g} to {FAR:g}, got {low:g} to {high:g}: multiply it"
        raise ValueError(msg)
    fold = rng.permutation(np.arange(V.size) % n_splits).reshape(V.shape)
    for i in range(n_splits):
        yield Split(V, V, (fold == i).astype(V.dtype))


def blocks(V: Any) -> Iterator[tuple[slice, HostArray]]:
    """Some rows of a table at a time, dense, and which they are."""
    m, n = V.shape
    step = max(1, AT_ONCE // n)
    for start in range(0, m, step):
        rows = slice(start, min(start + step, m))
        part = V[rows]
        yield rows, (part if libraries.sparse_library(part) is None else part.toarray())
