"""COCO's average precision and recall, equal to pycocotools 2.0.11 bit for bit.

Lin et al., "Microsoft COCO: Common Objects in Context", 2014, and the reference evaluator's `cocoeval.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from striate.errors import DataError, UsageError
from striate.metrics.detection.kernel import functions, thread_count
from striate.metrics.detection.records import (
    Bools,
    Detections,
    Floats,
    GroundTruth,
    Places,
    without_repeated_ids,
)
from striate.metrics.detection.reference import Curves, Found, Matches, Settings, Truths

Mode = Literal["strict", "corrected"]
STAT_NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
AT_ONCE = 32  # IoU thresholds in one call of the kernel: bits of a mask


def _steps(first: float, last: float, step: float) -> tuple[float, ...]:
    return tuple(np.linspace(first, last, round((last - first) / step) + 1).tolist())


@dataclass(frozen=True)
class CocoSettings:
    """What COCO's evaluation measures.

    Args:
        thresholds: IoU thresholds, T of them.
        recalls: recall levels at which precision is read, R of them.
        areas: name -> smallest and largest area in square pixels, both inclusive, A of them.
        limits: how many detections of a class count in an image, M of them, ascending.
        use_categories: False takes all classes for one, as for region proposals.
        mode: "strict" is pycocotools to the bit. "corrected" differs in what people do not expect of it:
            a ground truth with id 0 can be matched, annotations that share an id are all kept, and
            scores that are no numbers are refused.
    """

    thresholds: tuple[float, ...] = _steps(0.5, 0.95, 0.05)
    recalls: tuple[float, ...] = _steps(0.0, 1.0, 0.01)
    areas: dict[str, tuple[float, float]] = field(
        default_factory=lambda: {
            "all": (0.0, 1e5**2),
            "small": (0.0, 32.0**2),
            "medium": (32.0**2, 96.0**2),
            "large": (96.0**2, 1e5**2),
        }
    )
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
class MatchRecord:
    """Who matched whom, for A area ranges, T thresholds, D detections and G ground truths.

    In mode "strict", ground truths that share an id are replaced first (`without_repeated_ids`), and rows are
    those of what comes of it.

    Args:
        truth_of: int32 [A, T, D], row of the ground truth that a detection took, or -1.
        detection_of: int32 [A, T, G], row of the detection that took a ground truth last, or -1.
        ignored: bool [A, T, D], detections that count neither for nor against.
        rank: int32 [D], place by score in its image and class; -1 beyond the last limit.
    """

    truth_of: Places
    detection_of: Places
    ignored: Bools
    rank: Places


@dataclass(frozen=True, eq=False)
class CocoResult:
    """COCO's numbers. -1 stands for "no ground truth to measure it on".

    Args:
        stats: the twelve numbers, in the order of `STAT_NAMES`.
        precision: float64 [T, R, K, A, M].
        recall: float64 [T, K, A, M], the largest recall reached.
        scores: float64 [T, R, K, A, M], the score at which each recall level is reached.
        settings: what was measured.
        category_ids: K ids, ascending.
        category_names: K names.
        matches: who matched whom, where it was asked for.
        notes: what a user should know about the data.
    """

    stats: Floats
    precision: Floats
    recall: Floats
    scores: Floats
    settings: CocoSettings
    category_ids: NDArray[Any]
    category_names: tuple[str, ...]
    matches: MatchRecord | None = None
    notes: tuple[str, ...] = ()

    def mean_precision(self, threshold: float | None = None, area: str = "all", limit: int = 100) -> float:
        """AP over classes and recall levels, and over all thresholds unless one is given; -1 where empty."""
        return self._mean(self.precision, threshold, area, limit)

    def mean_recall(self, threshold: float | None = None, area: str = "all", limit: int = 100) -> float:
        """AR over classes, and over all thresholds unless one is given; -1 where empty."""
        return self._mean(self.recall, threshold, area, limit)

    def lines(self) -> list[str]:
        """The twelve numbers as pycocotools prints them."""
        return stat_lines(twelve_rows(self.settings.limits), self.stats, self.settings.thresholds)

    def _mean(self, values: Floats, threshold: float | None, area: str, limit: int) -> float:
        a = [i for i, name in enumerate(self.settings.areas) if name == area]
        m = [i for i, most in enumerate(self.settings.limits) if most == limit]
        if threshold is not None:
            values = values[np.flatnonzero(np.array(self.settings.thresholds) == threshold)]
        if not a or not m:
            return -1.0
        # In the order [T, R, K], on which the rounding of the sum depends; a limit given twice counts twice.
        flat = values[..., a, m].ravel()
        kept = flat[flat > -1]
        return float(np.mean(kept)) if kept.size else -1.0

    def per_class(self) -> list[dict[str, Any]]:
        """For each class its name, AP, AP50 and AR at the last limit; None where it has no ground truth."""
        at50 = np.flatnonzero(np.array(self.settings.thresholds) == 0.5)
        rows = []
        for k, name in enumerate(self.category_names):
            precision, recall = self.precision[:, :, k, 0, -1], self.recall[:, k, 0, -1]
            rows.append(
                {
                    "id": self.category_ids[k].item(),
                    "class": name,
                    "ap": _mean_or_none(precision),
                    "ap50": _mean_or_none(precision[at50]),
                    "ar": _mean_or_none(recall),
                }
            )
        return rows


def _mean_or_none(values: Floats) -> float | None:
    kept = values[values > -1]
    return float(np.mean(kept)) if kept.size else None


def evaluate_coco(
    truth: GroundTruth,
    found: Detections,
    settings: CocoSettings | None = None,
    *,
    matches: bool = False,
    threads: int | None = None,
) -> CocoResult:
    """COCO's evaluation of bounding boxes. Objects that are difficult (as VOC marks them) are ignored.

    Args:
        truth: G ground truths.
        found: D detections in the same images.
        settings: what to measure; COCO's own where it is None.
        matches: keep who matched whom.
        threads: how many threads work; None for as many as the machine has. Results do not depend on it.

    Raises:
        DataError: scores that are no numbers, in mode "corrected".
    """
    settings = settings or CocoSettings()
    strict = settings.mode == "strict"
    if strict:
        truth = without_repeated_ids(truth)
    elif np.isnan(found.score).any():
        raise DataError(f"detection {int(np.argmax(np.isnan(found.score)))}", "its score is not a number")
    if not settings.use_categories:
        truth, found = _one_class(truth, found)
    void = (truth.id == 0) & strict
    ignore = truth.crowd | truth.difficult
    truths = Truths(truth.image, truth.category, truth.box, truth.area, truth.crowd, ignore, void)
    meek = None if found.id is None else found.id <= 0
    columns = Found(found.image, found.category, found.box, found.score, found.area, meek)
    classes = truth.category_ids.size if settings.use_categories else 1
    curves, record = run_kernel(
        truths, columns, None, settings, truth.image_ids.size, classes, matches, thread_count(threads)
    )
    names = truth.category_names if settings.use_categories else ("all",)
    ids = truth.category_ids if settings.use_categories else np.array([-1])
    notes = (*truth.notes, *found.notes)
    if void.any():
        notes += (
            f"{int(void.sum())} ground truths have id 0, which pycocotools takes for no match: they count as "
            "missed, though not in what explains the numbers; mode corrected matches them",
        )
    return result(curves, settings, ids, names, record, notes)


def run_kernel(
    truths: Truths,
    found: Found,
    overlaps: Floats | None,
    settings: CocoSettings,
    images: int,
    classes: int,
    matches: bool,
    threads: int,
) -> tuple[Curves, MatchRecord | None]:
    """Call the kernel, with as many thresholds at a time as it takes."""
    A, M, R = len(settings.areas), len(settings.limits), len(settings.recalls)
    areas = np.array([list(r) for r in settings.areas.values()], np.float64)
    recalls, limits = np.array(settings.recalls, np.float64), np.array(settings.limits, np.int64)
    parts: list[Curves] = []
    records: list[MatchRecord] = []
    for start in range(0, len(settings.thresholds), AT_ONCE):
        thresholds = np.array(settings.thresholds[start : start + AT_ONCE], np.float64)
        T = thresholds.size
        shape = (classes, A, M, T, R)
        curves = Curves(np.full(shape, -1.0), np.full(shape, -1.0), np.full(shape[:-1], -1.0))
        record = Matches()
        if matches:
            G, D = truths.image.size, found.image.size
            record = Matches(
                np.full((A, T, D), -1, np.int32),
                np.full((A, T, G), -1, np.int32),
                np.zeros((A, T, D), np.bool_),
                np.full(D, -1, np.int32),
            )
            records.append(MatchRecord(*record))  # type: ignore[arg-type]  # none of them is None here
        one = Settings(thresholds, recalls, areas, limits)
        functions().evaluate(images, classes, truths, found, overlaps, one, curves, record, threads)
        parts.append(curves)
    return _joined(parts), _joined_records(records) if matches else None


def _joined(parts: list[Curves]) -> Curves:
    if len(parts) == 1:
        return parts[0]
    return Curves(*(np.concatenate([p[i] for p in parts], axis=3) for i in range(3)))


def _joined_records(records: list[MatchRecord]) -> MatchRecord:
    if len(records) == 1:
        return records[0]
    names = ("truth_of", "detection_of", "ignored")
    joined = {name: np.concatenate([getattr(r, name) for r in records], axis=1) for name in names}
    return replace(records[0], **joined)


def result(
    curves: Curves,
    settings: CocoSettings,
    category_ids: NDArray[Any],
    category_names: tuple[str, ...],
    record: MatchRecord | None,
    notes: tuple[str, ...],
) -> CocoResult:
    """The kernel's curves as [T, R, K, A, M], with the twelve numbers."""
    bare = CocoResult(
        np.zeros(0),
        curves.precision.transpose(3, 4, 0, 1, 2),
        curves.recall.transpose(3, 0, 1, 2),
        curves.scores.transpose(3, 4, 0, 1, 2),
        settings,
        category_ids,
        category_names,
        record,
        notes,
    )
    return replace(bare, stats=twelve(bare))


