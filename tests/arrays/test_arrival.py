"""Arrays from elsewhere: of another byte order, unaligned, backwards, of subclasses, of libraries nobody knows."""

from __future__ import annotations

import importlib
import importlib.util
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from nmf_xp import L2, Fixed, RowBlocks, Upper, beta_divergence, nmf, transform, update_h, update_w
from nmf_xp.arrays import namespaces
from nmf_xp.arrays.transfer import to_host
from tests.problems import noisy
from tests.stand_in import deviceless

if TYPE_CHECKING:
    from collections.abc import Callable

SOURCE = Path(namespaces.__file__).parents[1]
RNG = np.random.default_rng(0)
V, W, H = noisy(40, 30, 3, zeros=True).V + 0.0, RNG.random((40, 3)), RNG.random((3, 30))
OPTIONS: dict[str, Any] = {"max_iter": 10, "tol": 1e-9, "check_every": 5}


class Named(np.ndarray):
    """A subclass with a name, as libraries make them."""

    def __array_finalize__(self, obj: Any) -> None:
        self.name = getattr(obj, "name", "")


class Jealous(np.ndarray):
    """A subclass whose functions are its own, and refuse."""

    def __array_ufunc__(self, *_: Any, **__: Any) -> Any:
        msg = "not with me"
        raise TypeError(msg)


class Quantity(np.ndarray):
    """A subclass with units, as astropy's."""

    unit = "m"

    @property
    def value(self) -> Any:
        return self.view(np.ndarray)


def in_a_record(x: Any) -> Any:
    table = np.zeros(x.shape, dtype=np.dtype([("flag", "u1"), ("x", x.dtype)]))
    table["x"] = x
    return table["x"]


def mapped(x: Any, order: str, folder: Path) -> Any:
    path = folder / f"{x.shape}{order}.bin"
    x.astype(x.dtype.newbyteorder(order)).tofile(path)
    return np.memmap(path, dtype=x.dtype.newbyteorder(order), mode="r", shape=x.shape)


def read_only(x: Any) -> Any:
    x = x.copy()
    x.setflags(write=False)
    return x


KINDS: dict[str, Callable[[Any], Any]] = {
    "big-endian": lambda x: x.astype(x.dtype.newbyteorder(">")),
    "unaligned": lambda x: np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(x.dtype).reshape(x.shape),
    "in a record": in_a_record,
    "backwards": lambda x: np.ascontiguousarray(x[..., ::-1, ::-1])[..., ::-1, ::-1],
    "by columns": np.asfortranarray,
    "read-only": read_only,
    "subclass": lambda x: x.view(Named),
    "jealous": lambda x: x.view(Jealous),
    "recarray": lambda x: x.view(np.recarray),
    "big-endian subclass": lambda x: x.astype(x.dtype.newbyteorder(">")).view(Jealous),
}


