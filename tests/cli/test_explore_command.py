"""`striate explore`."""

import json

import pytest
from PIL import Image

from striate.cli import run as striate

LINES = {
    "filters": ["filters", "{model}"],
    "maps": ["maps", "{model}", "{image}", "--layer", "conv2"],
    "channel": ["channel", "{model}", "conv2:3", "{data}", "--count", "4"],
    "nearest": ["nearest", "{model}", "{image}", "{data}", "--count", "3"],
    "prototypes": ["prototypes", "{model}", "{data}", "--count", "2", "--class", "red", "--class", "blue"],
}


def call(name, run, data, out, *more):
    paths = {"model": str(run.best), "image": str(data / "red" / "001.png"), "data": str(data)}
    return striate(["explore", *(w.format(**paths) for w in LINES[name]), "--out", str(out), *more])


@pytest.mark.parametrize("name", LINES)
def test_figure_and_json(name, run, few_colors, tmp_path, capsys):
    out = tmp_path / "out.png"
    assert call(name, run, few_colors, out, "--json") == 0
    values = json.loads(capsys.readouterr().out)
    assert values["out"] == str(out)
    expected = {
        "filters": lambda v: (v["layer"], v["filters"], v["size"]) == ("conv1", 6, [5, 5]),
        "maps": lambda v: (v["maps"], v["size"], len(v["max"])) == (16, [10, 10], 16),
        "channel": lambda v: len(v["images"]) == 4 and len(v["images"][0]["box"]) == 4,
        "nearest": lambda v: v["images"][0]["similarity"] < 1 and len(v["images"]) == 3,
        "prototypes": lambda v: (
            {k: len(p["criticisms"]) for k, p in v["classes"].items()} == {"red": 2, "blue": 2}
        ),
    }
    assert expected[name](values)
    with Image.open(out) as figure:
        assert min(figure.size) >= 120


def test_lines(run, few_colors, tmp_path, capsys):
    out = tmp_path / "out.png"
    assert call("nearest", run, few_colors, out) == 0
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first.split()[1] == "red"
    assert str(few_colors / "red" / "001.png") not in first  # the image itself
    assert last == f"file  {out}"
    assert striate(["explore", "prototypes", str(run.best), "--count", "1", "--out", str(out)]) == 0
    assert striate(["explore", "nearest", str(run.best), "--count", "1"]) == 2
    assert "See `striate explore nearest --help`" in capsys.readouterr().err


def test_errors(run, few_colors, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model, data = str(run.best), str(few_colors)
    assert striate(["explore", "channel", model, "conv2", data]) == 2
    assert "'conv2': it is not LAYER:INDEX" in capsys.readouterr().err
    assert striate(["explore", "channel", model, f"conv2:{3:011}", data]) == 2
    assert "it is not LAYER:INDEX" in capsys.readouterr().err
    assert striate(["explore", "channel", model, "conv9:1", data]) == 2
    assert "unknown layer 'conv9': did you mean" in capsys.readouterr().err


def test_a_figure_that_is_too_large_is_refused_early(run, few_colors, tmp_path, monkeypatch, capsys):
    from striate.explain import drawing
    from striate.inference.classifier import Classifier

    monkeypatch.setattr(drawing, "MAX_CELLS", 11)
    monkeypatch.setattr(Classifier, "features", None)  # no image goes through the network
    command = ["explore", "prototypes", str(run.best), str(few_colors), "--out", str(tmp_path / "x.png")]
    assert striate([*command, "--count", "2"]) == 2
    assert "a figure of 12 images: one figure has room for 11" in capsys.readouterr().err
