"""Many files read at once: the pixels are Pillow's, and files that are not plain are left to it."""

import io
import itertools
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from striate.transforms import many_files
from striate.transforms.many_files import file_sizes, read_plain_pngs, start_checksums

RNG = np.random.default_rng(0)
needs_native = pytest.mark.skipif(many_files.native() is None, reason="the native module was not built here")
SHAPE = (9, 7, 3)


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(rows, shape=SHAPE, cuts=(), level=6, end=b"", bits=8):
    """A file of filtered rows as they are, its pixels in several chunks."""
    height, width, channels = shape
    data = zlib.compress(bytes(rows), level) + end
    bounds = [0, *cuts, len(data)]
    header = struct.pack(">IIBBBBB", width, height, bits, 2 if channels == 3 else 0, 0, 0, 0)
    parts = [chunk(b"IDAT", data[a:b]) for a, b in itertools.pairwise(bounds)]
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(parts) + chunk(b"IEND", b"")


def random_rows(shape, filters):
    rows = RNG.integers(0, 256, (shape[0], 1 + shape[1] * shape[2]), np.uint8)
    rows[:, 0] = filters
    return rows.tobytes()


def read(tmp_path, files, shape=SHAPE):
    """What is read of these files, and whether."""
    paths = [str(tmp_path / f"{i}.png") for i in range(len(files))]
    for path, data in zip(paths, files, strict=True):
        Path(path).write_bytes(data)
    out = np.full((len(files), *shape), 77, np.uint8)
    return read_plain_pngs(paths, out), out


def pillows(data, shape=SHAPE):
    return np.asarray(Image.open(io.BytesIO(data))).reshape(shape)


@needs_native
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 3), (28, 28, 1), (9, 7, 3), (64, 64, 3), (5, 90, 1)])
def test_all_filters(tmp_path, shape):
    files = [png(random_rows(shape, kind), shape) for kind in range(5)]
    files += [png(random_rows(shape, RNG.integers(0, 5, shape[0])), shape, level=n % 10) for n in range(20)]
    readable, out = read(tmp_path, files, shape)
    assert readable.all()
    for data, pixels in zip(files, out, strict=True):
        assert np.array_equal(pixels, pillows(data, shape))


@needs_native
def test_files_that_pillow_writes(tmp_path):
    images = [Image.fromarray(RNG.integers(0, high, SHAPE, np.uint8)) for high in (2, 30, 256)]
    files = []
    for image in images:
        for options in ({}, {"optimize": True}, {"compress_level": 0}, {"dpi": (72, 72)}):
            image.save(file := io.BytesIO(), "PNG", **options)
            files.append(file.getvalue())
    readable, out = read(tmp_path, files)
    assert readable.all()
    for data, pixels in zip(files, out, strict=True):
        assert np.array_equal(pixels, pillows(data))


@needs_native
def test_pixels_in_several_chunks(tmp_path):
    rows = random_rows(SHAPE, 1)
    files = [png(rows, cuts=cuts) for cuts in [(0,), (1,), (5, 5, 9), tuple(range(1, 60))]]
    readable, out = read(tmp_path, files)
    assert readable.all()
    assert all(np.array_equal(pixels, pillows(files[0])) for pixels in out)


ROWS = random_rows(SHAPE, 1)
PLAIN = png(ROWS)
OTHERS = {
    "another size": png(random_rows((7, 9, 3), 0), (7, 9, 3)), "empty": b"", "signature": PLAIN[:8],
    "gray": png(random_rows((9, 7, 1), 0), (9, 7, 1)), "text": b"no image" * 9, "16 bits": png(ROWS, bits=16),
    "unknown filter": png(random_rows(SHAPE, 5)), "bytes after the pixels": png(ROWS, end=b"x"),
    "too few rows": png(ROWS[:-1]), "too many": png(ROWS + b"\0"),
    "transparent color": PLAIN[:33] + chunk(b"tRNS", bytes(6)) + PLAIN[33:],
    "huge": PLAIN[:-12] + chunk(b"zzzz", bytes(10_000)) + PLAIN[-12:],
}  # fmt: skip


@needs_native
@pytest.mark.parametrize("name", OTHERS)
def test_anything_else_is_not_read(tmp_path, name):
    readable, _ = read(tmp_path, [OTHERS[name], PLAIN])
    assert readable.tolist() == [False, True]


@needs_native
def test_damaged_files_are_not_read(tmp_path):
    """Each byte changed, and the file cut off before it."""
    files = [
        data
        for at in range(len(PLAIN))
        for data in (PLAIN[:at] + bytes([PLAIN[at] ^ 0x15]) + PLAIN[at + 1 :], PLAIN[:at])
    ]
    readable, _ = read(tmp_path, files)
    assert not readable.any()


@needs_native
def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "plain.png").write_bytes(PLAIN)
    (tmp_path / "link.png").symlink_to(tmp_path / "plain.png")
    names = ["pipe.png", "folder.png", "absent.png", "zero\0.png", "link.png"]
    paths = [str(tmp_path / name) for name in names]
    assert read_plain_pngs(paths, np.zeros((5, *SHAPE), np.uint8)).tolist() == [False] * 4 + [True]
    sums = start_checksums(paths)
    assert [one is None for one in sums] == [True] * 4 + [False]


@needs_native
def test_buffers_of_another_size_are_refused():
    module = many_files.native()
    with pytest.raises(ValueError, match="8 bytes for 1 files"):
        module.read_pngs(["a"], 3, 3, 1, np.zeros(8, np.uint8), np.zeros(1, np.bool_))
    with pytest.raises(ValueError, match="images of 0x3x1"):
        module.read_pngs(["a"], 0, 3, 1, np.zeros(0, np.uint8), np.zeros(1, np.bool_))
    with pytest.raises(ValueError, match="24 bytes for 1 files"):
        module.examine(["a"], 0, np.zeros(3, np.int64))


@pytest.mark.parametrize("is_native", [True, False])
def test_sizes_and_checksums(tmp_path, is_native, monkeypatch):
    if not is_native:
        monkeypatch.setattr(many_files, "native", lambda: None)
    elif many_files.native() is None:
        pytest.skip("the native module was not built here")
    contents = [b"", b"x", bytes(RNG.integers(0, 256, 70_000, np.uint8))]
    paths = [str(tmp_path / f"{i}") for i in range(len(contents))] + [str(tmp_path / "absent"), "zero\0"]
    for path, content in zip(paths, contents, strict=False):
        Path(path).write_bytes(content)
    assert file_sizes(paths) == [0, 1, 70_000, -1, -1]
    if is_native:
        starts = [content[: 1 << 16] for content in contents]
        expected = [zlib.crc32(start) << 32 | zlib.adler32(start) for start in starts]
        found = start_checksums(paths)
        assert [one % 2**64 for one in found[:3]] == expected
        assert found[3:] == [None, None]
    else:
        assert start_checksums(paths) == [0] * 5
        assert not read_plain_pngs(paths, np.zeros((5, *SHAPE), np.uint8)).any()
