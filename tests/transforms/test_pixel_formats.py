"""The values of unusual files against their specifications: TIFF 6.0 and PNG (third edition)."""

import io

import numpy as np
import PIL
import pytest
from image_files import png, tiff
from PIL import Image

from striate.errors import DecodeError
from striate.transforms.decode import decode

RNG = np.random.default_rng(0)


def gray(data):
    return decode(data, 1)[:, :, 0]


def scaled(values, white):
    """0 is black, `white` is 255 (TIFF: BlackIsZero; PNG: section 13.12, sample depth rescaling)."""
    return np.floor(values * 255.0 / white + 0.5)


# Bits per sample, with the byte orders that Pillow reads for BlackIsZero (1) and WhiteIsZero (0).
INTEGERS = {
    (1, 1): "<>", (1, 0): "<>", (2, 1): "<>", (2, 0): "<>", (4, 1): "<>", (4, 0): "<>", (8, 1): "<>",
    (8, 0): "<>", (12, 1): "<", (12, 0): "", (16, 1): "<>", (16, 0): "<", (10, 1): "", (14, 1): "",
}  # fmt: skip


@pytest.mark.parametrize(("bits", "photometric"), INTEGERS)
@pytest.mark.parametrize("order", "<>")
def test_gray_tiffs_of_any_depth_are_scaled_by_their_white_or_refused(bits, photometric, order):
    values = RNG.integers(0, 2**bits, (9, 14))
    values[0, :2] = 0, 2**bits - 1
    data = tiff(values, bits, photometric=photometric, order=order)
    if order not in INTEGERS[bits, photometric]:
        with pytest.raises(DecodeError, match="a TIFF of a kind that Pillow cannot read"):
            gray(data)
        return
    white = 2**bits - 1
    expected = scaled(values, white) if photometric == 1 else 255 - scaled(values, white)
    assert np.array_equal(gray(data), expected)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("photometric", [0, 1])
def test_float_tiffs(order, photometric):
    for white in (1.0, 255.0):
        values = np.linspace(0, white, 63, dtype=np.float32).reshape(7, 9)
        data = tiff(values, 32, photometric=photometric, sample_format=3, order=order)
        expected = scaled(values.astype(np.float64), white)
        assert np.array_equal(gray(data), expected if photometric == 1 else 255 - expected)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("bits", "white"), [(8, 127), (16, 32767)])
def test_signed_integers_have_half_the_range(bits, white, order):
    values = np.linspace(0, white, 60).round().astype(int).reshape(6, 10)
    assert np.array_equal(gray(tiff(values, bits, sample_format=2, order=order)), scaled(values, white))
    with pytest.raises(DecodeError, match="without a known white"):
        gray(tiff(values - 1, bits, sample_format=2, order=order))


@pytest.mark.parametrize("sample_format", [1, 2])
def test_32_bit_integers_are_16_bit_values_or_refused(sample_format):
    values = np.linspace(0, 65535, 60).round().astype(int).reshape(6, 10)
    assert np.array_equal(gray(tiff(values, 32, sample_format=sample_format)), scaled(values, 65535))
    with pytest.raises(DecodeError, match="without a known white"):
        gray(tiff(values + 1, 32, sample_format=sample_format))


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("planar", [1, 2])
@pytest.mark.parametrize("bits", [8, 16])
def test_rgb_planes_and_alpha(bits, planar, order):
    values = RNG.integers(0, 2**bits, (5, 7, 3))
    expected = scaled(values, 2**bits - 1)
    pixels = decode(tiff(values, bits, photometric=2, planar=planar, order=order))
    assert np.abs(pixels - expected).max() <= (bits == 16)  # Pillow keeps the high byte
    alpha = RNG.integers(0, 2**bits, (5, 7, 1))
    rgba = tiff(np.dstack([values, alpha]), bits, photometric=2, planar=planar, order=order, extra=(2,))
    a = scaled(alpha, 2**bits - 1) / 255
    assert np.abs(decode(rgba) - (expected * a + 255 * (1 - a))).max() <= (2.5 if bits == 16 else 1)


def test_planes_that_would_be_misread_are_refused():
    values = RNG.integers(0, 65536, (5, 7, 4))
    with pytest.raises(DecodeError, match="separate planes of 16-bit CMYK"):
        decode(tiff(values, 16, photometric=5, planar=2))


