"""The perceptual hash keeps its laws, and the index finds what a comparison of all with all finds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from striate.data.check.duplicates import (
    _oriented,
    _oriented_bits,
    _packed,
    connected_components,
    find_copies,
    fingerprint,
    neighbors,
)


def scene(seed, size=96):
    """A made-up photograph: smooth patches of color with edges."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((size, size), Image.Resampling.BICUBIC)
    return image.filter(ImageFilter.UnsharpMask(2, 200))


def picture(image):
    return fingerprint(image, min(image.size))


def test_the_bits_of_every_position_follow_from_one():
    image = scene(1, 32)
    pixels = np.asarray(image)[None]
    for position in range(8):
        moved = Image.fromarray(np.ascontiguousarray(_oriented(pixels, position)[0]))
        expected = _oriented_bits(picture(image).bits[None], position)[0]
        got = picture(moved).bits
        assert (got != expected)[np.arange(64).reshape(8, 8) > 0].sum() <= 1  # a value next to zero may round


def test_the_bits_are_the_signs_of_a_discrete_cosine_transform():
    fft = pytest.importorskip("scipy.fft")
    image = scene(2, 32)
    luma = np.asarray(image.convert("YCbCr"), np.float64)[..., 0]
    assert np.array_equal(picture(image).bits, fft.dctn(luma)[:8, :8] > 0)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), n=st.integers(1, 60), flips=st.integers(0, 9))
def test_the_index_finds_what_comparing_all_finds(seed, n, flips):
    rng = np.random.default_rng(seed)
    bits = rng.random((n, 8, 8)) < 0.5
    others = bits[rng.integers(0, n, n)].copy()
    for one in others:
        one.reshape(-1)[rng.choice(np.arange(1, 64), flips, replace=False)] ^= True
    a, b = _packed(bits), _packed(others)
    distance = (bits.reshape(n, 1, 64) != others.reshape(1, n, 64))[..., 1:].sum(2)
    assert set(zip(*neighbors(a, b), strict=True)) == set(zip(*np.nonzero(distance <= 5), strict=True))


def test_copies_are_found_and_others_are_not(tmp_path):
    images = [scene(seed) for seed in range(12)]
    image = images[0]
    image.resize((77, 77), Image.Resampling.LANCZOS).save(tmp_path / "x.jpg", quality=70)
    copies = [
        Image.open(tmp_path / "x.jpg"),
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        image.transpose(Image.Transpose.ROTATE_90),
        image.convert("L").convert("RGB"),
    ]
    found = find_copies([picture(i) for i in images + copies])
    assert connected_components(found) == [[0, 12, 13, 14, 15]]


def test_another_colour_is_another_picture():
    image = scene(3)
    y, cb, cr = image.convert("YCbCr").split()
    other = Image.merge("YCbCr", (y, cb.point(lambda v: min(255, v + 60)), cr)).convert("RGB")
    red = Image.merge("YCbCr", (y, cb, cr.point(lambda v: max(0, v - 60)))).convert("RGB")
    assert len(find_copies([picture(other), picture(red)])) == 0


@pytest.mark.parametrize("image", [Image.new("RGB", (64, 64), "white"), scene(1, 16)], ids=["blank", "small"])
def test_blanks_and_tiny_images_are_not_compared(image):
    assert len(find_copies([picture(image), picture(image)])) == 0


def test_a_thousand_frames_of_one_camera_are_one_group():
    bits = np.repeat(np.random.default_rng(0).random((1, 8, 8)) < 0.5, 1500, axis=0)
    first, second = neighbors(_packed(bits), _packed(bits))
    assert len(connected_components(np.stack([first, second], 1))) == 1
