"""The cache is never wrong: whatever happens to the files, to the process that fills it, and to the disk."""

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import make_images
from PIL import Image

from striate.data import DecodedImages, open_data
from striate.data.images import cache, decoded
from striate.errors import UsageError
from striate.progress import Progress
from striate.transforms.preprocess import Preprocess

PRE = Preprocess(size=(72, 72), shorter_side=80)


class Words(Progress):
    def __init__(self):
        self.warned = []

    def warn(self, message):
        self.warned.append(message)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(cache.LIMIT_VARIABLE, raising=False)
    monkeypatch.setattr(decoded, "_CLOCK_NS", 0)  # the files of these tests are new
    return tmp_path / "cache" / "striate"


@pytest.fixture
def folder(tmp_path):
    make_images(tmp_path / "data" / "a", 12, (200, 0, 0), size=(100, 90))
    make_images(tmp_path / "data" / "b", 9, (0, 0, 200), size=(100, 90))
    return tmp_path / "data"


def opened(folder, pre=PRE, progress=None, **options):
    data = open_data(folder)
    return DecodedImages(data.splits["all"], pre, root=data.root, progress=progress or Words(), **options)


def read(source):
    """One pass: which images can be read, and their pixels."""
    out = np.zeros((len(source), *source.shape), np.uint8)
    with source.reading():
        readable = np.concatenate(
            [source.read(np.arange(i, min(i + 4, len(out))), out[i : i + 4]) for i in range(0, len(out), 4)]
        )
    return readable, out


def require_right(source, pre=PRE, crop=True):
    """What the source gives equals what the files hold now."""
    readable, out = read(source)
    for name, good, image in zip(source.names, readable, out, strict=True):
        if good:
            assert np.array_equal(image, pre.read(name, crop=crop)), name
        else:
            assert Path(name).read_bytes() == b"" or Path(name).name.startswith("bad")
    return readable


class Counting:
    """Counts what is decoded."""

    def __init__(self, monkeypatch):
        self.names = []
        original = Preprocess.read

        def counted(pre, source, **options):
            self.names.append(Path(source).name)
            return original(pre, source, **options)

        monkeypatch.setattr(Preprocess, "read", counted)

    def take(self):
        names, self.names = self.names, []
        return sorted(names)


def test_the_second_run_decodes_nothing(folder, home, monkeypatch):
    counting = Counting(monkeypatch)
    _, first = read(opened(folder))
    assert len(counting.take()) == 21
    _, second = read(opened(folder))
    assert counting.take() == []
    assert np.array_equal(first, second)
    assert sum(segment.size for segment in cache.segments()) == 21 * (72 * 72 * 3 + 20)
    assert not list(folder.rglob("*.index"))
    (kind,) = home.joinpath("decoded").iterdir()
    assert kind.stat().st_mode & 0o077 == 0  # pictures may be private


