"""The native kernel of 8-bit images: the ways of torch and Pillow are the oracle."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from striate import transforms as T
from striate.transforms import affine, color, geometry, native, policies

pytestmark = pytest.mark.skipif(native._native is None, reason="the native kernel was not built here")

SIDES = st.integers(1, 40)
CHANNELS = st.sampled_from([1, 3])


def batch(height, width, channels, seed, count=3):
    """The second image has few values, the third only one."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (count, height, width, channels), np.uint8)
    pixels[1] = pixels[1] // 11 + 90
    pixels[2] = pixels[2, 0, 0]
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def without_kernel(function, *arguments):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "_native", None)
        return function(*arguments)


def agrees(function, images, *arguments):
    before = images.clone()
    ours = function(images, *arguments)
    assert torch.equal(images, before)
    assert ours.stride() == images.stride()
    assert torch.equal(ours, without_kernel(function, images, *arguments))


@settings(max_examples=25)
@given(
    SIDES, SIDES, CHANNELS, st.integers(0, 99), st.lists(st.floats(-1, 3, width=32), min_size=3, max_size=3)
)
def test_colors_agree(height, width, channels, seed, factors):
    images, factors = batch(height, width, channels, seed), torch.tensor(factors)
    assert native.fits(images)
    for change in (color.brightness, color.contrast, color.saturation):
        agrees(change, images, factors)
    agrees(color.solarize, images, 100 * factors)
    agrees(color.autocontrast, images)
    agrees(color.equalize, images)


@settings(max_examples=40)
@given(
    SIDES, SIDES, CHANNELS, st.integers(0, 99), st.floats(-180, 180),
    st.sampled_from([(0, 0), (0.3, 0), (0, -0.4)]), st.sampled_from([0.6, 1.0, 1.7]), st.integers(-9, 9),
)  # fmt: skip
def test_affine_transforms_agree(height, width, channels, seed, turn, shear, scale, shift):
    images = batch(height, width, channels, seed)
    for degrees in (turn, 0.0, 180.0):
        numbers = [torch.tensor([n] * 3) for n in (degrees, [shift, 2.0], scale, shear)]
        agrees(affine.warp, images, affine.inverse_affine(*numbers), "nearest", 7)


def test_coordinates_beyond_fixed_point_are_left_to_pillow():
    images = batch(5, 6, 3, 0)
    inverse = torch.tensor([[[1e5, 0.5, 0], [0.5, 1, 0]]] * 3)
    assert native.warp(images, [(1e5, 0.5, 0, 0.5, 1, 0)] * 3, 0) is None
    agrees(affine.warp, images, inverse, "nearest", 0)


@settings(max_examples=40)
@given(SIDES, SIDES, CHANNELS, st.integers(0, 99))
def test_flips_agree(height, width, channels, seed):
    images = batch(height, width, channels, seed)
    agrees(lambda images: T.RandomHorizontalFlip(1.0)(images), images)
    assert torch.equal(T.RandomHorizontalFlip(1.0)(images), images.flip(3))
    window = images.permute(0, 2, 3, 1).numpy()[0, height // 2 :, width // 2 :]
    out = np.empty(window.shape, np.uint8)
    geometry.copy_rows(window, out, True)
    assert np.array_equal(out, window[:, ::-1])


@pytest.mark.parametrize(
    "transform",
    [
        T.ColorJitter(0.4, 0.4, 0.4),
        T.ColorJitter(0, 2, 0.4),
        T.TrivialAugmentWide(),
        T.RandAugment(),
        T.AutoAugment(),
    ],
    ids=lambda transform: type(transform).__name__,
)
@pytest.mark.parametrize("channels", [1, 3])
def test_whole_transforms_agree(transform, channels):
    images = batch(20, 23, channels, 0, count=60)
    agrees(transform.batch, images, torch.rand(60, transform.num_random))


def test_images_of_another_kind_do_not_fit():
    images = batch(8, 9, 3, 0)
    assert native.fits(images)
    assert not native.fits(images.contiguous())
    assert not native.fits(images.float())
    assert not native.fits(images[:, :2])
    assert not native.fits(images[::2])
    half = T.RandAugment(1).batch(images[::2], torch.tensor([[0.99, 0.2], [0.5, 0.8]]))
    copied = T.RandAugment(1).batch(images[[0, 2]], torch.tensor([[0.99, 0.2], [0.5, 0.8]]))
    assert torch.equal(half, copied)


def test_no_operation_changes_nothing():
    images = batch(8, 9, 3, 0)
    assert torch.equal(policies.apply(images, "Identity", torch.zeros(3)), images)
    assert torch.equal(T.RandAugment(0).batch(images, torch.zeros(3, 0)), images)


PIXELS = np.zeros((4, 5, 3), np.uint8)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("enhance", (np.zeros(10, np.uint8), 3, b"", b"")),
        ("enhance", (np.zeros(10, np.uint8), 2, b"", b"")),
        ("enhance", (PIXELS.copy(), 3, b"b", b"")),
        ("enhance", (PIXELS.copy(), 3, b"x", np.zeros(1, np.float32))),
        ("mirror", (PIXELS, PIXELS[1:].copy(), 5, 3)),
        ("mirror", (PIXELS, PIXELS.copy(), 7, 3)),
        ("mirror", (PIXELS, PIXELS.copy(), 0, 3)),
        ("warp", (PIXELS, PIXELS.copy(), 5, 5, 3, (1, 0, 0, 0, 1, 0), 0)),
        ("warp", (PIXELS, PIXELS[1:].copy(), 4, 5, 3, (1, 0, 0, 0, 1, 0), 0)),
    ],
)
def test_buffers_of_wrong_sizes_are_refused(name, arguments):
    with pytest.raises(ValueError, match=r"image|out|amounts|changes"):
        getattr(native._native, name)(*arguments)
