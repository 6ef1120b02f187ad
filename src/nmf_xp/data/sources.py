"""Where row blocks come from: files and other things that can be read again and again, and never whole.

A source yields its blocks from the first row to the last, as NumPy or SciPy sparse arrays, or as whatever an iterable
of the user holds. What is read by rows, it reads in blocks of a size that suits the memory.
"""

from __future__ import annotations

import io
import itertools
import math
import mmap
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from nmf_xp.arrays import arrival, libraries, memory, refused
from nmf_xp.data.chunks import is_zarr, part
from nmf_xp.data.codecs import check_codecs
from nmf_xp.data.sparse_places import check_starts

if TYPE_CHECKING:
    from pathlib import Path

BLOCK = 2**24  # bytes of a block: a few of them need little memory, and their sums of H's size little time
HEADER = 2**14  # bytes that the header of a .npy file has at most: NumPy reads none of more than 10000
SHARE = 16  # of the available memory, that a block may take at most
COLUMNS = "`V` must be stored by rows (CSR) to be read block by block, got compressed columns; store it by rows"


class Source(Protocol):
    """Row blocks that can be read again."""

    @property
    def shape(self) -> tuple[int, int] | None:
        """Rows and columns, where they are known before the first pass."""

    def blocks(self) -> Iterator[Any]:
        """The blocks in their order; the same ones at each call."""

    def done(self, block: Any) -> None:
        """Take back a block, whose memory may be read into again."""


class Rows:
    """What has a shape and is read by slices of its rows: a memory map, an HDF5 dataset, a zarr array, backed rows."""

    def __init__(self, rows: Any, *, row_bytes: float | None = None, step: int = 1) -> None:
        """`row_bytes` is the size of a row where it does not follow from the shape, `step` the height of a chunk."""
        m, n = (int(length) for length in rows.shape)
        self.shape = m, n
        self.dtype = rows.dtype
        self._rows = rows
        self._whole = libraries.is_array(rows)  # whose standard wants an index for each axis
        size = max(8, getattr(rows.dtype, "itemsize", 8))
        self._starts = block_starts(m, n * size if row_bytes is None else row_bytes, step)
        # New memory has to be cleared by the system, which takes longer than to read into it.
        self._free: list[Any] = []

    def blocks(self) -> Iterator[Any]:
        """The blocks in their order."""
        return itertools.starmap(self.read, itertools.pairwise(self._starts))

    def read(self, start: int, stop: int) -> Any:
        """Some of the rows, as a plain array."""
        import numpy as np

        if not hasattr(self._rows, "read_direct"):  # as h5py calls it
            block = self._slice(start, stop)
            if isinstance(block, np.ma.MaskedArray) and not np.ma.is_masked(block):
                block = np.asarray(block)  # without a masked entry it is an array like any other
            return arrival.plain(block, mapped=True)
        shape = (max(np.diff(self._starts)), self.shape[1])
        block = (self._free.pop() if self._free else np.empty(shape, self._rows.dtype))[: stop - start]
        self._rows.read_direct(block, np.s_[start:stop])
        return block

    def _slice(self, start: int, stop: int) -> Any:
        if is_zarr(self._rows):
            return part(self._rows, start, stop)
        return self._rows[start:stop, ...] if self._whole else self._rows[start:stop]

    def done(self, block: Any) -> None:
        """Take back a block, whose memory may be read into again."""
        if hasattr(self._rows, "read_direct"):
            self._free.append(block if block.base is None else block.base)


class NpyHeader(NamedTuple):
    """What the header of a .npy file declares, and where it ends."""

    shape: tuple[int, ...]
    by_columns: bool
    dtype: Any
    begin: int

    @property
    def bytes(self) -> int:
        """What the entries take."""
        return math.prod(self.shape) * int(self.dtype.itemsize)


def npy_header(file: Any) -> NpyHeader:
    """The header of an open .npy file, of which no more is read than a header may have."""
    from numpy.lib import format as npy

    head = io.BytesIO(file.read(HEADER))
    try:
        version = npy.read_magic(head)
    except ValueError as error:
        msg = "it is no NumPy file"
        raise ValueError(msg) from error
    shape, by_columns, dtype = (npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0)(head)
    if min(shape, default=0) < 0 or max(shape, default=0) > sys.maxsize:
        msg = f"its header declares the shape {shape}"
        raise ValueError(msg)
    return NpyHeader(shape, by_columns, dtype, head.tell())


