"""Only the kept part is computed, with the values of scaling everything and cropping."""

import numpy as np
import pytest
from PIL import Image

from striate.transforms import pixel_formats, scaling
from striate.transforms.pixels import ImagePixels
from striate.transforms.preprocess import Preprocess
from striate.transforms.scaling import Span, fits_at_once, scale

FILTERS = [Image.Resampling[name] for name in ("NEAREST", "BILINEAR", "BICUBIC", "LANCZOS")]


def cases(count):
    """Noise of any size, to be scaled to any size, of which any part is kept."""
    rng = np.random.default_rng(0)
    for i in range(count):
        own, scaled = (2 ** rng.uniform(0, 9, (2, 2))).astype(int)
        kept = rng.integers(1, scaled + 1)
        start = rng.integers(0, scaled - kept + 1)
        x, y = (Span(*map(int, numbers)) for numbers in zip(own, scaled, start, kept, strict=True))
        shape = (y.own, x.own, 3) if i % 2 else (y.own, x.own)
        yield Image.fromarray(rng.integers(0, 256, shape, np.uint8)), x, y


def by_pillow(image, x, y, filter, order):
    """Scale everything, in one call or one axis after the other, and crop."""
    first = {"once": [], "rows": [(x.scaled, y.own)], "columns": [(x.own, y.scaled)]}[order]
    for size in (*first, (x.scaled, y.scaled)):
        image = image.resize(size, filter)
    return np.asarray(image.crop((x.start, y.start, x.start + x.kept, y.start + y.kept))).astype(int)


@pytest.mark.parametrize("filter", FILTERS, ids=lambda filter: filter.name)
@pytest.mark.parametrize("most", [1 << 22, 4000, 300])
def test_the_kept_part_is_that_of_the_whole(filter, most, monkeypatch):
    monkeypatch.setattr(scaling, "MOST", most)
    monkeypatch.setattr(scaling, "TIMES", 0)
    monkeypatch.setattr(pixel_formats, "_BAND", most // 4)
    at_once = 0
    for image, x, y in cases(60):
        part = np.asarray(scale(ImagePixels(image, len(image.getbands())), x, y, filter)).astype(int)
        exact = fits_at_once(x, y) or filter == Image.Resampling.NEAREST
        at_once += fits_at_once(x, y)
        # Pillow's versions differ in the order of the axes where that is faster; each is right.
        orders = ["once"] if exact else ["once", "rows", "columns"]
        difference = min(abs(part - by_pillow(image, x, y, filter, order)).max() for order in orders)
        assert difference <= (0 if exact else 1), (x, y)
    assert (at_once == 60) == (most == 1 << 22)


@pytest.mark.parametrize("resize", ["crop", "squash", "letterbox", "line"])
@pytest.mark.parametrize("shape", [(1, 5000), (5000, 1), (3, 20000), (20000, 3)])
def test_long_images_in_each_mode(resize, shape):
    """Against the formula: the triangle filter for one axis and the other, in float64."""
    pre = Preprocess(size=(24, 30), resize=resize, shorter_side=32)
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    for found, size in ((pre.fit(image), pre.size), (pre.read(image, crop=False), pre.uncropped_size)):
        x, y = pre._spans(shape[::-1], size)
        expected = np.tensordot(triangle(y), np.tensordot(triangle(x), image, (1, 1)).swapaxes(0, 1), 1)
        top, left = ((a - b.kept) // 2 for a, b in zip(found.shape, (y, x), strict=False))
        assert abs(found[top : top + y.kept, left : left + x.kept] - expected).max() <= 1.01


def triangle(span):
    """The weights `[kept, own]` of the antialiased bilinear filter."""
    ratio = span.own / span.scaled
    centers = (np.arange(span.start, span.start + span.kept) + 0.5) * ratio
    distances = abs(np.arange(span.own) + 0.5 - centers[:, None]) / max(ratio, 1)
    values = np.clip(1 - distances, 0, None)
    return values / values.sum(axis=1, keepdims=True)
