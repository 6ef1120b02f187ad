"""The backends and devices that the tests and the conformance kit know, in one list."""

from __future__ import annotations

import contextlib
import enum
import importlib
import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nmf_xp.arrays import libraries, transfer
from nmf_xp.run.hosted import natively

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np

    from nmf_xp.arrays.typing import Array, Namespace


class Backend(enum.Enum):
    """An array library in one of the ways in which it can be used."""

    NUMPY = "numpy"
    NUMPY_READONLY = "numpy:readonly"  # every in-place write on the input fails
    STRICT = "array_api_strict"  # the standard and nothing more
    STRICTEST = "array_api_strict:strictest"  # the least that the standard allows
    STRICT_DEVICE = "array_api_strict:device1"  # a forgotten `device=` fails
    JAX = "jax"
    JAX_JIT = "jax:jit"  # everything inside one `jax.jit`
    JAX_GPU = "jax:gpu"
    TORCH = "torch"
    TORCH_META = "torch:meta"  # no values: every hidden read fails
    TORCH_CUDA = "torch:cuda"
    CUPY = "cupy"

    @property
    def library(self) -> str:
        """Name of the module to import."""
        return self.value.partition(":")[0]

    def missing(self) -> str | None:
        """Why this backend cannot run here; None where it can."""
        if importlib.util.find_spec(self.library) is None:
            return f"{self.library} is not installed"
        if self is Backend.CUPY and not importlib.import_module("cupy").cuda.is_available():
            return "no CUDA device"
        if self is Backend.TORCH_CUDA and not importlib.import_module("torch").cuda.is_available():
            return "no CUDA device"
        if self is Backend.JAX_GPU and importlib.import_module("jax").default_backend() != "gpu":
            return "no GPU device"
        return None

    def target(self) -> Target:
        """The backend as something to run on."""
        module = importlib.import_module("jax.numpy" if self.library == "jax" else self.library)
        device: Any = None
        match self:
            case Backend.STRICT_DEVICE:
                device = module.Device("device1")
            case Backend.TORCH | Backend.TORCH_META | Backend.TORCH_CUDA:
                device = module.device({"torch": "cpu"}.get(self.value, self.value.partition(":")[2]))
            case Backend.JAX | Backend.JAX_JIT | Backend.JAX_GPU:
                device = importlib.import_module("jax").devices("gpu" if self is Backend.JAX_GPU else "cpu")[0]
        return Target(
            name=self.value,
            xp=libraries.array_namespace(module.ones(1)),
            device=device,
            compiled=self is Backend.JAX_JIT,
            readonly=self is Backend.NUMPY_READONLY,
            strictest=self is Backend.STRICTEST,
            has_values=self is not Backend.TORCH_META,
        )


@dataclass(frozen=True)
class Target:
    """A namespace on a device, and how functions are run there."""

    name: str
    xp: Namespace
    device: Any = None
    compiled: bool = False
    readonly: bool = False
    strictest: bool = False
    has_values: bool = True

    @property
    def is_jax(self) -> bool:
        """Whether its arrays are JAX's."""
        return bool(self.xp.__name__ == "jax.numpy")

    def asarray(self, x: np.ndarray[Any, Any], dtype: str | None = None) -> Array:
        """A new array of this target with the values of a NumPy array, in the named dtype or in its own."""
        import numpy as np

        x = np.array(x, dtype=dtype)
        if self.readonly:
            x.flags.writeable = False
            return x
        keyword = {} if self.device is None else {"device": self.device}
        return self.xp.asarray(x, dtype=getattr(self.xp, x.dtype.name), **keyword)

    def to_numpy(self, x: Any) -> np.ndarray[Any, Any]:
        """The values of an array of this target."""
        return transfer.to_host(x)

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function` as this target runs it: under `jax.jit`, or as it is."""
        if not self.compiled:
            return function
        jax = importlib.import_module("jax")
        return jax.jit(function)

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """The flags under which this target runs, with its own operators also where NumPy's kernels would be faster."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(natively())
            if self.strictest:
                strict = importlib.import_module("array_api_strict")
                flags: Any = {"boolean_indexing": False, "data_dependent_shapes": False, "enabled_extensions": ()}
                stack.enter_context(strict.ArrayAPIStrictFlags(**flags))
            yield
