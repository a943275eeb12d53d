"""`Classifier.explain`: the record, its figure, its errors."""

import copy
import json
import pickle

import numpy as np
import pytest
import torch

import striate
from striate.errors import DataError, DecodeError, UsageError
from striate.explain import METHODS
from striate.explain.explanation import Explanation


@pytest.fixture(scope="module")
def classifier(run):
    return striate.load(run.best, "cpu")


@pytest.fixture(scope="module")
def image(colors):
    return next((colors / "red").iterdir())


def test_explanation_of_the_prediction(classifier, image):
    before = copy.deepcopy(classifier.network.state_dict())
    found = classifier.explain(image)
    prediction = classifier.predict(image)
    assert (found.target, found.predicted) == (prediction.label, prediction.label)
    assert found.probability == pytest.approx(prediction.top(1)[0].probability, abs=1e-5)
    assert (found.method, found.layer, found.map.shape) == ("grad-cam", "relu_1", (10, 10))
    what = f"grad-cam of {found.target!r}, {100 * found.probability:.2f} %"
    assert repr(found).startswith(f"Explanation({found.path!r}, {what}, map ")
    fine = classifier.explain(image, "layer-cam", test=False)
    assert (fine.layer, fine.map.shape) == ("relu", (28, 28))
    assert found.pixels.shape == (32, 32, 3)
    assert found.heat.shape == (32, 32)
    assert 0 <= found.heat.min() <= found.heat.max() == 1
    assert found.heat[found.peak] == 1
    assert found.faithfulness is not None
    assert found.randomization is None
    assert found.figure().size == (2 * 7 * 32 + 8, 7 * 32)
    after = classifier.network.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_every_source_gives_the_same_explanation(classifier, image):
    expected = classifier.explain(image, test=False).map
    pixels = classifier.preprocess.decode(image)
    for source in (image.read_bytes(), pixels):
        np.testing.assert_array_equal(classifier.explain(source, test=False).map, expected)


def test_a_prediction_and_its_map_take_one_pass(classifier, image):
    classifier.explain(image, test=False)
    calls = []
    handle = classifier.explainer._split(fine=False).trunk.register_forward_hook(lambda *_: calls.append(1))
    try:
        for method in ("grad-cam", "finer-cam"):
            classifier.explain(image, method, test=False)
    finally:
        handle.remove()
    assert len(calls) == 2


def test_json_is_strict_and_complete(classifier, image):
    found = classifier.explain(image, "occlusion", target="green", check=True)
    values = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert values["class"] == "green"
    assert values["map"]["rows"] == values["map"]["columns"] == 32
    assert values["layer"] is None
    assert len(values["faithfulness"]["deletion"]) == len(values["faithfulness"]["fractions"])
    assert -1 <= values["randomization"]["correlation"] <= 1


def test_other_classes_have_other_maps(classifier, image):
    blue, red = (
        classifier.explain(image, "integrated-gradients", target=name, samples=2) for name in ("blue", "red")
    )
    assert not np.array_equal(blue.map, red.map)
    pairs = [
        classifier.explain(image, "finer-cam", target="red", versus=versus, test=False).map
        for versus in ([], ["blue"], ["green"])
    ]
    np.testing.assert_allclose(pairs[1] + pairs[2], 2 * pairs[0], rtol=1e-4)  # all are above 0 here


def test_maps_of_pixels_are_smoothed_only_in_figures(classifier, image):
    found = classifier.explain(image, "integrated-gradients", samples=2, test=False)
    assert found.map.shape == (32, 32)
    assert found.figure().size == (2 * 7 * 32 + 8, 7 * 32)
    flat = Explanation("x", "rise", "a", 1.0, "a", None, np.zeros((4, 4), np.float32), found.pixels)
    assert flat.heat.max() == 0
    assert flat.figure().size == (2 * 7 * 32 + 8, 7 * 32)


def test_errors_say_what_to_do(classifier, image, tmp_path):
    with pytest.raises(UsageError, match="unknown method 'grad_cam': did you mean grad-cam"):
        classifier.explain(image, "grad_cam")
    with pytest.raises(UsageError, match="unknown class 'redd': did you mean red"):
        classifier.explain(image, target="redd")
    with pytest.raises(UsageError, match="5 samples for grad-cam: it takes none"):
        classifier.explain(image, samples=5)
    with pytest.raises(UsageError, match="0 samples: they are from 1"):
        classifier.explain(image, "rise", samples=0)
    with pytest.raises(UsageError, match="classes to compare with, for grad-cam: it explains one class"):
        classifier.explain(image, versus=["red"])
    with pytest.raises(UsageError, match="no attention weights of LeNet"):
        classifier.explain(image, "relevance")
    (tmp_path / "x.png").write_bytes(b"no image")
    with pytest.raises(DecodeError, match="cannot decode"):
        classifier.explain(tmp_path / "x.png")


def test_scores_that_are_not_finite(classifier, image):
    from dataclasses import replace

    network = copy.deepcopy(classifier.network)
    with torch.no_grad():
        network.fc3.bias.fill_(torch.nan)
    with pytest.raises(DataError, match="its scores are not finite"):
        replace(classifier, network=network).explain(image)


def test_a_classifier_that_has_explained_can_be_copied(classifier, image):
    expected = classifier.explain(image, test=False).map
    for other in (copy.deepcopy(classifier), pickle.loads(pickle.dumps(classifier))):
        np.testing.assert_array_equal(other.explain(image, test=False).map, expected)


def test_the_command_lists_all_methods():
    from striate.cli.explain import NAMES

    assert tuple(METHODS) == NAMES
    for row in METHODS.values():
        assert row.compute.__doc__
        assert "arXiv" in row.compute.__doc__ or "IEEE" in row.compute.__doc__
