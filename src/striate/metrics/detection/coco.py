"""COCO's average precision and recall, bit for bit as in pycocotools 2.0.11.

Source: Lin et al., "Microsoft COCO: Common Objects in Context", 2014, and `cocoeval.py` of pycocotools.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from striate.errors import UsageError
from striate.metrics.detection.kernel import functions, thread_count
from striate.metrics.detection.records import (
    Detections,
    Floats,
    GroundTruth,
    require_scores,
    without_repeated_ids,
)
from striate.metrics.detection.reference import (
    NO_MATCHES,
    Curves,
    DetectionColumns,
    MatchRecord,
    Settings,
    TruthColumns,
)

Mode = Literal["strict", "corrected"]
STAT_NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
AREAS = {
    "all": (0.0, 1e5**2), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e5**2),
}  # fmt: skip
AT_ONCE = 32  # IoU thresholds per call of the kernel, which stores them as bits of a mask


def _steps(first: float, last: float, step: float) -> tuple[float, ...]:
    return tuple(np.linspace(first, last, round((last - first) / step) + 1).tolist())


@dataclass(frozen=True)
class CocoSettings:
    """Settings of COCO's evaluation.

    Args:
        thresholds: IoU thresholds, T of them.
        recalls: recall levels at which precision is sampled, R of them.
        areas: name -> smallest and largest area in square pixels, both inclusive, A of them.
        limits: maximum detections per class and image (`maxDets`), M of them, ascending.
        use_categories: False merges all classes into one, as for region proposals.
        mode: "strict" gives the same bits as pycocotools. "corrected" fixes its surprises: a ground truth
            with id 0 can be matched, annotations that share an id are all kept, and NaN scores raise a
            `DataError`.
    """

    thresholds: tuple[float, ...] = _steps(0.5, 0.95, 0.05)
    recalls: tuple[float, ...] = _steps(0.0, 1.0, 0.01)
    areas: dict[str, tuple[float, float]] = field(default_factory=AREAS.copy)
    limits: tuple[int, ...] = (1, 10, 100)
    use_categories: bool = True
    mode: Mode = "strict"

    def __post_init__(self) -> None:
        if any(t != t for t in self.thresholds) or not self.thresholds:
            raise UsageError(f"IoU thresholds {self.thresholds}", "they should be numbers, one at least")
        if not self.limits or list(self.limits) != sorted(self.limits) or self.limits[0] < 0:
            raise UsageError(f"limits {self.limits}", "they should ascend from 0 or more")
        if self.mode not in ("strict", "corrected"):
            raise UsageError(f"mode {self.mode!r}", "it is strict or corrected")
        if not 0 < len(self.areas) <= 32:
            raise UsageError(f"{len(self.areas)} area ranges", "there should be 1 to 32")


@dataclass(frozen=True, eq=False)
class CocoResult:
    """COCO's metrics; -1 where there is no ground truth.

    Args:
        precision: float64 [T, R, K, A, M].
        recall: float64 [T, K, A, M], the largest recall reached.
        scores: float64 [T, R, K, A, M], the score at which each recall level is reached.
        settings: of the evaluation.
        category_ids: K ids, ascending.
        category_names: K names.
        matches: the matches, if requested.
        notes: warnings about the data, for the user.
    """

    precision: Floats
    recall: Floats
    scores: Floats
    settings: CocoSettings
    category_ids: NDArray[Any]
    category_names: tuple[str, ...]
    matches: MatchRecord | None = None
    notes: tuple[str, ...] = ()

    @cached_property
    def stats(self) -> Floats:
        """COCO's twelve metrics, in the order of `STAT_NAMES`."""
        return np.array(
            [
                (self.mean_precision if precise else self.mean_recall)(threshold, area, limit)
                for precise, threshold, area, limit in twelve_rows(self.settings.limits)
            ]
        )

    def mean_precision(self, threshold: float | None = None, area: str = "all", limit: int = 100) -> float:
        """AP, averaged over classes, recall levels and thresholds (or at one threshold); -1 if undefined."""
        return self._mean(self.precision, threshold, area, limit)

    def mean_recall(self, threshold: float | None = None, area: str = "all", limit: int = 100) -> float:
        """AR, averaged over classes and thresholds (or at one threshold); -1 if undefined."""
        return self._mean(self.recall, threshold, area, limit)

    def lines(self) -> list[str]:
        """The twelve metrics as pycocotools prints them."""
        return stat_lines(twelve_rows(self.settings.limits), self.stats, self.settings.thresholds)

    def _mean(self, values: Floats, threshold: float | None, area: str, limit: int) -> float:
        s = self.settings
        return mean_stat(values, threshold, area, limit, s.thresholds, s.areas, s.limits)

    def per_class(self) -> list[dict[str, Any]]:
        """Id, name, AP, AP50 and AR at the last limit of each class; None if it has no ground truth."""
        at50 = np.flatnonzero(np.array(self.settings.thresholds) == 0.5)
        rows = []
        for k, name in enumerate(self.category_names):
            precision, recall = self.precision[:, :, k, 0, -1], self.recall[:, k, 0, -1]
            values = {"ap": precision, "ap50": precision[at50], "ar": recall}
            means = {key: _mean_or_none(value) for key, value in values.items()}
            rows.append({"id": self.category_ids[k].item(), "class": name} | means)
        return rows


