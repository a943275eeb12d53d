"""Tables contain the results of the trace, and fit the terminal."""

import csv
import io
import json

import pytest
from torch import nn

from striate.anatomy import table, trace


@pytest.fixture(scope="module")
def googlenet():
    return trace("googlenet")


@pytest.mark.parametrize("width", [60, 80, 100, 160])
@pytest.mark.parametrize("depth", [None, 1, 2])
def test_text_fits_the_width(googlenet, width, depth):
    lines = table.to_text(googlenet, width, depth).splitlines()
    assert max(map(len, lines)) <= width
    assert "parameters 6,624,904" in "\n".join(lines)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_fewer_levels_keep_the_totals(googlenet, depth):
    rows = table.collapse(googlenet, depth)
    assert len(rows) < len(googlenet.layers)
    assert sum(row.params for row in rows) == googlenet.params
    assert sum(row.macs for row in rows) == googlenet.macs
    assert sum(row.activation for row in rows) == googlenet.activation
    by_name = {row.name: row for row in rows}
    assert by_name["inception3a"].type == "Inception" if depth == 1 else "inception3a" not in by_name
    if depth == 1:
        # Szegedy et al. 2015, table 1: inception 3a has 256 channels out; 1x1, 3x3, pool and 5x5 branches.
        assert by_name["inception3a"].output == (1, 256, 28, 28)


def test_json_has_the_keys_that_scripts_rely_on(googlenet):
    found = json.loads(json.dumps(table.to_dict(googlenet)))
    assert {"model", "params", "macs", "layers"} <= set(found)
    first = found["layers"][0]
    keys = {"name", "type", "output", "kernel", "stride", "padding", "rf", "jump", "start", "params", "macs"}
    assert keys <= set(first)
    assert first["output"] == [1, 64, 112, 112]
    assert (first["kernel"], first["stride"], first["padding"]) == (7, 2, 3)
    assert (first["rf"], first["jump"], first["start"]) == (7, 2, 0.5)
    assert (found["params"], found["total_params"]) == (6624904, 13004888)


def test_axes_that_differ_are_lists():
    net = nn.Sequential(nn.Conv2d(3, 2, (3, 5), (1, 2)))
    layer = table.to_dict(trace(net, size=(9, 11)))["layers"][0]
    assert (layer["kernel"], layer["stride"], layer["rf"]) == ([3, 5], [1, 2], [3, 5])
    assert "3x5" in table.to_csv(trace(net, size=(9, 11)))


def test_csv_and_markdown_have_a_line_for_each_layer(googlenet):
    rows = list(csv.DictReader(io.StringIO(table.to_csv(googlenet))))
    assert [row["name"] for row in rows] == [layer.name for layer in googlenet.layers]
    assert sum(int(row["macs"]) for row in rows) == googlenet.macs
    lines = [line for line in table.to_markdown(googlenet).splitlines() if line.startswith("|")]
    assert len(lines) == len(googlenet.layers) + 2
    assert len({line.count("|") for line in lines}) == 1


def test_googlenet_has_a_twentieth_of_the_parameters_of_vgg():
    found = table.compare([trace("vgg16"), trace("googlenet")])
    assert found["params"]["values"] == [138357544, 6624904]
    assert found["params"]["ratios"][1] == pytest.approx(1 / 20, abs=0.003)
    assert found["weighted_layers"]["values"] == [16, 58]
    assert "0.0479x" in table.compare_text([trace("vgg16"), trace("googlenet")])


def test_text_without_an_image_has_no_fields():
    import torch

    text = table.to_text(trace(nn.Linear(4, 2), torch.empty(3, 4)), 100)
    assert "rf" not in text.splitlines()[0]
    assert "(itself)" in text
