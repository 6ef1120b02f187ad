"""No row and no column of a table vanishes: names are found where all is text, and one bad cell is an error."""

from __future__ import annotations

import gzip
import re
import tracemalloc
from typing import TYPE_CHECKING

import numpy as np
import pytest

from nmf_xp.arrays import memory
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


@pytest.mark.parametrize(
    ("name", "text", "note"),
    [
        ("V.csv", "1,5;2,5\n3;4,25\n", "separated by semicolons, with decimal commas"),
        ("V.csv", "Probe;x;y\na;1,5;2,5\nb;3;4,25\n", "separated by semicolons, with decimal commas"),
        ("V.csv", '"Größe, cm";x;y\na;1,5;2,5\nb;3;4,25\n', "separated by semicolons, with decimal commas"),
        ("V.csv", "x;y\n1.5;2.5\n3;4.25\n", "separated by semicolons"),
        ("V.csv", "x\ty\n1.5\t2.5\n3\t4.25\n", "separated by tabs"),
        ("V.csv", "x|y\n1.5|2.5\n3|4.25\n", "separated by bars"),
        ("V.tsv", "x\ty\n1,5\t2,5\n3\t4,25\n", "with decimal commas"),
        ("V.txt", "1.5 2.5\n3   4.25\n", "separated by blanks"),
        ("V.txt", "  1.5\t 2.5 \n\n3 4.25\n", "separated by blanks"),
        ("V.txt", '"x" "y"\n"r 1" 1.5 2.5\n"r 2" 3 4.25\n', "separated by blanks"),  # R's write.table
        ("V.txt", "x\ty\n1.5\t2.5\n3\t4.25\n", "column names"),
        ("V.txt", "x,y\n1.5,2.5\n3,4.25\n", "separated by commas"),
        ("V.txt", "1,5 2,5\n3 4,25\n", "separated by blanks, with decimal commas"),
    ],
)
def test_what_separates_cells_is_found_and_said(tmp_path: Path, name: str, text: str, note: str) -> None:
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "cp1252"):
        for packed in (False, True):
            path = tmp_path / f"{name}{'.gz' * packed}"
            content = text.encode(encoding)
            path.write_bytes(gzip.compress(content) if packed else content)
            found = read_matrix(path)
            np.testing.assert_array_equal(found.values, [[1.5, 2.5], [3, 4.25]])
            assert found.note is not None
            assert note in found.note


@pytest.mark.parametrize(
    ("name", "text", "rows", "columns", "note"),
    [
        ("V.csv", "sep=;\nx;y\n1,5;2\n3;4\n", None, ["x", "y"], "separated by semicolons, with decimal commas"),
        ("V.csv", "sep=,\nx,y\n1.5,2\n3,4\n", None, ["x", "y"], "column names"),
        ("V.txt", "# x y\n1.5 2\n3 4\n", None, ["x", "y"], "column names, separated by blanks"),  # numpy.savetxt
        ("V.txt", "# made by hand\n1.5\t2\n3\t4\n", None, None, "without a line of comments above it"),
        (
            "V.tsv",
            "# Constructed from biom file\n#OTU ID\ts1\ts2\na\t1.5\t2\nb\t3\t4\n",
            ["a", "b"],
            ["s1", "s2"],
            "without a line of comments above it",
        ),
    ],
)
def test_lines_above_a_table_are_its_header_or_left_out_with_a_word(
    tmp_path: Path, name: str, text: str, rows: list[str] | None, columns: list[str] | None, note: str
) -> None:
    (tmp_path / name).write_text(text)
    found = read_matrix(tmp_path / name)
    np.testing.assert_array_equal(found.values, [[1.5, 2], [3, 4]])
    assert (found.row_names, found.column_names) == (rows, columns)
    assert note in str(found.note)


def test_a_second_line_of_column_names_is_no_row(tmp_path: Path) -> None:
    text = ",a,a,b\n,0,1,0\ns0,5,6,7\ns1,8,9,1\n"  # as pandas writes columns of two levels
    said = refused(tmp_path, text)
    assert said.startswith("lines 1 and 2 both begin with an empty cell; leave one out if both hold column names")
    found = read_matrix(table(tmp_path, text), header=True, index=True)
    assert found.row_names == ["", "s0", "s1"]


def test_text_of_windows_and_of_utf_16_is_read_and_said(tmp_path: Path) -> None:
    path = tmp_path / "V.csv"
    path.write_text("a;1,5\nb;2,5\n")
    np.testing.assert_array_equal(read_matrix(path).values, [[1.5], [2.5]])
    for encoding in ("cp1252", "utf-16"):
        path.write_bytes("Probe;Größe\nMüller;1,5\n".encode(encoding))
        found = read_matrix(path)
        assert (found.row_names, found.column_names) == (["Müller"], ["Größe"])
        assert found.note is not None
        assert found.note.endswith(f"in the encoding {encoding}")
    path.write_bytes(b"x,y\x81\n1,2\n")  # which is no character in either
    with pytest.raises(FileError, match="it is no text in UTF-8; save it as UTF-8"):
        read_matrix(path)


