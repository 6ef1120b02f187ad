"""From the user's arguments to a validated problem, in the units in which it is solved."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.arrays import libraries, mesh, precision, transfer
from nmf_xp.arrays.checks import (
    as_working_dtype,
    check_array,
    check_broadcast,
    check_factor,
    check_namespace,
    check_non_negative,
    check_shape,
    check_values,
)
from nmf_xp.data import (
    Weighted,
    as_data,
    dense_if_quicker,
    entry_weights,
    in_units,
    largest_observed,
    seen,
    with_weights,
)
from nmf_xp.data.blocks import Blockwise
from nmf_xp.data.checks import check_observed, check_weights, check_zeros, stored_places
from nmf_xp.data.constraints import FREE, Constraints
from nmf_xp.data.exposed import flat_exposure, with_exposure
from nmf_xp.data.grid import Grid, GridRows
from nmf_xp.data.kinds import Kind, kind_of, settled, unmapped
from nmf_xp.data.sources import RowBlocks, Rows, source_of
from nmf_xp.data.streamed import Streamed
from nmf_xp.data.units import (
    Units,
    floor_of,
    floor_of_loadings,
    in_weight_units,
    lie_apart,
    number_times_power,
    power,
    times_power,
    units_of,
)
from nmf_xp.divergences import data_divergence
from nmf_xp.problem import Problem
from nmf_xp.problem.batches import Batches, batches_of
from nmf_xp.problem.terms import Bound, Penalty, Terms
from nmf_xp.updates import factor_floor

if TYPE_CHECKING:
    from nmf_xp.arrays.typing import Array, Namespace
    from nmf_xp.data import Data

LARGEST = 1e308  # what is beyond the numbers of float64 is this


class Posed(NamedTuple):
    """A validated problem and its units."""

    problem: Problem
    xp: Namespace
    beta: float
    units: Units
    floor: float  # of the factors
    largest: float | None  # V's largest entry in these units; None where it is zero or not read
    stack: tuple[int, ...]  # V's leading axes, which the problem has as one
    layout: mesh.Layout | None = None  # how the user's V lies on a mesh of devices
    exposure: Array | None = None  # of one matrix, or of a stack with one leading axis
    apart: bool = False  # whether one exponent does not suit all members of the stack
    batches: Batches | None = None  # of V's rows, whose effects are part of the model
    heavy: tuple[Constraints, ...] = ()  # the user's penalties, where one is beyond the numbers: see `_heaviest`

    @property
    def members(self) -> int | None:
        """How many matrices there are in the stack; None for one that is no stack."""
        return math.prod(self.stack) if self.stack else None

    @property
    def values(self) -> Array:
        """V's stored entries, in the problem's units."""
        return self.problem.data.values

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of V."""
        m, n = self.problem.data.shape[-2:]
        return m, n

    def suited(self, W: Any, H: Any, *, fixed_h: bool = False) -> Posed:
        """The same problem in units in which these W and H are of one size; None for a W that is to be found.

        Where H is not, W is of the size of V / H, and its floor is as far from that.
        """
        dtype, xp = self.values.dtype, self.xp
        for x in (W, H):
            known = x is None or (libraries.is_array(x) and libraries.array_namespace(x) is xp)
            known = known and (x is None or (x.dtype == dtype and x.size and libraries.is_readable(x)))
            if not known or not self._is_beside(x):
                return self  # what is wrong with them is said where they are taken
        largest_w, largest_h = None if W is None else transfer.largest(W, xp=xp), transfer.largest(H, xp=xp)
        zero = self.largest is None and libraries.is_readable(self.values)
        units = self.units.suited(largest_w, largest_h, dtype, zero=zero, xp=xp)
        posed = self if units == self.units else self._replace(units=units)
        if fixed_h:
            least = factor_floor(dtype, beta=self.beta, xp=xp)
            largest_h = number_times_power(largest_h, -posed.units.h)
            floor = floor_of_loadings(least, self.largest, largest_h, dtype, beta=self.beta, xp=xp)
            posed = posed._replace(floor=floor)
        return posed

    def in_batches(self, batch: Any, *, prior: Any, effects: Any = None, fixed_h: bool = False) -> Posed:
        """The same problem with batch effects in the model; as it is without labels."""
        here: Any = {"stack": self.stack, "alone": self.layout is None, "fixed_h": fixed_h}
        batches = batches_of(self.problem.data, batch, prior, effects, **here)
        return self if batches is None else self._replace(batches=batches)

    def evenly(self) -> Posed:
        """The same for factors that are balanced in these units, and are to be so in the user's."""
        v = self.units.v
        units = self.units._replace(w=v - v // 2, h=v // 2)
        if units == self.units or not (self.problem.w.free and self.problem.h.free):
            return self
        return self._replace(units=units)

    def _is_beside(self, x: Any) -> bool:
        """Whether a factor is where V is."""
        return x is None or libraries.on_mesh(x) or libraries.device(x) == libraries.device(self.values)

    def restore_factor(self, which: str, x: Array) -> Array:
        """W or H in the user's units, on V's devices; one that is in blocks on a cluster as a dask array."""
        if isinstance(x, GridRows):
            x = x.as_dask()
        x = transfer.in_row_order(times_power(x, self.units.factor(which)))
        return mesh.give_back(x, self.layout)

    def restore_divergence(self, x: Any) -> Any:
        """A divergence or penalty in V's own units; beyond the range of float64 it is infinite."""
        exponent = self.units.divergence(self.beta)
        if not exponent:
            return x
        root = power(exponent / 2)
        if getattr(x, "ndim", 0):
            return transfer.to_host(x) * root * root
        return float(x) * root * root

    def factor(self, name: str, x: Any, which: str, n_components: int) -> Array:
        """The factor W or H, as `which` says, from the user, checked, in the problem's units.

        It is a matrix, or a stack: as V is one, or of several starts for one V.
        """
        m, n = self.shape
        shape = (m, n_components) if which == "W" else (n_components, n)
        xp = self.xp
        if isinstance(self.problem.data, Grid):
            x = transfer.computed(x)
        x = unmapped(x)
        check_array(name, x, min_ndim=2)
        check_factor(name, x, self.values)
        if x.ndim > 2 and isinstance(self.problem.data, Blockwise | Grid):
            msg = f"`{name}` must be one matrix for data that are read block by block, got shape {tuple(x.shape)}"
            raise ValueError(msg)
        stacked = (*self.stack, *shape) if self.stack else (*x.shape[:1], *shape)
        check_shape(name, x, shape if x.ndim == 2 else stacked)
        if libraries.is_readable(x):
            check_values(name, x, xp=xp)
        x = self.laid_out(which, x, shape)
        x = times_power(x, -self.units.factor(which))
        if self.stack:
            x = xp.reshape(xp.broadcast_to(x, stacked), (-1, *shape))
        return x

    def divergence(self, W: Array, H: Array) -> Any:
        """D(V | WH) in V's own units, for factors in theirs."""
        posed, r = self.suited(W, H), W.shape[-1]
        W, H = posed.factor("W", W, "W", r), posed.factor("H", H, "H", r)
        return posed.restore_divergence(data_divergence(self.problem.data, W, H, beta=self.beta, xp=self.xp))

    def constrained(self, r: int, terms: Terms) -> Posed:
        """The problem with what is asked of W and of H besides the fit."""
        if not terms.w and not terms.h:
            return self
        (m, n), beyond, sides = self.shape, False, list[Any]()
        # scikit-learn's scaling multiplies a penalty by the length of the other side.
        for which, shape, length, asked in (("W", (m, r), n, terms.w), ("H", (r, n), m, terms.h)):
            constraints, plain = FREE, FREE
            side = SideOf(self, which, shape)
            for name, term in asked:
                if isinstance(term, Bound):
                    constraints = term.added(constraints, side, name)
                elif isinstance(term, Penalty) and term.strength:
                    weight = min(length * float(term.strength), LARGEST)
                    here = self._in_units(which, term.degree, weight)
                    beyond = beyond or not self._lightest() <= here <= self._heaviest()
                    constraints = term.added(constraints, min(here, self._heaviest()))
                    plain = term.added(plain, weight)
            side.check(constraints)
            sides.append((constraints, plain))
        (w, plain_w), (h, plain_h) = sides
        posed = self._replace(problem=self.problem._replace(w=w, h=h))
        if self.batches is not None:
            self.batches.check_terms(w, h)
        return posed._replace(heavy=(plain_w, plain_h)) if beyond else posed

    def _in_units(self, which: str, degree: int, weight: float) -> float:
        """The weight of a penalty in the problem's units."""
        return number_times_power(weight, -self.units.penalty(which, degree, self.beta))

    def _heaviest(self) -> float:
        """The weight that a penalty beyond it counts as: 5/8 of the dtype's exponents, or products with it overflow."""
        return float(self.xp.finfo(self.values.dtype).max) ** 0.625

    def _lightest(self) -> float:
        """The weight that a penalty below it has lost digits of."""
        return float(self.xp.finfo(self.values.dtype).smallest_normal) ** 0.625

    def heavy_penalties(self, W: Array, H: Array) -> Any:
        """The penalties as the user gave them, on factors in the user's units: (...,)."""
        xp, dtype = self.xp, libraries.accumulator_dtype(self.xp, libraries.device(W))
        w, h = self.heavy
        on_w = w.penalty(xp.astype(W, dtype), dtype=dtype, xp=xp)  # infinite, where they are beyond the numbers
        return on_w + h.penalty(xp.astype(H, dtype), axis=-2, dtype=dtype, xp=xp)

    def laid_out(self, which: str, x: Array, shape: tuple[int, int]) -> Array:
        """What goes with W or H, where V's layout wants it; as it is where V lies on a single device."""
        layout = mesh.layout(self.values)
        if layout is None:
            return x
        return (layout.W if which == "W" else layout.H).spread(x, (*x.shape[:-2], *shape))


class SideOf(NamedTuple):
    """One factor of a posed problem, for the terms that ask something of its entries."""

    posed: Posed
    which: str
    shape: tuple[int, int]

    @property
    def _broadcast(self) -> tuple[int, int]:
        """The shape of what goes with the factor: for a dask array's W one row, as none of W's size goes to tasks."""
        on_tasks = isinstance(self.posed.problem.data, Grid) and self.which == "W"
        return (1, self.shape[1]) if on_tasks else self.shape

    def mask(self, name: str, x: Any) -> Array:
        """A boolean array, checked, of the factor's shape."""
        posed, xp = self.posed, self.posed.xp
        if self._broadcast != self.shape:
            msg = f"`{name}` must be left out for dask arrays, got an array"
            raise ValueError(msg)
        x = unmapped(x)
        check_array(name, x, min_ndim=0)
        check_namespace(name, x, posed.values)
        check_broadcast(name, x.shape, self.shape)
        if not xp.isdtype(x.dtype, "bool"):
            msg = f"`{name}` must be a boolean array, got dtype {libraries.dtype_name(x.dtype)}"
            raise TypeError(msg)
        return xp.broadcast_to(posed.laid_out(self.which, x, self.shape), self.shape)

    def entries(self, name: str, x: Any) -> Array:
        """A non-negative number or array, checked, in the problem's units, of the factor's shape."""
        posed, xp, shape = self.posed, self.posed.xp, self._broadcast
        V, x = posed.values, unmapped(precision.as_data_only(x))
        if not libraries.is_array(x):
            x = xp.full((1, 1), check_non_negative(name, x), dtype=V.dtype, device=libraries.device(V))
        check_array(name, x, min_ndim=0)
        check_factor(name, x, V)
        check_broadcast(name, x.shape, shape)
        if libraries.is_readable(x):
            check_values(name, x, xp=xp)
        x = times_power(x, -posed.units.factor(self.which))
        return xp.broadcast_to(posed.laid_out(self.which, x, shape), shape)

    def check(self, constraints: Constraints) -> None:
        """Refuse a lower bound above an upper one."""
        lower, upper, xp = constraints.lower, constraints.upper, self.posed.xp
        if lower is not None and libraries.is_readable(lower):
            largest = float(xp.finfo(lower.dtype).max) ** 0.25
            if transfer.scalar(xp.max(lower)) > largest:
                what = "`Lower` must not be so far above V's entries that products overflow"
                msg = f"{what}, got such a bound for {self.which}"
                raise ValueError(msg)
        if lower is None or upper is None or not (libraries.is_readable(lower) and libraries.is_readable(upper)):
            return
        if bool(xp.any(lower > upper)):
            msg = f"`Lower` must not be above `Upper`, got both for {self.which} with entries where it is"
            raise ValueError(msg)


def pose(V: Any, *, beta: float, weights: Any, missing: str | None, absent: str, exposure: Any = None) -> Posed:
    """Validate V, its weights and its exposure, and choose the units."""
    V = settled(V)
    kind = kind_of(V)
    if kind is not Kind.WHOLE:
        look = _on_grid if kind is Kind.GRID else _streamed
        return _pose_blocks(look(V, weights, exposure, beta=beta, missing=missing, absent=absent), beta=beta)
    return pose_array(V, beta=beta, weights=weights, missing=missing, absent=absent, exposure=exposure)


def pose_array(
    V: Any,
    *,
    beta: float,
    weights: Any,
    missing: str | None = None,
    absent: str,
    exposure: Any = None,
    units: Units | None = None,
) -> Posed:
    """The same for V in memory, in given units or in those that suit it."""
    layout = mesh.layout(V)
    options: Any = {"beta": beta, "missing": missing, "absent": absent, "exposure": exposure}
    data, chosen, largest, xp = _checked(V, weights=weights, units=units, **options)
    stack = data.shape[:-2]
    if len(stack) > 1:
        data = data.flatten_stack(xp=xp)
    apart = bool(stack) and libraries.is_readable(data.values) and lie_apart(data, chosen, beta=beta, xp=xp)
    data = in_units(data, chosen.v, beta=beta, xp=xp)
    least = factor_floor(data.values.dtype, beta=beta, xp=xp)
    floor = floor_of(least, largest, data.values.dtype, beta=beta, xp=xp)
    exposure = flat_exposure(unmapped(exposure), data, stack, xp=xp)
    return Posed(Problem(data), xp, beta, chosen, floor, largest, stack, layout, exposure, apart)


def _checked(
    V: Any, *, beta: float, weights: Any, missing: str | None, absent: str, exposure: Any, units: Units | None
) -> tuple[Data, Units, float | None, Namespace]:
    """The validated data of V, whose weights are in their units already, the units, and V's largest entry in them.

    Where V is not read, the units are one.
    """
    heaviest = 1.0
    data = as_data(V)
    xp = libraries.array_namespace(data.values)
    data = data.with_values(as_working_dtype("V", data.values, xp=xp))
    if weights is not None:
        weights = unmapped(weights)
        check_weights(weights, data.values, data.shape)
        weights = mesh.like(data.values, weights)
    data, weights = with_exposure(data, weights, unmapped(exposure), beta=beta, xp=xp)
    weights = entry_weights(data, weights, missing, xp=xp)
    if weights is not None and libraries.is_readable(weights):
        _, heaviest = check_values("weights", weights, xp=xp)
        check_observed(weights, xp=xp)
        of_weights = units_of(0.0, heaviest, weights.dtype, beta=beta, floor=0.0, xp=xp) if units is None else units
        weights = in_weight_units(weights, of_weights.weights, xp=xp)
    data = seen(with_weights(data, weights, absent=absent, beta=beta, xp=xp), V, xp=xp)
    if isinstance(data, Weighted) and data.values.ndim < 2 and libraries.is_readable(data.weights):
        check_observed(data.weights, xp=xp)  # of what is stored
    dtype = data.values.dtype
    floor = factor_floor(dtype, beta=beta, xp=xp)
    if not libraries.is_readable(data.values):
        return data, units or Units(), None, xp
    low, high = check_values("V", data.values, xp=xp, stored=stored_places(data))
    check_zeros(0.0 if data.has_absent else low, beta)
    largest = None
    if units is None:
        high = largest_observed(data, high, beta=beta, xp=xp)
        units = units_of(high, heaviest, dtype, beta=beta, floor=floor, xp=xp)
        largest = number_times_power(high, -units.v) or None
    return dense_if_quicker(data, xp=xp), units, largest, xp


def _streamed(V: Any, weights: Any, exposure: Any, **options: Any) -> Streamed:
    """V from a source, read once."""
    source = V if isinstance(V, RowBlocks) else RowBlocks(V)
    observation = (_rows_of(name, x) for name, x in (("weights", weights), ("exposure", exposure)))
    return Streamed(source, *observation, **options)


def _rows_of(name: str, x: Any) -> Any:
    """What lies beside V in blocks: an array, or what is read by slices of its rows."""
    rows = source_of(x)
    rows = rows.source if isinstance(rows, RowBlocks) else rows
    if not (rows is None or isinstance(rows, Rows)):
        msg = f"`{name}` must be an array or be read by slices of rows, got an iterable of blocks"
        raise TypeError(msg)
    return rows or x


def _on_grid(V: Any, weights: Any, exposure: Any, **options: Any) -> Grid:
    """V as a dask array, and each block looked at once."""
    for name, x in (("weights", weights), ("exposure", exposure)):
        if not (x is None or kind_of(x) is Kind.GRID):
            check_array(name, x, min_ndim=0)
    return Grid(V, weights, exposure, **options)


def _pose_blocks(data: Any, *, beta: float) -> Posed:
    """The problem of blocks that have been looked at, in its units."""
    xp, dtype = libraries.array_namespace(data.values), data.values.dtype
    check_zeros(data.range.low, beta)
    least = factor_floor(dtype, beta=beta, xp=xp)
    units = units_of(data.range.high, data.range.heaviest, dtype, beta=beta, floor=least, xp=xp)
    largest = number_times_power(data.range.high, -units.v) or None
    floor = floor_of(least, largest, dtype, beta=beta, xp=xp)
    return Posed(Problem(data.in_units(units)), xp, beta, units, floor, largest, stack=())
