"""What is in force while arrays are computed with: the dtype of products, the device, graphs, NumPy's errors."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import importlib
import inspect
import sys
from typing import TYPE_CHECKING, Any, TypeVar

from nmf_xp.arrays import arrival, refused
from nmf_xp.arrays.libraries import is_cupy, is_plain, is_torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


F = TypeVar("F", bound="Callable[..., Any]")


AUTOCAST = ("cpu", "cuda", "xpu", "mps")  # the kinds of devices for which torch can replace the dtype of products


def in_full_precision(function: F) -> F:
    """The function with matrix products in the arrays' own precision, where JAX's user has not chosen another.

    It runs on their device, see `on_their_device`, and as quietly as `own_errors` says.

    On an NVIDIA GPU JAX multiplies float32 in TF32 by default, with ten bits, which shows near a minimum. Under
    `torch.autocast` a product has eight or eleven bits, and another dtype than its factors.
    """
    return _called(function, graphs=True)


def on_data(function: F) -> F:
    """The same, on tensors without graphs: even a parameter is data.

    With graphs torch would keep the arrays of all iterations for a derivative.
    """
    return _called(function, graphs=False)


def _called(function: F, *, graphs: bool) -> F:
    names = tuple(inspect.signature(function).parameters)

    @functools.wraps(function)
    def wrapped(*args: Any, **options: Any) -> Any:
        args, options = _arrived(names, args, options)
        if not graphs and "torch" in sys.modules:
            args, options = tuple(map(as_data_only, args)), {name: as_data_only(x) for name, x in options.items()}
        try:
            with own_errors(), on_their_device(*args), _own_precision(*args[:1]):
                return function(*args, **options)
        except Exception as error:
            refused.explain(names, error)
            raise

    return wrapped  # type: ignore[return-value]


def _arrived(
    names: tuple[str, ...], args: tuple[Any, ...], options: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments and options whose arrays are as NumPy's kernels read them; what holds no numbers is refused."""
    for name, x in (*zip(names, args, strict=False), *options.items()):
        refused.check(name, x)
    return tuple(map(arrival.each_plain, args)), {name: arrival.each_plain(x) for name, x in options.items()}


def on_their_device(*args: Any) -> contextlib.AbstractContextManager[Any]:
    """Within it the device of the first CuPy array among these, or of which one is made, is the current one.

    CuPy launches there whatever it does, wherever the arrays are, and its creation functions know no other device.
    """
    if "cupy" in sys.modules:
        for x in args:
            # A sparse matrix holds its entries, row blocks an array of where they go, the state of a stream its H. What
            # is an array itself is not asked for them: torch's `H` is an error but for matrices.
            parts = () if hasattr(x, "__dlpack__") else ("data", "example", "H")
            for array in (x, *(getattr(x, name, None) for name in parts)):
                if is_cupy(array):
                    return array.device
    return contextlib.nullcontext()


def _own_precision(*first: Any) -> contextlib.AbstractContextManager[None]:
    """The dtype of a product is that of its factors, whatever else is in force; NumPy knows nothing of the kind."""
    nothing = ("jax" not in sys.modules and "torch" not in sys.modules) or any(map(is_plain, first))
    return contextlib.nullcontext() if nothing else _own_precision_of_libraries()


@contextlib.contextmanager
def _own_precision_of_libraries() -> Iterator[None]:
    jax: Any = sys.modules.get("jax")
    torch: Any = sys.modules.get("torch")
    with contextlib.ExitStack() as stack:
        if jax is not None and jax.config.jax_default_matmul_precision is None:
            stack.enter_context(jax.default_matmul_precision("highest"))
        for device in AUTOCAST if torch is not None else ():
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


def carried(function: Callable[[], Any]) -> Callable[[], Any]:
    """The function with the width of JAX's numbers that holds here, for another thread, which has one of its own."""
    jax: Any = sys.modules.get("jax")
    if jax is None:
        return function
    wide = bool(jax.config.jax_enable_x64)
    module = jax if hasattr(jax, "enable_x64") else importlib.import_module("jax.experimental")

    def called() -> Any:
        if bool(jax.config.jax_enable_x64) == wide:
            return function()
        with module.enable_x64(wide):
            return function()

    return called


def as_data_only(x: Any) -> Any:
    """A tensor without its graph, in the same memory; the items of a tuple or list likewise; all else as it is."""
    if isinstance(x, tuple | list) and any(map(is_torch, x)):
        items = map(as_data_only, x)
        return type(x)(*items) if hasattr(x, "_fields") else type(x)(items)
    if not is_torch(x):
        return x
    return x.detach() if x.requires_grad or isinstance(x, sys.modules["torch"].nn.Parameter) else x


QUIET: dict[str, Any] = {"all": "ignore"}
"""How NumPy handles its errors in here: a result that is no number has a status, or is asked for."""

_users: contextvars.ContextVar[tuple[dict[str, Any], Any] | None] = contextvars.ContextVar("_users", default=None)


@contextlib.contextmanager
def own_errors() -> Iterator[None]:
    """No warning of NumPy's, and afterwards its error handling as it was, whatever ends this.

    An interrupt may arrive within an `errstate`, NumPy's own ones too, between its change and what undoes it. So who is
    called by the user puts back all of it, the function for errors too. Overflow in a curvature bounds a step. BLAS
    calls numbers invalid that lie beside the matrix.
    """
    numpy: Any = sys.modules.get("numpy")
    if numpy is None:
        yield
        return
    before, function, outer = numpy.geterr(), numpy.geterrcall(), _users.get()
    try:
        _users.set(outer or (before, function))
        numpy.seterr(**QUIET)
        yield
    finally:
        numpy.seterr(**before)
        numpy.seterrcall(function)
        _users.set(outer)


@contextlib.contextmanager
def users_errors() -> Iterator[None]:
    """NumPy's error handling as the user has it, for what the user wrote."""
    numpy: Any = sys.modules.get("numpy")
    theirs = _users.get()
    if numpy is None or theirs is None:
        yield
        return
    before, function = numpy.geterr(), numpy.geterrcall()
    try:
        numpy.seterr(**theirs[0])
        numpy.seterrcall(theirs[1])
        yield
    finally:
        numpy.seterr(**before)
        numpy.seterrcall(function)
