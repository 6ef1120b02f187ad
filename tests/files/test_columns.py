"""Parquet and Feather: the numbers and names of tables by several writers, and what is hostile in them."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from nmf_xp.arrays import memory
from nmf_xp.files import FileError, columns, read_matrix

if TYPE_CHECKING:
    from pathlib import Path

pa: Any = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
feather: Any = pytest.importorskip("pyarrow.feather")
parquet: Any = pytest.importorskip("pyarrow.parquet")

V = np.arange(1.0, 13).reshape(4, 3)
both = pytest.mark.parametrize("suffix", [".parquet", ".feather"])


def write(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    table = pa.table(columns)
    (parquet.write_table if path.suffix == ".parquet" else feather.write_feather)(table, path, **options)
    return path


@both
def test_columns_of_all_kinds_of_numbers_are_read(tmp_path: Path, suffix: str) -> None:
    kinds = {
        "i": pa.array([1, 2, 3], "int8"),
        "u": pa.array([1, 2, 3], "uint64"),
        "b": pa.array([True, False, True]),
        "h": pa.array(np.asarray([1, 2, 3], "float16")),
        "none": pa.array([1, None, 3]),
        "decimal": pa.array([1.5, None, 3]).cast(pa.decimal128(5, 2)),
        "no": pa.array([True, None, False]),
    }
    if suffix == ".parquet":
        del kinds["h"]
    found = read_matrix(write(tmp_path / f"V{suffix}", kinds))
    assert found.column_names == list(kinds)
    expected = [[None if x is None else float(x) for x in column.to_pylist()] for column in kinds.values()]
    np.testing.assert_array_equal(found.values, np.asarray(expected, float).T)
    found = read_matrix(write(tmp_path / f"V{suffix}", {"x": pa.array([1, 2], "float32")}))
    assert found.values.dtype == np.float32


@both
def test_text_is_a_name_in_the_first_column_and_nowhere_else(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"V{suffix}", {"id": ["a", "b"], "x": [1, 2]})
    found = read_matrix(path)
    assert (found.row_names, found.column_names) == (["a", "b"], ["x"])
    write(path, {"x": [1, 2], "kind": ["a", "b"], "day": pa.array([0, 1], pa.date32())})
    with pytest.raises(
        FileError, match=r"holds date32\[day\], string in the columns 'kind', 'day', where all must be num"
    ):
        read_matrix(path)
    write(path, {"id": ["a", "b"]})
    with pytest.raises(FileError, match="holds string in the column 'id'"):
        read_matrix(path)


@both
def test_tables_of_pandas_and_polars_come_with_their_index(tmp_path: Path, suffix: str) -> None:
    pd = pytest.importorskip("pandas", reason="pandas is not installed")
    path = tmp_path / f"V{suffix}"
    if suffix == ".parquet":
        for index, names in (
            (["a", None, "c", "d"], ["a", "NA", "c", "d"]),
            ([5, 6, 7, 8], ["5", "6", "7", "8"]),
            (pd.MultiIndex.from_product([["a", "b"], [1, 2]]), ["a, 1", "a, 2", "b, 1", "b, 2"]),
            (None, None),
        ):
            pd.DataFrame(V, index=index, columns=list("xyz")).to_parquet(path)
            found = read_matrix(path)
            np.testing.assert_array_equal(found.values, V)
            assert (found.row_names, found.column_names) == (names, ["x", "y", "z"])
    pl = pytest.importorskip("polars", reason="polars is not installed")
    table = pl.DataFrame({"id": list("abcd"), **{name: V[:, j] for j, name in enumerate("xyz")}})
    for compression in ("uncompressed", "lz4", "zstd"):
        (table.write_parquet if suffix == ".parquet" else table.write_ipc)(path, compression=compression)
        found = read_matrix(path)
        np.testing.assert_array_equal(found.values, V)
        assert (found.row_names, found.column_names) == (list("abcd"), ["x", "y", "z"])


@both
def test_long_tables_are_read_some_rows_at_a_time(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "ROWS", 7)
    many = np.random.default_rng(0).random((50, 3))
    options = {"row_group_size": 11} if suffix == ".parquet" else {"chunksize": 11}
    names = [f"r{i}" for i in range(50)]
    content = {"id": names, **{name: many[:, j] for j, name in enumerate("xyz")}}
    found = read_matrix(write(tmp_path / f"V{suffix}", content, **options))
    np.testing.assert_array_equal(found.values, many)
    assert found.row_names == names


@both
def test_a_table_that_unfolds_beyond_the_memory_is_refused(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / f"V{suffix}", {"x": np.zeros(10**6)}, compression="zstd")
    assert path.stat().st_size < 10**5
    monkeypatch.setattr(memory, "available", lambda: 10**6)
    with pytest.raises(FileError, match=r"(its table of 1000000 x 1|a part of its table) takes 0.00[48]"):
        read_matrix(path)


def test_what_a_feather_file_declares_of_its_parts_is_not_believed(tmp_path: Path) -> None:
    path = write(tmp_path / "V.feather", {"x": np.arange(1000) % 7}, compression="lz4")
    content = path.read_bytes()
    place = content.index(struct.pack("<q", 8000))  # what the numbers unfold to
    path.write_bytes(content[:place] + struct.pack("<q", 2**60) + content[place + 8 :])
    with pytest.raises(FileError, match=r"a part of its table takes 1.15e\+09 GB"):
        read_matrix(path)


def test_texts_that_begin_outside_of_their_part_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "V.feather", {"id": ["abc", "defg"], "x": [1, 2]}, compression="uncompressed")
    content = path.read_bytes()
    place = content.index(struct.pack("<iii", 0, 3, 7))
    path.write_bytes(content[:place] + struct.pack("<iii", 0, 3, 2**30) + content[place + 12 :])
    with pytest.raises(FileError, match="cannot be read: "):
        read_matrix(path)


def test_an_old_feather_file_is_said(tmp_path: Path) -> None:
    path = tmp_path / "V.feather"
    path.write_bytes(b"FEA1" + bytes(100) + b"FEA1")
    with pytest.raises(FileError, match="it is an old Feather file; write it anew"):
        read_matrix(path)


def test_categories_are_names_in_parquet_and_said_in_feather(tmp_path: Path) -> None:
    content = {"id": pa.array(["a", "b"]).dictionary_encode(), "x": [1, 2]}
    assert read_matrix(write(tmp_path / "V.parquet", content)).row_names == ["a", "b"]
    with pytest.raises(FileError, match="holds categories; save them as text"):
        read_matrix(write(tmp_path / "V.feather", content))


@both
def test_columns_of_the_same_name_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"V{suffix}"
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["x", "x"])
    (parquet.write_table if suffix == ".parquet" else feather.write_feather)(table, path)
    with pytest.raises(FileError, match="holds columns of the same name; give each its own"):
        read_matrix(path)


@both
def test_wide_tables_are_read_some_columns_at_a_time(tmp_path: Path, suffix: str) -> None:
    many = np.random.default_rng(0).random((5, 700))
    path = write(tmp_path / f"V{suffix}", {"id": list("abcde"), **{f"g.{j}": many[:, j] for j in range(700)}})
    found = read_matrix(path)
    np.testing.assert_array_equal(found.values, many)
    assert found.row_names == list("abcde")
