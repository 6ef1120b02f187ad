"""V read from a source, block by block, once for every pass; the next block is read while this one is in use."""

from __future__ import annotations

import contextlib
import copy
import math
import operator
import queue
import threading
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from nmf_xp.arrays import libraries, precision, streams, threads, transfer
from nmf_xp.arrays.checks import check_array, check_broadcast, check_sparse, wrong_entry
from nmf_xp.data.blocks import Blockwise, Part, sweep
from nmf_xp.data.checks import NOTHING_OBSERVED, check_weights
from nmf_xp.data.recipe import Range, Recipe, prototype
from nmf_xp.data.sources import Rows
from nmf_xp.data.sparse_places import checked

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from nmf_xp.arrays.typing import Array, Namespace
    from nmf_xp.data.blocks import Dress
    from nmf_xp.data.constraints import Constraints
    from nmf_xp.data.seam import Data
    from nmf_xp.data.sources import RowBlocks
    from nmf_xp.data.units import Units

T = TypeVar("T")
STRIDE = 61  # of the entries that a mark sums: some in every page of a file, and in time every column


class Mark(NamedTuple):
    """By what a block is known again in later passes."""

    shape: tuple[int, int]
    kind: str
    sum: float


class Streamed(Blockwise):
    """The blocks of a source, with weights on their entries.

    Making it reads the source once: every entry is checked, and a mark of each block is kept, so that one that is not
    the same in a later pass is found out. The sum in a mark is made where the block is read, and brings a mapped file
    into memory.
    """

    def __init__(
        self, source: RowBlocks, weights: Any, exposure: Any = None, *, beta: float, missing: str | None, absent: str
    ) -> None:
        """Read all of it; weights and exposure are arrays (m, n) or broadcasting to it, or `Rows` of that shape."""
        self._source = source
        self.weights, self.exposure = weights, exposure
        self._marks: list[Mark] = []
        self._recipe: Recipe | None = None
        self._dress: Dress | None = None
        self.options = beta, missing, absent
        self.has_absent = False
        self.weighted = weights is not None or exposure is not None or missing is not None or absent == "missing"
        if source.shape is not None:
            self._check_beside(source.shape)
        ranges = list(self._first_pass())
        self.range = Range(*(pick(x) for pick, x in zip((min, max, max), zip(*ranges, strict=True), strict=True)))
        self.shape = sum(mark.shape[0] for mark in self._marks), self._marks[0].shape[1]
        self._check_beside(self.shape)
        if self.range.heaviest == 0:
            raise ValueError(NOTHING_OBSERVED)

    @property
    def values(self) -> Array:
        """No entry, of the namespace, device and dtype in which the blocks are factorized."""
        assert self._recipe is not None
        return self._recipe.like

    def in_units(self, units: Units) -> Streamed:
        """The same data in these units."""
        assert self._recipe is not None
        scaled = copy.copy(self)
        scaled._recipe = self._recipe._replace(units=units)
        return scaled

    def sweep(
        self,
        function: Callable[[Data, Array, Constraints], Part],
        W: Array,
        constraints: Constraints,
        *,
        xp: Namespace,
    ) -> Part:
        """The function over all blocks; on NumPy as many at a time as there are threads, each in one of them."""
        blocks = _ahead(self._pass(), self.values)
        rows: list[Any] = [None] * len(self._marks)
        total = _OrderedSum()
        taking = threading.Lock()
        running = True

        def work(_: int) -> None:
            nonlocal running
            while running:
                with taking:
                    taken = next(blocks, None)
                if taken is None:
                    return
                number, start, raw, block = taken
                stop = start + block.shape[0]
                try:
                    block = block if self._dress is None else self._dress(start, block)
                    part = sweep(function, block, W[start:stop, :], constraints.rows(start, stop), xp=xp)
                except BaseException:
                    running = False
                    raise
                self._take_back(raw)
                rows[number] = part.rows  # lint: a list
                total.add(number, part.sums)

        try:
            threads.run(work, list(range(threads.count())))
        finally:
            blocks.close()
        return Part(None if rows[0] is None else xp.concat(rows), total.terms)

    def in_order(self) -> Iterator[tuple[int, Data]]:
        """One block after the other, each with its first row."""
        for _, start, raw, block in _ahead(self._pass(), self.values):
            yield start, block if self._dress is None else self._dress(start, block)
            self._take_back(raw)

    def dressed(self, dress: Dress) -> Streamed:
        """The same blocks as other data."""
        other = copy.copy(self)
        other._dress = dress
        return other

    def raw(self) -> Iterator[Any]:
        """One block after the other as the source holds it."""
        for _, _, block in _ahead(self._known(), self.values):
            yield block
            self._take_back(block)

    def _take_back(self, raw: Any) -> None:
        """Let the source read into a block's memory again, where nothing can still be reading it."""
        if libraries.is_numpy(self.values):
            self._source.done(raw)

    def _first_pass(self) -> Iterator[Range]:
        """The range of each block, marked and checked."""
        start = 0
        for number, raw in enumerate(self._source.blocks()):
            if libraries.sparse_library(raw) is None:
                check_array("V", raw, min_ndim=2, max_ndim=2)
            else:
                check_sparse("V", raw)
            if self._recipe is None:
                like = prototype(raw, like=self._source.like, dtype=self._source.dtype)
                self._recipe = Recipe(like, *self.options)
            mark = self._mark(raw)
            first = self._marks[0] if self._marks else mark
            if (mark.shape[1], mark.kind) != (first.shape[1], first.kind):
                msg = (
                    "`V` must have blocks of one width and dtype, "
                    f"got {_described(mark)} in block {number} after {_described(first)} in block 0"
                )
                raise ValueError(msg)
            with _naming(number, start):
                data, entries = self._recipe.checked(raw, *self._beside(start, start + mark.shape[0]))
            self.has_absent = self.has_absent or data.has_absent
            self._marks.append(mark)
            start = start + mark.shape[0]
            self._take_back(raw)
            yield entries
        if not self._marks:
            msg = "`V` must have at least one block of rows, got a source without any"
            raise ValueError(msg)

    def _pass(self) -> Iterator[tuple[int, int, Any, Data]]:
        """The blocks once more, with their number, their first row and what was read."""
        assert self._recipe is not None
        for number, start, raw in self._known():
            yield number, start, raw, self._recipe(raw, *self._beside(start, start + raw.shape[0]))

    def _known(self) -> Iterator[tuple[int, int, Any]]:
        """What the source reads once more, each block compared with its mark, with its number and its first row."""
        start, number = 0, -1
        for number, raw in enumerate(self._source.blocks()):
            if number == len(self._marks):
                msg = f"`V` must be the same in every pass, got more than the {number} blocks of the first one"
                raise ValueError(msg)
            mark, before = self._mark(raw), self._marks[number]
            if mark[:2] != before[:2] or not _is_same(mark, before):
                got = _described(mark) if mark[:2] != before[:2] else "other entries"
                msg = (
                    f"`V` must be the same in every pass, got {got} in block {number}, which was {_described(before)}; "
                    "stop what writes to it, or make every iterator yield the same blocks"
                )
                raise ValueError(msg)
            yield number, start, raw
            start = start + mark.shape[0]
        if number + 1 < len(self._marks):
            msg = (
                f"`V` must be the same in every pass, got its end after block {number} of {len(self._marks)}; "
                "give a source that begins anew each time it is asked for an iterator"
            )
            raise ValueError(msg)

    def _mark(self, raw: Any) -> Mark:
        import numpy as np

        sparse = libraries.sparse_library(raw) is not None
        shape = (int(raw.shape[0]), int(raw.shape[1]))
        # What is no number is found by the check of the values.
        with precision.on_their_device(raw):
            if libraries.is_numpy(raw):
                entries = np.ravel(raw, order="K")[::STRIDE].sum()
            else:
                entries = _stored(raw).sum() if sparse else libraries.array_namespace(raw).sum(raw)
        return Mark(shape, f"{'sparse ' if sparse else ''}{libraries.dtype_name(raw.dtype)}", transfer.scalar(entries))

    def _check_beside(self, shape: tuple[int, int]) -> None:
        """Refuse weights and exposures of another shape."""
        for name, x in (("weights", self.weights), ("exposure", self.exposure)):
            if x is not None:
                check_broadcast(name, x.shape, shape)
        if not (self.weights is None or self._recipe is None or isinstance(self.weights, Rows)):
            check_weights(self.weights, self.values, shape)

    def _beside(self, start: int, stop: int) -> tuple[Any, Any]:
        """Weights and exposure of some rows."""
        return _some_rows("weights", self.weights, start, stop), _some_rows("exposure", self.exposure, start, stop)


