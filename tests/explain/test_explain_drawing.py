"""Colors, overlays and sheets."""

import matplotlib as mpl
import numpy as np
import pytest

from striate.errors import UsageError
from striate.explain.drawing import COLORS, colorize, overlay, sheet, stacked, tiles


def lightness(rgb):
    """CIE L* of sRGB colors (IEC 61966-2-1, CIE 15)."""
    linear = np.where(rgb <= 10.31475, rgb / 255 / 12.92, ((rgb / 255 + 0.055) / 1.055) ** 2.4)
    y = linear @ (0.2126, 0.7152, 0.0722)
    return np.where(y > 0.008856, 116 * np.cbrt(y) - 16, 903.3 * y)


def test_the_colours_are_inferno():
    values = np.linspace(0, 1, 256)
    expected = 255 * mpl.colormaps["inferno"](values)[:, :3]
    assert np.abs(colorize(values) - expected).max() <= 8  # between 17 colors
    assert np.abs(np.array(COLORS) - 255 * mpl.colormaps["inferno"](np.linspace(0, 1, 17))[:, :3]).max() < 1


def test_lightness_rises_evenly():
    steps = np.diff(lightness(np.array(COLORS, float)))[1:]  # the first is nearly black
    assert steps.min() > 0.75 * steps.mean()
    assert steps.max() < 1.25 * steps.mean()


def test_overlay_shows_the_image_and_the_heat():
    pixels = np.full((40, 56, 3), 128, np.uint8)
    heat = np.zeros((40, 56), np.float32)
    heat[:20, :28] = 1
    figure = overlay(pixels, heat)
    assert figure.size == (2 * 6 * 56 + 8, 6 * 40)  # enlarged six times, to 224 px or more
    drawn = np.asarray(figure)
    assert (drawn[:, : 6 * 56] == 128).all()
    cold, hot = drawn[-3, -3], drawn[3, 6 * 56 + 8 + 3]
    assert tuple(cold) == (128, 128, 128)
    assert np.abs(hot - (0.85 * np.array(COLORS[-1]) + 0.15 * 128)).max() < 1.5


def test_overlay_of_a_grayscale_image():
    figure = overlay(np.zeros((300, 240, 1), np.uint8), np.ones((300, 240), np.float32))
    assert figure.size == (2 * 240 + 8, 300)


def test_images_of_several_bands():
    pixels = np.zeros((224, 224, 5), np.uint8)
    pixels[..., 1] = 200
    drawn = np.asarray(overlay(pixels, np.zeros((224, 224), np.float32)))
    assert tuple(drawn[0, 0]) == (0, 200, 0)
    assert tuple(np.asarray(overlay(pixels[..., 1:3], np.zeros((224, 224), np.float32)))[0, 0]) == (200,) * 3


def test_sheet_has_a_cell_for_each_image():
    images = [np.full((n, 2 * n, 3), 255 - n, np.uint8) for n in range(1, 8)]
    page = np.asarray(sheet(images))
    assert page.shape == (3 * 120, 3 * 120, 3)
    assert (page[2, 2] == 254).all()
    assert (page[2 * 120 + 2, 2] == 255 - 7).all()


def test_a_figure_of_too_many_images_is_refused():
    image = np.zeros((1, 1, 3), np.uint8)
    for draw in (lambda: sheet([image] * 4097), lambda: stacked([[image] * 2049, []])):
        with pytest.raises(UsageError, match="one figure has room for 4,096"):
            draw()
    assert stacked([[image] * 3, []]).size == (3 * 120, 2 * 120)


def test_tiles_use_the_whole_range():
    low, high = tiles(np.array([[[1.0, 3.0]], [[5.0, 5.0]]]))
    assert low.tolist() == [[list(COLORS[0]), list(COLORS[-1])]]
    assert (high == COLORS[0]).all()
