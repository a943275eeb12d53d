"""Calibrate a classifier on validation images: its temperature and the scores of its prediction sets."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from striate.bundle import Calibration
from striate.bundle.calibration import encode_scores
from striate.inference.prediction import softmax
from striate.metrics.classification import all_finite, expected_calibration_error
from striate.metrics.conformal import calibration_scores, method_for
from striate.metrics.temperature import fit_temperature


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


def logarithms(probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Scores whose softmax the probabilities are: their logarithms, that of 0 being the smallest number's."""
    return np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))
