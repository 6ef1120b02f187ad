"""Files that were made to harm: nothing in them runs, nothing is made that does not fit, no name obeys a terminal."""

from __future__ import annotations

import io
import json
import pickle
import re
import struct
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from nmf_xp import RowBlocks, cli, nmf
from nmf_xp.arrays import memory
from nmf_xp.data import codecs
from nmf_xp.data.sources import npy_header
from nmf_xp.files import FileError, check_output, printable, read_archive, read_factors, read_matrix
from nmf_xp.run.checkpoint import position

if TYPE_CHECKING:
    from pathlib import Path

EYE = np.eye(5)
BAD_PLACES: dict[str, dict[str, Any]] = {
    "a column beyond the last": {"indices": [0, 1, 2, 3, 10**8]},
    "a negative column": {"indices": [0, 1, 2, 3, -(10**8)]},
    "a column that int32 wraps": {"indices": np.asarray([0, 1, 2, 3, 2**32])},
    "a start beyond the end": {"indptr": [0, 1, 10**8, 3, 4, 5]},
    "starts that fall": {"indptr": [0, 3, 1, 3, 4, 5]},
    "an end beyond the end": {"indptr": [0, 1, 2, 3, 4, 10**8]},
    "a beginning that is not 0": {"indptr": [-(10**8), 1, 2, 3, 4, 5]},
    "starts of fewer rows": {"indptr": [0, 1, 2]},
    "fewer entries than columns": {"data": [1.0, 1.0]},
    "columns that are no integers": {"indices": [0.0, 1.0, 2.0, 3.0, 4.0]},
}


@pytest.fixture
def ran(tmp_path: Path) -> Path:
    """A file that is there after hostile code has run."""
    return tmp_path / "ran"


