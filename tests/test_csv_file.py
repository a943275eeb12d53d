"""CSV files are read as they were written, whatever a file name contains; foreign dialects are understood."""

import csv
import io
import os
import re
import shutil
import subprocess

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from striate.csv_file import csv_bytes, csv_line, parse_csv, read_table, unescaped, write_csv
from striate.errors import DataError

# File names may be any bytes but NUL and the slash; Python shows what is not UTF-8 as surrogates.
NAMES = st.binary(min_size=1, max_size=12).map(lambda b: os.fsdecode(b.replace(b"\0", b"\r")))
ODD = st.sampled_from(
    ["\r", "\n", "\r\n", " ", "\t", '"', '""', ",", "#a", "=1+1", "\ufeff", "\x85", "\u2028", "\udcff"]
)
CELLS = NAMES | st.lists(ODD | st.sampled_from("ab"), max_size=5).map("".join)


@given(st.lists(st.lists(CELLS, min_size=1, max_size=4), min_size=1, max_size=4))
@example([["cat\r"], [" cat "], ['"'], [""], ["\ufeffx"], ["a\x85b"]])
def test_any_text_survives(rows):
    text = csv_bytes(rows[0], rows[1:]).decode("utf-8", "surrogateescape")
    for strip in (False, True):  # blanks that matter are quoted
        found = [fields for _, fields in parse_csv(text, "x.csv", strip=strip)]
        assert [list(map(unescaped, fields)) for fields in found] == rows
    assert text.count("\n") == len(rows)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028]", text)


@settings(max_examples=40)
@given(
    st.lists(
        st.lists(ODD.filter(lambda c: c != "\udcff") | st.text("ab ", max_size=3), min_size=1), min_size=1
    )
)
def test_other_programs_read_it(rows):
    text = csv_bytes(rows[0], rows[1:]).decode()
    found = list(csv.reader(io.StringIO(text, newline="")))
    assert [list(map(unescaped, fields)) for fields in found] == rows


def test_a_table_is_read_as_it_was_written(tmp_path):
    columns = ("name", "none", "number")
    write_csv(tmp_path / "x.csv", [("a\r", None, 0.5), ("b\n", 1, 2)], columns)
    assert read_table(tmp_path / "x.csv", columns) == [(2, ["a\r", "", "0.5"]), (3, ["b\n", "1", "2"])]
    assert csv_line([""]) == '""'


@pytest.mark.parametrize(
    ("content", "line", "why"),
    [
        (None, None, "no such file"),
        (b"", 1, "it is empty"),
        (b"path,lab", 1, "it is not a table of path, label"),
        ("path,label\na,b\n".encode("utf-16"), 1, "it contains a zero byte"),
        (b"path,label\na,b\nc", 3, "it has 1 of 2 values"),
        (b"path,label\na,b\nc,d,e\n", 3, "it has 3 of 2 values"),
        (b'path,label\na,"b\n', 2, "the quote is not closed"),
    ],
)
def test_a_damaged_table_is_refused_with_its_line(tmp_path, content, line, why):
    path = tmp_path / "x.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_table(path, ("path", "label"))
    assert why in str(caught.value)
    assert line is None or f"{path}:{line}:" in str(caught.value)


def test_files_of_earlier_versions_keep_blanks(tmp_path):
    (tmp_path / "split.csv").write_text("path,label\n/x/a.png,cat \n")  # blanks were not quoted
    assert read_table(tmp_path / "split.csv", ("path", "label")) == [(2, ["/x/a.png", "cat "])]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ('a, "b" ,c\n', [["a", "b", "c"]]),
        ('a,"b ""c""",d', [["a", 'b "c"', "d"]]),
        ('5" plate,x\n', [['5" plate', "x"]]),
        ("a,b\r\rc,d\r\n\n e , \n", [["a", "b"], ["c", "d"], ["e", ""]]),
        ('"a\nb",c\n', [["a\nb", "c"]]),
        ('a,"",\n', [["a", "", ""]]),
        ('""\n', [[""]]),
    ],
)
def test_dialects(text, rows):
    assert [fields for _, fields in parse_csv(text, "x.csv")] == rows


def test_lines_are_counted():
    text = 'h\n\n"a\r\nb"\nc\n'
    assert list(parse_csv(text, "x.csv")) == [(1, ["h"]), (3, ["a\r\nb"]), (5, ["c"])]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('a\nb,"c\nd\n', 'x.csv:2: the quote is not closed. Add the closing "'),
        ('a\n"cat"s,b\n', "x.csv:2: 's,b' follows the closing quote of 'cat'"),
    ],
)
def test_broken_quotes_are_named_by_line(text, reason):
    with pytest.raises(DataError) as error:
        list(parse_csv(text, "x.csv"))
    assert reason in str(error.value)


@pytest.mark.parametrize(
    ("text", "line"),
    [("path,label\na\0.png,cat", 2), ("a\r\n\r\nb\rc,cat\0\n", 4), ('"a\nb",c\0', 2), ("\0", 1)],
)
def test_a_zero_byte_is_an_error_with_its_line(text, line):
    with pytest.raises(DataError, match=rf"^t:{line}: it contains a zero byte"):
        list(parse_csv(text, "t"))


@pytest.mark.parametrize("quote", ["", '"'])
def test_fields_have_a_limit(quote):
    longest = "x" * (1 << 17)
    assert list(parse_csv(f"a,b\n{quote}{longest}{quote},{longest}", "t"))[1][1] == [longest, longest]
    with pytest.raises(DataError, match=r"^t:2: a field has 131,073 characters; the limit is 131,072"):
        list(parse_csv(f"a,b\n1,{quote}{longest}x{quote}\n", "t"))


def test_a_pipe_is_no_table(tmp_path):
    os.mkfifo(tmp_path / "split.csv")
    with pytest.raises(DataError, match="it is a named pipe, not a regular file"):
        read_table(tmp_path / "split.csv", ("path",))


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_a_shell_reads_control_characters_back():
    for name in ("a\nb.png", "\x1b[31mred", "tab\t'quoted' \\ $x", "\x01\x7f", "$'x'", "cr\r"):
        cell = csv_line([name])
        assert cell.startswith("$'")
        done = subprocess.run(["bash", "-c", f"printf %s {cell}"], capture_output=True, check=True)
        assert done.stdout.decode() == name
        assert unescaped(cell) == name
    for name in ("a'b", "back\\slash", "$5", "$'", "a$'b'"):
        assert csv_line([name]) == name