def test_changed_added_removed_touched_and_truncated_files(folder, monkeypatch):
    require_right(opened(folder))
    a = folder / "a"
    Image.new("RGB", (90, 100), "green").save(a / "000.png")  # changed
    make_images(folder / "c", 2, (9, 200, 9), size=(100, 90))  # added
    (a / "001.png").unlink()  # removed
    os.utime(a / "002.png")  # touched
    whole = (a / "003.png").read_bytes()
    (a / "003.png").write_bytes(whole[: len(whole) // 2])  # truncated
    (a / "003.png").rename(a / "bad.png")
    (a / "004.png").write_bytes(b"")
    (a / "005.png").rename(a / "006.png")  # renamed over another
    counting = Counting(monkeypatch)
    readable, _ = read(source := opened(folder))
    changed = ["000.png", "000.png", "001.png", "002.png", "004.png", "006.png", "bad.png"]
    assert counting.take() == changed
    assert [Path(p.path).name for p in source.problems] == ["004.png", "bad.png"]
    assert readable.sum() == len(source) - 2
    require_right(opened(folder))


def test_a_file_of_the_same_size_and_time_is_told_from_the_one_it_replaces(folder):
    path = folder / "a" / "000.bmp"
    Image.new("RGB", (100, 90), "red").save(path)
    before = path.stat()
    require_right(opened(folder))
    time.sleep(0.02)  # a tick of the file system's clock
    Image.new("RGB", (100, 90), "blue").save(folder / "new.bmp")
    (folder / "new.bmp").rename(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    require_right(opened(folder))


def test_what_changed_a_moment_ago_is_not_stored_yet(folder, monkeypatch):
    monkeypatch.setattr(decoded, "_CLOCK_NS", 3600 * 10**9)
    require_right(opened(folder))
    assert cache.segments() == []


def test_another_preprocessing_is_another_cache(folder):
    contracts = [
        PRE,
        Preprocess(size=(72, 72), shorter_side=90),
        Preprocess(size=(72, 72), resize="squash"),
        Preprocess(size=(72, 72), resize="letterbox"),
        Preprocess(size=(72, 72), shorter_side=80, interpolation="nearest"),
        Preprocess(size=(72, 72), shorter_side=80, channels=1, mean=(0.5,), std=(0.5,)),
        Preprocess(size=(80, 80), shorter_side=80),
        Preprocess(size=(72, 72), shorter_side=80, reducing_gap=1.0),
        Preprocess(size=(72, 72), shorter_side=80, reducing_gap=2.0),
    ]
    noise = np.random.default_rng(0).integers(0, 256, (330, 330, 3), np.uint8)
    Image.fromarray(noise).save(folder / "a" / "large.jpg")  # decoded at 1/4, and with a gap of 2 at 1/2
    for pre in contracts * 2:
        require_right(opened(folder, pre), pre)
        require_right(opened(folder, pre, crop=False), pre, crop=False)
    other = Preprocess(size=(72, 72), shorter_side=80, mean=(0.1, 0.2, 0.3))
    before = len(cache.segments())
    require_right(opened(folder, other), other)  # the mean is subtracted later
    assert len(cache.segments()) == before


def test_another_decoder_is_another_cache(folder, monkeypatch):
    read(opened(folder))
    counting = Counting(monkeypatch)
    monkeypatch.setattr(cache, "DECODER_VERSION", 999)
    read(opened(folder))
    assert len(counting.take()) == 21


def test_a_cut_anywhere_in_its_files_loses_images_and_never_mixes_them(folder, home):
    require_right(opened(folder))
    (pixels,), (index,) = home.rglob("*.pixels"), home.rglob("*.index")
    whole = pixels.read_bytes(), index.read_bytes()
    rng = random.Random(0)
    for _ in range(20):
        pixels.write_bytes(whole[0][: rng.randrange(len(whole[0]))])
        index.write_bytes(whole[1][: rng.randrange(len(whole[1]))])
        source = opened(folder)
        out = np.zeros((21, *source.shape), np.uint8)
        source.read(np.arange(21), out)  # nothing is published here
        for name, image in zip(source.names, out, strict=True):
            assert np.array_equal(image, PRE.read(name))
        for path in home.rglob("*.*"):
            if path not in (pixels, index):
                path.unlink()


BUILDER = """
import sys, time
import numpy as np
from striate.data import DecodedImages, open_data
from striate.data.images import cache, decoded
from striate.transforms.preprocess import Preprocess
cache._PUBLISH_BYTES, decoded._CLOCK_NS = 40_000, 0
data = open_data(sys.argv[1])
pre = Preprocess(size=(72, 72), shorter_side=80)
source = DecodedImages(data.splits["all"], pre, root=data.root)
out = np.zeros((2, *source.shape), np.uint8)
print("ready", flush=True)
with source.reading():
    for i in range(0, len(source), 2):
        which = np.arange(i, min(i + 2, len(source)))
        source.read(which, out[: len(which)])
        time.sleep(float(sys.argv[2]))
"""


def builder(folder, pause):
    return subprocess.Popen(
        [sys.executable, "-c", BUILDER, str(folder), str(pause)], stdout=subprocess.PIPE, text=True
    )


def test_a_kill_at_any_instant_leaves_a_right_cache(folder):
    rng = random.Random(1)
    for _ in range(5):
        process = builder(folder, 0.002)
        assert process.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0, 0.03))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        source = opened(folder)
        out = np.zeros((21, *source.shape), np.uint8)
        source.read(np.arange(21), out)
        for name, image in zip(source.names, out, strict=True):
            assert np.array_equal(image, PRE.read(name))
        del source


def test_two_processes_at_once(folder, monkeypatch):
    together = [builder(folder, 0.01) for _ in range(2)]
    for process in together:
        process.communicate()
        assert process.returncode == 0
    counting = Counting(monkeypatch)
    source = opened(folder)
    _, out = read(source)
    assert counting.take() == []
    for name, image in zip(source.names, out, strict=True):
        assert np.array_equal(image, PRE.read(name))


def test_a_pass_finds_what_another_process_has_stored_meanwhile(folder, monkeypatch):
    mine, theirs = opened(folder), opened(folder)
    read(theirs)
    counting = Counting(monkeypatch)
    read(mine)
    assert counting.take() == []


def test_a_disk_that_fills_up(folder, monkeypatch):
    original, room = cache._write, [7 * 72 * 72 * 3 + 1000]

    def write(file, array):
        if array.nbytes > room[0]:
            original(file, array.reshape(-1)[: room[0]])
            room[0] = 0
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        room[0] -= array.nbytes
        original(file, array)

    monkeypatch.setattr(cache, "_write", write)
    source = opened(folder, progress=(words := Words()))
    for _ in range(3):
        require_right(source)
    assert len(words.warned) == 1
    assert "No space left on device" in words.warned[0]
    monkeypatch.setattr(cache, "_write", original)
    require_right(opened(folder))


def test_a_small_disk(folder, tmp_path, monkeypatch):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    small = ["-t", "tmpfs", "-o", "size=128k", "tmpfs", str(disk)]
    if mount is None or subprocess.run([mount, *small], capture_output=True, check=False).returncode:
        pytest.skip("needs leave to mount a tmpfs")
    try:
        monkeypatch.setenv("XDG_CACHE_HOME", str(disk))
        assert cache.limit() == 64 << 10
        assert "exceed the cache limit" in _told(folder)
        monkeypatch.setenv(cache.LIMIT_VARIABLE, "1")  # a limit that the disk cannot keep
        assert "No space left on device" in _told(folder)
        assert cache.segments()
        require_right(opened(folder))
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def _told(folder):
    source = opened(folder, progress=(words := Words()))
    for _ in range(2):
        require_right(source)
    (line,) = words.warned
    return line


def test_no_folder_to_write_to(folder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setenv(cache.LIMIT_VARIABLE, "1")
    assert "cannot cache more" in _told(folder)


def test_the_least_recently_used_goes_first(tmp_path, monkeypatch):
    folders = [tmp_path / name for name in ("one", "two", "three")]
    for at, name in enumerate(folders):
        make_images(name / "a", 4, (200, 0, at), size=(100, 90))
        read(opened(name))
    kinds = {s.path.parent.name.split("-")[0]: s.path for s in cache.segments()}
    for age, name in ((300, "one"), (200, "two"), (100, "three")):
        os.utime(kinds[name].with_suffix(".index"), (time.time() - age,) * 2)
    read(opened(folders[0]))  # used again
    four = tmp_path / "four"
    make_images(four / "a", 4, (0, 0, 0), size=(100, 90))
    each = 4 * (72 * 72 * 3 + 20)
    monkeypatch.setenv(cache.LIMIT_VARIABLE, str(3.5 * each / 1e9))
    require_right(opened(four))
    assert {s.path.parent.name.split("-")[0] for s in cache.segments()} == {"one", "three", "four"}
    assert sum(s.size for s in cache.segments()) <= cache.limit()


def test_more_than_the_limit_is_not_stored_and_removes_nothing(folder, tmp_path, monkeypatch):
    make_images(tmp_path / "one" / "a", 2, (200, 0, 0), size=(100, 90))
    read(opened(tmp_path / "one"))
    monkeypatch.setenv(cache.LIMIT_VARIABLE, "0.0001")
    assert "exceed the cache limit (0 GB" in _told(folder)
    assert len(cache.segments()) == 1
    monkeypatch.setenv(cache.LIMIT_VARIABLE, "much")
    with pytest.raises(UsageError, match="it must be a number of GB"):
        opened(folder)


def test_clearing_it_while_it_is_in_use(folder):
    source, other = opened(folder), None
    require_right(source)
    other = opened(folder)
    assert cache.clear() == 21 * (72 * 72 * 3 + 20)
    assert cache.segments() == []
    require_right(source)
    require_right(other)
    require_right(opened(folder))
    assert cache.clear() > 0
    assert cache.clear() == 0


def test_without_a_cache_nothing_is_written(folder, home):
    require_right(opened(folder, cache=False))
    assert not home.exists()
