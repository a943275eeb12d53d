"""COCO's average precision and recall, bit for bit as in pycocotools 2.0.11.

Source: Lin et al., "Microsoft COCO: Common Objects in Context", 2014, and `cocoeval.py` of pycocotools.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from striate.errors import UsageError
from striate.metrics.detection.kernel import functions, thread_count
from striate.metrics.detection.records import (
    Detections,
    Floats,
    GroundTruth,
    outside_notes,
    require_scores,
    take_rows,
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
from striate.metrics.detection.similarity import IouType, check_iou_type, group_overlaps, overlap_of
from striate.metrics.detection.summary import (
    Row,
    mean_or_none,
    mean_stat,
    stat_lines,
    stat_names,
    stat_rows,
)

Mode = Literal["strict", "corrected"]
AREAS = {
    "all": (0.0, 1e5**2), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e5**2),
}  # fmt: skip
LIMITS = (1, 10, 100)
# Standard deviation of annotators for each of COCO's 17 key points, from nose to ankles, in units of the
# square root of an object's area.
_PERCENT = (26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89)
SIGMAS = tuple(percent / 100 / 10 for percent in _PERCENT)  # rounded twice, as pycocotools' are
CLOSE = 1e-9  # 0.3, 0.35, ... in steps may miss the IoU threshold 0.5 by a rounding
AT_ONCE = 32  # IoU thresholds per call of the kernel, which stores them as bits of a mask


def steps(first: float, last: float, step: float) -> tuple[float, ...]:
    """The numbers from the first to the last, both inclusive, as pycocotools spaces them."""
    return tuple(np.linspace(first, last, round((last - first) / step) + 1).tolist())


@dataclass(frozen=True)
class CocoSettings:
    """Settings of COCO's evaluation.

    Args:
        thresholds: IoU thresholds, T of them.
        recalls: recall levels at which precision is sampled, R of them.
        areas: name -> smallest and largest area in square pixels, both inclusive, A of them; empty for
            COCO's: all, small, medium and large, without small for key points.
        limits: maximum detections per class and image (`maxDets`), M of them, ascending; empty for COCO's:
            1, 10 and 100; 20 for key points.
        use_categories: False merges all classes into one, as for region proposals.
        mode: "strict" gives the same bits as pycocotools. "corrected" fixes its surprises: a ground truth
            with id 0 can be matched, annotations that share an id are all kept, and NaN scores raise a
            `DataError`.
        iou_type: what to compare: "bbox", "segm" (masks) or "keypoints".
        sigmas: standard deviation of annotators for each key point, in units of the square root of the area.
    """

    thresholds: tuple[float, ...] = steps(0.5, 0.95, 0.05)
    recalls: tuple[float, ...] = steps(0.0, 1.0, 0.01)
    areas: dict[str, tuple[float, float]] = field(default_factory=dict)
    limits: tuple[int, ...] = ()
    use_categories: bool = True
    mode: Mode = "strict"
    iou_type: IouType = "bbox"
    sigmas: tuple[float, ...] = SIGMAS

    def __post_init__(self) -> None:
        check_iou_type(self.iou_type)
        points = self.iou_type == "keypoints"
        if not self.areas:
            areas = {k: v for k, v in AREAS.items() if k != "small" or not points}
            object.__setattr__(self, "areas", areas)
        if not self.limits:
            object.__setattr__(self, "limits", (20,) if points else LIMITS)
        if not all(0 < sigma < np.inf for sigma in self.sigmas):
            raise UsageError(f"sigmas {self.sigmas}", "they should be above 0")
        if any(t != t for t in self.thresholds) or not self.thresholds:
            raise UsageError(f"IoU thresholds {self.thresholds}", "they should be numbers, one at least")
        if list(self.limits) != sorted(self.limits) or self.limits[0] < 0:
            raise UsageError(f"limits {self.limits}", "they should ascend from 0 or more")
        if self.mode not in ("strict", "corrected"):
            raise UsageError(f"mode {self.mode!r}", "it is strict or corrected")
        if len(self.areas) > 32:
            raise UsageError(f"{len(self.areas)} area ranges", "there should be at most 32")


@dataclass(frozen=True, eq=False)
class CocoResult:
    """COCO's metrics; -1 where there is no ground truth.

    Args:
        curves: precision float64 [T, R, K, A, P] of the last P limits; the score at which each recall level
            is reached, likewise, or None; the largest recall reached, float64 [T, K, A, M].
        settings: of the evaluation.
        category_ids: K ids, ascending.
        category_names: K names.
        matches: the matches, if requested.
        notes: warnings about the data, for the user.
        complete: returns the curves of all limits, with scores; None if `curves` has them.
    """

    curves: Curves
    settings: CocoSettings
    category_ids: NDArray[Any]
    category_names: tuple[str, ...]
    matches: MatchRecord | None = None
    notes: tuple[str, ...] = ()
    complete: Callable[[], Curves] | None = None

    @cached_property
    def _all_curves(self) -> Curves:
        return self.complete() if self.complete else self.curves

    @property
    def precision(self) -> Floats:
        """float64 [T, R, K, A, M]."""
        return self._all_curves.precision

    @property
    def recall(self) -> Floats:
        """float64 [T, K, A, M], the largest recall reached."""
        return self.curves.recall

    @property
    def scores(self) -> Floats:
        """float64 [T, R, K, A, M], the score at which each recall level is reached."""
        scores = self._all_curves.scores
        assert scores is not None
        return scores

    @cached_property
    def rows(self) -> list[Row]:
        """Definitions of `stats`: COCO's twelve metrics; its ten for key points."""
        return stat_rows(self.settings.iou_type, self.settings.limits)

    @property
    def stat_names(self) -> list[str]:
        """A name for each of `stats`: AP, AP50, ..."""
        return stat_names(self.rows)

    @cached_property
    def stats(self) -> Floats:
        """The numbers that `stat_names` names; -1 where there is nothing to average."""
        return self._values(self.rows)

    def _values(self, rows: list[Row]) -> Floats:
        return np.array(
            [
                (self.mean_precision if precise else self.mean_recall)(threshold, area, limit)
                for precise, threshold, area, limit in rows
            ]
        )

    @property
    def ap_limit(self) -> int:
        """The limit of AP: the first of `stats`, and the AP of each class."""
        return self.rows[0][3]

    @property
    def size_limit(self) -> int:
        """The limit of AP50 and of the metrics of area ranges."""
        return self.rows[1][3]

    def by_area(self) -> list[dict[str, Any]]:
        """AP and AR of each area range at `size_limit`; None if it has no ground truth."""
        rows = []
        for name, (least, most) in self.settings.areas.items():
            means = (
                self.mean_precision(None, name, self.size_limit),
                self.mean_recall(None, name, self.size_limit),
            )
            ap, ar = (None if mean == -1 else mean for mean in means)
            rows.append({"area": name, "min": float(least), "max": float(most), "ap": ap, "ar": ar})
        return rows

    def mean_precision(self, threshold: float | None = None, area: str = "all", limit: int = 100) -> float:
        """AP, averaged over classes, recall levels and thresholds (or at one threshold); -1 if undefined."""
        limits = self.settings.limits
        last = limits[len(limits) - self.curves.precision.shape[-1] :]
        # A limit may occur twice.
        if limits.count(limit) == last.count(limit):
            return self._mean(self.curves.precision, threshold, area, limit, last)
        return self._mean(self.precision, threshold, area, limit, limits)

    def mean_recall(self, threshold: float | None = None, area: str = "all", limit: int = 100) -> float:
        """AR, averaged over classes and thresholds (or at one threshold); -1 if undefined."""
        return self._mean(self.recall, threshold, area, limit, self.settings.limits)

    def lines(self) -> list[str]:
        """The metrics as pycocotools prints them, and AP and AR of area ranges that are not COCO's."""
        return [*stat_lines(self.rows, self.stats, self.settings.thresholds), *self._other_lines()]

    def _other_lines(self) -> list[str]:
        """AP and AR of area ranges that are not COCO's."""
        shown = {area for _, _, area, _ in self.rows}
        other = [name for name in self.settings.areas if name not in shown]
        rows: list[Row] = [
            (precise, None, name, self.size_limit) for name in other for precise in (True, False)
        ]
        return stat_lines(rows, self._values(rows), self.settings.thresholds)

    def _mean(
        self, values: Floats, threshold: float | None, area: str, limit: int, limits: tuple[int, ...]
    ) -> float:
        s = self.settings
        threshold = next(
            (t for t in s.thresholds if threshold is not None and abs(t - threshold) < CLOSE), threshold
        )
        return mean_stat(values, threshold, area, limit, s.thresholds, s.areas, limits)

    def per_class(self) -> list[dict[str, Any]]:
        """Id, name, AP, AP50 and AR of each class at `ap_limit`; None if it has no ground truth."""
        m = self.settings.limits.index(self.ap_limit)
        at = m - len(self.settings.limits)  # counted from the end, where `curves` has it
        at50 = np.flatnonzero(np.abs(np.array(self.settings.thresholds) - 0.5) < CLOSE)
        rows = []
        for k, name in enumerate(self.category_names):
            precision, recall = self.curves.precision[:, :, k, 0, at], self.recall[:, k, 0, m]
            values = {"ap": precision, "ap50": precision[at50], "ar": recall}
            means = {key: mean_or_none(value) for key, value in values.items()}
            rows.append({"id": self.category_ids[k : k + 1].tolist()[0], "class": name} | means)
        return rows