def _stored(raw: Any) -> Any:
    """What a sparse block stores, where that takes no look at its indices; else the block, once it was checked."""
    listed = getattr(raw, "format", None) in ("csr", "csc", "bsr", "coo")
    return raw.data if listed and libraries.sparse_library(raw) == "scipy" else checked(raw)


def _some_rows(name: str, x: Any, start: int, stop: int) -> Any:
    """The rows of what lies beside V, which may be one for all."""
    if x is None or (1, 1, *x.shape)[-2] == 1:
        return x.read(0, 1) if isinstance(x, Rows) else x
    if x.shape[0] < stop:
        msg = f"`{name}` must have a row for each of `V`'s, got {x.shape[0]}"
        raise ValueError(msg)
    return x.read(start, stop) if isinstance(x, Rows) else x[start:stop, :]


class _OrderedSum:
    """Sums of terms that come in any order and are added in that of their numbers, which fixes the rounding."""

    def __init__(self) -> None:
        self.terms: tuple[Array, ...] = ()
        self._early: dict[int, tuple[Array, ...]] = {}
        self._count = 0
        self._lock = threading.Lock()

    def add(self, number: int, terms: tuple[Array, ...]) -> None:
        """Add the terms with this number when their turn has come."""
        with self._lock:
            self._early[number] = terms  # lint: a dictionary
            while self._count in self._early:
                terms = self._early.pop(self._count)
                # In place where the library can: the sums are as large as H.
                self.terms = tuple(map(operator.iadd, self.terms, terms)) if self._count else terms
                self._count += 1  # lint: a Python int


