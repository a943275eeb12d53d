"""The figures of a page as JSON values for its scripts, and as tables for readers without scripts."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from striate import charts
from striate.charts import Array
from striate.report.class_order import clustered
from striate.report.encoding import encoded
from striate.sections import Column, Phrase, Table
from striate.transforms.thumbnails import thumbnail

MAX_PAIRS = 30  # of classes in the table of a confusion matrix
MAX_POINTS, MAX_CURVE_NUMBERS = 200, 30_000  # of a curve, and points of all curves together
MAX_ANSWERS = 20  # in the table of a list of answers
MAX_TOKENS = 60  # of the source and of the answer, in an attention map
MAX_FULL_MATRIX = 12  # classes of a matrix that is written out as a table


@functools.singledispatch
def data(block: charts.Figure) -> dict[str, Any]:
    """What the script `kind` draws, as JSON values.

    Raises:
        NotImplementedError: a record that this renderer does not know.
    """
    raise NotImplementedError(f"no drawing for {type(block).__name__}")


@functools.singledispatch
def table(block: charts.Figure) -> Table | None:
    """The numbers of a figure; None if a table says nothing that the page does not say elsewhere."""
    return None


@data.register
def _(block: charts.Curves) -> dict[str, Any]:
    panels = [
        {
            "title": phrase_json(panel.title), "share": panel.share, "floor": panel.floor,
            "lines": [{"label": phrase_json(line.label), "y": rounded(line.values)} for line in panel.lines],
        }
        for panel in block.panels
    ]  # fmt: skip
    return {"kind": "curves", "x": list(block.epochs), "panels": panels, "best": block.best_epoch}


@table.register
def _(block: charts.Curves) -> Table:
    lines = [(panel, line) for panel in block.panels for line in panel.lines]
    columns = [
        Column(Phrase("{title}: {line}", title=panel.title, line=line.label), ".1%" if panel.share else ".4g")
        for panel, line in lines
    ]
    rows = zip(block.epochs, *(line.values for _, line in lines), strict=True)
    return Table((Column(Phrase("epoch"), "d"), *columns), tuple(rows))


@data.register
def _(block: charts.ConfusionMatrix) -> dict[str, Any]:
    rows, columns = np.nonzero(block.counts)
    cells = np.stack([rows, columns, block.counts[rows, columns]], 1).ravel().tolist()
    return {"kind": "matrix", "names": list(block.names), "cells": cells, "order": clustered(block.counts)}


@table.register
def _(block: charts.ConfusionMatrix) -> Table:
    """The whole matrix of a few classes, otherwise the pairs with the most confusions."""
    names, counts = block.names, block.counts
    if len(names) <= MAX_FULL_MATRIX:
        columns = (Column(Phrase("true class")), *(Column(name, "d") for name in names))
        return Table(columns, tuple((name, *row) for name, row in zip(names, counts.tolist(), strict=True)))
    wrong = counts - np.diag(np.diag(counts))
    worst = np.argsort(-wrong, axis=None, kind="stable")[:MAX_PAIRS]
    pairs = [divmod(int(i), len(names)) for i in worst if wrong.flat[i]]
    size = counts.sum(axis=1)
    columns = (
        Column(Phrase("true class")), Column(Phrase("predicted")), Column(Phrase("images"), ",d"),
        Column(Phrase("of the class"), ".1%"),
    )  # fmt: skip
    return Table(
        columns, tuple((names[t], names[p], int(wrong[t, p]), float(wrong[t, p] / size[t])) for t, p in pairs)
    )


@data.register
def _(block: charts.Reliability) -> dict[str, Any]:
    bins = [[b.low, b.high, b.count, b.accuracy] for b in block.bins]
    axes = {"x": phrase_json(block.confidence), "y": phrase_json(block.accuracy)}
    return {"kind": "reliability", "bins": bins, "ece": _finite(block.ece), **axes}


@table.register
def _(block: charts.Reliability) -> Table:
    columns = (
        Column(block.confidence), Column(Phrase("number"), ",d"), Column(block.accuracy, ".1%"),
    )  # fmt: skip
    return Table(columns, tuple((f"{b.low:g} – {b.high:g}", b.count, b.accuracy) for b in block.bins))


@data.register
def _(block: charts.Gallery) -> dict[str, Any]:
    return {"kind": "gallery"}


@data.register
def _(block: charts.ClassCurves) -> dict[str, Any]:
    return {"kind": "classes"}


@data.register
def _(block: charts.PrecisionRecall) -> dict[str, Any]:
    points = max(20, min(MAX_POINTS, MAX_CURVE_NUMBERS // max(1, len(block.curves))))
    curves: list[dict[str, Any]] = [
        {"name": name, "x": rounded(thinned(recall, points)), "y": rounded(thinned(precision, points))}
        for name, recall, precision in block.curves
    ]
    for curve, score in zip(curves, block.scores, strict=False):
        curve["score"] = rounded(thinned(score, points))
    for curve, index in zip(curves, block.classes, strict=False):
        curve["class"] = index
    return {"kind": "precision_recall", "curves": curves}


@data.register
def _(block: charts.Thresholds) -> dict[str, Any]:
    return {
        "kind": "thresholds", "names": list(block.names), "edges": rounded(block.edges),
        "right": encoded(block.right.astype(np.uint32)), "wrong": encoded(block.wrong.astype(np.uint32)),
        "objects": block.objects.tolist(), "score": block.score,
    }  # fmt: skip


@data.register
def _(block: charts.DetectionImages) -> dict[str, Any]:
    images = [
        {
            "name": image.name, "size": rounded(image.size), "effect": rounded([image.effect])[0],
            "picture": image.picture, "boxes": [_box(box) for box in image.boxes],
        }
        for image in block.images
    ]  # fmt: skip
    return {
        "kind": "detections", "classes": list(block.classes), "images": images, "count": len(block.names),
        "score": block.score,
    }  # fmt: skip


def _box(box: charts.DetectedBox) -> dict[str, Any]:
    found: dict[str, Any] = {
        "kind": box.kind, "class": box.category, "other": box.other, "score": box.score,
        "box": rounded(box.box), "effect": rounded([box.effect], 3)[0],
    }  # fmt: skip
    if box.suspicion:
        found["suspicion"] = box.suspicion
    if box.runs:
        found |= {"runs": list(box.runs), "mask": list(box.mask_size)}
    if box.points:
        found["points"] = [rounded(point) for point in box.points]
    return found


@table.register
def _(block: charts.DetectionImages) -> Table:
    """The images whose mistakes cost the most."""
    columns = (Column(Phrase("image")), Column(Phrase("AP lost"), ".4f"), *(
        Column(Phrase(kind), ",d") for kind in ("true positives", "false positives", "missed")
    ))  # fmt: skip
    rows = []
    for image in block.images[:MAX_PAIRS]:
        sure = [box for box in image.boxes if box.score is not None and box.score >= block.score]
        counts = [sum(box.kind == kind for box in sure) for kind in ("right", "wrong", "object")]
        objects = sum(box.kind == "object" for box in image.boxes)
        rows.append((image.name, image.effect, counts[0], counts[1], objects - counts[2]))
    return Table(columns, tuple(rows))


@data.register
def _(block: charts.AttentionMap) -> dict[str, Any]:
    weights = block.weights[:MAX_TOKENS, :MAX_TOKENS]
    return {
        "kind": "attention", "source": list(block.source[:MAX_TOKENS]),
        "target": list(block.target[:MAX_TOKENS]), "weights": [rounded(row, 3) for row in weights],
    }  # fmt: skip


@data.register
def _(block: charts.ImageAttention) -> dict[str, Any]:
    weights = block.weights[:MAX_TOKENS]
    return {
        "kind": "image_attention", "image": thumbnail(block.image, 640),
        "size": [int(block.image.shape[1]), int(block.image.shape[0])],
        "target": list(block.target[:MAX_TOKENS]),
        "weights": [[rounded(row, 3) for row in step] for step in weights],
    }  # fmt: skip


@data.register
def _(block: charts.Answers) -> dict[str, Any]:
    return {"kind": "answers"}


@table.register
def _(block: charts.Answers) -> Table:
    """The answers with the highest error rates."""
    worst = np.argsort(-block.rates, kind="stable")[:MAX_ANSWERS].tolist()
    columns = (
        Column(Phrase("source")), Column(Phrase("answer")), Column(Phrase("reference")),
        Column(Phrase("character error rate"), ".1%"),
    )  # fmt: skip
    rows = tuple(
        (block.sources[i], block.answers[i], " | ".join(block.references[i]), float(block.rates[i]))
        for i in worst
    )
    return Table(columns, rows)


@data.register
def _(block: charts.EpochSamples) -> dict[str, Any]:
    return {"kind": "samples", "rows": [list(row) for row in block.rows]}


@table.register
def _(block: charts.EpochSamples) -> Table:
    columns = (
        Column(Phrase("epoch"), "d"), Column(Phrase("source")), Column(Phrase("answer")),
        Column(Phrase("reference")),
    )  # fmt: skip
    return Table(columns, block.rows)


@data.register
def _(block: charts.Bars) -> dict[str, Any]:
    groups = [
        [phrase_json(name), None if share is None else _finite(share), size]
        for name, share, size in block.groups
    ]
    return {
        "kind": "bars", "title": phrase_json(block.title), "group": phrase_json(block.group),
        "size": phrase_json(block.size), "groups": groups,
    }  # fmt: skip


@table.register
def _(block: charts.Bars) -> Table:
    return Table((Column(block.group), Column(block.title, ".1%"), Column(block.size, ",d")), block.groups)


def thinned(values: Array, most: int) -> Array:
    """At most so many values at even places, the first and the last one included."""
    if len(values) <= most:
        return values
    kept: Array = values[np.unique(np.linspace(0, len(values) - 1, most).astype(int))]
    return kept


def rounded(values: Any, digits: int = 5) -> list[float | None]:
    """Numbers with some significant digits; None in place of those that are not finite."""
    return [float(f"{value:.{digits}g}") if math.isfinite(value) else None for value in map(float, values)]


def phrase_json(text: str) -> Any:
    """A phrase as its template and values, which the page translates; other text as it is."""
    if not isinstance(text, Phrase):
        return text
    return [text.template, {name: phrase_json(value) for name, value in text.values.items()}]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
