"""What nmf_xp knows about array libraries: the only file that imports array-api-compat.

No array library is imported here. A library is recognised by the arrays that the user hands in, so it
has been imported already.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import math
import sys
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, TypeVar

import array_api_compat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeGuard

    import numpy as np

    from nmf_xp._typing import Array, Namespace

F = TypeVar("F", bound="Callable[..., Any]")

AUTOCAST = ("cpu", "cuda", "xpu", "mps")  # the kinds of devices for which torch can replace the dtype of products

is_array = array_api_compat.is_array_api_obj
is_jax = array_api_compat.is_jax_array
is_dask = array_api_compat.is_dask_array
is_torch = array_api_compat.is_torch_array
is_cupy = array_api_compat.is_cupy_array


def is_numpy(x: Any) -> TypeGuard[np.ndarray[Any, Any]]:
    """Whether `x` is NumPy's: asked many times an iteration, so without the cases that array-api-compat looks at."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(x, numpy.ndarray | numpy.generic)


def array_namespace(*arrays: Any) -> Namespace:
    """Namespace of the arrays; TypeError when they are not arrays or not of one namespace."""
    return array_api_compat.array_namespace(*arrays)


def transposed(x: Array) -> Array:
    """`x` with its last two axes exchanged: the attribute, as the function takes ten times as long on NumPy."""
    try:
        return x.mT
    except AttributeError:  # NumPy 1, CuPy 13
        return array_namespace(x).matrix_transpose(x)


def device(x: Array) -> Any:
    """Device of an array, to be passed to creation functions; None where the array is being traced.

    For an array on a mesh of JAX devices it is the sharding that puts a copy on each of them.
    """
    if is_traced(x):
        return None
    return _copies(x) if on_mesh(x) else array_api_compat.device(x)


def on_mesh(x: Any) -> bool:
    """Whether `x` is a JAX array that lies, in one piece or many, on a mesh of devices."""
    if not is_jax(x) or is_traced(x):
        return False
    return not isinstance(x.sharding, sys.modules["jax"].sharding.SingleDeviceSharding)


def _copies(x: Any) -> Any:
    sharding = sys.modules["jax"].sharding
    return sharding.NamedSharding(x.sharding.mesh, sharding.PartitionSpec())


def on_gpu(V: Any) -> bool:
    """Whether V, an array or a sparse array of any library, is on a device that is no CPU, as far as its type tells.

    What JAX traces is where its default device is; torch's "meta" is nowhere.
    """
    library = sparse_library(V)
    if library == "cupyx" or (library is None and array_api_compat.is_cupy_array(V)):
        return True
    if is_torch(V):
        return V.device.type not in ("cpu", "meta")
    if library != "jax" and not is_jax(V):
        return False
    jax = sys.modules["jax"]
    V = V.data if library == "jax" else V
    if is_traced(V):
        return bool(jax.default_backend() != "cpu")
    return any(device.platform != "cpu" for device in V.devices())


def is_traced(x: Any) -> bool:
    """Whether `x` stands for an array inside a user's `jax.jit`, `jax.vmap` or `jax.grad`."""
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(x, jax.core.Tracer)


def is_readable(x: Any) -> bool:
    """Whether the values of `x` can be read now: not for a JAX tracer, a dask array or a torch meta tensor."""
    return not (is_traced(x) or is_dask(x) or str(getattr(x, "device", "")) == "meta")


def computed(x: Any) -> Any:
    """A dask array as the array that it stands for, and all else as it is."""
    return x.compute() if is_dask(x) else x


def unsupported_kind(name: str, x: Any) -> str | None:
    """What the argument `x` is and what to pass instead, for arrays that break the standard's promises; else None."""
    if is_dask(x):
        return "a dask array, which only `nmf` and `transform` take, as V; pass its `.compute()` if it fits in memory"
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(x, numpy.matrix):
        return "a numpy.matrix, whose `*` is a matrix product; pass `numpy.asarray` of it"
    if is_masked(x):
        return f"a masked array ({type(x).__name__}), whose mask would be ignored; {_without_mask(name, x)}"
    if sparse_library(x) is not None:
        return f"a sparse array ({type(x).__name__}); make it dense"
    return None


