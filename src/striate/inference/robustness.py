"""Accuracy under the 15 corruptions of ImageNet-C (Hendrycks and Dietterich 2019)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from striate.data.images.base import ImageArray, Indices
from striate.errors import UsageError
from striate.metrics.bootstrap import bca, bca_interval, resample
from striate.metrics.classification import predictions, wilson_interval
from striate.progress import Progress
from striate.transforms.corruptions import CHANNELS, CORRUPTIONS, SEVERITIES, corrupt
from striate.transforms.decode import Uint8Array

if TYPE_CHECKING:
    from striate.inference.classifier import Classifier

USUAL_SEVERITIES = (1, 3, 5)
USUAL_IMAGES = 500
_BYTES_AT_ONCE = 128 << 20  # of images that are read together
_SEED = 0  # of the choice of images, and of the corruptions

Ends = tuple[float, float]


@dataclass(frozen=True)
class CorruptedAccuracy:
    """Accuracy under one corruption.

    Attributes:
        corruption: a key of `CORRUPTIONS`.
        severity: 1 to 5.
        top1: accuracy.
        top1_ci: its 95 % Wilson interval.
    """

    corruption: str
    severity: int
    top1: float
    top1_ci: Ends


@dataclass(frozen=True)
class Robustness:
    """Accuracy under corruptions.

    Attributes:
        n: number of images.
        severities: of each corruption.
        clean_top1: accuracy on the same images without corruptions.
        clean_top1_ci: its 95 % Wilson interval.
        mean_top1: mean of the accuracies of all corruptions and severities.
        mean_top1_ci: its 95 % interval, BCa bootstrap over images.
        relative_drop: by which share of `clean_top1` the mean is lower; None if that is 0.
        relative_drop_ci: its 95 % interval, BCa bootstrap over images; None if it is the same for all draws.
        results: of each corruption and severity, in the order of `CORRUPTIONS`.
    """

    n: int
    severities: tuple[int, ...]
    clean_top1: float
    clean_top1_ci: Ends
    mean_top1: float
    mean_top1_ci: Ends
    relative_drop: float | None
    relative_drop_ci: Ends | None
    results: tuple[CorruptedAccuracy, ...] = field(repr=False)

    def of(self, corruption: str) -> tuple[CorruptedAccuracy, ...]:
        """The results of one corruption, by severity."""
        return tuple(result for result in self.results if result.corruption == corruption)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class CorruptedImages(ImageArray):
    """Images in one array, corrupted when they are read, so by the threads that read batches.

    Attributes:
        corruption, severity: as for `corrupt`.
    """

    corruption: str
    severity: int
    in_memory = False  # reading takes time

    def read(self, which: Indices, out: Uint8Array) -> npt.NDArray[np.bool_]:
        """Write the corrupted images at `which` into `out`; all are readable."""
        for row, i in enumerate(which.tolist()):
            out[row] = corrupt(self.images[i], self.corruption, self.severity, _SEED)
        return np.ones(len(which), np.bool_)


def chosen_severities(
    corruptions: bool | str | Sequence[int], most: int, classifier: Classifier
) -> tuple[int, ...]:
    """The severities to measure, rising; none without corruptions.

    Args:
        corruptions: False for none, True for 1, 3 and 5; or severities, such as `(1, 2)` or `"1,2"`.
        most: number of images to measure on.
        classifier: whose input must be gray or RGB, and whose images have one class each.

    Raises:
        UsageError: no such severity, no images, or corruptions do not suit the classifier.
    """
    if corruptions is False or corruptions == ():
        return ()
    if corruptions is True:
        corruptions = USUAL_SEVERITIES
    given = corruptions.split(",") if isinstance(corruptions, str) else corruptions
    found = sorted({str(severity).strip() for severity in given})
    for severity in found:
        if severity not in map(str, SEVERITIES):
            raise UsageError(f"no severity {severity!r}", "there are 1 to 5", "Use some of 1,2,3,4,5")
    if most < 1:
        raise UsageError(f"corruptions of {most} images", "it must be at least 1", "Leave it out for 500")
    if classifier.description.is_multi_label:
        why = "its images have several classes each, so none is simply right"
        raise UsageError("no corruptions for this model", why, "Leave out corruptions")
    channels = classifier.preprocess.channels
    if channels not in CHANNELS:
        why = f"its images have {channels} channels, and the corruptions are defined for gray and RGB"
        raise UsageError("no corruptions for this model", why, "Leave out corruptions")
    return tuple(map(int, found))


def measure_robustness(
    classifier: Classifier,
    images: Any,
    labels: Indices,
    predicted: Indices,
    severities: Sequence[int],
    *,
    most: int = USUAL_IMAGES,
    batch: int = 64,
    workers: int = 2,
    tta: str | None = None,
    progress: Progress,
) -> Robustness:
    """Measure the accuracy under each corruption.

    Args:
        classifier: to measure.
        images: `[n]`, uint8 `[height, width, 1 or 3]` each, resized for the network.
        labels: int64 `[n]`, the true classes.
        predicted: int64 `[n]`, the predictions without corruptions.
        severities: of each corruption.
        most: number of images; of more, so many are chosen at random, always the same ones.
        batch: batch size.
        workers: threads that corrupt images.
        tta: test-time augmentation.
        progress: receives a stage.

    Raises:
        ResourceError: a batch cannot fit into memory.
    """
    chosen = np.sort(np.random.default_rng(_SEED).permutation(len(labels))[:most])
    settings = [(name, severity) for name in CORRUPTIONS for severity in severities]
    right = np.zeros((len(settings), len(chosen)), np.bool_)
    step = max(1, _BYTES_AT_ONCE // max(1, math.prod(np.asarray(images[int(chosen[0])]).shape)))
    progress.begin("corruptions", len(settings) * len(chosen))
    for start in range(0, len(chosen), step):
        rows = chosen[start : start + step]
        pixels = np.stack([np.asarray(images[int(i)]) for i in rows])
        for found, (name, severity) in zip(right, settings, strict=True):
            corrupted = CorruptedImages(pixels, labels[rows], name, severity)
            probabilities, _ = classifier.measure(
                corrupted, batch=batch, workers=workers, tta=tta, progress=progress
            )
            found[start : start + step] = predictions(probabilities) == labels[rows]
    progress.end()
    return summarize(right, predicted[chosen] == labels[chosen], settings)


def summarize(
    right: npt.NDArray[np.bool_], clean: npt.NDArray[np.bool_], settings: Sequence[tuple[str, int]]
) -> Robustness:
    """The accuracies and their mean.

    Args:
        right: `[settings, n]`, whether each prediction is right.
        clean: `[n]`, the same without corruptions.
        settings: corruption and severity of each row.
    """
    n = len(clean)
    results = tuple(
        CorruptedAccuracy(name, severity, top1, wilson_interval(top1, n))
        for (name, severity), top1 in zip(settings, right.mean(axis=1).tolist(), strict=True)
    )
    # Images with as many right answers have the same effect on both figures.
    values, kinds = np.unique(np.stack([right.sum(axis=0), clean], axis=1), axis=0, return_inverse=True)
    kinds = kinds.reshape(-1)
    share, is_right = values[:, 0] / len(settings), values[:, 1]
    drop, drop_ci = None, None
    if clean.any():
        resampled = resample(lambda counts: 1 - (counts @ share) / np.maximum(counts @ is_right, 1), kinds)
        drop = resampled.value
        if np.ptp(resampled.samples) > 0:
            interval = bca_interval(resampled)
            drop_ci = (interval.low, interval.high)
    top1 = float(clean.mean())
    mean_ci = bca(lambda counts: counts @ share / counts.sum(axis=1), kinds, most=1.0)
    return Robustness(
        n, tuple(sorted({severity for _, severity in settings})), top1, wilson_interval(top1, n),
        float(right.mean()), mean_ci, drop, drop_ci, results,
    )  # fmt: skip
