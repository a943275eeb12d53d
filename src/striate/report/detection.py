"""Write a detection report: CSV tables and one self-contained HTML page."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from striate.charts import (
    Array,
    Bin,
    ConfusionMatrix,
    DetectionImages,
    Picture,
    PrecisionRecall,
    Reliability,
    Thresholds,
)
from striate.csv_file import csv_bytes
from striate.files import write_atomic
from striate.metrics.bootstrap import Interval
from striate.metrics.detection import CocoResult, Detections, GroundTruth, LvisResult, VocResult
from striate.metrics.detection.breakdown import KINDS, Breakdown, breakdown
from striate.metrics.detection.effects import SUSPICIONS, Effects, Suspicion, effects, suspicions
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
from striate.metrics.detection.resampling import Comparison
from striate.metrics.detection.similarity import OVERLAP_NAMES
from striate.report.detection_pictures import detection_images
from striate.report.page import png_files, render
from striate.sections import Card, Column, Phrase, Report, Section, Table, Text

_MAX_SUSPICIONS = 100
_SHAPES = {"bbox": Phrase("boxes"), "segm": Phrase("masks"), "keypoints": Phrase("key points")}
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
    effects: Effects
    suspicions: list[Suspicion]


def explain(
    truth: GroundTruth, detections: Detections, iou: float, score: float, **options: Any
) -> Explanation:
    """Compute everything that the report shows about a detector; `options` are those of `match`."""
    m = match(truth, detections, iou, **options)
    mistakes = breakdown(m)
    return Explanation(
        m, operating_point(m, score), curves(m), confusion(m, score), mistakes, calibration(m),
        by_size(m, score), effects(m), suspicions(m, mistakes, score),
    )  # fmt: skip


def write_report(
    folder: str | os.PathLike[str],
    result: CocoResult | VocResult,
    e: Explanation,
    *,
    interval: Interval | None = None,
    comparison: Comparison | None = None,
    image: Array | None = None,
    figures: bool = False,
    names: Sequence[str] = (),
    files: Mapping[str, Path] = {},
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
        names: of the image files, in the order of the ground truth's `image_ids`; empty for these ids.
        files: image files by name, for the page (`detection_pictures.pictures_in`).

    Returns:
        The paths of the files.

    Raises:
        DataError: the folder cannot be written to.
    """
    folder = Path(folder)
    classes = class_rows(result, e)
    labels = (*e.point.names, "background")
    pictures = detection_images(e.matched, e.effects, e.suspicions, e.point.score, names=names, files=files)
    report = _report(result, e, classes, interval, comparison, image, pictures)
    images = png_files(report) if figures else {}
    contents = {
        "per_class.csv": csv_bytes(list(classes[0]) if classes else [], (row.values() for row in classes)),
        "pr_curves.csv": csv_bytes(("class", "score", "precision", "recall", "f1"), _curve_rows(e.curves)),
        "confusion.csv": csv_bytes(
            ("really", *labels),
            ((name, *row) for name, row in zip(labels, e.confusion.tolist(), strict=True)),
        ),
        "mistakes.csv": csv_bytes(
            ("kind", "count", "gain"), ((k, e.breakdown.count[k], e.breakdown.gain[k]) for k in KINDS)
        ),
        **{f"{name}.png": content for name, content in images.items()},
        "report.html": render(report).encode("utf-8", "replace"),
    }
    for name, content in contents.items():
        write_atomic(folder / name, content)
    return [folder / name for name in contents]


def _report(
    result: CocoResult | VocResult,
    e: Explanation,
    classes: list[dict[str, Any]],
    interval: Interval | None,
    comparison: Comparison | None,
    image: Array | None,
    pictures: DetectionImages,
) -> Report:
    sections = [_errors_section(e, pictures)]
    if e.suspicions:
        sections.append(_suspicions_section(e, pictures))
    if image is not None:
        picture = Picture(image, alt="Matches in one image")
        note = Phrase("Green: true positives. Red: false positives. Orange: missed objects.")
        sections.append(Section(Phrase("Matches in one image"), (picture,), note))
    sections += [
        _mistakes_section(e.breakdown, e.point.iou),
        Section(Phrase("Precision-recall curves"), (_precision_recall(e.curves), thresholds(e))),
        Section(Phrase("Per-class metrics"), (_table(classes, of_classes=True),)),
        _metrics_section(result, interval),
    ]
    if comparison is not None:
        sections.append(_comparison_section(comparison))
    sections += [
        _operating_point_section(e),
        Section(Phrase("Calibration"), (_reliability(e.calibration),)),
    ]
    objects, detections = len(e.matched.truth), len(e.matched.detections)
    return Report(
        title=Phrase("Detection report"),
        subtitle=Phrase(
            "objects: {objects:,}; detections: {detections:,}; classes: {classes:,}",
            objects=objects, detections=detections, classes=len(classes),
        ),
        sections=tuple(sections),
        cards=_cards(result, e, interval),
        warnings=tuple(result.notes),
    )  # fmt: skip


