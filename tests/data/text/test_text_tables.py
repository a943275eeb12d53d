"""Rows of TSV and CSV files, for training and for translation."""

import gzip

import pytest

from striate.data.text.columns import Column, ColumnSelection
from striate.data.text.pairs import open_pairs
from striate.data.text.tables import read_sources, read_tsv
from striate.errors import DataError

TABLE = "lemma\tform\tfeatures\nrun\tran\tV;PST\n\nsee \t saw\tV;PST\n"


def rows(path, **selection):
    found, columns = read_tsv(path, ColumnSelection.of(**selection))
    return [(row.source, row.targets) for row in found], columns


def test_columns_by_name_need_a_header(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text(TABLE, "utf-8")
    found, columns = rows(path, source="lemma,features")
    assert found == [("run V;PST", ("ran",)), ("see V;PST", ("saw",))]
    assert columns == [
        Column("lemma", "source", 2),
        Column("form", "target", 2),
        Column("features", "source", 2),
    ]
    assert rows(path)[0][0] == ("lemma", ("form",))  # without names, the first line is a pair
    path.write_text(TABLE.replace("lemma\tform", "target\tsource"), "utf-8")
    assert rows(path)[0] == [("ran", ("run",)), ("saw", ("see",))]


def test_a_line_with_too_few_columns_is_named(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("run\tran\tV\nsee\tsaw\n", "utf-8")
    with pytest.raises(DataError, match=r"a\.tsv:2: the line has 2 columns, but column 3 is needed"):
        rows(path, source="1,3")


def test_columns_of_csv_files(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('Lemma,Form,Features,split\nrun,ran,"V,PST",train\nsee,saw,,val\n', "utf-8")
    for source in ("lemma,features", "1,3"):
        data = open_pairs(path, columns=ColumnSelection.of(source=source, target="form"))
        assert data.kind == "text"
        assert data.splits["train"].sources == ("run V,PST",)
        assert data.splits["val"].references == (("saw",),)
        assert data.columns == (
            Column("lemma", "source", 2), Column("form", "target", 2), Column("features", "source", 1),
            Column("split", "split", 2),
        )  # fmt: skip
    assert list(read_sources(path, ColumnSelection.of(source="features,lemma"))) == ["V,PST run", "see"]
    with pytest.raises(DataError, match="must name the columns: path,text for images or source,text"):
        open_pairs(path)


def test_other_columns_of_a_table_of_images(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("path,language,caption\na.png,en,one\n", "utf-8")
    data = open_pairs(path, columns=ColumnSelection.of(target="caption"))
    assert (data.kind, data.splits["all"].sources) == ("images", (str(tmp_path / "a.png"),))
    assert [column.use for column in data.columns] == ["source", "unused", "target"]


@pytest.mark.parametrize("packed", [False, True])
def test_sources_are_those_of_training(packed, tmp_path):
    """A line each, so that the answers stay beside them; empty where there is no text."""

    def write(name, text):
        path = tmp_path / (name + ".gz" * packed)
        path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
        return path

    selection = ColumnSelection.of(source="1,3")
    assert list(read_sources(write("a.tsv", "run\tran\tV\n\nsee\n"), selection)) == ["run V", "", "see"]
    assert list(read_sources(write("a.csv", "text,source,split\r\na,b,dev\r\n"), ColumnSelection())) == ["b"]
    assert list(read_sources(write("a.txt", "\ufeffa, b\tc\r\n\nd"), selection)) == ["a, b\tc", "", "d"]