def mean_stat(
    values: Floats,
    threshold: float | None,
    area: str,
    limit: int,
    thresholds: Sequence[float] | Floats,
    areas: Iterable[str],
    limits: Iterable[int],
) -> float:
    """Mean of precision or recall [T, ..., A, M] at one area and limit; -1 if there is nothing to average."""
    a = [i for i, name in enumerate(areas) if name == area]
    m = [i for i, most in enumerate(limits) if most == limit]
    if threshold is not None:
        values = values[np.flatnonzero(np.asarray(thresholds) == threshold)]
    # In the order [T, R, K], on which the rounding of the sum depends; a limit given twice counts twice.
    mean = _mean_or_none(values[..., a, m]) if a and m else None
    return -1.0 if mean is None else mean


def _mean_or_none(values: Floats) -> float | None:
    kept = values[values > -1]
    return float(np.mean(kept)) if kept.size else None


def evaluate_coco(
    truth: GroundTruth,
    detections: Detections,
    settings: CocoSettings | None = None,
    *,
    matches: bool = False,
    threads: int | None = None,
) -> CocoResult:
    """Evaluate bounding boxes as COCO does; objects that VOC marks as difficult are ignored.

    Args:
        truth: G ground truths.
        detections: D detections in the same images.
        settings: of the evaluation; COCO's defaults if None.
        matches: also return the matches.
        threads: number of threads; None for all cores, at most 8. The results do not depend on it.

    Raises:
        DataError: a score is NaN, in mode "corrected".
    """
    settings = settings or CocoSettings()
    strict = settings.mode == "strict"
    if strict:
        truth = without_repeated_ids(truth)
    else:
        require_scores(detections)
    if not settings.use_categories:
        truth, detections = _one_class(truth, detections)
    void = (truth.id == 0) & strict
    ignore = truth.crowd | truth.difficult
    truths = TruthColumns(truth.image, truth.category, truth.box, truth.area, truth.crowd, ignore, void)
    meek = None if detections.id is None else detections.id <= 0
    columns = DetectionColumns(
        detections.image, detections.category, detections.box, detections.score, detections.area, meek
    )
    names = truth.category_names if settings.use_categories else ("all",)
    ids = truth.category_ids if settings.use_categories else np.array([-1])
    curves, record = run_kernel(
        truths, columns, None, settings, truth.image_ids.size, len(names), matches=matches, threads=threads
    )
    notes = (*truth.notes, *detections.notes)
    if void.any():
        notes += (
            f"{int(void.sum())} ground truths have id 0, which pycocotools reads as no match: they count as "
            "missed here, but not in the explanation; mode corrected matches them",
        )
    return CocoResult(curves.precision, curves.recall, curves.scores, settings, ids, names, record, notes)