def _first_limit_with_curves(settings: CocoSettings) -> int:
    """The first of the limits whose precision the summary reads."""
    rows = stat_rows(settings.iou_type, settings.limits)
    needed = {limit for precise, _, _, limit in rows if precise}
    return min(m for m, limit in enumerate(settings.limits) if limit in needed)


def evaluate_coco(
    truth: GroundTruth,
    detections: Detections,
    settings: CocoSettings | None = None,
    *,
    matches: bool = False,
    threads: int | None = None,
    defer: bool = False,
) -> CocoResult:
    """Evaluate boxes, masks or key points as COCO does; difficult objects are ignored.

    Args:
        truth: G ground truths.
        detections: D detections in the same images.
        settings: of the evaluation; COCO's defaults if None.
        matches: also return the matches.
        threads: number of threads; None for all cores, at most 8. The results do not depend on it.
        defer: compute scores, and precision at limits that `stats` does not use, only when somebody reads
            `precision` or `scores`. The result keeps the data until then, and they must not change.

    Raises:
        DataError: a score is NaN, in mode "corrected"; or there are no masks or key points to compare.
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
        detections.image, detections.category, detections.box, detections.score, detections.area, meek,
        detections.excused,
    )  # fmt: skip
    overlaps = None
    if settings.iou_type != "bbox":
        overlap = overlap_of(truth, detections, settings.iou_type, settings.sigmas)
        overlaps = group_overlaps(truths, columns, settings.limits[-1], overlap)
    names = truth.category_names if settings.use_categories else ("all",)
    ids = truth.category_ids if settings.use_categories else np.array([-1])
    run = partial(
        run_kernel, truths, columns, overlaps, settings, truth.image_ids.size, len(names), threads=threads
    )
    curves, record, cut = run(matches=matches, lean=defer)
    notes = (*truth.notes, *detections.notes, *outside_notes(truth, detections))
    notes += cut_notes(cut, len(detections), settings.limits[-1], "class and image")
    if void.any():
        notes += (
            f"{int(void.sum())} ground truths have id 0, which pycocotools reads as no match: they count as "
            "missed here, but not in the explanation; mode corrected matches them",
        )
    complete = partial(_curves_of, run) if defer else None
    return CocoResult(curves, settings, ids, names, record, notes, complete)


def _curves_of(run: Callable[[], tuple[Curves, Any, int]]) -> Curves:
    return run()[0]


def cut_notes(cut: int, detections: int, limit: int, group: str) -> tuple[str, ...]:
    """A note about detections beyond the limit of a group, such as a class and image, if there are some."""
    if not cut:
        return ()
    beyond = f"they are beyond the {limit} with the highest scores of their {group}"
    return (f"{cut:,} of {detections:,} detections do not count: {beyond}",)


def run_kernel(
    truths: TruthColumns,
    detections: DetectionColumns,
    overlaps: Floats | None,
    settings: CocoSettings,
    images: int,
    classes: int,
    *,
    matches: bool = False,
    lean: bool = False,
    threads: int | None = None,
) -> tuple[Curves, MatchRecord | None, int]:
    """Call the kernel, at most `AT_ONCE` thresholds at a time.

    Returns:
        Precision and scores [T, R, K, A, M], and recall [T, K, A, M]; the matches, if asked for; and how many
        detections lie beyond the last limit. `lean`: without scores, and precision only of the limits from
        the first one that the summary uses.
    """
    G, D, A = truths.image.size, detections.image.size, len(settings.areas)
    areas = np.array([list(r) for r in settings.areas.values()], np.float64)
    recalls, limits = np.array(settings.recalls, np.float64), np.array(settings.limits, np.int64)
    first = _first_limit_with_curves(settings) if lean else 0
    parts: list[Curves] = []
    records: list[MatchRecord] = []
    cut = 0
    for start in range(0, len(settings.thresholds), AT_ONCE):
        thresholds = np.array(settings.thresholds[start : start + AT_ONCE], np.float64)
        T = thresholds.size
        shape = (classes, A, limits.size - first, T, recalls.size)
        recall = np.empty((classes, A, limits.size, T))
        curves = Curves(np.empty(shape), None if lean else np.empty(shape), recall)
        parts.append(curves)
        if matches:
            both = np.full((A, T, D), -1, np.int32), np.full((A, T, G), -1, np.int32)
            records.append(MatchRecord(*both, np.zeros((A, T, D), np.bool_), np.full(D, -1, np.int32)))
        one = Settings(thresholds, recalls, areas, limits, first)
        record = records[-1] if matches else NO_MATCHES
        cut = functions().evaluate(
            images, classes, truths, detections, overlaps, one, curves, record, thread_count(threads)
        )
    precision, scores, recall = _joined(parts, axis=3)
    joined = Curves(
        precision.transpose(3, 4, 0, 1, 2),
        None if scores is None else scores.transpose(3, 4, 0, 1, 2),
        recall.transpose(3, 0, 1, 2),
    )
    return joined, MatchRecord(*_joined(records, axis=1)) if matches else None, cut


def _joined(parts: Sequence[tuple[Any, ...]], axis: int) -> tuple[Any, ...]:
    """Concatenate the columns along their axis of thresholds; `rank` has none, and scores may be None."""
    if len(parts) == 1:
        return parts[0]
    return tuple(
        column[0] if column[0] is None or column[0].ndim == 1 else np.concatenate(column, axis=axis)
        for column in zip(*parts, strict=True)
    )


def _one_class(truth: GroundTruth, detections: Detections) -> tuple[GroundTruth, Detections]:
    """Merge all classes into one; rows are ordered by class, because ties depend on the order."""

    def merged(side: Any) -> Any:
        order = np.argsort(side.category, kind="stable")
        order = order[side.category[order] >= 0]
        return take_rows(side, order, category=np.zeros(order.size, np.int32))

    return merged(truth), merged(detections)
