"""On which images an export is compared, and what the comparison says."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import striate
from striate.bundle import Description
from striate.errors import DataError, StriateWarning, UsageError, WriteError
from striate.exporters import export, state_dict
from striate.exporters.inputs import COUNT, images_for
from striate.exporters.records import Exported, Request
from striate.inference.classifier import Classifier
from striate.models import build
from striate.transforms.preprocess import Preprocess


def untrained(channels=3, size=32):
    torch.manual_seed(0)
    arguments = {"num_classes": 3, "in_channels": channels}
    network = build("lenet", **arguments).eval()
    preprocess = Preprocess.for_size(size, channels)
    description = Description("classification", "lenet", arguments, ("blue", "green", "red"), preprocess)
    return Classifier(network, description, torch.device("cpu"))


def test_a_model_is_compared_on_what_its_run_held_out(run):
    model = striate.load(run.best, "cpu")
    inputs = images_for(model, Request())
    assert len(inputs.images) == len(inputs.labels) == run.evaluation.n
    assert inputs.source.startswith(f"{run.evaluation.n} of {run.evaluation.n} test images of ")
    accuracy = (model.probabilities(inputs.images).argmax(1) == inputs.labels).mean()
    assert accuracy == run.evaluation.top1


def test_given_data_and_images_come_first(run, few_colors):
    model = striate.load(run.best, "cpu")
    inputs = images_for(model, Request(data=few_colors))
    assert (len(inputs.images), inputs.source) == (36, f"36 of 36 all images of {few_colors.name}")
    names = [model.classes[label] for label in inputs.labels]
    assert {name: names.count(name) for name in names} == dict.fromkeys(model.classes, 12)
    picture = str(next(few_colors.rglob("*.png")))
    inputs = images_for(model, Request((picture,)))
    assert (inputs.labels, inputs.source) == (None, "1 given images")
    assert np.array_equal(inputs.images[0], model.preprocess.read(picture))
    with pytest.raises(DataError, match="absent"):
        images_for(model, Request(data=str(few_colors / "absent")))


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_a_model_without_its_run_is_compared_on_photographs(channels):
    inputs = images_for(untrained(channels), Request())
    assert (inputs.images.shape, inputs.labels) == ((48, 32, 32, channels), None)
    assert inputs.source == "48 parts of installed photographs"
    assert inputs.images.std(axis=(1, 2, 3)).min() > 2  # none is of one color
    assert len(np.unique(inputs.images.reshape(48, -1), axis=0)) == 48


def test_a_run_whose_data_are_gone_says_so(run, tmp_path):
    shutil.copytree(run.training.folder, tmp_path / "run")
    config = tmp_path / "run" / "config.yaml"
    config.write_text(config.read_text("utf-8").replace(run.training.config.source, "/gone"), "utf-8")
    model = striate.load(tmp_path / "run", "cpu")
    with pytest.warns(StriateWarning, match="not compared on the images of the run: .*/gone"):
        assert images_for(model, Request()).labels is None


def test_a_large_split_is_sampled(tmp_path):
    generator = np.random.default_rng(0)
    for i in range(COUNT + 20):
        path = tmp_path / "data" / ("red", "blue")[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (8, 8, 3), np.uint8)).save(path)
    one, other = (images_for(untrained(), Request(data=tmp_path / "data")) for _ in range(2))
    assert len(one.images) == COUNT
    assert np.array_equal(one.images, other.images)
    assert 20 < one.labels.sum() / 2 < 44  # red is 2, blue is 0


def test_an_unequal_export_is_refused_and_its_figures_are_those_of_the_images(tmp_path, monkeypatch, run):
    """The export always says red; what it may lose decides."""
    model = striate.load(run.best, "cpu")
    loss = None
    written = []

    def wrong(model, path, request):
        path.write_bytes(b"x")
        written.append(path)

        def scores(images):
            return np.tile(np.float32([0, 0, 9]), (len(images), 1))

        return Exported(scores=scores, max_loss=loss, store=path.write_text)

    monkeypatch.setattr(state_dict, "export", wrong)
    with pytest.raises(WriteError, match="its scores differ by"):
        export(model, tmp_path / "x.pth", "state-dict")
    loss = 60
    share = float((images_for(model, Request()).labels == 2).mean())
    with pytest.raises(
        WriteError, match=rf"it loses {100 * (1 - share):.1f} points of accuracy on 12 of 12 test"
    ):
        export(model, tmp_path / "x.pth", "state-dict")
    assert not list(tmp_path.iterdir())
    assert not any(path.parent.exists() for path in written)
    loss = 70
    parity = export(model, tmp_path / "x.pth", "state-dict")
    assert parity.accuracy == (1.0, share)
    assert parity.equal == round(12 * share)
    assert min(parity.milliseconds) > 0
    assert json.loads((tmp_path / "x.pth").read_text())["equal"] == parity.equal


def test_text_models_take_texts(run, text_run, tmp_path):
    with pytest.raises(UsageError, match="data= with a seq2seq model"):
        striate.export(text_run.best, tmp_path / "x.pth", "state-dict", data="x.tsv")


def test_the_file_holds_its_comparison(run, tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    parity = striate.export(run.best, tmp_path / "model.onnx", "onnx")
    metadata = {entry.key: entry.value for entry in onnx.load(tmp_path / "model.onnx").metadata_props}
    stored = json.loads(metadata["comparison"])
    assert (stored["n"], stored["equal"], stored["accuracy"]) == (12, 12, [1.0, 1.0])
    assert stored["max_difference"] == parity.max_difference
    assert striate.load(tmp_path / "model.onnx").classes == striate.load(run.best).classes