# Whether a number is a precision, its IoU threshold (None: the mean over all), area range and limit.
Row = tuple[bool, float | None, str, int]


def twelve_rows(limits: Sequence[int]) -> list[Row]:
    """What COCO's twelve numbers are, in the order of `STAT_NAMES`.

    As in pycocotools, the first is over exactly 100 detections, and the others over the three limits.
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


def twelve(r: CocoResult) -> Floats:
    """COCO's twelve numbers, in the order of `STAT_NAMES`."""
    values = []
    for precise, threshold, area, limit in twelve_rows(r.settings.limits):
        mean = r.mean_precision if precise else r.mean_recall
        values.append(mean(threshold, area, limit))
    return np.array(values)


def stat_lines(rows: Sequence[Row], stats: Floats, thresholds: Sequence[float]) -> list[str]:
    """The numbers as pycocotools prints them."""
    lines = []
    for (precise, threshold, area, limit), value in zip(rows, stats, strict=True):
        name = ("Average Precision", "(AP)") if precise else ("Average Recall", "(AR)")
        at = f"{thresholds[0]:0.2f}:{thresholds[-1]:0.2f}" if threshold is None else f"{threshold:0.2f}"
        where = f"IoU={at:<9} | area={area:>6s} | maxDets={limit:>3d}"
        lines.append(f" {name[0]:<18} {name[1]} @[ {where} ] = {value:0.3f}")
    return lines


def _one_class(truth: GroundTruth, found: Detections) -> tuple[GroundTruth, Detections]:
    """All classes as one; rows in the order of their classes, on which ties depend."""

    def merged(side: Any, columns: tuple[str, ...]) -> Any:
        order = np.argsort(side.category, kind="stable")
        order = order[side.category[order] >= 0]
        values = {c: getattr(side, c)[order] for c in columns if getattr(side, c) is not None}
        return replace(side, **values, category=np.zeros(order.size, np.int32))

    return (
        merged(truth, ("image", "box", "area", "crowd", "id", "difficult")),
        merged(found, ("image", "box", "score", "area", "id")),
    )
