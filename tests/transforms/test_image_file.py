"""Large image files: what is read of them, and what is refused; peak memory in processes of their own."""

import io
import os
import resource

import numpy as np
import pytest
from PIL import Image

from striate.data.check.images import inspect_image
from striate.errors import DecodeError
from striate.transforms import image_file
from striate.transforms.decode import decode

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 20, 3), np.uint8)
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "PPM", "TIFF", "ICO", "TGA", "JPEG2000", "MPO", "WEBP", "AVIF")
WHOLE = ("WEBP", "AVIF")  # which Pillow reads as a whole


def encoded(form):
    out = io.BytesIO()
    Image.fromarray(PIXELS).save(out, form)
    return out.getvalue()


def peak_of(function):
    """What a function returns or raises, as text, and the growth of the memory in MiB, in a child process."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            text = str(function())
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        os.write(writing, f"{grown >> 10} {text}"[:4000].encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        grown, text = file.read().decode().split(" ", 1)
    os.waitpid(pid, 0)
    return text, int(grown)


@pytest.mark.parametrize("form", FORMATS)
def test_only_what_the_format_needs_is_read(form, tmp_path):
    path = tmp_path / "x.jpg"
    path.write_bytes(encoded(form))
    expected = decode(path)
    os.truncate(path, 3 << 30)
    text, grown = peak_of(lambda: np.array_equal(decode(path), expected))
    assert grown < 100
    if form in WHOLE:
        assert "it has 3,221,225,472 bytes; a file in this format may have 268,435,456" in text
    else:
        assert text == "True"


def test_a_sparse_file_of_a_terabyte_is_one_unreadable_image(tmp_path):
    path = tmp_path / "x.jpg"
    path.write_bytes(encoded("JPEG"))
    os.truncate(path, 1 << 40)
    for function in (decode, lambda path: inspect_image(str(path), "x").error):
        text, grown = peak_of(lambda function=function: function(path))
        assert "it has 1,099,511,627,776 bytes; the limit for an image file is 4,294,967,296" in text
        assert grown < 100


def chunk(kind, size):
    return size.to_bytes(4, "big") + kind


@pytest.mark.parametrize("kind", [b"iCCP", b"tEXt", b"eXIf"])
def test_headers_of_any_stated_size_use_little_memory(kind, tmp_path):
    """A PNG with a chunk of 2 GB before its pixels."""
    png = encoded("PNG")
    path = tmp_path / "x.png"
    path.write_bytes(png[:33] + chunk(kind, (1 << 31) - 1) + b"x\0\0")
    os.truncate(path, 3 << 30)
    text, grown = peak_of(lambda: decode(path).shape)
    assert text.startswith("DecodeError")
    assert grown < 200


def test_application_data_of_a_jpeg(tmp_path):
    jpeg, path = encoded("JPEG"), tmp_path / "x.jpg"
    path.write_bytes(jpeg[:2] + (b"\xff\xe5\xff\xff" + bytes(65533)) * 1100 + jpeg[2:])
    text, grown = peak_of(lambda: decode(path).shape)
    assert "more bytes would be read than such an image can have" in text
    assert grown < 200


def test_a_tag_of_a_tiff(tmp_path):
    path = tmp_path / "x.tif"
    entry = (700).to_bytes(2, "little") + (1).to_bytes(2, "little") + (1 << 30).to_bytes(4, "little")
    path.write_bytes(b"II*\0\x08\0\0\0\1\0" + entry + bytes(8))
    os.truncate(path, 3 << 30)
    text, grown = peak_of(lambda: decode(path).shape)
    assert text.startswith("DecodeError")
    assert grown < 200


def test_the_check_inspects_a_large_file_as_a_small_one(tmp_path, monkeypatch):
    for form in FORMATS:
        path = tmp_path / f"x.{form}"
        path.write_bytes(encoded(form))
        expected = inspect_image(str(path), "x.png")
        with monkeypatch.context() as patch:
            patch.setattr(image_file, "LARGE_FILE", 10)
            assert repr(inspect_image(str(path), "x.png")) == repr(expected), form


def test_pipes_and_folders_are_no_images(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for name in ("pipe.png", "", "/dev/zero"):
        with pytest.raises(DecodeError, match="not a regular file"):
            decode(tmp_path / name)
