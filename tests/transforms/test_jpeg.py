"""JPEG files at 1/2, 1/4 and 1/8 of their size: when, and with which pixels."""

import io
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from striate.errors import DecodeError
from striate.transforms.preprocess import Preprocess

ORIENTATION = 0x0112


def picture(width, height, mode="RGB"):
    """Smooth shapes and edges, without symmetry."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    planes = [127 + 90 * np.sin(9 * x + 5 * y), 255 * x * y, 255.0 * ((x > 0.6) ^ (y > 0.3))]
    return Image.fromarray(np.stack(planes, 2).astype(np.uint8)).convert(mode)


def jpeg(image, orientation=1, **options):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    file = io.BytesIO()
    image.save(file, "JPEG", exif=exif, **{"quality": 90, **options})
    return file.getvalue()


def by_pillow(data, pre, scale):
    """`read` in the words of Pillow: draft, upright, and one resize of the part that the picture covers."""
    image = Image.open(io.BytesIO(data))
    full = image.size
    image.draft(None, (full[0] // scale, full[1] // scale))
    width, height = full[0] / scale, full[1] / scale
    turned = image.getexif().get(ORIENTATION, 1)
    left = image.width - width if turned in (2, 3, 7, 8) else 0
    top = image.height - height if turned in (3, 4, 6, 7) else 0
    box = (left, top, left + width, top + height)
    if turned > 4:
        full, box = full[::-1], (box[1], box[0], box[3], box[2])
    ways = {
        1: [], 2: ["FLIP_LEFT_RIGHT"], 3: ["ROTATE_180"], 4: ["FLIP_TOP_BOTTOM"], 5: ["TRANSPOSE"],
        6: ["ROTATE_270"], 7: ["TRANSVERSE"], 8: ["ROTATE_90"],
    }  # fmt: skip
    image = image.convert("RGB")
    for way in ways[turned]:
        image = image.transpose(Image.Transpose[way])
    side = pre.shorter_side
    size = (
        (side, int(side * full[1] / full[0])) if full[0] <= full[1] else (int(side * full[0] / full[1]), side)
    )
    image = image.resize(size, Image.Resampling.BILINEAR, box)
    left, top = (round((a - b) / 2) for a, b in zip(size, pre.size[::-1], strict=True))
    return np.asarray(image.crop((left, top, left + pre.size[1], top + pre.size[0])))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(400, 300), (333, 277)])
def test_the_pixels_are_pillows(size, orientation):
    data = jpeg(picture(*size), orientation)
    pre = Preprocess.for_size(48, reducing_gap=2.0)
    assert np.array_equal(pre.read(data), by_pillow(data, pre, 2))
    assert not np.array_equal(pre.read(data), replace(pre, reducing_gap=0).read(data))


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_training_reads_the_same_picture(orientation):
    for size in ((400, 300), (333, 277)):
        data = jpeg(picture(*size), orientation)
        for pre in (Preprocess.for_size(48, reducing_gap=2.0), Preprocess.for_size(48, reducing_gap=1.0)):
            assert abs(pre.read(data, crop=False).astype(int) - pre.read(data)).max() <= 1  # as without a gap
            halves = pre.resize_uncropped(pre.decode_uncropped(data))
            assert np.array_equal(halves, pre.read(data, crop=False))


@given(
    width=st.integers(1, 420), height=st.integers(1, 420), size=st.integers(1, 60),
    gap=st.floats(1, 4), resize=st.sampled_from(["crop", "squash", "letterbox", "line"]),
    orientation=st.sampled_from([1, 6]),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_the_scale_is_the_smallest_that_is_large_enough(width, height, size, gap, resize, orientation):
    pre = Preprocess.for_size(size, resize=resize, reducing_gap=gap)
    data = jpeg(Image.new("RGB", (width, height)), orientation)
    if orientation == 6:
        width, height = height, width
    short = min(width, height)
    needed = {
        "crop": (pre.shorter_side * width // short, pre.shorter_side * height // short),
        "squash": (size, size),
        "letterbox": tuple(max(1, round(a * min(size / width, size / height))) for a in (width, height)),
        "line": (min(size, max(1, round(width * size / height))), size),
    }[resize]
    large_enough = [
        scale for scale in (1, 2, 4, 8)
        if width / scale >= math.ceil(gap * needed[0]) and height / scale >= math.ceil(gap * needed[1])
    ]  # fmt: skip
    scale = max([1, *large_enough])
    decoded = pre.decode_uncropped(data)
    assert decoded.size == (-(-width // scale), -(-height // scale))
    shape = pre.read(data).shape
    assert shape == replace(pre, reducing_gap=0).read(data).shape


def variants():
    photo = picture(320, 320)
    return {
        "RGB": jpeg(photo), "gray": jpeg(photo.convert("L")), "CMYK": jpeg(photo.convert("CMYK")),
        "progressive": jpeg(photo, progressive=True), "4:4:4": jpeg(photo, subsampling=0),
        "4:2:2": jpeg(photo, subsampling=1), "turned": jpeg(photo, 5),
    }  # fmt: skip


@pytest.mark.parametrize("kind", variants())
@pytest.mark.parametrize("channels", [1, 3])
def test_every_kind_of_jpeg_is_reduced_and_looks_the_same(kind, channels):
    data = variants()[kind]
    full = Preprocess.for_size(40, channels)
    pre = replace(full, reducing_gap=2.0)
    assert pre.decode_uncropped(data).size == (80, 80)
    difference = pre.read(data).astype(int) - full.read(data)
    assert 0 < abs(difference).max() <= 40
    assert 10 * math.log10(255**2 / np.mean(difference**2)) > 35  # dB


def test_other_formats_and_small_files_are_decoded_as_they_are():
    full, reduced = (Preprocess.for_size(40, reducing_gap=gap) for gap in (0, 2.0))
    for kind in ("PNG", "WEBP", "TIFF"):
        file = io.BytesIO()
        picture(320, 320).save(file, kind)
        assert np.array_equal(full.read(file.getvalue()), reduced.read(file.getvalue()))
    for size in ((1, 1), (40, 3), (159, 300), (5000, 1)):
        assert np.array_equal(full.read(jpeg(picture(*size))), reduced.read(jpeg(picture(*size))))


def test_damage_is_an_error_at_any_scale():
    data = jpeg(picture(320, 320))
    for gap in (0, 2.0):
        with pytest.raises(DecodeError, match="truncated"):
            Preprocess.for_size(40, reducing_gap=gap).read(data[: len(data) // 2])
        with pytest.raises(DecodeError):
            Preprocess.for_size(40, reducing_gap=gap).read(data[:20] + bytes(500))


def test_an_open_image_is_not_changed():
    data = jpeg(picture(333, 277), 6)
    pre = Preprocess.for_size(40, reducing_gap=2.0)
    image = Image.open(io.BytesIO(data))
    for _ in range(2):
        assert np.array_equal(pre.read(image), pre.read(data))
    assert image.size == (333, 277)
    image.getexif()[ORIENTATION] = 1
    assert np.array_equal(pre.read(image), pre.read(jpeg(picture(333, 277))))
    assert np.array_equal(np.asarray(image), np.asarray(Image.open(io.BytesIO(data))))
    # Loaded, it has its own pixels only.
    assert np.array_equal(pre.read(image), replace(pre, reducing_gap=0).read(jpeg(picture(333, 277))))


def test_an_open_image_with_its_own_draft_or_frame_is_not_changed():
    pre = Preprocess.for_size(40, reducing_gap=2.0)
    image = Image.open(io.BytesIO(jpeg(picture(800, 800))))
    image.draft(None, (400, 400))
    file = io.BytesIO()
    picture(800, 800).save(file, "MPO", save_all=True, append_images=[picture(640, 640)])
    second = Image.open(file)
    second.seek(1)
    for own in (image, second):
        before = own.size
        pre.read(own)
        assert own.size == before
