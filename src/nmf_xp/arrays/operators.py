"""Operators that the standard lacks, or that a library has in fewer passes: what the formulas are written with."""

from __future__ import annotations

import functools
import importlib
import math
import operator
import sys
from typing import TYPE_CHECKING, Any

from nmf_xp.arrays import libraries
from nmf_xp.arrays.libraries import array_namespace, device, is_jax, is_numpy, is_torch, is_traced

if TYPE_CHECKING:
    from collections.abc import Callable

    from nmf_xp.arrays.typing import Array, Namespace


def transposed(x: Array) -> Array:
    """`x` with its last two axes exchanged: the attribute, as the function takes ten times as long on NumPy."""
    try:
        return x.mT
    except AttributeError:  # NumPy 1, CuPy 13
        return array_namespace(x).matrix_transpose(x)


def column(x: Array, k: Any) -> Array:
    """Column k of (..., n) as (..., 1), where k may be traced."""
    if isinstance(k, int):
        return x[..., k : k + 1]
    return sys.modules["jax"].lax.dynamic_slice_in_dim(x, k, 1, axis=x.ndim - 1)


def replace_columns(
    function: Callable[[Any, Array, Any], tuple[Array, Any]], x: Array, carry: Any, *, xp: Namespace
) -> tuple[Array, Any]:
    """`x` with each of its columns in turn replaced: ``new, carry = function(k, old, carry)``.

    JAX compiles one step, not as many as there are columns.
    """
    if not is_jax(x):
        columns = []
        for k in range(x.shape[-1]):
            new, carry = function(k, column(x, k), carry)
            columns.append(new)
        return xp.concat(columns, axis=-1), carry
    lax = sys.modules["jax"].lax

    def body(k: Any, state: tuple[Array, Any]) -> tuple[Array, Any]:
        x, carry = state
        new, carry = function(k, column(x, k), carry)
        return lax.dynamic_update_slice_in_dim(x, new, k, axis=x.ndim - 1), carry

    return lax.fori_loop(0, x.shape[-1], body, (x, carry))


def repeated(function: Callable[[Any], Any], state: Any, count: int) -> Any:
    """What `count` times ``state = function(state)`` make of a tuple of arrays; a JAX program holds one of them."""
    if is_traced(state[0]):
        return sys.modules["jax"].lax.fori_loop(0, count, lambda _, state: function(state), state)
    for _ in range(count):
        state = function(state)
    return state


def sweep_columns(
    function: Callable[[Any, Array], Array], least: Array, most: Array | None, *, sweeps: int, xp: Namespace
) -> Array:
    """Zeros, after sweeps that set one column after the other to ``function(k, x)``, within `least` and `most`.

    Written into memory of its own, where the library can: what is launched for a column is then the function and a
    bound.
    """

    def within(new: Array, k: Any, **into: Any) -> Array:
        new = new if most is None else xp.minimum(new, column(most, k))
        return xp.maximum(new, column(least, k), **into)

    x = xp.zeros_like(least)
    if is_jax(least):
        lax = sys.modules["jax"].lax

        def body(i: Any, x: Array) -> Array:
            k = lax.rem(i, x.shape[-1])
            return lax.dynamic_update_slice_in_dim(x, within(function(k, x), k), k, axis=x.ndim - 1)

        return lax.fori_loop(0, sweeps * x.shape[-1], body, x)  # one program for all of the sweeps
    for k in [*range(x.shape[-1])] * sweeps:
        new = function(k, x)
        if runs_one_by_one(new, least):
            within(new, k, out=column(x, k))
        else:
            x = xp.concat([x[..., :k], within(new, k), x[..., k + 1 :]], axis=-1)
    return x


def less_product(x: Array, A: Array, B: Array) -> Array:
    """x - A B, in one operator where the library has it."""
    return sys.modules["torch"].addmm(x, A, B, alpha=-1) if is_torch(x) and x.ndim == 2 else x - A @ B


def choose(condition: Array, yes: Array, no: Array, *, xp: Namespace) -> Array:
    """`yes` for the matrices (..., m, n), or numbers (...,), for which the condition (...,) holds, else `no`.

    One condition that NumPy holds is a Python bool, and nothing is copied.
    """
    if is_numpy(condition) and condition.ndim == 0:
        return yes if condition else no
    return xp.where(condition[..., None, None] if yes.ndim > condition.ndim else condition, yes, no)


def at_least(x: Array, bound: float, *, xp: Namespace) -> Array:
    """`x`, or the bound where that is more; NaN stays.

    The one place for a bound that is a Python scalar: of one, array-api-compat's `maximum` makes a tensor on torch's
    device, a copy from the host that the device's queue waits for, and CuPy's `clip` reads its bounds back.
    """
    return _bounded(xp)[0](x, bound)


def at_most(x: Array, bound: float, *, xp: Namespace) -> Array:
    """`x`, or the bound where that is less; NaN stays."""
    return _bounded(xp)[1](x, bound)


@functools.cache
def _bounded(xp: Namespace) -> tuple[Callable[[Array, float], Array], Callable[[Array, float], Array]]:
    if libraries.is_torch_namespace(xp):
        return xp.clamp_min, xp.clamp_max
    return xp.maximum, xp.minimum


