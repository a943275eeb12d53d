"""What validation data say about a classifier's probabilities; part of a bundle's header."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from striate.errors import UsageError, share_meant
from striate.metrics.conformal import Method, images_needed, prediction_sets, quantile_rank
from striate.metrics.temperature import HIGHEST, LOWEST
from striate.validation import InvalidValueError, require_fields

MOST_SCORES = 2000  # of more images, some of the rising scores


@dataclass(frozen=True)
class Calibration:
    """Temperature and conformity scores of a classifier.

    Attributes:
        temperature: by which scores are divided before the softmax.
        images: how many images it comes from.
        source: of the images: a split or a dataset.
        ece: expected calibration error of these images before and after scaling.
        method: of prediction sets.
        scores: rising conformity scores of the right classes, float32 in base64: of all images, or of 2,000
            at even ranks with the last one.
    """

    temperature: float
    images: int
    source: str
    ece: tuple[float, float]
    method: Method
    scores: str = field(repr=False)

    @property
    def is_needed(self) -> bool:
        """Whether scores are scaled: without enough evidence for another temperature, it is 1."""
        return self.temperature != 1

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**dataclasses.asdict(self), "ece": list(self.ece)}

    @classmethod
    def from_json(cls, values: Any) -> Calibration:
        """The inverse of `to_json`; raises InvalidValueError if the values are no calibration."""
        require_fields(values, cls, "calibration")
        found = cls(**{**values, "ece": tuple(values["ece"])})
        if not LOWEST <= found.temperature <= HIGHEST:
            what = f"from {LOWEST:g} to {HIGHEST:g}"
            raise InvalidValueError("calibration.temperature", found.temperature, what)
        try:
            scores = decode_scores(found.scores)
        except (binascii.Error, ValueError) as error:
            raise InvalidValueError("calibration.scores", why=str(error)) from error
        if not len(scores) == min(found.images, MOST_SCORES) or not (np.diff(scores) >= 0).all():
            raise InvalidValueError("calibration.scores", why="are not the rising scores of its images")
        return found

    def summary(self) -> dict[str, Any]:
        """What `--json` says about it."""
        values = self.to_json()
        del values["scores"]
        return values

    def sets(self, probabilities: npt.NDArray[np.float64], coverage: float) -> npt.NDArray[np.bool_]:
        """Which classes are in the prediction set of each image, `[n, classes]`.

        Args:
            probabilities: `[n, classes]`, calibrated.
            coverage: the chance that a set contains the right class, between 0 and 1.

        Raises:
            UsageError: too few calibration images for this coverage.
        """
        return prediction_sets(probabilities, self.threshold(coverage), self.method)

    def threshold(self, coverage: float) -> float:
        """The largest conformity score in sets of a coverage; raises UsageError as `sets`."""
        require_coverage(coverage)
        rank = quantile_rank(self.images, coverage)
        if rank > self.images:
            raise UsageError(
                f"cannot make sets with a coverage of {coverage:g}",
                f"it needs {images_needed(coverage):,} calibration images; the model has {self.images:,}",
                "Use a lower coverage, or `striate calibrate MODEL DATA` with more images",
            )
        # The next higher score of those that were kept, so that sets are rather too large.
        kept = kept_ranks(self.images)
        return float(decode_scores(self.scores)[np.searchsorted(kept, rank - 1)])


def require_coverage(coverage: float) -> None:
    """Refuse what is no share of images; raises UsageError."""
    if not 0 < coverage < 1:
        fix = share_meant(coverage) or "Use 0.95"
        raise UsageError(f"a coverage of {coverage:g}", "it must be between 0 and 1", fix)


def require_calibration(calibration: Calibration | None, *, has_thresholds: bool) -> Calibration:
    """The calibration that prediction sets need; raises UsageError if there is none.

    Args:
        calibration: of the model.
        has_thresholds: whether its images have several classes, each with a threshold.
    """
    if has_thresholds:
        why = "its images have several classes, each with a threshold: those above it are the set"
        raise UsageError("cannot make prediction sets with this model", why, "Leave out the coverage")
    if calibration is None:
        fix = "Use `striate calibrate MODEL DATA` first"
        raise UsageError("cannot make prediction sets", "the model is not calibrated", fix)
    return calibration


def kept_ranks(images: int) -> npt.NDArray[np.int64]:
    """The positions of the rising scores that a bundle keeps: all, or 2,000 evenly with the last."""
    if images <= MOST_SCORES:
        return np.arange(images)
    even = np.ceil(np.arange(1, MOST_SCORES + 1) * (images / MOST_SCORES))
    return np.asarray(even, np.int64) - 1


def encode_scores(scores: npt.NDArray[np.float64]) -> str:
    """Rising scores of all images as text; rounded up to float32, so that no set becomes smaller."""
    kept = scores[kept_ranks(len(scores))]
    rounded = kept.astype("<f4")
    rounded = np.where(rounded < kept, np.nextafter(rounded, np.float32(np.inf)), rounded).astype("<f4")
    return base64.b64encode(rounded.tobytes()).decode()


def decode_scores(text: str) -> npt.NDArray[np.float64]:
    """The inverse of `encode_scores`; raises ValueError if the text is damaged."""
    values = np.frombuffer(base64.b64decode(text, validate=True), "<f4").astype(np.float64)
    if not all(map(math.isfinite, values)):
        raise ValueError("are not finite")
    return values
