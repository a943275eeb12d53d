"""The page agrees with the trace, for any input size, in a real browser and offline."""

import html
import json
import re

import numpy as np
import pytest
from browser import needs_chromium
from PIL import Image
from torch import nn

from striate.anatomy import trace
from striate.models import MODELS
from striate.report.anatomy_page import lanes, render, resizable


def opened(browser, folder, page, anchor):
    """Opens a page at an anchor; returns its document."""
    (folder / "page.html").write_text(page, "utf-8")
    browser.window(1500, 700)
    browser.open(f"{(folder / 'page.html').as_uri()}#{anchor}")
    return browser.evaluate("document.documentElement.outerHTML")


def rows_of(document):
    body = re.search(r'<tbody id="rows">(.*?)</tbody>', document, re.S).group(1)
    rows = re.findall(r"<tr.*?</tr>", body, re.S)
    return [
        [html.unescape(re.sub("<.*?>", "", c)) for c in re.findall(r"<td.*?</td>", row, re.S)] for row in rows
    ]


class UNet(nn.Module):
    """Pads, slices, upsamples and transposes, for the rules that no classic network uses."""

    def __init__(self):
        super().__init__()
        self.pad = nn.ZeroPad2d((1, 2, 0, 3))
        self.down = nn.Conv2d(3, 4, 3, stride=2, dilation=2)
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.up = nn.ConvTranspose2d(4, 4, 3, stride=2, output_padding=1)
        self.big = nn.Upsample(scale_factor=2)

    def forward(self, x):
        x = self.up(self.pool(self.down(self.pad(x))))
        return self.big(x)[:, :, 1:-1, ::3].relu()


@needs_chromium
@pytest.mark.parametrize("name", ["googlenet", "resnet20", "mobilenet_v3_small", "unet"])
def test_sizes_are_recomputed_in_the_page(tmp_path, browser, name):
    net = UNet() if name == "unet" else name
    size = (51, 75) if name in ("unet", "resnet20") else (251, 309)
    page = render(trace(net))
    expected = trace(net, size=size)
    document = opened(browser, tmp_path, page, f"size={size[0]}x{size[1]}")
    rows = rows_of(document)
    assert [row[1] for row in rows] == [layer.name for layer in expected.layers]
    assert [row[3] for row in rows] == [" x ".join(map(str, layer.output[1:])) for layer in expected.layers]
    assert [row[9] for row in rows] == [f"{x.macs:,}" if x.macs else "" for x in expected.layers]
    assert f'data-macs="{expected.macs}"' in document


@needs_chromium
def test_a_size_that_does_not_fit_is_reported(tmp_path, browser):
    document = opened(browser, tmp_path, render(trace("lenet")), "size=40x40")
    assert "an image of 40 x 40 does not fit: fc1" in document


@needs_chromium
def test_pointing_at_a_layer_shows_its_field_over_the_image(tmp_path, browser):
    anatomy = trace("resnet18")
    index = next(i for i, layer in enumerate(anatomy.layers) if layer.name == "layer3.0.conv2")
    photograph = np.full((64, 64, 3), (0, 0, 255), np.uint8)
    page = render(anatomy, photograph)
    document = opened(browser, tmp_path, page, f"layer={index}")
    field = json.loads(html.unescape(re.search(r'data-field="(.*?)"', document).group(1)))
    assert [tuple(axis) for axis in field] == list(anatomy.layers[index].sees((7, 7)))
    shot = tmp_path / "shot.png"
    browser.screenshot(shot, whole=False)
    pixels = np.asarray(Image.open(shot).convert("RGB")).astype(int)
    blue = (pixels[..., 2] > 200) & (pixels[..., 0] < 60) & (pixels[..., 1] < 60)
    border = (abs(pixels - [209, 0, 87]).max(axis=2) < 25) & (np.arange(pixels.shape[1]) > 1100)
    assert blue.sum() > 5000  # the photograph
    assert border.sum() > 200  # the box
    ys, xs = np.nonzero(border)
    # 147 of 224 pixels, on an image that is 340 / 1.5 wide
    assert np.ptp(xs) == pytest.approx(np.ptp(ys), abs=4)
    assert np.ptp(xs) == pytest.approx(anatomy.layers[index].rf[0] / 224 * 340 / 1.5, abs=5)


def test_the_page_refers_to_nothing_outside(tmp_path):
    page = render(trace("resnet18"), np.zeros((8, 8, 3), np.uint8))
    for address in re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"'\s)>]+)""", page):
        assert address.startswith("data:"), address
    assert set(re.findall(r"https?://[^\s\"']+", page)) == {"http://www.w3.org/2000/svg"}


def test_names_cannot_break_out_of_the_page():
    net = nn.Sequential()
    net.add_module("</script><b>", nn.Conv2d(3, 1, 1))
    page = render(trace(net, size=8))
    assert "</script><b>" not in page


def test_which_networks_can_be_resized():
    assert [name for name in ("vgg16", "vit_ti_16", "lenet") if resizable(trace(name))] == ["vgg16", "lenet"]


@pytest.mark.parametrize("name", [name for name in MODELS if name != "resnet1202"])
def test_lines_run_free_of_other_layers(name):
    layers = trace(name).layers
    places = lanes(layers)
    last = {}
    for index, layer in enumerate(layers):
        last.update(dict.fromkeys(layer.inputs, index))
    for index in range(len(layers)):
        for later in range(index + 1, last.get(index, index)):
            assert places[later] != places[index]
