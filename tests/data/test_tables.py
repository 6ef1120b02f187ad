"""Tables with names: each is factorized as the numbers that it holds, and its names are on the result."""

from __future__ import annotations

import builtins
import decimal
import importlib
import importlib.util
import json
import pickle
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from nmf_xp import (
    RowBlocks,
    beta_divergence,
    consensus_factors,
    load,
    nmf,
    select_rank,
    transform,
)
from nmf_xp.data import tables
from tests.problems import noisy

if TYPE_CHECKING:
    from collections.abc import Callable

pandas: Any = pytest.importorskip("pandas")
sparse: Any = pytest.importorskip("scipy.sparse")

FEW: dict[str, Any] = {"random_state": 0, "max_iter": 20}
V = noisy(12, 6, 3).V + 0.0
ROWS, COLUMNS = tuple(f"sample {i}" for i in range(12)), tuple("abcdef")


def frame(V: Any = V) -> Any:
    return pandas.DataFrame(V, ROWS, COLUMNS)


def of(library: str) -> Any:
    return pytest.importorskip(library, reason=f"{library} is not installed")


def in_package(package: str, path: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(f"{package} is not installed")
    return Path(spec.origin).parent / path


def cars() -> Any:
    """406 cars: six columns of numbers, two of which have gaps, and names, origins and years."""
    text = in_package("vega_datasets", "_data/cars.json").read_text(encoding="utf-8")
    return pandas.DataFrame(json.loads(text))


def cells() -> Any:
    """700 blood cells in AnnData; `X` is scaled, `raw` holds what nmf wants."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the file is of an early version
        return of("anndata").read_h5ad(in_package("scanpy", "datasets/10x_pbmc68k_reduced.h5ad"))


KINDS: dict[str, Callable[[Any], Any]] = {
    "pandas": lambda V: frame(V),
    "pandas, nullable": lambda V: frame(V).convert_dtypes(convert_integer=False),
    "pandas, of objects": lambda V: frame(V).astype(object),
    "pandas, some of objects": lambda V: frame(V).astype({"a": object, "b": "Float64"}),
    "pandas, of arrow": lambda V: of("pyarrow") and frame(V).astype("double[pyarrow]"),
    "polars": lambda V: of("polars").DataFrame(frame(V)),
    "pyarrow": lambda V: of("pyarrow").table({name: V[:, j] for j, name in enumerate(COLUMNS)}),
    "pyarrow, a batch": lambda V: of("pyarrow").record_batch({name: V[:, j] for j, name in enumerate(COLUMNS)}),
    "xarray": lambda V: of("xarray").DataArray(V, {"row": list(ROWS), "column": list(COLUMNS)}, ("row", "column")),
    "anndata": lambda V: of("anndata").AnnData(frame(V)),
    "lists": lambda V: V.tolist(),
    "lists of arrays": list,
    "tuples in a list": lambda V: list(map(tuple, V.tolist())),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("beta", [2, 1])
def test_a_table_is_factorized_as_its_numbers_with_its_names(kind: str, beta: float) -> None:
    found = nmf(KINDS[kind](V), 3, beta_loss=beta, **FEW)
    expected = nmf(V, 3, beta_loss=beta, **FEW)
    for name in "WH":
        assert type(getattr(found, name)) is np.ndarray
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    has_rows = kind.startswith(("pandas", "xarray", "anndata"))
    assert found.row_names == (ROWS if has_rows else None)
    assert found.column_names == (None if "list" in kind else COLUMNS)
    assert found.table == (None if "list" in kind else kind.partition(",")[0])
    assert (expected.row_names, expected.column_names, expected.table) == (None, None, None)


@pytest.mark.parametrize("kind", KINDS)
def test_every_function_takes_it(kind: str) -> None:
    given, result = KINDS[kind](V), nmf(V, 3, **FEW)
    assert float(beta_divergence(given, result.W, result.H)) == pytest.approx(result.divergence)
    found = transform(given, result.H, max_iter=20)
    np.testing.assert_array_equal(found.W, transform(V, result.H, max_iter=20).W)
    options: dict[str, Any] = {"n_restarts": 2, "max_iter": 20, "random_state": 0}
    chosen = select_rank(given, [1, 2], rule="stability", **options)
    assert chosen.best[2].divergence == select_rank(V, [1, 2], rule="stability", **options).best[2].divergence
    merged = consensus_factors(given, 2, max_distance=2, **options)
    for one in (found, chosen.best[1], chosen.best[2], merged.result):
        assert one.column_names == (None if "list" in kind else COLUMNS)


@pytest.mark.parametrize("dtype", ["float32", "int16", "bool", "uint64"])
@pytest.mark.parametrize("kind", ["pandas", "polars", "pyarrow", "xarray", "anndata"])
def test_numbers_of_other_types_are_those_of_an_array(kind: str, dtype: str) -> None:
    numbers = (3 * V + 0.5).astype(dtype)
    found, expected = nmf(KINDS[kind](numbers), 2, **FEW), nmf(numbers, 2, **FEW)
    assert found.W.dtype == expected.W.dtype
    np.testing.assert_array_equal(found.W, expected.W)


def test_columns_of_several_types_are_float64() -> None:
    mixed = frame(np.round(3 * V)).astype({"a": "float32", "b": "Int8", "c": bool})
    mixed["d"] = mixed["c"].astype("boolean")
    found = nmf(mixed, 2, **FEW)
    assert found.W.dtype == np.float64
    np.testing.assert_array_equal(found.W, nmf(mixed.to_numpy(dtype=float), 2, **FEW).W)
    assert nmf(frame().astype({"a": "float32", "b": "Float32"}).astype("float32"), 2, **FEW).W.dtype == np.float32


def test_what_is_missing_in_a_table_is_nan_and_follows_its_rule() -> None:
    table = cars().select_dtypes("number")
    assert table.isna().any().sum() == 2
    with pytest.raises(
        ValueError, match=re.escape("got NaN at index (10, 0), column 'Miles_per_Gallon'; if NaN means")
    ):
        nmf(table, 2)
    expected = nmf(table.to_numpy(dtype=float), 2, missing="nan", **FEW)
    same = [table, table.astype("Float64"), table.astype(object).where(table.notna(), None), table.astype(object)]
    same[3] = same[3].where(table.notna(), pandas.NA)
    if importlib.util.find_spec("polars") is not None:
        same.append(of("polars").DataFrame(table.to_dict("list"), strict=False).fill_nan(None))
    if importlib.util.find_spec("pyarrow") is not None:
        same.append(of("pyarrow").Table.from_pandas(table))
    same.append([[None if x != x else x for x in row] for row in table.to_numpy().tolist()])
    for given in same:
        np.testing.assert_array_equal(tables.arrived("V", given).values, table.to_numpy(dtype=float))
        found = nmf(given, 2, missing="nan", **FEW)
        np.testing.assert_allclose(found.W, expected.W, rtol=1e-6)  # its memory may be in another order


@pytest.mark.parametrize("kind", ["dense", "sparse"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_an_entry_that_cannot_be_has_the_names_of_its_row_and_column(value: float, kind: str) -> None:
    table = frame(np.round(V))
    table.iloc[3, 2] = value
    given = table.astype(pandas.SparseDtype(float, 0)) if kind == "sparse" else table
    said = re.escape("at index (3, 2), row 'sample 3', column 'c'")
    for call in (
        lambda: nmf(given, 2),
        lambda: transform(given, np.ones((1, 6))),
        lambda: select_rank(given, [1, 2]),
    ):
        with pytest.raises(ValueError, match=said) as caught:
            call()
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_an_entry_in_a_block_has_its_row_of_the_whole(tmp_path: Path) -> None:
    anndata = of("anndata")
    given = anndata.AnnData(np.round(V))
    given.obs_names, given.var_names = ROWS, COLUMNS
    given.X[7, 3] = np.nan
    given.write_h5ad(tmp_path / "V.h5ad")
    backed = anndata.read_h5ad(tmp_path / "V.h5ad", backed="r")
    with pytest.raises(ValueError, match=re.escape("at index (7, 3), row 'sample 7', column 'd'; if NaN means")):
        nmf(backed, 2)
    backed.file.close()
    with pytest.raises(ValueError, match=re.escape("at index (7, 3); if NaN means unobserved, say missing='nan' (in")):
        nmf(RowBlocks([given.X[:5], given.X[5:]]), 2)


def test_columns_without_numbers_are_named_in_one_error() -> None:
    table = cars()
    rule = "pass `V.select_dtypes('number')`: `V` must hold numbers, got text in the columns 'Name', 'Year', 'Origin'"
    with pytest.raises(TypeError, match=re.escape(rule)):
        nmf(table, 2)
    table["Year"] = pandas.to_datetime(table["Year"])
    table["Origin"] = table["Origin"].astype("category")
    with pytest.raises(TypeError, match=r"categories and dates and text in the columns 'Name', 'Year', 'Origin'$"):
        nmf(table, 2)
    with pytest.raises(TypeError, match="complex numbers in the column 'a'"):
        nmf(frame().astype({"a": complex}), 2)
    with pytest.raises(TypeError, match="mixed values in the column 'a'"):
        nmf(frame().astype({"a": object}).replace({"a": {V[0, 0]: "high"}}), 2)
    many = pandas.DataFrame({f"t{j}": ["x"] for j in range(9)})
    with pytest.raises(TypeError, match=r"'t0', 't1', 't2', 't3', 't4' and 4 more$"):
        nmf(many, 1)
    for library in ("polars", "pyarrow"):
        if importlib.util.find_spec(library) is None:
            continue
        given = cars()[["Acceleration", "Name"]]
        given = of("polars").DataFrame(given) if library == "polars" else of("pyarrow").Table.from_pandas(given)
        with pytest.raises(TypeError, match="`V` must hold numbers, got text in the column 'Name'"):
            nmf(given, 1)


def test_labels_stay_what_they_are() -> None:
    table = pandas.DataFrame(V, columns=[400, 402, 404, 406, 408, 410])
    found = nmf(table.iloc[3:], 2, **FEW)
    assert found.column_names == (400, 402, 404, 406, 408, 410)
    assert found.row_names == tuple(range(3, 12))
    plain = nmf(pandas.DataFrame(V), 2, **FEW)
    assert (plain.row_names, plain.column_names) == (None, None)  # which only count
    twice = frame()
    twice.columns = list("aabbcc")
    assert nmf(twice, 2, **FEW).column_names == tuple("aabbcc")
    levels = frame()
    levels.index = pandas.MultiIndex.from_product([["day", "night"], range(6)])
    assert nmf(levels, 2, **FEW).row_names == tuple(levels.index)


def test_columns_of_one_name_in_arrow() -> None:
    pyarrow = of("pyarrow")
    table = pyarrow.Table.from_arrays([pyarrow.array(V[:, j]) for j in range(6)], list("aabbcc"))
    found = nmf(table, 3, **FEW)
    assert found.column_names == tuple("aabbcc")
    np.testing.assert_array_equal(found.W, nmf(V, 3, **FEW).W)


def test_a_sparse_frame_stays_sparse(monkeypatch: pytest.MonkeyPatch) -> None:
    dense = np.where(np.random.default_rng(0).random((40, 30)) < 0.1, 1.0, 0.0)
    given = pandas.DataFrame(dense, columns=[f"w{j}" for j in range(30)]).astype(pandas.SparseDtype("float64", 0.0))
    read = tables.arrived("V", given)
    assert sparse.issparse(read.values)
    assert read.values.nnz == int(dense.sum())
    np.testing.assert_array_equal(read.values.toarray(), dense)
    expected = nmf(sparse.csr_array(dense), 2, beta_loss=1, **FEW)
    np.testing.assert_array_equal(nmf(given, 2, beta_loss=1, **FEW).W, expected.W)
    assert nmf(given, 2, **FEW).column_names == tuple(given.columns)
    filled = pandas.DataFrame({"a": pandas.arrays.SparseArray([1.0, 2.0, 2.0], fill_value=2.0), "b": [1.0, 2.0, 3.0]})
    np.testing.assert_array_equal(tables.arrived("V", filled).values, [[1, 1], [2, 2], [2, 3]])


def test_anndata_is_its_matrix_its_raw_or_a_layer(tmp_path: Path) -> None:
    adata = cells()
    with pytest.raises(ValueError, match=r"`V` must be non-negative.*; or pass `V.raw` or a `layer` that holds counts"):
        nmf(adata, 3)  # `X` is scaled
    found, counts = nmf(adata.raw, 3, beta_loss=1, **FEW), adata.raw.X
    np.testing.assert_array_equal(found.W, nmf(counts, 3, beta_loss=1, **FEW).W)
    assert found.row_names == tuple(adata.obs_names)
    assert found.column_names == tuple(adata.raw.var_names)
    adata.layers["log"] = counts
    layer = nmf(adata, 3, beta_loss=1, layer="log", **FEW)
    np.testing.assert_array_equal(layer.W, found.W)
    with pytest.raises(ValueError, match=re.escape("`layer` must be one of the layers of `V`, which are 'log', got")):
        nmf(adata, 3, layer="counts")
    with pytest.raises(ValueError, match=re.escape("`layer` must be one of the layers of `V`, which are none, got")):
        nmf(adata.raw, 3, layer="log")
    view = adata[adata.obs["louvain"] == "1", :50]
    assert view.is_view
    part = nmf(view, 3, layer="log", **FEW)
    expected = nmf(sparse.csr_matrix(counts)[(adata.obs["louvain"] == "1").to_numpy()][:, :50], 3, **FEW)
    np.testing.assert_array_equal(part.W, expected.W)
    assert part.column_names == tuple(adata.var_names[:50])
    adata.X = counts
    np.testing.assert_array_equal(nmf(adata[:, :50], 3, **FEW).W, nmf(counts[:, :50], 3, **FEW).W)


def test_backed_anndata_and_its_views(tmp_path: Path) -> None:
    anndata = of("anndata")
    adata = cells()
    anndata.AnnData(adata.raw.X, obs=adata.obs[[]], var=adata.raw.var[[]]).write_h5ad(tmp_path / "a.h5ad")
    backed = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")
    found = nmf(backed, 3, beta_loss=1, **FEW)
    expected = nmf(RowBlocks(backed), 3, beta_loss=1, **FEW)
    np.testing.assert_array_equal(found.W, expected.W)
    assert found.row_names == tuple(adata.obs_names)
    assert found.solver == "mm"  # it was read block by block
    view = nmf(backed[:100, :50], 3, beta_loss=1, **FEW)
    np.testing.assert_array_equal(view.W, nmf(adata.raw.X[:100, :50], 3, beta_loss=1, **FEW).W)
    assert view.row_names == tuple(adata.obs_names[:100])


def test_anndata_without_a_matrix_says_what_to_pass() -> None:
    empty = of("anndata").AnnData(obs=pandas.DataFrame(index=list("xy")), var=pandas.DataFrame(index=list("ab")))
    with pytest.raises(ValueError, match="say which layer"):
        nmf(empty, 1)


def test_subclasses_of_sparse_arrays_are_sparse() -> None:
    class Mine(sparse.csr_matrix):  # type: ignore[misc]
        """As libraries make them."""

    given = Mine(V)
    found = nmf(given, 3, beta_loss=1, **FEW)
    np.testing.assert_array_equal(found.W, nmf(sparse.csr_matrix(V), 3, beta_loss=1, **FEW).W)
    W, H = found.W, found.H
    assert float(beta_divergence(given, W, H, beta_loss=1)) == pytest.approx(found.divergence)
    np.testing.assert_array_equal(
        nmf(RowBlocks([given]), 3, **FEW).W, nmf(RowBlocks([sparse.csr_matrix(V)]), 3, **FEW).W
    )


def test_what_goes_with_v_may_be_a_table_too() -> None:
    observed = frame(np.random.default_rng(0).random(V.shape) < 0.8)
    start = frame(V).iloc[:, :2].to_numpy(), np.ones((2, 6))
    named = pandas.DataFrame(start[0]), pandas.DataFrame(start[1], index=["x", "y"])
    expected = nmf(V, 2, init=start, weights=observed.to_numpy(), max_iter=20)
    for weights in (observed, observed.to_numpy().tolist()):
        found = nmf(frame(), 2, init=named, weights=weights, max_iter=20)
        np.testing.assert_array_equal(found.W, expected.W)
        assert found.component_names == ("x", "y")


def test_a_table_beside_v_must_have_its_labels() -> None:
    observed = frame(np.random.default_rng(0).random(V.shape) < 0.8)
    with pytest.raises(ValueError, match="`weights` must have the columns of `V`, in their order, got them in another"):
        nmf(frame(), 2, weights=observed[list("bacdef")])
    with pytest.raises(
        ValueError, match="`exposure` must have the rows of `V`, in their order, got without 'sample 3'"
    ):
        nmf(frame(), 2, exposure=frame().rename(index={"sample 3": "other"}))
    row = pandas.DataFrame([[1.0, 2, 3, 4, 5, 6]], columns=COLUMNS)
    found = nmf(frame(), 2, exposure=row, **FEW)
    np.testing.assert_array_equal(found.W, nmf(V, 2, exposure=row.to_numpy(), **FEW).W)


def test_transform_by_a_result_or_a_table_checks_the_columns(tmp_path: Path) -> None:
    table = cars().select_dtypes("number").dropna()
    fitted = nmf(table[:200], 3, beta_loss=1, random_state=0, max_iter=100)
    expected = transform(table[200:].to_numpy(dtype=float), fitted.H, beta_loss=1, max_iter=50).W
    fitted.save(tmp_path / "cars.npz")
    for H in (fitted, fitted.named(components=list("xyz")), load(tmp_path / "cars.npz")):
        found = transform(table[200:], H, max_iter=50)
        np.testing.assert_array_equal(found.W, expected)
        assert found.beta == 1  # the loss with which H was found
        assert found.row_names == tuple(table.index[200:])
        assert found.component_names == H.component_names
    found = transform(table[200:], fitted.to_frame("H"), beta_loss=1, max_iter=50)
    np.testing.assert_array_equal(found.W, expected)
    assert found.component_names == ("component_0", "component_1", "component_2")
    listed = transform(table[200:], fitted.H.tolist(), beta_loss=1, max_iter=50)
    np.testing.assert_array_equal(listed.W, expected)
    assert transform(table[200:].to_numpy(dtype=float), fitted, max_iter=5).column_names == tuple(table.columns)

    rule = "`V` must have the columns of `H`, in their order, got "
    other = table[table.columns[::-1]]
    with pytest.raises(ValueError, match=re.escape(f"{rule}them in another order; take those of `H`")):
        transform(other, fitted)
    with pytest.raises(ValueError, match=re.escape(f"{rule}without 'Cylinders'")):
        transform(table.drop(columns="Cylinders"), fitted)
    with pytest.raises(ValueError, match=re.escape(f"{rule}with 'Price' besides")):
        transform(table.assign(Price=1), fitted)
    np.testing.assert_array_equal(
        transform(other[list(fitted.column_names or ())][200:], fitted, max_iter=50).W, expected
    )


def test_names_go_through_restarts_and_scales() -> None:
    found = nmf(frame(), 2, n_restarts=3, keep_restarts=True, normalize="H", **FEW)
    assert found.restarts is not None
    for one in (found, found.restarts, found.restarts[1]):
        assert (one.row_names, one.column_names) == (ROWS, COLUMNS)
    assert found.H.sum(axis=1) == pytest.approx(1)


def test_without_narwhals_pandas_works_and_others_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    polars = of("polars")
    real = importlib.import_module

    def without(name: str, *rest: Any) -> Any:
        if name == "narwhals":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", without)
    monkeypatch.setattr(builtins, "__import__", _without_narwhals(builtins.__import__))
    assert nmf(frame(), 2, **FEW).row_names == ROWS
    with pytest.raises(ImportError, match=re.escape('a table of polars needs narwhals: pip install "nmf_xp[tables]"')):
        nmf(polars.DataFrame({"a": [1.0, 2.0]}), 1)


def _without_narwhals(real: Any) -> Any:
    def wrapped(name: str, *rest: Any, **options: Any) -> Any:
        if name.partition(".")[0] == "narwhals":
            raise ImportError(name)
        return real(name, *rest, **options)

    return wrapped


def test_decimals_are_numbers() -> None:
    numbers = [[decimal.Decimal("1.5"), decimal.Decimal("0.25")], [decimal.Decimal("3"), decimal.Decimal("2")]]
    given = [pandas.DataFrame(numbers)]
    if importlib.util.find_spec("pyarrow") is not None:
        arrow = of("pyarrow").table({"a": [row[0] for row in numbers], "b": [row[1] for row in numbers]})
        given += [arrow, arrow.to_pandas(types_mapper=pandas.ArrowDtype)]
    for table in given:
        np.testing.assert_array_equal(tables.arrived("V", table).values, [[1.5, 0.25], [3, 2]])


def test_an_array_of_another_library_in_xarray_stays_one() -> None:
    xarray, da = of("xarray"), pytest.importorskip("dask.array")
    lazy = xarray.DataArray(V, dims=("row", "column")).chunk({"row": 6})
    found = nmf(lazy, 3, **FEW)
    assert isinstance(found.W, da.Array)
    assert (found.row_names, found.column_names) == (None, None)


@pytest.mark.parametrize(
    "given", [[], [[]], [[1.0, 2.0], [3.0]], ["ab", "cd"], [1.0, 2.0], [["a", "b"]], [[{}, {}]]], ids=repr
)
def test_a_list_that_is_no_matrix_is_one_error(given: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="`V`") as caught:
        nmf(given, 1)
    assert caught.value.__cause__ is None


def test_a_table_is_not_changed() -> None:
    table = cars()
    numbers = table.select_dtypes("number")
    before = numbers.copy(deep=True)
    nmf(numbers, 2, missing="nan", **FEW)
    pandas.testing.assert_frame_equal(numbers, before)
