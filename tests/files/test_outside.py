"""No file leads a reader out of itself: to another file, to what is missing, or to what never ends."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from nmf_xp import RowBlocks, nmf
from nmf_xp.arrays import memory
from nmf_xp.files import FileError, read_factors, read_matrix
from nmf_xp.run.checkpoint import CheckpointError, storage

if TYPE_CHECKING:
    from pathlib import Path

V = np.arange(1.0, 31).reshape(6, 5)
ENDLESS = "is a device, a pipe or a socket, not a file; save what it gives as a file"


def _refused(path: Path, **options: Any) -> str:
    with pytest.raises(FileError) as caught:
        read_matrix(path, **options)
    return str(caught.value).removeprefix(f"{path}: ")


@pytest.fixture
def h5py() -> Any:
    return pytest.importorskip("h5py", reason="h5py is not installed")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes")
@pytest.mark.parametrize("suffix", [".npy", ".npz", ".csv", ".tsv", ".mtx", ".h5", ".h5ad", ".zarr", ".png"])
def test_what_never_ends_is_no_input(tmp_path: Path, suffix: str) -> None:
    os.mkfifo(tmp_path / f"pipe{suffix}")
    (tmp_path / f"device{suffix}").symlink_to("/dev/zero")
    for path in tmp_path.iterdir():
        assert _refused(path) == ENDLESS


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes")
@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_nor_a_start_or_a_checkpoint(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"pipe{suffix}"
    os.mkfifo(path)
    with pytest.raises(FileError, match=ENDLESS):
        read_factors(path)
    with pytest.raises(CheckpointError, match="is a device, a pipe or a socket, not a checkpoint"):
        nmf(V, 2, checkpoint=path)


def _stored(h5py: Any, path: Path, kind: str) -> str:
    """A file whose numbers stand elsewhere; returns what is to be said."""
    np.save(path.with_name("secret.npy"), V)
    with h5py.File(path.with_name("other.h5"), "w") as other:
        other["X"] = V
    with h5py.File(path, "w") as file:
        if kind.startswith("external"):
            place = {"external": "secret.npy", "external-missing": "gone", "external-endless": "/dev/zero"}[kind]
            file.create_dataset("X", V.shape, V.dtype, external=[(place, 0, V.nbytes)])
        elif kind.startswith("virtual"):
            layout = h5py.VirtualLayout(V.shape, V.dtype)
            layout[:] = h5py.VirtualSource("gone.h5" if kind == "virtual-missing" else "other.h5", "X", V.shape)
            file.create_virtual_dataset("X", layout)
        elif kind == "link":
            file["X"] = h5py.ExternalLink("other.h5", "/X")
        else:
            file["there"] = h5py.ExternalLink("other.h5", "/")
            file["X"] = h5py.SoftLink("/there/X")
    return "link to another file, other.h5" if "link" in kind else "stand in other files"


@pytest.mark.parametrize(
    "kind",
    ["external", "external-missing", "external-endless", "virtual", "virtual-missing", "link", "link-behind-a-link"],
)
def test_hdf5_that_leads_to_other_files_is_refused(tmp_path: Path, h5py: Any, kind: str) -> None:
    path = tmp_path / "V.h5"
    said = _stored(h5py, path, kind)
    assert said in _refused(path, key="X")


@pytest.mark.parametrize("name", ["data", "indices", "indptr"])
def test_so_are_parts_of_a_sparse_matrix_and_names(tmp_path: Path, h5py: Any, name: str) -> None:
    pytest.importorskip("scipy", reason="scipy is not installed")
    parts = {"data": np.ones(6), "indices": np.zeros(6, np.int32), "indptr": np.arange(7, dtype=np.int32)}
    with h5py.File(tmp_path / "parts.h5", "w") as other:
        other[name] = parts[name]
        other["names"] = [f"r{i}" for i in range(6)]
    for path, linked in ((tmp_path / "parts.h5ad", name), (tmp_path / "names.h5ad", "names")):
        with h5py.File(path, "w") as file:
            group = file.create_group("X")
            group.attrs["shape"] = V.shape
            for each, array in parts.items():
                group[each] = h5py.ExternalLink("parts.h5", each) if each == linked else array
            rows = file.create_group("obs")
            rows.attrs["_index"] = "names"
            rows["names"] = h5py.ExternalLink("parts.h5", "names")
        assert f"{linked!r} is a link to another file, parts.h5" in _refused(path)


def test_links_within_a_file_are_followed(tmp_path: Path, h5py: Any) -> None:
    with h5py.File(tmp_path / "V.h5", "w") as file:
        file["deep/X"] = V
        file["deep/short"] = h5py.SoftLink("X")
        file["V"] = h5py.SoftLink("/deep/short")
        file["circle"] = h5py.SoftLink("/circle")
    for key in ("V", "deep/X", "/deep/X", "deep/short"):
        np.testing.assert_array_equal(read_matrix(tmp_path / "V.h5", key=key).values, V)
    assert "holds no 'circle'" in _refused(tmp_path / "V.h5", key="circle")


@pytest.mark.parametrize(("names", "said"), [(1, "obs/_index holds 1 names, where the matrix needs 6"), (6, None)])
def test_names_of_anndata_are_as_many_as_the_rows(tmp_path: Path, h5py: Any, names: int, said: str | None) -> None:
    path = tmp_path / "V.h5ad"
    with h5py.File(path, "w") as file:
        file["X"] = file["layers/counts"] = V
        file["obsm/pca"], file["uns/other"] = V[:, :2], V[:3]
        file.create_group("obs").attrs["_index"] = "_index"
        file["obs/_index"] = [f"r{i}" for i in range(names)]
    for key, shape, named in ((None, (6, 5), True), ("layers/counts", (6, 5), True), ("obsm/pca", (6, 2), True)):
        if said is not None:
            assert said in _refused(path, key=key)
            continue
        found = read_matrix(path, key=key)
        assert (found.values.shape, found.row_names is not None, found.column_names) == (shape, named, None)
    assert read_matrix(path, key="uns/other").row_names is None


def test_rows_of_a_group_are_read_block_by_block(tmp_path: Path, h5py: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sparse = pytest.importorskip("scipy.sparse", reason="scipy is not installed")
    rows = sparse.csr_array(V)
    with h5py.File(tmp_path / "V.h5", "w") as file:
        file.attrs["shape"] = V.shape
        file["data"], file["indices"], file["indptr"] = rows.data, rows.indices, rows.indptr
    monkeypatch.setattr(memory, "ROOM", 1e12)
    blocks = read_matrix(tmp_path / "V.h5").values
    assert isinstance(blocks, RowBlocks)
    np.testing.assert_array_equal(sparse.vstack(list(blocks.blocks())).toarray(), V)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes")
@pytest.mark.parametrize("kind", ["file", "folder", "device", "pipe", "metadata", "within"])
def test_a_zarr_folder_that_leads_elsewhere_is_refused(tmp_path: Path, kind: str) -> None:
    zarr = pytest.importorskip("zarr", reason="zarr is not installed")
    path = tmp_path / "V.zarr"
    zarr.open_group(path, mode="w").create_array("X", data=V, chunks=V.shape)
    chunk = next(p for p in path.rglob("*") if p.is_file() and not p.name.startswith((".z", "zarr")))
    moved = tmp_path / "moved"
    what = path / "X" if kind == "folder" else next(path.glob("X/*z*")) if kind == "metadata" else chunk
    if kind == "within":
        moved = path / "elsewhere"
    what.rename(moved)
    if kind == "pipe":
        os.mkfifo(what)
    else:
        what.symlink_to("/dev/zero" if kind == "device" else moved)
    (tmp_path / "link.zarr").symlink_to(path)  # the user's own link to the whole is followed
    for each in (path, tmp_path / "link.zarr"):
        if kind == "within":
            np.testing.assert_array_equal(read_matrix(each, key="X").values, V)
            continue
        said = "device, a pipe" if kind in ("device", "pipe") else "link to another place"
        assert f"it holds a {said}" in _refused(each)
        with pytest.raises(CheckpointError, match=f"it holds a {said}"):
            storage.read(each)
