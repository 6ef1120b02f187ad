"""AnnData of every age, loom and 10x: what their own readers read, with cells in rows and the names of both."""

from __future__ import annotations

import gzip
import importlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nmf_xp import RowBlocks, nmf
from nmf_xp.arrays import memory
from nmf_xp.files import FileError, read_matrix
from tests.files.kinds import KINDS, Given

h5py: Any = pytest.importorskip("h5py", reason="h5py is not installed")
sparse: Any = pytest.importorskip("scipy.sparse", reason="scipy is not installed")
pd: Any = pytest.importorskip("pandas", reason="pandas is not installed")

V = np.random.default_rng(0).poisson(1.0, (7, 5)).astype(np.float32)
ROWS, COLUMNS = [f"cell {i}" for i in range(7)], [f"gene {j}" for j in range(5)]


def kind(name: str) -> Any:
    return next(kind for kind in KINDS if kind.name == name)


def dense(values: Any) -> Any:
    return values.toarray() if hasattr(values, "toarray") else values


@pytest.fixture
def anndata() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("anndata", reason="anndata is not installed")


def annotated(anndata: Any, X: Any) -> Any:
    """AnnData with all that can be asked for."""
    frame = pd.DataFrame({"a": V[:, 0], "b": pd.array([1, None, 3, 4, 5, 6, 7], dtype="Int64")}, index=ROWS)
    data = anndata.AnnData(X, obs=pd.DataFrame(index=ROWS), var=pd.DataFrame(index=COLUMNS))
    data.layers["counts"] = V + 1
    data.obsm["pca"], data.obsm["scores"] = V[:, :2] + 2, frame
    data.varm["loadings"] = V[:5, :3]
    data.obsp["near"] = sparse.csr_matrix(V @ V.T)
    raw = anndata.AnnData(np.tile(V, 2), var=pd.DataFrame(index=[f"raw {j}" for j in range(10)]))
    raw.obs_names = ROWS
    data.raw = raw
    return data


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
@pytest.mark.parametrize("form", ["array", "csr_matrix", "csc_matrix"])
def test_every_matrix_of_anndata_has_its_own_names(tmp_path: Path, anndata: Any, suffix: str, form: str) -> None:
    data = annotated(anndata, V if form == "array" else getattr(sparse, form)(V))
    path = tmp_path / f"V{suffix}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (data.write_h5ad if suffix == ".h5ad" else data.write_zarr)(path)
    genes = [f"raw {j}" for j in range(10)]
    b = np.asarray([1, np.nan, 3, 4, 5, 6, 7])
    for key, values, rows, columns in (
        (None, V, ROWS, COLUMNS),
        ("X", V, ROWS, COLUMNS),
        ("layers/counts", V + 1, ROWS, COLUMNS),
        ("raw/X", np.tile(V, 2), ROWS, genes),
        ("raw", np.tile(V, 2), ROWS, genes),
        ("obsm/pca", V[:, :2] + 2, ROWS, None),
        ("obsm/scores", np.column_stack([V[:, 0], b]), ROWS, ["a", "b"]),
        ("varm/loadings", V[:5, :3], COLUMNS, None),
        ("obsp/near", V @ V.T, ROWS, ROWS),
    ):
        found = read_matrix(path, key=key)
        np.testing.assert_array_equal(dense(found.values), values, err_msg=str(key))
        assert (found.row_names, found.column_names) == (rows, columns)
    with pytest.raises(FileError, match="it holds no 'layers/x', only X, raw/X, layers/counts, obsm/pca"):
        read_matrix(path, key="layers/x")


@pytest.mark.parametrize(
    ("index", "names"),
    [
        (pd.Index(range(3, 10)), [str(i) for i in range(3, 10)]),
        (pd.CategoricalIndex(list("abcabcd")), list("abcabcd")),
        (pd.Index(pd.array(["a", None, "c", "d", "e", "f", "g"], dtype="string")), ["a", "NA", *"cdefg"]),
        (pd.Index([0.5, np.nan, 1, 2, 3, 4, 5]), ["0.5", "NA", "1.0", "2.0", "3.0", "4.0", "5.0"]),
    ],
)
def test_an_index_of_any_kind_is_read(tmp_path: Path, anndata: Any, index: Any, names: list[str]) -> None:
    """By what AnnData writes for such a column, which other programs store as the index too."""
    write: Any = importlib.import_module("anndata.io").write_elem
    path = tmp_path / "V.h5ad"
    with h5py.File(path, "w") as file, anndata.settings.override(allow_write_nullable_strings=True):
        file["X"] = V
        write(file, "obs", pd.DataFrame({"n": range(7)}))
        del file["obs/_index"]
        write(file["obs"], "_index", index.to_numpy() if index.dtype in ("int64", "float64") else index.array)
    assert read_matrix(path).row_names == names


