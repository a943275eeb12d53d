"""The short way of small PNG files gives what Pillow's gives."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from striate.errors import DecodeError
from striate.transforms import decode as decoding
from striate.transforms import plain_png
from striate.transforms.plain_png import MAX_PIXELS, open_plain_png

RNG = np.random.default_rng(0)


def png(pixels, mode=None, **options):
    file = io.BytesIO()
    image = Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(file, "PNG", **options)
    return file.getvalue()


def smooth(height, width, *channels):
    waves = np.add.outer(np.arange(height) * 7, np.arange(width) * 3)
    return (np.multiply.outer(waves, np.arange(1, 1 + (channels or (1,))[0])).reshape(
        height, width, *channels) % 256).astype(np.uint8)  # fmt: skip


@pytest.mark.parametrize("level", [0, 1, 9])
@pytest.mark.parametrize("shape", [(1, 1), (28, 28), (9, 31, 3), (1, 200, 3), (256, 256)])
def test_pixels_are_pillows(shape, level):
    for pixels in (smooth(*shape), RNG.integers(0, 256, shape, np.uint8)):
        found = open_plain_png(png(pixels, compress_level=level))
        assert np.array_equal(np.asarray(found), pixels)


def with_chunk(data, kind, body, before=b"IDAT"):
    at = data.index(before) - 4
    chunk = struct.pack(">I4s", len(body), kind) + body
    return data[:at] + chunk + struct.pack(">I", zlib.crc32(chunk[4:])) + data[at:]


PLAIN = png(smooth(12, 17, 3))
INFO = PngImagePlugin.PngInfo()
INFO.add_text("comment", "words")
OTHERS = {
    "alpha": png(smooth(9, 9, 4)), "palette": png(smooth(9, 9), "P"), "bits": png(smooth(9, 9), "1"),
    "16 bits": png(smooth(9, 9).astype(np.uint16) * 200), "text": png(smooth(9, 9), pnginfo=INFO),
    "transparent color": png(smooth(9, 9), transparency=3), "too large": png(smooth(1, MAX_PIXELS + 1)),
    "EXIF": with_chunk(PLAIN, b"eXIf", b"MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"),
    "late chunk": with_chunk(PLAIN, b"gAMA", bytes(4), b"IEND"),
    "gamma": with_chunk(PLAIN, b"gAMA", bytes(3)),
    "JPEG": b"\xff\xd8\xff", "empty": b"",
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_anything_else_is_left_to_pillow(name):
    assert open_plain_png(OTHERS[name]) is None


def test_of_large_files_only_the_header_is_read(monkeypatch):
    monkeypatch.setattr(plain_png, "_compressed", lambda data: pytest.fail("the file is read"))
    assert plain_png.open_plain_png(OTHERS["too large"]) is None


def test_chunks_that_change_no_pixel():
    extended = with_chunk(with_chunk(PLAIN, b"gAMA", bytes(4)), b"pHYs", bytes(9))
    assert np.array_equal(np.asarray(open_plain_png(extended)), smooth(12, 17, 3))


def outcome(data, channels):
    try:
        return decoding.decode(data, channels).tolist()
    except DecodeError as error:
        return str(error)


def test_damaged_files_end_as_with_pillow_alone(monkeypatch):
    """Each byte changed, and the file cut off before it."""
    files = [
        data
        for at in range(len(PLAIN))
        for data in (PLAIN[:at] + bytes([PLAIN[at] ^ 0x15]) + PLAIN[at + 1 :], PLAIN[:at])
    ]
    found = [outcome(data, 3) for data in files]
    monkeypatch.setattr(decoding, "open_plain_png", lambda data: None)
    assert found == [outcome(data, 3) for data in files]
    assert sum(isinstance(result, str) for result in found) > len(PLAIN)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_other_number_of_channels_is_converted(channels):
    pixels = smooth(20, 24) if channels == 3 else smooth(20, 24, 3)
    expected = np.asarray(Image.fromarray(pixels).convert("RGB" if channels == 3 else "L"))
    assert np.array_equal(decoding.decode(png(pixels), channels), expected.reshape(20, 24, channels))
