"""V as a dask array, dense or with SciPy sparse blocks: a grid of blocks, each of which is visited by tasks of its own.

A task sees one block, its rows of W and its columns of H. What the update of W needs of it is summed along the row of
the grid, and what that of H needs along the column.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

from nmf_xp.arrays import libraries
from nmf_xp.arrays.checks import check_array, check_broadcast
from nmf_xp.data.checks import NOTHING_OBSERVED
from nmf_xp.data.cluster import Handles, OnCluster, WorkersLostError, grouped
from nmf_xp.data.recipe import Range, Recipe, prototype
from nmf_xp.data.tabled import Coded
from nmf_xp.data.tasks import InProcess, runner

if TYPE_CHECKING:
    from collections.abc import Callable

    from nmf_xp.arrays.typing import Array
    from nmf_xp.data.units import Units


T = TypeVar("T")
ATTEMPTS = 5  # at one iteration
MASKED = (
    "`V` must be a plain dense array, got a masked array in a block, whose mask would be ignored; pass "
    "`dask.array.ma.getdata(V)`, with `weights=~dask.array.ma.getmaskarray(V)` if a masked entry is unobserved"
)
Terms: TypeAlias = "tuple[Handles, Callable[[int], dict[Any, int | None]]]"


class Summary(NamedTuple):
    """What a look at a block found."""

    shape: tuple[int, int]
    kind: str
    range: Range
    has_absent: bool
    mistake: str | None


class Grid:
    """The blocks of a dask array, with weights on their entries.

    Making it has all entries checked, block by block. It is passed where a `Data` is, to what knows it.
    """

    def __init__(
        self, V: Any, weights: Any, exposure: Any = None, *, beta: float, missing: str | None, absent: str
    ) -> None:
        """Weights and exposure are arrays (m, n), dask's or not, or broadcasting to it."""
        import numpy as np

        check_chunks(V)
        V = without_empty_chunks(V)
        self.shape: tuple[int, int] = tuple(map(int, V.shape))  # type: ignore[assignment]
        self.row_starts, self.column_starts = ([0, *itertools.accumulate(lengths)] for lengths in V.chunks)
        self.row_spans, self.column_spans = (list(itertools.pairwise(x)) for x in (self.row_starts, self.column_starts))
        self.weighted = weights is not None or exposure is not None or missing is not None or absent == "missing"
        like = prototype(np.empty((0, 1), dtype=V.dtype), like=None, dtype=None)
        self._recipe = Recipe(like, beta, missing, absent)
        self._coded = False
        self.options = missing, absent
        arrays = [V]
        if weights is not None or exposure is not None:  # with an exposure entries have weights, of one if no others
            arrays.append(_like_v("weights", np.ones((1, 1), dtype=bool) if weights is None else weights, V))
        if exposure is not None:
            arrays.append(_like_v("exposure", exposure, V))
        self.runner: InProcess | OnCluster = runner(*arrays)
        self.lasting(self.runner.recover)
        self.range, self.has_absent = self._checked(libraries.dtype_name(V.dtype))

    @property
    def values(self) -> Array:
        """No entry, of the namespace and dtype in which the blocks are factorized."""
        return self._recipe.like

    def in_units(self, units: Units) -> Grid:
        """The same data in these units."""
        self._recipe = self._recipe._replace(units=units)
        return self

    def coded(self, codes: Any) -> None:
        """From now on tasks see their block as `Coded` data, by the batch of each row, a NumPy array (m,)."""
        import dask.array

        if self._coded:
            return
        column = dask.array.from_array(codes[:, None], chunks=(tuple(b - a for a, b in self.row_spans), 1))
        self.runner.add(column)
        self.lasting(self.runner.recover)
        self._coded = True

    @property
    def codes(self) -> Handles:
        """The batches of the rows of each row of the grid, where there are batches."""
        return self.runner.blocks[-1]

    def lasting(self, act: Callable[[], T], restore: Callable[[], None] | None = None) -> T:
        """What `act` returns; as often as workers are lost during it, from the beginning, with what is restored."""
        lost = False
        for _ in range(ATTEMPTS):
            try:
                if lost:
                    self.runner.recover()
                if lost and restore is not None:
                    restore()
                return act()
            except WorkersLostError:
                lost = True
        msg = (
            f"`V` is on a dask cluster that lost workers {ATTEMPTS} times in one iteration; "
            "give its workers more memory, or V smaller chunks"
        )
        raise RuntimeError(msg)

    def rows_of(self, x: Array) -> list[Array]:
        """A factor W, or what has its rows, for each row of the grid."""
        return [x[a:b, :] for a, b in self.row_spans]

    def columns_of(self, x: Array) -> list[Array]:
        """A factor H, or what has its columns, for each column of the grid."""
        return [x[:, a:b] for a, b in self.column_spans]

    @property
    def row_places(self) -> list[str]:
        """Where the blocks of W are: with the first block of their row."""
        return [row[0] for row in self.runner.places]

    def send_rows(self, blocks: list[Array]) -> list[Any]:
        """Handles of the blocks of W."""
        places = self.row_places
        sent = {place: iter(handles) for place, handles in self.runner.send(grouped(blocks, places)).items()}
        return [next(sent[place]) for place in places]

    def send_columns(self, H: Array) -> dict[tuple[str, int], Any]:
        """Handles of the blocks of H, at every place that has a block of their column."""
        columns = self.columns_of(H)
        wanted = sorted({(place, j) for row in self.runner.places for j, place in enumerate(row)})
        values = grouped([columns[j] for _, j in wanted], [place for place, _ in wanted])
        sent = {place: iter(handles) for place, handles in self.runner.send(values).items()}
        return {(place, j): next(sent[place]) for place, j in wanted}

    def tasks(
        self, function: Callable[..., Any], rows: list[Any], columns: dict[tuple[str, int], Any], *settings: Any
    ) -> Handles:
        """A task for each block: ``function(data, W_i, H_j, *settings)``."""
        cells = [(i, j, place) for i, row in enumerate(self.runner.places) for j, place in enumerate(row)]
        recipe: Any = functools.partial(_coded, self._recipe) if self._coded else self._recipe
        handles = self.runner.map(
            [place for _, _, place in cells],
            functools.partial(_visit, function, recipe, settings),
            [rows[i] for i, _, _ in cells],
            [columns[place, j] for _, j, place in cells],
            *([grid[i][min(j, len(grid[i]) - 1)] for i, j, _ in cells] for grid in self.runner.blocks),
        )
        width = len(self.column_spans)
        return [handles[i : i + width] for i in range(0, len(handles), width)]

    def on_rows(
        self, function: Callable[..., Any], rows: list[Any], *settings: Any, along: Handles | None = None
    ) -> list[Any]:
        """A task for each block of W: ``function(W_i, *settings, *along[i])``."""
        parts = [] if along is None else [list(column) for column in zip(*along, strict=True)]
        return self.runner.map(self.row_places, functools.partial(_on_rows, function, settings), rows, *parts)

    def summed(self, *terms: Terms) -> list[Any]:
        """Handles of sums of what tasks for all blocks returned, or for all blocks of W: one at each place.

        With the handles goes a function that names what is to be added up of those in column j: for each sum, which
        part of the returned tuple is a tuple of its terms; None is all of it.
        """
        plans: dict[str, list[tuple[Any, dict[Any, int | None]]]] = defaultdict(list)
        for handles, parts in terms:
            for row, places in zip(handles, self.runner.places, strict=True):
                for j, (handle, place) in enumerate(zip(row, places, strict=False)):
                    plans[place].append((handle, parts(j)))
        return [
            self.runner.submit(place, _sums, [names for _, names in plan], *(handle for handle, _ in plan))
            for place, plan in plans.items()
        ]

    def finish(self, keep: list[Any], sums: list[Any]) -> tuple[list[Any], dict[Any, tuple[Any, ...]]]:
        """Handles of finished tasks, and sums over all places by their names."""
        keep, fetched = self.runner.finish(keep, sums)
        names = {name for sums_of_place in fetched for name in sums_of_place}
        return keep, {name: add(*(x[name] for x in fetched if name in x)) for name in names}

    def over_blocks(self, function: Callable[..., tuple[Any, ...]], W: Array, H: Array) -> tuple[Any, ...]:
        """The sum over all blocks of a tuple of numbers, ``function(data, W_i, H_j)``."""

        def sums() -> tuple[Any, ...]:
            handles = self.tasks(function, self.send_rows(self.rows_of(W)), self.send_columns(H))
            return self.finish([], self.summed((handles, lambda _: {"all": None})))[1]["all"]

        return self.lasting(sums)

    def over_columns(self, function: Callable[..., tuple[Any, ...]], H: Array) -> list[tuple[Any, ...]]:
        """For each column of the grid the sum over its blocks of a tuple of arrays, ``function(data, None, H_j)``."""

        def sums() -> list[tuple[Any, ...]]:
            handles = self.tasks(function, [None] * len(self.row_spans), self.send_columns(H))
            found = self.finish([], self.summed((handles, lambda j: {j: None})))[1]
            return [found[j] for j in range(len(self.column_spans))]

        return self.lasting(sums)

    def over_rows(self, function: Callable[..., tuple[Any, ...]], H: Array) -> list[tuple[Any, ...]]:
        """For each row of the grid the sum over its blocks of a tuple of arrays, ``function(data, None, H_j)``."""

        def sums() -> list[tuple[Any, ...]]:
            handles = self.tasks(function, [None] * len(self.row_spans), self.send_columns(H))
            along = self.runner.map(self.row_places, add, *(list(column) for column in zip(*handles, strict=True)))
            return self.runner.finish([], along)[1]

        return self.lasting(sums)

    def each(self, function: Callable[..., T]) -> list[T]:
        """What a function of a block as it is, and of its weights, returns for every block, row by row of the grid."""

        def answers() -> list[T]:
            cells = [(i, j) for i, row in enumerate(self.runner.places) for j in range(len(row))]
            columns = ([grid[i][j] for i, j in cells] for grid in self.runner.blocks)
            handles = self.runner.map([self.runner.places[i][j] for i, j in cells], function, *columns)
            return self.runner.finish([], handles)[1]

        return self.lasting(answers)

    def _checked(self, dtype: str) -> tuple[Range, bool]:
        """The range of all entries, and whether there are zeros that are not stored."""
        found: list[Summary] = self.each(functools.partial(_look, self._recipe))
        spans = itertools.product(self.row_spans, self.column_spans)
        kind = found[0].kind
        for number, ((rows, columns), seen) in enumerate(zip(spans, found, strict=True)):
            where = divmod(number, len(self.column_spans))
            shape = rows[1] - rows[0], columns[1] - columns[0]
            if seen.mistake is not None:
                msg = f"{seen.mistake} (in V.blocks[{where[0]}, {where[1]}], whose first row is row {rows[0]} of V)"
                raise ValueError(msg)
            if seen.shape != shape or seen.kind != kind or not seen.kind.endswith(dtype):
                got = f"{seen.shape[0]} x {seen.shape[1]} {seen.kind}"
                rule = f"must have blocks as its chunks and dtype say, {shape[0]} x {shape[1]} {dtype}, and of one kind"
                msg = f"`V` {rule}, got {got} in V.blocks[{where[0]}, {where[1]}]"
                raise ValueError(msg)
        low, high, heaviest = zip(*(seen.range for seen in found), strict=True)
        if max(heaviest) == 0:
            raise ValueError(NOTHING_OBSERVED)
        return Range(min(low), max(high), max(heaviest)), any(seen.has_absent for seen in found)


