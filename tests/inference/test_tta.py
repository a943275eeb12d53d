"""Test-time augmentation, against the scores of versions that the test makes itself."""

import dataclasses
import json

import numpy as np
import pytest
import torch

import striate
import striate.cli
from striate import models
from striate.bundle import Description
from striate.errors import UsageError
from striate.inference.classifier import Classifier
from striate.inference.prediction import softmax
from striate.transforms.preprocess import Preprocess


@pytest.fixture(scope="module")
def classifier():
    torch.manual_seed(0)
    preprocess = dataclasses.replace(Preprocess.for_size(32), shorter_side=40)
    network = models.build("lenet", num_classes=3, in_channels=3).eval()
    description = Description("classification", "lenet", {}, ("a", "b", "c"), preprocess)
    return Classifier(network, description, torch.device("cpu"))


def versions(image, size):
    """Five crops of an image and their mirror images."""
    rest = len(image) - size
    for y, x in ((0, 0), (0, rest), (rest, 0), (rest, rest), (rest // 2, rest // 2)):
        crop = image[y : y + size, x : x + size]
        yield from (crop, crop[:, ::-1])


def mean_of(classifier, images):
    pixels = torch.from_numpy(np.stack([np.ascontiguousarray(image) for image in images]))
    with torch.no_grad():
        scores = classifier.network(classifier.preprocess.normalize(pixels))
    return softmax(scores.numpy().mean(axis=0)[None])[0]


IMAGE = np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)


def test_flip_averages_the_image_and_its_mirror_image(classifier):
    own = classifier.preprocess.read(IMAGE)
    expected = mean_of(classifier, [own, own[:, ::-1]])
    assert classifier.predict(IMAGE, tta="flip").probabilities == pytest.approx(expected, abs=1e-6)
    assert np.abs(classifier.predict(IMAGE).probabilities - expected).max() > 1e-5


def test_crops_are_the_ten_of_alexnet(classifier):
    expected = mean_of(classifier, list(versions(IMAGE, 32)))
    found = list(classifier.predict_many([IMAGE, IMAGE], tta="crops"))
    assert [list(p.probabilities) for p in found] == [pytest.approx(expected, abs=1e-6)] * 2


def test_an_onnx_file_gives_the_same(classifier, tmp_path):
    pytest.importorskip("onnxruntime")
    from striate.exporters.onnx import graph
    from striate.inference.onnx_classifier import OnnxClassifier, open_session

    graph_file = tmp_path / "m.onnx"
    from striate.exporters.onnx.file import encode

    graph_file.write_bytes(b"".join(encode(graph(classifier.network, classifier.preprocess), ("x", "1"), {})))
    exported = OnnxClassifier(open_session(graph_file), classifier.description, "m.onnx")
    for kind in ("flip", "crops"):
        expected = classifier.predict(IMAGE, tta=kind).probabilities
        assert exported.predict(IMAGE, tta=kind).probabilities == pytest.approx(expected, abs=1e-6)


def test_what_cannot_be_done_is_refused(classifier, run):
    with pytest.raises(UsageError, match="flips"):
        classifier.predict(IMAGE, tta="flips")
    squashed = dataclasses.replace(classifier.preprocess, resize="squash")
    other = dataclasses.replace(
        classifier, description=dataclasses.replace(classifier.description, preprocess=squashed)
    )
    with pytest.raises(UsageError, match="no margin to crop"):
        other.predict(IMAGE, tta="crops")


def test_the_commands(run, colors, capsys):
    image = str(next((colors / "test").rglob("*.png"), None) or next(colors.rglob("*.png")))
    assert striate.cli.run(["predict", str(run.best), image, "--tta", "flip", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["results"]
    expected = striate.load(run.best).predict(image, tta="flip").top(1)[0]
    assert found["top"][0]["probability"] == pytest.approx(expected.probability, abs=1e-9)
    evaluation = striate.evaluate(run.best, tta="flip")
    assert any(note.startswith("test-time augmentation") for note in evaluation.notes)
    assert evaluation.probabilities[0] == pytest.approx(
        striate.load(run.best).predict(evaluation.names[0], tta="flip").probabilities, abs=1e-6
    )
    assert striate.cli.run(["predict", str(run.best), image, "--tta", "flip", "--explain"]) == 2