def test_the_layouts_of_early_anndata_are_read(tmp_path: Path) -> None:
    path = tmp_path / "V.h5ad"
    kind("records.h5ad").write(path, Given(V, ROWS, COLUMNS))
    genes = [f"raw {j}" for j in range(10)]
    csc = sparse.csc_array(np.tile(V, 2))
    with h5py.File(path, "a") as file:
        group = file.create_group("raw.X")
        group.attrs["h5sparse_format"], group.attrs["h5sparse_shape"] = "csc", csc.shape
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(csc, name)
        file["raw.var"] = np.asarray([(name,) for name in genes], dtype=[("index", h5py.string_dtype())])
        file["obsm"] = np.asarray([(row,) for row in V[:, :2]], dtype=[("X_pca", "f4", (2,))])
    for key, values, columns in ((None, V, COLUMNS), ("raw/X", np.tile(V, 2), genes), ("obsm/X_pca", V[:, :2], None)):
        found = read_matrix(path, key=key)
        np.testing.assert_array_equal(dense(found.values), values)
        assert (found.row_names, found.column_names) == (ROWS, columns)
    with pytest.raises(FileError, match=r"it holds no 'obsm/tsne', only X, raw\.X, obsm/X_pca"):
        read_matrix(path, key="obsm/tsne")


def test_integers_as_an_index_in_records(tmp_path: Path) -> None:
    path = tmp_path / "V.h5ad"
    with h5py.File(path, "w") as file:
        file["X"] = V
        file["obs"] = np.asarray([(i + 3, 1.0) for i in range(7)], dtype=[("index", "i8"), ("n", "f8")])
        file["var"] = np.asarray([(f"g{j}".encode(),) for j in range(5)], dtype=[("genes", "S8")])
    found = read_matrix(path)
    assert found.row_names == [str(i) for i in range(3, 10)]
    assert found.column_names == [f"g{j}" for j in range(5)]


def test_real_anndata_of_an_early_version_is_read() -> None:
    datasets = pytest.importorskip("scanpy.datasets", reason="scanpy is not installed")
    path = Path(datasets.__file__).parent / "10x_pbmc68k_reduced.h5ad"
    for key in (None, "raw/X", "obsm/X_pca", "obsm/X_umap"):
        found = read_matrix(path, key=key)
        assert found.values.shape[0] == 700
        assert found.row_names is not None
        assert found.row_names[0] == "AAAGCCTGGCTAAC-1"
        if key in (None, "raw/X"):
            assert found.column_names is not None
            assert found.column_names[0] == "HES4"


def test_10x_is_what_scanpy_reads(tmp_path: Path) -> None:
    scanpy: Any = pytest.importorskip("scanpy", reason="scanpy is not installed")
    for name in ("filtered_feature_bc_matrix", "hg19"):
        path = tmp_path / name
        kind(name).write(path, Given(V, ROWS, COLUMNS))
        data, found = scanpy.read_10x_mtx(path), read_matrix(path)
        np.testing.assert_array_equal(dense(found.values), dense(data.X))
        assert (found.row_names, found.column_names) == (list(data.obs_names), list(data.var_names))
        assert "cells in rows" in str(found.note)
    path = tmp_path / "tenx.h5"
    kind("tenx.h5").write(path, Given(V.astype(np.int32), ROWS, COLUMNS))
    with h5py.File(path, "a") as file:
        for name, value in (("id", b"x"), ("feature_type", b"Gene Expression"), ("genome", b"x")):
            file[f"matrix/features/{name}"] = np.asarray([value] * 5)
    data, found = scanpy.read_10x_h5(path), read_matrix(path)
    np.testing.assert_array_equal(dense(found.values), dense(data.X))
    assert (found.row_names, found.column_names) == (list(data.obs_names), list(data.var_names))


