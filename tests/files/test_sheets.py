"""Workbooks: one sheet of them, where its table stands; no formula that was never computed, no way to other files."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from nmf_xp.arrays import memory
from nmf_xp.files import FileError, read_matrix

if TYPE_CHECKING:
    from pathlib import Path

openpyxl: Any = pytest.importorskip("openpyxl", reason="openpyxl is not installed")


def book(path: Path, **sheets: list[list[Any]]) -> Path:
    made = openpyxl.Workbook()
    made.remove(made.active)
    for name, rows in sheets.items():
        sheet = made.create_sheet(name)
        for row in rows:
            sheet.append(row)
    made.save(path)
    return path


def changed(path: Path, part: str, old: bytes, new: bytes) -> None:
    with zipfile.ZipFile(path) as zipped:
        parts = {name: zipped.read(name) for name in zipped.namelist()}
    assert old in parts[part]
    parts[part] = parts[part].replace(old, new, 1)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, content in parts.items():
            zipped.writestr(name, content)


ROWS: list[list[Any]] = [["id", "x", "y"], ["a", 1, 2.5], ["b", None, 4]]
SHEET = "xl/worksheets/sheet1.xml"


def test_the_only_sheet_that_holds_something_is_read(tmp_path: Path) -> None:
    found = read_matrix(book(tmp_path / "V.xlsx", empty=[], data=ROWS))
    assert (found.row_names, found.column_names) == (["a", "b"], ["x", "y"])
    np.testing.assert_array_equal(found.values, [[1, 2.5], [np.nan, 4]])
    assert found.note == "the sheet 'data', a table with column names and row names"


def test_of_several_sheets_one_is_to_be_said(tmp_path: Path) -> None:
    path = book(tmp_path / "V.xlsx", one=ROWS, two=[[1, 2], [3, 4]])
    with pytest.raises(FileError, match="holds the sheets one, two; say which one with --key"):
        read_matrix(path)
    with pytest.raises(FileError, match="holds no sheet 'three', only one, two"):
        read_matrix(path, key="three")
    np.testing.assert_array_equal(read_matrix(path, key="two").values, [[1, 2], [3, 4]])


def test_a_table_may_stand_anywhere_in_its_sheet(tmp_path: Path) -> None:
    path = book(tmp_path / "V.xlsx", data=[[], [], *([None, None, *row] for row in ROWS)])
    found = read_matrix(path)
    assert (found.row_names, found.column_names) == (["a", "b"], ["x", "y"])
    path = book(tmp_path / "V.xlsx", data=[[1, 2, None], [3, 4, 5]])
    np.testing.assert_array_equal(read_matrix(path).values, [[1, 2, np.nan], [3, 4, 5]])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([["x", "y"], [1, 2], [3, "four"]], "line 3, column 2: 'four' is not a number"),
        ([["x", "y"], [1, "2,5"]], "line 2, column 2: '2,5' is not a number"),
        ([["x", "y"], [1, "=A1+B1"]], "holds formulas without results; save it with a spreadsheet program"),
        ([], "holds no cells"),
        ([["x", "y"]], "holds a row of names and nothing below it"),
    ],
)
def test_what_is_no_table_of_numbers_is_refused(tmp_path: Path, rows: list[list[Any]], message: str) -> None:
    with pytest.raises(FileError) as caught:
        read_matrix(book(tmp_path / "V.xlsx", data=rows))
    assert message in str(caught.value)


def test_no_declaration_of_xml_is_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("7")
    path = book(tmp_path / "V.xlsx", data=ROWS)
    entity = f'<!DOCTYPE x [<!ENTITY e SYSTEM "{(tmp_path / "secret").as_uri()}">]><worksheet'.encode()
    changed(path, SHEET, b"<worksheet", entity)
    with pytest.raises(FileError, match="holds declarations that may lead to other files"):
        read_matrix(path)


def test_what_a_sheet_declares_of_its_size_is_not_believed(tmp_path: Path) -> None:
    path = book(tmp_path / "V.xlsx", data=ROWS)
    changed(path, SHEET, b'ref="A1:C3"', b'ref="A1:XFD1048576"')
    assert read_matrix(path).values.shape == (2, 2)
    changed(path, SHEET, b'<row r="3"', b'<row r="999999999999"')
    with pytest.raises(FileError, match="it declares rows beyond the last that a sheet has"):
        read_matrix(path)


def test_texts_that_unfold_beyond_the_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = book(tmp_path / "V.xlsx", data=[["x" * 30000], [1]])
    monkeypatch.setattr(memory, "available", lambda: 10**5)
    with pytest.raises(FileError, match="what its sheets share takes"):
        read_matrix(path)


def test_an_old_workbook_or_none_is_said(tmp_path: Path) -> None:
    path = tmp_path / "V.xlsx"
    path.write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500))
    with pytest.raises(FileError, match="is an old workbook, or has a password"):
        read_matrix(path)
    path.write_text("1,2\n3,4\n")
    with pytest.raises(FileError, match="it is no workbook"):
        read_matrix(path)
