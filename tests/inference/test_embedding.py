import importlib.util
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import COLORS, make_images
from torch import nn

from striate import bundle, cli
from striate.errors import DataError, DecodeError, UsageError
from striate.inference import embedding
from striate.inference.classifier import load
from striate.inference.penultimate import Penultimate
from striate.models import build
from striate.transforms.preprocess import Preprocess


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("colours")
    for name, color in COLORS.items():
        make_images(root / name, 2, color)
    (root / "red" / "broken.png").write_bytes(b"\x89PNG")
    return root


@pytest.fixture(scope="module")
def model(data):
    """A LeNet with random weights."""
    torch.manual_seed(0)
    arguments = {"num_classes": 3, "in_channels": 3, "input_size": [32, 32]}
    description = bundle.Description(
        "classification", "lenet", arguments, tuple(sorted(COLORS)), Preprocess.for_size(32)
    )  # fmt: skip
    bundle.write(data / "model.safetensors", build("lenet", **arguments), description)
    return load(data / "model.safetensors", "cpu")


def test_the_features_give_the_scores(model, data):
    paths = sorted((data / "blue").iterdir())
    features = model.embed(paths)
    assert features.dtype == np.float32
    assert features.shape == (2, model.network.fc3.in_features)
    with torch.inference_mode():
        scores = model.network.fc3(torch.from_numpy(features)).softmax(dim=1).numpy()
    expected = [prediction.probabilities for prediction in model.predict_many(paths)]
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    with pytest.raises(DecodeError, match=r"broken\.png"):
        model.embed([*paths, data / "red" / "broken.png"])
    assert model.embed([]).shape == (0, 0)


def test_features_of_an_appended_network_are_the_scores_of_its_base(model, data, tmp_path):
    arguments = {**model.description.arguments, "num_classes": 7, "append": 3}
    network = build("lenet", **arguments)
    bundle.write(tmp_path / "a.safetensors", network, replace(model.description, arguments=arguments))
    paths = sorted((data / "blue").iterdir())
    images = torch.from_numpy(np.stack([model.preprocess.read(path) for path in paths]))
    with torch.inference_mode():
        expected = network.eval().base(model.preprocess.normalize(images)).numpy()
    np.testing.assert_allclose(load(tmp_path / "a.safetensors", "cpu").embed(paths), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("before", "last", "average"),
    [(nn.Conv2d(3, 5, 3), nn.Conv2d(5, 2, 1), (2, 3)), (nn.Flatten(2), nn.Linear(36, 2), (1,))],
    ids=["space", "tokens"],
)
def test_axes_besides_the_features_are_averaged(before, last, average):
    network = nn.Sequential(before, last)
    images = torch.rand(4, 3, 6, 6)
    expected = before(images).mean(dim=average)
    torch.testing.assert_close(Penultimate(network, "1")(images), expected)
    with pytest.raises(UsageError, match="not known"):
        Penultimate(network, "")


def test_files_have_paths_labels_and_splits(model, data, tmp_path, capsys):
    command = ["embed", str(data / "model.safetensors"), str(data), "--no-cache", "--json"]
    assert cli.run([*command, "--out", str(tmp_path / "f.npz")]) == 0
    said = capsys.readouterr()
    broken = str(data / "red" / "broken.png")
    assert json.loads(said.out) == {
        "out": str(tmp_path / "f.npz"), "n": 6, "features": 84, "unreadable": [broken]
    }  # fmt: skip
    assert "broken.png is left out" in said.err
    with np.load(tmp_path / "f.npz") as file:
        found = dict(file)
    assert sorted(found) == ["features", "labels", "paths", "splits"]
    assert [path.split("/")[-2] for path in found["paths"].tolist()] == found["labels"].tolist()
    assert set(found["splits"].tolist()) == {"all"}
    np.testing.assert_array_equal(found["features"], model.embed(found["paths"].tolist()))


def test_a_folder_without_classes_has_no_labels(model, data):
    found = embedding.embed(model, str(data / "blue"), cache=False)
    assert found.labels == ("", "")
    assert len(found.paths) == len(found.features) == 2


def test_image_files_and_the_reasons_for_other_data(model, data, tmp_path):
    """A file that is no image keeps the reason why it is no dataset."""
    path = sorted((data / "blue").iterdir())[0]
    found = embedding.embed(model, path, cache=False)
    assert (found.paths, found.labels, found.splits) == ((str(path),), ("",), ("all",))
    np.testing.assert_array_equal(found.features, model.embed([path]))
    (tmp_path / "x.npz").write_bytes(b"PK\x03\x04")
    (tmp_path / "x.txt").write_text("text")
    for name, why in (("x.npz", "npz"), ("x.txt", "neither a folder nor"), ("blu", "no such file")):
        with pytest.raises((DataError, UsageError), match=why) as error:
            embedding.embed(model, str(tmp_path / name), cache=False)
        assert "none of its images" not in str(error.value)


def test_parquet(model, data, tmp_path):
    found = embedding.embed(model, str(data), cache=False)
    if importlib.util.find_spec("pyarrow") is None:
        with pytest.raises(UsageError, match="Parquet needs pyarrow"):
            found.write(tmp_path / "f.parquet")
        return
    import pyarrow.parquet

    found.write(tmp_path / "f.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "f.parquet").to_pydict()
    assert table["path"] == list(found.paths)
    assert table["label"] == list(found.labels)
    np.testing.assert_array_equal(np.array(table["features"], np.float32), found.features)


def test_other_formats_and_models_are_refused(model, data, tmp_path, capsys):
    path = str(data / "model.safetensors")
    assert cli.run(["embed", path, str(data), "--out", str(tmp_path / "f.csv")]) == 2
    assert "must end in .npz or .parquet" in capsys.readouterr().err
