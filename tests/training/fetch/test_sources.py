from __future__ import annotations

import codecs
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.base.errors import ConfigError, DataError
from training.fetch import sources


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str | bytes], str]:
    def write(name: str, content: str | bytes) -> str:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


@pytest.mark.parametrize(
    ("name", "rows", "columns", "target", "classes"),
    [
        ("iris", 150, ["sepal_length", "sepal_width"], "species", {"setosa", "versicolor", "virginica"}),
        ("wine", 178, ["alcohol", "malic_acid"], "target", {"class_0", "class_1", "class_2"}),
        ("breast_cancer", 569, ["mean_radius", "mean_texture"], "target", {"malignant", "benign"}),
        ("digits", 1797, ["pixel_0_0", "pixel_0_1"], "target", set("0123456789")),
    ],
)
def test_bundled_sets(name: str, rows: int, columns: list[str], target: str, classes: set[str]) -> None:
    frame = sources.read(f"sklearn:{name}")
    assert len(frame) == rows
    assert list(frame.columns[:2]) == columns
    assert set(frame[target]) == classes
    assert all(each.isidentifier() for each in frame.columns)


def test_a_bundled_set_with_a_quantity_has_its_measurements() -> None:
    frame = sources.read("sklearn:diabetes")
    assert len(frame) == 442
    assert list(frame.columns) == ["age", "sex", "bmi", "bp", *(f"s{each}" for each in range(1, 7)), "target"]
    assert frame["age"].between(19, 79).all()
    assert (frame["target"].min(), frame["target"].max()) == (25, 346)


def test_cells_of_a_csv_stay_as_they_are_written(write: Callable[[str, str], str]) -> None:
    frame = sources.read(write("a.csv", 'code,flag,note\n007,True,"one\ntwo"\n1.0,NA,\n'))
    assert frame["code"].tolist() == ["007", "1.0"]
    assert frame["flag"].tolist() == ["True", "NA"]
    assert frame["note"][0] == "one\ntwo"
    assert frame["note"].isna().tolist() == [False, True]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found(delimiter: str, write: Callable[[str, str], str]) -> None:
    lines = [["a", "b b", '"c,;|\td"'], ["1", "2", "3"]]
    frame = sources.read(write("a.csv", "\n".join(delimiter.join(line) for line in lines)))
    assert frame.columns.tolist() == ["a", "b b", "c,;|\td"]


def test_a_header_with_gaps_a_mark_and_windows_line_ends(write: Callable[[str, bytes], str]) -> None:
    frame = sources.read(write("a.CSV", b"\xef\xbb\xbf,x , y\r\n0,1,2\r\n\r\n3,4,5\r\n"))
    assert frame.columns.tolist() == ["unnamed_1", "x", "y"]
    assert frame["x"].tolist() == ["1", "4"]


cell = st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]), max_size=8)