class Hostile:
    """What runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return type(self.path).touch, (self.path,)


def _parts(**changed: Any) -> dict[str, Any]:
    parts = {"data": np.ones(5), "indices": np.arange(5, dtype="int32"), "indptr": np.arange(6, dtype="int32")}
    return parts | {name: np.asarray(value) for name, value in changed.items()}


def _written(folder: Path, kind: str, parts: dict[str, Any], shape: tuple[int, int] = (5, 5)) -> Path:
    path = folder / f"V.{kind}"
    if kind == "npz":
        np.savez(path, format=np.asarray(b"csr"), shape=np.asarray(shape), **parts)
    elif kind == "zarr":
        group = pytest.importorskip("zarr").open_group(path, mode="w")
        group.attrs["shape"] = shape
        for name, array in parts.items():
            group.create_array(name, data=array)
    else:
        with pytest.importorskip("h5py").File(path, "w") as file:
            place = file.create_group("X") if kind == "h5ad" else file
            place.attrs["shape"] = shape
            for name, array in parts.items():
                place[name] = array
    return path


@pytest.mark.parametrize("what", BAD_PLACES)
@pytest.mark.parametrize("kind", ["npz", "h5", "h5ad", "zarr"])
def test_a_sparse_file_whose_places_do_not_fit_is_refused(tmp_path: Path, kind: str, what: str) -> None:
    pytest.importorskip("scipy", reason="scipy is not installed")
    if (kind, what) != ("npz", "columns that are no integers"):  # of which SciPy makes integers
        with pytest.raises(FileError, match=rf"V\.{kind}: cannot be read: "):
            read_matrix(_written(tmp_path, kind, _parts(**BAD_PLACES[what])))
    whole = read_matrix(_written(tmp_path, kind, _parts()))
    np.testing.assert_array_equal(whole.values.toarray(), EYE)


@pytest.mark.parametrize("what", ["a column beyond the last", "a start beyond the end"])
def test_stored_rows_that_are_read_block_by_block_are_looked_at_too(tmp_path: Path, what: str) -> None:
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    path = _written(tmp_path, "h5", _parts(**BAD_PLACES[what]))
    with h5py.File(path) as file, pytest.raises(ValueError, match="`V` must have"):
        nmf(RowBlocks(file), 2, max_iter=2)


@pytest.mark.parametrize("kind", ["npz", "h5", "zarr"])
def test_a_sparse_file_of_a_shape_that_does_not_fit_is_refused(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("scipy", reason="scipy is not installed")
    with pytest.raises(FileError, match="one line"):
        read_matrix(_written(tmp_path, kind, _parts(), (5, 10**14)))


def _zarr_2(folder: Path, dtype: str, filters: Any, compressor: Any, content: bytes) -> Path:
    path = folder / "V.zarr"
    path.mkdir()
    said = {"zarr_format": 2, "shape": [2, 2], "chunks": [2, 2], "dtype": dtype, "order": "C"}
    said |= {"filters": filters, "compressor": compressor, "fill_value": None}
    (path / ".zarray").write_text(json.dumps(said))
    (path / "0.0").write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("dtype", "filters", "compressor"),
    [
        ("<f8", [{"id": "pickle"}], None),
        ("|O", [{"id": "pickle"}], None),
        ("<f8", None, {"id": "pickle"}),
        ("|O", [{"id": "vlen-utf8"}, {"id": "pickle"}], None),
        ("|O", [{"id": "vlen-utf8"}], {"id": "pickle"}),
        ("<f8", [{"id": "categorize", "labels": ["a"], "dtype": "<U1", "astype": "<f8"}], None),
        ("<f8", [{"id": "no such codec"}], None),
        ("|O", [{"id": "json2"}], None),
    ],
)
def test_a_zarr_array_that_is_decoded_by_running_code_is_refused(
    tmp_path: Path, ran: Path, dtype: str, filters: Any, compressor: Any
) -> None:
    zarr = pytest.importorskip("zarr", reason="zarr is not installed")
    path = _zarr_2(tmp_path, dtype, filters, compressor, pickle.dumps(Hostile(ran)))
    with pytest.raises(FileError, match="cannot be read: "):
        read_matrix(path)
    with pytest.raises((ValueError, TypeError)):
        nmf(RowBlocks(zarr.open(path, mode="r")), 1, max_iter=1)
    assert not ran.exists()


def test_a_checkpoint_in_zarr_is_decoded_by_codecs_of_numbers_only(tmp_path: Path, ran: Path) -> None:
    zarr = pytest.importorskip("zarr", reason="zarr is not installed")
    zarr.open_group(tmp_path / "run.zarr", mode="w", zarr_format=2)
    inner = _zarr_2(tmp_path, "|O", [{"id": "vlen-utf8"}, {"id": "pickle"}], None, pickle.dumps(Hostile(ran)))
    inner.rename(tmp_path / "run.zarr" / "x")
    with pytest.raises(FileError, match="by codecs of numbers, got pickle, vlen-utf8"):
        position(tmp_path / "run.zarr")
    assert not ran.exists()


def test_codecs_are_known_by_their_names_wherever_they_stand() -> None:
    """Of numcodecs, of zarr, and inside shards; zarr itself refuses most others today."""

    def codec(name: str, **inner: Any) -> Any:
        return type("Codec", (), {"to_dict": lambda _: {"name": name}, **inner})()

    def array(**metadata: Any) -> Any:
        return type("Array", (), {"__module__": "zarr.core", "metadata": type("Metadata", (), metadata)()})()

    old = [type("Codec", (), {"codec_id": name})() for name in ("shuffle", "pickle")]
    for given, bad in (
        (array(codecs=[codec("bytes"), codec("numcodecs.zlib")]), None),
        (array(codecs=[codec("numcodecs.pickle"), codec("bytes")]), "numcodecs.pickle"),
        (array(codecs=[codec(codecs.SHARDS, codecs=[codec("bytes")], index_codecs=[codec("evil")])]), "evil"),
        (array(codecs=[codec(codecs.SHARDS, codecs=[codec("evil")])]), "evil"),
        (array(filters=old[:1], compressor=None), None),
        (array(filters=None, compressor=old[1]), "pickle"),
        (array(filters=old, compressor=None), "pickle"),
    ):
        if bad is None:
            codecs.check_codecs(given)
        else:
            with pytest.raises(ValueError, match=f"got {bad}, which may run any code"):
                codecs.check_codecs(given)


def _npy(shape: tuple[int, ...], content: bytes = b"", dtype: str = "<f8") -> bytes:
    header = repr({"descr": dtype, "fortran_order": False, "shape": shape}).encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + content


def _npz(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return path


def test_what_a_header_declares_is_held_against_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np, "load", None)  # nothing is made
    for shape in ((10**6, 10**6), (10**12, 1), (2**62, 8)):
        (tmp_path / "V.npy").write_bytes(_npy(shape))
        with pytest.raises(FileError, match="it is cut short: its header declares shape"):
            read_matrix(tmp_path / "V.npy")
        _npz(tmp_path / "V.npz", W=_npy(shape), H=_npy((1, 1), b"\0" * 8))
        for read in (lambda path: read_matrix(path, key="W"), read_factors, read_archive):
            with pytest.raises(FileError, match=r"is damaged: 'W.npy' holds less than it declares"):
                read(tmp_path / "V.npz")
    (tmp_path / "V.npy").write_bytes(_npy((-3, 3)))
    with pytest.raises(FileError, match=r"its header declares the shape \(-3, 3\)"):
        read_matrix(tmp_path / "V.npy")


def test_no_more_is_read_of_a_header_than_it_may_have(tmp_path: Path) -> None:
    class Counted(io.BytesIO):
        most = 0

        def read(self, size: int | None = -1) -> bytes:
            content = super().read(size)
            self.most = max(self.most, len(content))
            return content

    bomb = b"\x93NUMPY\2\0" + struct.pack("<I", 10**7) + b" " * 10**7
    file = Counted(bomb)
    with pytest.raises(ValueError, match="array header"):
        npy_header(file)
    assert file.most < 10**5
    (tmp_path / "V.npy").write_bytes(bomb)
    for path in (tmp_path / "V.npy", _npz(tmp_path / "V.npz", V=bomb)):
        with pytest.raises(FileError, match="cannot be read: "):
            read_matrix(path)


def test_an_archive_that_unfolds_beyond_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _npz(tmp_path / "V.npz", V=_npy((1000, 1000), bytes(8 * 10**6)))
    assert path.stat().st_size < 20_000
    monkeypatch.setattr(memory, "available", lambda: 10**6)
    monkeypatch.setattr(np, "load", None)
    with pytest.raises(FileError, match=r"V.npz: its array 'V' takes 0.008 GB, and 0.001 GB of memory are free"):
        read_matrix(path)
    with pytest.raises(FileError, match=r"V.npz: what it holds takes 0.008 GB"):
        read_archive(path)
    sparse = pytest.importorskip("scipy.sparse", reason="scipy is not installed")
    sparse.save_npz(tmp_path / "S.npz", sparse.csr_array(np.zeros((1000, 1000)) + 1))
    with pytest.raises(FileError, match=r"S.npz: what it holds takes"):
        read_matrix(tmp_path / "S.npz")


@pytest.mark.parametrize(
    "text",
    [
        "array real general\n1000000 1000000\n1\n",
        "coordinate real general\n1000000000000000 3 1\n1 1 1.0\n",
        "coordinate real general\n4 3 1000000000000000\n1 1 1.0\n",
    ],
)
def test_a_matrix_market_file_that_declares_too_much_is_refused(tmp_path: Path, text: str) -> None:
    pytest.importorskip("scipy", reason="scipy is not installed")
    (tmp_path / "V.mtx").write_text(f"%%MatrixMarket matrix {text}")
    with pytest.raises(FileError, match=r"V.mtx: its .* matrix takes .* GB"):
        read_matrix(tmp_path / "V.mtx")


@pytest.mark.parametrize("shape", [(10**14, 3), (10, 10**14)])
def test_stored_arrays_that_declare_too_much_are_refused(tmp_path: Path, shape: tuple[int, int]) -> None:
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    zarr = pytest.importorskip("zarr", reason="zarr is not installed")
    with h5py.File(tmp_path / "V.h5", "w") as file:
        file.create_dataset("V", shape=shape, dtype="f8", chunks=(2, 2))
    zarr.create_array(tmp_path / "V.zarr", shape=shape, dtype="f8", chunks=(2, 2))
    for name in ("V.h5", "V.zarr"):
        with pytest.raises(FileError, match="of which one line does not fit"):
            read_matrix(tmp_path / name)
    zarr.create_array(tmp_path / "chunk.zarr", shape=(4, 3), dtype="f8", chunks=(10**7, 10**7))
    with pytest.raises(FileError, match=r"it is stored in chunks of 8e\+05 GB"):
        read_matrix(tmp_path / "chunk.zarr")


def test_no_name_reaches_a_terminal_raw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    evil = "\x1b[31m\x9b2J\x07\u202e\x7f"
    _npz(tmp_path / "two.npz", **{evil: _npy((1, 1), b"\0" * 8), "B": _npy((1, 1), b"\0" * 8)})
    (tmp_path / f"{evil}.csv").write_text(f"a,{evil}\n1,2\n3,4\n")
    (tmp_path / "bad.csv").write_text(f"1,2\n3,{evil}\n")
    np.savez(tmp_path / f"{evil}.npz", W=np.ones((2, 1)), H=np.ones((1, 2)))
    for arguments in (
        ["fit", f"{evil}.csv", "-k", "1", "--max-iter", "2"],
        ["fit", "two.npz", "-k", "1"],
        ["fit", "two.npz", "-k", "1", "--key", f"{evil}?"],
        ["fit", "bad.csv", "-k", "1"],
        ["fit", f"no {evil}.npy", "-k", "1"],
        ["fit", "two.npz", "-k", "1", "--checkpoint", f"{evil}.txt"],
        ["fit", "two.npz", "-k", "1", "--beta-loss", evil],
        ["report", f"{evil}.npz"],
    ):
        cli.main(arguments)
    for wrong in ([evil], ["fit", "V.npy", "-k", evil], ["fit", "V.npy", "-k", "2", f"--{evil}"]):
        with pytest.raises(SystemExit):
            cli.main(wrong)
    said = "".join(capsys.readouterr())
    assert said.count("\\x1b[31m\\x9b2J\\x07\\u202e\\x7f") >= 10
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", said)


def test_the_message_of_a_file_error_is_printable_itself(tmp_path: Path) -> None:
    with pytest.raises(FileError) as caught:
        check_output(tmp_path / "\x1b[2J.txt", force=False)
    assert "\\x1b[2J.txt" in str(caught.value)
    assert printable("grün, \u4e2d\n") == "grün, \u4e2d\n"
    assert printable("\udcff\ttext") == "\\udcff\\ttext"