def _ahead(items: Iterator[T], like: Array) -> Generator[T]:
    """The items, which a thread makes while earlier ones are in use: one more than there are threads to use them.

    Their arrays are where `like` is.
    """
    end: Any = object()
    lane = streams.lane(like)
    make = precision.carried(lambda: next(items, end))
    asked: queue.SimpleQueue[Any] = queue.SimpleQueue()
    made: queue.SimpleQueue[tuple[streams.Made | None, BaseException | None]] = queue.SimpleQueue()

    def serve() -> None:
        while (free := asked.get()) is not None:
            try:
                made.put((lane.make(make, free), None))
            except BaseException as error:  # it goes to the calling thread
                made.put((None, error))

    ended = threads.start_helper(serve)
    try:
        for _ in range(threads.count()):
            asked.put(lane.free())
        while True:
            found, error = made.get()
            if error is not None or found is None:
                raise error or AssertionError
            item = lane.take(found)
            if item is end:
                return
            asked.put(lane.free())
            yield item
            lane.give_back(item)
    finally:
        while not asked.empty():
            with contextlib.suppress(queue.Empty):
                asked.get_nowait()
        asked.put(None)
        ended.wait()
        lane.close()


def _described(mark: Mark) -> str:
    """Shape and dtype of a block."""
    return f"{mark.shape[0]} x {mark.shape[1]} {mark.kind}"


def _is_same(a: Mark, b: Mark) -> bool:
    """Whether two sums of a block are the same but for rounding; NaN is where entries are missing."""
    rounding = 1e-5 if a.kind.endswith(("16", "32")) else 1e-12
    return math.isclose(a.sum, b.sum, rel_tol=rounding) or (math.isnan(a.sum) and math.isnan(b.sum))


@contextlib.contextmanager
def _naming(number: int, start: int) -> Iterator[None]:
    """Errors that say in which block they were found."""
    try:
        yield
    except ValueError as error:
        where = f" (in block {number}, counted from 0, whose first row is row {start} of V)"
        entry = wrong_entry(error)
        raise ValueError(f"{error}{where}" if entry is None else entry.below(start, where)) from None