class GridRows:
    """A factor W in blocks that stay where V's are; a handle may stand for a tuple of which they are the first."""

    ndim = 2

    def __init__(self, grid: Grid, handles: list[Any], r: int) -> None:
        self.handles = handles
        self.restore: Callable[[], None] | None = None  # where the handles can be made again
        self._grid = grid
        self.shape = grid.shape[0], r
        self.dtype = grid.values.dtype
        self._heights = tuple(b - a for a, b in grid.row_spans)

    def unpack(self) -> list[Any]:
        """Handles of the blocks and of nothing else."""
        self.handles[:] = self._grid.runner.finish(self._grid.on_rows(_rows, self.handles), [])[0]  # lint: a list
        return self.handles

    def as_dask(self) -> Any:
        """The factor as a dask array with V's chunks of rows."""
        import dask.array

        self._grid.lasting(self.unpack, self.restore)
        name = f"nmf_xp-W-{next(_numbers)}"
        graph = {(name, i, 0): handle for i, handle in enumerate(self.handles)}
        return dask.array.Array(graph, name, (self._heights, self.shape[1:]), dtype=self.dtype)


_numbers = itertools.count()


def check_chunks(V: Any) -> None:
    """Refuse what is no matrix, and blocks of unknown size."""
    if V.ndim != 2:
        msg = f"`V` must have two axes where it is a dask array, got shape {V.shape}"
        raise ValueError(msg)
    if any(math.isnan(length) for lengths in V.chunks for length in lengths):
        msg = f"`V` must have chunks of known sizes, got shape {V.shape}; call its `compute_chunk_sizes()` before"
        raise ValueError(msg)
    if 0 in V.shape:
        msg = f"`V` must have no empty axis, got shape {V.shape}"
        raise ValueError(msg)


