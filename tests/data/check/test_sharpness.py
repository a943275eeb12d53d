"""Blur in pixels of the image itself, against the width of edges that is known."""

import functools
import math

import numpy as np
import pytest
from PIL import Image, ImageFilter

from striate.data.check.images import MAX_BLUR, inspect_image
from striate.data.check.sharpness import blur


def edges(sigma, size=160, low=40, high=200):
    """Steps every 16 pixels, in the middle of a window, blurred by a Gaussian (the formula, not a filter)."""
    x = np.arange(size)
    row = np.full(size, float(low))
    for i, at in enumerate(range(8, size, 16)):
        step = np.array([0.5 * (1 + math.erf((v - at - 0.5) / (sigma * math.sqrt(2)))) for v in x])
        row += (high - low) * step * (1 if i % 2 == 0 else -1)
    return np.rint(np.tile(row, (size, 1))).astype(np.uint8)


@pytest.mark.parametrize("sigma", [1.5, 2.0, 2.5, 3.0])
@pytest.mark.parametrize("turned", [False, True])
def test_the_blur_of_edges_is_that_of_the_gaussian(sigma, turned):
    image = edges(sigma)
    measured = math.sqrt(sigma**2 + 1 / 3)  # a difference over two pixels blurs by a box of that width
    assert blur(image.T.copy() if turned else image) == pytest.approx(measured, abs=0.1)


def test_noise_hides_no_blur():
    noisy = edges(3.0) + np.random.default_rng(0).normal(0, 4, (160, 160))
    assert blur(np.clip(noisy, 0, 255).astype(np.uint8)) > MAX_BLUR


def test_images_without_edges():
    assert blur(np.full((20, 30), 7, np.uint8)) == math.inf
    ramp = np.tile(np.arange(0, 200, dtype=np.uint8), (40, 1))
    assert blur(ramp) > MAX_BLUR


@functools.cache
def photograph(size, seed=0):
    """Overlapping shapes with sharp edges, texture and large even areas."""
    rng = np.random.default_rng(seed)
    image = np.full((size, size), 90.0)
    y, x = np.mgrid[:size, :size]
    for _ in range(12):
        cy, cx, r = size * rng.uniform((0, 0, 0.05), (1, 1, 0.3))
        image[(y - cy) ** 2 + (x - cx) ** 2 < r * r] = rng.uniform(0, 255)
    return Image.fromarray(np.clip(image + rng.normal(0, 2, image.shape), 0, 255).astype(np.uint8))


def is_blurred(image, tmp_path, kind="JPEG"):
    image.convert("RGB").save(tmp_path / "x", kind, quality=90)
    return "blurred" in [fact.kind for fact in inspect_image(str(tmp_path / "x"), "x").facts]


@pytest.mark.parametrize("size", [24, 64, 400, 800])
def test_sharp_images_of_any_size(size, tmp_path):
    assert not is_blurred(photograph(size), tmp_path)
    assert not is_blurred(photograph(size), tmp_path, "PNG")


@pytest.mark.parametrize("size", [64, 400, 800])
def test_blur_that_a_resized_image_would_not_show(size, tmp_path):
    assert is_blurred(photograph(size).filter(ImageFilter.GaussianBlur(4)), tmp_path)


def test_a_sharp_subject_before_a_blurred_background(tmp_path):
    image = photograph(400).filter(ImageFilter.GaussianBlur(6))
    image.paste(photograph(400, seed=1).crop((100, 100, 240, 240)), (130, 130))
    assert not is_blurred(image, tmp_path)


def test_real_photographs(shared):
    """Few are blurred, and most of them are after a blur of 4 pixels."""
    paths = sorted((shared / "data" / "imagenet_samples").glob("*.JPEG"))[:30]
    images = [Image.open(path).convert("L") for path in paths]
    assert sum(blur(np.asarray(image)) > MAX_BLUR for image in images) <= 1
    blurred = [np.asarray(image.filter(ImageFilter.GaussianBlur(4))) for image in images]
    assert sum(blur(image) > MAX_BLUR for image in blurred) >= 29
