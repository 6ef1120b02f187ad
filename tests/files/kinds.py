"""A file of every kind that is read, small enough to look at, with names where the kind has them."""

from __future__ import annotations

import gzip
import io
import json
import struct
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Given(NamedTuple):
    """What a file is to hold."""

    V: Any
    rows: list[Any]
    columns: list[Any]


class Kind(NamedTuple):
    """A kind of file: its name, what writes it, and what is known of what it holds."""

    name: str
    write: Callable[[Path, Given], None]
    key: str | None = None
    named: bool = False  # it keeps names
    apart: bool = False  # it keeps them apart from the matrix, so that they may be as many as they like
    loose: bool = False  # its begin may be anything
    text: bool = False  # a part of it may be as good as all of it
    exact: bool = True  # the matrix comes back as it was


def table(sep: str) -> Callable[[Path, Given], None]:
    def write(path: Path, given: Given) -> None:
        quoted = [['"' + str(name).replace('"', '""') + '"' for name in names] for names in (given.rows, given.columns)]
        lines = [sep.join(["id", *quoted[1]])]
        lines += [sep.join([name, *map(repr, row)]) for name, row in zip(quoted[0], given.V.tolist(), strict=True)]
        content = ("\n".join(lines) + "\n").encode()
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)

    return write


def npy(path: Path, given: Given) -> None:
    np.save(path, given.V)


def npz(path: Path, given: Given) -> None:
    np.savez_compressed(path, V=given.V)


def factors(path: Path, given: Given) -> None:
    from nmf_xp.files import write_factors

    names = {"component_names": np.asarray(given.rows, str), "column_names": np.asarray(given.columns, str)}
    write_factors(path, {"W": np.ones((2, len(given.rows))), "H": given.V, **names}, {"beta": "1.0"})


def market(path: Path, given: Given) -> None:
    import scipy.io
    import scipy.sparse

    content = io.BytesIO()
    scipy.io.mmwrite(content, scipy.sparse.coo_array(given.V))
    path.write_bytes(gzip.compress(content.getvalue()) if path.suffix == ".gz" else content.getvalue())


def hdf5(path: Path, given: Given) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        file.create_dataset("V", data=given.V, chunks=True, compression="gzip")


def zarr_array(path: Path, given: Given) -> None:
    import zarr

    zarr.create_array(path, data=given.V)


def h5ad(path: Path, given: Given) -> None:
    """As AnnData writes it since 0.8."""
    import h5py

    with h5py.File(path, "w") as file:
        file.attrs["encoding-type"] = "anndata"
        file["X"] = given.V
        for axis, names in (("obs", given.rows), ("var", given.columns)):
            group = file.create_group(axis)
            group.attrs.update({"_index": "_index", "encoding-type": "dataframe", "encoding-version": "0.2.0"})
            group["_index"] = np.asarray(list(map(str, names)), dtype=h5py.string_dtype())


def h5ad_records(path: Path, given: Given) -> None:
    """As AnnData wrote it before 0.7: tables of records, and h5sparse's compressed rows."""
    import h5py
    import scipy.sparse

    X = scipy.sparse.csr_array(given.V)
    with h5py.File(path, "w") as file:
        group = file.create_group("X")
        group.attrs["h5sparse_format"], group.attrs["h5sparse_shape"] = np.bytes_("csr"), X.shape
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(X, name)
        for axis, names in (("obs", given.rows), ("var", given.columns)):
            records = [(str(name).encode(), i) for i, name in enumerate(names)]
            file[axis] = np.asarray(records, dtype=[("index", "S64"), ("n", "i8")])


def h5ad_categories(path: Path, given: Given) -> None:
    """Names that may be missing, as AnnData stores text since 0.11, and as categories."""
    import h5py

    with h5py.File(path, "w") as file:
        file["X"] = given.V
        for axis, names in (("obs", given.rows), ("var", given.columns)):
            group = file.create_group(axis)
            group.attrs["_index"] = "names"
            index = group.create_group("names")
            if axis == "obs":
                index.attrs["encoding-type"] = "nullable-string-array"
                index["values"] = np.asarray([str(name) for name in names], dtype=h5py.string_dtype())
                index["mask"] = np.asarray([name is None for name in names])
            else:
                index.attrs["encoding-type"] = "categorical"
                kept = sorted({str(name) for name in names})
                index["categories"] = np.asarray(kept, dtype=h5py.string_dtype())
                index["codes"] = np.asarray([kept.index(str(name)) for name in names], np.int8)


def annotated_zarr(version: int) -> Callable[[Path, Given], None]:
    def write(path: Path, given: Given) -> None:
        import warnings

        import zarr

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # zarr has doubts about text in version 3
            root = zarr.open_group(path, mode="w", zarr_format=version)  # type: ignore[arg-type]
            root.attrs["encoding-type"] = "anndata"
            root.create_array("X", data=given.V)
            for axis, names in (("obs", given.rows), ("var", given.columns)):
                group = root.create_group(axis)
                group.attrs.update({"_index": "_index", "encoding-type": "dataframe"})
                array = group.create_array("_index", shape=(len(names),), dtype="str")
                array[:] = np.asarray(list(map(str, names)), dtype=object if version == 2 else np.dtypes.StringDType())

    return write