def same(found: Any, expected: Any) -> None:
    for name in ("W", "H"):
        new, old = getattr(found, name), getattr(expected, name)
        assert type(new) is np.ndarray
        assert new.dtype == old.dtype
        assert new.dtype.isnative
        np.testing.assert_allclose(new, old, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("solver", ["auto", "mu", "mm"])
@pytest.mark.parametrize("beta", [1, 2, 0.5])
@pytest.mark.parametrize("kind", KINDS)
def test_v_of_every_kind_is_factorized_as_the_numbers_that_it_holds(kind: str, beta: float, solver: str) -> None:
    make = KINDS[kind]
    for x in (V, V.astype("float32"), (10 * V).astype("int32"), np.stack([V, 2 * V])):
        given = make(x)
        before = np.asarray(given).tobytes()
        found = nmf(given, 3, beta_loss=beta, solver=solver, random_state=0, **OPTIONS)
        expected = nmf(x, 3, beta_loss=beta, solver=solver, random_state=0, **OPTIONS)
        assert np.asarray(given).tobytes() == before
        if x.dtype == np.float32:
            assert found.W.dtype == np.float32
            assert float(np.max(found.divergence)) == pytest.approx(float(np.max(expected.divergence)), rel=1e-3)
        else:
            same(found, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_what_goes_with_v_may_be_of_every_kind(kind: str) -> None:
    make = KINDS[kind]
    weights, exposure, bound = 0.5 + RNG.random(V.shape), 0.5 + RNG.random(V.shape), np.full((40, 3), 2.0)
    mask = np.zeros((3, 30), dtype=bool)
    mask[0, ::2] = True

    def fitted(make: Any) -> list[Any]:
        start = make(W), make(H)
        return [
            nmf(V, 3, init=start, **OPTIONS),
            nmf(V, 3, init=start, upper_w=make(bound), **OPTIONS),
            nmf(V, 3, init=start, fixed_h=make(mask), **OPTIONS),
            nmf(V, 3, init=start, w=[Upper(make(bound)), L2(0.1)], h=[Fixed(make(mask))], **OPTIONS),
            nmf(V, 3, init=start, weights=make(weights), exposure=make(exposure), beta_loss=1, **OPTIONS),
            nmf(RowBlocks([make(V[:20]), make(V[20:])]), 3, init=start, weights=make(weights), **OPTIONS),
            nmf(RowBlocks(make(V)), 3, init=start, beta_loss=1, **OPTIONS),
            transform(make(V), make(H), init=make(W), **OPTIONS),
        ]

    for found, expected in zip(fitted(make), fitted(lambda x: x), strict=True):
        if found.H.base is None and type(found.H) is np.ndarray:
            same(found, expected)
        np.testing.assert_allclose(np.asarray(found.W), expected.W, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("beta", [0, 1, 2])
def test_formulas_take_every_kind(kind: str, beta: float) -> None:
    make, positive = KINDS[kind], V + 0.1
    for function in (beta_divergence, update_w, update_h):
        for given in ((make(positive), W, H), (positive, make(W), H), (positive, W, make(H))):
            expected = function(positive, W, H, beta_loss=beta)
            np.testing.assert_allclose(np.asarray(function(*given, beta_loss=beta)), np.asarray(expected), rtol=1e-12)


@pytest.mark.parametrize("part", ["data", "indices", "both"])
@pytest.mark.parametrize("beta", [1, 2, 0.5])
def test_sparse_arrays_of_another_byte_order(beta: float, part: str) -> None:
    sparse = pytest.importorskip("scipy.sparse", reason="scipy is not installed")
    dense = np.where(RNG.random((60, 50)) < 0.2, RNG.random((60, 50)), 0)
    native = sparse.csr_array(dense)
    other = native.copy()
    for name in {"data": ("data",), "indices": ("indices", "indptr"), "both": ("data", "indices", "indptr")}[part]:
        x = getattr(other, name)
        setattr(other, name, x.astype(x.dtype.newbyteorder(">")))
    for solver in ("auto", "mu"):
        options: dict[str, Any] = {"beta_loss": beta, "solver": solver, "random_state": 0, **OPTIONS}
        same(nmf(other, 3, **options), nmf(native, 3, **options))
    same(nmf(RowBlocks([other]), 3, random_state=0, **OPTIONS), nmf(RowBlocks([native]), 3, random_state=0, **OPTIONS))


@pytest.mark.parametrize("order", ["<", ">"])
def test_memory_maps_of_either_byte_order(order: str, tmp_path: Path) -> None:
    v, w, h = (mapped(x, order, tmp_path) for x in (V, W, H))
    cases: list[dict[str, Any]] = [{"beta_loss": 1}, {"weights": v, "exposure": 1 + v}]
    for case in cases:
        read: dict[str, Any] = {name: np.array(x, dtype=float) if np.ndim(x) else x for name, x in case.items()}
        same(nmf(v, 3, init=(w, h), **case, **OPTIONS), nmf(V, 3, init=(W, H), **read, **OPTIONS))


def test_one_row_for_all() -> None:
    repeated = np.broadcast_to(V[:1] + 0.1, V.shape)
    for beta in (0.5, 1, 2):
        options: dict[str, Any] = {"beta_loss": beta, "random_state": 0, **OPTIONS}
        np.testing.assert_allclose(
            nmf(repeated, 2, **options).divergence, nmf(repeated.copy(), 2, **options).divergence, atol=1e-12
        )
        same(nmf(V, 2, weights=repeated, **options), nmf(V, 2, weights=repeated.copy(), **options))


def test_nothing_is_copied_of_what_kernels_can_read() -> None:
    from nmf_xp.arrays import arrival

    for x in (V, V[::2], V.T, V.view(Named), np.broadcast_to(V[:1], V.shape), V > 1):
        assert np.shares_memory(arrival.plain(x), x)
    pair = (W, H)
    assert arrival.each_plain(pair) is pair


@pytest.mark.parametrize("name", ["V", "weights", "exposure", "upper_w"])
def test_units_are_refused_with_what_to_pass(name: str) -> None:
    given = np.ones((40, 3) if name == "upper_w" else V.shape).view(Quantity)
    arguments: dict[str, Any] = {} if name == "V" else {name: given}
    with pytest.raises(TypeError, match=rf"`{name}` must be a plain dense array, got an array with units .*`.value`"):
        nmf(given if name == "V" else V, 3, **arguments)
    with pytest.raises(TypeError, match="with units"):
        nmf(RowBlocks([V.view(Quantity)]), 3)


@pytest.mark.parametrize("name", ["V", "weights", "exposure"])
@pytest.mark.parametrize("all_of_it", [False, True], ids=["one entry", "blocks without"])
def test_a_mask_in_a_block_of_a_dask_array_is_never_ignored(name: str, all_of_it: bool) -> None:
    da = pytest.importorskip("dask.array", reason="dask is not installed")
    x = da.from_array(V + 1, chunks=(20, 15))
    masked = x.map_blocks(lambda b: np.ma.masked_greater(b, b.max() - 1e-9 if not all_of_it else 0))
    arguments = {"V": x, name: masked}
    with pytest.raises(ValueError, match=rf"`{name}` must be a plain dense array, got a masked array .* V.blocks"):
        nmf(arguments.pop("V"), 3, **arguments)


class Duck:
    """What looks like an array and is none."""

    def __init__(self) -> None:
        self.shape, self.dtype, self.ndim = V.shape, V.dtype, 2

    def __getitem__(self, key: Any) -> Any:
        return V[key]


class Tabular(Duck):
    def to_numpy(self) -> Any:
        return V


class Lazy(Duck):
    def compute(self) -> Any:
        return V


class Exported(Duck):
    def __dlpack__(self, **options: Any) -> Any:
        return V.__dlpack__(**options)


class Convertible(Duck):
    def __array__(self, *_: Any, **__: Any) -> Any:
        return V


class Measured(Duck):
    def __init__(self) -> None:
        super().__init__()
        self.units, self.magnitude = "m", V


class Poor(Duck):
    """Of a namespace with next to nothing in it."""

    def __array_namespace__(self, api_version: str | None = None) -> Any:
        import types

        return types.ModuleType("poor")


class Unnamed(Duck):
    def __array_namespace__(self, api_version: str | None = None) -> Any:
        import types

        return types.SimpleNamespace()


class Anything:
    """What answers to every name."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self


@pytest.mark.parametrize(
    ("x", "advice"),
    [
        (Duck(), "pass a NumPy array of its values"),
        (Tabular(), ".to_numpy()`: "),
        (Lazy(), ".compute()`: "),
        (Exported(), "pass `numpy.from_dlpack("),
        (Convertible(), "pass `numpy.asarray("),
        (Measured(), ".magnitude`"),
        (Poor(), "whose namespace lacks `asarray`; pass a NumPy array of its values"),
        (Unnamed(), ""),
        (Anything(), "pass a NumPy array of its values"),
        ([[1.0, 2.0], [3.0]], "up to one length: "),
        (memoryview(V.tobytes()), "pass `numpy.asarray("),
        (iter([V]), "pass `RowBlocks`"),
    ],
    ids=lambda x: type(x).__name__,
)
def test_what_is_no_array_is_one_sentence_with_what_to_pass(x: Any, advice: str) -> None:
    for call in (lambda: nmf(x, 3), lambda: nmf(V, 3, weights=x), lambda: beta_divergence(x, W, H)):
        with pytest.raises(TypeError, match=r"must be .*, got ") as caught:
            call()
        said = str(caught.value)
        assert advice in said
        assert len(said.split()) <= 30
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_what_is_nearly_a_table_is_refused_with_what_to_pass_first() -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    polars = pytest.importorskip("polars", reason="polars is not installed")
    xarray = importlib.import_module("xarray") if importlib.util.find_spec("xarray") else None
    for x, advice in (
        (pandas.Series(V[0]), "pass `V.to_frame()`: "),
        (polars.LazyFrame(V), "pass `V.collect()`: "),
        ("V.csv", "read the file first"),
        *(
            []
            if xarray is None
            else [(xarray.Dataset({"a": (("x", "y"), V)}), "pass `V[...]` with the name of one of")]
        ),
    ):
        with pytest.raises(TypeError, match=re.escape(advice)) as caught:
            nmf(x, 3)
        assert str(caught.value).startswith(advice)
    with pytest.raises(TypeError, match=re.escape("pass `source.to_numpy()`")):
        RowBlocks(pandas.DataFrame(V))
    with pytest.raises(TypeError, match=re.escape("pass `V.to_numpy()`: `V` must be an array, got pandas")):
        update_w(pandas.DataFrame(V), W, H)


@pytest.mark.parametrize("way", deviceless.WAYS)
@pytest.mark.parametrize(("solver", "beta"), [("mu", 1), ("mm", 0.5), ("cd", 2), ("newton", 1)])
def test_a_library_without_devices_that_refuses_to_be_converted(
    way: str, solver: str, beta: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deviceless.Plain, "way", way)
    given = deviceless.namespace.asarray(V)
    for init in ("random", "nndsvda"):
        options: dict[str, Any] = {"beta_loss": beta, "solver": solver, "init": init, "random_state": 0, **OPTIONS}
        found, expected = nmf(given, 3, **options), nmf(V, 3, **options)
        for name in ("W", "H"):
            assert isinstance(getattr(found, name), deviceless.Plain)
            np.testing.assert_allclose(to_host(getattr(found, name)), getattr(expected, name), rtol=1e-5, atol=1e-9)
        assert float(found.divergence) == pytest.approx(float(expected.divergence), rel=1e-6)


def test_a_library_without_a_way_out_is_one_sentence() -> None:
    with pytest.raises(TypeError, match=r"must be of a library whose arrays can be read, got .*Plain"):
        to_host(deviceless.Plain(V))


def test_what_is_asked_of_a_namespace_is_what_is_used() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in SOURCE.rglob("*.py"))
    used = set(re.findall(r"\bxp\.(\w+)", text))
    assert set(namespaces.NEEDED) <= used