@pytest.mark.parametrize("premultiplied", [False, True])
def test_gray_with_alpha(premultiplied):
    if premultiplied and int(PIL.__version__.split(".")[0]) < 13:
        pytest.skip("Pillow before 13 does not read it")
    values, alpha = RNG.integers(0, 256, (5, 7)), RNG.integers(1, 256, (5, 7))
    on_white = values * (alpha / 255) + 255 - alpha
    stored = values * alpha // 255 if premultiplied else values
    data = tiff(np.dstack([stored, alpha]), 8, extra=(1 if premultiplied else 2,))
    assert np.abs(gray(data) - on_white).max() <= 1 + premultiplied  # which rounds twice


@pytest.mark.parametrize("photometric", [0, 1])
def test_bits_from_the_right(photometric):
    values = RNG.integers(0, 2, (5, 14))
    data = tiff(values, 1, photometric=photometric, fill=2)
    assert np.array_equal(gray(data), 255 * (values == photometric))


def test_cmyk_is_ink():
    ink = np.array([[[0, 0, 0, 0], [255, 0, 0, 0], [0, 0, 0, 255]]])
    assert decode(tiff(ink, 8, photometric=5)).tolist() == [[[255] * 3, [0, 255, 255], [0] * 3]]
    inverted = io.BytesIO()  # Adobe's JPEGs hold the inverse
    Image.frombytes("CMYK", (16, 16), bytes([255, 0, 0, 0]) * 256).save(inverted, "JPEG")
    assert np.abs(decode(inverted.getvalue()).astype(int) - (0, 255, 255)).max() <= 2


KEYED = [
    (1, (0,)), (1, (1,)), (2, (0,)), (2, (1,)), (2, (3,)), (4, (0,)), (4, (1,)), (4, (11,)), (8, (0,)),
    (8, (5,)), (8, (85,)), (16, (0,)), (16, (300,)), (16, (32768,)),
]  # fmt: skip


@pytest.mark.parametrize(("bits", "key"), KEYED)
def test_the_transparency_key_of_a_gray_png_is_a_value_of_its_depth(bits, key):
    values = RNG.integers(0, 2**bits, (8, 24))
    values[2:4], values[0, 0] = key, 2**bits - 1
    expected = np.where(values == key, 255, scaled(values, 2**bits - 1))
    data = png(values, bits, key=key)
    assert np.array_equal(gray(data), expected)
    assert np.array_equal(decode(data), np.repeat(expected[:, :, None], 3, axis=2))


@pytest.mark.parametrize("bits", [8, 16])
def test_the_transparency_key_of_an_rgb_png_is_compared_in_all_bits(bits):
    values = RNG.integers(0, 2**bits, (8, 8, 3))
    key = (2 ** (bits - 1), 0x1234 >> (16 - bits), 1)
    values[0], values[1] = key, (*key[:2], 2)  # differs in the last bit
    pixels = decode(png(values, bits, color=2, key=key))
    assert (pixels[0] == 255).all()
    assert np.abs(pixels[1:] - scaled(values[1:], 2**bits - 1)).max() <= (bits == 16)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palettes_with_alpha(bits):
    palette = RNG.integers(0, 256, (2**bits, 3))
    alphas = RNG.integers(0, 256, 2**bits - 1).tolist()  # the last entry is opaque
    values = RNG.integers(0, 2**bits, (8, 24))
    pixels = decode(png(values, bits, color=3, palette=palette, alphas=alphas))
    a = np.array([*alphas, 255])[values][:, :, None] / 255
    assert np.abs(pixels - (palette[values] * a + 255 * (1 - a))).max() <= 1


@pytest.mark.parametrize("bits", [8, 16])
def test_png_with_alpha(bits):
    values = RNG.integers(0, 2**bits, (8, 8, 2))
    a = scaled(values[:, :, 1], 2**bits - 1) / 255
    expected = scaled(values[:, :, 0], 2**bits - 1) * a + 255 * (1 - a)
    assert np.abs(gray(png(values, bits, color=4)) - expected).max() <= (2.5 if bits == 16 else 1)


@pytest.mark.parametrize("name", ["tiff12.tif", "tiff_miniswhite16.tif", "rgb16_trns.png", "gray2_trns.png"])
def test_the_files_that_came_out_wrong(shared, name):
    path = shared / "cases" / name
    if not path.exists():
        pytest.skip(f"needs {path}")
    # 4095 of 12 bits; 1000 of 16 where 0 is white; every pixel has the key.
    expected = {"tiff12.tif": 255, "tiff_miniswhite16.tif": round(255 - 1000 / 257)}.get(name, 255)
    assert (decode(path) == expected).all()