class NpyFile:
    """A matrix in a .npy file, in C order, which is read piece by piece and never mapped."""

    def __init__(self, path: Path) -> None:
        """Read the header."""
        with path.open("rb") as file:
            shape, by_columns, self.dtype, self._begin = npy_header(file)
        if len(shape) != 2 or by_columns or self.dtype.kind not in "biuf":
            order = "Fortran" if by_columns else "C"
            msg = f"`V` must be a matrix of numbers in C order, got shape {shape}, {self.dtype}, {order} order"
            raise ValueError(msg)
        self.path, self.shape = path, shape

    def read_direct(self, block: Any, rows: slice) -> None:
        """Some of the rows, into an array."""
        begin = self._begin + rows.start * self.shape[1] * self.dtype.itemsize
        with self.path.open("rb") as file:
            file.seek(begin)
            if file.readinto(memoryview(block).cast("B")) < block.nbytes:
                msg = f"`V` must be the same in every pass, got the end of {self.path} before its row {rows.stop}"
                raise ValueError(msg)


class Transposed:
    """A matrix that is stored by its columns, which are read as rows."""

    def __init__(self, stored: Any) -> None:
        """Nothing is read yet."""
        self._stored, self.dtype = stored, stored.dtype
        self.shape = tuple(int(length) for length in reversed(stored.shape))

    def __getitem__(self, rows: slice) -> Any:
        return self._stored[:, rows].T


class StoredRows:
    """A matrix in compressed rows in a group of an HDF5 or zarr file, as AnnData stores it."""

    def __init__(self, group: Any, shape: tuple[int, int]) -> None:
        """Read where each row begins, once it is known that all is there."""
        self.shape = shape
        self.dtype = group["data"].dtype
        lengths = tuple(int(group[name].shape[0]) for name in ("indptr", "indices", "data"))
        if lengths != (shape[0] + 1, lengths[2], lengths[2]):
            rule = f"{shape[0] + 1} numbers in `indptr` and an index for each entry"
            msg = f"`V` must have {rule}, got the lengths {lengths}"
            raise ValueError(msg)
        for name in ("indptr", "indices", "data"):
            check_codecs(group[name])
        self._values, self._columns, self._starts = group["data"], group["indices"], part(group["indptr"])
        check_starts(self._starts, shape[0], lengths[2])

    @property
    def row_bytes(self) -> float:
        """Bytes that a row takes in memory, on average."""
        return 24 * (1 + int(self._starts[-1]) / self.shape[0])

    def __getitem__(self, rows: slice) -> Any:
        """Some of the rows, as a SciPy sparse array."""
        from scipy.sparse import csr_array

        starts = self._starts[rows.start : rows.stop + 1]
        stored = int(starts[0]), int(starts[-1])
        parts = part(self._values, *stored), part(self._columns, *stored), starts - starts[0]
        return csr_array(parts, shape=(len(starts) - 1, self.shape[1]))


class RowBlocks:
    """Data larger than memory, as `V` of `nmf` and `transform`: row blocks that are read again in every iteration.

    Parameters
    ----------
    source : array-like, iterable or callable
        What is read by slices of rows: a `numpy.memmap` or another array, an HDF5 dataset, a zarr array, backed
        AnnData. Or an iterable of blocks (m_i, n), arrays or SciPy sparse arrays, that begins anew each time that it is
        asked for an iterator; or a function that returns such an iterator. Every pass must yield the same blocks.
    like : array, optional
        An array of the namespace and device to compute with, to which the blocks are moved one by one:
        ``like=torch.empty(0, device="cuda")``. By default they are used as they come.
    dtype : {"float32", "float64"}, optional
        The dtype in which they are factorized. By default that for an array of their dtype.

    Examples
    --------
    >>> import numpy as np
    >>> from nmf_xp import RowBlocks, nmf
    >>> days = [np.random.default_rng(day).poisson(5.0, size=(20, 10)) for day in range(3)]
    >>> nmf(RowBlocks(days), 3, beta_loss="kullback-leibler", random_state=0).W.shape
    (60, 3)
    """

    def __init__(self, source: Any, *, like: Any = None, dtype: str | None = None) -> None:
        if like is not None and not libraries.is_array(like):
            msg = f"`like` must be an array of the namespace and device to compute with, got {type(like).__name__}"
            raise TypeError(msg)
        if dtype not in (None, "float32", "float64"):
            msg = f"`dtype` must be 'float32', 'float64' or None, got {dtype!r}"
            raise ValueError(msg)
        self.like = like
        self.dtype = dtype
        known = source_of(source) or _of_any(source)
        self.source: Source = known.source if isinstance(known, RowBlocks) else known

    @property
    def shape(self) -> tuple[int, int] | None:
        """Rows and columns, where they are known before the first pass."""
        return self.source.shape

    @property
    def example(self) -> Any:
        """An array of the device on which the blocks are, where that is known before the first pass."""
        known = self.source.first if isinstance(self.source, _Iterable) else None
        return known if self.like is None else self.like

    def blocks(self) -> Iterator[Any]:
        """The blocks in their order."""
        return self.source.blocks()

    def done(self, block: Any) -> None:
        """Take back a block, whose memory may be read into again."""
        self.source.done(block)