def test_what_is_said_of_a_table_is_believed(tmp_path: Path) -> None:
    path = table(tmp_path, "1:2\n3:4\n")
    np.testing.assert_array_equal(read_matrix(path, sep=":").values, [[1, 2], [3, 4]])
    path = table(tmp_path, '"1,5","2,5"\n"3","4"\n')
    np.testing.assert_array_equal(read_matrix(path, decimal=",").values, [[1.5, 2.5], [3, 4]])
    path = table(tmp_path, "1,500;2,500\n3,000;4,000\n")
    np.testing.assert_array_equal(read_matrix(path).values, [[1.5, 2.5], [3, 4]])
    for sep in ("\t", "tab", r"\t"):
        assert read_matrix(table(tmp_path, "1\t2\n3\t4\n"), sep=sep).values.shape == (2, 2)
    for sep in ("", ",,", '"', "\n"):
        with pytest.raises(FileError, match=r"`sep` must be one character, 'tab' or 'space', got"):
            read_matrix(path, sep=sep)
    with pytest.raises(FileError, match=r"`decimal` must be '.' or ',', got ';'"):
        read_matrix(path, decimal=";")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("V.tsv", "x\ty\n1,500\t2,500\n3\t4\n", "line 2, column 1: '1,500' is not a number; say --decimal ,"),
        ("V.csv", "x;y\n1.234,5;2,5\n3;4\n", "line 2, column 1: '1.234,5' is not a number"),
        ("V.csv", "x;y\n1,5;2,5\n3.5;4\n", "line 3, column 1: '3.5' is not a number"),
        ("V.csv", "x,y\n1.5,2.5\n3,4;5\n", "line 3, column 2: '4;5' is not a number"),
    ],
)
def test_a_comma_that_may_be_either_is_an_error(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(FileError) as caught:
        read_matrix(tmp_path / name, index=False)
    assert str(caught.value).startswith(f"{tmp_path / name}: {message}")


@pytest.mark.parametrize(
    ("text", "rows", "columns"),
    [
        ("id,1,2\n5,0.5,0.3\n6,0.1,0.4\n", ["5", "6"], ["1", "2"]),
        ("wavelength,400,402\n1,0.5,0.3\n2,0.1,0.4\n", ["1", "2"], ["400", "402"]),
        ("time,1,2\n5,0.5,0.3\n5,0.1,0.4\n", None, ["time", "1", "2"]),  # what is there twice is no name
        ("t;0,5;1,5\n1,5;0,5;0,3\n2,5;0,1;0,4\n", ["1,5", "2,5"], ["0,5", "1,5"]),
    ],
)
def test_a_text_corner_over_numbers_is_a_header(
    tmp_path: Path, text: str, rows: list[str] | None, columns: list[str] | None
) -> None:
    found = read_matrix(table(tmp_path, text))
    assert (found.row_names, found.column_names) == (rows, columns)
    np.testing.assert_array_equal(found.values[:, -2:], [[0.5, 0.3], [0.1, 0.4]])
    assert read_matrix(table(tmp_path, text), index=False).values.shape == (2, 3)


def test_a_matrix_of_sigprofiler_is_known_by_its_header(tmp_path: Path) -> None:
    kinds = [f"{left}[{change}]{right}" for change in ("C>A", "C>T") for left in "ACGT" for right in "ACGT"]
    counts = np.random.default_rng(0).poisson(5.0, (len(kinds), 3))
    text = "MutationType\tS1\tS2\t3\n" + "".join(
        "\t".join([kind, *map(str, row)]) + "\n" for kind, row in zip(kinds, counts, strict=True)
    )
    for name in ("project.SBS96.all", "V.txt", "V.tsv"):
        (tmp_path / name).write_text(text)
        found = read_matrix(tmp_path / name)
        assert (found.row_names, found.column_names) == (kinds, ["S1", "S2", "3"])
        np.testing.assert_array_equal(found.values, counts)
        assert found.note is not None
        assert "SigProfiler" in found.note


def test_a_table_takes_at_most_twice_the_memory_of_its_numbers(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 9, (4000, 200))
    path = tmp_path / "V.csv"
    np.savetxt(path, values, fmt="%d", delimiter=",", header=",".join(f"g{j}" for j in range(200)), comments="")
    read_matrix(path)  # what is loaded once
    tracemalloc.start()
    try:
        found = read_matrix(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * found.values.nbytes + 2**21


def test_a_line_that_does_not_fit_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: 2**20)
    path = tmp_path / "V.csv.gz"
    path.write_bytes(gzip.compress(b"0" * 2**24))
    tracemalloc.start()
    try:
        with pytest.raises(FileError, match=r"line 1 has more than 1\.05 million characters, which do not fit"):
            read_matrix(path)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()
