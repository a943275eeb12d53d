"""Records of the charts and pictures of a report: numbers and images, from which a page draws.

`striate.sections` has the texts, the tables and the report itself. This module needs only NumPy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False, kw_only=True)
class Figure:
    """Base class of the blocks that are pictures.

    Attributes:
        alt: description for readers who do not see the figure.
        file: name of its PNG file next to the page, without `.png`; empty for none.
    """

    alt: str
    file: str = ""


@dataclass(frozen=True)
class Line:
    """A curve over the epochs: its label, and one value for each epoch."""

    label: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class Panel:
    """Curves that share an axis.

    Attributes:
        title: what the axis measures, with its unit.
        lines: the curves.
        share: whether the values are fractions of one, shown as percentages.
        floor: where the axis of values starts; None for wherever they do.
    """

    title: str
    lines: tuple[Line, ...]
    share: bool = False
    floor: float | None = 0.0


@dataclass(frozen=True)
class Curves(Figure):
    """Training curves.

    Attributes:
        epochs: epoch numbers, at least one.
        panels: plots that stand next to each other.
        best_epoch: the epoch to mark; None to mark none.
    """

    epochs: tuple[int, ...]
    panels: tuple[Panel, ...]
    best_epoch: int | None


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a classifier says about labeled images; several figures of a page explore it.

    Attributes:
        classes: names.
        paths: of each image.
        labels: int `[n]`, the true classes.
        predicted: int `[n]`; -1 where the scores are not finite.
        probabilities: float `[n, classes]`.
        images: `[n]`, uint8 `[height, width, channels]` each, read on access.
        are_files: whether the paths are those of files that a browser can open.
        maps: from the indexes of some images to float `[n, rows, columns]`, at least 0: what speaks for the
            predicted class (Grad-CAM), at any resolution; None if the network has no feature maps.
    """

    classes: tuple[str, ...]
    paths: tuple[str, ...] = field(repr=False)
    labels: Array = field(repr=False)
    predicted: Array = field(repr=False)
    probabilities: Array = field(repr=False)
    images: Any = field(repr=False)
    are_files: bool = False
    maps: Callable[[Sequence[int]], Array | None] | None = field(default=None, repr=False)


@dataclass(frozen=True, eq=False)
class LabelPredictions:
    """What a classifier says about images with several classes, for `predictions.csv`.

    Attributes:
        classes: names.
        paths: of each image.
        labels, predicted: bool `[n, classes]`, the true and the predicted classes.
        probabilities: float `[n, classes]`.
    """

    classes: tuple[str, ...]
    paths: tuple[str, ...] = field(repr=False)
    labels: Array = field(repr=False)
    predicted: Array = field(repr=False)
    probabilities: Array = field(repr=False)


@dataclass(frozen=True, eq=False)
class Gallery(Figure):
    """The images of a report's predictions: the errors, the uncertain ones, those of a class or of a cell.

    Attributes:
        worst: the wrong predictions with the highest confidence, for pages without scripts; None if there
            are none.
    """

    worst: ImageGrid | None


@dataclass(frozen=True, eq=False)
class ClassCurves(Figure):
    """Precision-recall and ROC curves of a chosen class of the report's predictions, with a threshold."""


@dataclass(frozen=True, eq=False)
class ConfusionMatrix(Figure):
    """Counts of predictions.

    Attributes:
        names: one for each row and column.
        counts: integers `[true, predicted]`.
    """

    names: tuple[str, ...]
    counts: Array


@dataclass(frozen=True)
class Bin:
    """A range of confidences: its bounds, how many predictions are in it, and the share that is correct."""

    low: float
    high: float
    count: int
    accuracy: float | None


@dataclass(frozen=True)
class Reliability(Figure):
    """Reliability diagram (Guo et al. 2017, figure 1).

    Attributes:
        bins: from confidence 0 to 1.
        ece: expected calibration error, 0 to 1.
        confidence, accuracy: names of the axes.
    """

    bins: tuple[Bin, ...]
    ece: float
    confidence: str = "confidence"
    accuracy: str = "accuracy"


@dataclass(frozen=True, eq=False)
class Picture(Figure):
    """One image, uint8 `[height, width, channels]`."""

    image: Array


@dataclass(frozen=True, eq=False)
class ImageGrid(Figure):
    """Small images with captions.

    Attributes:
        images: uint8 `[height, width, channels]` with 1 or 3 channels, at least one.
        captions: one for each image: one or more lines.
        columns: images in a full row.
    """

    images: tuple[Array, ...]
    captions: tuple[tuple[str, ...], ...]
    columns: int = 6


