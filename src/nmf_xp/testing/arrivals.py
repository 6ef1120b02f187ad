"""What happens to the arrays of every library that installs on a CPU: each is passed to `nmf` as it is."""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nmf_xp.arrays import transfer
from nmf_xp.factorization import nmf

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

CLOSE = 1e-4  # how far the divergence may be from that of the same numbers in NumPy, relative; some know float32 only


@dataclass(frozen=True)
class Arrival:
    """An array that somebody has: of which library, what it is, and how it is made from a NumPy matrix."""

    library: str
    what: str
    make: Callable[[np.ndarray[Any, Any]], Any]

    def missing(self) -> bool:
        """Whether its library is not installed here."""
        return importlib.util.find_spec(self.library.partition(".")[0]) is None

    def outcome(self) -> str:
        """What `nmf` makes of it: the type of the factors, or the sentence with which it refuses."""
        V = matrix()
        options: dict[str, Any] = {"solver": "mu", "random_state": 0, "max_iter": 2, "tol": 0}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of libraries about themselves
            x = self.make(V)
            try:
                result = nmf(x, 2, **options)
            except (TypeError, ValueError) as error:
                said, (advice, is_first, _) = str(error).partition(", got "), str(error).partition(": `V`")
                first = f"{advice}; " if is_first else ""
                return f"refused: {first}got {said[2]}" if said[1] else f"refused: {error}"
            expected = nmf(V, 2, **options)
            W = transfer.to_host(transfer.computed(result.W))
            model = W @ transfer.to_host(result.H)
        if abs(model - expected.W @ expected.H).max() > CLOSE * model.max():
            return "WRONG"
        kind = type(result.W)
        return f"works; W is of type `{kind.__module__.partition('.')[0]}.{kind.__name__}`"


def matrix() -> np.ndarray[Any, Any]:
    """Small positive numbers, some of them below one."""
    import numpy as np

    return np.random.default_rng(0).gamma(2, 1, (12, 2)) @ np.random.default_rng(1).gamma(2, 1, (2, 8))


def _module(name: str) -> Any:
    return importlib.import_module(name)


def _unaligned(V: Any) -> Any:
    import numpy as np

    table = np.zeros(V.shape, dtype=np.dtype([("flag", "u1"), ("x", "f8")]))
    table["x"] = V
    return table["x"]


def _subclass(V: Any) -> Any:
    import numpy as np

    return V.view(type("Mine", (np.ndarray,), {}))


def _masked(V: Any) -> Any:
    return _module("numpy").ma.masked_greater(V, V.max() / 2)


ARRIVALS = (
    Arrival("numpy", "another byte order", lambda V: V.astype(">f8")),
    Arrival("numpy", "a field of a structured array, which is not aligned", _unaligned),
    Arrival("numpy", "backwards, `V[::-1, ::-1]`", lambda V: V[::-1, ::-1].copy()[::-1, ::-1]),
    Arrival("numpy", "`numpy.recarray`", lambda V: V.view(_module("numpy").recarray)),
    Arrival("numpy", "a subclass", _subclass),
    Arrival("numpy", "`numpy.matrix`", lambda V: _module("numpy").matrix(V)),
    Arrival("numpy", "`numpy.ma`, with a mask", _masked),
    Arrival("numpy", "`numpy.longdouble`", lambda V: V.astype(_module("numpy").longdouble)),
    Arrival("numpy", "numbers as objects", lambda V: V.astype(object)),
    Arrival("array_api_strict", "an array", lambda V: _module("array_api_strict").asarray(V)),
    Arrival("jax", "an array", lambda V: _module("jax.numpy").asarray(V)),
    Arrival("torch", "a tensor", lambda V: _module("torch").asarray(V)),
    Arrival("torch", "a tensor with a graph", lambda V: _module("torch").asarray(V).requires_grad_()),
    Arrival("torch", "a sparse tensor", lambda V: _module("torch").asarray(V).to_sparse()),
    Arrival("scipy", "a sparse array", lambda V: _module("scipy.sparse").coo_array(V)),
    Arrival("sparse", "a sparse array", lambda V: _module("sparse").COO.from_numpy(V)),
    Arrival("dask", "an array", lambda V: _module("dask.array").from_array(V)),
    Arrival("dask", "an array with masked blocks", lambda V: _module("dask.array").from_array(V).map_blocks(_masked)),
    Arrival("ndonnx", "an array", lambda V: _module("ndonnx").asarray(V)),
    Arrival("mlx", "an array", lambda V: _module("mlx.core").array(V.astype("float32"))),
    Arrival("marray", "a masked array", lambda V: _module("marray").masked_namespace(_module("numpy")).asarray(V)),
    Arrival(
        "quantity_array",
        "an array with units",
        lambda V: _module("quantity_array").quantity_namespace(_module("numpy")).asarray(V, units="m"),
    ),
    Arrival("astropy", "a quantity", lambda V: V * _module("astropy.units").m),
    Arrival("pint", "a quantity", lambda V: _module("pint").UnitRegistry().Quantity(V, "m")),
    Arrival("xarray", "a data array", lambda V: _module("xarray").DataArray(V)),
    Arrival("awkward", "a ragged array", lambda V: _module("awkward").Array([*V.tolist(), [1.0]])),
    Arrival("pandas", "a frame", lambda V: _module("pandas").DataFrame(V)),
    Arrival("polars", "a frame", lambda V: _module("polars").DataFrame(V)),
    Arrival("polars", "a lazy frame", lambda V: _module("polars").LazyFrame(V)),
    Arrival("anndata", "AnnData, in memory", lambda V: _module("anndata").AnnData(V)),
    Arrival("builtins", "a list of lists", lambda V: V.tolist()),
    Arrival("pyarrow", "a table", lambda V: _module("pyarrow").table({str(j): V[:, j] for j in range(V.shape[1])})),
)