def solution(A: Array, B: Array, *, xp: Namespace) -> Array:
    """X with AX = B for positive definite A (..., r, r) and B (..., r, n).

    By elimination where the namespace leaves out linear algebra, which the standard calls an extension.
    """
    if is_torch(A):  # whose `solve` reads whether A was singular
        return sys.modules["torch"].linalg.solve_ex(A, B).result
    try:
        return xp.linalg.solve(A, B)
    except (AttributeError, RuntimeError):
        pass
    r = A.shape[-1]
    eye = xp.eye(r, dtype=A.dtype, device=device(A))
    A = xp.concat([A, B], axis=-1)
    for k in range(r):
        pivots = column(A, k)
        row = A[..., k : k + 1, :] / pivots[..., k : k + 1, :]
        A = A - (pivots - column(eye, k)) * row
    return A[..., r:]


def either(condition: Array, yes: Callable[[], Any], no: Callable[[], Any], *, xp: Namespace) -> Any:
    """``yes()`` where the condition, one for all, holds, else ``no()``: arrays, or tuples of them, of the same shapes.

    Only one of them is computed, but on devices that would have to be waited for.
    """
    if is_traced(condition):
        return sys.modules["jax"].lax.cond(condition, yes, no)
    if not is_slow_to_ask(condition):
        return yes() if condition else no()
    chosen, other = yes(), no()
    if isinstance(chosen, tuple):
        return tuple(xp.where(condition, a, b) for a, b in zip(chosen, other, strict=True))
    return xp.where(condition, chosen, other)


def is_slow_to_ask(x: Array) -> bool:
    """Whether to read a value of `x` is to wait for a device, or impossible."""
    return is_traced(x) or not (is_numpy(x) or is_jax(x) or (is_torch(x) and str(x.device) == "cpu"))


def cancelled(difference: Array, size: Array, dtype: Any, *, lost: float, xp: Namespace) -> Array:
    """Whether a difference of numbers of this size, computed in `dtype`, may have `lost` this share of its digits."""
    return xp.logical_not(difference > float(xp.finfo(dtype).eps) ** lost * size)


ROOTS = 6
"""The largest number of square roots in a power that is a product of them."""


def power(x: Array, exponent: float, *, xp: Namespace) -> Array:
    """x^exponent for x >= 0, by products, square roots and reciprocals where twice the exponent is a small integer.

    They are right to a few units in the last place, take a tenth of the time, and are exact for powers of four.
    """
    halves = 2.0 * exponent
    if exponent == 0 or halves != int(halves) or abs(halves) > ROOTS:
        return x**exponent
    whole, root = divmod(int(abs(halves)), 2)
    product = functools.reduce(operator.mul, [x] * whole + [xp.sqrt(x)] * root)
    return product if exponent > 0 else 1.0 / product


def divide_into(V: Array, Y: Array) -> Array:
    """V / Y, in the memory of Y where that is NumPy's: a fresh array of this size costs more than the division."""
    if is_numpy(Y):
        numpy: Any = sys.modules["numpy"]
        return numpy.divide(V, Y, out=Y)
    return V / Y


def runs_one_by_one(x: Array, y: Array) -> bool:
    """Whether each operator on the arrays is a pass of its own, and no derivative of what comes out may be asked for.

    The formulas are for the others: what differentiates, traces or fuses them, and what has no more than the standard.
    """
    if is_numpy(x):
        return is_numpy(y)
    if is_torch(x) and is_torch(y):
        torch: Any = sys.modules["torch"]
        return not (x.requires_grad or y.requires_grad) and torch.autograd.forward_ad._current_level < 0
    return all(libraries.is_cupy(z) for z in (x, y))


def less_scaled(x: Array, y: Array, scale: float) -> Array:
    """x - scale y, in as few passes as the library has for it."""
    if is_torch(x):
        return sys.modules["torch"].sub(x, y, alpha=scale)
    result = scale * y
    return sys.modules["numpy"].subtract(x, result, out=result) if is_numpy(result) else x - result


def times_log1p_less(x: Array, numerator: Array, denominator: Array) -> tuple[Array, Array | None]:
    """x log1p(numerator / denominator) - numerator, of what runs one by one; or the two, where that saves a pass.

    Where the quotient is 0 / 0 the first is NaN.
    """
    if is_numpy(denominator):
        numpy: Any = sys.modules["numpy"]
        result = numerator / denominator
        numpy.log1p(result, out=result)
        numpy.multiply(result, x, out=result)
        return numpy.subtract(result, numerator, out=result), None
    special = importlib.import_module("torch.special" if is_torch(denominator) else "cupyx.scipy.special")
    return special.xlog1py(x, numerator / denominator), numerator


def sum_of_numbers(x: Array, *, axis: Any, dtype: Any, xp: Namespace) -> Array:
    """The sum without what is no number, in one pass where a library has that; else NaN stays."""
    leaves_out = is_torch(x) or libraries.is_cupy(x)
    if not leaves_out:
        return xp.sum(x, axis=axis, dtype=dtype)
    return xp.nansum(x, axis, dtype=dtype)


def can_be_seen(x: Array) -> bool:
    """Whether numbers can be looked at for less than it takes to make them: those of NumPy."""
    return is_numpy(x)


def seen_to_be_finite(x: Array) -> bool:
    """Whether all numbers of a NumPy array are finite; True elsewhere, where to look would be to wait for a device."""
    if not is_numpy(x):
        return True
    return math.isfinite(x) if x.ndim == 0 else bool(sys.modules["numpy"].isfinite(x).all())
