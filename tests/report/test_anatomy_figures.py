"""Figures of the anatomy show what they were given."""

import numpy as np
import pytest
from PIL import Image

from striate.report import anatomy_figures


def test_the_box_of_the_field_is_drawn_where_it_is(tmp_path):
    image = np.full((40, 60, 3), 128, np.uint8)
    heat = np.zeros((40, 60))
    heat[20, 30] = 1
    figure = anatomy_figures.effective_field(image, heat, ((-5, 44), (10, 49)), "title")
    (box,) = figure.axes[0].patches
    assert (box.get_xy(), box.get_width(), box.get_height()) == ((9.5, -5.5), 40, 50)
    assert figure.axes[0].get_ylim()[1] < -5.5 < 44.5 < figure.axes[0].get_ylim()[0]
    assert "50 x 40 pixels" in figure.axes[0].get_xlabel()
    anatomy_figures.save(figure, tmp_path / "erf.png")
    with Image.open(tmp_path / "erf.png") as picture:
        assert picture.width > 600
    assert [path.name for path in tmp_path.iterdir()] == ["erf.png"]


def test_concentration_counts_the_hottest_pixels():
    assert anatomy_figures.concentration(np.ones((10, 10))) == pytest.approx(0.95, abs=0.011)
    heat = np.zeros((10, 10))
    heat[3, 4] = 1
    assert anatomy_figures.concentration(heat) == 0.01


def test_every_network_is_on_both_plots():
    figure = anatomy_figures.accuracy_against_cost([("vgg16", 71.6, 138, 15), ("resnet18", 69.8, 11, 2)])
    for axes in figure.axes:
        assert {text.get_text() for text in axes.texts} == {"vgg16", "resnet18"}
    assert {line.get_xdata()[0] for line in figure.axes[1].lines} == {15, 2}
