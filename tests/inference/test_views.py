"""Evaluations, predictions and models in notebooks: complete, escaped, small."""

import dataclasses
import re

import numpy as np
import pytest
from random_evaluation import random_evaluation
from test_markup import Checker

import striate
from striate.errors import DecodeError
from striate.inference.multi_label_evaluation import measure_multi_label
from striate.inference.prediction import Prediction
from striate.inference.slices import Slice
from striate.metrics.classification import top_k_accuracy

HOSTILE = ("<b>bold</b>", "cat & dog", "a\x1bb")


class Gone:
    """Images whose files were removed."""

    def __getitem__(self, index):
        raise DecodeError("cannot decode 'x.png'", "no such file")


def test_an_evaluation_shows_metrics_classes_and_mistakes():
    evaluation = random_evaluation(HOSTILE)
    html = evaluation._repr_html_()
    checked = Checker(html)
    words = "".join(checked.text)
    expected = top_k_accuracy(evaluation.probabilities, evaluation.labels, 1)
    assert f"{100 * expected:.2f} %" in words
    assert f"{100 * expected:.2f} %" in repr(evaluation)
    assert "<b>bold</b>" in words
    assert "\x1b" not in html
    wrong = int((evaluation.probabilities.argmax(1) != evaluation.labels).sum())
    assert f"{wrong} mistakes, the 8 most confident ones" in words
    assert [tag for tag, _ in checked.tags].count("img") == 8
    worst = max(
        p.max() for p, k in zip(evaluation.probabilities, evaluation.labels, strict=True) if p.argmax() != k
    )
    assert re.search(rf" {worst:.0%}, is ", words)
    assert len(html) < 60_000
    assert len(repr(evaluation)) < 150


def test_an_evaluation_without_its_images_shows_the_rest():
    evaluation = dataclasses.replace(random_evaluation("ab"), images=Gone())
    html = evaluation._repr_html_()
    assert "top-1 accuracy" in html
    assert "<img" not in html


def test_slices_are_shown():
    part = Slice("size", "8 to 9 pixels", 1234, 0.5, (0.25, 0.75), 0.04)
    words = "".join(Checker(dataclasses.replace(random_evaluation("ab"), slices=(part,))._repr_html_()).text)
    assert "size 8 to 9 pixels1,23450.00 %25.00 % to 75.00 %0.040" in words


def test_many_classes_stay_small():
    evaluation = random_evaluation([f"class {i}" for i in range(500)], n=900)
    html = evaluation._repr_html_()
    assert "the 20 of 500 classes with the lowest F1" in html
    assert len(html) < 60_000


def test_an_evaluation_of_several_classes_for_each_image():
    rng = np.random.default_rng(0)
    images = np.zeros((40, 4, 4, 3), np.uint8)
    evaluation = measure_multi_label(
        tuple(map(str, range(40))), rng.random((40, 3)) < 0.5, rng.random((40, 3)), HOSTILE,
        (0.5, 0.5, 0.5), images=images, problems=(), data="data", split="test",
    )  # fmt: skip
    words = "".join(Checker(evaluation._repr_html_()).text)
    score = f"{100 * evaluation.metrics['map']:.2f} %"
    assert score in words
    assert score in repr(evaluation)
    assert "<b>bold</b>" in words


def test_predictions_show_their_classes_or_the_error():
    prediction = Prediction("<i>.png", HOSTILE, np.array([0.2, 0.7, 0.1]))
    words = "".join(Checker(prediction._repr_html_()).text)
    assert words.index("70.0%") < words.index("20.0%") < words.index("10.0%")
    assert "<i>.png" in words
    assert repr(prediction).startswith("Prediction('<i>.png': cat & dog 70.0%, <b>bold</b> 20.0%")
    failed = Prediction("x.png", HOSTILE, np.empty(0), error="it is <empty>")
    assert "it is <empty>" in "".join(Checker(failed._repr_html_()).text)
    assert repr(failed) == "Prediction('x.png': it is <empty>)"


@pytest.mark.parametrize("name", ["lenet", "mobilenet_v3_large", "resnet152"])
def test_a_trace_is_one_small_table(name):
    trace = striate.anatomy.trace(name)
    html = trace._repr_html_()
    checked = Checker(html)
    assert [tag for tag, _ in checked.tags].count("tr") <= 41 + 30
    assert f"{trace.params:,}" in "".join(checked.text)
    assert f"{trace.macs:,} MACs" in repr(trace)
    assert len(html) < 80_000
