"""A detection evaluation, explained: CSV tables and one self-contained HTML page."""

from __future__ import annotations

import base64
import csv
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from striate.files import write_atomic
from striate.metrics.detection import CocoResult, Detections, GroundTruth, VocResult
from striate.metrics.detection.breakdown import KINDS, Breakdown, breakdown
from striate.metrics.detection.coco import STAT_NAMES
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
from striate.report import detection_figures as figures
from striate.report.templates import template


@dataclass(frozen=True, eq=False)
class Explanation:
    """What lies behind an AP, at one IoU and one score threshold."""

    matched: Matched
    point: OperatingPoint
    curves: list[Curve]
    confusion: Counts
    breakdown: Breakdown
    calibration: dict[str, Any]
    sizes: list[dict[str, Any]]


def explain(truth: GroundTruth, found: Detections, iou: float, score: float) -> Explanation:
    """Everything that the report shows about a detector."""
    m = match(truth, found, iou)
    return Explanation(
        m,
        operating_point(m, score),
        curves(m),
        confusion(m, score),
        breakdown(m),
        calibration(m),
        by_size(m, score),
    )


def write_report(
    folder: str | os.PathLike[str],
    result: CocoResult | VocResult,
    e: Explanation,
    *,
    interval: Interval | None = None,
    comparison: Comparison | None = None,
    picture: bytes | None = None,
) -> list[Path]:
    """Write report.html, per_class.csv, pr_curves.csv and .png, confusion.csv and mistakes.csv.

    Args:
        folder: made where it is not there.
        result: the evaluation.
        e: its explanation.
        interval: of the AP.
        comparison: with another detector.
        picture: PNG of one image's matches.

    Returns:
        The files.
    """
    folder = Path(folder)
    curve_png = figures.precision_recall(e.curves)
    classes = class_rows(result, e)
    pages = {
        "per_class.csv": _csv(list(classes[0]) if classes else [], (row.values() for row in classes)),
        "pr_curves.csv": _csv(("class", "score", "precision", "recall", "f1"), _curve_rows(e.curves)),
        "confusion.csv": _csv(("really", *e.point.names, "background"), _confusion_rows(e)),
        "mistakes.csv": _csv(
            ("kind", "count", "gain"), ((k, e.breakdown.count[k], e.breakdown.gain[k]) for k in KINDS)
        ),
        "pr_curves.png": curve_png,
    }
    images = {
        "curves": curve_png,
        "confusion": figures.confusion_matrix(e.confusion, e.point.names),
        "mistakes": figures.mistakes(e.breakdown),
        "reliability": figures.reliability(e.calibration),
    } | ({"picture": picture} if picture else {})
    pages["report.html"] = (
        template("detection.html")
        .render(
            headline=_headline(result),
            rules=_rules(result),
            sizes=e.sizes,
            notes=result.notes,
            point=e.point,
            total=e.point.total(),
            classes=classes,
            breakdown=e.breakdown,
            kinds=KINDS,
            ece=e.calibration["ece"],
            interval=interval,
            comparison=comparison,
            images={name: base64.b64encode(data).decode() for name, data in images.items()},
        )
        .encode()
    )
    for name, data in pages.items():
        write_atomic(folder / name, data)
    return [folder / name for name in pages]


def class_rows(result: CocoResult | VocResult, e: Explanation) -> list[dict[str, Any]]:
    """For each class its APs, the counts at the operating point and the score threshold of the best F1."""
    rows = []
    for ap, point, curve in zip(result.per_class(), e.point.per_class(), e.curves, strict=True):
        best = curve.best()
        shown = {k: ap[k] for k in ("class", "ap", "ap50", "ar") if k in ap}
        counted = {k: point[k] for k in ("tp", "fp", "fn", "precision", "recall", "f1")}
        rows.append(shown | counted | {"best_f1": best["f1"], "best_score": best["score"]})
    return rows


def as_json(e: Explanation) -> dict[str, Any]:
    """The explanation for programs."""
    return {
        "operating_point": {"iou": e.point.iou, "score": e.point.score} | e.point.total(),
        "operating_point_per_class": e.point.per_class(),
        "operating_point_by_size": e.sizes,
        "best_f1": [curve.best() for curve in e.curves],
        "mistakes": {k: {"count": e.breakdown.count[k], "gain": e.breakdown.gain[k]} for k in KINDS},
        "calibration": e.calibration,
    }


def _headline(result: CocoResult | VocResult) -> list[tuple[str, float | None]]:
    if isinstance(result, CocoResult):
        values = result.stats.tolist()
        return [(n, None if v == -1 else v) for n, v in zip(STAT_NAMES, values, strict=True)]
    return [(f"mAP at IoU {result.settings.iou:g}", result.map)]


def _rules(result: CocoResult | VocResult) -> str:
    """By which rules the headline counts; everything else in a report goes by COCO's, corrected."""
    if isinstance(result, VocResult):
        return "Pascal VOC's rules: pixels are inclusive, and a second detection of an object is wrong"
    if result.settings.mode == "strict":
        return "pycocotools' rules, to the bit (strict mode)"
    return "COCO's rules (corrected mode)"


def _curve_rows(curves: Sequence[Curve]) -> Iterable[tuple[Any, ...]]:
    for c in curves:
        for row in zip(*(v.tolist() for v in (c.score, c.precision, c.recall, c.f1)), strict=True):
            yield c.name, *row


def _confusion_rows(e: Explanation) -> Iterable[list[Any]]:
    for name, row in zip((*e.point.names, "background"), e.confusion.tolist(), strict=True):
        yield [name, *row]


def _csv(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode()
