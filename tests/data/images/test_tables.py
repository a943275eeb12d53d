"""Tables: names of columns, dialects, and what is refused; split.csv is read as it was written."""

import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from striate.data import DataSet, Samples, open_data
from striate.data.images.tables import read_split, write_split
from striate.errors import DataError, UsageError


def write(tmp_path, text, name="t.csv"):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return tmp_path / name


def pairs(data, split="all"):
    samples = data.splits[split]
    names = [os.path.relpath(name, data.root) for name in samples.names]
    return list(zip(names, [data.classes[label] for label in samples.labels], strict=True))


@pytest.mark.parametrize(
    ("header", "note"),
    [
        ("path,label", None),
        (" Path , LABEL ", None),
        ("filename,class", "columns: path from 'filename', label from 'class'"),
        ("Image Path,category", "columns: path from 'Image Path', label from 'category'"),
        ("file_name,label", "columns: path from 'file_name'"),
        ("path,class_name", "columns: label from 'class_name'"),
    ],
)
def test_usual_names_of_columns(tmp_path, header, note):
    data = open_data(write(tmp_path, f"{header},other\na.png,cat,1\nb.png,dog,2\n"))
    assert pairs(data) == [("a.png", "cat"), ("b.png", "dog")]
    assert data.notes == ((note,) if note else ())


def test_columns_that_the_user_names(tmp_path):
    table = write(tmp_path, "id,photo,species,genus\n1,a.png,rose,Rosa\n2,b.png,oak,Quercus\n")
    assert open_data(table, "photo", "genus").classes == ("Quercus", "Rosa")
    assert open_data(table, "PHOTO", "Species").classes == ("oak", "rose")
    with pytest.raises(UsageError) as error:
        open_data(table, "photo", "specis")
    message = f"no column 'specis' in {str(table)!r}: did you mean 'species'? "
    assert str(error.value) == message + "Its columns are 'id', 'photo', 'species', 'genus'"
    with pytest.raises(DataError, match="name them with --path-column and --label-column"):
        open_data(table)
    with pytest.raises(UsageError, match=r"--label-column with .*: only \.csv and \.tsv files have columns"):
        open_data(tmp_path, label_column="x")
    with pytest.raises(DataError, match="no such file or folder"):
        open_data(tmp_path / "absent.csv", label_column="x")


def test_the_exact_name_decides_between_columns(tmp_path):
    table = write(tmp_path, "path,label,Label\na.png,x,cat\nb.png,y,dog\n")
    assert open_data(table, label_column="Label").classes == ("cat", "dog")
    with pytest.raises(
        DataError, match=r"'label' and 'Label' may both be the label\. Choose one with --label-column"
    ):
        open_data(table)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("path,label,label\na.png,x,cat\n", "2 columns are called 'label'. Rename or delete one"),
        ("path,label,split,split\na.png,x,val,train\n", "2 columns are called 'split'"),
        ("path,class,category\na.png,x,cat\n", "'class' and 'category' may both be the label"),
        ("path,label\na,b.png,cat\n", ":2: the row has 3 fields, but the header has 2. Put quotes"),
        ("path,label\na.png,cat,\n", ":2: the row has 3 fields"),
        ('path,label\na.png,"cat\n', ":2: the quote is not closed"),
    ],
)
def test_what_could_be_misread_is_refused(tmp_path, text, reason):
    with pytest.raises(DataError) as error:
        open_data(write(tmp_path, text))
    assert reason in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        'path, label\na.png, "cat"\n"b,c.png" , dog\n',
        "path;label\na.png;cat\nb,c.png;dog\n",
        "path\tlabel\na.png\tcat\nb,c.png\tdog\n",
        "path|label\r\na.png|cat\r\nb,c.png|dog\r\n",
        "sep=;\npath;label\na.png;cat\nb,c.png;dog\n",
        'path,label\ra.png,cat\r"b,c.png",dog\r',
        'path,label,\na.png,cat,\n,,\n\n"b,c.png",dog,\n',
        '\ufeffpath,label\na.png,cat\n"b,c.png",dog\n',
        'path,label\na.png,cat\n"b,c.png",dog\n'.encode("utf-16"),
    ],
)
def test_dialects_of_tables(tmp_path, text):
    assert pairs(open_data(write(tmp_path, text))) == [("a.png", "cat"), ("b,c.png", "dog")]


def test_the_shared_tables(shared):
    assert open_data(shared / "cases" / "spq.csv").classes == ("cat", "dog")
    with pytest.raises(DataError, match=r"comma\.csv:18: the row has 3 fields"):
        open_data(shared / "cases" / "comma.csv")


NAME = st.binary(min_size=1, max_size=8).map(lambda b: os.fsdecode(b.translate(None, b"\0/")) or "\r")
CLASS = st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=5)
CLASS |= st.sampled_from(["cat\r", "cat\n", " cat", "cat ", '"', "a,b", "#x", "=x", "cat", "\ufeff"])
# A folder and the one above it, which nothing else is called.
NAME, CLASS = (names.filter(lambda name: name not in (".", "..")) for names in (NAME, CLASS))


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(["train", "val", "test"]), CLASS, NAME), min_size=1, max_size=6))
def test_split_csv_is_read_as_it_was_written(tmp_path, rows):
    classes = tuple(sorted({label for _, label, _ in rows}))
    found = {}
    for split, label, name in rows:
        found.setdefault(split, []).append((f"/data/{label}/{name}", label))
    splits = {
        split: Samples(tuple(p for p, _ in these), np.array([classes.index(c) for _, c in these], np.int64))
        for split, these in found.items()
    }
    data = DataSet("/data", "/data", classes, splits)
    write_split(tmp_path / "split.csv", data)
    assert read_split(tmp_path / "split.csv") == found
    as_table = open_data(tmp_path / "split.csv")
    for split, samples in splits.items():
        assert [as_table.classes[i] for i in as_table.splits[split].labels] == [
            classes[i] for i in samples.labels
        ]


def test_a_split_file_of_something_else_is_refused(tmp_path):
    with pytest.raises(DataError, match="not a table of path, label, split"):
        read_split(write(tmp_path, "path,label\na,b\n"))