@dataclass(frozen=True, eq=False)
class AttentionMap(Figure):
    """Cross-attention from the tokens of an answer to those of its source.

    Attributes:
        source, target: tokens.
        weights: float `[target, source]`.
    """

    source: tuple[str, ...]
    target: tuple[str, ...]
    weights: Array


@dataclass(frozen=True, eq=False)
class ImageAttention(Figure):
    """Cross-attention from the tokens of an answer to the places of an image.

    Attributes:
        image: uint8 `[height, width, channels]`, as preprocessed.
        target: tokens.
        weights: float `[target, rows, columns]`; the rows and columns divide the image.
    """

    image: Array
    target: tuple[str, ...]
    weights: Array


@dataclass(frozen=True, eq=False)
class Answers(Figure):
    """What a model of sequences answered.

    Attributes:
        sources: texts, or paths of images.
        references: the correct answers for each.
        answers: of the model.
        rates: float `[n]`, character error rate of each against its nearest reference.
        images: `[n]`, uint8 `[height, width, channels]` each, read on access; None if the sources are texts.
        are_files: whether the sources are paths of files that a browser can open.
    """

    sources: tuple[str, ...] = field(repr=False)
    references: tuple[tuple[str, ...], ...] = field(repr=False)
    answers: tuple[str, ...] = field(repr=False)
    rates: Array = field(repr=False)
    images: Any = field(default=None, repr=False)
    are_files: bool = False


@dataclass(frozen=True)
class EpochSamples(Figure):
    """Answers to the same sources after each of some epochs: epoch, source, answer, reference."""

    rows: tuple[tuple[int, str, str, str], ...]


@dataclass(frozen=True)
class Bars(Figure):
    """Shares of groups.

    Attributes:
        title: what the shares are.
        groups: name, share (None if there is nothing to measure) and size of each.
        group: what a group is.
        size: what the groups consist of.
    """

    title: str
    groups: tuple[tuple[str, float | None, int], ...]
    group: str
    size: str


@dataclass(frozen=True, eq=False)
class PrecisionRecall(Figure):
    """Precision-recall curves.

    Attributes:
        curves: name, recall and precision of each class.
        scores: of the points of each curve; empty if unknown.
        classes: index of each curve's class; empty if unknown.
    """

    curves: tuple[tuple[str, Array, Array], ...]
    scores: tuple[Array, ...] = ()
    classes: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Thresholds(Figure):
    """Counts of a detector at each of some score thresholds.

    Attributes:
        names: of K classes.
        edges: float `[n]`, thresholds, rising.
        right, wrong: int `[K, n]`, true and false positives with at least this score.
        objects: int `[K]`.
        score: the threshold of the rest of the report.
    """

    names: tuple[str, ...]
    edges: Array
    right: Array
    wrong: Array
    objects: Array
    score: float


@dataclass(frozen=True)
class DetectedBox:
    """A detection, or an object of the ground truth, in an image.

    Attributes:
        kind: `right` or `wrong` for detections, `object` for the ground truth.
        category: index of its class.
        other: index of the class that it counts for in the confusion matrix; the number of classes stands for
            background.
        score: of the detection, or of the one that matches the object; None for an object without a match.
        box: x, y, width, height in pixels.
        effect: how much it lowers the average precision.
        runs: numbers of pixels outside and inside the mask in turn, row by row, at the size of `mask_size`.
        mask_size: width and height of the reduced mask.
        points: x and y of the key points that are labeled.
        suspicion: why the annotation may be wrong; empty if nothing suggests it.
    """

    kind: str
    category: int
    other: int
    score: float | None
    box: tuple[float, float, float, float]
    effect: float = 0.0
    runs: tuple[int, ...] = ()
    mask_size: tuple[int, int] = (0, 0)
    points: tuple[tuple[float, float], ...] = ()
    suspicion: str = ""


@dataclass(frozen=True, eq=False)
class DetectedImage:
    """An image with its detections and objects.

    Attributes:
        name: of its file, or its id.
        size: width and height in pixels.
        effect: how much its mistakes lower the average precision.
        boxes: detections and objects.
        picture: URL of the image; empty if there is none.
    """

    name: str
    size: tuple[float, float]
    effect: float
    boxes: tuple[DetectedBox, ...]
    picture: str = field(default="", repr=False)


@dataclass(frozen=True, eq=False)
class DetectionImages(Figure):
    """Images of a detector, those whose mistakes lower the average precision most first.

    Attributes:
        classes: names.
        images: some of them.
        names: of all images.
        score: the score threshold.
    """

    classes: tuple[str, ...]
    images: tuple[DetectedImage, ...]
    names: tuple[str, ...]
    score: float