def run_kernel(
    truths: TruthColumns,
    detections: DetectionColumns,
    overlaps: Floats | None,
    settings: CocoSettings,
    images: int,
    classes: int,
    *,
    matches: bool,
    threads: int | None = None,
) -> tuple[Curves, MatchRecord | None]:
    """Call the kernel, at most `AT_ONCE` thresholds at a time.

    Returns:
        Precision and scores [T, R, K, A, M], and recall [T, K, A, M]; and the matches, if asked for.
    """
    G, D, A = truths.image.size, detections.image.size, len(settings.areas)
    areas = np.array([list(r) for r in settings.areas.values()], np.float64)
    recalls, limits = np.array(settings.recalls, np.float64), np.array(settings.limits, np.int64)
    parts: list[Curves] = []
    records: list[MatchRecord] = []
    for start in range(0, len(settings.thresholds), AT_ONCE):
        thresholds = np.array(settings.thresholds[start : start + AT_ONCE], np.float64)
        T = thresholds.size
        shape = (classes, A, limits.size, T, recalls.size)
        curves = Curves(np.full(shape, -1.0), np.full(shape, -1.0), np.full(shape[:-1], -1.0))
        parts.append(curves)
        if matches:
            both = np.full((A, T, D), -1, np.int32), np.full((A, T, G), -1, np.int32)
            records.append(MatchRecord(*both, np.zeros((A, T, D), np.bool_), np.full(D, -1, np.int32)))
        one = Settings(thresholds, recalls, areas, limits)
        record = records[-1] if matches else NO_MATCHES
        functions().evaluate(
            images, classes, truths, detections, overlaps, one, curves, record, thread_count(threads)
        )
    precision, scores, recall = _joined(parts, axis=3)
    joined = Curves(
        precision.transpose(3, 4, 0, 1, 2), scores.transpose(3, 4, 0, 1, 2), recall.transpose(3, 0, 1, 2)
    )
    return joined, MatchRecord(*_joined(records, axis=1)) if matches else None


def _joined(parts: Sequence[tuple[NDArray[Any], ...]], axis: int) -> tuple[NDArray[Any], ...]:
    """Concatenate the columns along their axis of thresholds; `rank` has none."""
    if len(parts) == 1:
        return parts[0]
    return tuple(
        column[0] if column[0].ndim == 1 else np.concatenate(column, axis=axis)
        for column in zip(*parts, strict=True)
    )


# One of COCO's numbers: whether it is a precision, IoU threshold (None: mean over all), area range, limit.
Row = tuple[bool, float | None, str, int]


def twelve_rows(limits: Sequence[int]) -> list[Row]:
    """Definitions of COCO's twelve metrics, in the order of `STAT_NAMES`.

    As in pycocotools, the first uses a limit of exactly 100 detections, and the others the three limits.
    """
    one, ten, last = (*limits, -1, -1, -1)[:3]
    sizes = ("small", "medium", "large")
    return [
        (True, None, "all", 100),
        (True, 0.5, "all", last),
        (True, 0.75, "all", last),
        *((True, None, size, last) for size in sizes),
        *((False, None, "all", most) for most in (one, ten, last)),
        *((False, None, size, last) for size in sizes),
    ]


def stat_lines(rows: Sequence[Row], stats: Floats, thresholds: Sequence[float] | Floats) -> list[str]:
    """The numbers as pycocotools prints them."""
    lines = []
    for (precise, threshold, area, limit), value in zip(rows, stats, strict=True):
        name = ("Average Precision", "(AP)") if precise else ("Average Recall", "(AR)")
        at = f"{thresholds[0]:0.2f}:{thresholds[-1]:0.2f}" if threshold is None else f"{threshold:0.2f}"
        where = f"IoU={at:<9} | area={area:>6s} | maxDets={limit:>3d}"
        lines.append(f" {name[0]:<18} {name[1]} @[ {where} ] = {value:0.3f}")
    return lines


def _one_class(truth: GroundTruth, detections: Detections) -> tuple[GroundTruth, Detections]:
    """Merge all classes into one; rows are ordered by class, because ties depend on the order."""

    def merged(side: Any, columns: tuple[str, ...]) -> Any:
        order = np.argsort(side.category, kind="stable")
        order = order[side.category[order] >= 0]
        values = {c: getattr(side, c)[order] for c in columns if getattr(side, c) is not None}
        return replace(side, **values, category=np.zeros(order.size, np.int32))

    return (
        merged(truth, ("image", "box", "area", "crowd", "id", "difficult")),
        merged(detections, ("image", "box", "score", "area", "id")),
    )
