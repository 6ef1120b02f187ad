"""Arrays of objects in NumPy files: names and numbers are read, and nothing is run."""

from __future__ import annotations

import io
import pickle
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nmf_xp.arrays import memory
from nmf_xp.files import FileError
from nmf_xp.files.objects import LARGEST, objects, read_objects
from nmf_xp.scverse.cnmf.frames import Frame, read_frame, write_frame, write_text

PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()


def as_objects(values: list[Any], shape: tuple[int, ...], order: Any = "C") -> Any:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return np.asarray(array.reshape(shape), order=order)


@given(values=st.lists(PLAIN, max_size=30), protocol=st.integers(3, 5))
def test_text_and_numbers_are_what_numpy_reads(values: list[Any], protocol: int) -> None:
    found = objects(pickle.dumps(as_objects(values, (len(values),)), protocol=protocol), (len(values),))
    assert found.tolist() == values
    assert [type(x) for x in found] == [type(x) for x in values]


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_table_in_either_order_is_read(tmp_path: Path, order: str) -> None:
    table = as_objects([3, 0, 59886188, False, 4, 1, 77, True], (2, 4), order)
    np.savez_compressed(tmp_path / "a.npz", data=table, index=np.arange(2), columns=np.asarray(list("abcd"), object))
    found = read_objects(tmp_path / "a.npz")
    assert found["data"].tolist() == table.tolist()
    assert found["columns"].tolist() == list("abcd")
    frame = read_frame(tmp_path / "a.npz", columns=("c", "d"))
    assert frame.column("c").tolist() == [59886188, 77]


