"""Files: every format comes back as it was written, every bad file is one sentence, no file is ever half written."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from nmf_xp import files
from nmf_xp.files import FileError, check_output, read_factors, read_matrix, write_factors

if TYPE_CHECKING:
    from pathlib import Path

V = np.arange(12.0).reshape(4, 3)


def table(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_numpy_files(tmp_path: Path) -> None:
    np.save(tmp_path / "V.npy", V)
    np.savez(tmp_path / "V.npz", V)
    np.savez(tmp_path / "two.npz", V=V, U=V + 1)
    np.testing.assert_array_equal(read_matrix(tmp_path / "V.npy").values, V)
    np.testing.assert_array_equal(read_matrix(tmp_path / "V.npz").values, V)
    np.testing.assert_array_equal(read_matrix(tmp_path / "two.npz", key="U").values, V + 1)


def test_sparse_and_matrix_market_files(tmp_path: Path) -> None:
    sparse = pytest.importorskip("scipy.sparse", reason="scipy is not installed")
    scipy_io = pytest.importorskip("scipy.io", reason="scipy is not installed")
    sparse.save_npz(tmp_path / "V.npz", sparse.csr_array(V))
    scipy_io.mmwrite(tmp_path / "sparse.mtx", sparse.coo_array(V))
    scipy_io.mmwrite(tmp_path / "dense.mtx", V)
    for name in ("V.npz", "sparse.mtx"):
        np.testing.assert_array_equal(read_matrix(tmp_path / name).values.toarray(), V)
    np.testing.assert_array_equal(read_matrix(tmp_path / "dense.mtx").values, V)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_images_are_grey_values(tmp_path: Path, suffix: str) -> None:
    image = pytest.importorskip("PIL.Image", reason="pillow is not installed")
    grey = (V * 20).astype(np.uint8)
    image.fromarray(grey).save(tmp_path / f"V{suffix}")
    found = read_matrix(tmp_path / f"V{suffix}")
    np.testing.assert_array_equal(found.values, grey)
    assert found.note == "an image, read as its grey values"
    image.fromarray(np.stack([grey] * 3, axis=-1)).save(tmp_path / f"colour{suffix}")
    found = read_matrix(tmp_path / f"colour{suffix}")
    np.testing.assert_array_equal(found.values, grey)
    assert found.note == "an image of mode RGB, read as greyscale"


def test_images_of_16_bits_keep_them_and_jpegs_are_read(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="pillow is not installed")
    deep = (V * 5000).astype(np.uint16)
    for suffix in (".png", ".tif"):
        image.fromarray(deep).save(tmp_path / f"deep{suffix}")
        np.testing.assert_array_equal(read_matrix(tmp_path / f"deep{suffix}").values, deep)
    image.fromarray(np.full((8, 8), 100, np.uint8)).save(tmp_path / "V.JPG")
    np.testing.assert_allclose(read_matrix(tmp_path / "V.JPG").values, np.full((8, 8), 100), atol=2)


@pytest.mark.parametrize(
    ("name", "text", "rows", "columns"),
    [
        ("a.csv", "1,2\n3,4\n", None, None),
        ("a.tsv", "1\t2\n3\t4\n", None, None),
        ("a.csv", "x,y\n1,2\n3,4\n", None, ["x", "y"]),
        ("a.csv", "gene,x,y\np,1,2\nq,3,4\n", ["p", "q"], ["x", "y"]),
        ("a.csv", "x,y\np,1,2\nq,3,4\n", ["p", "q"], ["x", "y"]),
        ("a.csv", "p,1,2\nq,3,4\n", ["p", "q"], None),
        ("a.csv", '\ufeff"x, first",y\n1,2\n\n3,4\n', None, ["x, first", "y"]),
        ("a.csv", ",0,1\n0,1,2\n1,3,4\n", ["0", "1"], ["0", "1"]),  # pandas
        ("a.csv", '"","V1","V2"\n"1",1,2\n"2",3,4\n', ["1", "2"], ["V1", "V2"]),  # R
        ("a.csv", "p_1,x,y\n1_1,1,2\n1_2,3,4\n", ["1_1", "1_2"], ["x", "y"]),
        ("a.csv", "x\r\n1\r\n2\r\n", None, ["x"]),
        ("a.csv", "id,400,402\ns1,1,2\ns2,3,4\n", ["s1", "s2"], ["400", "402"]),  # pandas: wavelengths
        ("a.csv", "country,1990,2000\nFrance,1,2\nPeru,3,4\n", ["France", "Peru"], ["1990", "2000"]),
        ("a.csv", "sample,0.5,1e2\ns_1,1,2\ns_2,3,4\n", ["s_1", "s_2"], ["0.5", "1e2"]),
        ("a.csv", "name,0,1\nA1,1,2\nB1,3,4\n", ["A1", "B1"], ["0", "1"]),  # pandas: columns without names
        ("a.csv", "sample,400,402\ncontrol,1,2\ntreated,3,4\n", ["control", "treated"], ["400", "402"]),
        ("a.csv", "400,402\ns1,1,2\ns2,3,4\n", ["s1", "s2"], ["400", "402"]),  # R's write.table
        ("a.csv", "s1,1,2\ns2,3,4\n", ["s1", "s2"], None),
        ("a.csv", "TP53,1,2\nBRCA1,3,4\n", ["TP53", "BRCA1"], None),
    ],
)
def test_tables_with_and_without_names(
    tmp_path: Path, name: str, text: str, rows: list[str] | None, columns: list[str] | None
) -> None:
    matrix = read_matrix(table(tmp_path / name, text))
    np.testing.assert_array_equal(matrix.values, [[1], [2]] if columns == ["x"] else [[1, 2], [3, 4]])
    assert (matrix.row_names, matrix.column_names) == (rows, columns)
    assert matrix.note is not None
    assert ("row names" in matrix.note, "column names" in matrix.note) == (rows is not None, columns is not None)


def test_a_header_of_evenly_spaced_numbers_over_names_of_the_same_form(tmp_path: Path) -> None:
    found = read_matrix(table(tmp_path / "a.csv", "year,1,2,3\nx,4,1,9\ny,5,2,0\n"))
    assert (found.column_names, found.row_names) == (["1", "2", "3"], ["x", "y"])
    found = read_matrix(table(tmp_path / "a.csv", "w,1,2,3\nx,4,5,6\ny,7,8,9\n"))  # as all lines are
    assert (found.column_names, found.row_names) == (None, ["w", "x", "y"])
    for first in ("id,4,4,5", "id,4,,5"):  # names are distinct and there
        found = read_matrix(table(tmp_path / "a.csv", f"{first}\ns1,4,1,9\ns2,5,2,0\n"))
        assert (found.column_names, found.row_names) == (None, ["id", "s1", "s2"])


@pytest.mark.parametrize("names", [False, True])
@pytest.mark.parametrize("line", range(4))
@pytest.mark.parametrize("column", range(3))
def test_a_cell_that_is_no_number_is_an_error_wherever_it_stands(
    tmp_path: Path, line: int, column: int, names: bool
) -> None:
    cells = [[str(x) for x in row] for row in V]
    cells[line][column] = "1O"
    if names:
        cells = [[f"gene {i}", *row] for i, row in enumerate(cells)]
    text = "\n".join(map(",".join, cells))
    message = f"line {line + 1}, column {column + 1 + names}: '1O' is not a number"
    with pytest.raises(FileError, match=re.escape(message)) as error:
        read_matrix(table(tmp_path / "a.csv", text))
    assert ("say --header" in str(error.value)) == (line == 0)
    assert ("say --index" in str(error.value)) == (column == 0 and not names)
    with pytest.raises(FileError, match=re.escape(f"column {column + 1 + names}: '1O' is not a number")) as error:
        read_matrix(table(tmp_path / "a.csv", text), header=False, index=names)
    assert "say --" not in str(error.value)
    if line == 0:
        assert read_matrix(table(tmp_path / "a.csv", text), header=True).values.shape == (3, 3)
    if column == 0 and not names:
        assert read_matrix(table(tmp_path / "a.csv", text), index=True).values.shape == (4, 2)


def test_tables_as_they_are_said_to_be(tmp_path: Path) -> None:
    path = table(tmp_path / "years.csv", "2001,2002\n1,2\n3,4\n")
    assert read_matrix(path).values.shape == (3, 2)
    matrix = read_matrix(path, header=True, index=False)
    assert matrix.column_names == ["2001", "2002"]
    assert matrix.values.shape == (2, 2)
    assert read_matrix(path, header=True, index=True).row_names == ["1", "3"]
    path = table(tmp_path / "pandas.csv", ",0,1\n0,1,2\n1,3,4\n")
    for header, index, shape in (
        (None, None, (2, 2)),
        (True, None, (2, 2)),
        (None, True, (2, 2)),
        (True, False, (2, 3)),
        (False, True, (3, 2)),
        (False, None, (3, 3)),
        (None, False, (3, 3)),
    ):
        assert read_matrix(path, header=header, index=index).values.shape == shape


def test_an_empty_cell_is_nan(tmp_path: Path) -> None:
    for cell in ("", " ", "NA", "nan"):
        found = read_matrix(table(tmp_path / "a.csv", f"1,{cell}\n3,4\n")).values
        np.testing.assert_array_equal(found, [[1, np.nan], [3, 4]])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("V.xls", b"1", "the suffix '.xls' is none of .npy, .npz"),
        ("V.npy", b"", "the file is empty"),
        ("V.npy", b"no numpy file", "cannot be read: it is no NumPy file"),
        ("V.npz", b"no archive", "cannot be read: "),
        ("V.mtx", b"no matrix", "cannot be read: "),
        ("V.png", b"no image", "cannot be read: "),
        ("V.csv", b"1,2\n3\n", "line 2 has 1 cells, the lines above it have 2"),
        ("V.csv", b"x,y\n1,2\n3,four\n", "line 3, column 2: 'four' is not a number"),
        ("V.csv", b"x,y\n", "holds a row of names and nothing below it"),
        ("V.csv", b"x,y,z,w\n1,2\n", "line 1 has 4 names for the 2 columns below it"),
        ("V.csv", b"\xff\xfe1,2", "cannot be read: "),
        ("V.csv", b"\n\n", "the file is empty"),
        ("V.csv", b"1:2\n3:4\n", "holds one column, of names; cells must be separated by commas"),
        ("V.tsv", b"1,2\n3,4\n", "holds one column, of names; cells must be separated by tabs"),
        ("V.csv", b"x,y\n1,2\n3,1_000\n", "line 3, column 2: '1_000' is not a number"),
    ],
)
def test_a_bad_file_is_one_sentence(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FileError, match=re.escape(f"{tmp_path / name}: {message}")) as caught:
        read_matrix(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_pickles_directories_and_missing_files_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "object.npy", np.asarray([{}], dtype=object))
    np.savez(tmp_path / "object.npz", np.asarray([{}], dtype=object))
    for name in ("object.npy", "object.npz"):
        with pytest.raises(FileError, match="it holds pickled Python objects, which could run any code"):
            read_matrix(tmp_path / name)
    (tmp_path / "folder.npy").mkdir()
    with pytest.raises(FileError, match="is a directory"):
        read_matrix(tmp_path / "folder.npy")
    with pytest.raises(FileError, match="no such file"):
        read_matrix(tmp_path / "missing.npy")
    np.savez(tmp_path / "two.npz", a=V, b=V)
    with pytest.raises(FileError, match="holds the arrays a, b; say which one with --key"):
        read_matrix(tmp_path / "two.npz")
    with pytest.raises(FileError, match="holds no array 'c', only a, b"):
        read_matrix(tmp_path / "two.npz", key="c")


def test_what_is_no_real_matrix_is_refused(tmp_path: Path) -> None:
    for array, message in (
        (np.ones(3), "must hold a matrix, which has 2 axes, got shape (3,)"),
        (np.ones((2, 2, 2)), "must hold a matrix, which has 2 axes, got shape (2, 2, 2)"),
        (np.ones((2, 2), complex), "must hold real numbers, got dtype complex128"),
        (np.asarray([["a"]]), "must hold real numbers, got dtype <U1"),
    ):
        np.save(tmp_path / "V.npy", array)
        with pytest.raises(FileError, match=re.escape(f"V.npy: {message}")):
            read_matrix(tmp_path / "V.npy")


@pytest.mark.skipif(os.name != "posix", reason="paths of another system have other limits")
def test_a_path_that_the_system_refuses_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / f"{'V' * 300}.npy"
    with pytest.raises(FileError, match="cannot be read: File name too long"):
        read_matrix(path)
    with pytest.raises(FileError, match="cannot be written: File name too long"):
        check_output(path.with_suffix(".npz"), force=False)
    longest = tmp_path / f"{'W' * 251}.npz"
    check_output(longest, force=False)
    write_factors(longest, {"W": V}, {})
    assert [p.name for p in tmp_path.iterdir()] == [longest.name]


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_factors_that_were_written_are_a_start(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"factors{suffix}"
    if suffix == ".safetensors":
        pytest.importorskip("safetensors", reason="safetensors is not installed")
    write_factors(path, {"W": V, "H": V.T}, {})
    W, H = read_factors(path)
    np.testing.assert_array_equal(W, V)
    np.testing.assert_array_equal(H, V.T)
    write_factors(path, {"W": V}, {})
    with pytest.raises(FileError, match="holds no array 'H', only W"):
        read_factors(path)
    path.write_bytes(b"no factors")
    with pytest.raises(FileError, match="cannot be read: "):
        read_factors(path)


@pytest.mark.skipif(os.name != "posix", reason="links need rights on other systems")
def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "factors.npz"
    link.symlink_to(tmp_path / "elsewhere" / "W.npz")
    write_factors(link, {"W": V}, {})
    assert link.is_symlink()
    assert [p.name for p in (tmp_path / "elsewhere").iterdir()] == ["W.npz"]


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_factors_come_back_whatever_their_memory_order(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"factors{suffix}"
    arrays = {"W": np.asfortranarray(V), "H": V[:, ::-1], "row_names": np.asarray(["a\nb", "c"]), "x": np.asarray(1.5)}
    write_factors(path, arrays, {"beta": "1.0"})
    if suffix == ".npz":
        with np.load(path, allow_pickle=False) as stored:
            found: dict[str, Any] = dict(stored)
        assert found["row_names"].tolist() == ["a\nb", "c"]
        assert str(found["beta"]) == "1.0"
    else:
        found = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed").load_file(path)
        with pytest.importorskip("safetensors").safe_open(path, "numpy") as stored:
            assert json.loads(stored.metadata()["row_names"]) == ["a\nb", "c"]
            assert stored.metadata()["beta"] == "1.0"
    np.testing.assert_array_equal(found["W"], V)
    np.testing.assert_array_equal(found["H"], V[:, ::-1])
    assert found["x"].shape == ()
    assert found["x"] == 1.5
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "factors.npz"
    path.write_bytes(b"the old file")

    def half(file: Any, **_: Any) -> None:
        file.write(b"half a file")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", half)
    with pytest.raises(FileError, match="cannot be written: No space left on device"):
        write_factors(path, {"W": V}, {})
    assert path.read_bytes() == b"the old file"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]

    def interrupted(file: Any, **_: Any) -> None:
        file.write(b"half a file")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_factors(path, {"W": V}, {})
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_an_output_that_cannot_be_written_is_found_out_before(tmp_path: Path) -> None:
    (tmp_path / "there.npz").write_bytes(b"")
    (tmp_path / "folder.npz").mkdir()
    for name, message in (
        ("out.txt", "the suffix '.txt' is none of .npz, .safetensors"),
        ("there.npz", "exists already; say --force to replace it"),
        ("folder.npz", "is a directory"),
        ("missing/out.npz", "cannot be written: No such file or directory"),
    ):
        with pytest.raises(FileError, match=re.escape(message)):
            check_output(tmp_path / name, force=False)
    check_output(tmp_path / "there.npz", force=True)
    assert files.OUTPUTS == (".npz", ".safetensors")