def _cards(result: CocoResult | VocResult, e: Explanation, interval: Interval | None) -> tuple[Card, ...]:
    name, value = _headline(result)[0]
    total = e.point.total()
    threshold = {"overlap": _overlap(e), "iou": f"{e.point.iou:g}", "score": f"{e.point.score:g}"}
    at = Phrase("at {overlap} {iou} and score {score}", **threshold)
    bounds = None if interval is None else (interval.low, interval.high)
    cards = [Card(value, name, ".3f", interval=bounds)]
    cards += [
        Card(total[key], Phrase("{metric} {at}", metric=Phrase(key), at=at), ".3f")
        for key in ("precision", "recall")
    ]
    cards.append(Card(e.calibration["ece"], Phrase("expected calibration error"), ".3f"))
    return tuple(cards)


def _errors_section(e: Explanation, pictures: DetectionImages) -> Section:
    note = Phrase(
        "The images stand in the order of their effect on AP{iou}: what their false positives and missed "
        "objects take from the average precision without interpolation, {lost:.3f} in all images together.",
        iou=f"{100 * e.point.iou:.0f}", lost=1 - e.effects.ap,
    )  # fmt: skip
    return Section(Phrase("Errors"), (_confusion_matrix(e), pictures), note)


def _suspicions_section(e: Explanation, pictures: DetectionImages) -> Section:
    """Confident mistakes that are perhaps those of the annotations."""
    m = e.matched
    classes, names = m.truth.category_names, pictures.names
    rows = tuple(
        (
            names[m.detections.image[s.detection]], Phrase(SUSPICIONS[s.kind]),
            classes[m.truth.category[s.truth]] if s.truth >= 0 else "–",
            classes[m.detections.category[s.detection]], s.score,
        )
        for s in e.suspicions[:_MAX_SUSPICIONS]
    )  # fmt: skip
    columns = (
        Column(Phrase("image")), Column(Phrase("perhaps")), Column(Phrase("annotated")),
        Column(Phrase("detected")), Column(Phrase("score"), ".3f"),
    )  # fmt: skip
    note = Phrase(
        "The most confident false positives. Look at them in the images above: the annotation may be wrong."
    )
    return Section(Phrase("Suspected label errors"), (Table(columns, rows, picks="image"),), note)


def thresholds(e: Explanation) -> Thresholds:
    """True and false positives of each class at about 100 score thresholds."""
    m, K = e.matched, len(e.point.names)
    scores = m.detections.score[m.right | m.wrong]
    low, high = (0.0, 1.0) if not scores.size else (min(0.0, scores.min()), max(1.0, scores.max()))
    edges = np.linspace(low, high, 101 if K <= 200 else 41)
    place = np.searchsorted(edges, m.detections.score, "right") - 1
    counts = np.zeros((2, K, len(edges)), np.int64)
    for side, rows in enumerate((m.right, m.wrong)):
        np.add.at(counts[side], (m.detections.category[rows], place[rows]), 1)
    right, wrong = np.cumsum(counts[:, :, ::-1], axis=2)[:, :, ::-1]
    objects = np.bincount(m.truth.category[m.counts], minlength=K)
    return Thresholds(
        e.point.names, edges, right, wrong, objects, e.point.score, alt="Counts at a score threshold"
    )


def _metrics_section(result: CocoResult | VocResult, interval: Interval | None) -> Section:
    note = Phrase(
        "Computed by {rules}. A dash means that there is nothing to measure. Everything below follows COCO's "
        "rules in corrected mode, which can match a ground truth with id 0, at one IoU.",
        rules=_rules(result),
    )
    columns = (Column(Phrase("metric")), Column(Phrase("value"), ".3f"))
    blocks = [Table(columns, tuple(_headline(result)))]
    if interval is not None:
        blocks.append(_interval_table({Phrase("AP, bootstrap over images"): interval}))
    return Section(Phrase("Metrics"), tuple(blocks), note)


def _comparison_section(c: Comparison) -> Section:
    named = {
        Phrase("this detector"): c.first, Phrase("other detector"): c.second,
        Phrase("difference"): c.difference,
    }  # fmt: skip
    note = Phrase("Bootstrap over images; two-sided p = {p:.3f}.", p=c.p)
    return Section(Phrase("Comparison with the other detector"), (_interval_table(named),), note)


