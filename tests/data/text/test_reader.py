"""Lines of text: what ends a line, and what is not text."""

import gzip
import io
import os

import pytest

from striate import reading
from striate.data.text import reader
from striate.data.text.reader import clean_text, lines_of, read_lines
from striate.errors import DataError


@pytest.mark.parametrize(
    ("raw", "lines"),
    [
        (b"", []),
        (b"one\ntwo", ["one", "two"]),
        (b"one\r\n\r\ntwo\r\n", ["one", "", "two"]),
        (b"\xef\xbb\xbfone\ntwo\n", ["one", "two"]),
        (b"\xef\xbb\xbfone\n\xef\xbb\xbftwo\n", ["one", "two"]),  # two files, one after the other
        (b"a lone\rCR\nends no line\r\r\n", ["a lone\rCR", "ends no line\r"]),
        (b"old\rMac\r", ["old", "Mac"]),
        ("form\x0cfeed\u2028separator\x85\n".encode(), ["form\x0cfeed\u2028separator\x85"]),
    ],
)
def test_lines(raw, lines, tmp_path):
    """From a file, from a pipe, and gzipped, whatever the file is called."""
    for name, content in (("a.txt", raw), ("b.gz", gzip.compress(raw)), ("c.txt", gzip.compress(raw))):
        (tmp_path / name).write_bytes(content)
        assert list(read_lines(tmp_path / name)) == lines
    assert list(lines_of(io.BytesIO(raw), "standard input")) == lines


def test_what_is_no_text_is_named(tmp_path):
    with pytest.raises(DataError, match="standard input:2: the line is not valid UTF-8"):
        list(lines_of(io.BytesIO(b"one\n\xff\n"), "standard input"))
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"one\n" * 100)[:-12])
    for path in (tmp_path / "cut.gz", tmp_path / "absent", tmp_path):
        with pytest.raises(DataError, match="cannot read"):
            list(read_lines(path))


def test_lines_come_as_they_arrive():
    """A pipe need not be at its end."""
    lines = lines_of(io.BytesIO(b"one\ntwo\n\xff"), "pipe")
    assert [next(lines), next(lines)] == ["one", "two"]
    with pytest.raises(DataError):
        next(lines)


def test_the_ends_of_a_text_are_blank():
    assert clean_text("\u3000 \ufeff e\u0301t\u00a0e \r") == "\u00e9t\u00a0e"


def test_a_pipe_and_a_device_are_no_text(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, kind in ((tmp_path / "pipe", "named pipe"), ("/dev/zero", "device")):
        with pytest.raises(DataError, match=f"it is a {kind}"):
            next(read_lines(path))


def test_lines_have_a_limit(tmp_path, monkeypatch):
    """An endless line, gzipped or not, would fill the memory."""
    monkeypatch.setattr(reader, "_LONGEST", 1000)
    for data in (b"x" * 1001, gzip.compress(b"x" * 1001)):
        (tmp_path / "x").write_bytes(data)
        with pytest.raises(DataError, match=r"cannot read .*: a line has more than 1,000 bytes"):
            list(read_lines(tmp_path / "x"))
    (tmp_path / "x").write_bytes(b"x" * 999 + b"\n" + b"y" * 1000)
    assert list(map(len, read_lines(tmp_path / "x"))) == [999, 1000]


def test_a_bomb_of_gzipped_text_ends_at_the_ratio(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "RATIO_FREE_BYTES", 1000)
    (tmp_path / "x").write_bytes(gzip.compress(b"word\n" * 100_000))
    with pytest.raises(DataError, match=r"decompress to .* at most 100 times as many"):
        list(read_lines(tmp_path / "x"))