class Runs:
    """What makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


class Named:
    """What names a function of the standard library."""

    def __reduce__(self) -> Any:
        return eval, ("1",)


def hostile(path: Path) -> dict[str, bytes]:
    ran = Runs(path)
    good = pickle.dumps(as_objects(["a"], (1,)))
    return {
        "an object beside text": pickle.dumps(as_objects(["a", ran], (2,))),
        "an object in the place of the array": pickle.dumps(ran),
        "eval": pickle.dumps(as_objects([Named()], (1,))),
        "an old instruction that calls": b"(S'touch x'\nios\nsystem\n.",
        "a call on the stack": b"\x80\x02(cos\nsystem\nX\x05\x00\x00\x00touchoq\x00.",
        "a number of an extension": b"\x80\x02\x82\x01.",
        "a persistent name": b"\x80\x02X\x01\x00\x00\x00aQ.",
        "another function of numpy": good.replace(b"_reconstruct", b"fromstring__"),
        "plain text": pickle.dumps("a"),
        "a list": pickle.dumps(["a"]),
        "an array in an array": pickle.dumps(as_objects([np.ones(2)], (1,))),
        "bytes": pickle.dumps(as_objects([b"a"], (1,))),
        "an array of numbers": pickle.dumps(np.ones(1)),
        "cut off": good[:-20],
        "nothing": b"",
        "no pickle": b"\xff" * 40,
        "another shape": pickle.dumps(as_objects(["a", "b"], (2,))),
    }


@pytest.mark.parametrize("kind", list(hostile(Path("x"))))
def test_anything_else_is_an_error_and_never_runs(tmp_path: Path, kind: str) -> None:
    pickled = hostile(tmp_path / "ran")[kind]
    with pytest.raises(ValueError, match=r"pickled|damaged"):
        objects(pickled, (2,) if kind == "an object beside text" else (1,))
    assert not (tmp_path / "ran").exists()


def test_a_hostile_table_is_one_sentence(tmp_path: Path) -> None:
    columns = as_objects(["a", Runs(tmp_path / "ran")], (2,))
    np.savez(tmp_path / "a.df.npz", data=np.ones((1, 2)), index=np.arange(1), columns=columns)
    with pytest.raises(FileError, match="could run any code"):
        read_frame(tmp_path / "a.df.npz")
    assert not (tmp_path / "ran").exists()
    np.load(tmp_path / "a.df.npz", allow_pickle=True)["columns"]  # numpy runs it
    assert (tmp_path / "ran").exists()


@given(place=st.integers(0, 10**6), byte=st.integers(0, 255), cut=st.integers(0, 10**6))
def test_changed_bytes_give_plain_values_or_an_error(place: int, byte: int, cut: int) -> None:
    pickled = bytearray(pickle.dumps(as_objects(["gene", 3, 2.5, None, True, "x" * 300], (6,)), protocol=4))
    pickled[place % len(pickled)] = byte
    try:
        found = objects(bytes(pickled[: len(pickled) - cut % 3]), (6,))
    except ValueError:
        return
    assert all(x is None or type(x) in (str, int, float, bool) for x in found)


def test_tables_are_written_without_pickles_and_come_back(tmp_path: Path) -> None:
    frame = Frame(np.asarray([[0.1, 1 / 3], [2.0, 1e-300]]), ["a", "b\tc"], ["x", "\x1b[2J"])
    write_frame(tmp_path / "a.df.npz", frame)
    with np.load(tmp_path / "a.df.npz", allow_pickle=False) as stored:
        assert {name: stored[name].dtype.kind for name in stored} == {"data": "f", "index": "U", "columns": "U"}
    found = read_frame(tmp_path / "a.df.npz")
    assert (found.rows, found.columns) == (frame.rows, frame.columns)
    np.testing.assert_array_equal(found.values, frame.values)
    write_text(tmp_path / "a.txt", frame)
    pandas = pytest.importorskip("pandas")
    table = pandas.read_csv(tmp_path / "a.txt", sep="\t", index_col=0, float_precision="round_trip")
    assert (list(table.index), list(table.columns)) == (frame.rows, frame.columns)
    np.testing.assert_array_equal(table.to_numpy(), frame.values)


@pytest.mark.parametrize("kind", ["no index", "text", "another length", "a column less", "cut off", "empty"])
def test_a_damaged_table_is_one_sentence(tmp_path: Path, kind: str) -> None:
    parts: dict[str, Any] = {"data": np.ones((2, 2)), "index": np.arange(2), "columns": np.asarray(["a", "\x1b[2J"])}
    if kind == "no index":
        del parts["index"]
    if kind == "text":
        parts["data"] = as_objects(list("abcd"), (2, 2))
    if kind == "another length":
        parts["index"] = np.arange(3)
    file = io.BytesIO()
    np.savez(file, **parts)
    whole = file.getvalue()
    path = tmp_path / "a.df.npz"
    path.write_bytes({"cut off": whole[:-40], "empty": b""}.get(kind, whole))
    with pytest.raises(FileError) as error:
        read_frame(path, columns=("n_components",))
    assert str(error.value).startswith(f"{path}: ")
    assert "\x1b" not in str(error.value)


@pytest.mark.parametrize("instruction", [b"]", b"(", b"N", b"]\x94", b"h\x00"])
def test_few_bytes_do_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instruction: bytes) -> None:
    """A pickle is compressed a thousandfold; what it would take is known before any of it is read."""
    count = 200_000
    pickled = b"\x80\x04N\x94" + instruction * count + b"."
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "|O", "fortran_order": False, "shape": (1,)})
    with zipfile.ZipFile(tmp_path / "a.df.npz", "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("data.npy", head.getvalue() + pickled)
    assert (tmp_path / "a.df.npz").stat().st_size < len(pickled) / 50
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"pickled|damaged"):
        objects(pickled, (1,))
    assert tracemalloc.get_traced_memory()[1] < LARGEST * len(pickled)
    tracemalloc.stop()
    monkeypatch.setattr(memory, "available", lambda: LARGEST * len(pickled) / 2)
    with pytest.raises(FileError, match="what it describes takes"):
        read_frame(tmp_path / "a.df.npz")