def without_empty_chunks(V: Any) -> Any:
    """The array without chunks of no rows or no columns, such as a filter leaves."""
    kept = [[i for i, length in enumerate(lengths) if length] for lengths in V.chunks]
    if all(len(few) == len(all_) for few, all_ in zip(kept, V.chunks, strict=True)):
        return V
    return V.blocks[kept[0]].blocks[:, kept[1]]


def add(*terms: tuple[Any, ...]) -> tuple[Any, ...]:
    """The sum of tuples of arrays."""
    return tuple(functools.reduce(operator.add, parts) for parts in zip(*terms, strict=True))


def _sums(names: list[dict[Any, int | None]], *terms: Any) -> dict[Any, tuple[Any, ...]]:
    """Sums by name; of each term, the names that it counts for and which part of it."""
    found: dict[Any, list[tuple[Any, ...]]] = defaultdict(list)
    for wanted, term in zip(names, terms, strict=True):
        for name, part in wanted.items():
            found[name].append(term if part is None else term[part])
    return {name: add(*parts) for name, parts in found.items()}


def _coded(recipe: Recipe, *block: Any) -> Coded:
    return Coded(recipe(*block[:-1]), block[-1][:, 0])


def _visit(function: Callable[..., Any], recipe: Callable[..., Any], settings: Any, W: Any, H: Any, *block: Any) -> Any:
    return function(recipe(*block), _rows(W), H, *settings)


def _on_rows(function: Callable[..., Any], settings: Any, W: Any, *along: Any) -> Any:
    return function(_rows(W), *settings, *along)


def _rows(W: Any) -> Any:
    """Rows of W, where they may be the first of what a task returned."""
    return W[0] if isinstance(W, tuple) else W


def _look(recipe: Recipe, block: Any, *beside: Any) -> Summary:
    sparse = libraries.sparse_library(block) is not None
    kind = f"{'sparse ' if sparse else ''}{libraries.dtype_name(block.dtype)}"
    try:
        if libraries.is_masked(block):
            raise TypeError(MASKED)
        if not sparse:
            check_array("V", block, min_ndim=2, max_ndim=2)
        data, entries = recipe.checked(block, *beside)
    except (TypeError, ValueError) as error:
        return Summary(block.shape, kind, Range(0.0, 0.0, 0.0), has_absent=False, mistake=str(error))
    return Summary(block.shape, kind, entries, data.has_absent, None)


def _like_v(name: str, x: Any, V: Any) -> Any:
    """What lies beside V as a dask array with V's chunks."""
    import dask.array

    check_broadcast(name, x.shape, V.shape)
    return dask.array.broadcast_to(dask.array.asarray(x), V.shape).rechunk(V.chunks)
