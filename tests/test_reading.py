"""Files that users give: what is no regular file, too large, a decompression bomb or damaged."""

import gzip
import io
import os
import socket
import struct

import pytest

from striate import reading
from striate.errors import BundleError, DataError, LayoutError, ResourceError
from striate.reading import Inflated, check_ratio, damage_errors, open_file, read_bytes, reason


def test_only_regular_files_are_opened(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    for name in ("file", "link"):
        with open_file(tmp_path / name) as file:
            assert file.read() == b"content"
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "to the pipe").symlink_to("pipe")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(tmp_path / "socket"))
        for name, kind in (
            ("pipe", "named pipe"), ("to the pipe", "named pipe"), ("socket", "socket"), (".", "folder"),
            ("/dev/zero", "device"), ("/dev/tty", "device"),
        ):  # fmt: skip
            with pytest.raises(BundleError, match=rf"^cannot read '.*': it is a {kind}, not a regular file"):
                open_file(tmp_path / name, BundleError)
    for name, why in (("absent", "no such file"), ("file/x", "not a directory"), ("x\0y", "null")):
        with pytest.raises(DataError, match=why):
            open_file(f"{tmp_path}/{name}")


def test_files_are_read_up_to_a_limit(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"12345")
    assert read_bytes(path, 5) == b"12345"
    with pytest.raises(DataError, match="it has 5 bytes; the limit for such a file is 4"):
        read_bytes(path, 4)
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(DataError, match="it has 1,099,511,627,776 bytes; the limit"):
        read_bytes(path, reading.MAX_TABLE_BYTES)
    assert read_bytes("/proc/self/status", 100_000).startswith(b"Name:")  # a size of 0 is stated
    with pytest.raises(DataError, match="it has more than 10 bytes"):
        read_bytes("/proc/self/status", 10)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"), KeyError("x"), IndexError(), OverflowError(), RecursionError(), MemoryError(),
        struct.error("x"), OSError(5, "x"), SyntaxError("x"), UnicodeDecodeError("a", b"", 0, 1, "x"),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_what_libraries_raise_is_one_error(error):
    with pytest.raises(BundleError) as found, damage_errors("cannot read 'f'", "Do.", BundleError):
        raise error
    assert found.value.what == "cannot read 'f'"
    assert found.value.why
    assert "\n" not in found.value.why


def test_bugs_and_own_errors_stay():
    for error in (AttributeError("x"), NameError("x"), LayoutError("x"), ResourceError("x"), DataError("y")):
        with pytest.raises(type(error)) as found, damage_errors("x"):
            raise error
        assert found.value is error


def test_reasons_are_one_short_line():
    assert reason(ValueError("a\n b")) == "a b"
    assert len(reason(ValueError("x" * 1000))) == 200
    assert reason(KeyError("name")) == "KeyError: 'name'"
    assert reason(EOFError()) == "EOFError"
    assert reason(OSError(5, "Input/output error", "/x")) == "Input/output error"


def test_gzip_is_read_in_parts_up_to_a_limit_and_a_ratio(monkeypatch):
    content = bytes(range(256)) * 40
    packed = gzip.compress(content)
    assert io.BufferedReader(Inflated(io.BytesIO(packed), len(content))).read() == content
    with pytest.raises(ValueError, match="more than 10,239 bytes"):
        io.BufferedReader(Inflated(io.BytesIO(packed), len(content) - 1)).read()
    damaged = bytearray(packed)
    damaged[-5] ^= 1
    with pytest.raises(OSError, match="CRC"):
        io.BufferedReader(Inflated(io.BytesIO(damaged), 1 << 20)).read()
    with pytest.raises(EOFError):
        io.BufferedReader(Inflated(io.BytesIO(packed[:-9]), 1 << 20)).read()
    monkeypatch.setattr(reading, "RATIO_FREE_BYTES", 100_000)
    with pytest.raises(ValueError, match="decompress to"):
        io.BufferedReader(Inflated(io.BytesIO(gzip.compress(bytes(1_000_000))), 1 << 30)).read()
    random = os.urandom(200_000)
    assert io.BufferedReader(Inflated(io.BytesIO(gzip.compress(random)), 1 << 30)).read() == random


def test_ratios():
    check_ratio(1 << 26, 1)
    check_ratio(100 << 26, 1 << 26)
    with pytest.raises(ValueError, match=r"^67,108,864 bytes decompress to 6,710,886,401 or more; beyond"):
        check_ratio((100 << 26) + 1, 1 << 26)
