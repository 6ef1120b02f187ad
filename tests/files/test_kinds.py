"""Files of every kind come back as they were written, with their names, and bad ones are one sentence."""

from __future__ import annotations

import gzip
import io
import os
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from nmf_xp import RowBlocks
from nmf_xp.arrays import memory
from nmf_xp.files import FileError, Matrix, read_matrix
from tests.files.kinds import KINDS, Given, Kind

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

for needed in ("scipy", "PIL", "safetensors", "h5py", "zarr", "threadpoolctl", "openpyxl", "pyarrow"):
    pytest.importorskip(needed, reason="the readers of all formats are tried together")

V = np.arange(1.0, 13).reshape(4, 3)
ROWS, COLUMNS = ["cell 0", "cell 1", "cell 2", "cell 3"], ["TP53", "BRCA1", "MYC"]
EVIL = (
    *("<script>alert(1)</script>", "\x1b[2J", "\u202etxt.exe", "=1+1", "@SUM(A1)", '"; DROP', "a,b", "a\tb", " "),
    *("1e400", "NaN", "-", "../../etc", "x" * 5000, "\N{GRINNING FACE}", "e\u0301"),
)
every = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


def written(folder: Path, kind: Kind, V: Any = V, rows: list[Any] = ROWS, columns: list[Any] = COLUMNS) -> Path:
    path = folder / kind.name
    kind.write(path, Given(V, rows, columns))
    return path


def dense(values: Any) -> Any:
    return values.toarray() if hasattr(values, "toarray") else values


def refused(path: Path, kind: Kind) -> str:
    with pytest.raises(FileError) as caught:
        read_matrix(path, key=kind.key)
    return sentence(caught.value, path)


def sentence(error: FileError, path: Path) -> str:
    """What an error says, which is one short printable line that names the file."""
    said = str(error)
    assert said.startswith(str(path))
    assert said.isprintable()
    assert len(said) < 1000
    return said.removeprefix(str(path))


def read_or_refused(path: Path, kind: Kind) -> Matrix | None:
    try:
        return read_matrix(path, key=kind.key)
    except FileError as error:
        sentence(error, path)
        return None


@every
def test_a_matrix_comes_back_with_its_names(tmp_path: Path, kind: Kind) -> None:
    found = read_matrix(written(tmp_path, kind), key=kind.key)
    if kind.exact:
        np.testing.assert_array_equal(dense(found.values), V)
        assert (found.row_names, found.column_names) == ((ROWS, COLUMNS) if kind.named else (None, None))
    assert np.isfinite(dense(found.values)).all()


@every
def test_nothing_and_what_is_no_file_is_one_sentence(tmp_path: Path, kind: Kind) -> None:
    path = tmp_path / kind.name
    is_folder = "." not in kind.name or path.suffix == ".zarr"
    assert (refused(path, kind) == ": no such file") or is_folder
    path.symlink_to(tmp_path / "nowhere")
    assert "which is not there" in refused(path, kind) or is_folder
    path.unlink()
    path.mkdir()
    assert "is a directory" in refused(path, kind) or is_folder
    path.rmdir()
    path.touch()
    refused(path, kind)


def _inner(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def _cut(content: bytes) -> bytes:
    return content[: len(content) * 2 // 3]


def _zeros(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes(16) + content[middle + 16 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut short": _cut,
    "the first half": lambda content: content[: len(content) // 2],
    "all but a byte": lambda content: content[:-1],
    "wrong magic": lambda content: b"no file of this kind, 1 2 3\n" + content[28:],
    "text in its place": lambda _: b"This is a letter.\n\nDear reader,\n",
    "noise in its place": lambda _: np.random.default_rng(0).bytes(500),
    "zeros at its begin": lambda content: bytes(64) + content[64:],
    "zeros in its middle": _zeros,
    "zeros in its place": lambda content: bytes(len(content)),
    "twice": lambda content: content + content,
    "something behind it": lambda content: content + b"\n<script>\x1b[2J",
}
ALWAYS = {"wrong magic", "text in its place", "noise in its place", "zeros at its begin", "zeros in its place"}
"""After these a file is none of its kind any more, wherever it is one file."""


@every
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_read_or_one_sentence(tmp_path: Path, kind: Kind, damage: str) -> None:
    path = written(tmp_path, kind)
    for file in _inner(path):
        whole = file.read_bytes()
        file.write_bytes(DAMAGES[damage](whole))
        found = read_or_refused(path, kind)
        ruined = damage in ALWAYS and not (kind.loose and damage in ("wrong magic", "zeros at its begin"))
        if path.is_file() and (ruined or (damage in ("cut short", "the first half") and not kind.text)):
            assert found is None
        file.write_bytes(whole)
    assert read_matrix(path, key=kind.key) is not None


@every
def test_what_declares_more_than_the_memory_is_refused_or_read_in_blocks(
    tmp_path: Path, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = np.tile(V, (2000, 1))
    rows = [f"cell {i}" for i in range(len(many))]
    path = written(tmp_path, kind, many, rows)
    monkeypatch.setattr(memory, "available", lambda: 3000)
    for step in ("cells.STEP",):
        monkeypatch.setattr(f"nmf_xp.files.{step}", 100)
    found = read_or_refused(path, kind)
    assert found is None or isinstance(found.values, RowBlocks)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.named], ids=lambda kind: kind.name)
@pytest.mark.parametrize("name", EVIL)
def test_names_of_any_kind_are_kept(tmp_path: Path, kind: Kind, name: str) -> None:
    evil = [name, *ROWS[1:]]
    if kind.name == "records.h5ad" and len(name) > 64:
        return  # longer than its fields are
    try:
        path = written(tmp_path, kind, rows=evil, columns=[*COLUMNS[:2], name])
    except Exception as error:  # a format that cannot hold it says so itself
        assert "openpyxl" in type(error).__module__  # noqa: PT017
        return
    found = read_or_refused(path, kind)
    if found is None or not name.strip() or "\t" in name:
        return
    assert found.row_names == evil
    assert found.column_names == [*COLUMNS[:2], name]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.named], ids=lambda kind: kind.name)
def test_names_that_are_there_twice_are_kept_and_said(tmp_path: Path, kind: Kind) -> None:
    twice = ["a", "a", "b", "c"]
    found = read_matrix(written(tmp_path, kind, rows=twice), key=kind.key)
    assert found.row_names == twice
    assert found.note is not None
    assert "row names are there more than once, such as 'a' (2 times)" in found.note


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.apart], ids=lambda kind: kind.name)
@pytest.mark.parametrize(("rows", "columns"), [(ROWS[:3], COLUMNS), (ROWS, COLUMNS[:2]), ([*ROWS, "e"], COLUMNS)])
def test_names_of_another_number_are_refused(tmp_path: Path, kind: Kind, rows: list[str], columns: list[str]) -> None:
    refused(written(tmp_path, kind, rows=rows, columns=columns), kind)


