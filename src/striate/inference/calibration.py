"""What a bundle says of its certainty: temperature, scores of prediction sets, features of known images."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from striate.bundle import Calibration
from striate.bundle.calibration import encode_scores
from striate.bundle.unknown import FEWEST, MOST_IMAGES, of_features
from striate.data import Images
from striate.inference.classifier import Classifier
from striate.inference.prediction import softmax
from striate.metrics.classification import all_finite, expected_calibration_error
from striate.metrics.conformal import calibration_scores, method_for
from striate.metrics.temperature import fit_temperature
from striate.progress import AUTO, Progress
from striate.transforms.preprocess import Preprocess

_SMALL = 64 * 64  # pixels


def calibration_of(
    scores: npt.NDArray[np.floating], labels: npt.NDArray[np.int64], source: str
) -> Calibration | None:
    """Temperature and conformity scores.

    Args:
        scores: `[n, classes]`, logits, or logarithms of uncalibrated probabilities.
        labels: `[n]`.
        source: of the images: a split or a dataset.

    Returns:
        None without any finite row.
    """
    if not len(scores):
        return None
    finite = all_finite(scores)
    scores, labels = scores[finite], labels[finite]
    if not len(scores):
        return None
    temperature = fit_temperature(scores, labels)
    probabilities, method = softmax(scores / temperature), method_for(scores.shape[1])
    ece = tuple(expected_calibration_error(p, labels) for p in (softmax(scores), probabilities))
    return Calibration(
        temperature, len(labels), source, (ece[0], ece[1]), method,
        encode_scores(calibration_scores(probabilities, labels, method)),
    )  # fmt: skip


def unknown_inputs_of(
    classifier: Classifier,
    train: Images,
    held_out: npt.NDArray[np.float32],
    *,
    batch: int = 64,
    workers: int = 2,
    progress: Progress = AUTO,
) -> str:
    """Features of training images for `bundle.add_metrics`; empty if the network or the data have none.

    Args:
        classifier: computes the features.
        train: training images of the network's input size; a random part of them is used.
        held_out: `[n, features]`, of images that the network was not trained on: for the threshold.
        batch: batch size.
        workers: threads that read images.
        progress: receives an update per batch; the caller begins and ends the stage.
    """
    if min(len(train), len(held_out)) < FEWEST or not held_out.shape[1]:
        return ""
    size = reference_size(classifier.preprocess, len(train))
    some = np.sort(np.random.default_rng(0).permutation(len(train))[:size])
    order = np.split(some, range(batch, len(some), batch))
    options: dict[str, Any] = {"batch": batch, "workers": workers, "progress": progress}
    reference, _ = classifier.features(train, order=order, **options)
    found = of_features(reference, held_out) if len(reference) else None
    return "" if found is None else found.encode()


def reference_size(preprocess: Preprocess, images: int) -> int:
    """How many training images a bundle describes: of large ones a quarter, since each takes a while."""
    height, width = preprocess.size
    if height * width <= _SMALL:
        return min(images, MOST_IMAGES)
    return min(images, max(images // 4, 2 * FEWEST), MOST_IMAGES // 4)
