"""MATLAB's files of all versions; bombs and variables that are none are refused."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nmf_xp.arrays import memory
from nmf_xp.files import FileError, read_matrix

scipy_io: Any = pytest.importorskip("scipy.io", reason="scipy is not installed")
sparse: Any = pytest.importorskip("scipy.sparse", reason="scipy is not installed")

V = np.arange(1.0, 13).reshape(4, 3)


def refused(path: Path, key: str | None = None) -> str:
    with pytest.raises(FileError) as caught:
        read_matrix(path, key=key)
    return str(caught.value).removeprefix(f"{path}: ")


@pytest.mark.parametrize("options", [{"format": "4"}, {}, {"do_compression": True}])
@pytest.mark.parametrize("dtype", ["float64", "float32", "uint8", "int16", "bool"])
def test_a_variable_comes_back_as_it_was(tmp_path: Path, options: dict[str, Any], dtype: str) -> None:
    path = tmp_path / "V.mat"
    scipy_io.savemat(path, {"V": V.astype(dtype)}, **options)
    np.testing.assert_array_equal(read_matrix(path).values, V.astype(dtype))
    scipy_io.savemat(path, {"V": sparse.csc_array(V)}, **options)
    np.testing.assert_array_equal(read_matrix(path).values.toarray(), V)


def test_the_only_matrix_is_taken_and_of_several_one_is_to_be_said(tmp_path: Path) -> None:
    path = tmp_path / "V.mat"
    scipy_io.savemat(path, {"V": V, "n": 3, "names": ["a", "b"], "cell": np.asarray([{}], object)})
    found = read_matrix(path)
    np.testing.assert_array_equal(found.values, V)
    assert found.note == "its only matrix, 'V'"
    scipy_io.savemat(path, {"V": V, "U": V + 1})
    assert refused(path) == "holds V, U; say which one with --key"
    assert refused(path, "names") == "holds no matrix 'names', only V, U"
    np.testing.assert_array_equal(read_matrix(path, key="U").values, V + 1)
    scipy_io.savemat(path, {"said": "text"})
    assert refused(path) == "holds no numbers"
    scipy_io.savemat(path, {"V": np.ones((2, 3, 4))})
    assert refused(path) == "must hold a matrix, which has 2 axes, got shape (2, 3, 4)"
    scipy_io.savemat(path, {"V": V + 1j})
    assert refused(path) == "must hold real numbers, got dtype complex128"


def test_version_7_3_is_hdf5_and_turned(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    path = tmp_path / "V.mat"
    csc = sparse.csc_array(V * (V > 2))
    with h5py.File(path, "w", userblock_size=512) as file:
        file["V"] = V.T
        file["said"] = np.asarray([[65]], np.uint16)
        file["said"].attrs["MATLAB_class"] = np.bytes_("char")
        group = file.create_group("S")
        group.attrs["MATLAB_class"], group.attrs["MATLAB_sparse"] = np.bytes_("double"), np.uint64(4)
        group["data"], group["ir"], group["jc"] = csc.data, csc.indices.astype("u8"), csc.indptr.astype("u8")
        file.create_group("#refs#")
    assert refused(path) == "holds S, V; say which one with --key"
    np.testing.assert_array_equal(read_matrix(path, key="V").values, V)
    np.testing.assert_array_equal(read_matrix(path, key="S").values.toarray(), V * (V > 2))
    assert refused(path, "said") == "holds no matrix 'said', only S, V"


def _compressed(element: bytes) -> bytes:
    data = zlib.compress(element)
    return b"MATLAB 5.0".ljust(124) + b"\0\1IM" + (15).to_bytes(4, "little") + len(data).to_bytes(4, "little") + data


def test_a_variable_that_unfolds_beyond_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "V.mat"
    path.write_bytes(_compressed(bytes(2**25)))
    monkeypatch.setattr(memory, "available", lambda: 2**20)
    assert refused(path).startswith("what one of its variables unfolds to takes")


def test_files_that_scipy_is_tested_with_are_read_or_refused() -> None:
    folder = Path(scipy_io.__file__).parent / "matlab" / "tests" / "data"
    found = {path.name: path for path in sorted(folder.glob("*.mat"))}
    if not found:
        pytest.skip("this SciPy comes without its tests")
    theta = np.pi / 4 * np.arange(9)
    matrix = np.zeros((3, 5))
    matrix[:, 0], matrix[0] = range(1, 4), range(1, 6)
    read = 0
    for name, path in found.items():
        try:
            values = read_matrix(path).values
        except FileError as error:
            assert str(error).startswith(str(path))  # noqa: PT017
            continue
        read += 1
        if name.startswith("testdouble"):
            np.testing.assert_allclose(values, [theta])
        if name.startswith("testmatrix"):
            np.testing.assert_array_equal(values, matrix)
    assert read >= 30