def test_10x_before_version_3_has_a_group_for_each_genome(tmp_path: Path) -> None:
    path = tmp_path / "V.h5"
    counts = sparse.csr_array(V.astype(np.int32))
    with h5py.File(path, "w") as file:
        for genome in ("hg19", "mm10"):
            for name in ("data", "indices", "indptr"):
                file[f"{genome}/{name}"] = getattr(counts, name)
            file[f"{genome}/shape"] = np.asarray([5, 7])
            file[f"{genome}/barcodes"] = np.asarray([name.encode() for name in ROWS])
            file[f"{genome}/gene_names"] = np.asarray([name.encode() for name in COLUMNS])
    with pytest.raises(FileError, match="it holds hg19, mm10; say which one with --key"):
        read_matrix(path)
    found = read_matrix(path, key="mm10")
    np.testing.assert_array_equal(dense(found.values), V)
    assert (found.row_names, found.column_names) == (ROWS, COLUMNS)


def test_10x_with_antibodies_says_so_and_takes_one_kind(tmp_path: Path) -> None:
    kinds = ["Gene Expression", "Antibody Capture", "Gene Expression", "Gene Expression", "Antibody Capture"]
    tenx, folder = tmp_path / "tenx.h5", tmp_path / "filtered_feature_bc_matrix"
    for path in (tenx, folder):
        kind(path.name).write(path, Given(V.astype(np.int32), ROWS, COLUMNS))
    with h5py.File(tenx, "a") as file:
        file["matrix/features/feature_type"] = np.asarray([name.encode() for name in kinds])
    features = next(folder.glob("features.tsv*"))
    text = "".join(f"ENSG{j}\t{name}\t{what}\n" for j, (name, what) in enumerate(zip(COLUMNS, kinds, strict=True)))
    features.write_bytes(gzip.compress(text.encode()) if features.suffix == ".gz" else text.encode())
    for path in (tenx, folder):
        found = read_matrix(path)
        np.testing.assert_array_equal(dense(found.values), V)
        assert str(found.note).endswith("kinds: Gene Expression (3), Antibody Capture (2); --key takes one of them")
        genes = read_matrix(path, key="Gene Expression")
        np.testing.assert_array_equal(dense(genes.values), V[:, [0, 2, 3]])
        assert genes.column_names == [COLUMNS[j] for j in (0, 2, 3)]
        with pytest.raises(FileError, match="no features of the kind 'Guides', only Gene Expression"):
            read_matrix(path, key="Guides")


def test_a_folder_with_cells_in_rows_is_not_turned(tmp_path: Path) -> None:
    path = tmp_path / "kb"
    kind("hg19").write(path, Given(V, ROWS, COLUMNS))
    importlib.import_module("scipy.io").mmwrite(path / "matrix.mtx", sparse.coo_array(V))
    found = read_matrix(path)
    np.testing.assert_array_equal(dense(found.values), V)
    assert (found.row_names, found.column_names) == (ROWS, COLUMNS)


def test_a_loom_file_is_turned_and_layers_can_be_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "V.loom"
    kind("V.loom").write(path, Given(V, ROWS, COLUMNS))
    with h5py.File(path, "a") as file:
        file["layers/spliced"] = V.T + 1
    np.testing.assert_array_equal(read_matrix(path).values, V)
    for key in ("spliced", "layers/spliced"):
        np.testing.assert_array_equal(read_matrix(path, key=key).values, V + 1)
    assert "cells in rows, genes in columns" in str(read_matrix(path).note)
    with pytest.raises(FileError, match="it holds no 'x', only matrix, spliced"):
        read_matrix(path, key="x")


@pytest.mark.parametrize("name", ["V.loom", "tenx.h5", "V.h5ad", "records.h5ad", "two.zarr"])
def test_what_does_not_fit_is_read_cell_by_cell(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    many = np.random.default_rng(0).poisson(2.0, (60, 20)).astype(np.float64)
    rows, columns = [f"cell {i}" for i in range(60)], [f"gene {j}" for j in range(20)]
    path = tmp_path / name
    kind(name).write(path, Given(many, rows, columns))
    whole = read_matrix(path)
    monkeypatch.setattr(memory, "available", lambda: 9000)
    found = read_matrix(path)
    assert isinstance(found.values, RowBlocks)
    assert "read block by block" in str(found.note)
    assert (found.row_names, found.column_names) == (whole.row_names, whole.column_names)
    np.testing.assert_array_equal(np.concatenate([dense(block) for block in found.values.blocks()]), many)
    expected = nmf(many, 2, solver="mm", random_state=0, max_iter=5)
    np.testing.assert_allclose(nmf(found.values, 2, random_state=0, max_iter=5).W, expected.W, rtol=1e-8)