def _interval_table(named: Mapping[Phrase, Interval]) -> Table:
    columns = (
        Column("AP"), Column(Phrase("value"), ".3f"), Column(Phrase("95 % from"), ".3f"),
        Column(Phrase("to"), ".3f"),
    )  # fmt: skip
    return Table(columns, tuple((name, i.value, i.low, i.high) for name, i in named.items()))


def _operating_point_section(e: Explanation) -> Section:
    note = Phrase(
        "A detection is a true positive if it has the class of an object, overlaps it by at least the "
        "{overlap} threshold, reaches the score threshold, and no detection with a higher score matches that "
        "object.", overlap=_overlap(e),
    )  # fmt: skip
    has_masks = e.matched.iou_type == "segm"
    sizes = Phrase(
        "Small: below 32² square pixels; large: 96² and more. Objects are sized by their annotated area, "
        "false positives by the area of their {shape}.",
        shape=Phrase("mask" if has_masks else "box"),
    )
    blocks = (_table([e.point.total()]), _table(e.sizes), Text(sizes, secondary=True))
    heading = Phrase(
        "Results at {overlap} {iou} and score {score}",
        overlap=_overlap(e), iou=f"{e.point.iou:g}", score=f"{e.point.score:g}",
    )  # fmt: skip
    return Section(heading, blocks, note)


def _overlap(e: Explanation) -> str:
    return OVERLAP_NAMES[e.matched.iou_type]


def _mistakes_section(breakdown: Breakdown, iou: float) -> Section:
    title = Phrase("AP{iou} gained if fixed", iou=f"{100 * iou:.0f}")
    gain = Column(title, ".3f", bar_max=max([*breakdown.gain.values(), 0.01]))
    rows = tuple((Phrase(kind), breakdown.count[kind], breakdown.gain[kind]) for kind in KINDS)
    note = Phrase("How much AP would rise if one kind of mistake were fixed.")
    columns = (Column(Phrase("kind")), Column(Phrase("count"), ",d"), gain)
    return Section(Phrase("Mistakes by kind"), (Table(columns, rows),), note)


def _precision_recall(curves: Sequence[Curve]) -> PrecisionRecall:
    shown = [(k, curve) for k, curve in enumerate(curves) if curve.positives]
    return PrecisionRecall(
        tuple((curve.name, curve.recall, curve.precision) for _, curve in shown),
        tuple(curve.score for _, curve in shown), tuple(k for k, _ in shown),
        alt="Precision-recall curves", file="pr_curves",
    )  # fmt: skip


def _confusion_matrix(e: Explanation) -> ConfusionMatrix:
    """All classes, and background as the last row and column."""
    return ConfusionMatrix((*e.point.names, "background"), e.confusion, alt="Confusion matrix")


def _reliability(calibration: dict[str, Any]) -> Reliability:
    bins = tuple(Bin(row["low"], row["high"], row["count"], row["precision"]) for row in calibration["bins"])
    ece = math.nan if calibration["ece"] is None else calibration["ece"]
    return Reliability(bins, ece, Phrase("score"), Phrase("precision"), alt="Reliability diagram")


def _table(rows: Sequence[dict[str, Any]], *, of_classes: bool = False) -> Table:
    """Make a table of records with the same keys: fractions with three decimals, counts without."""
    keys = list(rows[0]) if rows else []
    columns = []
    for key in keys:
        kinds = {type(row[key]) for row in rows} - {type(None)}
        spec = "" if str in kinds else ",d" if kinds == {int} else ".3f"
        columns.append(Column(Phrase(_TITLES.get(key, key)), spec))
    cells = tuple(tuple(Phrase(row[key]) if key == "size" else row[key] for key in keys) for row in rows)
    return Table(tuple(columns), cells, of_classes)


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
    return [(Phrase("mAP at IoU {iou:g}", iou=result.settings.iou), result.map)]


def _rules(result: CocoResult | VocResult) -> Phrase:
    """Name the rules that the metrics follow; everything else in a report follows COCO's, corrected."""
    if isinstance(result, VocResult):
        return Phrase(
            "Pascal VOC's rules: pixels are inclusive, and a second detection of an object is wrong"
        )
    name, package = ("LVIS", "lvis") if isinstance(result, LvisResult) else ("COCO", "pycocotools")
    of = _SHAPES[result.settings.iou_type]
    if result.settings.mode == "strict":
        return Phrase("the rules of {package} for {of}, to the bit (strict mode)", package=package, of=of)
    return Phrase("{name}'s rules for {of} (corrected mode)", name=name, of=of)


def _curve_rows(curves: Sequence[Curve]) -> Iterable[tuple[Any, ...]]:
    for c in curves:
        for row in zip(*(v.tolist() for v in (c.score, c.precision, c.recall, c.f1)), strict=True):
            yield c.name, *row
