"""The command `striate anatomy`."""

import json

import pytest

from striate.cli import run


def striate(capsys, *argv):
    code = run(["anatomy", *argv])
    out, err = capsys.readouterr()
    return code, out, err


def test_a_network_as_json(capsys):
    code, out, err = striate(capsys, "vgg16", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert (found["model"], found["params"], found["macs"]) == ("vgg16", 138357544, 15470264320)


def test_a_network_as_text_fits_the_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "70")
    code, out, _ = striate(capsys, "googlenet", "--depth", "1")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 70
    assert "inception5b" in out


@pytest.mark.parametrize("flag", ["--csv", "--markdown"])
def test_other_forms(capsys, flag):
    code, out, _ = striate(capsys, "resnet18", flag, "--imgsz", "64x96")
    assert code == 0
    assert "layer4.1.conv2" in out.replace("\\", "")


def test_a_users_own_network(capsys, tmp_path, monkeypatch):
    (tmp_path / "mynets.py").write_text(
        "from torch import nn\n"
        "def small():\n    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 5))\n"
        "def broken():\n    raise KeyError('x')\n"
        "number = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    code, out, _ = striate(capsys, "mynets:small", "--json", "--imgsz", "8")
    found = json.loads(out)
    assert code == 0
    assert (found["params"], found["macs"]) == (20 + 365, 2 * 36 * 9 + 72 * 5)
    for wrong, words in [
        ("mynets:broken", "KeyError"),
        ("mynets:number", "int"),
        ("mynets:nothing", "nothing"),
        ("nowhere:f", "nowhere"),
        ("mynets:small", "cannot run on an input of shape [1, 1, 224, 224]"),
    ]:
        code, out, err = striate(capsys, wrong)
        assert code == 2
        assert words in err
        assert len(err.splitlines()) == 1


def test_comparison(capsys):
    code, out, _ = striate(capsys, "--compare", "vgg16", "googlenet")
    assert code == 0
    assert "6,624,904 (0.0479x)" in out


def test_an_interactive_page(capsys, tmp_path):
    from PIL import Image

    Image.new("RGB", (300, 200), "red").save(tmp_path / "photo.png")
    page = tmp_path / "page.html"
    code, out, _ = striate(capsys, "resnet18", "--html", str(page), "--image", str(tmp_path / "photo.png"))
    assert (code, out) == (0, f"wrote {page}\n")
    assert "layer4.1.conv2" in page.read_text("utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.html", "photo.png"]
    code, _, err = striate(capsys, "resnet18", "--html", str(tmp_path / "photo.png" / "page.html"))
    assert code == 3
    assert "cannot write" in err


def test_fields_are_checked_by_gradients(capsys):
    code, out, _ = striate(capsys, "lenet", "--check")
    assert code == 0
    assert out.startswith("24 of 24 receptive fields agree with the gradients")
    code, out, _ = striate(capsys, "lenet", "--check", "--json")
    assert all(item["agrees"] for item in json.loads(out)["checks"])


def test_effective_field_and_accuracy_plot(capsys, tmp_path):
    from PIL import Image

    Image.new("RGB", (90, 70), "green").save(tmp_path / "photo.png")
    picture = tmp_path / "erf.png"
    argv = [
        "resnet20",
        "--erf",
        str(tmp_path / "photo.png"),
        "--layer",
        "layer2.0.conv2",
        "--out",
        str(picture),
    ]
    code, out, _ = striate(capsys, *argv)
    assert code == 0
    assert out.startswith("layer2.0.conv2: ")
    assert picture.stat().st_size > 10_000
    code, _, err = striate(capsys, *argv[:-3], "layer9", "--out", str(picture))
    assert code == 2
    assert "unknown layer" in err
    code, out, _ = striate(capsys, "vgg11", "resnet18", "--plot", str(tmp_path / "plot.svg"))
    assert code == 0
    assert (tmp_path / "plot.svg").read_text("utf-8").startswith("<?xml")


def test_the_calculator_explains_the_first_layer_of_alexnet(capsys):
    code, out, _ = striate(
        capsys, "conv", "--input", "224", "--kernel", "11", "--stride", "4", "--padding", "2"
    )
    assert code == 0
    assert "N = 54 + 1 = 55" in out
    assert "receptive field: 11 pixels, from -2 to 8 for the first output; jump 4" in out


def test_the_calculator_compares_stacks_and_reductions(capsys):
    _, out, _ = striate(capsys, "conv", "--stack", "3x3,3x3,3x3", "--stack", "7x7", "--json")
    three, one = json.loads(out)["stacks"]
    assert (three["rf"], three["weights_per_c2"], one["rf"], one["weights_per_c2"]) == (7, 27, 7, 49)
    args = ["--input", "28", "--kernel", "5", "--padding", "2", "--channels", "192", "--filters", "32"]
    _, out, _ = striate(capsys, "conv", *args, "--reduce", "16")
    assert "12,443,648 MACs instead of 120,422,400" in out


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["vgg17"], "vgg16"),
        (["vgg16", "vgg19"], "--compare"),
        (["vgg16", "--imgsz", "big"], "image size"),
        (["vgg16", "--json", "--csv"], "Choose one"),
        (["conv", "--kernel", "300"], "smaller kernel"),
        (["conv", "--stack", "3x5"], "3x3,3x3"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(capsys, argv, words):
    code, out, err = striate(capsys, *argv)
    assert code == 2
    assert out == "" or ("--json" in argv and json.loads(out)["error"]["exit_code"] == 2)
    assert words in err
    assert len(err.splitlines()) == 1


def test_a_bundle_is_shown_with_its_own_weights_and_size(capsys, tmp_path):
    import torch
    from PIL import Image

    from striate import bundle
    from striate.models import build
    from striate.transforms.preprocess import Preprocess

    path = tmp_path / "model.safetensors"
    arguments = {"num_classes": 3, "input_size": 48}
    contract = Preprocess.for_size(48)
    torch.manual_seed(0)
    bundle.write(
        path,
        build("lenet", **arguments),
        bundle.Description("classification", "lenet", arguments, ("a", "b", "c"), contract),
    )
    code, out, _ = striate(capsys, str(path), "--json")
    found = json.loads(out)
    assert code == 0
    assert found["input"] == [[1, 3, 48, 48]]
    assert found["layers"][-1]["output"] == [1, 3]
    assert found["layers"][0]["macs"] == 6 * 44 * 44 * 75
    Image.new("RGB", (90, 70), "green").save(tmp_path / "photo.png")
    argv = ["--erf", str(tmp_path / "photo.png"), "--layer", "conv2", "--out", str(tmp_path / "erf.png")]
    assert striate(capsys, str(path), *argv)[0] == 0
    assert (tmp_path / "erf.png").exists()
