"""Matrices in .npy, HDF5, zarr and AnnData files: whole where they fit in memory, else block by block."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from nmf_xp import RowBlocks, cli, nmf
from nmf_xp.arrays import memory
from nmf_xp.files import FileError, read_matrix
from tests.problems import noisy

if TYPE_CHECKING:
    from pathlib import Path

V = noisy(60, 20, 3, zeros=True).V


def written(folder: Path) -> dict[str, tuple[Path, str | None]]:
    """Files that hold V, and the key under which."""
    h5py, zarr = pytest.importorskip("h5py"), pytest.importorskip("zarr")
    anndata, sparse = pytest.importorskip("anndata"), pytest.importorskip("scipy.sparse")
    np.save(folder / "V.npy", V)
    with h5py.File(folder / "one.h5", "w") as file:
        file["V"] = V
    with h5py.File(folder / "several.hdf5", "w") as file:
        file["a/V"], file["b"] = V, np.ones(3)
    zarr.create_array(folder / "array.zarr", shape=V.shape, dtype=V.dtype)[:] = V
    group = zarr.open_group(folder / "rows.zarr", mode="w")
    csr = sparse.csr_array(V)
    for name in ("data", "indices", "indptr"):
        group.create_array(name, data=getattr(csr, name))
    group.attrs["shape"] = V.shape
    for name, matrix in (("dense", V), ("csr", sparse.csr_matrix(V)), ("csc", sparse.csc_matrix(V))):
        data = anndata.AnnData(matrix)
        data.obs_names, data.var_names = [f"cell {i}" for i in range(60)], [f"gene {j}" for j in range(20)]
        data.write_h5ad(folder / f"{name}.h5ad")
    return {
        "npy": (folder / "V.npy", None),
        "one dataset": (folder / "one.h5", None),
        "one of several": (folder / "several.hdf5", "a/V"),
        "zarr array": (folder / "array.zarr", None),
        "zarr compressed rows": (folder / "rows.zarr", None),
        "dense AnnData": (folder / "dense.h5ad", None),
        "AnnData by rows": (folder / "csr.h5ad", None),
        "AnnData by columns": (folder / "csc.h5ad", None),
    }


def test_what_fits_is_read_whole_with_its_names(tmp_path: Path) -> None:
    for name, (path, key) in written(tmp_path).items():
        matrix = read_matrix(path, key=key)
        values = matrix.values.toarray() if hasattr(matrix.values, "toarray") else matrix.values
        np.testing.assert_array_equal(values, V, err_msg=name)
        assert (matrix.note is not None and "cells) in rows" in matrix.note) == ("AnnData" in name)
        if "AnnData" in name:
            assert matrix.row_names == [f"cell {i}" for i in range(60)]
            assert matrix.column_names == [f"gene {j}" for j in range(20)]


def test_what_does_not_fit_is_read_block_by_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = written(tmp_path)
    monkeypatch.setattr(memory, "available", lambda: 5000)
    expected = nmf(V, 3, solver="mm", random_state=0, max_iter=5)
    for name, (path, key) in files.items():
        if name == "AnnData by columns":
            with pytest.raises(FileError, match=r"csc.h5ad: cannot be read: `V` must be stored by rows \(CSR\)"):
                read_matrix(path)
            continue
        matrix = read_matrix(path, key=key)
        assert isinstance(matrix.values, RowBlocks)
        assert matrix.note is not None
        assert "read block by block" in matrix.note
        result = nmf(matrix.values, 3, random_state=0, max_iter=5)
        np.testing.assert_allclose(result.W, expected.W, rtol=1e-8, err_msg=name)


def test_a_file_of_several_arrays_wants_a_key(tmp_path: Path) -> None:
    files = written(tmp_path)
    several = files["one of several"][0]
    for key, message in ((None, "holds a, b; say which one with --key"), ("c", "holds no 'c', only a, b")):
        with pytest.raises(FileError, match=message):
            read_matrix(several, key=key)
    with pytest.raises(FileError, match="the group holds V; say with --key which array to take"):
        read_matrix(several, key="a")
    with pytest.raises(FileError, match=r"must hold a matrix, which has 2 axes, got shape \(3,\)"):
        read_matrix(several, key="b")


@pytest.mark.parametrize(("backend", "dtype"), [("numpy", "float64"), ("torch", "float32")])
def test_fit_reads_block_by_block_and_says_so(
    backend: str, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip(backend)
    monkeypatch.chdir(tmp_path)
    np.save("V.npy", V)
    np.save("weights.npy", 1.0 + (V > 1))
    monkeypatch.setattr(memory, "available", lambda: 5000)
    options = ["--random-state", "0", "--weights", "weights.npy", "--backend", backend, "--dtype", dtype]
    assert cli.main(["fit", "V.npy", "-k", "3", "--beta-loss", "kullback-leibler", *options]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "V.npy: 9.73e-06 GB with 5e-06 GB of memory free: read block by block, in every iteration"
    assert f"ran on        {backend} on cpu, {dtype}" in said
    factors = np.load("V.factors.npz")
    weights = 1.0 + (V > 1)
    expected = nmf(V, 3, beta_loss=1.0, solver="mm", weights=weights, random_state=0)
    assert (str(factors["solver"]), factors["W"].dtype) == ("mm", dtype)
    np.testing.assert_allclose(factors["divergence"], expected.divergence, rtol=1e-3)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits are Linux's")
def test_limits_of_the_process_count_as_memory() -> None:
    code = """
import resource, nmf_xp.arrays.memory as memory
free = memory.available()
assert 0 < free < 2**50
used = memory._table("/proc/self/status")
for limit, name in ((resource.RLIMIT_DATA, "VmData"), (resource.RLIMIT_AS, "VmSize")):
    resource.setrlimit(limit, (used[name] + 50_000_000, -1))
    assert 0 < memory.available() <= 50_000_000
    resource.setrlimit(limit, (-1, -1))
"""
    subprocess.run([sys.executable, "-c", code], check=True)