class _Iterable:
    """Blocks of an iterable, or of a function that returns one."""

    shape = None

    def __init__(self, source: Iterable[Any] | Callable[[], Iterable[Any]]) -> None:
        self._source = source

    @property
    def first(self) -> Any:
        """The first block of a sequence."""
        return self._source[0] if isinstance(self._source, Sequence) and self._source else None

    def blocks(self) -> Iterator[Any]:
        blocks = self._source() if callable(self._source) else self._source
        return (arrival.plain(refused.checked("V", block), mapped=True) for block in blocks)

    def done(self, block: Any) -> None:
        """What the user made is the user's."""


def _of_any(source: Any) -> Source:
    """What a user says can be read by rows, or again and again."""
    shape = getattr(source, "shape", ())
    if isinstance(shape, tuple) and len(shape) == 2:
        if hasattr(source, "dtype") and hasattr(source, "__getitem__"):
            return Rows(source)
        advice = arrival.advice("source", source)
        msg = f"`source` must be read by slices of its rows, got {type(source).__name__}; {advice}"
        raise TypeError(msg)
    if isinstance(source, Iterator):
        msg = (
            f"`source` must begin anew at every pass, got {type(source).__name__}, which is at its end after one; "
            "give a function that returns it, or its blocks to `nmf_xp.online.online_step`"
        )
        raise TypeError(msg)
    if not callable(source) and not isinstance(source, Iterable):
        msg = f"`source` must be read by rows, or be an iterable of blocks or a function, got {type(source).__name__}"
        raise TypeError(msg)
    return _Iterable(source)


def source_of(V: Any) -> Source | None:
    """The source that V is by its type; None for what is an array in memory, or nothing of the kind.

    A memory map is one: `kinds.settled` has made an array of what fits.
    """
    if libraries.is_plain(V):
        return None
    if isinstance(V, RowBlocks | Rows):
        return V
    library = type(V).__module__.partition(".")[0]
    if library == "anndata":
        return _of_anndata(V)
    if library in ("h5py", "zarr"):
        return of_store(V)
    if is_mapped(V) and V.ndim == 2:
        return Rows(V)
    return None


def is_mapped(V: Any) -> bool:
    """Whether V is a NumPy memory map, or a part of one."""
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(V, numpy.memmap):
        return False
    base: Any = V
    while isinstance(base, numpy.ndarray):
        base = base.base
    return isinstance(base, mmap.mmap)


def of_store(V: Any) -> Source:
    """A dataset of HDF5, an array of zarr, or a group of either that holds compressed rows."""
    if hasattr(V, "dtype"):
        if len(V.shape) != 2:
            msg = f"`V` must have two axes where it is read from a file, got shape {tuple(V.shape)}"
            raise ValueError(msg)
        check_codecs(V)
        chunks = getattr(V, "chunks", None)
        return Rows(V, step=chunks[0] if chunks else 1)
    shape = declared_shape(V)
    if shape is None or "indptr" not in V:
        names = ", ".join(V.keys()) or "nothing"
        msg = f"`V` must be an array or compressed rows in its file, got a group that holds {names}"
        raise TypeError(msg)
    m, n = (int(length) for length in shape)
    if not has_compressed_rows(V, m):
        raise ValueError(COLUMNS)
    return rows_of(V, (m, n))


def rows_of(group: Any, shape: tuple[int, int]) -> Source:
    """Compressed rows in a group of a file."""
    rows = StoredRows(group, shape)
    return Rows(rows, row_bytes=rows.row_bytes)


def declared_shape(group: Any) -> Any:
    """The shape of compressed rows or columns, as AnnData says it, or as h5sparse did before; None where neither is."""
    shape = group.attrs.get("shape")
    return group.attrs.get("h5sparse_shape") if shape is None else shape


def has_compressed_rows(group: Any, m: int) -> bool:
    """Whether a group of a file holds a matrix of m rows by rows, and not by columns."""
    kind = group.attrs.get("encoding-type", group.attrs.get("h5sparse_format"))
    return group["indptr"].shape[0] == m + 1 and kind not in ("csc_matrix", "csc", b"csc")


def _of_anndata(V: Any) -> Source:
    """Backed AnnData, or its matrix."""
    if hasattr(V, "isbacked"):
        if not V.isbacked:
            msg = "`V` must be a matrix, got AnnData in memory; pass its `.X`"
            raise TypeError(msg)
        V = V.X
    if type(V).__module__.startswith("h5py"):
        return of_store(V)
    if getattr(V, "format", None) != "csr":
        raise ValueError(COLUMNS)
    return of_store(V.group)


def block_starts(m: int, row_bytes: float, step: int = 1) -> list[int]:
    """First row of each block, and the end: blocks of whole chunks, of a size that suits the memory."""
    target = min(BLOCK, max(2**20, memory.available() // SHARE))
    height = max(1, int(target / max(1.0, row_bytes)))
    if step <= 4 * height:
        height = -(-height // step) * step
    return [*range(0, m, height), m]
