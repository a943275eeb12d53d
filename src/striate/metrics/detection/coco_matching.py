"""COCO's evaluation of a whole data set at once, and pycocotools' records from the kernel's matches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from striate.errors import DataError
from striate.metrics.detection.coco import CocoSettings, run_kernel
from striate.metrics.detection.coco_api import COCO
from striate.metrics.detection.columns import find
from striate.metrics.detection.overlaps import keypoint_overlaps, mask_overlaps
from striate.metrics.detection.records import Floats, Places
from striate.metrics.detection.reference import (
    Curves,
    DetectionColumns,
    Groups,
    MatchRecord,
    TruthColumns,
    box_overlaps_of_pairs,
    group_rows,
)
from striate.metrics.detection.similarity import group_overlaps

Annotation = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What one call of `COCOeval.evaluate` compares.

    Args:
        params: the parameters, as they were then.
        truths: G ground truths.
        detections: D detections.
        truth_ids: G ids of annotations.
        detection_ids: D ids.
        overlaps: of masks or key points, as the kernel wants them; None for boxes.
    """

    params: Any
    truths: TruthColumns
    detections: DetectionColumns
    truth_ids: list[Any]
    detection_ids: list[Any]
    overlaps: Floats | None

    def run(self, recalls: Any, *, matches: bool = False) -> tuple[Curves, MatchRecord | None]:
        """Match and accumulate, with precision at these recall levels."""
        p = self.params
        settings = CocoSettings(
            thresholds=tuple(p.iouThrs),
            recalls=tuple(recalls),
            areas={f"{i}": (float(low), float(high)) for i, (low, high) in enumerate(p.areaRng)},
            limits=tuple(p.maxDets),
            use_categories=bool(p.useCats),
        )
        curves, record, _ = run_kernel(
            self.truths, self.detections, self.overlaps, settings, len(p.imgIds), len(self.classes),
            matches=matches,
        )  # fmt: skip
        return curves, record

    @property
    def classes(self) -> list[Any]:
        """Ids of the classes, [-1] if they are merged."""
        return list(self.params.catIds) if self.params.useCats else [-1]

    @cached_property
    def groups(self) -> Groups:
        """The groups of an image and a class."""
        return group_rows(self.truths, self.detections, self.params.maxDets[-1])

    def ious(self) -> dict[tuple[Any, Any], Any]:
        """Overlaps [D, G] of each image and class, detections by falling score; [] without any pair."""
        out: dict[tuple[Any, Any], Any] = {
            (image, category): [] for image in self.params.imgIds for category in self.classes
        }
        at = self.groups
        d_of, g_of = at.pairs()
        flat = self.overlaps
        if flat is None:
            d, g = at.detections[d_of], at.truths[g_of]
            flat = box_overlaps_of_pairs(self.detections.box[d], self.truths.box[g], self.truths.crowd[g])
        sizes = at.pair_counts()
        ends = np.cumsum(sizes)
        images, classes = self.params.imgIds, self.classes
        for i in np.flatnonzero(sizes).tolist():
            image, category = images[at.image[i]], classes[at.category[i]]
            D = int(at.d_cut[i + 1] - at.d_cut[i])
            out[image, category] = flat[ends[i] - sizes[i] : ends[i]].reshape(D, -1)
        return out

    def records(self) -> list[Annotation | None]:
        """Pycocotools' record for each class, area range and image, in that order; None if it has no rows."""
        p, at = self.params, self.groups
        _, record = self.run(p.recThrs, matches=True)
        assert record is not None
        images, classes = list(p.imgIds), self.classes
        A, N = len(p.areaRng), len(images)
        out: list[Annotation | None] = [None] * (len(classes) * A * N)
        d_ids = [self.detection_ids[i] for i in at.detections.tolist()]
        scores = self.detections.score[at.detections].tolist()
        truth_ids, detection_ids = _with_zero(self.truth_ids), _with_zero(self.detection_ids)
        columns = at.category, at.image, at.d_cut[:-1], at.d_cut[1:], at.g_cut[:-1], at.g_cut[1:]
        bounds = list(zip(*(column.tolist() for column in columns), strict=True))
        group_of_truth = np.repeat(np.arange(at.image.size), np.diff(at.g_cut))
        for a, area in enumerate(p.areaRng):
            low, high = float(area[0]), float(area[1])
            outside = (self.truths.area < low) | (self.truths.area > high)
            ignored = (self.truths.ignore | outside)[at.truths].astype(int)
            order = np.lexsort((ignored, group_of_truth))  # stable: ignored ones last in each group
            rows = at.truths[order]
            g_ids, ignored = [self.truth_ids[i] for i in rows.tolist()], ignored[order]
            took = truth_ids[record.truth_of[a][:, at.detections]]
            taken = detection_ids[record.detection_of[a][:, rows]]
            skipped = record.ignored[a][:, at.detections]
            for k, i, d0, d1, g0, g1 in bounds:
                out[(k * A + a) * N + i] = {
                    "image_id": images[i],
                    "category_id": classes[k],
                    "aRng": area,
                    "maxDet": p.maxDets[-1],
                    "dtIds": d_ids[d0:d1],
                    "gtIds": g_ids[g0:g1],
                    "dtMatches": took[:, d0:d1],
                    "gtMatches": taken[:, g0:g1],
                    "dtScores": scores[d0:d1],
                    "gtIgnore": ignored[g0:g1],
                    "dtIgnore": skipped[:, d0:d1],
                }
        return out