@given(st.lists(st.tuples(cell, cell.filter(len)), min_size=1))
def test_any_text_comes_through_a_csv(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    pd.DataFrame(rows, columns=["x", "y"]).to_csv(path, index=False, quoting=1)
    frame = sources.read(str(path))
    assert [(x if isinstance(x, str) else "", y) for x, y in frame.to_numpy()] == rows


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.csv", "", "is empty"),
        ("a.csv", "\n \n", "is empty"),
        ("a.csv", "a,b\n", "has no rows: line 1 is the header, and nothing follows"),
        ("a.csv", "sep=;\n\na;b\n", "has no rows: line 3 is the header"),
        ("a.csv", "a,b\n1,2\n1,2,3\n", "line 3: 3 fields where the header has 2: '1,2,3'"),
        ("a.csv", "a,b\n1\n", "line 2: 1 field where the header has 2: '1'"),
        ("a.csv", 'a,b\n"1\n1",2\n\n3,4\n5\n', "line 6: 1 field where the header has 2: '5'"),
        ("a.csv", "sep=;\na;b\n1;2\n1;2;3\n", "line 4: 3 fields where the header has 2"),
        ("a.csv", 'a,b\n1,"x\n2,y\n3,z\n', "line 2: a quote is opened in this row and never closed"),
        ("a.csv", 'a,b\n"1,x\n2,y\n', "line 2: a quote is opened in this row and never closed"),
        ("a.csv", "a,b,a\n1,2,3\n", r"line 1: more than one column called 'a' \(columns 1, 3\)"),
        ("a.csv", b"a,b\n1,\x00\n", "line 2: not CSV: it holds a NUL character"),
        ("a.csv", "sep=;\na;b\n1;Größe\n".encode("cp1252"), "line 3: not UTF-8; set `data.encoding: cp1252`"),
        ("a.csv", b"a,b\n1,\x81\n", "line 2: not UTF-8; save it as CSV in UTF-8"),
        ("a.csv", "a,b\n1,2\n".encode("utf-16-le"), "set `data.encoding: utf-16-le`"),
        ("a.csv", "a,b\n1,2\n".encode("utf-16-be"), "set `data.encoding: utf-16-be`"),
        ("a.csv", codecs.BOM_UTF16_LE + b"a", "line 1: not UTF-16"),
        ("a.csv", b"PK\x03\x04", "is a ZIP archive or an Excel workbook"),
        ("a.parquet", b"a,b\n1,2\n", "is not a Parquet file"),
        ("a.parquet", b"", "is empty"),
    ],
)
def test_a_file_that_is_no_table(
    name: str, content: str | bytes, complaint: str, write: Callable[[str, str | bytes], str]
) -> None:
    with pytest.raises(DataError, match=complaint):
        sources.read(write(name, content))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (
            "Passengers of the ship\nname,age,class\nx,1,a\ny,2,b\n",
            "line 1: 'Passengers of the ship' has 1 field and the rows below have 3: it looks like a title; "
            "delete the lines above the header (probably line 2)",
        ),
        ("Report;;;\nname;age;class;k\nx;1;a;k\n", "'Report;;;' has 1 field and the rows below have 4"),
        ("Sales, 2020\n\nname;age;class\nx;1;a\ny;2;b\n", "above the header (probably line 3)"),
        ("a;b;c\n1,2,3\n4,5,6\n", "line 1: the header is delimited by semicolons and the rows by commas"),
        ("a\tb\n1|2\n4|5\n", "line 1: the header is delimited by tabs and the rows by bars"),
        ('"a","b"\n"1",2,3\n"2",5,6\n', "the header has 2 names and the rows have 3 fields: name the first"),
        (
            "5.1,3.5,setosa\n4.9,3.0,setosa\n",
            "line 1: '5.1,3.5,setosa' looks like data and not like a header",
        ),
        ("1.4,5.1,setosa\n1.3,4.9,setosa\n1.4,5,setosa\n", "looks like data"),
        ("vhigh,2,low,unacc\nvhigh,3,med,unacc\nlow,2,low,acc\n", "looks like data"),
        ("1,0,3,Braund,22,7.25\n2,1,1,Cumings,38,71.3\n", "looks like data"),
        ("5,0,0,1\n4,0,1,0\n", "looks like data"),
    ],
)
def test_a_first_line_that_is_no_header(
    content: str, complaint: str, write: Callable[[str, str], str]
) -> None:
    with pytest.raises(DataError) as error:
        sources.read(write("a.csv", content))
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "columns", "cells"),
    [
        ("0,1,2,target\n1,5,2,a\n2,5,3,b\n", ["0", "1", "2", "target"], ["1", "5", "2", "a"]),
        ("country,2001,2002\nDE,1,2\nFR,3,4\n", ["country", "2001", "2002"], ["DE", "1", "2"]),
        ("1100.5,1102.5,kind\n0.1,0.2,a\n0.3,0.4,b\n", ["1100.5", "1102.5", "kind"], ["0.1", "0.2", "a"]),
        ("yes,x\nyes,1\nno,2\n", ["yes", "x"], ["yes", "1"]),
        ("sep=;\na;b\n1,5;x\n", ["a", "b"], ["1,5", "x"]),
        ("\ufeffsep=|\r\na|b\r\n1|x\r\n", ["a", "b"], ["1", "x"]),
        ("a;b;c\n5,3;1,2;x\n5,4;2,2;y\n", ["a", "b", "c"], ["5,3", "1,2", "x"]),
        ('"a\nb",c\n1,2\n', ["a\nb", "c"], ["1", "2"]),
        ("a,b\n1,2\n   \n3,4\n", ["a", "b"], ["1", "2"]),
        ('a,b\n1,"x\ny"\n', ["a", "b"], ["1", "x\ny"]),
        ("a,b\r1,2\r3,4\r", ["a", "b"], ["1", "2"]),
    ],
)
def test_tables_that_look_odd_and_are_sound(
    content: str, columns: list[str], cells: list[str], write: Callable[[str, str], str]
) -> None:
    frame = sources.read(write("a.csv", content))
    assert frame.columns.tolist() == columns
    assert frame.iloc[0].tolist() == cells


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252", "utf-16-le"])
def test_encodings_of_a_spreadsheet(encoding: str, write: Callable[[str, bytes], str]) -> None:
    path = write("a.csv", "Größe;Art\r\n5,3;süß\r\n".encode(encoding))
    frame = sources.read(path, "utf-8" if encoding in ("utf-8-sig", "utf-16", "utf-32") else encoding)
    assert frame.to_dict("list") == {"Größe": ["5,3"], "Art": ["süß"]}


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("sklearn:flowers", "there are iris, wine, breast_cancer, digits"),
        ("iris", "'iris' is no source"),
        ("data.xlsx", "no source that can be read; use sklearn:NAME"),
        ("ftp://host/key.csv", "ftp:// is not a source"),
        ("s3://bucket", "should read s3://bucket/key.csv"),
        ("s3://bucket/key.json", "no source"),
        ("sql:", "needs a query"),
    ],
)
def test_a_source_that_cannot_be_one(source: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        sources.read(source)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist: put the file there"):
        sources.read(str(tmp_path / "none.csv"))
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match=r"cannot read .*directory"):
        sources.read(str(tmp_path / "folder.csv"))


def test_parquet_keeps_types_and_an_index(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": [1, 2], "y": ["a", None]}, index=pd.Index([7, 8], name="key"))
    frame.to_parquet(tmp_path / "a.parquet")
    again = sources.read(str(tmp_path / "a.parquet"))
    assert again["x"].tolist() == [1, 2]
    assert again["key"].tolist() == [7, 8]
