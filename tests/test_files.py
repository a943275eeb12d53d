"""Paths that users give: why they do not lead to a file. Atomic writes."""

import os
import socket
from pathlib import Path

import pytest

from striate.errors import DataError, ResourceError, WriteError, environment_error, is_out_of_memory
from striate.files import expanded, probe, why_missing, write_atomic


def test_probe_tells_missing_from_unreachable(tmp_path):
    (tmp_path / "file").write_text("x")
    assert probe(tmp_path / "file").st_size == 1
    assert probe(tmp_path / "absent") is None
    assert probe(tmp_path / "file" / "below") is None
    with pytest.raises(DataError, match="it contains a zero byte"):
        probe("zero\0byte")
    with pytest.raises(DataError, match=r"file name too long\. Use a shorter path"):
        probe(tmp_path / ("x" * 300))
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(DataError, match="too many levels of symbolic links"):
        probe(tmp_path / "a")


@pytest.mark.parametrize(
    ("path", "says"),
    [
        (
            "https://a.org/w.pth",
            "a web address, and Striate reads files; Download it first: curl -LO 'https://a.",
        ),
        (
            "https:/a.org/w.pth",
            "a web address, and Striate reads files; Download it first: curl -LO 'https://a.",
        ),
        ("hf-hub:timm/resnet18", "it is an address, and Striate reads files"),
        ("s3://bucket/w.pth", "it is an address, and Striate reads files"),
        ("runs\\w.pth", "here `/` separates folders, not a backslash; Write 'runs/w.pth'"),
        ("runs\\other.pth", "here `/` separates folders, not a backslash; fix"),
        ("C:\\w.pth", "here `/` separates folders, not a backslash; fix"),
        ("rums/w.pth", "there is no folder 'rums'; fix"),
        ("runs/v.pth", "no such file or folder; did you mean 'w.pth'?; fix"),
        ("digit", "no such file or folder; did you mean 'digits'?; fix"),
        ("unlike", "no such file or folder; fix"),
    ],
)
def test_why_a_path_leads_nowhere(path, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "w.pth").write_text("x")
    assert says in "; ".join(why_missing(path, "fix", ["digits"]))


def test_an_unknown_home_folder_is_no_error(monkeypatch):
    assert str(expanded("~nobody-of-that-name/x")) == "~nobody-of-that-name/x"
    monkeypatch.setenv("HOME", "/somewhere")
    assert str(expanded("~/x")) == "/somewhere/x"


def test_the_longest_names_can_be_written(tmp_path):
    write_atomic(tmp_path / ("x" * 255), b"content")
    assert (tmp_path / ("x" * 255)).read_bytes() == b"content"
    with pytest.raises(WriteError, match=r"file name too long\. Use a shorter path"):
        write_atomic(tmp_path / ("x" * 256), b"content")


def test_pipes_are_written_to_and_stay(tmp_path):
    """And so do devices: renaming a file to /dev/null, as root, would remove it for all programs."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_atomic(pipe, [b"con", b"tent"])
    assert os.read(reader, 100) == b"content"
    os.close(reader)
    assert pipe.is_fifo()
    with pytest.raises(WriteError, match=r"no program reads this pipe\. Start its reader first"):
        write_atomic(pipe, b"content")


def test_devices_are_refused_but_for_the_null_device(tmp_path):
    for name in ("null", "full", "zero", "random"):
        (tmp_path / name).symlink_to(f"/dev/{name}")
    before = Path("/dev/null").stat().st_rdev
    write_atomic(tmp_path / "null", b"content")
    assert Path("/dev/null").stat().st_rdev == before
    for name in ("full", "zero", "random"):
        with pytest.raises(WriteError, match="it is a device, not a file"):
            write_atomic(tmp_path / name, b"content")
        assert (tmp_path / name).is_symlink()
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(tmp_path / "socket"))
        with pytest.raises(WriteError, match="it is a device or a socket"):
            write_atomic(tmp_path / "socket", b"content")


def test_a_terminal_is_written_to(tmp_path):
    reader, terminal = os.openpty()
    write_atomic(Path(os.ttyname(terminal)), b"content")
    assert os.read(reader, 100) == b"content"
    os.close(reader)
    os.close(terminal)


def test_a_link_in_place_of_the_temporary_file_is_not_followed(tmp_path):
    (tmp_path / "other").write_bytes(b"mine")
    (tmp_path / f".x.{os.getpid()}.part").symlink_to("other")
    write_atomic(tmp_path / "x", b"content")
    assert (tmp_path / "other").read_bytes() == b"mine"
    assert (tmp_path / "x").read_bytes() == b"content"


def test_a_symbolic_link_stays_and_its_file_is_replaced(tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "link").symlink_to("file")
    write_atomic(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"new"
    with pytest.raises(WriteError, match="cannot write"):
        write_atomic(tmp_path, b"new")


@pytest.mark.parametrize(("encoding", "expected"), [("ascii", "Set LC_ALL=C.UTF-8"), ("utf-8", None)])
def test_a_path_outside_the_locale_is_no_bug(encoding, expected, monkeypatch):
    monkeypatch.setattr("sys.getfilesystemencoding", lambda: encoding)
    found = environment_error(UnicodeEncodeError("ascii", "/data/\u732b", 6, 7, "not in range"))
    assert (found and found.fix) == expected


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        (MemoryError(), True),
        (RuntimeError("could not create a primitive"), True),  # of oneDNN, whose kernels are compiled
        (RuntimeError("could not create a primitive descriptor for a convolution"), False),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 8 bytes"), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (ImportError("x.so: failed to map segment from shared object"), True),
        (RuntimeError("can't allocate read lock"), True),  # of Python's files
        (ValueError("out of memory"), False),
        (SystemError("error return without exception set"), True),  # of Python itself
        (SystemError("<built-in function f> returned NULL without setting an exception"), False),
    ],
)
def test_memory_that_runs_out_is_known(error, memory):
    found = environment_error(error)
    assert (found is not None) == is_out_of_memory(error) == memory
    assert not memory or isinstance(found, ResourceError)
