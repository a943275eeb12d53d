"""Write a detection report: CSV tables and one self-contained HTML page."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from striate.csv_file import csv_bytes
from striate.files import write_atomic
from striate.metrics.detection import CocoResult, Detections, GroundTruth, LvisResult, VocResult
from striate.metrics.detection.breakdown import KINDS, Breakdown, breakdown
from striate.metrics.detection.explain import (
    Counts,
    Curve,
    Matched,
    OperatingPoint,
    by_size,
    calibration,
    confusion,
    curves,
    match,
    operating_point,
)
from striate.metrics.detection.resampling import Comparison, Interval
from striate.metrics.detection.similarity import OVERLAP_NAMES
from striate.report.page import png_files, render
from striate.sections import (
    Array,
    Bin,
    Card,
    Column,
    ConfusionMatrix,
    Picture,
    PrecisionRecall,
    Reliability,
    Report,
    Section,
    Table,
    Text,
)

_MAX_CLASSES = 39  # of a confusion matrix, besides background
_TITLES = {
    "ap": "AP", "ap50": "AP50", "ar": "AR", "tp": "TP", "fp": "FP", "fn": "FN", "f1": "F1",
    "best_f1": "best F1", "best_score": "score of best F1",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Explanation:
    """Matches, curves, errors and calibration of a detector, at one IoU and one score threshold."""

    matched: Matched
    point: OperatingPoint
    curves: list[Curve]
    confusion: Counts
    breakdown: Breakdown
    calibration: dict[str, Any]
    sizes: list[dict[str, Any]]


def explain(
    truth: GroundTruth, detections: Detections, iou: float, score: float, **options: Any
) -> Explanation:
    """Compute everything that the report shows about a detector; `options` are those of `match`."""
    m = match(truth, detections, iou, **options)
    point, sizes = operating_point(m, score), by_size(m, score)
    return Explanation(m, point, curves(m), confusion(m, score), breakdown(m), calibration(m), sizes)


def write_report(
    folder: str | os.PathLike[str],
    result: CocoResult | VocResult,
    e: Explanation,
    *,
    interval: Interval | None = None,
    comparison: Comparison | None = None,
    image: Array | None = None,
    figures: bool = False,
) -> list[Path]:
    """Write report.html, per_class.csv, pr_curves.csv, confusion.csv and mistakes.csv.

    Args:
        folder: created if it does not exist.
        result: the evaluation.
        e: its explanation.
        interval: confidence interval of the AP.
        comparison: with another detector.
        image: uint8 `[height, width, 3]`, one image with its matches drawn in.
        figures: whether to write the figures as PNG files, too, which needs matplotlib.

    Returns:
        The paths of the files.

    Raises:
        DataError: the folder cannot be written to.
    """
    folder = Path(folder)
    classes = class_rows(result, e)
    names = (*e.point.names, "background")
    report = _report(result, e, classes, interval, comparison, image)
    images = png_files(report) if figures else {}
    files = {
        "per_class.csv": csv_bytes(list(classes[0]) if classes else [], (row.values() for row in classes)),
        "pr_curves.csv": csv_bytes(("class", "score", "precision", "recall", "f1"), _curve_rows(e.curves)),
        "confusion.csv": csv_bytes(
            ("really", *names), ((name, *row) for name, row in zip(names, e.confusion.tolist(), strict=True))
        ),
        "mistakes.csv": csv_bytes(
            ("kind", "count", "gain"), ((k, e.breakdown.count[k], e.breakdown.gain[k]) for k in KINDS)
        ),
        **{f"{name}.png": content for name, content in images.items()},
        "report.html": render(report).encode("utf-8", "replace"),
    }
    for name, content in files.items():
        write_atomic(folder / name, content)
    return [folder / name for name in files]


def _report(
    result: CocoResult | VocResult,
    e: Explanation,
    classes: list[dict[str, Any]],
    interval: Interval | None,
    comparison: Comparison | None,
    image: Array | None,
) -> Report:
    sections = [_metrics_section(result, interval)]
    if comparison is not None:
        sections.append(_comparison_section(comparison))
    sections.append(_operating_point_section(e))
    if image is not None:
        picture = Picture(image, alt="Matches in one image")
        note = "Green: true positives. Red: false positives. Orange: missed objects."
        sections.append(Section("Matches in one image", (picture,), note))
    sections += [
        _mistakes_section(e.breakdown, e.point.iou),
        Section("Precision-recall curves", (_precision_recall(e.curves),)),
        Section("Per-class metrics", (_table(classes),)),
        Section("Confusion matrix and calibration", (_confusion_matrix(e), _reliability(e.calibration))),
    ]
    total = e.point.total()
    threshold = f"at {_overlap(e)} {e.point.iou:g} and score {e.point.score:g}"
    name, value = _headline(result)[0]
    cards = [Card(value, name, ".3f")]
    cards += [Card(total[key], f"{key} {threshold}", ".3f") for key in ("precision", "recall")]
    cards.append(Card(e.calibration["ece"], "expected calibration error", ".3f"))
    objects, detections = len(e.matched.truth), len(e.matched.detections)
    return Report(
        title="Detection report",
        subtitle=f"{objects:,} objects, {detections:,} detections, {len(classes):,} classes",
        sections=tuple(sections),
        cards=tuple(cards),
        warnings=tuple(result.notes),
    )


def _metrics_section(result: CocoResult | VocResult, interval: Interval | None) -> Section:
    note = (
        f"Computed by {_rules(result)}. A dash means that there is nothing to measure. Everything below "
        "follows COCO's rules in corrected mode, which can match a ground truth with id 0, at one IoU."
    )
    blocks = [Table((Column("metric"), Column("value", ".3f")), tuple(_headline(result)))]
    if interval is not None:
        blocks.append(_interval_table({"AP, bootstrap over images": interval}))
    return Section("Metrics", tuple(blocks), note)


def _comparison_section(c: Comparison) -> Section:
    named = {"this detector": c.first, "other detector": c.second, "difference": c.difference}
    note = f"Bootstrap over images; two-sided p = {c.p:.3f}."
    return Section("Comparison with the other detector", (_interval_table(named),), note)


def _interval_table(named: dict[str, Interval]) -> Table:
    columns = (Column("AP"), Column("value", ".3f"), Column("95 % from", ".3f"), Column("to", ".3f"))
    return Table(columns, tuple((name, i.value, i.low, i.high) for name, i in named.items()))


def _operating_point_section(e: Explanation) -> Section:
    note = (
        f"A detection is a true positive if it has the class of an object, overlaps it by at least the "
        f"{_overlap(e)} threshold, reaches the score threshold, and no detection with a higher score matches "
        "that object."
    )
    shape = "mask" if e.matched.iou_type == "segm" else "box"
    sizes = Text(
        "Small: below 32² square pixels; large: 96² and more. Objects are sized by their annotated area, "
        f"false positives by the area of their {shape}.",
        secondary=True,
    )
    blocks = (_table([e.point.total()]), _table(e.sizes), sizes)
    return Section(f"Results at {_overlap(e)} {e.point.iou:g} and score {e.point.score:g}", blocks, note)


def _overlap(e: Explanation) -> str:
    return OVERLAP_NAMES[e.matched.iou_type]


def _mistakes_section(breakdown: Breakdown, iou: float) -> Section:
    gain = Column(f"AP{100 * iou:.0f} gained if fixed", ".3f", bar_max=max([*breakdown.gain.values(), 0.01]))
    rows = tuple((kind, breakdown.count[kind], breakdown.gain[kind]) for kind in KINDS)
    note = "How much AP would rise if one kind of mistake were fixed."
    return Section("Mistakes by kind", (Table((Column("kind"), Column("count", ",d"), gain), rows),), note)


def _precision_recall(curves: Sequence[Curve]) -> PrecisionRecall:
    lines = tuple((curve.name, curve.recall, curve.precision) for curve in curves if curve.positives)
    return PrecisionRecall(lines, alt="Precision-recall curves", file="pr_curves")


def _confusion_matrix(e: Explanation) -> ConfusionMatrix:
    """Take the classes with the most mistakes, and background as the last row and column."""
    matrix, K = e.confusion, len(e.point.names)
    mistakes = matrix.sum(0)[:K] + matrix.sum(1)[:K] - 2 * np.diag(matrix)[:K]
    which = [*np.sort(np.argsort(-mistakes, kind="stable")[:_MAX_CLASSES]).tolist(), K]
    names = (*e.point.names, "background")
    counts = matrix[np.ix_(which, which)]
    return ConfusionMatrix(tuple(names[i] for i in which), counts, alt="Confusion matrix")


def _reliability(calibration: dict[str, Any]) -> Reliability:
    bins = tuple(Bin(row["low"], row["high"], row["count"], row["precision"]) for row in calibration["bins"])
    return Reliability(bins, calibration["ece"], "score", "precision", alt="Reliability diagram")


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    """Make a table of records with the same keys: fractions with three decimals, counts without."""
    keys = list(rows[0]) if rows else []
    columns = []
    for key in keys:
        kinds = {type(row[key]) for row in rows} - {type(None)}
        spec = "" if str in kinds else ",d" if kinds == {int} else ".3f"
        columns.append(Column(_TITLES.get(key, key), spec))
    return Table(tuple(columns), tuple(tuple(row[key] for key in keys) for row in rows))


def class_rows(result: CocoResult | VocResult, e: Explanation) -> list[dict[str, Any]]:
    """Return for each class its APs, the counts at the operating point and the score with the best F1."""
    rows = []
    for ap, point, curve in zip(result.per_class(), e.point.per_class(), e.curves, strict=True):
        best = curve.best()
        shown = {k: ap[k] for k in ("class", "ap", "ap50", "ar") if k in ap}
        counted = {k: point[k] for k in ("tp", "fp", "fn", "precision", "recall", "f1")}
        rows.append(shown | counted | {"best_f1": best["f1"], "best_score": best["score"]})
    return rows


def as_json(e: Explanation) -> dict[str, Any]:
    """Return the explanation as plain JSON values."""
    return {
        **e.point.to_json(),
        "operating_point_by_size": e.sizes,
        "best_f1": [curve.best() for curve in e.curves],
        "mistakes": {k: {"count": e.breakdown.count[k], "gain": e.breakdown.gain[k]} for k in KINDS},
        "calibration": e.calibration,
    }


def _headline(result: CocoResult | VocResult) -> list[tuple[str, float | None]]:
    if isinstance(result, CocoResult):
        values = result.stats.tolist()
        return [(n, None if v == -1 else v) for n, v in zip(result.stat_names, values, strict=True)]
    return [(f"mAP at IoU {result.settings.iou:g}", result.map)]


def _rules(result: CocoResult | VocResult) -> str:
    """Name the rules that the metrics follow; everything else in a report follows COCO's, corrected."""
    if isinstance(result, VocResult):
        return "Pascal VOC's rules: pixels are inclusive, and a second detection of an object is wrong"
    name, package = ("LVIS", "lvis") if isinstance(result, LvisResult) else ("COCO", "pycocotools")
    of = {"bbox": "boxes", "segm": "masks", "keypoints": "key points"}[result.settings.iou_type]
    if result.settings.mode == "strict":
        return f"the rules of {package} for {of}, to the bit (strict mode)"
    return f"{name}'s rules for {of} (corrected mode)"


def _curve_rows(curves: Sequence[Curve]) -> Iterable[tuple[Any, ...]]:
    for c in curves:
        for row in zip(*(v.tolist() for v in (c.score, c.precision, c.recall, c.f1)), strict=True):
            yield c.name, *row
