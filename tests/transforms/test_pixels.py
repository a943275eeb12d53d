"""Regions of an image are those of the whole image, upright."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from striate.transforms import pixel_formats
from striate.transforms.pixels import ArrayPixels, ImagePixels

RNG = np.random.default_rng(0)
MODES = ["1", "L", "LA", "La", "P", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr", "I;16", "F", "HSV", "LAB"]


def image_of(mode, orientation=1):
    values = RNG.integers(0, 256, (29, 17, 4), np.uint8)
    image = Image.fromarray(values)
    if mode in ("I;16", "F"):
        image = Image.fromarray(values[:, :, 0].astype("u2" if mode == "I;16" else "f4"))
    elif mode == "LAB":
        image = Image.merge("LAB", Image.fromarray(values[:, :, :3]).split())
    elif mode == "La":
        image = image.convert("LA").convert("La")
    else:
        image = image.convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.info["exif"] = exif.tobytes()
    return image


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", MODES)
def test_regions_of_any_mode(mode, channels, monkeypatch):
    pixels = ImagePixels(image_of(mode), channels)
    whole = pixels.to_array()
    monkeypatch.setattr(pixel_formats, "_BAND", 40)  # many bands
    assert np.array_equal(pixels.to_array(), whole)
    assert np.array_equal(np.asarray(pixels.to_image()).reshape(whole.shape), whole)
    part = np.asarray(pixels.region((3, 5, 11, 20)))
    assert np.array_equal(part.reshape(15, 8, channels), whole[5:20, 3:11])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_regions_of_any_orientation(orientation):
    image = image_of("RGB", orientation)
    upright = np.asarray(ImageOps.exif_transpose(image))
    pixels = ImagePixels(image, 3)
    assert pixels.size == upright.shape[1::-1]
    assert np.array_equal(pixels.to_array(), upright)
    for left, top, right, bottom in ((0, 0, 17, 17), (2, 3, 9, 11), (10, 1, 12, 16)):
        part = np.asarray(pixels.region((left, top, right, bottom)))
        assert np.array_equal(part, upright[top:bottom, left:right])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA", "I;16"])
def test_an_array_is_the_image_that_it_was_taken_from(mode):
    image = image_of(mode)
    for channels in (1, 3):
        pixels = ArrayPixels(np.asarray(image), channels)
        assert np.array_equal(pixels.to_array(), ImagePixels(image, channels).to_array())
