"""No row and no column of a table vanishes: names are found where all is text, and one bad cell is an error."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pytest

from nmf_xp.files import FileError, read_matrix

if TYPE_CHECKING:
    from pathlib import Path

BAD = (
    *("N/A", "10 %", "1,000", "#N/A", "-", "1O", "n/a", "$5", "1_000", "\u22125", "1d0", "<0.1", "n.d.", "<NA>", "NaT"),
    *("#REF!", "(5)", "1.5*", "\u2264 2", "~3", "1 x 10^5", "+-2", "2\u00b10.1", "0x10", "#DIV/0!", "\u2212"),
)


def table(folder: Path, text: str) -> Path:
    path = folder / "V.csv"
    path.write_bytes(text.encode())
    return path


def refused(folder: Path, text: str) -> str:
    with pytest.raises(FileError) as caught:
        read_matrix(table(folder, text))
    return str(caught.value).removeprefix(f"{folder / 'V.csv'}: ")


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("shape", [(3, 2), (2, 3), (3, 1), (1, 3)])
def test_one_bad_cell_is_an_error_that_names_its_place(tmp_path: Path, bad: str, shape: tuple[int, int]) -> None:
    m, n = shape
    for i in range(m):
        for j in range(n):
            cells = [["12" for _ in range(n)] for _ in range(m)]
            cells[i][j] = f'"{bad}"'
            message = refused(tmp_path, "\n".join(map(",".join, cells)))
            assert message.startswith(f"line {i + 1}, column {j + 1}: {bad!r} is not a number")


@pytest.mark.parametrize("bad", BAD)
def test_a_line_or_column_of_bad_cells_holds_no_names(tmp_path: Path, bad: str) -> None:
    if bad == "1O":  # which is text, as in a line of `2a` and `2b`
        return
    for text in (f'"{bad}",1\n"{bad}",2\n', f'"{bad}","{bad}"\n1,2\n'):
        assert refused(tmp_path, text).startswith(f"line 1, column 1: {bad!r} is not a number; say --")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x,2,y\n1,2,3\n", "line 1, column 1: 'x' is not a number; say --header"),
        ("id,x\np,1\n5,2\n", "line 2, column 1: 'p' is not a number; say --index"),
        ("5,1,2\np,1,2\nq,3,4\n", "line 2, column 1: 'p' is not a number; say --index"),
        ("x,y\nN/A,2\n3,4\n", "line 2, column 1: 'N/A' is not a number; say --index"),
        ("p,q,3\nr,1,2\ns,3,4\n", "line 1, column 2: 'q' is not a number; say --header"),
        # A line that is one cell short leaves no place to numbers: only text is a row's name.
        ("Measured in May\n1.5,2\n3.25,4\n", "line 1 has 1 names for the 2 columns below it; say --index"),
        ("\na,b\n1.5,2,3\n3.25,4,5\n", "line 2 has 2 names for the 3 columns below it; say --index"),
        ("a,b\n1,2,3\n2,4,5\n", "line 1 has 2 names for the 3 columns below it; say --index"),
        ("1,2\n3,4,5\n6,7,8\n", "line 2 has 3 cells"),
    ],
)
def test_names_among_numbers_are_an_error(tmp_path: Path, text: str, message: str) -> None:
    assert refused(tmp_path, text).startswith(message)


def test_what_is_no_name_by_itself_is_one_where_it_is_said(tmp_path: Path) -> None:
    path = table(tmp_path, "N/A,1\n3,4\n")
    assert read_matrix(path, index=True).row_names == ["N/A", "3"]
    assert read_matrix(path, header=True).column_names == ["N/A", "1"]


@pytest.mark.parametrize(
    ("text", "rows", "columns"),
    [
        (",0,1\n0,1,2\n1,3,4\n", ["0", "1"], ["0", "1"]),  # pandas numbers both
        (",2001,2002\n0,1,2\n1,3,4\n2,1,1\n", ["0", "1", "2"], ["2001", "2002"]),
        (",0,1,2\n17,1,2,5\n23,3,4,5\n", ["17", "23"], ["0", "1", "2"]),
        (",400,402\ns1,1,2\ns2,3,4\n", ["s1", "s2"], ["400", "402"]),
        (",a,b\n7,1,2\n9,3,4\n", ["7", "9"], ["a", "b"]),
        ("country,1990,2000\nFR,1,2\nPE,3,4\n", ["FR", "PE"], ["1990", "2000"]),
        ("none,low,high\nx,1,2\ny,3,4\n", ["x", "y"], ["low", "high"]),
        ("day,a\n2020-01-01,1\n2020-01-02,2\n", ["2020-01-01", "2020-01-02"], ["a"]),
        ("1990,2000\n1,2\n", None, None),
        ("id,a\n1,10\n2,30\n", None, ["id", "a"]),  # an index of integers has to be said
    ],
)
def test_names_that_are_all_text_or_numbers_under_a_corner(
    tmp_path: Path, text: str, rows: list[str] | None, columns: list[str] | None
) -> None:
    for written in (text, "\ufeff" + text, text.replace("\n", "\r\n")):
        found = read_matrix(table(tmp_path, written))
        assert (found.row_names, found.column_names) == (rows, columns)


def test_an_empty_corner_over_numbers_has_to_be_said(tmp_path: Path) -> None:
    path = table(tmp_path, ",2\n3,4\n")
    with pytest.raises(FileError, match="line 1, column 1 is empty; say --header and --index if"):
        read_matrix(path)
    np.testing.assert_array_equal(read_matrix(path, header=False, index=False).values, [[np.nan, 2], [3, 4]])
    assert read_matrix(path, header=True, index=True).values.shape == (1, 1)
    # A number that is there twice is no name.
    assert read_matrix(table(tmp_path, ",2,2\n3,4,5\n")).values.shape == (2, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('"a,1,2\nb,3,4\nc,5,6\n', "line 1 cannot be read: unexpected end of data; see whether its quotes are closed"),
        ('a,1\n"b,2\nc",3\n', "line 2, column 1: the cell goes on over the end of the line; close its quotes"),
        ('1,2\n3,"4\n5,6"\n', "line 2, column 2: the cell goes on over the end of the line; close its quotes"),
        ('1,2\n"3"4,5\n', "line 2 cannot be read: ',' expected after '\"'; see whether its quotes are closed"),
        ("1,2\n3,\x004\n", "line 2, column 2: holds a NUL character"),
        ("a\x00b,1\nc,2\n", "line 1, column 1: holds a NUL character"),
        ("1\n\n3\n", "line 2 is empty; write NA if the number is missing"),
        ("1,2\r\n3\r\n", "line 2 has 1 cells, the lines above it have 2"),
        ("1\n2,3\n", "line 2 has 2 cells, the lines above it have 1"),
    ],
)
def test_rows_are_not_joined_and_not_left_out(tmp_path: Path, text: str, message: str) -> None:
    assert refused(tmp_path, text).startswith(message)


def test_quotes_that_are_closed_are_read(tmp_path: Path) -> None:
    found = read_matrix(table(tmp_path, '"gene, old","x ""1"""\n"a",1\n"b","2"\n\n'))
    assert (found.row_names, found.column_names) == (["a", "b"], ['x "1"'])
    np.testing.assert_array_equal(found.values, [[1], [2]])


def test_what_a_cell_holds_never_reaches_a_terminal_raw(tmp_path: Path) -> None:
    assert not re.search(r"[^\x20-\x7e]", refused(tmp_path, "1,2\n3,\x1b[31m4\n"))