def loom(path: Path, given: Given) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        file["matrix"] = given.V.T
        for place, names in (("row_attrs/Gene", given.columns), ("col_attrs/CellID", given.rows)):
            file[place] = np.asarray(list(map(str, names)), dtype=h5py.string_dtype())


def tenx(path: Path, given: Given) -> None:
    import h5py
    import scipy.sparse

    counts = scipy.sparse.csr_array(given.V)
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(counts, name)
        group["shape"] = np.asarray(given.V.shape[::-1])
        group["barcodes"] = np.asarray([str(name).encode() for name in given.rows])
        group["features/name"] = np.asarray([str(name).encode() for name in given.columns])


def tenx_folder(*, packed: bool) -> Callable[[Path, Given], None]:
    def write(path: Path, given: Given) -> None:
        import scipy.io
        import scipy.sparse

        path.mkdir()
        content = io.BytesIO()
        scipy.io.mmwrite(content, scipy.sparse.coo_array(given.V.T))
        features = "".join(f"ENSG{i}\t{name}\tGene Expression\n" for i, name in enumerate(given.columns))
        barcodes = "".join(f"{name}\n" for name in given.rows)
        parts = {"matrix.mtx": content.getvalue(), "barcodes.tsv": barcodes.encode()}
        parts |= {"features.tsv" if packed else "genes.tsv": features.encode()}
        for name, data in parts.items():
            (path / f"{name}{'.gz' * packed}").write_bytes(gzip.compress(data) if packed else data)

    return write


def sheet(path: Path, given: Given) -> None:
    import openpyxl

    book = openpyxl.Workbook()
    book.active.append(["id", *given.columns])
    for name, row in zip(given.rows, given.V.tolist(), strict=True):
        book.active.append([name, *row])
    book.save(path)


def columns(path: Path, given: Given) -> None:
    import pyarrow as pa
    import pyarrow.feather
    import pyarrow.parquet

    arrays = [pa.array([None if x is None else str(x) for x in given.rows]), *map(pa.array, given.V.T)]
    found = pa.Table.from_arrays(arrays, names=["index", *map(str, given.columns)])
    said = {"index_columns": ["index"], "columns": []}
    found = found.replace_schema_metadata({"pandas": json.dumps(said)})
    if path.suffix == ".parquet":
        pa.parquet.write_table(found, path)
    else:
        pa.feather.write_feather(found, path)


def matlab(path: Path, given: Given) -> None:
    import scipy.io

    scipy.io.savemat(path, {"V": given.V, "n": 3.0, "said": "text"}, do_compression=True)


def matlab_hdf5(path: Path, given: Given) -> None:
    import h5py

    with h5py.File(path, "w", userblock_size=512) as file:
        file["V"] = given.V.T
        file["V"].attrs["MATLAB_class"] = np.bytes_("double")
    with path.open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM")


def sound(path: Path, given: Given) -> None:
    samples = (np.sin(np.arange(4000.0) / 3) * 30000).astype("<i2").tobytes()
    form = struct.pack("<HHIIHH", 1, 1, 8000, 16000, 2, 16)
    content = b"WAVEfmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", len(samples)) + samples
    path.write_bytes(b"RIFF" + struct.pack("<I", len(content)) + content)


def picture(path: Path, given: Given) -> None:
    import PIL.Image

    PIL.Image.fromarray(given.V.astype(np.uint8)).save(path)


KINDS = (
    Kind("V.csv", table(","), named=True, text=True),
    Kind("V.tsv", table("\t"), named=True, text=True),
    Kind("V.txt", table(" "), named=True, text=True),
    Kind("V.all", table("\t"), named=True, text=True),
    Kind("V.csv.gz", table(","), named=True),
    Kind("V.tsv.gz", table("\t"), named=True),
    Kind("V.npy", npy),
    Kind("V.npz", npz),
    Kind("factors.npz", factors, key="H", named=True, apart=True),
    Kind("factors.safetensors", factors, key="H", named=True, apart=True),
    Kind("V.mtx", market, text=True),
    Kind("V.mtx.gz", market),
    Kind("V.h5", hdf5),
    Kind("V.zarr", zarr_array),
    Kind("V.h5ad", h5ad, named=True, apart=True),
    Kind("records.h5ad", h5ad_records, named=True, apart=True),
    Kind("categories.h5ad", h5ad_categories, named=True, apart=True),
    Kind("two.zarr", annotated_zarr(2), named=True, apart=True),
    Kind("three.zarr", annotated_zarr(3), named=True, apart=True),
    Kind("V.loom", loom, named=True, apart=True),
    Kind("tenx.h5", tenx, named=True, apart=True),
    Kind("filtered_feature_bc_matrix", tenx_folder(packed=True), named=True, apart=True),
    Kind("hg19", tenx_folder(packed=False), named=True, apart=True),
    Kind("V.xlsx", sheet, named=True),
    Kind("V.parquet", columns, named=True),
    Kind("V.feather", columns, named=True),
    Kind("V.mat", matlab, key="V", loose=True),
    Kind("hdf5.mat", matlab_hdf5, loose=True),
    Kind("V.wav", sound, exact=False),
    Kind("V.png", picture),
    Kind("V.tif", picture),
)
"""Every kind of file, and what is asked of it."""
