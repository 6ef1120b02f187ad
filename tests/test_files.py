"""Files: every format comes back as it was written, every bad file is one sentence, no file is ever half written."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from nmf_xp import files
from nmf_xp.files import FileError, check_output, read_matrix, write_factors

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
    np.testing.assert_array_equal(read_matrix(tmp_path / f"V{suffix}").values, grey)
    image.fromarray(np.stack([grey] * 3, axis=-1)).save(tmp_path / f"colour{suffix}")
    np.testing.assert_array_equal(read_matrix(tmp_path / f"colour{suffix}").values, grey)


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
    ],
)
def test_tables_with_and_without_names(
    tmp_path: Path, name: str, text: str, rows: list[str] | None, columns: list[str] | None
) -> None:
    matrix = read_matrix(table(tmp_path / name, text))
    np.testing.assert_array_equal(matrix.values, [[1, 2], [3, 4]])
    assert (matrix.row_names, matrix.column_names) == (rows, columns)


def test_tables_as_they_are_said_to_be(tmp_path: Path) -> None:
    path = table(tmp_path / "years.csv", "2001,2002\n1,2\n3,4\n")
    assert read_matrix(path).values.shape == (3, 2)
    matrix = read_matrix(path, header=True, index=False)
    assert matrix.column_names == ["2001", "2002"]
    assert matrix.values.shape == (2, 2)
    assert read_matrix(path, header=True, index=True).row_names == ["1", "3"]


def test_an_empty_cell_is_nan(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_matrix(table(tmp_path / "a.csv", "1,\n3,4\n")).values, [[1, np.nan], [3, 4]])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("V.xls", b"1", "the suffix '.xls' is none of .npy, .npz"),
        ("V.npy", b"", "the file is empty"),
        ("V.npy", b"no numpy file", "cannot be read: "),
        ("V.npz", b"no archive", "cannot be read: "),
        ("V.mtx", b"no matrix", "cannot be read: "),
        ("V.png", b"no image", "cannot be read: "),
        ("V.csv", b"1,2\n3\n", "line 2 has 1 cells, the lines above it have 2"),
        ("V.csv", b"x,y\n1,2\n3,four\n", "line 3, column 2: 'four' is not a number"),
        ("V.csv", b"x,y\n", "holds a row of names and nothing below it"),
        ("V.csv", b"x,y,z,w\n1,2\n", "the first line has 4 names for 2 columns"),
        ("V.csv", b"\xff\xfe1,2", "cannot be read: "),
        ("V.csv", b"\n\n", "the file is empty"),
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


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_factors_come_back_whatever_their_memory_order(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"factors{suffix}"
    arrays = {"W": np.asfortranarray(V), "H": V[:, ::-1], "row_names": np.asarray(["a", "b"])}
    write_factors(path, arrays, {"beta": "1.0"})
    if suffix == ".npz":
        with np.load(path, allow_pickle=False) as stored:
            found: dict[str, Any] = dict(stored)
        assert found["row_names"].tolist() == ["a", "b"]
        assert str(found["beta"]) == "1.0"
    else:
        found = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed").load_file(path)
    np.testing.assert_array_equal(found["W"], V)
    np.testing.assert_array_equal(found["H"], V[:, ::-1])
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
