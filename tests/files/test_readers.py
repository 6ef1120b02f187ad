"""Damaged files: a fixed few of each kind, of which `python -m tests.readers` reads as many as there is time for."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from nmf_xp.arrays import memory
from nmf_xp.data import chunks
from nmf_xp.files import FileError, cells, gz, read_matrix
from nmf_xp.run.checkpoint import CheckpointError, storage
from tests import readers
from tests.files import valid
from tests.scripts import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

for needed in ("scipy", "PIL", "safetensors", "h5py", "zarr", "threadpoolctl", "openpyxl", "pyarrow", "tifffile"):
    pytest.importorskip(needed, reason="the readers of all formats are tried together")

MATRIX = b"%%MatrixMarket matrix "


@pytest.mark.skipif(os.name != "posix", reason="the processes are waited for as POSIX does it")
@pytest.mark.parametrize("kind", sorted(valid.MAKERS))
def test_damaged_files_are_read_or_refused(kind: str) -> None:
    command = [sys.executable, "-m", "tests.readers", "--kind", kind, "--seed", "1", "--count", "60"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(f"{kind}: 60 cases, ")


@pytest.mark.parametrize("kind", sorted({*valid.MAKERS} - {"checkpoint"}))
def test_what_is_not_damaged_is_read(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "damaged", lambda content, *_: content)
    for number in range(20):
        with tempfile.TemporaryDirectory() as folder:
            path, key = readers.write(Path(folder), kind, 0, number)
            assert readers.examine(path, kind, key, []) == "read"


@pytest.mark.parametrize(
    ("does", "what"),
    [
        (lambda: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda: warnings.warn("beware", stacklevel=1), "warns: UserWarning: beware"),
        (lambda: np.ones(2**26), "takes 5"),
    ],
)
def test_what_a_reader_must_not_do_is_found(
    does: Callable[[], Any], what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if what.startswith("takes") and readers._peak() == 0:
        pytest.skip("the system does not say how much memory the process has had")
    monkeypatch.setattr(readers, "use", lambda *_: does())
    (tmp_path / "V.csv").write_text("1,2\n")
    assert readers.examine(tmp_path / "V.csv", "table", None, []).startswith(what)


@pytest.mark.skipif(os.name != "posix", reason="the processes are waited for as POSIX does it")
@pytest.mark.parametrize(("does", "what"), [("os.abort()", "ends the process: -6"), ("time.sleep(999)", "hangs")])
def test_a_reader_that_ends_the_process_or_hangs_is_found(
    does: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = f"import os, time; from tests import readers; readers.use = lambda *_: {does}; readers.main()"
    monkeypatch.setattr(readers, "SCRIPT", ["-c", code])
    monkeypatch.setattr(readers, "LIMIT", 5.0)
    assert list(readers.cases("npy", 0, 0, 1, float("inf"))) == [(0, what)]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"array real general\n0 2\n1\n2\n", "declares a general matrix of shape 0 x 2"),
        (b"array real general\n2 1\n1\n\0\n2\n", "line 4 holds a NUL character"),
        (b"array real general\n9 9\n1\n2\n", "is cut short: it declares 81 entries"),
        (b"array real symmetric\n2 3\n1\n2\n3\n", "declares a symmetric matrix of shape 2 x 3"),
        (b"array complex general\n1 1\n1 1\n", "must hold real numbers, general or symmetric, got array complex"),
        (b"coordinate real general\n2 2\n1\n", "its sizes are no 3 integers"),
    ],
)
def test_a_matrix_market_file_that_ends_scipy_is_refused(tmp_path: Path, content: bytes, what: str) -> None:
    path = tmp_path / "V.mtx"
    path.write_bytes(MATRIX + content)
    with pytest.raises(FileError, match=what):
        read_matrix(path)


@pytest.mark.parametrize(
    ("head", "lines", "message"),
    [
        ("coordinate real", "1 1 2\n2 2 1D5\n", "line 4: '1D5' is no number; write it as 1e5"),
        ("coordinate real", "1 1 2\r\n2 2 0x10\r\n", "line 4: '0x10' is no number"),
        ("coordinate real", "1 1 1.2.3\n2 2 1\n", "line 3: '1.2.3' is no number"),
        ("coordinate real", "1 1 1e\n2 2 1", "line 3: '1e' is no number"),
        ("coordinate real", "1 1 5,3\n2 2 1\n", "line 3: '5,3' is no number"),
        ("coordinate real", "1 1 1_0\n2 2 1\n", "line 3: '1_0' is no number"),
        ("coordinate real", "1 1-5\n2 2 1\n", "line 3 has 2 cells, where an entry has 3"),
        ("coordinate real", "1 1 1\n2 2 1 7", "line 4 has 4 cells, where an entry has 3"),
        ("coordinate real", "1.0 1 1\n2 2 1\n", "line 3: '1.0' is no integer"),
        ("coordinate integer", "1 1 2\n\n2 2 1.5\n", "line 5: '1.5' is no integer"),
        ("coordinate integer", "1 1 1e3\n2 2 1\n", "line 3: '1e3' is no integer"),
        ("coordinate pattern", "1 1 5\n2 2\n", "line 3 has 3 cells, where an entry has 2"),
        ("array real", "1\n2\n3D0\n4\n", "line 5: '3D0' is no number; write it as 3e0"),
        ("array real", "1\n2 7\n3\n4\n", "line 4 has 2 cells, where an entry has 1"),
        ("array integer", "1\n2\n3.5\n4\n", "line 5: '3.5' is no integer"),
    ],
)
def test_a_cell_of_a_matrix_market_file_is_read_whole_or_refused(
    tmp_path: Path, head: str, lines: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = "2 2" if head.startswith("array") else "2 2 2"
    (tmp_path / "V.mtx").write_bytes(f"%%MatrixMarket matrix {head} general\n{sizes}\n{lines}".encode())
    for piece in (gz.PIECE, 7):  # a line goes on in the next piece
        monkeypatch.setattr(gz, "PIECE", piece)
        with pytest.raises(FileError) as caught:
            read_matrix(tmp_path / "V.mtx")
        assert str(caught.value) == f"{tmp_path / 'V.mtx'}: {message}"


def test_every_way_to_write_a_number_is_read(tmp_path: Path) -> None:
    cells = "1", "1.", ".5", "1E5", "2e-3", " 3.25\t", "nan", "INF"
    content = "%%MatrixMarket matrix array real general\n% of 1D5\n8 1\n" + "\n".join(cells)
    (tmp_path / "V.mtx").write_text(content)
    np.testing.assert_array_equal(read_matrix(tmp_path / "V.mtx").values[:, 0], [float(cell) for cell in cells])


def test_blanks_behind_the_last_number_of_a_matrix_market_file_are_no_harm(tmp_path: Path) -> None:
    (tmp_path / "V.mtx").write_bytes(MATRIX + b"array real general\n2 2\n1\n2\n3\n4  ")
    np.testing.assert_array_equal(read_matrix(tmp_path / "V.mtx").values, [[1, 3], [2, 4]])


def test_a_table_is_held_against_what_its_cells_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "V.csv"
    path.write_text("1.5,2.5\n" * 20000)
    monkeypatch.setattr(memory, "available", lambda: 2**18)
    monkeypatch.setattr(cells, "STEP", 1000)
    with pytest.raises(FileError, match=r"its table takes more than 0.00026\d GB, and 0.000262 GB are free"):
        read_matrix(path)


def test_an_error_of_a_library_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "V.npy"
    path.write_bytes(b"\x93NUMPY\1\0" + b"\xff\x0f" + b"x" * 4095)
    with pytest.raises(FileError) as caught:
        read_matrix(path)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("shape", [(), (50,), (12, 40), (3, 5, 7)])
def test_many_chunks_are_read_a_few_at_a_time(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    import zarr

    values = np.random.default_rng(0).random(shape)
    stored = zarr.create_array({}, data=values, chunks=tuple(2 + i for i in range(len(shape))) or "auto")
    asked: list[int] = []
    read = type(stored).__getitem__

    def count(array: Any, pieces: Any) -> Any:
        asked.append(chunks._count([(piece.start, piece.stop) for piece in pieces], array.chunks))
        return read(array, pieces)

    monkeypatch.setattr(type(stored), "__getitem__", count)
    monkeypatch.setattr(chunks, "TOGETHER", 4)
    np.testing.assert_array_equal(chunks.part(stored), values)
    if shape:
        np.testing.assert_array_equal(chunks.part(stored, 1, 3), values[1:3])
    assert max(asked) <= 4


def test_members_of_a_zarr_group_that_are_damaged_are_one_error_and_no_output(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import gc

    import zarr

    group = zarr.open_group(tmp_path / "V.zarr", mode="w")
    for name in ("data", "indices", "indptr"):
        group.create_array(name, data=np.arange(3))
        (tmp_path / "V.zarr" / name / "zarr.json").write_text("{")
    with pytest.raises(FileError, match="cannot be read: "):
        read_matrix(tmp_path / "V.zarr")
    gc.collect()
    assert capfd.readouterr() == ("", "")


def test_a_checkpoint_whose_steps_or_arrays_do_not_fit_in_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nmf_xp import nmf

    path = tmp_path / "run.npz"
    nmf(valid.V, 3, max_iter=10, checkpoint=path, **valid.RUN)
    header, arrays = storage.read(path)
    strides = {name: [2**24 * step for step in steps] for name, steps in header["strides"].items()}
    path.unlink()
    storage.save(path, storage.Stored({**header, "strides": strides}, arrays), private=False)
    monkeypatch.setattr(memory, "available", lambda: 2**26)
    with pytest.raises(CheckpointError, match="no 'strides' that fit"):
        nmf(valid.V, 3, max_iter=15, checkpoint=path, **valid.RUN)
    folder = tmp_path / "run.zarr"
    storage.save(folder, storage.Stored(header, arrays), private=False)
    monkeypatch.setattr(memory, "available", lambda: 100)
    with pytest.raises(CheckpointError, match=r"what it holds takes .* GB"):
        storage.read(folder)