def _with_zero(ids: list[Any]) -> Floats:
    """The ids as floats, with 0 at the end, where an index of -1 finds it."""
    return np.array([*ids, 0], np.float64)


def prepare(truth: COCO, detections: COCO, params: Any) -> Evaluation:
    """Select the annotations that `params` names, as columns, with the overlaps of masks and key points.

    Raises:
        DataError: an annotation lacks a value.
    """
    if params.iouType == "bbox":
        truths, truth_ids, _ = _truths(truth, params)
        found, ids, _ = _detections(detections, params)
        return Evaluation(params, truths, found, truth_ids, ids, None)
    truths, truth_ids, gts = _truths(truth, params, rows_needed=True)
    found, ids, dts = _detections(detections, params, rows_needed=True)
    overlaps = _overlaps(truth, detections, (gts, dts), (truths, found), params)
    return Evaluation(params, truths, found, truth_ids, ids, overlaps)


def _rows(data: Any, params: Any) -> list[Annotation]:
    rows = data.loadAnns(data.getAnnIds(params.imgIds, params.catIds if params.useCats else ()))
    if params.useCats:
        return list(rows)
    place = {id_: i for i, id_ in enumerate(params.catIds)}
    return sorted((r for r in rows if r["category_id"] in place), key=lambda r: place[r["category_id"]])


def _truths(
    data: Any, params: Any, rows_needed: bool = False
) -> tuple[TruthColumns, list[Any], list[Annotation]]:
    """The ground truths as columns, their ids, and their dictionaries, if there are any."""
    columns = None if rows_needed else getattr(data, "columns", None)
    if columns is not None:
        image, category, order = _places(columns, params)
        ids, crowd = columns["id"][order], columns["crowd"][order]
        area = columns["area"][order]
        truths = TruthColumns(image, category, columns["box"][order], area, crowd, crowd, ids == 0)
        return truths, ids.tolist(), []
    rows = _rows(data, params)
    points = params.iouType == "keypoints"
    crowd = _flags(rows, lambda g: g.get("iscrowd", 0))
    ignore = crowd | _flags(rows, lambda g: points and _value(g, "num_keypoints") == 0)
    area = np.array([_value(g, "area") for g in rows], np.float64)
    void = _flags(rows, lambda g: g["id"] == 0)
    return TruthColumns(*_columns(rows, params), area, crowd, ignore, void), [g["id"] for g in rows], rows


def _detections(
    data: Any, params: Any, rows_needed: bool = False
) -> tuple[DetectionColumns, list[Any], list[Annotation]]:
    """The detections, as `_truths`."""
    columns = None if rows_needed else getattr(data, "columns", None)
    if columns is not None and "score" in columns:
        image, category, order = _places(columns, params)
        ids = np.arange(1, columns["score"].size + 1)[order].tolist()
        found = DetectionColumns(image, category, columns["box"][order], columns["score"][order], None, None)
        return found, ids, []
    rows = _rows(data, params)
    score, area = (np.array([_value(d, key) for d in rows], np.float64) for key in ("score", "area"))
    meek = _flags(rows, lambda d: d["id"] <= 0)
    return DetectionColumns(*_columns(rows, params), score, area, meek), [d["id"] for d in rows], rows


def _value(row: Annotation, key: str) -> Any:
    try:
        return row[key]
    except KeyError:
        raise DataError(f"annotation {row['id']!r}", f"it has no {key!r}") from None


def _columns(rows: list[Annotation], params: Any) -> tuple[Places, Places, Floats]:
    image = {id_: i for i, id_ in enumerate(params.imgIds)}
    category = {id_: i if params.useCats else 0 for i, id_ in enumerate(params.catIds)}
    return (
        np.array([image.get(r["image_id"], -1) for r in rows], np.int32),
        np.array([category.get(r["category_id"], -1) for r in rows], np.int32),
        np.array([r.get("bbox", [0] * 4) for r in rows], np.float64).reshape(-1, 4),
    )


def _flags(rows: list[Annotation], flag: Callable[[Annotation], Any]) -> Any:
    return np.array([bool(flag(row)) for row in rows], np.bool_)


def _places(columns: dict[str, Any], params: Any) -> tuple[Places, Places, Any]:
    """Indices of image and class of each row; and the order of the rows, which ties depend on."""
    image = find(columns["image"], np.asarray(params.imgIds))
    known = np.asarray(params.catIds)
    order = np.argsort(known, kind="stable")
    category = find(columns["category"], known[order])
    if params.useCats:
        return image, category, slice(None)
    place = np.append(order, -1)[category]
    rows = np.argsort(place, kind="stable")
    rows = rows[place[rows] >= 0]
    return image[rows], np.zeros(rows.size, np.int32), rows


def _overlaps(
    truth: Any, detections: Any, rows: Any, columns: tuple[TruthColumns, DetectionColumns], params: Any
) -> Floats:
    """Overlaps of the masks or key points of each group, one group after the other."""
    gts, dts = rows
    if params.iouType == "segm":
        true_masks, masks = [truth.annToRLE(g) for g in gts], [detections.annToRLE(d) for d in dts]

        def overlap(d: Any, g: Any, crowd: Any) -> Floats:
            return mask_overlaps(
                [masks[i] for i in d], [true_masks[i] for i in g], crowd.astype(int).tolist()
            )

    else:
        sigmas = np.asarray(params.kpt_oks_sigmas)

        def overlap(d: Any, g: Any, crowd: Any) -> Floats:
            return keypoint_overlaps([dts[i] for i in d], [gts[i] for i in g], sigmas)

    return group_overlaps(*columns, params.maxDets[-1], overlap)
