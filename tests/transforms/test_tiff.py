import io
import zlib

import numpy as np
import pytest
from PIL import Image
from write_tiffs import write_tiff

from striate.transforms.pixel_formats import UnsupportedPixelsError
from striate.transforms.tiff import Tiff, parse


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    "layout",
    [{}, {"order": ">"}, {"planar": 2}, {"rows": 3}, {"tile": (16, 16)}, {"tile": (16, 16), "planar": 2},
     {"big": True}],
)  # fmt: skip
def test_bands_are_read_in_every_layout(kind, layout):
    values = np.random.default_rng(0).integers(0, np.iinfo(kind).max, (10, 23, 7)).astype(kind)
    tiff = parse(write_tiff(values, **layout))
    assert (tiff.size, tiff.bands) == ((23, 10), 7)
    np.testing.assert_array_equal(tiff.read(), values)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits"])
@pytest.mark.parametrize("predictor", [1, 2])
def test_compressed_files_of_libtiff_have_pillows_pixels(compression, predictor):
    noise = np.random.default_rng(1).integers(0, 9, (61, 83, 3))
    values = (noise + np.arange(83)[:, None]).astype(np.uint8)  # long enough for codes of 12 bits
    file = io.BytesIO()
    # libtiff has no differencing for PackBits.
    more = {317: predictor} if compression != "packbits" else {}
    Image.fromarray(values).save(file, "TIFF", compression=compression, tiffinfo=more)
    np.testing.assert_array_equal(parse(file.getvalue()).read(), values)


def test_a_long_lzw_strip_clears_its_table():
    values = np.random.default_rng(2).integers(0, 255, (90, 90, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(values).save(file, "TIFF", compression="tiff_lzw", tiffinfo={278: 90})
    np.testing.assert_array_equal(parse(file.getvalue()).read(), values)


def test_other_values_are_refused():
    data = write_tiff(np.zeros((4, 4, 5), np.float32), sample_format=3)
    with pytest.raises(UnsupportedPixelsError, match="32 bits, signed or floating point: bands must be"):
        parse(data).read()


@pytest.mark.parametrize("data", [b"", b"II", b"\x89PNG....", b"II*\0\xff\xff\xff\xff", b"MM\0+" + b"\0" * 3])
def test_what_is_no_tiff_has_no_tags(data):
    assert parse(data) is None


@pytest.mark.parametrize(
    ("side", "tile", "message"),
    [(16, 1 << 16, "tiles of 65536x65536"), (1 << 13, 1, "strips or tiles are missing")],
)
def test_tiles_cannot_be_much_larger_or_more_than_the_image_and_the_file(side, tile, message):
    """Of a small file, such tiles would decompress to gigabytes, and their list would fill as much."""
    data = zlib.compress(bytes(1000))
    one = {256: side, 257: side, 258: 8, 259: 8, 277: 5, 322: tile, 323: tile, 324: 0, 325: len(data)}
    with pytest.raises(ValueError, match=message):
        Tiff(data, "<", {tag: (value,) for tag, value in one.items()}).read()


def test_damage_raises_and_allocates_little():
    whole = write_tiff(np.zeros((40, 40, 6), np.uint8), rows=8)
    rng = np.random.default_rng(3)
    for _ in range(300):
        data = bytearray(whole)
        for at in rng.integers(0, len(data), 3):
            data[at] = rng.integers(256)
        tiff = parse(bytes(data))
        if tiff is None:
            continue
        try:
            if tiff.size[0] * tiff.size[1] * tiff.bands < 1 << 24:
                tiff.read()
        except (ValueError, IndexError, KeyError, EOFError, UnsupportedPixelsError):
            pass