@pytest.mark.parametrize("name", ["V.xlsx", "V.parquet", "V.feather", "categories.h5ad"])
def test_names_that_are_missing_are_not_available(tmp_path: Path, name: str) -> None:
    kind = next(kind for kind in KINDS if kind.name == name)
    index = True if name == "V.xlsx" else None
    found = read_matrix(written(tmp_path, kind, rows=["a", None, "c", "d"]), index=index)
    assert found.row_names == ["a", "" if name == "V.xlsx" else "NA", "c", "d"]
    np.testing.assert_array_equal(found.values, V)


@pytest.mark.parametrize(
    ("name", "said", "lost"),
    [
        ("V.csv", {"key": "V"}, "--key"),
        ("V.parquet", {"key": "V", "index": True}, "--key and --index"),
        ("V.npy", {"header": False, "sep": ","}, "--header and --sep"),
        ("V.xlsx", {"decimal": ","}, "--decimal"),
        ("V.mtx", {"key": "V"}, "--key"),
    ],
)
def test_what_a_kind_of_file_has_not_cannot_be_said_of_it(
    tmp_path: Path, name: str, said: dict[str, Any], lost: str
) -> None:
    path = tmp_path / name
    path.write_bytes(b"1,2\n3,4\n")
    with pytest.raises(FileError, match=rf"{name}: {lost} cannot be said of {path.suffix}; leave it out$"):
        read_matrix(path, **said)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".txt", ".mtx"])
def test_a_number_beyond_all_numbers_is_refused(tmp_path: Path, suffix: str) -> None:
    sep = {".tsv": "\t", ".csv": ","}.get(suffix, " ")
    text = "\n".join(sep.join(line) for line in (["1", "2"], ["3", "1e400"]))
    if suffix == ".mtx":
        text = "%%MatrixMarket matrix array real general\n4 1\n1\n2\n3\n1e400\n"
    for packed in (False, True):
        path = tmp_path / f"V{suffix}{'.gz' * packed}"
        path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
        with pytest.raises(FileError, match="'1e400' is beyond the numbers of float64"):
            read_matrix(path)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".txt", ".all", ".mtx"])
def test_what_gzip_holds_that_is_no_text_is_named(tmp_path: Path, suffix: str) -> None:
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as file:
        file.writestr(f"V{suffix}", "1,2\n3,4\n")
    path = tmp_path / f"V{suffix}.gz"
    for content in (zipped.getvalue(), gzip.compress(b"1,2\n3,4\n")):
        path.write_bytes(gzip.compress(content))
        with pytest.raises(FileError, match="holds what is compressed a second time; unpack it first"):
            read_matrix(path)
    path.write_text("1,2\n3,4\n")
    with pytest.raises(FileError, match="it is not compressed by gzip, as its name says"):
        read_matrix(path)
    path.with_suffix("").write_bytes(gzip.compress(b"1,2\n3,4\n"))
    with pytest.raises(FileError, match="is compressed by gzip, which its name does not say"):
        read_matrix(path.with_suffix(""))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes")
@every
def test_what_never_ends_is_no_input(tmp_path: Path, kind: Kind) -> None:
    path = tmp_path / kind.name
    os.mkfifo(path)
    said = refused(path, kind)
    assert "is a device, a pipe or a socket" in said or "none of" in said


def test_a_folder_of_10x_that_leads_out_of_itself_is_refused(tmp_path: Path) -> None:
    kind = next(kind for kind in KINDS if kind.name == "hg19")
    path = written(tmp_path, kind)
    (tmp_path / "secret").write_text("a\nb\nc\nd\n")
    (path / "barcodes.tsv").unlink()
    (path / "barcodes.tsv").symlink_to(tmp_path / "secret")
    with pytest.raises(FileError, match=r"barcodes\.tsv: leads out of its folder"):
        read_matrix(path)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("V.cvs", "did you mean .csv?"),
        ("V.h5da", "did you mean .h5ad?"),
        ("V.prquet", "did you mean .parquet?"),
        ("V.xls", "save it as .xlsx"),
        ("V.rds", "save it from R as .csv or .mtx"),
        ("V.pkl", "a pickle can run any code"),
        ("V.h5ad.gz", "unpack it first, as `gunzip` does"),
        ("V.npy.gz", "unpack it first, as `gunzip` does"),
        ("V.dat", "did you mean .txt?"),
    ],
)
def test_a_suffix_that_nobody_knows_says_which_is_nearest(tmp_path: Path, name: str, what: str) -> None:
    with pytest.raises(FileError) as caught:
        read_matrix(tmp_path / name)
    assert what in str(caught.value)