def is_masked(x: Any) -> bool:
    """Whether `x` is a masked array: NumPy's, torch's or marray's."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(x, numpy.ma.MaskedArray):
        return True
    return type(x).__module__.startswith(("torch.masked", "marray"))


def _without_mask(name: str, x: Any) -> str:
    """What to pass instead of a masked array."""
    if name not in ("V", "X"):  # only data can be unobserved
        return "pass a plain array, with a number for each masked entry"
    entries, observed = ".data", f"~{name}.mask"
    if is_numpy(x):
        observed = f"~numpy.ma.getmaskarray({name})"
    elif is_torch(x):
        entries, observed = ".get_data()", f"{name}.get_mask()"
    return f"pass its `{entries}`, with `weights={observed}` if a masked entry is unobserved"


def sparse_library(x: Any) -> str | None:
    """The library of a sparse array; None for all else."""
    if is_torch(x):
        return None if str(x.layout) == "torch.strided" else "torch"
    module = type(x).__module__
    for prefix in ("scipy.sparse", "cupyx.scipy.sparse", "jax.experimental.sparse", "sparse."):
        if module.startswith(prefix):
            return prefix.partition(".")[0]
    return None


def is_foreign(x: Any) -> bool:
    """Whether `x` is an array, or a sparse array, of another library than NumPy and SciPy."""
    library = sparse_library(x)
    return library != "scipy" if library is not None else is_array(x) and not is_numpy(x)


def in_row_order(x: Array) -> Array:
    """The array with its rows one after the other in memory, where a library knows of such an order.

    Sums over an axis differ in their last digits from one order to the other, and no file of factors keeps it.
    """
    if is_torch(x):
        return x.contiguous()
    return array_namespace(x).ascontiguousarray(x) if is_numpy(x) or is_cupy(x) else x


def to_host(x: Any) -> np.ndarray[Any, Any]:
    """NumPy array with the values of `x`, from any device."""
    import numpy as np

    if is_cupy(x):
        return x.get()
    if is_torch(x):
        return x.detach().cpu().numpy()
    if type(x).__module__.startswith("array_api_strict"):
        import array_api_strict

        return np.asarray(x.to_device(array_api_strict.Device("CPU_DEVICE")))
    if on_mesh(x) and not x.is_fully_addressable and not x.is_fully_replicated:  # other processes hold some of it
        x = sys.modules["jax"].jit(lambda x: x, out_shardings=_copies(x))(x)
    return np.asarray(x)


def from_host(x: np.ndarray[Any, Any], *, xp: Namespace, dtype: Any, device: Any, staged: bool = False) -> Array:
    """Array of namespace `xp` with the values of a NumPy array.

    Where they are `staged`, the copy to a GPU is one that runs beside what the GPU computes: torch has to be told to
    make it from pinned memory, CuPy does so by itself.
    """
    import numpy as np

    name = dtype_name(dtype)
    if hasattr(np, name):  # round on the host: half the bytes travel, and JAX need not warn of truncation
        x = x.astype(name, copy=False)
    if staged and getattr(device, "type", None) == "cuda":
        return xp.asarray(x, dtype=dtype, device="cpu").pin_memory().to(device, non_blocking=True)
    keyword = {} if device is None else {"device": device}  # a traced array has none
    return xp.asarray(x, dtype=dtype, **keyword)


def in_full_precision(function: F) -> F:
    """The function with matrix products in the arrays' own precision, where JAX's user has not chosen another.

    It runs on their device, see `on_their_device`.

    On an NVIDIA GPU JAX multiplies float32 in TF32 by default, with ten bits, which shows near a minimum. Under
    `torch.autocast` a product has eight or eleven bits, and another dtype than its factors.
    """

    @functools.wraps(function)
    def wrapped(*args: Any, **options: Any) -> Any:
        with on_their_device(*args), _own_precision():
            return function(*args, **options)

    return wrapped  # type: ignore[return-value]


def on_data(function: F) -> F:
    """The function, in full precision and on its device, on tensors without graphs: even a parameter is data.

    With graphs torch would keep the arrays of all iterations for a derivative.
    """

    @functools.wraps(function)
    def wrapped(*args: Any, **options: Any) -> Any:
        if "torch" in sys.modules:
            args, options = tuple(map(as_data_only, args)), {name: as_data_only(x) for name, x in options.items()}
        with on_their_device(*args), _own_precision():
            return function(*args, **options)

    return wrapped  # type: ignore[return-value]


def on_their_device(*args: Any) -> contextlib.AbstractContextManager[Any]:
    """Within it the device of the first CuPy array among these, or of which one is made, is the current one.

    CuPy launches there whatever it does, wherever the arrays are, and its creation functions know no other device.
    """
    if "cupy" in sys.modules:
        for x in args:
            # A sparse matrix holds its entries, row blocks an array of where they go, the state of a stream its H. What
            # is an array itself is not asked for them: torch's `H` is an error but for matrices.
            parts = () if hasattr(x, "__dlpack__") else ("data", "like", "H")
            for array in (x, *(getattr(x, name, None) for name in parts)):
                if is_cupy(array):
                    return array.device
    return contextlib.nullcontext()


@contextlib.contextmanager
def _own_precision() -> Iterator[None]:
    """The dtype of a product is that of its factors, whatever else is in force."""
    jax: Any = sys.modules.get("jax")
    torch: Any = sys.modules.get("torch")
    with contextlib.ExitStack() as stack:
        if jax is not None and jax.config.jax_default_matmul_precision is None:
            stack.enter_context(jax.default_matmul_precision("highest"))
        for device in AUTOCAST if torch is not None else ():
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


def as_data_only(x: Any) -> Any:
    """A tensor without its graph, in the same memory; the items of a tuple or list likewise; all else as it is."""
    if isinstance(x, tuple | list) and any(map(is_torch, x)):
        items = map(as_data_only, x)
        return type(x)(*items) if hasattr(x, "_fields") else type(x)(items)
    if not is_torch(x):
        return x
    return x.detach() if x.requires_grad or isinstance(x, sys.modules["torch"].nn.Parameter) else x


@contextlib.contextmanager
def overflow_allowed() -> Iterator[None]:
    """No warning of NumPy's where a curvature overflows, which bounds a step: an objective that does has a status.

    Nor of an invalid value: BLAS raises that flag for numbers beside the matrix that its vectors happen to hold.
    """
    numpy = sys.modules.get("numpy")
    with numpy.errstate(over="ignore", invalid="ignore") if numpy is not None else contextlib.nullcontext():
        yield


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

        def body(k: Any, x: Array) -> Array:
            return lax.dynamic_update_slice_in_dim(x, within(function(k, x), k), k, axis=x.ndim - 1)

        for _ in range(sweeps):
            x = lax.fori_loop(0, x.shape[-1], body, x)
        return x
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
    if array_api_compat.is_torch_namespace(xp):
        return xp.clamp_min, xp.clamp_max
    return xp.maximum, xp.minimum


def solution(A: Array, B: Array, *, xp: Namespace) -> Array:
    """X with AX = B for positive definite A (..., r, r) and B (..., r, n).

    By elimination where the namespace leaves out linear algebra, which the standard calls an extension.
    """
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


def cancelled(difference: Array, size: Array, dtype: Any, *, xp: Namespace) -> Array:
    """Whether a difference of numbers of this size, computed in `dtype`, may have lost half of its digits."""
    return xp.logical_not(difference > float(xp.finfo(dtype).eps) ** 0.5 * size)


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
    return all(array_api_compat.is_cupy_array(z) for z in (x, y))


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
        with numpy.errstate(all="ignore"):
            result = numerator / denominator
            numpy.log1p(result, out=result)
            numpy.multiply(result, x, out=result)
            return numpy.subtract(result, numerator, out=result), None
    special = importlib.import_module("torch.special" if is_torch(denominator) else "cupyx.scipy.special")
    return special.xlog1py(x, numerator / denominator), numerator


def sum_of_numbers(x: Array, *, axis: Any, dtype: Any, xp: Namespace) -> Array:
    """The sum without what is no number, in one pass where a library has that; else NaN stays."""
    leaves_out = is_torch(x) or array_api_compat.is_cupy_array(x)
    if not leaves_out:
        return xp.sum(x, axis=axis, dtype=dtype)
    return xp.nansum(x, axis, dtype=dtype)


def seen_to_be_finite(x: Array) -> bool:
    """Whether all numbers of a NumPy array are finite; True elsewhere, where to look would be to wait for a device."""
    if not is_numpy(x):
        return True
    return math.isfinite(x) if x.ndim == 0 else bool(sys.modules["numpy"].isfinite(x).all())


def scalar(x: Array) -> float:
    """Read a 0-d array as a Python float: the one place where the loop waits for a device."""
    return float(x.detach() if is_torch(x) else x)


def dtype_name(dtype: Any) -> str:
    """Name of a dtype without its namespace: `float32`, whoever made it."""
    return getattr(dtype, "name", None) or str(dtype).rsplit(".", 1)[-1]


def default_dtype(xp: Namespace, device: Any) -> Any:
    """The namespace's default floating dtype on the device."""
    return xp.__array_namespace_info__().default_dtypes(device=device)["real floating"]


def accumulator_dtype(xp: Namespace, device: Any) -> Any:
    """The dtype in which sums accumulate: float64 where the device has it, else float32."""
    known = device if isinstance(device, Hashable) else None  # CuPy's have no hash, and all of them the same dtypes
    return _widest_dtype(xp, known, _jax_x64())


@functools.lru_cache(maxsize=64)
def _widest_dtype(xp: Namespace, device: Any, _x64: bool) -> Any:
    dtypes = xp.__array_namespace_info__().dtypes(kind="real floating", device=device)
    return dtypes.get("float64", dtypes["float32"])


def _jax_x64() -> bool:
    jax = sys.modules.get("jax")
    return jax is not None and bool(jax.config.jax_enable_x64)
